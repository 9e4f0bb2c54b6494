/** The narrowest rule that would still carry what was seen, and by how much the rule is wider. */
import { type AddressSet, addressNumber, addressTexts, sizeOf, unite } from './addresses.ts';
import type { StaticRule } from './rule.ts';
import {
  gatherPorts,
  highestPort,
  type PortRange,
  portProtocols,
  protocolsOf,
  type Services,
  serviceTexts,
} from './services.ts';
import type { RuleTally } from './tally.ts';

/** Lists of a narrowest rule at most; what is longer is no rule that anybody would write. */
export const maxListed = 5000;

export interface Narrowest {
  readonly source: readonly string[];
  readonly destination: readonly string[];
  readonly port: readonly string[];
}

export interface Breadth {
  /** Addresses and ports that the rule opens, and how many of them were used; ports of what has none are 1. */
  readonly sources: { readonly open: number; readonly used: number };
  readonly destinations: { readonly open: number; readonly used: number };
  readonly ports: { readonly open: number; readonly used: number };
  readonly isBroader: boolean;
}

export interface Used {
  readonly source: AddressSet;
  readonly destination: AddressSet;
  readonly services: Services;
  readonly ports: readonly { readonly protocol: number; readonly port: number }[];
}

export function parsePortKey(key: string): { protocol: number; port: number } {
  const [protocol, port] = key.split(' ');
  return { protocol: Number(protocol), port: Number(port) };
}

/** Seen ports as ranges; of protocols without ports the whole. */
export function seenServices(keys: Iterable<string>): Services {
  const ports = [...keys].map(parsePortKey);
  const plain = ports.filter(
    ({ protocol }) => portProtocols.includes(protocol) || protocol === 1 || protocol === 58,
  );
  const whole = [...new Set(ports.map(({ protocol }) => protocol))].filter(
    (protocol) => !portProtocols.includes(protocol) && protocol !== 1 && protocol !== 58,
  );
  return [
    ...gatherPorts(plain),
    ...whole.map((protocol): PortRange => ({ protocol, first: 0, last: highestPort })),
  ];
}

function setOf(addresses: Iterable<string>): AddressSet {
  return unite(
    [...addresses].flatMap((text) => {
      const number = addressNumber(text);
      return number === null ? [] : [{ first: number, last: number }];
    }),
  );
}

export function usedBy(tally: RuleTally): Used {
  return {
    source: setOf(tally.sources.keys()),
    destination: setOf(tally.destinations.keys()),
    services: seenServices(tally.services),
    ports: [...tally.services].map(parsePortKey),
  };
}

/** Ports of one range that are open, and that were used; a port open for tcp and udp is one port. */
function portBreadth(range: PortRange, ports: Used['ports']): { open: number; used: number } {
  const { first, last } = range;
  const protocols = protocolsOf(range);
  const within = ports.filter(
    ({ protocol, port }) =>
      (protocols === null || protocols.includes(protocol)) && port >= first && port <= last,
  );
  const hasPorts = protocols === null || protocols.some((protocol) => portProtocols.includes(protocol));
  if (!hasPorts) return { open: 1, used: Math.min(1, within.length) };
  return { open: last - first + 1, used: new Set(within.map(({ port }) => port)).size };
}

export function breadthOf(rule: StaticRule, used: Used): Breadth {
  const ports = rule.services.map((range) => portBreadth(range, used.ports));
  const sum = (of: 'open' | 'used'): number => ports.reduce((total, one) => total + one[of], 0);
  const isAny = rule.services.some(
    ({ protocol, first, last }) => protocol === 'any' && first === 0 && last === highestPort,
  );
  const [sourceOpen, destinationOpen] = [sizeOf(rule.source), sizeOf(rule.destination)];
  const [sourceUsed, destinationUsed] = [sizeOf(used.source), sizeOf(used.destination)];
  return {
    sources: { open: Number(sourceOpen), used: Number(sourceUsed) },
    destinations: { open: Number(destinationOpen), used: Number(destinationUsed) },
    ports: { open: sum('open'), used: sum('used') },
    isBroader:
      sourceUsed < sourceOpen ||
      destinationUsed < destinationOpen ||
      isAny ||
      ports.some(({ open, used }) => used < open),
  };
}

/** `null` where its lists would be longer than anybody writes. */
export function narrowestOf(used: Used): Narrowest | null {
  const source = addressTexts(used.source);
  const destination = addressTexts(used.destination);
  const port = serviceTexts(used.services);
  return Math.max(source.length, destination.length, port.length) > maxListed
    ? null
    : { source, destination, port };
}
