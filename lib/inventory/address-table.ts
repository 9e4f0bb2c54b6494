/**
 * A hash table from (network, address) to a run of intervals, and to who has the address now. A slot is 16 bytes, what is
 * seldom needed lies elsewhere, and the search for a key begins at a line of the processor's cache: nearly always it ends
 * in the same line. The table grows a little with each change: while it does, there are old arrays whose slots move over
 * some at a time, so that no reader waits for a million keys.
 */

const initialSlots = 1024;
/** Slots of the old arrays that move over with each change. */
export const stepSlots = 32;
const mappedMarker = new Uint32Array(Uint8Array.of(0, 0, 0xff, 0xff).buffer)[0] ?? 0;

/** Words of a slot: network + 1 (0: free), last word of the address, and two that the owner of the table may use. */
export const slotShift = 2;
export const slotOwner = 2;
export const slotSure = 3;
/** Slots of a line of the processor's cache. */
const lineSlots = 4;
/** Bytes that an allocator puts before an array, up to a line: the lines of a table are those of the processor. */
const lineBytes = 64;
const headBytes = 16;
/** In place of the network: the slot moved over. */
const moved = 0xffffffff;

/** Words of the second part of a slot: run, count, then for IPv6 the other words of the address. */
export const restRun = 0;
export const restCount = 1;
const restAddress = 2;

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

/** The arrays of a table. Slot `i` begins at word `i << slotShift` of `slots` and at `i << restShift` of `rests`. */
export interface SlotArrays {
  readonly slots: Uint32Array<ArrayBuffer>;
  readonly rests: Uint32Array<ArrayBuffer>;
  /** Number of slots - 1. */
  readonly mask: number;
}

function makeArrays(slotCount: number, restShift: number): SlotArrays {
  const buffer = new ArrayBuffer((slotCount << slotShift) * 4 + lineBytes);
  return {
    slots: new Uint32Array(buffer, lineBytes - headBytes, slotCount << slotShift),
    rests: new Uint32Array(slotCount << restShift),
    mask: slotCount - 1,
  };
}

/** Slot where the search for a key with this hash begins. */
export function homeOf(hash: number, mask: number): number {
  return hash & mask & -lineSlots;
}

export class AddressTable {
  /** Words of the second part of a slot are `1 << restShift`: 2 for IPv4, 8 for IPv6. */
  readonly restShift: number;
  arrays: SlotArrays;
  /** What has not moved to `arrays` yet, from `#oldFrom` on; null when all has. */
  old: SlotArrays | null = null;
  #oldFrom = 0;
  count = 0;

  constructor(family: 4 | 6) {
    this.restShift = family === 4 ? 1 : 3;
    this.arrays = makeArrays(initialSlots, this.restShift);
  }

  get byteLength(): number {
    return [this.arrays, this.old].reduce(
      (sum, arrays) => sum + (arrays === null ? 0 : arrays.slots.byteLength + arrays.rests.byteLength),
      0,
    );
  }

  /** The slot of a key in `arrays` (or in `old`); -1 - slot, where it has none, slot is free and would be its. */
  find(
    { slots, rests, mask }: SlotArrays,
    hash: number,
    network: number,
    w0: number,
    w1: number,
    w2: number,
    w3: number,
  ): number {
    const { restShift } = this;
    let slot = homeOf(hash, mask);
    for (;;) {
      const at = slot << slotShift;
      const key = slots[at];
      if (slots[at + 1] === w3 && key === network + 1) {
        if (restShift === 1) return slot;
        const rest = (slot << restShift) + restAddress;
        if (rests[rest] === w0 && rests[rest + 1] === w1 && rests[rest + 2] === w2) return slot;
      }
      if (key === 0) return -1 - slot;
      slot = (slot + 1) & mask;
    }
  }

