/** Process names by the patterns of a policy that they fit: names that fit the same ones are of one class. */
import { compilePattern, type NameTest } from './patterns.ts';

/** Classes at most; names of any further one count as no listed process, which `overflowCount` tells. */
const maxProcessClasses = 65_536;

export class ProcessClasses {
  readonly #exact = new Map<string, number>();
  readonly #globs: { readonly fits: NameTest; readonly pattern: number }[] = [];
  readonly #patterns = new Map<string, number>();
  /** For each class the patterns that its names fit. Class 0 is no process, or one that fits none. */
  readonly #classes: ReadonlySet<number>[] = [new Set()];
  readonly #numbers = new Map<string, number>([['', 0]]);
  overflowCount = 0;

  /** Number of a pattern. */
  add(pattern: string): number {
    const known = this.#patterns.get(pattern);
    if (known !== undefined) return known;
    const number = this.#patterns.size;
    this.#patterns.set(pattern, number);
    if (pattern.includes('*')) this.#globs.push({ fits: compilePattern(pattern), pattern: number });
    else this.#exact.set(pattern, number);
    return number;
  }

  get patternCount(): number {
    return this.#patterns.size;
  }

  /** The class of a process name; 0 for the empty name. */
  classOf(name: string): number {
    if (name === '' || this.#patterns.size === 0) return 0;
    const fitting = this.#globs.filter(({ fits }) => fits(name)).map(({ pattern }) => pattern);
    const exact = this.#exact.get(name);
    if (exact !== undefined) fitting.push(exact);
    const key = fitting.join(',');
    let number = this.#numbers.get(key);
    if (number !== undefined) return number;
    if (this.#classes.length >= maxProcessClasses) {
      this.overflowCount++;
      return 0;
    }
    number = this.#classes.length;
    this.#classes.push(new Set(fitting));
    this.#numbers.set(key, number);
    return number;
  }

  fits(processClass: number, pattern: number): boolean {
    return this.#classes[processClass]?.has(pattern) === true;
  }
}
