/** A static rule in the words of our policy, where all that used it agree on their labels. */
import type { Actor, PortSpec, Rule } from '../../schemas/policy.ts';
import { addressTexts } from './addresses.ts';
import type { IdentityInfo } from './holders.ts';
import { seenServices, type Used } from './narrow.ts';
import type { StaticRule } from './rule.ts';
import { highestPort, type PortRange } from './services.ts';
import type { RuleTally } from './tally.ts';

/** Labels that a rule is written in, `app` first: all that used the static rule have to agree on it. */
const keys = ['app', 'role', 'env'] as const;
/** Values of one key that are still worth listing. */
const maxValues = 4;
/** Addresses of an end that is known by addresses only. */
const maxCidrs = 64;

export type Equivalent = { readonly rule: Rule } | { readonly why: string };

type End = { readonly actor: Actor } | { readonly why: string };

function valuesOf(identities: readonly IdentityInfo[], key: string): string[] | null {
  const values = new Set(identities.map(({ labels }) => labels[key] ?? ''));
  return values.has('') || values.size > maxValues ? null : [...values].sort();
}

function endOf(what: string, identities: readonly IdentityInfo[], addresses: readonly string[] | null): End {
  const bare = identities.filter(({ labels }) => (labels.app ?? '') === '');
  if (bare.length === identities.length) {
    if (addresses === null) return { why: `the ${what} behind a load balancer has no label app` };
    if (addresses.length > maxCidrs)
      return { why: `the ${what} is ${addresses.length} addresses without labels` };
    const [only] = addresses;
    return { actor: { cidr: addresses.length === 1 && only !== undefined ? only : [...addresses] } };
  }
  if (bare.length > 0) return { why: `only some ${what}s have the label app` };
  const apps = valuesOf(identities, 'app');
  if (apps === null || apps.length > 1) {
    const all = [...new Set(identities.map(({ labels }) => labels.app ?? ''))].sort();
    return {
      why: `the ${what} is of several apps: ${all.slice(0, maxValues).join(', ')}${all.length > maxValues ? ', ...' : ''}`,
    };
  }
  const labels: Record<string, string | string[]> = {};
  for (const key of keys) {
    const values = valuesOf(identities, key);
    const [only] = values ?? [];
    if (values !== null && only !== undefined) labels[key] = values.length === 1 ? only : values;
  }
  return { actor: { labels } };
}

const protocols: ReadonlyMap<number, NonNullable<PortSpec['protocol']>> = new Map([
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [58, 'icmpv6'],
  [132, 'sctp'],
]);

function portSpec({ protocol, first, last }: PortRange): PortSpec | null {
  const name = typeof protocol === 'number' ? protocols.get(protocol) : undefined;
  if (name === undefined) return null;
  if (name === 'icmp' || name === 'icmpv6') return { protocol: name };
  const isWhole = first === 0 && last === highestPort;
  const port = first === last ? first : `${first}-${last}`;
  return { ...(isWhole ? {} : { port }), ...(name === 'tcp' && !isWhole ? {} : { protocol: name }) };
}

/** A name that policy takes: what the comment says, else the line. */
function nameOf(rule: StaticRule): string {
  const slug = rule.comment
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60)
    .replace(/-+$/, '');
  return slug === '' ? `line-${rule.line}` : `${slug}-line-${rule.line}`;
}

/** @param identities by id */
export function equivalentOf(
  rule: StaticRule,
  tally: RuleTally,
  used: Used,
  identities: ReadonlyMap<string, IdentityInfo>,
): Equivalent {
  const infoOf = (ids: Iterable<string>): IdentityInfo[] =>
    [...new Set(ids)].flatMap((id) => identities.get(id) ?? []);
  const sourceIds = [...tally.sources.values()].flatMap(({ owners }) =>
    owners.map(({ identity }) => identity),
  );
  const hasFronts = [...tally.destinations.values()].some(({ owners }) =>
    owners.some(({ identity }) => identity === '0'),
  );
  const from = endOf('source', infoOf(sourceIds), addressTexts(used.source));
  const to = endOf(
    'destination',
    infoOf(tally.behind.identities),
    hasFronts ? null : addressTexts(used.destination),
  );
  if ('why' in from) return from;
  if ('why' in to) return to;
  const specs = seenServices(tally.behind.services).map(portSpec);
  const services = [
    ...new Map(
      specs.flatMap((spec) => (spec === null ? [] : [[JSON.stringify(spec), spec] as const])),
    ).values(),
  ];
  if (specs.includes(null) || services.length === 0)
    return { why: 'policy has no word for a protocol that was used' };
  const ticket = /\b[A-Z][A-Z0-9]+-\d+\b/.exec(rule.comment)?.[0];
  return {
    rule: {
      name: nameOf(rule),
      from: [from.actor],
      to: [to.actor],
      services,
      ...(ticket === undefined ? {} : { ticket }),
    },
  };
}
