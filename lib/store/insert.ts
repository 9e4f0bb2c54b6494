/** Inserts over HTTP: a list of chunks as one request body, and an answer only when the server has it all. */
import * as http from 'node:http';
import * as https from 'node:https';
import { serverError, storeError } from './errors.ts';
import { StoreUnavailableError } from './store.ts';

export interface InsertTarget {
  readonly url: string;
  readonly database: string;
  readonly username: string;
  readonly password: string;
  readonly timeoutMs: number;
  readonly agent: http.Agent;
}

/** Answers to inserts are empty or an error; more than this is not read. */
const answerLimitBytes = 64 * 1024;

/** Connections that are kept open; the server closes idle ones later than this. */
export function insertAgent(url: string, maxSockets: number): http.Agent {
  const options = { keepAlive: true, maxSockets, keepAliveMsecs: 1_000, timeout: 0 };
  return url.startsWith('https:') ? new https.Agent(options) : new http.Agent(options);
}

function settingsOf(token: string | undefined, rowCount: number): Record<string, string> {
  const block = String(Math.max(rowCount, 1_048_576));
  return {
    ...(token === undefined
      ? { insert_deduplicate: '0' }
      : { insert_deduplication_token: token, deduplicate_blocks_in_dependent_materialized_views: '1' }),
    async_insert: '0',
    // One insert is one block, or a token would stand for several.
    input_format_parallel_parsing: '0',
    max_insert_block_size: block,
    min_insert_block_size_rows: block,
    min_insert_block_size_bytes: '0',
    max_insert_threads: '1',
    // The status line waits for the views, so that a late failure isn't a 200.
    wait_end_of_query: '1',
  };
}

async function readAnswer(response: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) if (text.length < answerLimitBytes) text += String(chunk);
  return text;
}

/**
 * Sends `INSERT ... FORMAT x` with the body and waits until it is written.
 * `rowCount` is the size of the block; throws as `Store` says.
 */
export async function sendInsert(
  target: InsertTarget,
  statement: string,
  chunks: readonly Uint8Array[],
  rowCount: number,
  token: string | undefined,
): Promise<void> {
  const address = new URL(`${target.url}/`);
  const query = new URLSearchParams({
    database: target.database,
    query: statement,
    ...settingsOf(token, rowCount),
  });
  address.search = query.toString();
  let byteLength = 0;
  for (const chunk of chunks) byteLength += chunk.length;
  const doing = statement.slice(0, statement.indexOf(' ('));
  const send = address.protocol === 'https:' ? https.request : http.request;
  const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
  const request = send(address, {
    method: 'POST',
    agent: target.agent,
    signal: AbortSignal.timeout(target.timeoutMs),
    headers: {
      'x-clickhouse-user': target.username,
      ...(target.password === '' ? {} : { 'x-clickhouse-key': target.password }),
      'content-type': 'application/octet-stream',
      'content-length': byteLength,
    },
  });
  request.on('response', resolve);
  request.on('error', reject);
  request.cork();
  for (const chunk of chunks) request.write(chunk);
  request.end();
  process.nextTick(() => request.uncork());
  try {
    const response = await promise;
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
