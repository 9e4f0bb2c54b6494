/** Sets of addresses as firewall rules name them: sorted ranges of 128-bit numbers, IPv4 mapped into ::ffff:0:0/96. */
import { formatAddress, parseAddress, parseCidr } from '../net/address.ts';

export interface AddressRange {
  readonly first: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/** Ranges in order that neither overlap nor touch. */
export type AddressSet = readonly AddressRange[];

const width = 128n;
const highest = (1n << width) - 1n;
const firstIpv4 = 0xffff_0000_0000n;
const lastIpv4 = 0xffff_ffff_ffffn;

export const everyAddress: AddressSet = [{ first: 0n, last: highest }];
export const everyIpv4: AddressSet = [{ first: firstIpv4, last: lastIpv4 }];
export const everyIpv6: AddressSet = [
  { first: 0n, last: firstIpv4 - 1n },
  { first: lastIpv4 + 1n, last: highest },
];

function toNumber(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

/** The number of an address; `null` where the text is none. */
export function addressNumber(text: string): bigint | null {
  const bytes = parseAddress(text);
  return bytes === null ? null : toNumber(bytes);
}

export function addressText(number: bigint): string {
  return formatAddress(Buffer.from(number.toString(16).padStart(32, '0'), 'hex'));
}

/** The same addresses as sorted ranges that do not touch. */
export function unite(ranges: readonly AddressRange[]): AddressSet {
  const sorted = [...ranges].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const out: { first: bigint; last: bigint }[] = [];
  for (const { first, last } of sorted) {
    const before = out.at(-1);
    if (before !== undefined && first <= before.last + 1n) {
      if (last > before.last) before.last = last;
    } else out.push({ first, last });
  }
  return out;
}

export function intersect(a: AddressSet, b: AddressSet): AddressSet {
  const out: AddressRange[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const left = a[i];
    const right = b[j];
    if (left === undefined || right === undefined) break;
    const first = left.first > right.first ? left.first : right.first;
    const last = left.last < right.last ? left.last : right.last;
    if (first <= last) out.push({ first, last });
    if (left.last < right.last) i++;
    else j++;
  }
  return out;
}

/** All addresses but these. */
export function complement(set: AddressSet): AddressSet {
  const out: AddressRange[] = [];
  let from = 0n;
  for (const { first, last } of set) {
    if (first > from) out.push({ first: from, last: first - 1n });
    from = last + 1n;
  }
  if (from <= highest) out.push({ first: from, last: highest });
  return out;
}

/** Whether `outer` holds all of `inner`. */
export function holds(outer: AddressSet, inner: AddressSet): boolean {
  return sizeOf(intersect(outer, inner)) === sizeOf(inner);
}

/** How many addresses there are. */
export function sizeOf(set: AddressSet): bigint {
  return set.reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
}

/** Whether these are all addresses, of both families or of one: nobody is named by it. */
export function isOpen(set: AddressSet): boolean {
  return holds(set, everyIpv4) || holds(set, everyIpv6);
}

function prefixLength(first: bigint, bits: bigint): number {
  const isIpv4 = first >= firstIpv4 && first <= lastIpv4 && bits <= 32n;
  return Number((isIpv4 ? 32n : width) - bits);
}

/** The fewest CIDRs (and plain addresses) that are exactly the range. */
function cidrsOf({ first, last }: AddressRange): string[] {
  const out: string[] = [];
  let at = first;
  while (at <= last) {
    let bits = 0n;
    while (bits < width && at % (1n << (bits + 1n)) === 0n && at + (1n << (bits + 1n)) - 1n <= last) bits++;
    out.push(bits === 0n ? addressText(at) : `${addressText(at)}/${prefixLength(at, bits)}`);
    at += 1n << bits;
  }
  return out;
}

/** The set in the words of a rule: `any`, or CIDRs and addresses that are exactly it. */
export function addressTexts(set: AddressSet): string[] {
  if (holds(set, everyAddress)) return ['any'];
  const others = holds(set, everyIpv6) ? ['::/0'] : intersect(set, everyIpv6).flatMap(cidrsOf);
  return [...intersect(set, everyIpv4).flatMap(cidrsOf), ...others];
}

export const addressForms = 'an address, a CIDR, a range such as 10.0.0.4-10.0.0.9, or any';

/** One item of a list: an address, a CIDR, a range `a-b`, or `any`; a text says what is wrong. */
export function parseAddressItem(text: string): AddressSet | string {
  const item = text.trim();
  if (/^(any|all|\*)$/i.test(item)) return everyAddress;
  const dash = item.indexOf('-');
  if (dash > 0) {
    const first = addressNumber(item.slice(0, dash).trim());
    const last = addressNumber(item.slice(dash + 1).trim());
    if (first === null || last === null)
      return `"${item}" is no range of addresses; expected ${addressForms}`;
    if (
      intersect([{ first, last: first }], everyIpv4).length !==
      intersect([{ first: last, last }], everyIpv4).length
    )
      return `the range "${item}" joins IPv4 and IPv6`;
    return first > last ? `the range "${item}" ends before it begins` : [{ first, last }];
  }
  const cidr = parseCidr(item);
  if (cidr === null) return `"${item}" is no address; expected ${addressForms}`;
  // 0.0.0.0/0 is all of IPv4, ::/0 all that is not: each family is written as people write it.
  if (/^::?0*\/0$/.test(item)) return everyIpv6;
  const first = toNumber(cidr.base);
  if (item.includes('/') && hasHostBits(item, first))
    return `"${item}" has bits beyond its prefix; expected ${addressText(first)}/${item.split('/')[1]}`;
  return [{ first, last: first + (1n << BigInt(128 - cidr.prefix)) - 1n }];
}

function hasHostBits(item: string, base: bigint): boolean {
  return addressNumber(item.slice(0, item.indexOf('/'))) !== base;
}

/** A list joined by `;`. */
export function parseAddresses(text: string): AddressSet | string {
  const ranges: AddressRange[] = [];
  for (const item of text.split(';')) {
    if (item.trim() === '') {
      if (text.trim() === '') return `there is none; expected ${addressForms}`;
      continue;
    }
    const set = parseAddressItem(item);
    if (typeof set === 'string') return set;
    ranges.push(...set);
  }
  return unite(ranges);
}
