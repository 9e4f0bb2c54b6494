/**
 * Follows one kind of objects: reads all (as a stream where the server can, else in pages), then watches, from where it
 * was after each end of the watch, and reads all anew where the server no longer knows that place.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs } from '../../../../lib/runtime/backoff.ts';
import type { ApiConnection } from './connection.ts';
import { isExpired, StatusError, statusError } from './errors.ts';
import type { KubernetesMetrics } from './metrics.ts';
import type { Probed } from './probe.ts';
import { headOf, type ListPage, listPage, type Resource, type WatchEvent, watchEvent } from './resources.ts';

/** First pause after a failure, ms. */
const initialRetryDelayMs = 200;
/** Longest pause that a server may ask for, ms. */
const maxRetryAfterMs = 30_000;
/** Tries of one page before the whole list is begun anew. */
const pageTryCount = 3;
/** Lists that expired between two pages before everything is asked for at once. */
const expiredListCount = 3;
/** How long a watch may last, s; the server ends it then, and it goes on from there. Between this and twice this. */
const watchTimeoutS = 300;
/** Longest silence of a watch, ms: a bookmark comes about every minute. */
const quietTimeoutMs = 180_000;

/** Hears what a reflector reads. */
export interface ReflectorSink<T> {
  /** Reads one object. Must not throw for what it holds. */
  convert(object: Record<string, unknown>): T;
  /** Everything there is, asked for at `askedMs`. */
  replace(objects: readonly T[], askedMs: number): void;
  /** One object is new, different or, with `isGone`, no more. */
  apply(object: T, isGone: boolean): void;
  /** The kind cannot be read for now. */
  failing(reason: string): void;
}

export interface ReflectorOptions {
  readonly resource: Resource;
  readonly pageSize: number;
  readonly maxRetryDelayMs: number;
  readonly metrics: KubernetesMetrics;
  readonly source: string;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An error after which the same request can be expected to succeed soon. */
function isPassing(error: unknown): boolean {
  return !(error instanceof StatusError) || [429, 500, 502, 503, 504].includes(error.code);
}

export class Reflector<T> implements Probed {
  readonly #options: ReflectorOptions;
  readonly #sink: ReflectorSink<T>;
  /** Where the watch goes on; empty: all has to be read first. */
  #resourceVersion = '';
  /** The stream that is open and through its first state; a new number for each. 0: none. */
  #liveStream = 0;
  #streamCount = 0;
  /** Revision up to which it was proven that nothing is missing. */
  #provenRevision = 0;
  #revision = 0;
  #heardAt = 0;
  #lateCount = 0;
  #useStream = true;

  constructor(options: ReflectorOptions, sink: ReflectorSink<T>) {
    this.#options = options;
    this.#sink = sink;
  }

  get resource(): Resource {
    return this.#options.resource;
  }

  /** Newest revision heard. */
  get revision(): number {
    return this.#revision;
  }

  /** When an event was heard last, on the clock of `performance`. */
  get heardAt(): number {
    return this.#heardAt;
  }

  /** Number of the open watch that has told everything so far, 0 where there is none. */
  get liveStream(): number {
    return this.#liveStream;
  }

  /** Events of changes at or before a revision that had been proven; 0 unless the proof is wrong. */
  get lateCount(): number {
    return this.#lateCount;
  }

  /** An event at or before this revision must not come any more. */
  prove(revision: number): void {
    this.#provenRevision = Math.max(this.#provenRevision, revision);
  }

  /** Forgets where it was: it is another cluster. */
  reset(): void {
    this.#resourceVersion = '';
    this.#provenRevision = 0;
    this.#revision = 0;
  }

  /**
   * Runs until the connection has ended or `signal` is aborted; rejects with either's reason, or where it is let in no
   * more (401). `useStream`: whether this server is asked for its first state as a stream.
   */
  async run(connection: ApiConnection, useStream: boolean, signal: AbortSignal): Promise<never> {
    const { resource, metrics, source, maxRetryDelayMs } = this.#options;
    this.#useStream = useStream;
    for (let failureCount = 0; ; ) {
      try {
        if (this.#resourceVersion === '' && !this.#useStream) await this.#list(connection, signal);
        await this.#watch(connection, signal);
        failureCount = 0;
      } catch (error) {
        signal.throwIfAborted();
        if (!connection.isOpen) await connection.ended;
        if (error instanceof StatusError && error.code === 401) throw error;
        if (this.#resourceVersion === '' && this.#useStream && isNoStream(error)) {
          this.#useStream = false;
          continue;
        }
        failureCount++;
        metrics.failures.inc({ source, kind: resource.kind });
        if (isExpired(error)) {
          this.#resourceVersion = '';
          metrics.relists.inc({ source, kind: resource.kind });
          // Once is what happens to everybody who was away for some minutes.
          if (failureCount === 1) continue;
        }
        if (!isExpired(error)) this.#sink.failing(reasonOf(error));
        const askedMs = error instanceof StatusError ? Math.min(error.retryAfterMs, maxRetryAfterMs) : 0;
        const ownMs = backoffMs(failureCount, { initialMs: initialRetryDelayMs, maxMs: maxRetryDelayMs });
        await connection.within(sleep(Math.max(askedMs, ownMs), undefined, { signal }));
      }
    }
  }

  async #list(connection: ApiConnection, signal: AbortSignal): Promise<void> {
    for (let tryCount = 1; ; tryCount++) {
      try {
        await this.#listOnce(connection, tryCount > expiredListCount ? 0 : this.#options.pageSize, signal);
        return;
      } catch (error) {
        // Its first pages are of a state that is no longer kept: nothing of it can be used.
        if (!isExpired(error) || tryCount > expiredListCount) throw error;
      }
    }
  }

