/**
 * For each end of flows (an identity, and the set of address blocks its address lies in) the lanes it fits as a source and
 * as a destination, as sparse bit sets: worked out when the end is first seen, and kept.
 */
import type { CompiledPolicy } from './compile.ts';
import type { Selectable } from './match.ts';

/**
 * A sparse set of lanes: for each 1,024 lanes a word that says which of their 32 words follow, then for each 1,024 where
 * the first of them is, then those words.
 */
export type LaneSet = Uint32Array;

export interface Endpoint {
  readonly source: LaneSet;
  readonly destination: LaneSet;
  readonly isInAnyScope: boolean;
}

/** Words of lane sets that are kept at most; past them all are forgotten, and worked out again when they are needed. */
export const maxKeptWords = 1 << 25;

/** How many of the bits of a word are set. */
export function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

export class Endpoints {
  readonly #policy: CompiledPolicy;
  readonly #known = new Map<number, Endpoint>();
  #keptWords = 0;
  /** Words of the upper level of a lane set. */
  readonly topWords: number;
  /** What is met by the end that is being worked out: by need, the number of the end. */
  readonly #met: Int32Array;
  #stamp = 0;
  readonly #sourceBits: Uint32Array;
  readonly #destinationBits: Uint32Array;
  /** Times that all was forgotten because it was too much. */
  resetCount = 0;

  constructor(policy: CompiledPolicy) {
    this.#policy = policy;
    this.topWords = Math.ceil(policy.laneRule.length / 1024);
    this.#met = new Int32Array(policy.needCount);
    this.#sourceBits = new Uint32Array(this.topWords * 32);
    this.#destinationBits = new Uint32Array(this.topWords * 32);
  }

  of(identity: number, blockSet: number, is: Selectable): Endpoint {
    const key = identity * 65536 + blockSet;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const endpoint = this.#make(blockSet, is);
    this.#keptWords += endpoint.source.length + endpoint.destination.length;
    if (this.#keptWords > maxKeptWords) {
      this.#known.clear();
      this.#keptWords = 0;
      this.resetCount++;
    }
    this.#known.set(key, endpoint);
    return endpoint;
  }

  #make(blockSet: number, is: Selectable): Endpoint {
    const { conditions, blocks, fromRules, toRules, needs, scopeCount, isScopeOpen } = this.#policy;
    const { laneSourceNeed, laneDestinationNeed } = this.#policy;
    const stamp = ++this.#stamp;
    const conditionsMet: number[] = [];
    let isInAnyScope = isScopeOpen;
    conditions.match(is, blocks.conditions[blockSet] ?? [], (condition) => {
      conditionsMet.push(condition);
      for (const need of needs[condition] ?? []) {
        this.#met[need] = stamp;
        isInAnyScope ||= need < scopeCount;
      }
    });
    this.#sourceBits.fill(0);
    this.#destinationBits.fill(0);
    for (const condition of conditionsMet) {
      this.#setLanes(this.#sourceBits, fromRules[condition], laneSourceNeed, stamp);
      this.#setLanes(this.#destinationBits, toRules[condition], laneDestinationNeed, stamp);
    }
    return {
      source: this.#pack(this.#sourceBits),
      destination: this.#pack(this.#destinationBits),
      isInAnyScope,
    };
  }

  #setLanes(
    bits: Uint32Array,
    rules: readonly number[] | undefined,
    needOf: Int32Array,
    stamp: number,
  ): void {
    if (rules === undefined) return;
    const { firstLane } = this.#policy;
    for (const rule of rules) {
      const end = firstLane[rule + 1] ?? 0;
      for (let lane = firstLane[rule] ?? 0; lane < end; lane++) {
        const need = needOf[lane] ?? -1;
        if (need < 0 || this.#met[need] === stamp)
          bits[lane >>> 5] = (bits[lane >>> 5] ?? 0) | (1 << (lane & 31));
      }
    }
  }

  #pack(bits: Uint32Array): LaneSet {
    const top = this.topWords;
    let count = 0;
    for (const word of bits) if (word !== 0) count++;
    const set = new Uint32Array(2 * top + count);
    let at = 2 * top;
    for (let group = 0; group < top; group++) {
      set[top + group] = at;
      for (let i = 0; i < 32; i++) {
        const word = bits[group * 32 + i] ?? 0;
        if (word === 0) continue;
        set[group] = (set[group] ?? 0) | (1 << i);
        set[at++] = word;
      }
    }
    return set;
  }
}
