/** Asks the HTTP API; failures come in words that say what to do. */
import { request as httpRequest } from 'node:http';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { defaultUrl } from './options.ts';

/** Longest wait for an answer, milliseconds. */
const timeoutMs = 120_000;

export interface Client {
  readonly url: string;
  /** JSON of a path with parameters; those that are undefined are left out. */
  get<T>(path: string, parameters: Readonly<Record<string, string | undefined>>): Promise<T>;
  /** The lines of an answer as they come. */
  lines(path: string, parameters: Readonly<Record<string, string | undefined>>): AsyncGenerator<string>;
  post<T>(path: string, body: unknown): Promise<T>;
  /** @param token bearer token, where one is needed */
  put<T>(path: string, body: unknown, token?: string): Promise<T>;
  /** The body of an answer as it comes; resolves with its trailers by name. */
  stream(
    path: string,
    body: unknown,
    write: (chunk: string) => void,
  ): Promise<(name: string) => string | undefined>;
}

interface Reply {
  readonly status: number;
  readonly chunks: AsyncIterable<string>;
  trailer(name: string): string | undefined;
}

function away(url: string, error: Error & { code?: string }): OperatorError {
  const why = error.code ?? error.message;
  return new OperatorError(
    `nothing answers at ${url} (${why}). Start Eastwest with \`npx eastwest up\` (or \`npm start\`), ` +
      'or name the address of its API with --url or EASTWEST_URL.',
  );
}

interface Sending {
  readonly body?: string;
  /** GET when absent and without a body, POST with one. */
  readonly method?: 'PUT';
  readonly token?: string | undefined;
}

async function send(base: URL, path: string, { body, method, token }: Sending): Promise<Reply> {
  const url = new URL(path, base);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new OperatorError(
      `--url is ${base.href}; expected http://host:port or https://host`,
      exitCodes.usage,
    );
  }
  const request = url.protocol === 'https:' ? (await import('node:https')).request : httpRequest;
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  const outgoing = request(url, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    agent: false,
    timeout: timeoutMs,
    headers: {
      ...(body === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
  });
  outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
  outgoing.on('error', (error) => reject(away(base.href.replace(/\/$/, ''), error)));
  outgoing.on('response', (response) => {
    response.setEncoding('utf8');
    resolve({
      status: response.statusCode ?? 0,
      chunks: response,
      trailer: (name) => response.trailers[name],
    });
  });
  outgoing.end(body);
  return promise;
}

async function textOf(reply: Reply): Promise<string> {
  let text = '';
  for await (const chunk of reply.chunks) text += chunk;
  return text;
}

/** What a problem document says; the begin of the text where it is none. */
function detailOf(text: string): string {
  try {
    const problem: unknown = JSON.parse(text);
    if (
      typeof problem === 'object' &&
      problem !== null &&
      'detail' in problem &&
      typeof problem.detail === 'string'
    ) {
      return problem.detail;
    }
  } catch {
    // No JSON: whoever answers is not our API.
  }
  return text.slice(0, 300);
}

async function checked(reply: Reply, url: string): Promise<Reply> {
  if (reply.status === 200 || reply.status === 202) return reply;
  const detail = detailOf(await textOf(reply));
  const usage = reply.status === 400 || reply.status === 413;
  throw new OperatorError(
    usage ? detail : `${url} answers ${reply.status}: ${detail}`,
    usage ? exitCodes.usage : exitCodes.failure,
  );
}

function withParameters(path: string, parameters: Readonly<Record<string, string | undefined>>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) search.set(name, value);
  const query = search.toString();
  return query === '' ? path : `${path}?${query}`;
}

/** @throws {OperatorError} when `url` is no address. */
export function openClient(url: string): Client {
  if (!URL.canParse(url)) {
    throw new OperatorError(`--url is "${url}"; expected an address such as ${defaultUrl}`, exitCodes.usage);
  }
  const base = new URL(url);
  const json = async <T>(path: string, sending: Sending): Promise<T> => {
    const reply = await checked(await send(base, path, sending), url);
    // The API's own contract; its tests hold answers to it.
    return JSON.parse(await textOf(reply)) as T;
  };
  return {
    url,
    get: (path, parameters) => json(withParameters(path, parameters), {}),
    async *lines(path, parameters) {
      const reply = await checked(await send(base, withParameters(path, parameters), {}), url);
      let rest = '';
      try {
        for await (const chunk of reply.chunks) {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          yield* lines;
        }
      } catch {
        throw new OperatorError(`the answer of ${url}${path} broke off; its log says why`);
      }
      if (rest !== '') yield rest;
    },
    post: (path, body) => json(path, { body: JSON.stringify(body) }),
    put: (path, body, token) => json(path, { body: JSON.stringify(body), method: 'PUT', token }),
    async stream(path, body, write) {
      const reply = await checked(await send(base, path, { body: JSON.stringify(body) }), url);
      for await (const chunk of reply.chunks) write(chunk);
      return reply.trailer;
    },
  };
}
