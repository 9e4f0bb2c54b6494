/**
 * IP addresses as 16 bytes: IPv6 as it is, IPv4 mapped into ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
 * Text follows RFC 5952; parsing takes what RFC 4291 allows, without zones.
 */

/** Bytes of the prefix that marks a mapped IPv4 address. */
const mappedPrefix = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split('.');
  if (parts.length !== 4) return null;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = parts[i] ?? '';
    if (!/^(0|[1-9]\d{0,2})$/.test(part)) return null;
    const value = Number(part);
    if (value > 255) return null;
    bytes[i] = value;
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array | null {
  let head = text;
  let tail4: Uint8Array | null = null;
  const lastColon = text.lastIndexOf(':');
  if (text.includes('.')) {
    tail4 = parseIpv4(text.slice(lastColon + 1));
    if (tail4 === null || lastColon < 0) return null;
    head = `${text.slice(0, lastColon + 1)}0:0`;
  }
  const halves = head.split('::');
  if (halves.length > 2) return null;
  const groups = (half: string | undefined): number[] | null => {
    if (half === undefined || half === '') return [];
    const out: number[] = [];
    for (const group of half.split(':')) {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return null;
      out.push(Number.parseInt(group, 16));
    }
    return out;
  };
  const left = groups(halves[0]);
  const right = groups(halves[1]);
  if (left === null || right === null) return null;
  const count = left.length + right.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return null;
  const all = [...left, ...new Array<number>(8 - count).fill(0), ...right];
  const bytes = new Uint8Array(16);
  all.forEach((group, i) => {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group & 255;
  });
  if (tail4 !== null) bytes.set(tail4, 12);
  return bytes;
}

/** Bytes of an address as they go on the wire: 4 for IPv4, 16 for IPv6; `null` where the text is no address. */
export function parseWireAddress(text: string): Uint8Array | null {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

/** The 16 bytes of an address (IPv4 mapped); `null` where the text is no address. */
export function parseAddress(text: string): Uint8Array | null {
  const bytes = parseWireAddress(text);
  if (bytes === null || bytes.length === 16) return bytes;
  return toMapped(bytes);
}

/** 4 or 16 bytes to 16. */
export function toMapped(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 16) return bytes;
  const mapped = new Uint8Array(16);
  mapped.set(mappedPrefix);
  mapped.set(bytes, 12);
  return mapped;
}

/** Whether the 16 bytes at `offset` are a mapped IPv4 address. */
export function isMapped(bytes: Uint8Array, offset = 0): boolean {
  for (let i = 0; i < 12; i++) if (bytes[offset + i] !== mappedPrefix[i]) return false;
  return true;
}

/** Text of the 16 bytes at `offset`: dotted for a mapped IPv4 address, RFC 5952 otherwise. */
export function formatAddress(bytes: Uint8Array, offset = 0): string {
  if (isMapped(bytes, offset)) {
    return `${bytes[offset + 12]}.${bytes[offset + 13]}.${bytes[offset + 14]}.${bytes[offset + 15]}`;
  }
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[offset + i] ?? 0) << 8) | (bytes[offset + i + 1] ?? 0));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  if (best.start < 0) return hex(0, 8);
  return `${hex(0, best.start)}::${hex(best.start + best.length, 8)}`;
}

/** A block of addresses: 16 bytes with the host bits cleared, and a prefix length of 0..128 (IPv4 prefixes count from 96). */
export interface Cidr {
  readonly base: Uint8Array;
  readonly prefix: number;
}

/** Reads `10.0.0.0/8`, `2001:db8::/32`, or a single address; `null` where the text is neither. Host bits are cleared. */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf('/');
  const wire = parseWireAddress(slash < 0 ? text : text.slice(0, slash));
  if (wire === null) return null;
  const width = wire.length * 8;
  let length = width;
  if (slash >= 0) {
    const digits = text.slice(slash + 1);
    if (!/^\d{1,3}$/.test(digits)) return null;
    length = Number(digits);
    if (length > width) return null;
  }
  const prefix = length + (128 - width);
  const base = Uint8Array.from(toMapped(wire));
  for (let bit = prefix; bit < 128; bit++) {
    const index = bit >> 3;
    base[index] = (base[index] ?? 0) & ~(0x80 >> (bit & 7));
  }
  return { base, prefix };
}
