/** Intervals of addresses: both ends inclusive, as numbers of 128 bits (IPv4 mapped, as in address.ts). */
import { type Cidr, formatAddress, isMapped } from './address.ts';

export interface AddressInterval {
  readonly from: bigint;
  readonly to: bigint;
}

export const ipv4Space: AddressInterval = { from: 0xffff_0000_0000n, to: 0xffff_ffff_ffffn };
/** Two of them: mapped IPv4 addresses are none of IPv6. */
export const ipv6Space: readonly AddressInterval[] = [
  { from: 0n, to: ipv4Space.from - 1n },
  { from: ipv4Space.to + 1n, to: (1n << 128n) - 1n },
];

export function addressNumber(bytes: Uint8Array, offset = 0): bigint {
  return BigInt(`0x${Buffer.from(bytes.buffer, bytes.byteOffset + offset, 16).toString('hex')}`);
}

export function addressBytes(number: bigint): Uint8Array {
  return Uint8Array.from(Buffer.from(number.toString(16).padStart(32, '0'), 'hex'));
}

export function cidrInterval({ base, prefix }: Cidr): AddressInterval {
  const from = addressNumber(base);
  return { from, to: from + (1n << BigInt(128 - prefix)) - 1n };
}

export const isIpv4Interval = ({ from, to }: AddressInterval): boolean =>
  from >= ipv4Space.from && to <= ipv4Space.to;

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

/** Sorted, disjoint, and as few as can be; IPv4 and IPv6 are kept apart. */
export function mergeIntervals(intervals: readonly AddressInterval[]): AddressInterval[] {
  const out: { from: bigint; to: bigint }[] = [];
  for (const { from, to } of [...intervals].sort((a, b) => compare(a.from, b.from))) {
    const last = out.at(-1);
    const isBorder = from === ipv4Space.from || from === ipv4Space.to + 1n;
    if (last !== undefined && (from <= last.to || (from === last.to + 1n && !isBorder))) {
      if (to > last.to) last.to = to;
    } else out.push({ from, to });
  }
  return out;
}

/** What lies in both; arguments and result sorted and disjoint. */
export function intersectIntervals(
  a: readonly AddressInterval[],
  b: readonly AddressInterval[],
): AddressInterval[] {
  const out: AddressInterval[] = [];
  for (let i = 0, k = 0; ; ) {
    const [one, other] = [a[i], b[k]];
    if (one === undefined || other === undefined) return out;
    const from = one.from > other.from ? one.from : other.from;
    const to = one.to < other.to ? one.to : other.to;
    if (from <= to) out.push({ from, to });
    if (one.to < other.to) i++;
    else k++;
  }
}

/** What of `all` is not in `some`; arguments and result sorted and disjoint. */
export function subtractIntervals(
  all: readonly AddressInterval[],
  some: readonly AddressInterval[],
): AddressInterval[] {
  const out: AddressInterval[] = [];
  let k = 0;
  for (const { from, to } of all) {
    let begin = from;
    while ((some[k]?.to ?? to) < begin) k++;
    for (let i = k; ; i++) {
      const hole = some[i];
      if (hole === undefined || hole.from > to) break;
      if (hole.from > begin) out.push({ from: begin, to: hole.from - 1n });
      if (hole.to >= begin) begin = hole.to + 1n;
    }
    if (begin <= to) out.push({ from: begin, to });
  }
  return out;
}

/** Address, CIDR, or `first-last` where it is no block. */
export function intervalText({ from, to }: AddressInterval): string {
  const first = addressBytes(from);
  if (from === to) return formatAddress(first);
  const size = to - from + 1n;
  const isBlock = (size & (size - 1n)) === 0n && from % size === 0n;
  if (!isBlock) return `${formatAddress(first)}-${formatAddress(addressBytes(to))}`;
  const hostBits = size.toString(2).length - 1;
  return `${formatAddress(first)}/${(isMapped(first) ? 32 : 128) - hostBits}`;
}

/** A block of addresses with holes. */
export interface BlockWithHoles {
  readonly cidr: string;
  readonly except: readonly string[];
}

interface Cover {
  readonly blocks: readonly BlockWithHoles[];
  /** Entries in all. */
  readonly cost: number;
}

