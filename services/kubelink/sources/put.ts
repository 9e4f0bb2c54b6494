/**
 * A source of workloads that others put over HTTP (`PUT /api/v1/workloads`): follows the topic `inventory.put`, keeps
 * lifetimes, and tidies away what ended long ago.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Bus, BusMessage } from '../../../lib/bus/bus.ts';
import { backoffMs } from '../../../lib/runtime/backoff.ts';
import { topics } from '../../../schemas/topics.ts';
import { type PutWorkload, putKey, tidiedHeader } from '../../../schemas/workload-put.ts';
import type { ApiSource, KubelinkConfig } from '../config.ts';
import { PutState } from './put-state.ts';
import type { Restored, Source, SourceSink } from './source.ts';

/** Asked for positions under this name only; it never commits. */
const positionsGroup = 'eastwest-kubelink-put';
/** News of one moment that are told one by one; more are told as a whole. */
const maxSingleNews = 64;
/** Entries tidied away at once. */
const maxTidyCount = 1000;
/** Pause between two looks for what can be tidied away, ms. */
const tidyIntervalMs = 60_000;
/** Longest wait of a timer, ms. */
const maxTimerMs = 60_000;

export interface PutSourceOptions {
  readonly name: string;
  readonly bus: Bus;
  readonly maxWorkloadCount: number;
  /** How often the end of the topic is looked at, ms: until there, all is known. */
  readonly lookIntervalMs: number;
  /** What ended longer ago than this is removed from the topic, ms. */
  readonly endedRetentionMs: number;
  readonly maxRetryDelayMs: number;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class PutSource implements Source {
  readonly name: string;
  readonly #options: PutSourceOptions;
  readonly #now: () => number;
  readonly #state: PutState;
  readonly #stop = new AbortController();
  #sink: SourceSink | null = null;
  #restored: Restored | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #expiry: NodeJS.Timeout | null = null;
  /** Offset after the last message that was told. */
  #reached = 0;
  #isCaughtUp = false;
  /** The topic was read to its end as of this moment, ms. */
  #readToMs = 0;
  /** The latest moment that was vouched for, ms. */
  #vouchedMs = 0;
  #wakeReached: () => void = () => {};

  constructor(options: PutSourceOptions) {
    this.name = options.name;
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#state = new PutState(options);
  }

  start(sink: SourceSink, restored: Restored): void {
    this.#sink = sink;
    this.#restored = restored;
    this.#running = Promise.all([this.#follow(), this.#watchEnd(), this.#tidy()]);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#expiry !== null) clearTimeout(this.#expiry);
    this.#wakeReached();
    await this.#running;
  }

  completeToMs(): number {
    if (this.#readToMs === 0) return 0;
    // What ends in the time that is vouched for has to be told before.
    if (this.#state.nextEndMs <= this.#readToMs) this.#tell();
    this.#vouchedMs = Math.max(this.#vouchedMs, this.#readToMs);
    return this.#vouchedMs;
  }

  /** Opens the tail, again and again until it is open; then the bus goes on by itself. */
  async #follow(): Promise<void> {
    const { bus, maxRetryDelayMs } = this.#options;
    const { signal } = this.#stop;
    for (let failureCount = 1; !signal.aborted; failureCount++) {
      try {
        const [partition] = await bus.positions(topics.inventoryPut, positionsGroup);
        const tail = await bus.tail({
          topic: topics.inventoryPut,
          onMessages: (_partition, messages) => this.#take(messages),
          // What stands before the end and was not delivered has been compacted away.
          onCaughtUp: () => this.#caughtUp(partition?.next ?? 0),
          onError: (error) => this.#failing(error),
        });
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          else signal.addEventListener('abort', () => resolve(), { once: true });
        });
        await tail.close();
        return;
      } catch (error) {
        this.#failing(error);
        await this.#pause(backoffMs(failureCount, { initialMs: 100, maxMs: maxRetryDelayMs }));
      }
    }
  }