  /** The slot of a key in `arrays`, after it moved there if need be; -1 where the key has none. */
  claim(hash: number, network: number, w0: number, w1: number, w2: number, w3: number): number {
    this.step();
    const slot = this.find(this.arrays, hash, network, w0, w1, w2, w3);
    if (slot >= 0 || this.old === null) return slot < 0 ? -1 : slot;
    const oldSlot = this.find(this.old, hash, network, w0, w1, w2, w3);
    return oldSlot < 0 ? -1 : this.#move(this.old, oldSlot);
  }

  /** Makes a slot for a key that has none; returns it, in `arrays`. */
  insert(hash: number, network: number, w0: number, w1: number, w2: number, w3: number): number {
    this.count++;
    // At most five eighths full.
    if (this.count * 8 > (this.arrays.mask + 1) * 5) this.#grow();
    const { slots, rests } = this.arrays;
    const slot = -1 - this.find(this.arrays, hash, network, w0, w1, w2, w3);
    const at = slot << slotShift;
    slots[at] = network + 1;
    slots[at + 1] = w3;
    if (this.restShift === 3) {
      const rest = (slot << this.restShift) + restAddress;
      rests[rest] = w0;
      rests[rest + 1] = w1;
      rests[rest + 2] = w2;
    }
    return slot;
  }

  #homeAt({ slots, rests }: SlotArrays, slot: number, mask: number): number {
    const at = slot << slotShift;
    const network = (slots[at] ?? 0) - 1;
    const w3 = slots[at + 1] ?? 0;
    if (this.restShift === 1) return homeOf(hashKey(network, 0, 0, mappedMarker, w3), mask);
    const rest = (slot << this.restShift) + restAddress;
    return homeOf(hashKey(network, rests[rest] ?? 0, rests[rest + 1] ?? 0, rests[rest + 2] ?? 0, w3), mask);
  }

  #grow(): void {
    // Steps are long enough for this to be done long before.
    while (this.old !== null) this.step();
    this.old = this.arrays;
    this.#oldFrom = 0;
    this.arrays = makeArrays((this.old.mask + 1) * 2, this.restShift);
  }

  /** Moves some slots over, where there are any left. */
  step(): void {
    const { old } = this;
    if (old === null) return;
    const end = Math.min(old.mask + 1, this.#oldFrom + stepSlots);
    for (let slot = this.#oldFrom; slot < end; slot++) {
      const key = old.slots[slot << slotShift];
      if (key !== 0 && key !== moved) this.#move(old, slot);
    }
    this.#oldFrom = end;
    if (end > old.mask) this.old = null;
  }

  #move(old: SlotArrays, from: number): number {
    const { slots, mask } = this.arrays;
    let to = this.#homeAt(old, from, mask);
    while (slots[to << slotShift] !== 0) to = (to + 1) & mask;
    this.#copy(old, from, this.arrays, to);
    // Whoever looks for a key behind it has to look on.
    old.slots[from << slotShift] = moved;
    return to;
  }

  #copy(source: SlotArrays, from: number, target: SlotArrays, to: number): void {
    const { restShift } = this;
    for (let word = 0; word < 1 << slotShift; word++)
      target.slots[(to << slotShift) + word] = source.slots[(from << slotShift) + word] ?? 0;
    for (let word = 0; word < 1 << restShift; word++)
      target.rests[(to << restShift) + word] = source.rests[(from << restShift) + word] ?? 0;
  }

  /** Frees a slot of `arrays`; slots behind it may move into its place. */
  delete(slot: number): void {
    const { arrays } = this;
    const { slots, mask } = arrays;
    let hole = slot;
    for (let next = (hole + 1) & mask; slots[next << slotShift] !== 0; next = (next + 1) & mask) {
      // What belongs behind the hole stays.
      if (((next - this.#homeAt(arrays, next, mask)) & mask) < ((next - hole) & mask)) continue;
      this.#copy(arrays, next, arrays, hole);
      hole = next;
    }
    slots[hole << slotShift] = 0;
    this.count--;
  }
}
