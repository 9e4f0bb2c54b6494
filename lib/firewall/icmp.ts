/** ICMP types by the names that firewalls print. */
import type { PortRange } from './services.ts';

const types: Readonly<Record<number, Readonly<Record<string, number>>>> = {
  1: {
    'echo-reply': 0,
    'destination-unreachable': 3,
    redirect: 5,
    'echo-request': 8,
    'router-advertisement': 9,
    'router-solicitation': 10,
    'time-exceeded': 11,
    'parameter-problem': 12,
    'timestamp-request': 13,
    'timestamp-reply': 14,
  },
  58: {
    'destination-unreachable': 1,
    'packet-too-big': 2,
    'time-exceeded': 3,
    'parameter-problem': 4,
    'echo-request': 128,
    'echo-reply': 129,
    'nd-router-solicit': 133,
    'nd-router-advert': 134,
    'nd-neighbor-solicit': 135,
    'nd-neighbor-advert': 136,
  },
};

/** `8`, `8/0` or a name, as ports of type * 256 + code; `null` where it is none. */
export function icmpTypeRange(text: string, protocol: 1 | 58): PortRange | null {
  if (text === 'any') return { protocol, first: 0, last: 65_535 };
  const match = /^(\d{1,3})(?:\/(\d{1,3}))?$/.exec(text);
  const type = match === null ? types[protocol]?.[text] : Number(match[1]);
  const code = match?.[2] === undefined ? null : Number(match[2]);
  if (type === undefined || type > 255 || (code ?? 0) > 255) return null;
  const first = type * 256 + (code ?? 0);
  return { protocol, first, last: code === null ? first + 255 : first };
}