  #failing(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    const reason = error instanceof Error ? error.message : String(error);
    this.#sink?.failing(`the topic ${topics.inventoryPut} cannot be read: ${reason}`);
  }

  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined);
  }

  #take(messages: readonly BusMessage[]): void {
    const time = { nowMs: this.#now(), vouchedMs: this.#vouchedMs };
    const lost: PutWorkload[] = [];
    for (const message of messages) {
      const again = this.#state.take(message, time);
      if (again !== null) lost.push(again);
    }
    this.#putBack(lost);
    if (this.#isCaughtUp) this.#tell();
    this.#reached = Math.max(this.#reached, (messages.at(-1)?.offset ?? -1) + 1);
    this.#wakeReached();
  }

  #caughtUp(next: number): void {
    this.#isCaughtUp = true;
    this.#reached = Math.max(this.#reached, next);
    this.#state.expire(this.#now());
    // Ends that are known to the moment, before the snapshot ends everything else that is not there any more.
    for (const news of this.#state.settle()) {
      if (news.event === null) this.#sink?.gone(news.key, news.endedMs);
    }
    this.#sink?.problems(this.#state.problems());
    const seenToMs = this.#restored?.completeToMs() ?? 0;
    this.#sink?.snapshot(this.#state.events(), seenToMs > 0 ? seenToMs : undefined);
    this.#scheduleExpiry();
    this.#wakeReached();
  }

  #tell(): void {
    this.#state.expire(this.#now());
    const news = this.#state.settle();
    const sink = this.#sink;
    if (sink === null) return;
    for (const one of news) {
      if (one.event === null) sink.gone(one.key, Math.max(one.endedMs, this.#vouchedMs + 1));
      else if (news.length <= maxSingleNews) sink.change(one.event);
    }
    if (news.length > maxSingleNews) sink.snapshot(this.#state.events());
    sink.problems(this.#state.problems());
    this.#scheduleExpiry();
  }

  #scheduleExpiry(): void {
    if (this.#expiry !== null) clearTimeout(this.#expiry);
    this.#expiry = null;
    const { nextEndMs } = this.#state;
    if (nextEndMs === Number.POSITIVE_INFINITY || this.#stop.signal.aborted) return;
    const delayMs = Math.min(maxTimerMs, Math.max(0, nextEndMs - this.#now()));
    this.#expiry = setTimeout(() => this.#tell(), delayMs);
  }

  /** Asks where the topic ends, and once all until there is told, what was known at the time of asking is complete. */
  async #watchEnd(): Promise<void> {
    const { bus, lookIntervalMs } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const askedMs = this.#now();
        const [partition] = await bus.positions(topics.inventoryPut, positionsGroup);
        const next = partition?.next ?? 0;
        while (!signal.aborted && !(this.#isCaughtUp && this.#reached >= next)) {
          await new Promise<void>((resolve) => {
            this.#wakeReached = resolve;
          });
        }
        if (!signal.aborted) this.#readToMs = Math.max(this.#readToMs, askedMs);
      } catch (error) {
        // The tail says so as well, unless it is only this that fails.
        this.#options.log.debug({ err: error }, 'the end of the topic inventory.put is not known for now');
      }
      await this.#pause(lookIntervalMs);
    }
  }

  /** Writes again what a tidying tombstone removed although it was newer. */
  #putBack(lost: readonly PutWorkload[]): void {
    if (lost.length === 0) return;
    const messages = lost.map((said) => ({
      key: putKey(said.source, said.id),
      value: Buffer.from(JSON.stringify(said)),
    }));
    this.#options.bus.append(topics.inventoryPut, messages).catch((error: unknown) => {
      this.#options.log.error(
        { err: error, keys: messages.slice(0, 10).map(({ key }) => key), count: messages.length },
        'workloads that were put while older ones of their ids were tidied away have to be put again',
      );
    });
  }

  /** Entries that ended long ago leave the topic, or it would only grow. */
  async #tidy(): Promise<void> {
    const { bus, endedRetentionMs, log } = this.#options;
    while (!this.#stop.signal.aborted) {
      await this.#pause(Math.max(100, Math.min(tidyIntervalMs, endedRetentionMs)));
      if (this.#stop.signal.aborted || !this.#isCaughtUp) continue;
      const old = this.#state.tidyings(this.#now() - endedRetentionMs, maxTidyCount);
      if (old.length === 0) continue;
      try {
        await bus.append(
          topics.inventoryPut,
          old.map(({ key, put }) => ({ key, value: null, headers: { [tidiedHeader]: put } })),
        );
      } catch (error) {
        log.debug({ err: error }, 'ended workloads stay on the topic inventory.put for now');
      }
    }
  }
}

export function putSource(
  name: string,
  source: ApiSource,
  config: KubelinkConfig,
  bus: Bus,
  log: Logger,
): PutSource {
  return new PutSource({
    name,
    bus,
    maxWorkloadCount: source.maxWorkloadCount,
    lookIntervalMs: config.watermarkIntervalMs,
    endedRetentionMs: config.endedRetentionMs,
    maxRetryDelayMs: config.maxRetryDelayMs,
    log,
  });
}
