/** Hands publications to the bus: the newest per entity, in batches, again and again until it has them. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { MessageTooLargeError, type OutgoingMessage } from '../../lib/bus/bus.ts';
import { backoffMs } from '../../lib/runtime/backoff.ts';
import { toMessage } from './messages.ts';
import type { KubelinkMetrics } from './metrics.ts';
import type { Publication } from './state.ts';

/** First pause after a failure, ms. */
const initialRetryDelayMs = 100;
/** Failures between two log lines while the bus is away. */
const failuresPerLogLine = 10;

export interface PublisherOptions {
  /** Resolves when all messages are durable. */
  readonly append: (messages: readonly OutgoingMessage[]) => Promise<void>;
  /** Told when the bus takes events, and when and why not. */
  readonly onBusState: (state: true | string) => void;
  readonly maxBatchMessageCount: number;
  readonly maxBatchBytes: number;
  readonly maxRetryDelayMs: number;
  readonly metrics: KubelinkMetrics;
  readonly log: Logger;
}

interface Pending {
  readonly sequence: number;
  readonly source: string;
  readonly type: string;
  readonly message: OutgoingMessage;
}

export class Publisher {
  readonly #options: PublisherOptions;
  /**
   * By key, oldest wait first: a newer event takes the place of one that was not sent yet, since it is the whole
   * truth. So no more waits than there are entities.
   */
  #pending = new Map<string, Pending>();
  /** What the bus is being given; a newer event that comes meanwhile waits anew, behind what waits already. */
  #inFlight: ReadonlySet<Pending> = new Set();
  readonly #waiters: { readonly sequence: number; readonly resolve: () => void }[] = [];
  /** To be called when what is in flight has landed or failed. */
  #landed: (() => void)[] = [];
  readonly #stop = new AbortController();
  #sequence = 0;
  #running: Promise<void> | null = null;

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  put(publications: readonly Publication[]): void {
    const { metrics, log } = this.#options;
    for (const publication of publications) {
      const message = toMessage(publication);
      if (!message.ok) {
        metrics.refused.inc({ cause: 'invalid' });
        log.error(
          { key: publication.key, reason: message.message },
          'event does not fit the schema, not published',
        );
        continue;
      }
      const { key, source } = publication;
      const waiting = this.#pending.get(key);
      const isWaiting = waiting !== undefined && !this.#inFlight.has(waiting);
      if (!isWaiting) this.#pending.delete(key);
      this.#pending.set(key, {
        sequence: isWaiting ? waiting.sequence : ++this.#sequence,
        source,
        type: publication.event?.type ?? 'tombstone',
        message: message.value,
      });
    }
    metrics.pending.set(this.#pending.size);
    this.#wake();
  }

  /** Resolves when everything that was put before is durable; never, if the bus stays away until the stop. */
  flushed(): Promise<void> {
    if (this.#pending.size === 0) return Promise.resolve();
    const sequence = this.#sequence;
    return new Promise((resolve) => this.#waiters.push({ sequence, resolve }));
  }

  /** Forgets what waits of one source; resolves when nothing of it is under way to the bus any more. */
  async drop(source: string): Promise<void> {
    for (const [key, pending] of this.#pending) if (pending.source === source) this.#pending.delete(key);
    this.#settle();
    if ([...this.#inFlight].some((sent) => sent.source === source)) {
      await new Promise<void>((resolve) => this.#landed.push(resolve));
    }
  }

  /** Sends what waits, unless the bus is away: then the next start finds out again what it has to send. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #wake(): void {
    if (this.#running !== null || this.#pending.size === 0 || this.#stop.signal.aborted) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      this.#wake();
    });
  }

  async #run(): Promise<void> {
    const { log, metrics, onBusState, maxRetryDelayMs } = this.#options;
    let failureCount = 0;
    while (this.#pending.size > 0) {
      const batch = this.#nextBatch();
      this.#inFlight = new Set(batch);
      try {
        await this.#send(batch);
        failureCount = 0;
        this.#land();
      } catch (error) {
        this.#putBack(batch);
        this.#land();
        failureCount++;
        metrics.publishFailures.inc();
        const reason = error instanceof Error ? error.message : String(error);
        onBusState(`the bus takes no events: ${reason}`);
        if (failureCount % failuresPerLogLine === 1) {
          log.warn(
            { reason, failureCount, waiting: this.#pending.size },
            'the bus takes no events, trying again',
          );
        }
        if (this.#stop.signal.aborted) return;
        const delayMs = backoffMs(failureCount, { initialMs: initialRetryDelayMs, maxMs: maxRetryDelayMs });
        await sleep(delayMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  #nextBatch(): Pending[] {
    const { maxBatchMessageCount, maxBatchBytes } = this.#options;
    const batch: Pending[] = [];
    let byteCount = 0;
    for (const pending of this.#pending.values()) {
      byteCount += pending.message.value?.length ?? 0;
      if (batch.length > 0 && (batch.length >= maxBatchMessageCount || byteCount > maxBatchBytes)) break;
      batch.push(pending);
    }
    return batch;
  }

  async #send(batch: readonly Pending[]): Promise<void> {
    const { append, onBusState, metrics, log } = this.#options;
    try {
      await append(batch.map(({ message }) => message));
      onBusState(true);
      for (const { type } of batch) metrics.published.inc({ type });
    } catch (error) {
      if (!(error instanceof MessageTooLargeError)) throw error;
      const [only] = batch;
      if (batch.length > 1) {
        // One of them is too large and keeps the others back.
        for (const one of batch) await this.#send([one]);
        return;
      }
      metrics.refused.inc({ cause: 'too-large' });
      log.error(
        { key: only?.message.key, reason: error.message },
        'event is too large for the bus, not published',
      );
    }
    this.#forget(batch);
  }

  #forget(batch: readonly Pending[]): void {
    for (const sent of batch) {
      const { key } = sent.message;
      if (key !== null && this.#pending.get(key) === sent) this.#pending.delete(key);
    }
    this.#settle();
  }

  /** What took the place of an event that did not get through is due as early as that one was. */
  #putBack(batch: readonly Pending[]): void {
    let isOutOfOrder = false;
    for (const { sequence, message } of batch) {
      const newer = message.key === null ? undefined : this.#pending.get(message.key);
      if (newer === undefined || message.key === null || newer.sequence <= sequence) continue;
      this.#pending.set(message.key, { ...newer, sequence });
      isOutOfOrder = true;
    }
    if (!isOutOfOrder) return;
    this.#pending = new Map([...this.#pending].sort(([, a], [, b]) => a.sequence - b.sequence));
  }

  #land(): void {
    this.#inFlight = new Set();
    const landed = this.#landed;
    this.#landed = [];
    for (const resolve of landed) resolve();
  }

  #settle(): void {
    this.#options.metrics.pending.set(this.#pending.size);
    const oldest = this.#pending.values().next().value?.sequence ?? Number.POSITIVE_INFINITY;
    const done = this.#waiters.filter(({ sequence }) => sequence < oldest);
    for (const waiter of done) {
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      waiter.resolve();
    }
  }
}
