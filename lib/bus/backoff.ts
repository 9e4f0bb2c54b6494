/** Waiting times between tries: doubling from a small one to a limit, with jitter, cut short by a signal. */
import { setTimeout as delay } from 'node:timers/promises';

const firstMs = 50;
const longestMs = 5_000;

export class Backoff {
  #nextMs = firstMs;

  /** Waits; returns early when `signal` is aborted. */
  async wait(signal?: AbortSignal): Promise<void> {
    const waitMs = this.#nextMs * (0.75 + Math.random() / 2);
    this.#nextMs = Math.min(this.#nextMs * 2, longestMs);
    try {
      await delay(waitMs, undefined, signal === undefined ? {} : { signal });
    } catch {
      // Aborted: the caller looks at the signal.
    }
  }

  /** To be called after a success. */
  reset(): void {
    this.#nextMs = firstMs;
  }
}
