/**
 * Seeded randomness of the estate: the same seed and stream give the same numbers on every machine.
 * The generator is sfc32 (C. Doty-Humphrey, PractRand); texts are hashed with MurmurHash3's finalizer over FNV-1a.
 */

/** An unsigned 32-bit hash of a text. */
export function hash32(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return mix32(value);
}

/** Scatters an integer over 32 bits. */
export function mix32(integer: number): number {
  let value = integer >>> 0;
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed the run's seed @param stream what the numbers are for, so that one use does not disturb another */
  constructor(seed: string, stream: string) {
    this.#a = hash32(`${seed}/${stream}/a`);
    this.#b = hash32(`${seed}/${stream}/b`);
    this.#c = hash32(`${seed}/${stream}/c`);
    for (let i = 0; i < 12; i++) this.bits();
  }

  /** 32 random bits as an unsigned integer. */
  bits(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** A number in [0, 1). */
  next(): number {
    return this.bits() / 4294967296;
  }

  /** An integer in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** An integer in [from, to]. */
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** Standard normal (Box and Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next());
  }

  /** Log-normal with the given median; `sigma` is the deviation of the logarithm. */
  logNormal(median: number, sigma: number): number {
    return median * Math.exp(sigma * this.normal());
  }
}

/** Draws indexes in proportion to weights, in constant time (Walker's alias method, in Vose's form). */
export class WeightedChoice {
  readonly #threshold: Float64Array;
  readonly #alias: Int32Array;
  readonly total: number;

  constructor(weights: ArrayLike<number>) {
    const count = weights.length;
    this.#threshold = new Float64Array(count).fill(1);
    this.#alias = new Int32Array(count);
    let total = 0;
    for (let i = 0; i < count; i++) total += weights[i] ?? 0;
    this.total = total;
    const small: number[] = [];
    const large: number[] = [];
    const scaled = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      scaled[i] = ((weights[i] ?? 0) * count) / total;
      ((scaled[i] ?? 0) < 1 ? small : large).push(i);
    }
    for (let less = small.pop(); less !== undefined; less = small.pop()) {
      const more = large.pop();
      if (more === undefined) break;
      this.#threshold[less] = scaled[less] ?? 0;
      this.#alias[less] = more;
      scaled[more] = (scaled[more] ?? 0) + (scaled[less] ?? 0) - 1;
      ((scaled[more] ?? 0) < 1 ? small : large).push(more);
    }
  }

  pick(random: Random): number {
    const at = random.next() * this.#threshold.length;
    const index = Math.floor(at);
    return at - index < (this.#threshold[index] ?? 1) ? index : (this.#alias[index] ?? 0);
  }
}
