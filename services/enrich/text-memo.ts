/** A number for each text of a block, worked out when it is first asked for. */
export class TextMemo {
  readonly #count: number;
  readonly #of: (reference: number) => number;
  /** Made when the first text comes: most blocks have none. -2: not asked for yet. */
  #known: Int32Array | null = null;

  /** @param count references in the block @param of gives -1 or more */
  constructor(count: number, of: (reference: number) => number) {
    this.#count = count;
    this.#of = of;
  }

  get(reference: number): number {
    this.#known ??= new Int32Array(this.#count).fill(-2);
    let value = this.#known[reference] ?? -2;
    if (value === -2) {
      value = this.#of(reference);
      this.#known[reference] = value;
    }
    return value;
  }

  forget(): void {
    this.#known?.fill(-2);
  }
}
