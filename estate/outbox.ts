/** Who publishes what of the inventory and when: events wait here up to their delay, and watermarks tell the truth about that. */
import { inventoryKey } from '../lib/inventory/events.ts';
import type { InventoryEvent, WatermarkEvent } from '../schemas/inventory-event.ts';
import type { Random } from './random.ts';
import type { World } from './world.ts';

/** The source of what belongs to no cluster: machines, ranges, names. */
const commonSource = 'estate';

/** The source that publishes an event: each cluster has its own, as each has its own API server. */
export function sourceOf(event: InventoryEvent): string {
  const cluster = 'cluster' in event ? event.cluster : '';
  return event.type === 'watermark'
    ? event.source
    : cluster === ''
      ? commonSource
      : `${commonSource}/${cluster}`;
}

/** Whether a source is one of an estate's, of whatever seed and size. */
export function isEstateSource(source: string): boolean {
  return source === commonSource || source.startsWith(`${commonSource}/`);
}

export function sourcesOf(world: World): string[] {
  return [commonSource, ...world.clusters.map(({ name }) => `${commonSource}/${name}`)];
}

/** An inventory event and when it took effect, ms since the epoch. */
export interface TimedEvent {
  readonly timeMs: number;
  readonly event: InventoryEvent;
}

interface Waiting extends TimedEvent {
  readonly publishMs: number;
  readonly source: string;
}

export class Outbox {
  readonly #delayMs: number;
  readonly #random: Random;
  readonly #sources: readonly string[];
  /** In the order in which they took effect. */
  #waiting: Waiting[] = [];
  /** When the last event of an entity is published: those of one entity stay in order. */
  readonly #lastMs = new Map<string, number>();

  constructor(world: World, delayMs: number, random: Random) {
    this.#sources = sourcesOf(world);
    this.#delayMs = delayMs;
    this.#random = random;
  }

  put(timed: TimedEvent): void {
    const source = sourceOf(timed.event);
    if (this.#delayMs === 0) {
      this.#waiting.push({ ...timed, source, publishMs: timed.timeMs });
      return;
    }
    const key = inventoryKey(timed.event);
    const publishMs = Math.max(
      this.#lastMs.get(key) ?? 0,
      timed.timeMs + this.#random.below(this.#delayMs + 1),
    );
    this.#lastMs.set(key, publishMs);
    this.#waiting.push({ ...timed, source, publishMs });
  }

  /** What is published by now, in that order. */
  take(nowMs: number): TimedEvent[] {
    const due = this.#waiting.filter(({ publishMs }) => publishMs <= nowMs);
    if (due.length === 0) return [];
    this.#waiting = this.#waiting.filter(({ publishMs }) => publishMs > nowMs);
    return due.sort((a, b) => a.publishMs - b.publishMs).map(({ timeMs, event }) => ({ timeMs, event }));
  }

  /** What each source may vouch for once all that was taken is on the topic; nothing takes effect before `nowMs` any more. */
  watermarks(nowMs: number): WatermarkEvent[] {
    return this.#sources.map((source) => {
      const leastMs = this.#waiting.reduce(
        (least, waiting) => (waiting.source === source ? Math.min(least, waiting.timeMs) : least),
        nowMs,
      );
      return { v: 1, type: 'watermark', source, completeToMs: leastMs - 1 };
    });
  }
}
