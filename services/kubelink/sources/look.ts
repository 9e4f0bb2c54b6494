/** Calls a function again and again, never twice at once: when asked (after a quiet time) and at least once per interval. */

export interface LookOptions {
  /** Must not reject. */
  readonly look: () => Promise<void>;
  readonly debounceMs: number;
  readonly intervalMs: number;
}

export class Look {
  readonly #options: LookOptions;
  #timer: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;
  #isAsked = false;
  /** When the next regular look is due, ms by the monotonic clock: asking again and again puts it off no further. */
  #dueMs = 0;
  #isStopped = false;

  constructor(options: LookOptions) {
    this.#options = options;
  }

  /** Looks for the first time, at once. */
  start(): void {
    this.#run();
  }

  /** Something may have changed. */
  ask(): void {
    if (this.#isStopped) return;
    this.#isAsked = true;
    if (this.#running === null) this.#schedule();
  }

  /** No look is under way and none was asked for. */
  get isIdle(): boolean {
    return this.#running === null && !this.#isAsked;
  }

  /** Resolves when the look that is under way has ended; there will be no other. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#running;
  }

  #schedule(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    const regularMs = Math.max(0, this.#dueMs - performance.now());
    const delayMs = this.#isAsked ? Math.min(this.#options.debounceMs, regularMs) : regularMs;
    this.#timer = setTimeout(() => this.#run(), delayMs);
  }

  #run(): void {
    this.#timer = null;
    this.#isAsked = false;
    this.#running = this.#options.look().finally(() => {
      this.#running = null;
      this.#dueMs = performance.now() + this.#options.intervalMs;
      if (!this.#isStopped) this.#schedule();
    });
  }
}
