/** Sorts what ClickHouse and the network say into 'try again' and 'never'. */
import { ClickHouseError, parseError } from '@clickhouse/client';
import { StoreRefusedError, StoreUnavailableError } from './store.ts';

/** Server errors that pass: load, limits of the moment, replicas and keepers that are away, a server going down. */
const passing = new Set([
  'MEMORY_LIMIT_EXCEEDED',
  'TOO_MANY_PARTS',
  'TOO_MANY_SIMULTANEOUS_QUERIES',
  'TIMEOUT_EXCEEDED',
  'SOCKET_TIMEOUT',
  'NETWORK_ERROR',
  'CANNOT_READ_ALL_DATA_FROM_SOCKET',
  'QUERY_WAS_CANCELLED',
  'QUERY_WAS_CANCELLED_BY_CLIENT',
  'ABORTED',
  'NOT_ENOUGH_SPACE',
  'CANNOT_RESERVE_SPACE',
  'CANNOT_ALLOCATE_MEMORY',
  'CANNOT_SCHEDULE_TASK',
  'CANNOT_WRITE_TO_FILE_DESCRIPTOR',
  'CANNOT_OPEN_FILE',
  'TABLE_IS_READ_ONLY',
  'NO_ZOOKEEPER',
  'KEEPER_EXCEPTION',
  'ALL_CONNECTION_TRIES_FAILED',
  'ALL_REPLICAS_ARE_STALE',
  'TOO_FEW_LIVE_REPLICAS',
  'UNKNOWN_STATUS_OF_INSERT',
  'UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE',
  'DEADLOCK_AVOIDED',
  'ASYNC_LOAD_WAIT_FAILED',
  'SERVER_OVERLOADED',
  'QUOTA_EXCEEDED',
]);

/** Longest server message that is passed on, in characters. */
const messageLimit = 500;

function shorten(message: string): string {
  const line = message.replace(/\s+/g, ' ').trim();
  return line.length > messageLimit ? `${line.slice(0, messageLimit)}...` : line;
}

/** The error for what the server answered with: its own code decides, the HTTP status only where it gives none. */
export function serverError(
  text: string,
  status: number,
  doing: string,
): StoreUnavailableError | StoreRefusedError {
  const parsed = parseError(text);
  if (parsed instanceof ClickHouseError) {
    const code = parsed.type ?? parsed.code;
    const message = `${doing}: ${shorten(parsed.message)} (${code})`;
    return passing.has(code)
      ? new StoreUnavailableError(code, message)
      : new StoreRefusedError(code, message);
  }
  const message = `${doing}: HTTP ${status}: ${shorten(text)}`;
  const isRefusal = status >= 400 && status < 500 && status !== 408 && status !== 429;
  return isRefusal
    ? new StoreRefusedError(`HTTP_${status}`, message)
    : new StoreUnavailableError(`HTTP_${status}`, message);
}

function socketCode(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : 'NETWORK';
}

/** The error for whatever a request threw: the server's own words, or a network that failed. */
export function storeError(
  error: unknown,
  doing: string,
  url: string,
): StoreUnavailableError | StoreRefusedError {
  if (error instanceof StoreUnavailableError || error instanceof StoreRefusedError) return error;
  if (!(error instanceof Error))
    return new StoreRefusedError('UNKNOWN', `${doing}: ${shorten(String(error))}`);
  if (error instanceof ClickHouseError) {
    return serverError(
      `Code: ${error.code}. DB::Exception: ${error.message} (${error.type ?? 'UNKNOWN'})`,
      0,
      doing,
    );
  }
  const code = socketCode(error);
  const cause = shorten(error.message) || code;
  return new StoreUnavailableError(code, `${doing}: ClickHouse at ${url} can't be reached: ${cause}`, {
    cause: error,
  });
}
