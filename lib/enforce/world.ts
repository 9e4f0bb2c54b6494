/**
 * Who has which address, as the policy engine judges it: identities, and the address space of one network cut into pieces
 * whose addresses are all alike to rules. From inventory events, as they are now.
 */
import type {
  InventoryEvent,
  NamespaceEvent,
  RangeEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../../schemas/inventory-event.ts';
import type { PolicyDocument, Profile } from '../../schemas/policy.ts';
import { findRange, makeRangeMap, type RangeMap } from '../inventory/ranges.ts';
import { formatAddress, parseAddress, parseCidr } from '../net/address.ts';
import {
  type AddressInterval,
  addressBytes,
  addressNumber,
  cidrInterval,
  mergeIntervals,
} from '../net/intervals.ts';
import { PolicyEngine, type Selectable } from '../policy/engine.ts';
import { ProfileSet } from '../policy/profiles.ts';

/** Addresses that rules can't tell apart: one identity, one set of blocks. */
export interface AddressClass {
  /** Index of the identity. */
  readonly identity: number;
  readonly blockSet: number;
  /** Sorted and disjoint. */
  readonly intervals: readonly AddressInterval[];
}

export interface WorldHost {
  readonly event: WorkloadEvent;
  readonly identity: number;
  /** Its addresses now, by network. */
  readonly addresses: readonly { readonly ip: Uint8Array; readonly network: string }[];
}

/** A policy as it is judged now, over everything that the inventory knows. */
export class World {
  readonly engine: PolicyEngine;
  readonly document: PolicyDocument;
  /** By index; 0 is whoever nobody knows. */
  readonly identities: Selectable[] = [];
  readonly events: readonly InventoryEvent[];
  /** What was decided where the inventory leaves it open, as sentences. */
  readonly remarks: string[] = [];
  readonly #indexes = new Map<string, number>();
  readonly #profiles: ProfileSet;
  readonly #namespaces = new Map<string, NamespaceEvent>();

  /** @param events of which those that have ended are not looked at */
  constructor(document: PolicyDocument, events: Iterable<InventoryEvent>, nowMs: number) {
    this.document = document;
    this.engine = new PolicyEngine(document, nowMs);
    this.#profiles = new ProfileSet(document.profiles);
    this.events = [...events].filter((event) => !('untilMs' in event) || event.untilMs === undefined);
    this.identityOf({ kind: 'unknown', cluster: '', namespace: '', name: '', labels: {} });
    for (const event of this.events)
      if (event.type === 'namespace') this.#namespaces.set(`${event.cluster}/${event.name}`, event);
  }

  /** The same without rules that override: what would be allowed if there were none. */
  withoutOverrides(nowMs: number): World {
    const rulesets = this.document.rulesets.map((ruleset) => ({
      ...ruleset,
      rules: ruleset.rules.filter(({ action }) => action !== 'override-deny'),
    }));
    return new World({ ...this.document, rulesets }, this.events, nowMs);
  }

  /** Index of the identity with this content. */
  identityOf({ kind, cluster, namespace, name, labels }: Selectable): number {
    const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
    const key = JSON.stringify([kind, cluster, namespace, name, sorted]);
    const known = this.#indexes.get(key);
    if (known !== undefined) return known;
    this.#indexes.set(key, this.identities.length);
    return this.identities.push({ kind, cluster, namespace, name, labels }) - 1;
  }

  namespaceLabels(cluster: string, namespace: string): Readonly<Record<string, string>> {
    return this.#namespaces.get(`${cluster}/${namespace}`)?.labels ?? {};
  }

  /** Namespaces that the inventory knows by themselves or by their workloads, sorted. */
  namespaces(cluster: string): string[] {
    const names = new Set<string>();
    for (const event of this.events) {
      if (event.type === 'namespace' && event.cluster === cluster) names.add(event.name);
      if (event.type === 'workload' && event.kind === 'pod' && event.cluster === cluster)
        names.add(event.namespace);
    }
    return [...names].sort();
  }

  identityOfOwner(event: WorkloadEvent | ServiceEvent): number {
    const kind = event.type === 'service' ? 'service' : event.kind;
    const { cluster, namespace, labels: own, annotations, name } = event;
    const { labels } = this.#profiles.labelsOf(
      { kind, cluster, namespace, labels: own, annotations },
      this.namespaceLabels(cluster, namespace),
    );
    return this.identityOf({ kind, cluster, namespace, name: kind === 'service' ? name : '', labels });
  }

  /** The identity of a pod that has no annotations. */
  identityOfPod(cluster: string, namespace: string, own: Readonly<Record<string, string>>): number {
    const subject = { kind: 'pod', cluster, namespace, labels: own, annotations: {} };
    const { labels } = this.#profiles.labelsOf(subject, this.namespaceLabels(cluster, namespace));
    return this.identityOf({ kind: 'pod', cluster, namespace, name: '', labels });
  }

  /** The profile that labels the pods of a namespace. */
  profileOf(cluster: string, namespace: string): Profile | null {
    return this.#profiles.matching({ kind: 'pod', cluster, namespace })[0] ?? null;
  }

  hosts(): WorldHost[] {
    return this.events.flatMap((event) => {
      if (event.type !== 'workload' || event.kind === 'pod') return [];
      const addresses = event.addresses.flatMap(({ ip, network, untilMs }) => {
        const bytes = parseAddress(ip);
        return untilMs !== undefined || bytes === null ? [] : [{ ip: bytes, network }];
      });
      return [{ event, identity: this.identityOfOwner(event), addresses }];
    });
  }

  /** The classes of all addresses, as seen from the first of these networks; of the others only who has an address. */
  classes(networks: readonly string[]): AddressClass[] {
    const owners = this.#owners(networks);
    const ranges = this.#ranges(networks[0] ?? '');
    const pieces = new Map<number, AddressInterval[]>();
    const add = (identity: number, from: bigint, to: bigint): void => {
      const key = identity * 65536 + this.engine.blockSet(addressBytes(from), 0);
      const own = pieces.get(key);
      if (own === undefined) pieces.set(key, [{ from, to }]);
      else own.push({ from, to });
    };
    const cuts = this.#cuts(ranges);
    const owned = [...owners].sort(([a], [b]) => (a < b ? -1 : 1));
    let next = 0;
    for (const [i, from] of cuts.entries()) {
      const end = (cuts[i + 1] ?? 1n << 128n) - 1n;
      const identity = findRange(ranges, addressBytes(from), 0).identity;
      let begin = from;
      for (; next < owned.length; next++) {
        const [at, owner] = owned[next] ?? [0n, 0];
        if (at > end) break;
        if (at > begin) add(identity, begin, at - 1n);
        add(owner, at, at);
        begin = at + 1n;
      }
      if (begin <= end) add(identity, begin, end);
    }
    return [...pieces]
      .sort(([a], [b]) => a - b)
      .map(([key, intervals]) => ({
        identity: Math.floor(key / 65536),
        blockSet: key % 65536,
        intervals: mergeIntervals(intervals),
      }));
  }

  /** Identity by address. Of several who have one, the last that came. */
  #owners(networks: readonly string[]): Map<bigint, number> {
    const found = new Map<bigint, { identity: number; sinceMs: number; name: string; network: string }>();
    const take = (identity: number, name: string, event: { addresses: WorkloadEvent['addresses'] }): void => {
      for (const { ip, network, sinceMs, untilMs } of event.addresses) {
        const bytes = parseAddress(ip);
        if (untilMs !== undefined || bytes === null || !networks.includes(network)) continue;
        const at = addressNumber(bytes);
        const before = found.get(at);
        if (before !== undefined && before.identity !== identity)
          this.remarks.push(
            `${formatAddress(bytes)} belongs to ${before.name} (network ${before.network}) and to ${name} (network ${network}); taken as that of ${before.sinceMs <= sinceMs ? name : before.name}`,
          );
        if (before === undefined || before.sinceMs <= sinceMs)
          found.set(at, { identity, sinceMs, name, network });
      }
    };
    for (const event of this.events) {
      if (event.type === 'name') {
        const { name, labels } = event;
        take(this.identityOf({ kind: 'name', cluster: '', namespace: '', name, labels }), name, event);
      } else if (event.type === 'workload' || event.type === 'service')
        take(this.identityOfOwner(event), event.name, event);
    }
    return new Map([...found].map(([at, { identity }]) => [at, identity]));
  }

  #ranges(network: string): RangeMap {
    const cluster = this.events.find((event) => event.type === 'cluster' && event.cluster === network);
    const applies = this.events.filter(
      (event): event is RangeEvent =>
        event.type === 'range' &&
        (event.network === network || (cluster !== undefined && event.network === 'default')),
    );
    return makeRangeMap(applies, cluster?.type === 'cluster' ? cluster : undefined, (content) =>
      this.identityOf(content),
    );
  }

  /** Where ranges or blocks of the policy begin or end, sorted; 0 first. */
  #cuts(ranges: RangeMap): bigint[] {
    const cuts = new Set<bigint>([0n]);
    const { starts } = ranges.map;
    for (let i = 0; i < starts.length; i += 4) {
      let at = 0n;
      for (let word = 0; word < 4; word++) at = (at << 32n) | BigInt(starts[i + word] ?? 0);
      cuts.add(at);
    }
    for (const text of policyCidrs(this.document)) {
      const cidr = parseCidr(text);
      if (cidr === null) continue;
      const { from, to } = cidrInterval(cidr);
      cuts.add(from);
      cuts.add(to + 1n);
    }
    cuts.delete(1n << 128n);
    return [...cuts].sort((a, b) => (a < b ? -1 : 1));
  }
}

/** Every CIDR that a policy names, without the mark of what is left out. */
export function policyCidrs({ ipLists, rulesets, boundaries }: PolicyDocument): string[] {
  const rules = [...rulesets.flatMap((ruleset) => ruleset.rules), ...(boundaries ?? [])];
  const literal = rules.flatMap(({ from, to }) =>
    [...from, ...to].flatMap((actor) => ('cidr' in actor ? [actor.cidr].flat() : [])),
  );
  const listed = ipLists.flatMap(({ cidrs }) => cidrs ?? []);
  return [...literal, ...listed].map((text) => text.replace(/^!/, ''));
}
