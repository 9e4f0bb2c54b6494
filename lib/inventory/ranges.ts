/** Named ranges and the closed ranges of clusters, flattened for one network each. */

import { type Cidr, parseCidr } from '../net/address.ts';
import { type CidrMap, findStack, makeCidrMap } from '../net/cidr-map.ts';
import type { ClusterEvent, RangeEvent } from './events.ts';
import type { IdentityContent } from './ids.ts';

/** What an address is by its range: an identity (index), and whether it can only belong to the network's own workloads. */
export interface RangeAnswer {
  readonly identity: number;
  /** In a pod or service range: nobody outside the cluster has it. */
  readonly closed: boolean;
  /** Whether it may belong to the estate: its zone is inside, or nothing is known of it. */
  readonly inside: boolean;
}

export interface RangeMap {
  readonly map: CidrMap;
  /** The answer for each stack of the map. */
  readonly answers: readonly RangeAnswer[];
}

interface BuiltIn {
  readonly name: string;
  readonly zone: 'inside' | 'outside';
  readonly cidrs: readonly string[];
}

/** Ranges that every network has; anything of its own is narrower or wins by being listed later. */
const builtIns: readonly BuiltIn[] = [
  { name: 'internet', zone: 'outside', cidrs: ['0.0.0.0/0', '2000::/3', '64:ff9b::/96'] },
  { name: 'multicast', zone: 'inside', cidrs: ['224.0.0.0/4', 'ff00::/8', '255.255.255.255/32'] },
  { name: 'link-local', zone: 'inside', cidrs: ['169.254.0.0/16', 'fe80::/10'] },
  { name: 'loopback', zone: 'inside', cidrs: ['127.0.0.0/8', '::1/128'] },
];

/** Private and reserved space: nobody's until an inventory names it (RFC 6890). */
const reserved = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '240.0.0.0/4',
  'fc00::/7',
  '::/128',
];

/** Ranges of the routed network that nobody had to name. */
export function builtInRanges(): readonly {
  readonly content: IdentityContent;
  readonly cidrs: readonly string[];
}[] {
  return builtIns.map(({ name, zone, cidrs }) => ({ content: rangeContent(name, zone, {}), cidrs }));
}

const unknownAnswer: RangeAnswer = { identity: 0, closed: false, inside: true };

export function rangeContent(
  name: string,
  zone: 'inside' | 'outside',
  labels: Readonly<Record<string, string>>,
): IdentityContent {
  return { kind: 'range', cluster: '', namespace: '', name, zone, labels };
}

/**
 * Makes the map of one network from the named ranges that apply to it and, for a cluster's pod network, the cluster.
 * The innermost block answers; of equal blocks a cluster's, then the last named range.
 * @param identityOf index of the identity with this content
 */
export function makeRangeMap(
  ranges: readonly RangeEvent[],
  cluster: ClusterEvent | undefined,
  identityOf: (content: IdentityContent) => number,
): RangeMap {
  const cidrs: Cidr[] = [];
  const answers: RangeAnswer[] = [];
  const add = (texts: readonly string[], answer: RangeAnswer): void => {
    for (const text of texts) {
      const cidr = parseCidr(text);
      if (cidr === null) continue;
      cidrs.push(cidr);
      answers.push(answer);
    }
  };
  const builtIn = new Map(builtIns.map((range) => [range.name, range]));
  const named = (name: string): void => {
    const range = builtIn.get(name);
    if (range === undefined) return;
    add(range.cidrs, {
      identity: identityOf(rangeContent(range.name, range.zone, {})),
      closed: false,
      inside: range.zone === 'inside',
    });
  };
  named('internet');
  add(reserved, unknownAnswer);
  named('multicast');
  named('link-local');
  named('loopback');
  for (const range of ranges) {
    add(range.cidrs, {
      identity: identityOf(rangeContent(range.name, range.zone, range.labels)),
      closed: false,
      inside: range.zone === 'inside',
    });
  }
  if (cluster !== undefined)
    add([...cluster.podCidrs, ...cluster.serviceCidrs], { identity: 0, closed: true, inside: true });
  const map = makeCidrMap(cidrs);
  return {
    map,
    answers: map.stacks.map((stack) => answers[stack.at(-1) ?? -1] ?? unknownAnswer),
  };
}

export function findRange(ranges: RangeMap, address: Uint8Array, offset: number): RangeAnswer {
  return ranges.answers[findStack(ranges.map, address, offset)] ?? unknownAnswer;
}
