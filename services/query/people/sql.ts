/**
 * SQL that people write, run as the user that ClickHouse only lets read. The server refuses what writes, reads files or
 * reaches out (readonly profile and grants); here the answer is kept within rows, bytes and seconds.
 */
import type { SqlLimits } from '../config.ts';
import { ProblemError } from '../problem.ts';
import type { SqlColumn } from './formats.ts';
import { type LineBudget, linesWithin } from './lines.ts';
import { type SqlParameters, sqlParameter } from './parameters.ts';

export interface SqlServer {
  readonly url: string;
  readonly database: string;
  readonly username: string;
  readonly password: string;
}

export interface SqlRequest {
  readonly query: string;
  readonly params: SqlParameters;
}

export type TruncatedBy = 'rows' | 'bytes' | 'seconds';

/** How an answer ended; whole once its rows are read. */
export interface SqlEnd {
  rowCount: number;
  truncatedBy: TruncatedBy | null;
  /** What ClickHouse said after the first rows were sent; null for nothing. */
  error: string | null;
}

export interface SqlResult {
  readonly columns: readonly SqlColumn[];
  /** Each row as a JSON array. */
  readonly rows: AsyncGenerator<string, void, undefined>;
  readonly end: SqlEnd;
}

const rowFormat = 'JSONCompactEachRowWithNamesAndTypes';
/** Longest message of ClickHouse that is passed on, in characters. */
const messageLimit = 2_000;
/** ClickHouse: AUTHENTICATION_FAILED and UNKNOWN_USER. */
const authenticationCodes = new Set(['AUTHENTICATION_FAILED', 'UNKNOWN_USER', 'REQUIRED_PASSWORD']);

/** ClickHouse's words without its version and prefixes, and its name of the error. */
export function readException(text: string): { readonly message: string; readonly code: string } {
  const start = text.indexOf('Code: ');
  const whole = (start < 0 ? text : text.slice(start)).slice(0, messageLimit * 2);
  const code = /\(([A-Z][A-Z0-9_]+)\)(?: \(version[^)]*\))?/.exec(whole)?.[1] ?? 'UNKNOWN';
  const message = whole
    .replace(/^Code: \d+\. /, '')
    .replace(/^DB::Exception: /, '')
    .replace(/ \(version [\s\S]*$/, '')
    .replace(/ ?\([A-Z][A-Z0-9_]+\)\s*$/, '')
    .trim();
  return { message: message.slice(0, messageLimit), code };
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError');
}

