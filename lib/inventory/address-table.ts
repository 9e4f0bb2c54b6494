/**
 * A hash table from (network, address) to a run of intervals, in many small tables: each grows alone, in well under a
 * millisecond, so that no reader waits for a million keys to move. Linear probing, backward-shift deletion.
 */

/** Tables of one kind. */
export const partCount = 256;
const initialSlots = 8;
const mappedMarker = new Uint32Array(Uint8Array.of(0, 0, 0xff, 0xff).buffer)[0] ?? 0;

/**
 * Words of a slot: network + 1 (0: free), last word of the address, run, count, four that the owner of the table may use,
 * then for IPv6 the other words of the address.
 */
export const slotRun = 2;
export const slotCount = 3;
export const slotSummary = 4;
const slotAddress = 8;

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
  readonly parts: Uint32Array<ArrayBuffer>[] = [];
  readonly #counts = new Int32Array(partCount);
  count = 0;

  constructor(family: 4 | 6) {
    this.shift = family === 4 ? 3 : 4;
    for (let part = 0; part < partCount; part++) this.parts.push(new Uint32Array(initialSlots << this.shift));
  }

  get byteLength(): number {
    return this.parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** The part of a hash. */
  partOf(hash: number): Uint32Array<ArrayBuffer> {
    const part = this.parts[hash >>> 24];
    if (part === undefined) throw new RangeError(`no part ${hash >>> 24}`);
    return part;
  }

  /** Where the slot of a key begins in its part; -1 - place, where it is free, belongs there and is free. */
  find(
    part: Uint32Array,
    hash: number,
    network: number,
    w0: number,
    w1: number,
    w2: number,
    w3: number,
  ): number {
    const shift = this.shift;
    const mask = (part.length >>> shift) - 1;
    let slot = hash & mask;
    for (;;) {
      const at = slot << shift;
      const key = part[at];
      if (key === 0) return -1 - at;
      if (
        part[at + 1] === w3 &&
        key === network + 1 &&
        (shift === 3 ||
          (part[at + slotAddress] === w0 &&
            part[at + slotAddress + 1] === w1 &&
            part[at + slotAddress + 2] === w2))
      )
        return at;
      slot = (slot + 1) & mask;
    }
  }

  /** Makes a slot for a key that has none; returns where it begins in `partOf(hash)`, asked for anew. */
  insert(hash: number, network: number, w0: number, w1: number, w2: number, w3: number): number {
    const partIndex = hash >>> 24;
    const count = (this.#counts[partIndex] ?? 0) + 1;
    this.#counts[partIndex] = count;
    this.count++;
    let part = this.partOf(hash);
    // At most five eighths full.
    if (count * 8 > (part.length >>> this.shift) * 5) part = this.#grow(partIndex, part);
    const at = -1 - this.find(part, hash, network, w0, w1, w2, w3);
    part[at] = network + 1;
    part[at + 1] = w3;
    if (this.shift === 4) {
      part[at + slotAddress] = w0;
      part[at + slotAddress + 1] = w1;
      part[at + slotAddress + 2] = w2;
    }
    return at;
  }

  #hashAt(part: Uint32Array, at: number): number {
    const network = (part[at] ?? 0) - 1;
    const w3 = part[at + 1] ?? 0;
    return this.shift === 3
      ? hashKey(network, 0, 0, mappedMarker, w3)
      : hashKey(
          network,
          part[at + slotAddress] ?? 0,
          part[at + slotAddress + 1] ?? 0,
          part[at + slotAddress + 2] ?? 0,
          w3,
        );
  }

  #grow(partIndex: number, old: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
    const { shift } = this;
    const words = 1 << shift;
    const part = new Uint32Array(old.length * 2);
    const mask = (part.length >>> shift) - 1;
    for (let from = 0; from < old.length; from += words) {
      if (old[from] === 0) continue;
      let slot = this.#hashAt(old, from) & mask;
      while (part[slot << shift] !== 0) slot = (slot + 1) & mask;
      part.set(old.subarray(from, from + words), slot << shift);
    }
    this.parts[partIndex] = part;
    return part;
  }

  /** Frees the slot at `at` of part `partIndex`; slots behind it may move into its place. */
  delete(partIndex: number, at: number): void {
    const part = this.parts[partIndex];
    if (part === undefined) return;
    const { shift } = this;
    const words = 1 << shift;
    const mask = (part.length >>> shift) - 1;
    let hole = at >>> shift;
    for (let slot = (hole + 1) & mask; part[slot << shift] !== 0; slot = (slot + 1) & mask) {
      const home = this.#hashAt(part, slot << shift) & mask;
      // What belongs behind the hole stays.
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      part.copyWithin(hole << shift, slot << shift, (slot << shift) + words);
      hole = slot;
    }
    part.fill(0, hole << shift, (hole << shift) + words);
    this.#counts[partIndex] = (this.#counts[partIndex] ?? 0) - 1;
    this.count--;
  }
}
