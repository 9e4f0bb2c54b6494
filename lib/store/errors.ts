/** Sorts what ClickHouse and the network say into 'try again' and 'never'. */
import { ClickHouseError } from '@clickhouse/client';
import { StoreRefusedError, StoreUnavailableError } from './store.ts';

/** Server errors that pass, by number: load, limits of the moment, replicas and keepers that are away, a server going down. */
const passing: ReadonlyMap<number, string> = new Map([
  [75, 'CANNOT_WRITE_TO_FILE_DESCRIPTOR'],
  [76, 'CANNOT_OPEN_FILE'],
  [159, 'TIMEOUT_EXCEEDED'],
  [173, 'CANNOT_ALLOCATE_MEMORY'],
  [201, 'QUOTA_EXCEEDED'],
  [202, 'TOO_MANY_SIMULTANEOUS_QUERIES'],
  [209, 'SOCKET_TIMEOUT'],
  [210, 'NETWORK_ERROR'],
  [225, 'NO_ZOOKEEPER'],
  [236, 'ABORTED'],
  [241, 'MEMORY_LIMIT_EXCEEDED'],
  [242, 'TABLE_IS_READ_ONLY'],
  [243, 'NOT_ENOUGH_SPACE'],
  [252, 'TOO_MANY_PARTS'],
  [279, 'ALL_CONNECTION_TRIES_FAILED'],
  [285, 'TOO_FEW_LIVE_REPLICAS'],
  [286, 'UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE'],
  [319, 'UNKNOWN_STATUS_OF_INSERT'],
  [341, 'UNFINISHED'],
  [369, 'ALL_REPLICAS_ARE_STALE'],
  [394, 'QUERY_WAS_CANCELLED'],
  [439, 'CANNOT_SCHEDULE_TASK'],
  [473, 'DEADLOCK_AVOIDED'],
  [722, 'ASYNC_LOAD_WAIT_FAILED'],
  [735, 'QUERY_WAS_CANCELLED_BY_CLIENT'],
  [745, 'SERVER_OVERLOADED'],
  [999, 'KEEPER_EXCEPTION'],
]);

/** Longest server message that is passed on, in characters. */
const messageLimit = 500;

function shorten(message: string): string {
  const line = message.replace(/\s+/g, ' ').trim();
  return line.length > messageLimit ? `${line.slice(0, messageLimit)}...` : line;
}

function codedError(
  code: number,
  name: string,
  message: string,
  doing: string,
): StoreUnavailableError | StoreRefusedError {
  const passingName = passing.get(code);
  const text = `${doing}: ${shorten(message)} (${passingName ?? name})`;
  return passingName === undefined
    ? new StoreRefusedError(name, text)
    : new StoreUnavailableError(passingName, text);
}

/** `Code: 60. DB::Exception: Table x doesn't exist. (UNKNOWN_TABLE) (version ...)`; the name is the last of its kind. */
const serverMessage = /Code: (\d+)\. [\s\S]*?Exception: ([\s\S]*)$/;
const errorName = /\(([A-Z][A-Z0-9_]{2,})\)(?=\s*(?:\(version|$))/;

/** The error for what the server answered with: its own code decides, the HTTP status (0: not known) where it gives none. */
export function serverError(
  text: string,
  status: number,
  doing: string,
): StoreUnavailableError | StoreRefusedError {
  const match = serverMessage.exec(text.trim());
  const rest = match?.[2];
  if (match !== null && rest !== undefined) {
    const name = errorName.exec(rest);
    const message = name === null ? rest : rest.slice(0, name.index);
    return codedError(Number(match[1]), name?.[1] ?? `CODE_${match[1]}`, message, doing);
  }
  const message = status === 0 ? `${doing}: ${shorten(text)}` : `${doing}: HTTP ${status}: ${shorten(text)}`;
  const isRefusal = status < 500 && status !== 408 && status !== 429;
  const name = status === 0 ? 'UNKNOWN' : `HTTP_${status}`;
  return isRefusal ? new StoreRefusedError(name, message) : new StoreUnavailableError(name, message);
}

/** `ECONNREFUSED` and the like; the client's own timeout has no code. */
function socketCode(error: Error): string | null {
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.message === 'Timeout error.' ? 'TIMEOUT' : null;
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
    return codedError(Number(error.code), error.type ?? `CODE_${error.code}`, error.message, doing);
  }
  const code = socketCode(error);
  if (code === null) return serverError(error.message, 0, doing);
  const cause = shorten(error.message) || code;
  return new StoreUnavailableError(code, `${doing}: ClickHouse at ${url} can't be reached: ${cause}`, {
    cause: error,
  });
}
