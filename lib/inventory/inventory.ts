/**
 * The inventory as an enricher holds it: applies events, keeps the time index, the ranges and the identities in step,
 * and answers who an address was at a time.
 */
import { defaultNetwork } from '../../schemas/inventory-event.ts';
import { parseAddress } from '../net/address.ts';
import { DnsNames } from './dns-names.ts';
import type {
  AddressInterval,
  ClusterEvent,
  FormerLabels,
  InventoryEvent,
  NameEvent,
  NamespaceEvent,
  RangeEvent,
  ServiceEvent,
  WorkloadEvent,
} from './events.ts';
import { IdentityTable } from './identities.ts';
import { workloadId } from './ids.ts';
import { NodePorts } from './node-ports.ts';
import { findRange, makeRangeMap, type RangeMap } from './ranges.ts';
import { Sources } from './sources.ts';
import { forever, TimeIndex } from './time-index.ts';

/** Gives labels; `lib/policy/profiles.ts` makes one from profiles. */
export type LabelsOf = (
  subject: {
    readonly kind: string;
    readonly cluster: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  },
  namespaceLabels: Readonly<Record<string, string>>,
) => { readonly labels: Readonly<Record<string, string>> };

/** Events of those who own addresses. */
export type OwnerEvent = WorkloadEvent | ServiceEvent | NameEvent;

/** Somebody who owns addresses: a workload, a service with its virtual ones, a listed name with those it was found to have. */
export interface Owner {
  readonly index: number;
  readonly event: OwnerEvent;
  /** `workloads.id`; 0 for a service, which is an identity but no workload. */
  readonly id: bigint;
  identity: number;
}

/** Codes of `provenances` in `schemas/closed-lists.ts`. */
export const provenanceCode = { none: 0, pod: 1, host: 2, service: 3, node: 4, range: 5, name: 6 } as const;

const provenanceOfKind = {
  pod: provenanceCode.pod,
  node: provenanceCode.node,
  vm: provenanceCode.host,
  host: provenanceCode.host,
};

export interface InventoryOptions {
  readonly maxIntervalsPerAddress: number;
  readonly labelsOf: LabelsOf;
}

/** What the resolver needs of one network. */
export interface NetworkView {
  readonly index: number;
  readonly ranges: RangeMap;
  /** Index of the network that is asked next, or -1: a network that is no cluster's stands alone. */
  readonly parent: number;
  /** Source (index) that alone says who is in the closed ranges, or -1 where there are none. */
  readonly closedSource: number;
}

/** Labels that an owner had until `untilMs`. */
interface FormerIdentity {
  readonly untilMs: number;
  readonly identity: number;
}

/** The labels that were in force just before `untilMs`. */
function labelsBefore(
  entity: Pick<FormerLabels, 'labels' | 'annotations'> & { readonly former?: readonly FormerLabels[] },
  untilMs: number,
): Pick<FormerLabels, 'labels' | 'annotations'> {
  return entity.former?.find((former) => former.untilMs >= untilMs) ?? entity;
}

export class Inventory {
  readonly identities = new IdentityTable();
  readonly index: TimeIndex;
  /** Owners by index; a hole where one was removed. */
  readonly owners: (Owner | undefined)[] = [];
  /** For each owner: identity index, provenance code, id words (low, high). Valid up to `owners.length`. */
  ownerIdentity = new Int32Array(1024);
  ownerProvenance = new Uint8Array(1024);
  ownerIdWords = new Uint32Array(2048);
  /** By owner, the index of the source that published it. */
  ownerSource = new Uint16Array(1024);
  /** Rises with each change of ranges or clusters: what was remembered about addresses is void. */
  rangeGeneration = 0;
  /** Rises with each event applied. */
  generation = 0;
  /** Addresses in events that do not parse: left out, counted. */
  badAddressCount = 0;
  /** Workloads whose catalog rows (`workloads`) are out of date. */
  readonly changed = new Set<number>();
  #labelsOf: LabelsOf;
  readonly #byKey = new Map<string, Owner>();
  readonly #byUid = new Map<string, Owner>();
  readonly #free: number[] = [];
  readonly #namespaces = new Map<string, NamespaceEvent>();
  readonly #clusters = new Map<string, ClusterEvent>();
  readonly #ranges = new Map<string, RangeEvent>();
  readonly #networks = new Map<string, number>();
  readonly #networkNames: string[] = [];
  #views: (NetworkView | undefined)[] = [];
  readonly #namespaceOwners = new Map<string, Set<Owner>>();
  readonly #sources = new Sources();
  readonly #names = new DnsNames();
  readonly #nodePorts = new NodePorts();
  /** By network, the number of intervals that each source has there. */
  readonly #speakers: Map<number, number>[] = [];
  readonly #clusterSources = new Map<string, number>();
  /** Identities that owners had before, oldest first; only of those that had others. */
  readonly #former = new Map<number, FormerIdentity[]>();

