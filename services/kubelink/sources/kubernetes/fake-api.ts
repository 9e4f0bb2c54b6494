/** An API server that unit tests play themselves: answers by path, streams that they write to. */
import type { ApiConnection, LineTaker, Request } from './connection.ts';
import { ConnectionError } from './errors.ts';

/** A stream that a test writes to. */
export interface FakeStream {
  readonly query: URLSearchParams;
  line(value: unknown): void;
  end(): void;
  fail(error: Error): void;
}

export class FakeApi implements ApiConnection {
  isOpen = true;
  readonly #ended = Promise.withResolvers<never>();
  readonly #answer: (request: Request, query: URLSearchParams) => unknown;
  readonly #streams: FakeStream[] = [];
  #wake = Promise.withResolvers<void>();

  /** `answer` gives the JSON of a request, or throws. */
  constructor(answer: (request: Request, query: URLSearchParams) => unknown) {
    this.#answer = answer;
    this.#ended.promise.catch(() => undefined);
  }

  get ended(): Promise<never> {
    return this.#ended.promise;
  }

  within<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#ended.promise]);
  }

  close(): void {
    this.isOpen = false;
    this.#ended.reject(new ConnectionError('closed'));
  }

  /** The next stream that is opened. */
  async stream(): Promise<FakeStream> {
    for (;;) {
      const stream = this.#streams.shift();
      if (stream !== undefined) return stream;
      await this.#wake.promise;
    }
  }

  async json(request: Request): Promise<unknown> {
    return this.#answer(request, new URLSearchParams(request.path.split('?')[1]));
  }

  async ping(): Promise<void> {}

  async lines(
    request: Request,
    take: LineTaker,
    _quietTimeoutMs: number,
    signal: AbortSignal,
  ): Promise<void> {
    const done = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => done.reject(signal.reason), { once: true });
    take.onOpen();
    this.#streams.push({
      query: new URLSearchParams(request.path.split('?')[1]),
      line: (value) => {
        try {
          take.onLine(value);
        } catch (error) {
          done.reject(error);
        }
      },
      end: done.resolve,
      fail: done.reject,
    });
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
    await Promise.race([done.promise, this.#ended.promise]);
  }
}
