/**
 * Protocols and ports as rules tell them apart: one line of slices, within each of which every rule of a policy says the
 * same. A set of services is a set of slices.
 */
import type { PolicyEngine } from '../policy/engine.ts';

/** Protocols whose flows have ports, or types. */
export const namedProtocols = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 } as const;
export type ProtocolName = keyof typeof namedProtocols | 'other';

/** Stands for every protocol without a name here (RFC 3692 keeps it for tests); its flows have port 0. */
const otherProtocol = 253;

export interface ServiceSlice {
  readonly protocol: ProtocolName;
  /** IANA number. */
  readonly number: number;
  readonly from: number;
  readonly to: number;
}

/** Slices of the protocols of one family, in the order of protocols and ports. */
export function serviceSlices(engine: PolicyEngine, family: 'ipv4' | 'ipv6'): ServiceSlice[] {
  const own: readonly ProtocolName[] =
    family === 'ipv4' ? ['tcp', 'udp', 'sctp', 'icmp'] : ['tcp', 'udp', 'sctp', 'icmpv6'];
  const slices = own.flatMap((protocol): ServiceSlice[] => {
    const number = protocol === 'other' ? otherProtocol : namedProtocols[protocol];
    const begins = new Set([0]);
    for (const { ports } of engine.rules)
      for (const match of ports) {
        if (match.protocol >= 0 && match.protocol !== number) continue;
        begins.add(match.fromPort);
        if (match.toPort < 65535) begins.add(match.toPort + 1);
      }
    const sorted = [...begins].sort((a, b) => a - b);
    return sorted.map((from, i) => ({ protocol, number, from, to: (sorted[i + 1] ?? 65536) - 1 }));
  });
  return [...slices, { protocol: 'other', number: otherProtocol, from: 0, to: 0 }];
}

export interface PortInterval {
  readonly from: number;
  readonly to: number;
}

/** Which ports of which protocols; a protocol with all of its ports has one interval. */
export type Services = ReadonlyMap<ProtocolName, readonly PortInterval[]>;

/** @param chosen indexes into `slices`, in order */
export function servicesOf(slices: readonly ServiceSlice[], chosen: readonly number[]): Services {
  const services = new Map<ProtocolName, { from: number; to: number }[]>();
  for (const index of chosen) {
    const slice = slices[index];
    if (slice === undefined) continue;
    const own = services.get(slice.protocol) ?? [];
    services.set(slice.protocol, own);
    const last = own.at(-1);
    if (last !== undefined && last.to + 1 === slice.from) last.to = slice.to;
    else own.push({ from: slice.from, to: slice.to });
  }
  return services;
}

export const isWhole = (ports: readonly PortInterval[] | undefined): boolean =>
  ports?.length === 1 && ports[0]?.from === 0 && ports[0].to === 65535;

/** Protocols of one family that slices tell apart. */
const familyProtocolCount = 5;

/** Whether nothing of the family is left out. */
export function isEveryService(services: Services): boolean {
  return (
    services.size === familyProtocolCount &&
    [...services].every(([protocol, ports]) => protocol === 'other' || isWhole(ports))
  );
}

export function servicesMeet(a: Services, b: Services): boolean {
  for (const [protocol, ports] of a) {
    const others = b.get(protocol) ?? [];
    if (ports.some(({ from, to }) => others.some((other) => other.from <= to && other.to >= from)))
      return true;
  }
  return false;
}