  constructor(options: InventoryOptions) {
    this.index = new TimeIndex(options);
    this.#labelsOf = options.labelsOf;
    this.network(defaultNetwork);
  }

  /** Number of a network, by its name. */
  network(name: string): number {
    let index = this.#networks.get(name);
    if (index === undefined) {
      index = this.#networkNames.length;
      this.#networks.set(name, index);
      this.#networkNames.push(name);
    }
    return index;
  }

  view(network: number): NetworkView {
    const known = this.#views[network];
    if (known !== undefined) return known;
    const name = this.#networkNames[network] ?? defaultNetwork;
    const cluster = this.#clusters.get(name);
    const parent = cluster === undefined ? -1 : this.network(defaultNetwork);
    const applies = [...this.#ranges.values()].filter(
      (range) => range.network === name || (parent >= 0 && range.network === defaultNetwork),
    );
    const view: NetworkView = {
      index: network,
      parent,
      closedSource: this.#clusterSources.get(name) ?? -1,
      ranges: makeRangeMap(applies, cluster, (content) => this.identities.intern(content).index),
    };
    this.#views[network] = view;
    return view;
  }

  /** The owner with this uid, if one is known. */
  byUid(uid: string): Owner | undefined {
    return this.#byUid.get(uid);
  }

  /** Index of a source, by its name. */
  source(name: string): number {
    return this.#sources.index(name);
  }

  /** Every source that published something, and up to when it vouches for that, ms; +Infinity where it never said. */
  sources(): readonly { readonly name: string; readonly completeToMs: number }[] {
    const { names, completeToMs } = this.#sources;
    return names.map((name, index) => ({
      name,
      completeToMs: completeToMs[index] ?? Number.POSITIVE_INFINITY,
    }));
  }

  /** By source: every change up to there has been applied, ms since the epoch; +Infinity where it never gave a watermark. */
  get completeToMs(): Float64Array {
    return this.#sources.completeToMs;
  }

  /** By source, the newest watermark that was read, confirmed or not. */
  get heardCompleteToMs(): Float64Array {
    return this.#sources.heardCompleteToMs;
  }

  /** What was heard so far, to be confirmed once all that stood in the topic before it is applied. */
  snapshotWatermarks(): Float64Array {
    return this.#sources.heardCompleteToMs.slice();
  }

  /** Makes the watermarks of a snapshot those that answers use. Returns whether one changed. */
  confirmWatermarks(heard: Float64Array): boolean {
    return this.#sources.confirm(heard);
  }

  /**
   * Up to when it is certain that nobody else has an address of `network`: the least that the sources with addresses
   * there vouch for. Those that fell silent, more than `staleMs` behind the newest, are left out.
   */
  sharedCompleteToMs(network: number, staleMs: number): number {
    return this.#sources.leastComplete(this.#speakers[network]?.keys() ?? [], staleMs);
  }

