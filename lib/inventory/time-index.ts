/**
 * Who had an address at a time: (network, address) -> intervals -> owner, in flat typed arrays.
 * Owners are small numbers that the caller gives a meaning. Intervals are half-open [since, until), ms since the epoch.
 */

/** How sure an answer is; the codes are those of `certainties` in `schemas/closed-lists.ts`. */
export const certaintyCode = { none: 0, exact: 1, grace: 2, late: 3, ambiguous: 4 } as const;

/** Highest time: an interval that still lasts. */
export const forever = Number.POSITIVE_INFINITY;

const slotWords = 5;
const none = -1;

export class TimeIndex {
  readonly #maxIntervalsPerAddress: number;
  /** 5 words a slot: network + 1 (0 is free), then the address. */
  #keys: Uint32Array;
  #heads: Int32Array;
  #mask: number;
  #slotCount = 0;
  #since: Float64Array;
  #until: Float64Array;
  #owner: Int32Array;
  #next: Int32Array;
  #used = 0;
  #free = none;
  /** Live intervals. */
  intervalCount = 0;
  /** Intervals let go because an address had too many: the oldest went. */
  evictedCount = 0;

  // The answer of the last find(): fields, so that a lookup makes no object.
  /** Owner found, or -1. */
  foundOwner = none;
  /** Code of the certainty. */
  foundCertainty = 0;

  /**
   * @param maxIntervalsPerAddress bound of the history of one address
   */
  constructor(options: { maxIntervalsPerAddress: number; expectedAddresses?: number }) {
    this.#maxIntervalsPerAddress = options.maxIntervalsPerAddress;
    let capacity = 1024;
    while (capacity < (options.expectedAddresses ?? 0) * 2) capacity *= 2;
    this.#keys = new Uint32Array(capacity * slotWords);
    this.#heads = new Int32Array(capacity);
    this.#mask = capacity - 1;
    const intervals = Math.max(1024, options.expectedAddresses ?? 0);
    this.#since = new Float64Array(intervals);
    this.#until = new Float64Array(intervals);
    this.#owner = new Int32Array(intervals);
    this.#next = new Int32Array(intervals);
  }

  get addressCount(): number {
    return this.#slotCount;
  }

  /** Bytes held by the arrays. */
  get byteLength(): number {
    return (
      this.#keys.byteLength +
      this.#heads.byteLength +
      this.#since.byteLength +
      this.#until.byteLength +
      this.#owner.byteLength +
      this.#next.byteLength
    );
  }

