/** One query over ClickHouse's HTTP interface, its answer as it comes. */
import * as http from 'node:http';
import * as https from 'node:https';

export interface SqlServer {
  readonly url: string;
  readonly database: string;
  readonly username: string;
  readonly password: string;
}

export interface ServerAnswer {
  readonly status: number;
  header(name: string): string | undefined;
  /** Chunks of the body. What came before a broken connection is given out before the error is thrown. */
  readonly chunks: AsyncGenerator<Uint8Array, void, undefined>;
}

/**
 * The body, taken from the socket as it comes: after an exception the server breaks the connection off, and a stream
 * that waits for its reader would drop what it holds then. `maxBytes` bounds what is held.
 */
async function* bodyOf(
  response: http.IncomingMessage,
  maxBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const queue: Uint8Array[] = [];
  let receivedBytes = 0;
  let ended = false;
  let failure: Error | undefined;
  let wake = (): void => undefined;
  response.on('data', (chunk: Uint8Array) => {
    queue.push(chunk);
    receivedBytes += chunk.byteLength;
    if (receivedBytes > maxBytes) response.destroy();
    wake();
  });
  response.on('error', (error) => {
    failure = error;
    wake();
  });
  response.on('close', () => {
    ended = true;
    wake();
  });
  for (;;) {
    const chunk = queue.shift();
    if (chunk !== undefined) {
      yield chunk;
      continue;
    }
    if (ended) break;
    const { promise, resolve } = Promise.withResolvers<void>();
    wake = resolve;
    await promise;
  }
  if (receivedBytes <= maxBytes && failure !== undefined) throw failure;
}

/** Sends a query and resolves with the head of its answer. @throws what the socket says, or the reason of `signal`. */
export async function sendQuery(
  server: SqlServer,
  query: string,
  parameters: URLSearchParams,
  options: { readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<ServerAnswer> {
  const url = new URL(`${server.url}/`);
  url.search = parameters.toString();
  const send = url.protocol === 'https:' ? https.request : http.request;
  const body = Buffer.from(query);
  const { promise, resolve, reject } = Promise.withResolvers<ServerAnswer>();
  const request = send(url, {
    method: 'POST',
    agent: false,
    signal: options.signal,
    headers: {
      'x-clickhouse-user': server.username,
      'x-clickhouse-key': server.password,
      'content-type': 'text/plain; charset=utf-8',
      'content-length': body.byteLength,
    },
  });
  request.on('error', reject);
  request.on('response', (response) => {
    resolve({
      status: response.statusCode ?? 0,
      header: (name) => {
        const value = response.headers[name];
        return Array.isArray(value) ? value[0] : value;
      },
      chunks: bodyOf(response, options.maxBytes),
    });
  });
  request.end(body);
  return promise;
}