  /** Identity of an owner at a time: the labels it had then. */
  identityAt(owner: number, timeMs: number): number {
    if (this.#former.size > 0) {
      for (const { untilMs, identity } of this.#former.get(owner) ?? [])
        if (timeMs < untilMs) return identity;
    }
    return this.ownerIdentity[owner] ?? 0;
  }

  /** The identities of an owner in time, oldest first, each until a moment; the last one lasts. */
  identityPeriods(owner: number): readonly { readonly untilMs: number; readonly identity: number }[] {
    const present = { untilMs: forever, identity: this.ownerIdentity[owner] ?? 0 };
    return [...(this.#former.get(owner) ?? []), present];
  }

  /** The service (owner) behind a port of a node (owner) at a time, or -1. `protocol` is its IANA number. */
  nodePortOwner(node: number, port: number, protocol: number, timeMs: number): number {
    const event = this.owners[node]?.event;
    if (event?.type !== 'workload' || event.kind !== 'node') return -1;
    return this.#nodePorts.find(event.cluster, port, protocol, timeMs);
  }

  /** Identity of the listed name that matches a DNS name; 0 for none. */
  nameIdentity(dnsName: string): number {
    return this.#names.find(dnsName);
  }

  /** Rises when listed names change. */
  get nameGeneration(): number {
    return this.#names.generation;
  }

  /** Everybody who had the address at about the time, the likeliest first. */
  candidates(network: number, words: Uint32Array, at: number, timeMs: number, toleranceMs: number): number[] {
    return this.index.candidates(network, words, at, timeMs, toleranceMs);
  }

  /** Applies the newest event of a key, with the name of its source; `null` is the tombstone. */
  apply(key: string, event: InventoryEvent | null, source = ''): void {
    this.generation++;
    if (event === null) {
      this.#forget(key);
      return;
    }
    switch (event.type) {
      case 'workload':
        this.#own(
          key,
          event,
          workloadId(event.cluster, event.kind, event.uid),
          provenanceOfKind[event.kind],
          source,
        );
        return;
      case 'service':
        this.#own(key, event, 0n, provenanceCode.service, source);
        return;
      case 'name':
        this.#own(key, event, 0n, provenanceCode.name, source);
        this.#names.set(key, event.dns, this.#byKey.get(key)?.identity ?? 0);
        return;
      case 'namespace':
        this.#namespaces.set(key, event);
        for (const owner of this.#namespaceOwners.get(key) ?? []) this.#label(owner);
        return;
      case 'cluster':
        this.#clusters.set(event.cluster, event);
        this.#clusterSources.set(event.cluster, this.#sources.index(source));
        this.#dropViews();
        return;
      case 'range':
        this.#ranges.set(key, event);
        this.#dropViews();
        return;
      case 'watermark':
        this.#sources.hear(event.source, event.completeToMs);
        return;
      case 'network-policy':
        // Says nothing of who is who.
        return;
    }
  }

  /** Uses other profiles from now on. */
  async relabel(labelsOf: LabelsOf): Promise<void> {
    this.#labelsOf = labelsOf;
    for (const owner of this.owners) if (owner !== undefined) this.#label(owner);
  }

  /** Clusters and their number of live owners, for people. */
  get ownerCount(): number {
    return this.#byKey.size;
  }

  #dropViews(): void {
    this.#views = [];
    this.rangeGeneration++;
  }

  #own(key: string, event: OwnerEvent, id: bigint, provenance: number, source: string): void {
    const before = this.#byKey.get(key);
    if (before !== undefined) this.#disown(before);
    const index = before?.index ?? this.#free.pop() ?? this.owners.length;
    const owner: Owner = { index, event, id, identity: 0 };
    if (index >= this.ownerIdentity.length) this.#growOwners();
    this.owners[index] = owner;
    this.#byKey.set(key, owner);
    if (event.type !== 'name') this.#byUid.set(event.uid, owner);
    this.ownerSource[index] = this.#sources.index(source);
    this.ownerProvenance[index] = provenance;
    this.ownerIdWords[index * 2] = Number(id & 0xffffffffn);
    this.ownerIdWords[index * 2 + 1] = Number(id >> 32n);
    if (event.type !== 'name') {
      const namespaceKey = `namespace/${event.cluster}/${event.namespace}`;
      let siblings = this.#namespaceOwners.get(namespaceKey);
      if (siblings === undefined) {
        siblings = new Set();
        this.#namespaceOwners.set(namespaceKey, siblings);
      }
      siblings.add(owner);
    }
    if (event.type === 'service') this.#nodePorts.add(event, index);
    this.#label(owner);
    this.changed.add(index);
    this.#eachAddress(event, index, true);
  }

  /** Takes back what the owner's last event placed. */
  #disown(owner: Owner): void {
    const { event, index } = owner;
    this.#eachAddress(event, index, false);
    if (event.type === 'service') this.#nodePorts.remove(event, index);
    if (event.type !== 'name')
      this.#namespaceOwners.get(`namespace/${event.cluster}/${event.namespace}`)?.delete(owner);
  }

