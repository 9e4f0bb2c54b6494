/** Publishes up to when each source has told everything, once the bus has what it told. */
import type { WatermarkEvent } from '../../lib/inventory/events.ts';
import { inventoryKey } from '../../lib/inventory/events.ts';
import type { Source } from './sources/source.ts';
import type { Publication } from './state.ts';

export interface WatermarksOptions {
  readonly sources: readonly Source[];
  readonly intervalMs: number;
  /** Resolves when all that was put before is durable on the bus. */
  readonly flushed: () => Promise<void>;
  readonly put: (publications: readonly Publication[]) => void;
  /** Told what the bus was given. */
  readonly onPublished: (source: string, completeToMs: number) => void;
}

interface Mark {
  readonly source: Source;
  /** What was published last, ms. */
  publishedMs: number;
  /** Rises when what was told is dropped: a watermark that was asked for before then is void. */
  epoch: number;
  isUnderWay: boolean;
}

/** Message of a watermark; `null` takes it away. */
export function watermarkOf(source: string, completeToMs: number | null): Publication {
  const event: WatermarkEvent = { v: 1, type: 'watermark', source, completeToMs: completeToMs ?? 0 };
  return { key: inventoryKey(event), event: completeToMs === null ? null : event, source, endedMs: null };
}

export class Watermarks {
  readonly #options: WatermarksOptions;
  readonly #marks: ReadonlyMap<string, Mark>;
  #timer: NodeJS.Timeout | null = null;
  #isStopped = false;

  constructor(options: WatermarksOptions) {
    this.#options = options;
    this.#marks = new Map(
      options.sources.map((source) => [source.name, { source, publishedMs: 0, epoch: 0, isUnderWay: false }]),
    );
  }

  start(): void {
    this.#timer = setInterval(() => void this.look(), this.#options.intervalMs);
  }

  /** Nothing is published any more. */
  stop(): void {
    this.#isStopped = true;
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** What the source told last was dropped; what it vouched for meanwhile no longer counts. */
  void(name: string): void {
    const mark = this.#marks.get(name);
    if (mark === undefined) return;
    mark.epoch++;
    mark.publishedMs = 0;
  }

  /** Asks each source once and publishes what has risen; resolves when the bus has all that they told before. */
  async look(): Promise<void> {
    await Promise.all([...this.#marks.keys()].map((name) => this.lookAt(name)));
  }

  /** The same for one source. */
  async lookAt(name: string): Promise<void> {
    const { flushed, put, onPublished } = this.#options;
    const mark = this.#marks.get(name);
    if (mark === undefined || mark.isUnderWay || mark.source.completeToMs === undefined) return;
    const { source, epoch } = mark;
    mark.isUnderWay = true;
    try {
      // Asked before the flush: what is told after the question is not among what is flushed.
      const completeToMs = Math.floor(mark.source.completeToMs());
      if (!(completeToMs > mark.publishedMs)) return;
      await flushed();
      if (this.#isStopped || mark.epoch !== epoch) return;
      mark.publishedMs = completeToMs;
      put([watermarkOf(source.name, completeToMs)]);
      onPublished(source.name, completeToMs);
    } finally {
      mark.isUnderWay = false;
    }
  }
}
