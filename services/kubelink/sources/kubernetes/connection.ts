/**
 * One HTTP/2 connection to an API server: requests with a JSON answer, streams of JSON lines, and pings that tell a
 * frozen connection from a quiet one. When it breaks, everything on it fails with the same reason.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import type { Access } from './credentials.ts';
import { ConnectionError, statusError } from './errors.ts';
import { LineSplitter } from './lines.ts';

/** Most bytes on their way for one stream, and for all together. */
const streamWindowBytes = 1024 * 1024;
const connectionWindowBytes = 16 * 1024 * 1024;
/** What the connection may hold of sessions' state and unread data, MB. */
const maxSessionMemory = 64;
/** How long answers that are under way are waited for when the server asks for another connection, ms. */
const drainMs = 200;
/** Largest answer that is taken whole, bytes. */
const maxBodyBytes = 256 * 1024 * 1024;
/** Largest line of a stream, bytes; etcd takes objects of 1.5 MB. */
const maxLineBytes = 16 * 1024 * 1024;

export interface Request {
  readonly method?: 'GET' | 'POST' | 'PUT';
  /** With the query. */
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
}

/** What a stream of JSON lines is told to. */
export interface LineTaker {
  /** It has begun. */
  onOpen(): void;
  /** Each parsed line; what this throws ends the stream. */
  onLine(value: unknown): void;
}

/** What the parts of a source ask of a connection. */
export interface ApiConnection {
  readonly isOpen: boolean;
  /** Rejects with a {@link ConnectionError} when the connection has ended. Each wait for it stays until then: see `within`. */
  readonly ended: Promise<never>;
  /** What the work comes to; rejects with a {@link ConnectionError} as soon as the connection has ended. */
  within<T>(work: Promise<T>): Promise<T>;
  /** The answer's JSON. Rejects with a {@link StatusError} for any other answer than success. */
  json(request: Request): Promise<unknown>;
  /** Reads JSON lines until the server ends the stream. `quietTimeoutMs` bounds the time between two lines. */
  lines(request: Request, take: LineTaker, quietTimeoutMs: number, signal: AbortSignal): Promise<void>;
  /** Resolves when the server has answered a ping, and so all that it sent before has been read. */
  ping(): Promise<void>;
}

export interface ConnectionOptions {
  readonly connectTimeoutMs: number;
  /** Longest time without an answer to a ping. */
  readonly frozenTimeoutMs: number;
  /** Longest time an answer may take, ms; streams are not bound by it. */
  readonly requestTimeoutMs: number;
}

export class Connection implements ApiConnection {
  readonly #session: ClientHttp2Session;
  readonly #access: Access;
  readonly #options: ConnectionOptions;
  readonly #ended = Promise.withResolvers<never>();
  /** Those who wait for something here, to be told of the end. */
  readonly #waiting = new Set<(reason: Error) => void>();
  #reason: ConnectionError | null = null;
  #drained: NodeJS.Timeout | null = null;
  #pingTimer: NodeJS.Timeout | null = null;
  #pingDeadline: NodeJS.Timeout | null = null;

  private constructor(session: ClientHttp2Session, access: Access, options: ConnectionOptions) {
    this.#session = session;
    this.#access = access;
    this.#options = options;
    this.#ended.promise.catch(() => undefined);
  }

  /** Rejects with a {@link ConnectionError} where nothing usable answers. */
  static async open(access: Access, options: ConnectionOptions): Promise<Connection> {
    const session = connect(access.origin, {
      ...access.tls,
      settings: { initialWindowSize: streamWindowBytes, enablePush: false },
      maxSessionMemory,
    });
    const connection = new Connection(session, access, options);
    const opened = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => connection.fail(`${access.origin} does not answer within ${options.connectTimeoutMs} ms`),
      options.connectTimeoutMs,
    );
    session.once('connect', () => {
      session.setLocalWindowSize(connectionWindowBytes);
      opened.resolve();
    });
    session.on('error', (error) => connection.fail(`${access.origin}: ${error.message || String(error)}`));
    session.on('close', () => connection.fail(`${access.origin} closed the connection`));
    session.on('goaway', (code) => connection.#drain(code === constants.NGHTTP2_NO_ERROR));
    try {
      await Promise.race([opened.promise, connection.ended]);
    } finally {
      clearTimeout(timer);
    }
    connection.#pingTimer = setInterval(() => connection.#watchLife(), options.frozenTimeoutMs / 2);
    return connection;
  }

  get ended(): Promise<never> {
    return this.#ended.promise;
  }

  get isOpen(): boolean {
    return this.#reason === null;
  }

  /** Ends it and everything on it. */
  fail(reason: string): void {
    this.#end(new ConnectionError(reason));
  }

