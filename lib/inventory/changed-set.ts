/** A set of small numbers as bits: adding a million of them moves no memory to speak of. */
export class ChangedSet {
  #bits = new Uint32Array(64);
  size = 0;

  add(index: number): void {
    const word = index >>> 5;
    if (word >= this.#bits.length) {
      const larger = new Uint32Array(Math.max(this.#bits.length * 2, word + 1));
      larger.set(this.#bits);
      this.#bits = larger;
    }
    const before = this.#bits[word] ?? 0;
    const after = before | (1 << (index & 31));
    if (after >>> 0 === before) return;
    this.#bits[word] = after;
    this.size++;
  }

  has(index: number): boolean {
    return ((this.#bits[index >>> 5] ?? 0) & (1 << (index & 31))) !== 0;
  }

  delete(index: number): boolean {
    if (!this.has(index)) return false;
    const word = index >>> 5;
    this.#bits[word] = (this.#bits[word] ?? 0) & ~(1 << (index & 31));
    this.size--;
    return true;
  }

  /** In rising order; what is added meanwhile may come or not. */
  *[Symbol.iterator](): Generator<number> {
    for (let word = 0; word < this.#bits.length; word++) {
      let bits = this.#bits[word] ?? 0;
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        yield word * 32 + bit;
        bits &= bits - 1;
      }
    }
  }
}
