/** Who publishes inventory, and how far each source has vouched for it. Index 0 is the source that has no name. */

/** Sources that are told apart; more share index 0, which is taken at its word. */
export const maxSources = 4096;

export class Sources {
  readonly #indexes = new Map<string, number>([['', 0]]);
  /**
   * By source index, ms since the epoch: every change up to there has been applied. +Infinity where a source never
   * gave a watermark.
   */
  completeToMs = new Float64Array(16).fill(Number.POSITIVE_INFINITY);
  /** Watermarks that were read but not confirmed yet; +Infinity where none was. */
  heardCompleteToMs = new Float64Array(16).fill(Number.POSITIVE_INFINITY);
  /** Whether source names came beyond {@link maxSources}. */
  isFull = false;

  /** Index of a source, by its name. */
  index(name: string): number {
    const known = this.#indexes.get(name);
    if (known !== undefined) return known;
    const index = this.#indexes.size;
    if (index >= maxSources) {
      this.isFull = true;
      return 0;
    }
    this.#indexes.set(name, index);
    if (index >= this.completeToMs.length) {
      this.completeToMs = grown(this.completeToMs);
      this.heardCompleteToMs = grown(this.heardCompleteToMs);
    }
    return index;
  }

  get names(): readonly string[] {
    return [...this.#indexes.keys()];
  }

  /** Takes note of a watermark; it counts once it is confirmed. What was vouched for once stays vouched for. */
  hear(source: string, completeToMs: number): void {
    const index = this.index(source);
    if (index === 0) return;
    const heard = this.heardCompleteToMs[index] ?? Number.POSITIVE_INFINITY;
    if (heard === Number.POSITIVE_INFINITY || completeToMs > heard)
      this.heardCompleteToMs[index] = completeToMs;
  }

  /** The source is gone for good: what it said last is taken at its word. */
  forget(source: string): void {
    const index = this.index(source);
    this.heardCompleteToMs[index] = Number.POSITIVE_INFINITY;
    this.completeToMs[index] = Number.POSITIVE_INFINITY;
  }

  /** Makes watermarks of a snapshot those in force. Returns whether one changed. */
  confirm(heard: Float64Array): boolean {
    let changed = false;
    for (let index = 1; index < heard.length; index++) {
      const value = heard[index] ?? Number.POSITIVE_INFINITY;
      const before = this.completeToMs[index] ?? Number.POSITIVE_INFINITY;
      if (value === Number.POSITIVE_INFINITY) continue;
      // Gone since the snapshot was taken.
      if (this.heardCompleteToMs[index] === Number.POSITIVE_INFINITY) continue;
      if (before !== Number.POSITIVE_INFINITY && value <= before) continue;
      this.completeToMs[index] = value;
      changed = true;
    }
    return changed;
  }

  /**
   * The least that all of `sources` have vouched for; those that are more than `staleMs` behind the newest are left out.
   * +Infinity where none of them ever gave a watermark.
   */
  leastComplete(sources: Iterable<number>, staleMs: number): number {
    let newest = Number.NEGATIVE_INFINITY;
    for (let index = 1; index < this.#indexes.size; index++) {
      const value = this.completeToMs[index] ?? Number.POSITIVE_INFINITY;
      if (value !== Number.POSITIVE_INFINITY && value > newest) newest = value;
    }
    let least = Number.POSITIVE_INFINITY;
    for (const index of sources) {
      const value = this.completeToMs[index] ?? Number.POSITIVE_INFINITY;
      if (value >= newest - staleMs && value < least) least = value;
    }
    return least;
  }
}

function grown(old: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(old.length * 2).fill(Number.POSITIVE_INFINITY);
  larger.set(old);
  return larger;
}
