/** Texts that many owners have in common (sets of labels as JSON, names of nodes), each kept once. */
import { ShardedMap } from './sharded-map.ts';

export interface SharedText {
  readonly text: string;
  /** A number that no other text has or had. */
  readonly serial: number;
  useCount: number;
}

export class SharedTexts {
  readonly #byText = new ShardedMap<SharedText>();
  #nextSerial = 1;

  /** The text, one use more; give it back with {@link release}. */
  take(text: string): SharedText {
    const known = this.#byText.get(text);
    if (known !== undefined) {
      known.useCount++;
      return known;
    }
    const shared: SharedText = { text, serial: this.#nextSerial++, useCount: 1 };
    this.#byText.set(text, shared);
    return shared;
  }

  release(shared: SharedText): void {
    shared.useCount--;
    if (shared.useCount === 0) this.#byText.delete(shared.text);
  }

  get size(): number {
    return this.#byText.size;
  }
}

export type Labels = Readonly<Record<string, string>>;

/** The labels that a text of {@link labelsText} stands for. */
export function labelsOfText({ text }: SharedText): Labels {
  return text === '{}' ? {} : (JSON.parse(text) as Labels);
}

export function labelsText(labels: Labels): string {
  return JSON.stringify(labels);
}
