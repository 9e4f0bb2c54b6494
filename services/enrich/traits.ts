/**
 * What an address is apart from its owner: range identity, closed or not, and the policy's block set. Both need a search, so
 * the answers are kept in a direct-mapped cache that ranges and policy make void when they change.
 */
import type { Inventory } from '../../lib/inventory/inventory.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';

const keyWords = 6;

export class AddressTraits {
  readonly #inventory: Inventory;
  readonly #keys: Uint32Array;
  readonly #identity: Int32Array;
  readonly #blockSet: Uint16Array;
  readonly #closed: Uint8Array;
  readonly #inside: Uint8Array;
  readonly #mask: number;
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

  constructor(inventory: Inventory, engine: PolicyEngine, sizeBits = 16) {
    this.#inventory = inventory;
    this.#engine = engine;
    const size = 1 << sizeBits;
    this.#keys = new Uint32Array(size * keyWords);
    this.#identity = new Int32Array(size);
    this.#blockSet = new Uint16Array(size);
    this.#closed = new Uint8Array(size);
    this.#inside = new Uint8Array(size);
    this.#mask = size - 1;
  }

  /** To be called before each block: takes note of another policy and of changed ranges. */
  refresh(engine: PolicyEngine): void {
    if (engine === this.#engine && this.#rangeGeneration === this.#inventory.rangeGeneration) return;
    this.#engine = engine;
    this.#rangeGeneration = this.#inventory.rangeGeneration;
    this.#stamp++;
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
    const keys = this.#keys;
    const key = place * keyWords;
    if (
      keys[key] !== this.#stamp ||
      keys[key + 5] !== w3 ||
      keys[key + 1] !== network ||
      keys[key + 4] !== w2 ||
      keys[key + 3] !== w1 ||
      keys[key + 2] !== w0
    ) {
      const range = this.#inventory.rangeOf(network, bytes, row * 16);
      this.#identity[place] = range.identity;
      this.#closed[place] = range.closed ? 1 : 0;
      this.#inside[place] = range.inside ? 1 : 0;
      this.#blockSet[place] = this.#engine.hasBlocks ? this.#engine.blockSet(bytes, row * 16) : 0;
      keys[key] = this.#stamp;
      keys[key + 1] = network;
      keys[key + 2] = w0;
      keys[key + 3] = w1;
      keys[key + 4] = w2;
      keys[key + 5] = w3;
    }
    this.identity = this.#identity[place] ?? 0;
    this.blockSet = this.#blockSet[place] ?? 0;
    this.closed = this.#closed[place] ?? 0;
    this.inside = this.#inside[place] ?? 0;
  }
}
