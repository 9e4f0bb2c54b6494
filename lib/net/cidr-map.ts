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

interface Boundary {
  readonly at: bigint;
  readonly entry: number;
  readonly opens: boolean;
  readonly prefix: number;
}

function toBigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex')}`);
}

/** Flattens blocks; entry numbers in the stacks are indexes into `cidrs`. Equal blocks stack in the order given. */
export function makeCidrMap(cidrs: readonly Cidr[]): CidrMap {
  const boundaries: Boundary[] = [];
  cidrs.forEach(({ base, prefix }, entry) => {
    const from = toBigInt(base);
    boundaries.push({ at: from, entry, opens: true, prefix });
    boundaries.push({ at: from + (1n << BigInt(128 - prefix)), entry, opens: false, prefix });
  });
  // At one address: close inner before outer, then open outer before inner.
  boundaries.sort((a, b) => {
    if (a.at !== b.at) return a.at < b.at ? -1 : 1;
    if (a.opens !== b.opens) return a.opens ? 1 : -1;
    const byPrefix = a.opens ? a.prefix - b.prefix : b.prefix - a.prefix;
    return byPrefix !== 0 ? byPrefix : a.opens ? a.entry - b.entry : b.entry - a.entry;
  });
  const stacks: number[][] = [[]];
  const known = new Map<string, number>([['', 0]]);
  const segmentStarts: bigint[] = [0n];
  const segmentStacks: number[] = [0];
  const open: number[] = [];
  const end = 1n << 128n;
  for (let i = 0; i < boundaries.length; ) {
    const at = boundaries[i]?.at ?? end;
    for (
      let boundary = boundaries[i];
      boundary !== undefined && boundary.at === at;
      boundary = boundaries[++i]
    ) {
      if (boundary.opens) open.push(boundary.entry);
      else open.splice(open.lastIndexOf(boundary.entry), 1);
    }
    if (at === end) break;
    const key = open.join(',');
    let stack = known.get(key);
    if (stack === undefined) {
      stack = stacks.length;
      stacks.push([...open]);
      known.set(key, stack);
    }
    if (segmentStarts.at(-1) === at) segmentStacks[segmentStacks.length - 1] = stack;
    else {
      segmentStarts.push(at);
      segmentStacks.push(stack);
    }
  }
  const starts = new Uint32Array(segmentStarts.length * 4);
  segmentStarts.forEach((start, i) => {
    for (let word = 0; word < 4; word++)
      starts[i * 4 + word] = Number((start >> BigInt(96 - 32 * word)) & 0xffffffffn);
  });
  return { starts, stackOf: Int32Array.from(segmentStacks), stacks };
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
export function stackOfBlock(map: CidrMap, { base, prefix }: Cidr): number {
  const last = Uint8Array.from(base);
  for (let bit = prefix; bit < 128; bit++) last[bit >> 3] = (last[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  const segment = findSegment(map, base, 0);
  return segment === findSegment(map, last, 0) ? (map.stackOf[segment] ?? 0) : -1;
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
