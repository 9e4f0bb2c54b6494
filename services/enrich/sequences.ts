/** Which sequence numbers of an agent's boot were seen: disjoint ranges, so that repeats and gaps are exact. */

export class SequenceSet {
  /** Ascending, disjoint, not adjacent: from0, to0, from1, to1, ... */
  readonly #bounds: number[] = [];

  /** Adds a number; returns false where it was there already. */
  add(sequence: number): boolean {
    const bounds = this.#bounds;
    // Almost always the next one after the last.
    let at = bounds.length;
    while (at > 0 && (bounds[at - 2] ?? 0) > sequence) at -= 2;
    const previousTo = bounds[at - 1];
    if (previousTo !== undefined && sequence <= previousTo) return false;
    const joinsPrevious = previousTo === sequence - 1;
    const joinsNext = bounds[at] === sequence + 1;
    if (joinsPrevious && joinsNext) bounds.splice(at - 1, 2);
    else if (joinsPrevious) bounds[at - 1] = sequence;
    else if (joinsNext) bounds[at] = sequence;
    else bounds.splice(at, 0, sequence, sequence);
    return true;
  }

  /** Adds numbers that are all above those that are there, from the first to the last. */
  append(from: number, to: number): void {
    const lastTo = this.#bounds.at(-1);
    if (lastTo === from - 1) this.#bounds[this.#bounds.length - 1] = to;
    else this.#bounds.push(from, to);
  }

  /** Disjoint ranges, ascending, both ends included. */
  ranges(): [from: number, to: number][] {
    const out: [number, number][] = [];
    for (let i = 0; i < this.#bounds.length; i += 2)
      out.push([this.#bounds[i] ?? 0, this.#bounds[i + 1] ?? 0]);
    return out;
  }
}

/** The sequences of many boots, of which the least recently used go beyond a limit. */
export class SeenBatches {
  readonly #limit: number;
  readonly #boots = new Map<string, SequenceSet>();
  /** Boots let go because of the limit: a repeat of theirs would be counted again. */
  evictedCount = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Notes a batch; returns false where it was seen before. */
  add(agentId: string, bootId: string, sequence: number): boolean {
    return this.#of(agentId, bootId).add(sequence);
  }

  /** Notes batches that all follow those noted of the boot before. */
  addRange(agentId: string, bootId: string, from: number, to: number): void {
    this.#of(agentId, bootId).append(from, to);
  }

  #of(agentId: string, bootId: string): SequenceSet {
    const key = `${agentId}\n${bootId}`;
    let set = this.#boots.get(key);
    if (set === undefined) {
      set = new SequenceSet();
      if (this.#boots.size >= this.#limit) {
        const oldest = this.#boots.keys().next();
        if (oldest.done !== true) this.#boots.delete(oldest.value);
        this.evictedCount++;
      }
    } else {
      this.#boots.delete(key);
    }
    this.#boots.set(key, set);
    return set;
  }
}
