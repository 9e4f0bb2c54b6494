/** Notices that any process wrote to the file: SQLite's data version changes, which costs microseconds to read. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { isBusy } from './file.ts';

export interface PollIntervals {
  readonly pollBusyMs: number;
  readonly pollIdleMs: number;
}

/** Quiet looks before the pace drops from busy to idle. */
const quietLooks = 25;

export class Poller {
  readonly #version: StatementSync;
  readonly #intervals: PollIntervals;
  readonly #listeners = new Set<() => void>();
  #seen: unknown;
  #quiet = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(database: DatabaseSync, intervals: PollIntervals) {
    this.#version = database.prepare('PRAGMA data_version');
    this.#intervals = intervals;
  }

  /** Calls `listener` after every change. Returns how to stop that. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    if (this.#timer === undefined) this.#schedule();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      clearTimeout(this.#timer);
      this.#timer = undefined;
    };
  }

  /** Looks at once: this process has just written. */
  nudge(): void {
    this.#quiet = 0;
    this.#look();
  }

  #schedule(): void {
    const waitMs = this.#quiet < quietLooks ? this.#intervals.pollBusyMs : this.#intervals.pollIdleMs;
    this.#timer = setTimeout(() => {
      this.#look();
      if (this.#timer !== undefined) this.#schedule();
    }, waitMs);
  }

  /** What was seen last, while another process holds the file to itself. */
  #read(): unknown {
    try {
      return this.#version.get()?.data_version;
    } catch (error) {
      if (isBusy(error)) return this.#seen;
      throw error;
    }
  }

  #look(): void {
    if (this.#listeners.size === 0) return;
    const version = this.#read();
    this.#quiet = version === this.#seen ? this.#quiet + 1 : 0;
    if (version === this.#seen) return;
    this.#seen = version;
    for (const listener of [...this.#listeners]) listener();
  }
}