  #end(reason: ConnectionError): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    if (this.#drained !== null) clearTimeout(this.#drained);
    if (this.#pingTimer !== null) clearInterval(this.#pingTimer);
    if (this.#pingDeadline !== null) clearTimeout(this.#pingDeadline);
    this.#session.destroy();
    this.#ended.reject(reason);
    for (const reject of this.#waiting) reject(reason);
    this.#waiting.clear();
  }

  async within<T>(work: Promise<T>): Promise<T> {
    if (this.#reason !== null) {
      work.catch(() => undefined);
      throw this.#reason;
    }
    const ended = Promise.withResolvers<never>();
    this.#waiting.add(ended.reject);
    try {
      return await Promise.race([work, ended.promise]);
    } finally {
      this.#waiting.delete(ended.reject);
    }
  }

  /** The server wants no more requests here. What it has answered already still counts: why it does so stands there (401). */
  #drain(isOrderly: boolean): void {
    const reason = new ConnectionError(`${this.#access.origin} asked for another connection`, isOrderly);
    this.#drained ??= setTimeout(() => this.#end(reason), drainMs);
  }

  #watchLife(): void {
    if (this.#pingDeadline !== null) return;
    const { frozenTimeoutMs } = this.#options;
    this.#pingDeadline = setTimeout(
      () => this.fail(`${this.#access.origin} has not answered a ping for ${frozenTimeoutMs} ms`),
      frozenTimeoutMs,
    );
    this.ping().then(
      () => {
        if (this.#pingDeadline !== null) clearTimeout(this.#pingDeadline);
        this.#pingDeadline = null;
      },
      () => undefined,
    );
  }

  async ping(): Promise<void> {
    const answered = new Promise<void>((resolve, reject) => {
      if (this.#reason !== null) reject(this.#reason);
      else this.#session.ping((error) => (error ? reject(error) : resolve()));
    });
    await this.within(answered);
  }

  async #open({ method = 'GET', path, body }: Request): Promise<ClientHttp2Stream> {
    const headers = await this.#access.headers();
    if (this.#reason !== null) throw this.#reason;
    if (this.#drained !== null || this.#session.closed) return this.ended;
    const stream = this.#session.request(
      {
        ...headers,
        ':method': method,
        ':path': `${this.#access.pathPrefix}${path}`,
        accept: 'application/json',
        'user-agent': 'eastwest-kubelink',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      { endStream: body === undefined },
    );
    // Errors are told by those who wait; one that comes when nobody does any more means nothing.
    stream.on('error', () => undefined);
    if (body !== undefined) stream.end(JSON.stringify(body));
    return stream;
  }

  async json(request: Request): Promise<unknown> {
    const stream = await this.#open(request);
    const { requestTimeoutMs } = this.#options;
    const what = `${request.method ?? 'GET'} ${request.path}`;
    const timer = setTimeout(
      () => stream.destroy(new Error(`no answer within ${requestTimeoutMs} ms`)),
      requestTimeoutMs,
    );
    try {
      return await this.within(bodyOf(stream, what));
    } finally {
      clearTimeout(timer);
    }
  }

  async lines(request: Request, take: LineTaker, quietTimeoutMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const stream = await this.#open(request);
    const done = Promise.withResolvers<void>();
    const splitter = new LineSplitter(maxLineBytes);
    let failure: unknown = null;
    const giveUp = (error: unknown): void => {
      failure ??= error;
      stream.close(constants.NGHTTP2_CANCEL);
      done.resolve();
    };
    const quiet = setTimeout(
      () => giveUp(new Error(`nothing was heard for ${quietTimeoutMs} ms`)),
      quietTimeoutMs,
    );
    const onAbort = (): void => giveUp(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const what = `GET ${request.path}`;
    stream.once('response', (headers) => {
      if (statusOf(headers) !== 200) {
        bodyOf(stream, what, headers).then(() => giveUp(new Error(`${what}: no stream`)), giveUp);
        return;
      }
      stream.on('data', (chunk: Buffer) => {
        quiet.refresh();
        if (failure !== null) return;
        try {
          for (const line of splitter.push(chunk)) take.onLine(JSON.parse(line));
        } catch (error) {
          giveUp(error);
        }
      });
      stream.once('end', () => done.resolve());
      take.onOpen();
    });
    stream.once('error', giveUp);
    stream.once('close', () => done.resolve());
    try {
      await this.within(done.promise);
    } finally {
      clearTimeout(quiet);
      signal.removeEventListener('abort', onAbort);
    }
    if (failure !== null) throw failure;
  }
}

/** What a stream answers with first. */
interface Answer {
  readonly ':status'?: number | undefined;
}

function statusOf(headers: Answer): number {
  return headers[':status'] ?? 0;
}

/** The JSON of an answer. `headers` where they have come already. */
async function bodyOf(stream: ClientHttp2Stream, what: string, headers?: Answer): Promise<unknown> {
  const chunks: Buffer[] = [];
  let byteCount = 0;
  let status = headers === undefined ? 0 : statusOf(headers);
  await new Promise<void>((resolve, reject) => {
    if (headers === undefined) {
      stream.once('response', (received) => {
        status = statusOf(received);
      });
    }
    stream.on('data', (chunk: Buffer) => {
      byteCount += chunk.length;
      if (byteCount > maxBodyBytes) stream.destroy(new Error(`an answer of more than ${maxBodyBytes} bytes`));
      else chunks.push(chunk);
    });
    stream.once('end', resolve);
    stream.once('error', (error) => reject(new Error(`${what}: ${error.message}`)));
    stream.once('close', () => reject(new Error(`${what}: the stream ended early`)));
  });
  const text = Buffer.concat(chunks).toString('utf8');
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    if (status < 300) throw new Error(`${what}: the answer is no JSON`);
  }
  if (status < 200 || status > 299) throw statusError(body, status, what);
  return body;
}
