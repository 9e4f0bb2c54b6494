/** How many events may go out on their own: a bucket that fills evenly up to one minute's worth. */

const minuteMs = 60_000;

export class Allowance {
  readonly #perMinute: number;
  readonly #now: () => number;
  #left: number;
  #filledMs: number;

  /** `spent`: how many went out in the minute before now. `now` is a monotonic clock, ms. */
  constructor(perMinute: number, spent: number, now: () => number = () => performance.now()) {
    this.#perMinute = perMinute;
    this.#now = now;
    this.#left = Math.max(0, perMinute - spent);
    this.#filledMs = now();
  }

  /** How many may go now. */
  get left(): number {
    const nowMs = this.#now();
    this.#left = Math.min(
      this.#perMinute,
      this.#left + ((nowMs - this.#filledMs) * this.#perMinute) / minuteMs,
    );
    this.#filledMs = nowMs;
    return Math.floor(this.#left);
  }

  spend(count: number): void {
    this.#left -= count;
  }
}
