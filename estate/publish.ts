/** Publishes inventory events, in chunks, only what the topic does not say already, and buries what has long ended. */
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Bus, OutgoingMessage } from '../lib/bus/bus.ts';
import { rateLimited } from '../lib/bus/reporter.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { backoffMs } from '../lib/runtime/backoff.ts';
import type { InventoryEvent, WatermarkEvent } from '../schemas/inventory-event.ts';
import { topics } from '../schemas/topics.ts';
import { type EndedEntity, runEndOf } from './memory.ts';
import type { DemoMetrics } from './metrics.ts';
import { sourceOf } from './outbox.ts';

/** An event as a message that says who vouches for it. */
export function messageOf(
  event: InventoryEvent,
): OutgoingMessage & { readonly key: string; readonly value: Buffer } {
  return {
    key: inventoryKey(event),
    value: Buffer.from(JSON.stringify(event), 'utf8'),
    headers: { source: sourceOf(event) },
  };
}

/** Messages in one append. */
const chunkLength = 1000;
const watermarkEveryMs = 500;
const backoff = { initialMs: 250, maxMs: 5000 };

export interface PublisherOptions {
  readonly bus: Pick<Bus, 'append'>;
  readonly log: Logger;
  readonly metrics: DemoMetrics;
  readonly signal: AbortSignal;
  /** What the topic says at the beginning; each value is needed once and let go. */
  readonly values: Map<string, Uint8Array>;
  readonly ended: readonly EndedEntity[];
  /** How long what has ended stays on the topic, ms. */
  readonly historyMs: number;
}

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #report: (error: unknown) => void;
  /** In the order of their ends. */
  readonly #ended: EndedEntity[];
  #vouchedMs = 0;

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#ended = [...options.ended];
    this.#report = rateLimited((error) =>
      options.log.warn({ err: error }, 'inventory cannot be published yet'),
    );
  }

  /** Appends until it is durable or the process shall end. */
  async append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    const { bus, signal, metrics } = this.#options;
    for (let failureCount = 1; !signal.aborted; failureCount++) {
      try {
        await bus.append(topic, messages);
        if (topic === topics.inventory) metrics.inventory.inc(messages.length);
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#report(error);
        await sleep(backoffMs(failureCount, backoff), undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** Publishes those of the events that the topic does not hold as they are. Returns how many those were. */
  async publish(events: Iterable<InventoryEvent>): Promise<number> {
    const { values, signal } = this.#options;
    let chunk: OutgoingMessage[] = [];
    let count = 0;
    let seenCount = 0;
    for (const event of events) {
      // Time goes on for the flows, also while there is nothing to publish.
      if (++seenCount % chunkLength === 0) await immediate();
      if (signal.aborted) return count;
      const message = messageOf(event);
      const { key, value } = message;
      const before = values.get(key);
      if (before !== undefined) {
        values.delete(key);
        if (value.equals(before)) continue;
      }
      const endMs = runEndOf(event);
      if (endMs !== null) this.#ended.push({ key, endMs });
      chunk.push(message);
      if (chunk.length < chunkLength) continue;
      count += chunk.length;
      await this.append(topics.inventory, chunk);
      chunk = [];
    }
    if (chunk.length > 0) await this.append(topics.inventory, chunk);
    return count + chunk.length;
  }

  /** Publishes what the sources vouch for, at most once in {@link watermarkEveryMs} of the simulated time. */
  async vouch(nowMs: number, watermarks: readonly WatermarkEvent[]): Promise<void> {
    if (nowMs < this.#vouchedMs + watermarkEveryMs) return;
    this.#vouchedMs = nowMs;
    await this.append(topics.inventory, watermarks.map(messageOf));
  }

  /** Takes back the watermarks of sources that publish nothing any more. */
  async silence(sources: readonly string[]): Promise<void> {
    if (sources.length === 0) return;
    await this.append(
      topics.inventory,
      sources.map((source) => ({ key: `watermark/${source}`, value: null })),
    );
  }

  /** Removes from the topic what ended longer ago than the history goes back. */
  async bury(nowMs: number): Promise<void> {
    const due: OutgoingMessage[] = [];
    for (
      let first = this.#ended[0];
      first !== undefined && due.length < chunkLength;
      first = this.#ended[0]
    ) {
      if (first.endMs > nowMs - this.#options.historyMs) break;
      this.#ended.shift();
      due.push({ key: first.key, value: null });
    }
    if (due.length > 0) await this.append(topics.inventory, due);
  }
}