const none: Cover = { blocks: [], cost: 0 };

function blockText(from: bigint, hostBits: number): string {
  const first = addressBytes(from);
  return `${formatAddress(first)}/${(isMapped(first) && hostBits <= 32 ? 32 : 128) - hostBits}`;
}

/** Blocks that make up exactly what lies in the block at `from`; its parts are `intervals`. */
function plainCover(from: bigint, hostBits: number, intervals: readonly AddressInterval[]): Cover {
  if (intervals.length === 0) return none;
  const size = 1n << BigInt(hostBits);
  const [only] = intervals;
  if (intervals.length === 1 && only !== undefined && only.from === from && only.to === from + size - 1n)
    return { blocks: [{ cidr: blockText(from, hostBits), except: [] }], cost: 1 };
  const [left, right] = halves(from, hostBits, intervals);
  const a = plainCover(from, hostBits - 1, left);
  const b = plainCover(from + size / 2n, hostBits - 1, right);
  return { blocks: [...a.blocks, ...b.blocks], cost: a.cost + b.cost };
}

function halves(
  from: bigint,
  hostBits: number,
  intervals: readonly AddressInterval[],
): [AddressInterval[], AddressInterval[]] {
  const middle = from + (1n << BigInt(hostBits - 1));
  const left: AddressInterval[] = [];
  const right: AddressInterval[] = [];
  for (const interval of intervals) {
    if (interval.to < middle) left.push(interval);
    else if (interval.from >= middle) right.push(interval);
    else {
      left.push({ from: interval.from, to: middle - 1n });
      right.push({ from: middle, to: interval.to });
    }
  }
  return [left, right];
}

function coverWithHoles(from: bigint, hostBits: number, intervals: readonly AddressInterval[]): Cover {
  if (intervals.length === 0) return none;
  const to = from + (1n << BigInt(hostBits)) - 1n;
  const [only] = intervals;
  if (intervals.length === 1 && only?.from === from && only.to === to)
    return { blocks: [{ cidr: blockText(from, hostBits), except: [] }], cost: 1 };
  const [left, right] = halves(from, hostBits, intervals);
  const a = coverWithHoles(from, hostBits - 1, left);
  const b = coverWithHoles(from + (1n << BigInt(hostBits - 1)), hostBits - 1, right);
  const split = { blocks: [...a.blocks, ...b.blocks], cost: a.cost + b.cost };
  const gaps = subtractIntervals([{ from, to }], intervals);
  // Each gap takes a hole at least.
  if (gaps.length + 1 >= split.cost) return split;
  const holes = plainCover(from, hostBits, gaps);
  if (holes.cost + 1 >= split.cost) return split;
  const except = holes.blocks.map(({ cidr }) => cidr);
  return { blocks: [{ cidr: blockText(from, hostBits), except }], cost: holes.cost + 1 };
}

/** The fewest blocks, with holes where that saves some, that hold exactly these addresses. */
export function blocksWithHoles(intervals: readonly AddressInterval[]): BlockWithHoles[] {
  const merged = mergeIntervals(intervals);
  const ipv4 = intersectIntervals(merged, [ipv4Space]);
  // To IPv6 the mapped addresses are as good as absent: a block of IPv6 holds none of IPv4.
  const ipv6 = subtractIntervals(merged, [ipv4Space]);
  const whole6 =
    ipv6.some(({ to }) => to === ipv4Space.from - 1n) && ipv6.some(({ from }) => from === ipv4Space.to + 1n);
  const joined = whole6 ? mergeIntervals6([...ipv6, ipv4Space]) : ipv6;
  return [...coverWithHoles(ipv4Space.from, 32, ipv4).blocks, ...coverWithHoles(0n, 128, joined).blocks];
}

function mergeIntervals6(intervals: readonly AddressInterval[]): AddressInterval[] {
  const out: { from: bigint; to: bigint }[] = [];
  for (const { from, to } of [...intervals].sort((a, b) => compare(a.from, b.from))) {
    const last = out.at(-1);
    if (last !== undefined && from === last.to + 1n) last.to = to;
    else out.push({ from, to });
  }
  return out;
}
