/** What a condition of nftables means for addresses, ports and protocols; text and JSON are read into the same. */
import {
  type AddressSet,
  complement,
  everyAddress,
  everyIpv4,
  everyIpv6,
  intersect,
  parseAddressItem,
  unite,
} from './addresses.ts';
import { type Match, matchAll, type Target } from './chains.ts';
import { icmpTypeRange } from './icmp.ts';
import { otherPorts } from './ports.ts';
import { highestPort, intersectServices, type PortRange, protocolNumber, type Services } from './services.ts';

/** Why a rule can't be taken. */
export class Unreadable extends Error {}

/** A rule as it is being read. */
export interface Draft {
  readonly match: Match;
  readonly target: Target;
  readonly comment: string;
  /** It is about packets of connections that were let in before. */
  readonly isReply: boolean;
}

/** All addresses of a table's family. */
export function everyOf(family: string): AddressSet {
  return family === 'ip' ? everyIpv4 : family === 'ip6' ? everyIpv6 : everyAddress;
}

export function newDraft(family: string): Draft {
  const every = everyOf(family);
  return {
    match: { ...matchAll, source: every, destination: every },
    target: { type: 'none' },
    comment: '',
    isReply: false,
  };
}

function narrowServices(draft: Draft, services: Services): Draft {
  const { match } = draft;
  return { ...draft, match: { ...match, services: intersectServices(match.services, services) } };
}

export function withCondition(draft: Draft, condition: string): Draft {
  const { match } = draft;
  return { ...draft, match: { ...match, conditions: [...match.conditions, condition] } };
}

function narrowEnd(draft: Draft, end: 'source' | 'destination', set: AddressSet): Draft {
  const { match } = draft;
  return { ...draft, match: { ...match, [end]: intersect(match[end], set) } };
}

function addressSet(items: readonly string[], negated: boolean, every: AddressSet): AddressSet {
  const sets = items.map((item) => {
    const set = parseAddressItem(item);
    if (typeof set === 'string') throw new Unreadable(set);
    return set;
  });
  const all = unite(sets.flat());
  return intersect(negated ? complement(all) : all, every);
}

function ports(items: readonly string[], negated: boolean): [number, number][] {
  const list = items.map((item): [number, number] => {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(item);
    const first = Number(match?.[1]);
    const last = match?.[2] === undefined ? first : Number(match[2]);
    if (match === null || first > last || last > highestPort) throw new Unreadable(`"${item}" is no port`);
    return [first, last];
  });
  return negated ? otherPorts(list) : list;
}

function protocols(items: readonly string[], negated: boolean): Services {
  if (negated) throw new Unreadable('a negated protocol is not understood');
  return items.map((item): PortRange => {
    const protocol = protocolNumber(item);
    if (protocol === null) throw new Unreadable(`protocol ${item} is not understood`);
    return { protocol, first: 0, last: highestPort };
  });
}

function icmpTypes(items: readonly string[], negated: boolean, protocol: 1 | 58): Services {
  if (negated) throw new Unreadable('a negated ICMP type is not understood');
  return items.map((item) => {
    const range = icmpTypeRange(item, protocol);
    if (range === null) throw new Unreadable(`ICMP type ${item} is not understood`);
    return range;
  });
}

function connectionState(draft: Draft, items: readonly string[], negated: boolean): Draft {
  if (negated) throw new Unreadable('a negated ct state is not understood');
  if (items.includes('new')) return draft;
  if (items.every((item) => item === 'established' || item === 'related' || item === 'invalid'))
    return { ...draft, isReply: true };
  throw new Unreadable(`ct state ${items.join(',')} is not understood`);
}

const families: Readonly<Record<string, AddressSet>> = { ip: everyIpv4, ip6: everyIpv6 };
/** Fields that flows do not tell. */
const untold = new Set([
  'iifname',
  'oifname',
  'iif',
  'oif',
  'iifgroup',
  'oifgroup',
  'mark',
  'skuid',
  'skgid',
  'pkttype',
]);

/**
 * Narrows a rule by one condition: `scope` and `field` as `ip saddr`, `tcp dport`, `ct state`, `meta l4proto`; `items` are
 * addresses, ports, ranges `a-b` or names, of which one must be it (none of them where `negated`).
 */
export function narrow(
  draft: Draft,
  scope: string,
  field: string,
  items: readonly string[],
  negated: boolean,
): Draft {
  const family = families[scope];
  if (family !== undefined && (field === 'saddr' || field === 'daddr')) {
    const within = narrowEnd(narrowEnd(draft, 'source', family), 'destination', family);
    return narrowEnd(
      within,
      field === 'saddr' ? 'source' : 'destination',
      addressSet(items, negated, family),
    );
  }
  if (family !== undefined && (field === 'protocol' || field === 'nexthdr')) {
    return narrowServices(narrowEnd(draft, 'source', family), protocols(items, negated));
  }
  if (scope === 'meta' && (field === 'l4proto' || field === 'protocol')) {
    if (field === 'l4proto') return narrowServices(draft, protocols(items, negated));
    const set = unite(items.flatMap((item) => families[item] ?? []));
    if (negated || set.length === 0)
      throw new Unreadable(`meta protocol ${items.join(',')} is not understood`);
    return narrowEnd(draft, 'source', set);
  }
  if (scope === 'meta' && field === 'nfproto') {
    const set = families[items[0] === 'ipv4' ? 'ip' : items[0] === 'ipv6' ? 'ip6' : ''];
    if (set === undefined || negated) throw new Unreadable(`nfproto ${items.join(',')} is not understood`);
    return narrowEnd(draft, 'source', set);
  }
  if (scope === 'icmp' && field === 'type') return narrowServices(draft, icmpTypes(items, negated, 1));
  if (scope === 'icmpv6' && field === 'type') return narrowServices(draft, icmpTypes(items, negated, 58));
  if (scope === 'ct' && field === 'state') return connectionState(draft, items, negated);
  const shown = `${scope === 'meta' ? '' : `${scope} `}${field} ${negated ? 'not ' : ''}${items.join(',')}`;
  if (scope === 'meta' && untold.has(field)) return withCondition(draft, shown);
  const protocol = scope === 'th' ? 'any' : protocolNumber(scope);
  if (protocol !== null && field === 'dport') {
    return narrowServices(
      draft,
      ports(items, negated).map(([first, last]) => ({ protocol, first, last })),
    );
  }
  if (protocol !== null && (field === 'sport' || field === 'flags')) {
    return withCondition(narrowServices(draft, [{ protocol, first: 0, last: highestPort }]), shown);
  }
  throw new Unreadable(`"${scope} ${field}" is not understood`);
}

export const replyReason =
  'it is about replies and what belongs to them, which flows count with their connection';