  /** `pageSize` 0: all at once. */
  async #listOnce(connection: ApiConnection, pageSize: number, signal: AbortSignal): Promise<void> {
    const { path } = this.#options.resource;
    const objects: T[] = [];
    const askedMs = Date.now();
    let resourceVersion = '';
    let next = '';
    do {
      signal.throwIfAborted();
      const query = new URLSearchParams();
      if (pageSize > 0) query.set('limit', String(pageSize));
      if (next !== '') query.set('continue', next);
      const page = await this.#page(connection, `${path}?${query}`);
      for (const item of page.items) if (isRecord(item)) objects.push(this.#sink.convert(item));
      resourceVersion = page.resourceVersion;
      next = page.next;
    } while (next !== '');
    if (resourceVersion === '') throw new Error(`GET ${path}: the list has no resourceVersion`);
    this.#synced(objects, resourceVersion, askedMs);
  }

  async #page(connection: ApiConnection, path: string): Promise<ListPage> {
    for (let tryCount = 1; ; tryCount++) {
      try {
        return listPage(await connection.json({ path }), path);
      } catch (error) {
        if (!connection.isOpen || !isPassing(error) || tryCount === pageTryCount) throw error;
        const askedMs = error instanceof StatusError ? Math.min(error.retryAfterMs, maxRetryAfterMs) : 0;
        await sleep(Math.max(askedMs, backoffMs(tryCount, { initialMs: initialRetryDelayMs, maxMs: 2_000 })));
      }
    }
  }

  #synced(objects: readonly T[], resourceVersion: string, askedMs: number): void {
    const { metrics, source, resource } = this.#options;
    metrics.lists.inc({ source, kind: resource.kind });
    this.#at(resourceVersion);
    this.#sink.replace(objects, askedMs);
  }

  async #watch(connection: ApiConnection, signal: AbortSignal): Promise<void> {
    const { path } = this.#options.resource;
    const timeoutS = Math.round(watchTimeoutS * (1 + Math.random()));
    const query = new URLSearchParams({
      watch: 'true',
      allowWatchBookmarks: 'true',
      timeoutSeconds: String(timeoutS),
    });
    let initial: Map<string, T> | null = null;
    if (this.#resourceVersion === '') {
      initial = new Map();
      query.set('sendInitialEvents', 'true');
      query.set('resourceVersionMatch', 'NotOlderThan');
    } else {
      query.set('resourceVersion', this.#resourceVersion);
    }
    const askedMs = Date.now();
    const stream = ++this.#streamCount;
    const onOpen = (): void => {
      if (initial === null) this.#liveStream = stream;
    };
    const onLine = (line: unknown): void => {
      const event = watchEvent(line);
      if (initial === null) {
        this.#take(event);
      } else if (event.type === 'BOOKMARK' && event.endsInitialEvents) {
        const objects = [...initial.values()];
        initial = null;
        this.#synced(objects, event.resourceVersion, askedMs);
        this.#liveStream = stream;
      } else if (event.type === 'ERROR') {
        throw statusError(event.status, 0, `watch of ${path}`);
      } else if (event.type === 'DELETED') {
        initial.delete(headOf(event.object).ref);
      } else if (event.type !== 'BOOKMARK') {
        initial.set(headOf(event.object).ref, this.#sink.convert(event.object));
      }
    };
    try {
      await connection.lines({ path: `${path}?${query}` }, { onOpen, onLine }, quietTimeoutMs, signal);
    } finally {
      this.#liveStream = 0;
    }
    if (initial !== null) throw new EarlyEndError(`GET ${path}: the stream ended within the first state`);
  }

  #take(event: WatchEvent): void {
    switch (event.type) {
      case 'ERROR':
        throw statusError(event.status, 0, `watch of ${this.#options.resource.path}`);
      case 'BOOKMARK':
        this.#at(event.resourceVersion);
        return;
      default: {
        const { metrics, source, resource } = this.#options;
        const { resourceVersion } = headOf(event.object);
        this.#heardAt = performance.now();
        metrics.events.inc({ source, kind: resource.kind });
        if (Number(resourceVersion) <= this.#provenRevision) {
          this.#lateCount++;
          metrics.late.inc({ source, kind: resource.kind });
        }
        this.#sink.apply(this.#sink.convert(event.object), event.type === 'DELETED');
        this.#at(resourceVersion);
      }
    }
  }

  #at(resourceVersion: string): void {
    if (resourceVersion === '') return;
    this.#resourceVersion = resourceVersion;
    this.#revision = Number(resourceVersion);
  }
}

/** The server ended a stream before it had told its first state: it does so where more changes than can be kept up with. */
class EarlyEndError extends Error {
  override readonly name = 'EarlyEndError';
}

/** Whether pages are the better way: a server without watch lists says that the request is not valid. */
function isNoStream(error: unknown): boolean {
  const isRefused = error instanceof StatusError && (error.code === 400 || error.code === 422);
  return isRefused || error instanceof EarlyEndError;
}
