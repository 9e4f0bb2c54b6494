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

/** The lanes that a condition opens on one side, by what else they need there. */
interface Opened {
  /** Those that need nothing, as pairs of a word's index and its bits. */
  readonly free: Int32Array;
  readonly byNeed: ReadonlyMap<number, readonly number[]>;
}

/** One side of all rules: which lanes a condition opens, and the set that is being filled. */
class Side {
  readonly #rulesOf: readonly (readonly number[])[];
  readonly #needOf: Int32Array;
  readonly #firstLane: Int32Array;
  readonly #topWords: number;
  /** By condition, once it was asked for: most of a policy's conditions are met by many ends, or by none. */
  readonly #opened: Opened[] = [];
  readonly #top: Int32Array;
  readonly #words: Int32Array;

  constructor(rulesOf: readonly (readonly number[])[], needOf: Int32Array, firstLane: Int32Array) {
    this.#rulesOf = rulesOf;
    this.#needOf = needOf;
    this.#firstLane = firstLane;
    this.#topWords = Math.ceil(needOf.length / 1024);
    this.#top = new Int32Array(this.#topWords);
    this.#words = new Int32Array(this.#topWords * 32);
  }

  #openedBy(condition: number): Opened {
    const known = this.#opened[condition];
    if (known !== undefined) return known;
    const words = new Map<number, number>();
    const byNeed = new Map<number, number[]>();
    for (const rule of this.#rulesOf[condition] ?? []) {
      const end = this.#firstLane[rule + 1] ?? 0;
      for (let lane = this.#firstLane[rule] ?? 0; lane < end; lane++) {
        const need = this.#needOf[lane] ?? -1;
        if (need < 0) words.set(lane >>> 5, (words.get(lane >>> 5) ?? 0) | (1 << (lane & 31)));
        else {
          const lanes = byNeed.get(need);
          if (lanes === undefined) byNeed.set(need, [lane]);
          else lanes.push(lane);
        }
      }
    }
    const opened = { free: Int32Array.from([...words].flat()), byNeed };
    this.#opened[condition] = opened;
    return opened;
  }

  #set(word: number, bits: number): void {
    this.#top[word >>> 5] = (this.#top[word >>> 5] ?? 0) | (1 << (word & 31));
    this.#words[word] = (this.#words[word] ?? 0) | bits;
  }

  /** Opens the lanes of a condition that is met, for an end of which these needs are met. */
  open(condition: number, needs: Iterable<number>): void {
    if (this.#rulesOf[condition] === undefined) return;
    const { free, byNeed } = this.#openedBy(condition);
    for (let i = 0; i < free.length; i += 2) this.#set(free[i] ?? 0, free[i + 1] ?? 0);
    if (byNeed.size === 0) return;
    for (const need of needs)
      for (const lane of byNeed.get(need) ?? []) this.#set(lane >>> 5, 1 << (lane & 31));
  }

  /** The lanes that were opened, and begins anew. */
  take(): LaneSet {
    const top = this.#topWords;
    let count = 0;
    for (const word of this.#top) count += bitCount(word);
    const set = new Uint32Array(2 * top + count);
    let at = 2 * top;
    for (let group = 0; group < top; group++) {
      let words = this.#top[group] ?? 0;
      set[group] = words;
      set[top + group] = at;
      while (words !== 0) {
        const word = group * 32 + 31 - Math.clz32(words & -words);
        words &= words - 1;
        set[at++] = this.#words[word] ?? 0;
        this.#words[word] = 0;
      }
    }
    this.#top.fill(0);
    return set;
  }
}

export class Endpoints {
  readonly #policy: CompiledPolicy;
  readonly #known = new Map<number, Endpoint>();
  #keptWords = 0;
  /** Words of the upper level of a lane set. */
  readonly topWords: number;
  readonly #source: Side;
  readonly #destination: Side;
  /** Times that all was forgotten because it was too much. */
  resetCount = 0;

  constructor(policy: CompiledPolicy) {
    this.#policy = policy;
    this.topWords = Math.ceil(policy.laneRule.length / 1024);
    this.#source = new Side(policy.fromRules, policy.laneSourceNeed, policy.firstLane);
    this.#destination = new Side(policy.toRules, policy.laneDestinationNeed, policy.firstLane);
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
    const { conditions, blocks, needs, isScopeOpen } = this.#policy;
    const met: number[] = [];
    const needsMet = new Set<number>();
    conditions.match(is, blocks.conditions[blockSet] ?? [], (condition) => {
      met.push(condition);
      for (const need of needs[condition] ?? []) needsMet.add(need);
    });
    for (const condition of met) {
      this.#source.open(condition, needsMet);
      this.#destination.open(condition, needsMet);
    }
    return {
      source: this.#source.take(),
      destination: this.#destination.take(),
      // What is needed of ends is nothing but scopes, and entries of them.
      isInAnyScope: isScopeOpen || needsMet.size > 0,
    };
  }
}
