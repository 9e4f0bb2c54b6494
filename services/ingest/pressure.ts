/** How much the door holds at this moment, and whether the bus and the enrichers keep up. */
import { RefusedError } from './refusal.ts';

export interface PressureLimits {
  readonly maxInFlightBytes: number;
  readonly maxAppendWaitMs: number;
  readonly maxBacklogBatches: number;
}

/** Counts bytes in flight and the age of the oldest append. `now` is a monotonic clock, ms. */
export class Pressure {
  readonly #limits: PressureLimits;
  readonly #isMemoryTight: () => boolean;
  readonly #now: () => number;
  readonly #appendsSince = new Set<{ readonly sinceMs: number }>();
  #bytes = 0;
  /** Batches that wait on the bus: as last looked at, and what was put there since. */
  #backlog = 0;

  constructor(
    limits: PressureLimits,
    isMemoryTight: () => boolean = () => false,
    now: () => number = () => performance.now(),
  ) {
    this.#limits = limits;
    this.#isMemoryTight = isMemoryTight;
    this.#now = now;
  }

  get inFlightBytes(): number {
    return this.#bytes;
  }

  /** @throws {RefusedError} while the bus is too slow. */
  checkBus(): void {
    // In the order of insertion: the first is the oldest.
    for (const { sinceMs } of this.#appendsSince) {
      const waitedMs = this.#now() - sinceMs;
      if (waitedMs > this.#limits.maxAppendWaitMs) {
        throw new RefusedError(
          'bus-away',
          `the bus has not answered for ${Math.round(waitedMs)} ms; try again later`,
        );
      }
      return;
    }
  }

  get backlogBatches(): number {
    return this.#backlog;
  }

  /** The bus was looked at. */
  seeBacklog(batchCount: number): void {
    this.#backlog = batchCount;
  }

  addToBacklog(batchCount: number): void {
    this.#backlog += batchCount;
  }

  /** @throws {RefusedError} while the enrichers are too far behind. */
  checkBacklog(): void {
    if (this.#backlog < this.#limits.maxBacklogBatches) return;
    throw new RefusedError(
      'backlog-full',
      `${this.#backlog} batches wait on the bus for the enrichers (ingest.maxBacklogBatches); try again later`,
    );
  }

  /** Opens the account of one request. */
  open(): Account {
    let held = 0;
    return {
      take: (bytes) => {
        if (this.#isMemoryTight() && this.#bytes > 0)
          throw new RefusedError(
            'too-busy',
            'the process is near its memory limit (runtime.maxMemoryBytes); try again later',
          );
        if (this.#bytes + bytes > this.#limits.maxInFlightBytes) {
          throw new RefusedError(
            'too-busy',
            `requests in flight hold ${this.#bytes} bytes (ingest.maxInFlightBytes); try again later`,
          );
        }
        held += bytes;
        this.#bytes += bytes;
      },
      close: () => {
        this.#bytes -= held;
        held = 0;
      },
    };
  }

  /** Runs an append under watch. */
  async watchAppend<T>(append: () => Promise<T>): Promise<T> {
    const entry = { sinceMs: this.#now() };
    this.#appendsSince.add(entry);
    try {
      return await append();
    } finally {
      this.#appendsSince.delete(entry);
    }
  }
}

/** What one request holds. */
export interface Account {
  /** @throws {RefusedError} when that would be too much. */
  take(bytes: number): void;
  /** Gives everything back; may be called again. */
  close(): void;
}