  #eachAddress(event: OwnerEvent, owner: number, add: boolean): void {
    // A pod on the host network owns no address: its node does.
    if (event.type === 'workload' && event.hostNetwork) return;
    for (const interval of event.addresses) this.#place(interval, owner, add);
  }

  #place(interval: AddressInterval, owner: number, add: boolean): void {
    const bytes = parseAddress(interval.ip);
    if (bytes === null) {
      if (add) this.badAddressCount++;
      return;
    }
    const words = new Uint32Array(Uint8Array.from(bytes).buffer);
    const network = this.network(interval.network);
    if (add) this.index.add(network, words, 0, interval.sinceMs, interval.untilMs ?? forever, owner);
    else this.index.remove(network, words, 0, interval.sinceMs, owner);
    this.#count(network, this.ownerSource[owner] ?? 0, add ? 1 : -1);
  }

  #count(network: number, source: number, change: number): void {
    let speakers = this.#speakers[network];
    if (speakers === undefined) {
      speakers = new Map();
      this.#speakers[network] = speakers;
    }
    const count = (speakers.get(source) ?? 0) + change;
    if (count === 0) speakers.delete(source);
    else speakers.set(source, count);
  }

  #label(owner: Owner): void {
    const { event } = owner;
    if (event.type === 'name') {
      const { name, zone, labels } = event;
      const content = { kind: 'name', cluster: '', namespace: '', name, zone, labels };
      this.#setIdentity(owner, this.identities.intern(content).index);
      return;
    }
    const namespace = this.#namespaces.get(`namespace/${event.cluster}/${event.namespace}`);
    const ends = new Set<number>();
    for (const { untilMs } of event.former ?? []) ends.add(untilMs);
    for (const { untilMs } of namespace?.former ?? []) if (untilMs > event.sinceMs) ends.add(untilMs);
    const formerIdentities = [...ends]
      .sort((a, b) => a - b)
      .map((untilMs): FormerIdentity => {
        const own = labelsBefore(event, untilMs);
        const around = namespace === undefined ? {} : labelsBefore(namespace, untilMs).labels;
        return { untilMs, identity: this.#identityOf(event, own, around) };
      });
    if (formerIdentities.length === 0) this.#former.delete(owner.index);
    else this.#former.set(owner.index, formerIdentities);
    this.#setIdentity(owner, this.#identityOf(event, event, namespace?.labels ?? {}));
  }

  #identityOf(
    event: WorkloadEvent | ServiceEvent,
    own: Pick<FormerLabels, 'labels' | 'annotations'>,
    namespaceLabels: Readonly<Record<string, string>>,
  ): number {
    const kind = event.type === 'service' ? 'service' : event.kind;
    const { cluster, namespace } = event;
    const { labels } = this.#labelsOf(
      { kind, cluster, namespace, labels: own.labels, annotations: own.annotations },
      namespaceLabels,
    );
    const name = event.type === 'service' ? event.name : '';
    return this.identities.intern({ kind, cluster, namespace, name, zone: 'inside', labels }).index;
  }

  #setIdentity(owner: Owner, identity: number): void {
    if (owner.identity !== identity) this.changed.add(owner.index);
    owner.identity = identity;
    this.ownerIdentity[owner.index] = identity;
  }

  #forget(key: string): void {
    const owner = this.#byKey.get(key);
    if (owner !== undefined) {
      const { event } = owner;
      this.#disown(owner);
      this.#byKey.delete(key);
      if (event.type === 'name') this.#names.delete(key);
      else if (this.#byUid.get(event.uid) === owner) this.#byUid.delete(event.uid);
      this.#former.delete(owner.index);
      this.owners[owner.index] = undefined;
      this.changed.delete(owner.index);
      this.#free.push(owner.index);
      return;
    }
    const range = this.#ranges.delete(key);
    const cluster = key.startsWith('cluster/') && this.#clusters.delete(key.slice('cluster/'.length));
    if (range || cluster) this.#dropViews();
    if (this.#namespaces.delete(key))
      for (const owner of this.#namespaceOwners.get(key) ?? []) this.#label(owner);
    if (key.startsWith('watermark/')) this.#sources.forget(key.slice('watermark/'.length));
  }

  #growOwners(): void {
    const size = this.ownerIdentity.length * 2;
    const identity = new Int32Array(size);
    identity.set(this.ownerIdentity);
    this.ownerIdentity = identity;
    const provenance = new Uint8Array(size);
    provenance.set(this.ownerProvenance);
    this.ownerProvenance = provenance;
    const words = new Uint32Array(size * 2);
    words.set(this.ownerIdWords);
    this.ownerIdWords = words;
    const source = new Uint16Array(size);
    source.set(this.ownerSource);
    this.ownerSource = source;
  }

  /** The answer of the ranges of `network` for the address in the 16 bytes at `offset`. */
  rangeOf(network: number, address: Uint8Array, offset: number): ReturnType<typeof findRange> {
    return findRange(this.view(network).ranges, address, offset);
  }
}