async function send(server: SqlServer, request: SqlRequest, signal: AbortSignal): Promise<Response> {
  const url = new URL(`${server.url}/`);
  url.searchParams.set('database', server.database);
  url.searchParams.set('default_format', rowFormat);
  for (const [name, value] of Object.entries(request.params))
    url.searchParams.set(`param_${name}`, sqlParameter(value));
  try {
    return await fetch(url, {
      method: 'POST',
      body: request.query,
      headers: { 'X-ClickHouse-User': server.username, 'X-ClickHouse-Key': server.password },
      signal,
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    const cause =
      error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    throw new ProblemError('store-unavailable', `ClickHouse does not answer: ${cause}`, {
      retryAfterSeconds: 2,
    });
  }
}

function columnsOf(names: string, types: string): SqlColumn[] {
  const nameList: unknown = JSON.parse(names);
  const typeList: unknown = JSON.parse(types);
  if (!Array.isArray(nameList) || !Array.isArray(typeList)) throw new Error('ClickHouse sent no columns');
  return nameList.map((name, index) => ({ name: String(name), type: String(typeList[index]) }));
}

async function* noRows(): AsyncGenerator<string, void, undefined> {}

/** Rows until a limit is reached; what ends them early is written to `end`. */
async function* rowsWithin(
  lines: AsyncGenerator<string, void, undefined>,
  budget: LineBudget,
  limits: SqlLimits,
  end: SqlEnd,
  timeout: AbortSignal,
  stop: () => void,
): AsyncGenerator<string, void, undefined> {
  try {
    for await (const line of lines) {
      // An exception after the first rows comes as text among them.
      if (!line.startsWith('[')) {
        end.error = await restOf(line, lines);
        return;
      }
      if (end.rowCount >= limits.maxRows) {
        end.truncatedBy = 'rows';
        return;
      }
      end.rowCount++;
      yield line;
    }
    if (budget.left < 0) end.truncatedBy = 'bytes';
  } catch (error) {
    if (!timeout.aborted) throw error;
    end.truncatedBy = 'seconds';
  } finally {
    stop();
  }
}

async function restOf(first: string, lines: AsyncGenerator<string, void, undefined>): Promise<string> {
  const parts = [first];
  for await (const line of lines) if (parts.length < 50) parts.push(line);
  return readException(parts.join('\n')).message;
}

async function refuse(response: Response, server: SqlServer): Promise<never> {
  const { message, code } = readException(await response.text());
  if (authenticationCodes.has(code)) {
    throw new ProblemError(
      'sql-unavailable',
      `ClickHouse does not know the user "${server.username}"; create it with a readonly=1 profile, or name another one in store.reader.username and store.reader.password`,
      { code },
    );
  }
  throw new ProblemError('bad-query', message, { code });
}

/**
 * Runs one query. Resolves when the first rows are there.
 * @throws {ProblemError} `bad-query` for what ClickHouse refuses, `sql-unavailable`, `store-unavailable`.
 */
export async function runSql(
  server: SqlServer,
  request: SqlRequest,
  limits: SqlLimits,
  signal: AbortSignal,
): Promise<SqlResult> {
  const stopper = new AbortController();
  const timeout = AbortSignal.timeout(limits.maxSeconds * 1000);
  const any = AbortSignal.any([signal, timeout, stopper.signal]);
  const budget = { left: limits.maxBytes };
  const end: SqlEnd = { rowCount: 0, truncatedBy: null, error: null };
  try {
    const response = await send(server, request, any);
    if (!response.ok) return await refuse(response, server);
    const format = response.headers.get('x-clickhouse-format');
    if (format !== null && format !== rowFormat) {
      stopper.abort();
      throw new ProblemError(
        'bad-query',
        `leave FORMAT ${format} out of the query; the field "format" of the body says how to answer`,
      );
    }
    if (response.body === null) return { columns: [], rows: noRows(), end };
    const lines = linesWithin(response.body, budget);
    const names = (await lines.next()).value;
    const types = (await lines.next()).value;
    if (names === undefined || types === undefined) {
      stopper.abort();
      if (budget.left < 0)
        throw new ProblemError('bad-query', `not even the column names fit into ${limits.maxBytes} bytes`);
      return { columns: [], rows: noRows(), end };
    }
    if (!names.startsWith('['))
      throw new ProblemError('bad-query', await restOf(`${names}\n${types}`, lines));
    const rows = rowsWithin(lines, budget, limits, end, timeout, () => stopper.abort());
    return { columns: columnsOf(names, types), rows, end };
  } catch (error) {
    if (timeout.aborted && !signal.aborted) {
      throw new ProblemError(
        'bad-query',
        `the query took longer than ${limits.maxSeconds} s (query.sql.maxSeconds)`,
        {
          code: 'TIMEOUT_EXCEEDED',
        },
      );
    }
    throw error;
  }
}

/**
 * Whether the server really lets this user only read; asked once, before the first query of people runs.
 * @throws {ProblemError} `sql-unavailable` where it would let more happen.
 */
export async function checkReadonly(
  server: SqlServer,
  limits: SqlLimits,
  signal: AbortSignal,
): Promise<void> {
  const result = await runSql(
    server,
    { query: `SELECT toString(getSetting('readonly'))`, params: {} },
    limits,
    signal,
  );
  for await (const line of result.rows) {
    if (line === '["1"]') return;
    throw new ProblemError(
      'sql-unavailable',
      `the ClickHouse user "${server.username}" may change settings or data; give it a profile with readonly=1 (store.reader)`,
    );
  }
}
