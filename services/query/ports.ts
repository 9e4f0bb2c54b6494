/** A destination port as people write it, and back: `5432`, `53/udp`, `icmp:8:0`, `gre`. */
import { parseProtocol, protocolName } from './protocols.ts';

export const portForms =
  'a port with or without its protocol (5432, 53/udp), icmp or icmpv6 with type and code (icmp:8:0), or a protocol without ports (gre)';

export interface AskedPort {
  /** For ICMP type * 256 + code; 0 for protocols without ports. */
  readonly port: number;
  /** IP protocol number. */
  readonly protocol: number;
  readonly protocolName: string;
}

const tcp = 6;
const isIcmp = (protocol: number): boolean => protocol === 1 || protocol === 58;
/** Types of an echo request: what ping sends. */
const echo: Readonly<Record<number, number>> = { 1: 8, 58: 128 };

/** `null` where the text is no port. */
export function parsePort(text: string): AskedPort | null {
  const trimmed = text.trim();
  const of = (port: number, protocol: number | null): AskedPort | null =>
    protocol === null || port > 65_535 ? null : { port, protocol, protocolName: protocolName(protocol) };
  const numbered = /^(\d{1,5})(?:\/([a-z0-9]+))?$/i.exec(trimmed);
  if (numbered !== null)
    return of(Number(numbered[1]), numbered[2] === undefined ? tcp : parseProtocol(numbered[2]));
  const typed = /^(icmp|icmpv6):(\d{1,3})(?::(\d{1,3}))?$/i.exec(trimmed);
  if (typed !== null) {
    const [type, code] = [Number(typed[2]), Number(typed[3] ?? 0)];
    return type > 255 || code > 255 ? null : of(type * 256 + code, parseProtocol(typed[1] ?? ''));
  }
  const protocol = parseProtocol(trimmed);
  if (protocol === null || protocol === tcp || protocol === 17 || protocol === 132) return null;
  return of((echo[protocol] ?? 0) * 256, protocol);
}

/** The text that `parsePort` reads as this. */
export function portWord(port: number, protocol: string): string {
  const number = parseProtocol(protocol);
  if (number !== null && isIcmp(number)) return `${protocol}:${port >> 8}:${port & 255}`;
  return `${port}/${protocol}`;
}