  /** Slot of the key, or of the free place where it belongs. Words in the machine's order, as in FlowColumns. */
  #slot(network: number, w0: number, w1: number, w2: number, w3: number): number {
    let hash = Math.imul(network ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(w3, 0xc2b2ae35);
    if ((w0 | w1) !== 0) hash ^= Math.imul(w0, 0x27d4eb2f) ^ Math.imul(w1 ^ (w2 << 7), 0x165667b1);
    hash ^= hash >>> 15;
    hash = Math.imul(hash, 0x2c1b3c6d);
    hash ^= hash >>> 13;
    const keys = this.#keys;
    let slot = hash & this.#mask;
    for (;;) {
      const at = slot * slotWords;
      const key = keys[at];
      if (key === 0) return slot;
      if (
        key === network + 1 &&
        keys[at + 4] === w3 &&
        keys[at + 3] === w2 &&
        keys[at + 2] === w1 &&
        keys[at + 1] === w0
      ) {
        return slot;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  #growSlots(): void {
    const oldKeys = this.#keys;
    const oldHeads = this.#heads;
    const capacity = (this.#mask + 1) * 2;
    this.#keys = new Uint32Array(capacity * slotWords);
    this.#heads = new Int32Array(capacity);
    this.#mask = capacity - 1;
    for (let old = 0; old < oldHeads.length; old++) {
      const from = old * slotWords;
      const network = oldKeys[from] ?? 0;
      if (network === 0) continue;
      const slot = this.#slot(
        network - 1,
        oldKeys[from + 1] ?? 0,
        oldKeys[from + 2] ?? 0,
        oldKeys[from + 3] ?? 0,
        oldKeys[from + 4] ?? 0,
      );
      this.#keys.set(oldKeys.subarray(from, from + slotWords), slot * slotWords);
      this.#heads[slot] = oldHeads[old] ?? none;
    }
  }

  #newInterval(): number {
    if (this.#free !== none) {
      const index = this.#free;
      this.#free = this.#next[index] ?? none;
      return index;
    }
    if (this.#used === this.#owner.length) {
      const size = Math.ceil(this.#owner.length * 1.5);
      const grow = <T extends Float64Array | Int32Array>(larger: T, old: T): T => {
        larger.set(old);
        return larger;
      };
      this.#since = grow(new Float64Array(size), this.#since);
      this.#until = grow(new Float64Array(size), this.#until);
      this.#owner = grow(new Int32Array(size), this.#owner);
      this.#next = grow(new Int32Array(size), this.#next);
    }
    return this.#used++;
  }

  /** Adds an interval. `words` holds the address at word `at` (4 words). Intervals of one address may overlap. */
  add(
    network: number,
    words: Uint32Array,
    at: number,
    sinceMs: number,
    untilMs: number,
    owner: number,
  ): void {
    if ((this.#slotCount + 1) * 2 > this.#mask) this.#growSlots();
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    const slot = this.#slot(network, w0, w1, w2, w3);
    const key = slot * slotWords;
    if (this.#keys[key] === 0) {
      this.#keys[key] = network + 1;
      this.#keys[key + 1] = w0;
      this.#keys[key + 2] = w1;
      this.#keys[key + 3] = w2;
      this.#keys[key + 4] = w3;
      this.#heads[slot] = none;
      this.#slotCount++;
    }
    const interval = this.#newInterval();
    this.#since[interval] = sinceMs;
    this.#until[interval] = untilMs;
    this.#owner[interval] = owner;
    this.intervalCount++;
    // Newest begin first: most lookups end at the first or second interval.
    let before = none;
    let after = this.#heads[slot] ?? none;
    let length = 1;
    while (after !== none && (this.#since[after] ?? 0) > sinceMs) {
      before = after;
      after = this.#next[after] ?? none;
      length++;
    }
    this.#next[interval] = after;
    if (before === none) this.#heads[slot] = interval;
    else this.#next[before] = interval;
    this.#trim(interval, length);
  }

  /** Lets go what lies beyond the bound, behind `interval`, which is number `length` of its list. */
  #trim(interval: number, length: number): void {
    let last = interval;
    let count = length;
    while (count < this.#maxIntervalsPerAddress) {
      const next = this.#next[last] ?? none;
      if (next === none) return;
      last = next;
      count++;
    }
    let gone = this.#next[last] ?? none;
    this.#next[last] = none;
    while (gone !== none) {
      const next = this.#next[gone] ?? none;
      this.#release(gone);
      this.evictedCount++;
      gone = next;
    }
  }

  #release(interval: number): void {
    this.#next[interval] = this.#free;
    this.#free = interval;
    this.#owner[interval] = none;
    this.intervalCount--;
  }

  /** Removes every interval of `owner` at the address that begins at `sinceMs`. Returns whether there was one. */
  remove(network: number, words: Uint32Array, at: number, sinceMs: number, owner: number): boolean {
    const slot = this.#slot(
      network,
      words[at] ?? 0,
      words[at + 1] ?? 0,
      words[at + 2] ?? 0,
      words[at + 3] ?? 0,
    );
    if (this.#keys[slot * slotWords] === 0) return false;
    let removed = false;
    let before = none;
    let interval = this.#heads[slot] ?? none;
    while (interval !== none) {
      const next = this.#next[interval] ?? none;
      if (this.#owner[interval] === owner && this.#since[interval] === sinceMs) {
        if (before === none) this.#heads[slot] = next;
        else this.#next[before] = next;
        this.#release(interval);
        removed = true;
      } else {
        before = interval;
      }
      interval = next;
    }
    return removed;
  }

  /**
   * Finds who had the address at `timeMs`; the answer is in `foundOwner` and `foundCertainty`:
   * one owner for the whole tolerance around the time and in possession at the time: exact; one owner near, not in
   * possession: grace; several near: ambiguous, with the one in possession, else the nearest; nobody near: none.
   */
  find(network: number, words: Uint32Array, at: number, timeMs: number, toleranceMs: number): void {
    this.foundOwner = none;
    this.foundCertainty = certaintyCode.none;
    const slot = this.#slot(
      network,
      words[at] ?? 0,
      words[at + 1] ?? 0,
      words[at + 2] ?? 0,
      words[at + 3] ?? 0,
    );
    if (this.#keys[slot * slotWords] === 0) return;
    const from = timeMs - toleranceMs;
    const to = timeMs + toleranceMs;
    let nearestMs = forever;
    for (
      let interval = this.#heads[slot] ?? none;
      interval !== none;
      interval = this.#next[interval] ?? none
    ) {
      const since = this.#since[interval] ?? 0;
      const until = this.#until[interval] ?? 0;
      if (since > to || until <= from) continue;
      const distanceMs = timeMs < since ? since - timeMs : timeMs >= until ? timeMs - until + 1 : 0;
      const owner = this.#owner[interval] ?? none;
      if (this.foundOwner === none) {
        this.foundOwner = owner;
        nearestMs = distanceMs;
        this.foundCertainty = distanceMs === 0 ? certaintyCode.exact : certaintyCode.grace;
      } else if (owner !== this.foundOwner) {
        if (distanceMs < nearestMs) {
          this.foundOwner = owner;
          nearestMs = distanceMs;
        }
        this.foundCertainty = certaintyCode.ambiguous;
      } else if (distanceMs < nearestMs) {
        // The same owner again, closer: it is sure once it is in possession and nobody else was near.
        nearestMs = distanceMs;
        if (distanceMs === 0 && this.foundCertainty === certaintyCode.grace)
          this.foundCertainty = certaintyCode.exact;
      }
    }
  }

  /** Owners that `find` would weigh, the nearest to the time first. */
  candidates(network: number, words: Uint32Array, at: number, timeMs: number, toleranceMs: number): number[] {
    const slot = this.#slot(
      network,
      words[at] ?? 0,
      words[at + 1] ?? 0,
      words[at + 2] ?? 0,
      words[at + 3] ?? 0,
    );
    if (this.#keys[slot * slotWords] === 0) return [];
    const distances = new Map<number, number>();
    for (
      let interval = this.#heads[slot] ?? none;
      interval !== none;
      interval = this.#next[interval] ?? none
    ) {
      const since = this.#since[interval] ?? 0;
      const until = this.#until[interval] ?? 0;
      if (since > timeMs + toleranceMs || until <= timeMs - toleranceMs) continue;
      const distanceMs = timeMs < since ? since - timeMs : timeMs >= until ? timeMs - until + 1 : 0;
      const owner = this.#owner[interval] ?? none;
      distances.set(owner, Math.min(distanceMs, distances.get(owner) ?? forever));
    }
    return [...distances].sort((a, b) => a[1] - b[1]).map(([owner]) => owner);
  }
}
