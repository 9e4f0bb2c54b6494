/**
 * SQL that people write, run as the user that ClickHouse only lets read. The server refuses what writes, reads files or
 * reaches out (readonly profile and grants); here the answer is kept within rows, bytes and seconds.
 */
import type { SqlLimits } from '../config.ts';
import { ProblemError } from '../problem.ts';
import type { SqlColumn } from './formats.ts';
import { forbiddenUse, guardPrefix, withoutPrefix } from './guard.ts';
import { type LineBudget, linesWithin } from './lines.ts';
import { type SqlParameters, sqlParameter } from './parameters.ts';
import { type ServerAnswer, type SqlServer, sendQuery } from './transport.ts';

export type { SqlServer };

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
  /** Each row as a JSON array, as many at once as came together. */
  readonly rows: AsyncGenerator<string[], void, undefined>;
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

async function send(
  server: SqlServer,
  request: SqlRequest,
  limits: SqlLimits,
  signal: AbortSignal,
): Promise<ServerAnswer> {
  const parameters = new URLSearchParams({ database: server.database, default_format: rowFormat });
  for (const [name, value] of Object.entries(request.params))
    parameters.set(`param_${name}`, sqlParameter(value));
  try {
    return await sendQuery(server, request.query, parameters, { maxBytes: limits.maxBytes, signal });
  } catch (error) {
    if (isAbort(error)) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new ProblemError('store-unavailable', `ClickHouse does not answer: ${why}`, {
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

async function* noRows(): AsyncGenerator<string[], void, undefined> {}

interface RowStream {
  readonly lines: AsyncGenerator<string[], void, undefined>;
  readonly budget: LineBudget;
  readonly end: SqlEnd;
  readonly timeout: AbortSignal;
  /** Aborted when nobody waits for the answer any more. */
  readonly client: AbortSignal;
  stop(): void;
}

/** Rows until a limit is reached; what ends them early is written to `end`. `first` are lines that came with the head. */
async function* rowsWithin(
  first: string[],
  stream: RowStream,
  limits: SqlLimits,
): AsyncGenerator<string[], void, undefined> {
  const { lines, budget, end, timeout, client } = stream;
  try {
    for await (const batch of following(first, lines)) {
      // An exception after the first rows comes as text among them; the connection breaks after it.
      const foreign = batch.findIndex((line) => !line.startsWith('['));
      const rows = foreign < 0 ? batch : batch.slice(0, foreign);
      const room = limits.maxRows - end.rowCount;
      const kept = rows.length > room ? rows.slice(0, room) : rows;
      end.rowCount += kept.length;
      if (kept.length > 0) yield kept;
      if (rows.length > room) {
        end.truncatedBy = 'rows';
        return;
      }
      if (foreign >= 0) {
        end.error = await exceptionIn(batch.slice(foreign), lines);
        return;
      }
    }
    if (budget.left < 0) end.truncatedBy = 'bytes';
  } catch (error) {
    if (client.aborted) throw error;
    if (timeout.aborted) end.truncatedBy = 'seconds';
    else end.error = 'the connection to ClickHouse broke before the answer was whole';
  } finally {
    stream.stop();
  }
}

async function* following(
  first: string[],
  rest: AsyncGenerator<string[], void, undefined>,
): AsyncGenerator<string[], void, undefined> {
  if (first.length > 0) yield first;
  yield* rest;
}

async function exceptionIn(
  first: readonly string[],
  rest: AsyncGenerator<string[], void, undefined>,
): Promise<string> {
  const parts = [...first];
  try {
    for await (const batch of rest) parts.push(...batch);
  } catch {
    // The server breaks the connection off after an exception; what came before says it.
  }
  return readException(parts.join('\n')).message;
}

async function textOf(answer: ServerAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of answer.chunks) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

async function refuse(answer: ServerAnswer, server: SqlServer): Promise<never> {
  const { message, code } = readException(await textOf(answer));
  if (authenticationCodes.has(code)) {
    throw new ProblemError(
      'sql-unavailable',
      `ClickHouse does not know the user "${server.username}"; create it with a readonly=1 profile, or name another one in store.reader.username and store.reader.password`,
      { code },
    );
  }
  throw new ProblemError('bad-query', message, { code });
}

/** At least the two lines of names and types, with what came along; fewer where the answer ends before. */
async function headOf(lines: AsyncGenerator<string[], void, undefined>): Promise<string[]> {
  const head: string[] = [];
  while (head.length < 2) {
    const next = await lines.next();
    if (next.done === true) break;
    head.push(...next.value);
  }
  return head;
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
    const answer = await send(server, request, limits, any);
    if (answer.status !== 200) return await refuse(answer, server);
    const format = answer.header('x-clickhouse-format');
    if (format !== undefined && format !== rowFormat) {
      stopper.abort();
      throw new ProblemError(
        'bad-query',
        `leave FORMAT ${format} out of the query; the field "format" of the body says how to answer`,
      );
    }
    const lines = linesWithin(answer.chunks, budget);
    const head = await headOf(lines);
    const [names, types, ...first] = head;
    if (names !== undefined && !names.startsWith('['))
      throw new ProblemError('bad-query', await exceptionIn(head, lines));
    if (names === undefined || types === undefined) {
      stopper.abort();
      if (budget.left < 0)
        throw new ProblemError('bad-query', `not even the column names fit into ${limits.maxBytes} bytes`);
      return { columns: [], rows: noRows(), end };
    }
    const stream = { lines, budget, end, timeout, client: signal, stop: () => stopper.abort() };
    return { columns: columnsOf(names, types), rows: rowsWithin(first, stream, limits), end };
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
  for await (const [line] of result.rows) {
    if (line === '["1"]') return;
    throw new ProblemError(
      'sql-unavailable',
      `the ClickHouse user "${server.username}" may change settings or data; give it a profile with readonly=1 (store.reader)`,
    );
  }
}

/** A parsed query is longer than its text; what is longer than this is refused. */
const treeLimits = { maxRows: 500_000, maxBytes: 64 * 1024 * 1024 };

/**
 * Refuses what only the parsed query shows; see guard.ts.
 * @throws {ProblemError} `bad-query`, also where the query can't be parsed.
 */
export async function guardSql(
  server: SqlServer,
  request: SqlRequest,
  limits: SqlLimits,
  signal: AbortSignal,
): Promise<void> {
  const explained = { ...request, query: `${guardPrefix}${request.query}` };
  const lines: string[] = [];
  try {
    const { rows, end } = await runSql(server, explained, { ...limits, ...treeLimits }, signal);
    for await (const batch of rows) {
      for (const row of batch) {
        const values: unknown = JSON.parse(row);
        if (Array.isArray(values)) lines.push(String(values[0]));
      }
    }
    if (end.truncatedBy !== null || end.error !== null) {
      throw new ProblemError('bad-query', end.error ?? 'the query is too large to be checked');
    }
  } catch (error) {
    if (!(error instanceof ProblemError) || error.kind !== 'bad-query') throw error;
    throw new ProblemError('bad-query', withoutPrefix(error.message), error.extra);
  }
  const why = forbiddenUse(request.query, lines);
  if (why !== null) throw new ProblemError('bad-query', why);
}
