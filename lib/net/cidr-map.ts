/**
 * Blocks of addresses flattened to disjoint segments, searched in O(log n) without objects. CIDRs nest or are apart,
 * so one sweep with a stack finds, for every segment, all blocks around it, outermost first.
 */
import type { Cidr } from './address.ts';

export interface CidrMap {
  /** Segment i covers the addresses from row i of `starts` (4 big-endian words each) up to the next row. */
  readonly starts: Uint32Array;
  /** For each segment the index into `stacks`. */
  readonly stackOf: Int32Array;
  /** Distinct stacks of entry indexes, outermost first; stack 0 is empty (no block). */
  readonly stacks: readonly (readonly number[])[];
}

/** The 4 words of a big-endian address. */
function wordsOf(bytes: Uint8Array): [number, number, number, number] {
  return [wordAt(bytes, 0), wordAt(bytes, 4), wordAt(bytes, 8), wordAt(bytes, 12)];
}

function lastOf({ base, prefix }: Cidr): Uint8Array {
  const last = Uint8Array.from(base);
  for (let bit = prefix; bit < 128; bit++) last[bit >> 3] = (last[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  return last;
}

/** The address after one; null after the last there is. */
function after(bytes: Uint8Array): Uint8Array | null {
  const next = Uint8Array.from(bytes);
  for (let i = 15; i >= 0; i--) {
    next[i] = ((next[i] ?? 0) + 1) & 255;
    if (next[i] !== 0) return next;
  }
  return null;
}

/** Entries by where they begin, outer before inner, equal ones in the order given. */
function inOrder(cidrs: readonly Cidr[]): number[] {
  const words = new Uint32Array(cidrs.length * 4);
  for (const [i, { base }] of cidrs.entries()) words.set(wordsOf(base), i * 4);
  const order = Array.from(cidrs, (_, i) => i);
  return order.sort((a, b) => {
    for (let word = 0; word < 4; word++) {
      const difference = (words[a * 4 + word] ?? 0) - (words[b * 4 + word] ?? 0);
      if (difference !== 0) return difference;
    }
    return (cidrs[a]?.prefix ?? 0) - (cidrs[b]?.prefix ?? 0) || a - b;
  });
}

/** Collects segments and distinct stacks. */
class Segments {
  readonly #starts: number[] = [0, 0, 0, 0];
  readonly #stackOf: number[] = [0];
  readonly #stacks: number[][] = [[]];
  readonly #known = new Map<string, number>([['', 0]]);

  /** From `start` on, `open` are the blocks around; of several stacks from one address on, the last counts. */
  begin(start: Uint8Array, open: readonly number[]): void {
    const key = open.join(',');
    let stack = this.#known.get(key);
    if (stack === undefined) {
      stack = this.#stacks.length;
      this.#stacks.push([...open]);
      this.#known.set(key, stack);
    }
    const words = wordsOf(start);
    const before = this.#starts.length - 4;
    if (words.every((word, i) => this.#starts[before + i] === word)) this.#stackOf[before / 4] = stack;
    else {
      this.#starts.push(...words);
      this.#stackOf.push(stack);
    }
  }

  finish(): CidrMap {
    return {
      starts: Uint32Array.from(this.#starts),
      stackOf: Int32Array.from(this.#stackOf),
      stacks: this.#stacks,
    };
  }
}

/** Blocks that are flattened between two steps. */
const blocksPerStep = 512;

/** {@link makeCidrMap} in steps, so that whoever runs it can do other things in between. */
export function* cidrMapSteps(cidrs: readonly Cidr[]): Generator<void, CidrMap> {
  const order = inOrder(cidrs);
  yield;
  const segments = new Segments();
  const open: { readonly entry: number; readonly last: Uint8Array }[] = [];
  const entries: number[] = [];
  const close = (): void => {
    const closed = open.pop();
    entries.pop();
    const next = closed === undefined ? null : after(closed.last);
    if (next !== null) segments.begin(next, entries);
  };
  for (const [i, entry] of order.entries()) {
    if (i % blocksPerStep === 0) yield;
    const cidr = cidrs[entry];
    if (cidr === undefined) continue;
    for (let top = open.at(-1); top !== undefined && isBefore(top.last, cidr.base); top = open.at(-1))
      close();
    open.push({ entry, last: lastOf(cidr) });
    entries.push(entry);
    segments.begin(cidr.base, entries);
  }
  while (open.length > 0) close();
  return segments.finish();
}

function isBefore(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < 16; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Flattens blocks; entry numbers in the stacks are indexes into `cidrs`. Equal blocks stack in the order given. */
export function makeCidrMap(cidrs: readonly Cidr[]): CidrMap {
  const steps = cidrMapSteps(cidrs);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  );
}

/** The stack (index into `map.stacks`) of the 16 bytes at `offset`; 0 where no block holds the address. */
export function findStack(map: CidrMap, bytes: Uint8Array, offset = 0): number {
  return map.stackOf[findSegment(map, bytes, offset)] ?? 0;
}

/** The stack of all addresses of a block; -1 where they have different ones. */
export function stackOfBlock(map: CidrMap, block: Cidr): number {
  const segment = findSegment(map, block.base, 0);
  return segment === findSegment(map, lastOf(block), 0) ? (map.stackOf[segment] ?? 0) : -1;
}

function findSegment(map: CidrMap, bytes: Uint8Array, offset: number): number {
  const w0 = wordAt(bytes, offset);
  const w1 = wordAt(bytes, offset + 4);
  const w2 = wordAt(bytes, offset + 8);
  const w3 = wordAt(bytes, offset + 12);
  const starts = map.starts;
  let low = 0;
  let high = map.stackOf.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    const at = middle * 4;
    const difference =
      (starts[at] ?? 0) - w0 ||
      (starts[at + 1] ?? 0) - w1 ||
      (starts[at + 2] ?? 0) - w2 ||
      (starts[at + 3] ?? 0) - w3;
    if (difference <= 0) low = middle;
    else high = middle - 1;
  }
  return low;
}
