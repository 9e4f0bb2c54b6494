/** IP protocols by the names people use (IANA, Assigned Internet Protocol Numbers). */
const numbers = { icmp: 1, igmp: 2, tcp: 6, udp: 17, gre: 47, esp: 50, icmpv6: 58, sctp: 132 } as const;

const names = new Map<number, string>(Object.entries(numbers).map(([name, number]) => [number, name]));

export const protocolForms = `${Object.keys(numbers).join(', ')}, or a number from 0 to 255`;

/** The number of `tcp` or `6`; `null` where it is neither. */
export function parseProtocol(text: string): number | null {
  const named = new Map<string, number>(Object.entries(numbers)).get(text.toLowerCase());
  if (named !== undefined) return named;
  return /^\d{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : null;
}

/** `tcp` for 6; the number as text where it has no name here. */
export function protocolName(number: number): string {
  return names.get(number) ?? String(number);
}
