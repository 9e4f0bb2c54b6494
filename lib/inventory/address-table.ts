/**
 * A hash table from (network, address) to a run of intervals: linear probing in one flat array. It grows a little with
 * each change: while it does, there is an old array whose slots move over some at a time, so that no reader waits for a
 * million keys.
 */

const initialSlots = 1024;
/** Slots of the old array that move over with each change. */
export const stepSlots = 32;
const mappedMarker = new Uint32Array(Uint8Array.of(0, 0, 0xff, 0xff).buffer)[0] ?? 0;

/**
 * Words of a slot: network + 1 (0: free), last word of the address, run, count, four that the owner of the table may use,
 * then for IPv6 the other words of the address.
 */
export const slotRun = 2;
export const slotCount = 3;
export const slotSummary = 4;
const slotAddress = 8;
/** In place of the network: the slot moved over. */
const moved = 0xffffffff;

/** Whether an address, as four words in the machine's order, is a mapped IPv4 one. */
export function isMappedWords(w0: number, w1: number, w2: number): boolean {
  return (w0 | w1) === 0 && w2 === mappedMarker;
}

/** Hash of a key. */
export function hashKey(network: number, w0: number, w1: number, w2: number, w3: number): number {
  let hash = Math.imul(w3, 0x9e3779b1) ^ Math.imul(network + 1, 0xc2b2ae3d);
  if ((w0 | w1) !== 0) {
    hash = Math.imul(hash ^ (hash >>> 15) ^ w0, 0x27d4eb2f);
    hash = Math.imul(hash ^ (hash >>> 13) ^ w1, 0x165667b1);
    hash = Math.imul(hash ^ (hash >>> 16) ^ w2, 0x9e3779b1);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

export class AddressTable {
  /** Words of a slot are `1 << shift`: 8 for IPv4, 16 for IPv6. */
  readonly shift: number;
  slots: Uint32Array<ArrayBuffer>;
  /** What has not moved to `slots` yet, from `#oldFrom` on; null when all has. */
  old: Uint32Array<ArrayBuffer> | null = null;
  #oldFrom = 0;
  count = 0;

  constructor(family: 4 | 6) {
    this.shift = family === 4 ? 3 : 4;
    this.slots = new Uint32Array(initialSlots << this.shift);
  }

  get byteLength(): number {
    return this.slots.byteLength + (this.old?.byteLength ?? 0);
  }

  /** Where the slot of a key begins in `slots` (or in `old`); -1 - place, where it has none, place is free and would be its. */
  find(
    slots: Uint32Array,
    hash: number,
    network: number,
    w0: number,
    w1: number,
    w2: number,
    w3: number,
  ): number {
    const shift = this.shift;
    const mask = slots.length - 1;
    let at = (hash << shift) & mask;
    for (;;) {
      const key = slots[at];
      if (
        slots[at + 1] === w3 &&
        key === network + 1 &&
        (shift === 3 ||
          (slots[at + slotAddress] === w0 &&
            slots[at + slotAddress + 1] === w1 &&
            slots[at + slotAddress + 2] === w2))
      )
        return at;
      if (key === 0) return -1 - at;
      at = (at + (1 << shift)) & mask;
    }
  }

  /** Where the slot of a key begins in `slots`, after it moved there if need be; -1 where the key has none. */
  claim(hash: number, network: number, w0: number, w1: number, w2: number, w3: number): number {
    this.step();
    const at = this.find(this.slots, hash, network, w0, w1, w2, w3);
    if (at >= 0 || this.old === null) return at < 0 ? -1 : at;
    const oldAt = this.find(this.old, hash, network, w0, w1, w2, w3);
    return oldAt < 0 ? -1 : this.#move(this.old, oldAt);
  }

  /** Makes a slot for a key that has none; returns where it begins in `slots`. */
  insert(hash: number, network: number, w0: number, w1: number, w2: number, w3: number): number {
    this.count++;
    // At most five eighths full.
    if (this.count * 8 > (this.slots.length >>> this.shift) * 5) this.#grow();
    const { slots } = this;
    const at = -1 - this.find(slots, hash, network, w0, w1, w2, w3);
    slots[at] = network + 1;
    slots[at + 1] = w3;
    if (this.shift === 4) {
      slots[at + slotAddress] = w0;
      slots[at + slotAddress + 1] = w1;
      slots[at + slotAddress + 2] = w2;
    }
    return at;
  }

  #hashAt(slots: Uint32Array, at: number): number {
    const network = (slots[at] ?? 0) - 1;
    const w3 = slots[at + 1] ?? 0;
    return this.shift === 3
      ? hashKey(network, 0, 0, mappedMarker, w3)
      : hashKey(
          network,
          slots[at + slotAddress] ?? 0,
          slots[at + slotAddress + 1] ?? 0,
          slots[at + slotAddress + 2] ?? 0,
          w3,
        );
  }

  #grow(): void {
    // Steps are long enough for this to be done long before.
    while (this.old !== null) this.step();
    this.old = this.slots;
    this.#oldFrom = 0;
    this.slots = new Uint32Array(this.old.length * 2);
  }

  /** Moves some slots over, where there are any left. */
  step(): void {
    const { old, shift } = this;
    if (old === null) return;
    const end = Math.min(old.length, this.#oldFrom + (stepSlots << shift));
    for (let at = this.#oldFrom; at < end; at += 1 << shift)
      if (old[at] !== 0 && old[at] !== moved) this.#move(old, at);
    this.#oldFrom = end;
    if (end === old.length) this.old = null;
  }

  #move(old: Uint32Array, from: number): number {
    const { slots, shift } = this;
    const mask = slots.length - 1;
    let at = (this.#hashAt(old, from) << shift) & mask;
    while (slots[at] !== 0) at = (at + (1 << shift)) & mask;
    for (let word = 0; word < 1 << shift; word++) slots[at + word] = old[from + word] ?? 0;
    // Whoever looks for a key behind it has to look on.
    old[from] = moved;
    return at;
  }

  /** Frees the slot at `at` of `slots`; slots behind it may move into its place. */
  delete(at: number): void {
    const { slots, shift } = this;
    const mask = slots.length - 1;
    let hole = at;
    for (let next = (hole + (1 << shift)) & mask; slots[next] !== 0; next = (next + (1 << shift)) & mask) {
      const home = (this.#hashAt(slots, next) << shift) & mask;
      // What belongs behind the hole stays.
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      slots.copyWithin(hole, next, next + (1 << shift));
      hole = next;
    }
    slots.fill(0, hole, hole + (1 << shift));
    this.count--;
  }
}
