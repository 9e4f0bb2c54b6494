/** Calls a function again and again, never twice at once: when asked (after a quiet time) and at least once per interval. */

export interface LookOptions {
  readonly look: () => Promise<void>;
  readonly debounceMs: number;
  readonly intervalMs: number;
}

export class Look {
  readonly #options: LookOptions;
  #timer: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;
  #askedAgain = false;
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
    if (this.#running !== null) this.#askedAgain = true;
    else this.#schedule(this.#options.debounceMs);
  }

  /** Resolves when the look that is under way has ended; there will be no other. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#running;
  }

  #schedule(delayMs: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), delayMs);
  }

  #run(): void {
    this.#timer = null;
    this.#askedAgain = false;
    this.#running = this.#options.look().finally(() => {
      this.#running = null;
      if (!this.#isStopped)
        this.#schedule(this.#askedAgain ? this.#options.debounceMs : this.#options.intervalMs);
    });
  }
}
