/** How much the door holds at this moment, and whether the bus keeps up. */
import { RefusedError } from './refusal.ts';

export interface PressureLimits {
  readonly maxInFlightBytes: number;
  readonly maxAppendWaitMs: number;
}

/** Counts bytes in flight and the age of the oldest append. `now` is a monotonic clock, ms. */
export class Pressure {
  readonly #limits: PressureLimits;
  readonly #now: () => number;
  readonly #appendsSince = new Set<{ readonly sinceMs: number }>();
  #bytes = 0;

  constructor(limits: PressureLimits, now: () => number = () => performance.now()) {
    this.#limits = limits;
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

  /** Opens the account of one request. */
  open(): Account {
    let held = 0;
    return {
      take: (bytes) => {
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
