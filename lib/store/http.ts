/** Statements and inserts over HTTP: a list of chunks as one request body, and an answer only when all of it is done. */
import { randomUUID } from 'node:crypto';
import * as http from 'node:http';
import * as https from 'node:https';
import { serverError, storeError } from './errors.ts';
import { StoreUnavailableError } from './store.ts';

export interface HttpTarget {
  readonly url: string;
  readonly database: string;
  readonly username: string;
  readonly password: string;
  readonly timeoutMs: number;
  readonly agent: http.Agent;
}

/** Answers to writes are empty or an error; more than this is not read. */
const answerLimitBytes = 64 * 1024;

/** Connections that are kept open; the server closes idle ones later than this. */
export function keepAliveAgent(url: string, maxSockets: number): http.Agent {
  const options = { keepAlive: true, maxSockets, keepAliveMsecs: 1_000, timeout: 0 };
  return url.startsWith('https:') ? new https.Agent(options) : new http.Agent(options);
}

/** What of a statement names it in an error, in characters. */
const statementLimit = 60;
/** Smallest block size that inserts ask for; ClickHouse's own default. */
const blockRows = 1_048_576;

function insertSettings(token: string | undefined, rowCount: number): Record<string, string> {
  const rows = String(Math.max(rowCount, blockRows));
  return {
    // Without a token the server would drop what equals an earlier insert: one of its own keeps each.
    insert_deduplication_token: token ?? randomUUID(),
    deduplicate_blocks_in_dependent_materialized_views: '1',
    async_insert: '0',
    // One insert is one block, or a token would stand for several.
    input_format_parallel_parsing: '0',
    max_insert_threads: '1',
    // Compiling what a view computes takes longer than computing it.
    compile_expressions: '0',
    compile_aggregate_expressions: '0',
    // Views have grouped their rows already.
    optimize_on_insert: '0',
    max_insert_block_size: rows,
    min_insert_block_size_rows: rows,
    min_insert_block_size_bytes: '0',
    // Days are partitions; a block of late flows may hold many.
    max_partitions_per_insert_block: '0',
    // On a cluster: every shard has its rows when the insert is acknowledged.
    distributed_foreground_insert: '1',
  };
}

async function readAnswer(response: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) if (text.length < answerLimitBytes) text += String(chunk);
  return text;
}

/** One POST; resolves when the server says that it is done, and throws as `Store` says. */
async function post(
  target: HttpTarget,
  parameters: Readonly<Record<string, string>>,
  chunks: readonly Uint8Array[],
  doing: string,
): Promise<void> {
  const address = new URL(`${target.url}/`);
  // The status line waits for the end of the work, views included, so that a late failure isn't a 200.
  address.search = new URLSearchParams({
    database: target.database,
    wait_end_of_query: '1',
    ...parameters,
  }).toString();
  let byteLength = 0;
  for (const chunk of chunks) byteLength += chunk.length;
  const send = address.protocol === 'https:' ? https.request : http.request;
  const signal = AbortSignal.timeout(target.timeoutMs);
  const attempt = (agent: http.Agent | false): Promise<http.IncomingMessage> => {
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const request = send(address, {
      method: 'POST',
      agent,
      signal,
      headers: {
        'x-clickhouse-user': target.username,
        ...(target.password === '' ? {} : { 'x-clickhouse-key': target.password }),
        'content-type': 'application/octet-stream',
        'content-length': byteLength,
      },
    });
    request.on('response', resolve);
    request.on('error', (error) => {
      // The server had closed the kept connection before it saw the request: that is no failure of the server's.
      if (agent !== false && request.reusedSocket && !signal.aborted) attempt(false).then(resolve, reject);
      else reject(error);
    });
    request.cork();
    for (const chunk of chunks) request.write(chunk);
    request.end();
    return promise;
  };
  try {
    const response = await attempt(target.agent);
    const text = await readAnswer(response);
    const status = response.statusCode ?? 0;
    const failed = status !== 200 || response.headers['x-clickhouse-exception-code'] !== undefined;
    if (failed || text.includes('DB::Exception')) throw serverError(text, status, doing);
    if (!response.complete) throw new StoreUnavailableError('TRUNCATED', `${doing}: the answer was cut off`);
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') {
      throw new StoreUnavailableError('TIMEOUT', `${doing}: no answer within ${target.timeoutMs} ms`, {
        cause: error,
      });
    }
    throw storeError(error, doing, target.url);
  }
}

/**
 * Sends `INSERT INTO t (...) FORMAT x` with its data and waits until it is written.
 * `rowCount` is the size of the block; without a token, equal data is added again.
 */
export async function sendInsert(
  target: HttpTarget,
  statement: string,
  chunks: readonly Uint8Array[],
  rowCount: number,
  token: string | undefined,
): Promise<void> {
  const parameters = { query: statement, ...insertSettings(token, rowCount) };
  await post(target, parameters, chunks, statement.slice(0, statement.indexOf(' (')));
}

/** Sends `INSERT INTO t SELECT ... ORDER BY ALL` and waits until it is written. `{name:Type}` are bound from `params`. */
export async function sendInsertSelect(
  target: HttpTarget,
  statement: string,
  params: Readonly<Record<string, string | number>>,
  token: string,
): Promise<void> {
  const bound = Object.entries(params).map(([name, value]) => [`param_${name}`, String(value)]);
  const parameters = {
    ...insertSettings(token, blockRows),
    ...Object.fromEntries(bound),
    // The order makes the rows the same at each try; a server that can't rely on it says so.
    deduplicate_insert_select: 'force_enable',
    max_threads: '1',
  };
  await post(target, parameters, [Buffer.from(statement)], statement.slice(0, statement.indexOf(' SELECT')));
}

/** Sends a statement without a result and waits until it is done. */
export async function sendStatement(target: HttpTarget, statement: string): Promise<void> {
  await post(
    target,
    {},
    [Buffer.from(statement)],
    statement.slice(0, statementLimit).split('\n', 1)[0] ?? '',
  );
}
