/**
 * What an address is apart from its owner: range identity, closed or not, and the policy's block set. Both need a search, so
 * the answers are kept in a direct-mapped cache that ranges and policy make void when they change.
 */
import { isMappedWords } from '../../lib/inventory/address-table.ts';
import type { Inventory } from '../../lib/inventory/inventory.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';

/** Words of an entry: stamp, network, address, identity, and the rest packed. */
const entryWords = 8;
const closedBit = 1 << 16;
const insideBit = 1 << 17;

/** Instead of a block set: addresses that begin with these 16 bits have different ones; or nobody asked yet. */
const mixed = -1;
const notAsked = -2;

export class AddressTraits {
  readonly #inventory: Inventory;
  /** One entry is 32 bytes: a look touches one line of the processor's cache. */
  readonly #entries: Uint32Array;
  readonly #mask: number;
  /** Block sets by the first 16 bits of an IPv4 address: few lists reach into the address space of workloads. */
  readonly #blockSets = new Int32Array(65536).fill(notAsked);
  #engine: PolicyEngine;
  #rangeGeneration = -1;
  /** Part of each key: raising it empties the cache. */
  #stamp = 0;

  // The answer of the last look(): fields, so that a lookup makes no object.
  identity = 0;
  blockSet = 0;
  closed = 0;
  /** 1 where the address may be a host of the estate: in a named range inside, or in none. */
  inside = 0;

  constructor(inventory: Inventory, engine: PolicyEngine, sizeBits = 13) {
    this.#inventory = inventory;
    this.#engine = engine;
    const size = 1 << sizeBits;
    this.#entries = new Uint32Array(size * entryWords);
    this.#mask = size - 1;
  }

  /** To be called before each block: takes note of another policy and of changed ranges. */
  refresh(engine: PolicyEngine): void {
    if (engine === this.#engine && this.#rangeGeneration === this.#inventory.rangeGeneration) return;
    this.#engine = engine;
    this.#rangeGeneration = this.#inventory.rangeGeneration;
    this.#stamp++;
    this.#blockSets.fill(notAsked);
  }

  /** The policy's block set of the address of row `row`, without the rest. */
  blockSetOf(network: number, words: Uint32Array, bytes: Uint8Array, row: number): number {
    if (!this.#engine.hasBlocks) return 0;
    const at = row * 4;
    if (isMappedWords(words[at] ?? 0, words[at + 1] ?? 0, words[at + 2] ?? 0)) {
      const first = ((bytes[row * 16 + 12] ?? 0) << 8) | (bytes[row * 16 + 13] ?? 0);
      let blockSet = this.#blockSets[first] ?? mixed;
      if (blockSet === notAsked) {
        const base = new Uint8Array(16);
        base.set(bytes.subarray(row * 16, row * 16 + 14));
        blockSet = this.#engine.blockSetOfBlock({ base, prefix: 112 });
        this.#blockSets[first] = blockSet;
      }
      if (blockSet !== mixed) return blockSet;
    }
    this.look(network, words, bytes, row);
    return this.blockSet;
  }

  /** Looks at the address of row `row` as seen from `network`; the answer is in `identity`, `blockSet`, `closed`, `inside`. */
  look(network: number, words: Uint32Array, bytes: Uint8Array, row: number): void {
    const at = row * 4;
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    let hash = Math.imul(w3, 0x9e3779b1) ^ Math.imul(w0 ^ w1, 0x85ebca77) ^ Math.imul(network, 0xc2b2ae3d);
    hash ^= hash >>> 15;
    hash = Math.imul(hash, 0x2c1b3c6d);
    const place = (hash ^ (hash >>> 13)) & this.#mask;
    const entries = this.#entries;
    const entry = place * entryWords;
    if (
      entries[entry + 5] !== w3 ||
      entries[entry] !== this.#stamp ||
      entries[entry + 1] !== network ||
      entries[entry + 4] !== w2 ||
      entries[entry + 3] !== w1 ||
      entries[entry + 2] !== w0
    ) {
      const range = this.#inventory.rangeOf(network, bytes, row * 16);
      const blockSet = this.#engine.hasBlocks ? this.#engine.blockSet(bytes, row * 16) : 0;
      entries[entry] = this.#stamp;
      entries[entry + 1] = network;
      entries[entry + 2] = w0;
      entries[entry + 3] = w1;
      entries[entry + 4] = w2;
      entries[entry + 5] = w3;
      entries[entry + 6] = range.identity;
      entries[entry + 7] = blockSet | (range.closed ? closedBit : 0) | (range.inside ? insideBit : 0);
    }
    const packed = entries[entry + 7] ?? 0;
    this.identity = entries[entry + 6] ?? 0;
    this.blockSet = packed & 0xffff;
    this.closed = packed & closedBit ? 1 : 0;
    this.inside = packed & insideBit ? 1 : 0;
  }
}
