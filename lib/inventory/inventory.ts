/**
 * The inventory as an enricher holds it: applies events, keeps the time index, the ranges and the identities in step,
 * and answers who an address was at a time.
 */
import { defaultNetwork } from '../../schemas/inventory-event.ts';
import { parseAddress } from '../net/address.ts';
import type {
  AddressInterval,
  ClusterEvent,
  InventoryEvent,
  NamespaceEvent,
  RangeEvent,
  ServiceEvent,
  WorkloadEvent,
} from './events.ts';
import { inventoryKey } from './events.ts';
import { IdentityTable } from './identities.ts';
import { workloadId } from './ids.ts';
import { findRange, makeRangeMap, type RangeMap } from './ranges.ts';
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

/** Somebody who owns addresses: a workload, or a service with its virtual ones. */
export interface Owner {
  readonly index: number;
  readonly event: WorkloadEvent | ServiceEvent;
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
  readonly toleranceMs: number;
  readonly maxIntervalsPerAddress: number;
  readonly labelsOf: LabelsOf;
}

/** What the resolver needs of one network. */
export interface NetworkView {
  readonly index: number;
  readonly ranges: RangeMap;
  /** Index of the network that is asked next, or -1: a network that is no cluster's stands alone. */
  readonly parent: number;
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
      ranges: makeRangeMap(applies, cluster, (content) => this.identities.intern(content).index),
    };
    this.#views[network] = view;
    return view;
  }

  /** The owner with this uid, if one is known. */
  byUid(uid: string): Owner | undefined {
    return this.#byUid.get(uid);
  }

  /** Applies the newest event of a key; `null` is the tombstone. */
  apply(key: string, event: InventoryEvent | null): void {
    this.generation++;
    if (event === null) {
      this.#forget(key);
      return;
    }
    switch (event.type) {
      case 'workload':
        this.#own(key, event, workloadId(event.cluster, event.kind, event.uid), provenanceOfKind[event.kind]);
        return;
      case 'service':
        this.#own(key, event, 0n, provenanceCode.service);
        return;
      case 'namespace':
        this.#namespaces.set(key, event);
        for (const owner of this.#namespaceOwners.get(key) ?? []) this.#label(owner);
        return;
      case 'cluster':
        this.#clusters.set(event.cluster, event);
        this.#dropViews();
        return;
      case 'range':
        this.#ranges.set(key, event);
        this.#dropViews();
        return;
    }
  }

  /** Uses other profiles from now on. */
  relabel(labelsOf: LabelsOf): void {
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

  #own(key: string, event: WorkloadEvent | ServiceEvent, id: bigint, provenance: number): void {
    const before = this.#byKey.get(key);
    if (before !== undefined) this.#eachAddress(before.event, before.index, false);
    const index = before?.index ?? this.#free.pop() ?? this.owners.length;
    const owner: Owner = { index, event, id, identity: 0 };
    if (index >= this.ownerIdentity.length) this.#growOwners();
    this.owners[index] = owner;
    this.#byKey.set(key, owner);
    this.#byUid.set(event.uid, owner);
    this.ownerProvenance[index] = provenance;
    this.ownerIdWords[index * 2] = Number(id & 0xffffffffn);
    this.ownerIdWords[index * 2 + 1] = Number(id >> 32n);
    const namespaceKey = inventoryKey({
      v: 1,
      type: 'namespace',
      cluster: event.cluster,
      name: event.namespace,
      labels: {},
      annotations: {},
    });
    let siblings = this.#namespaceOwners.get(namespaceKey);
    if (siblings === undefined) {
      siblings = new Set();
      this.#namespaceOwners.set(namespaceKey, siblings);
    }
    if (before !== undefined) siblings.delete(before);
    siblings.add(owner);
    this.#label(owner);
    this.changed.add(index);
    this.#eachAddress(event, index, true);
  }

  #eachAddress(event: WorkloadEvent | ServiceEvent, owner: number, add: boolean): void {
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
  }

  #label(owner: Owner): void {
    const { event } = owner;
    const kind = event.type === 'service' ? 'service' : event.kind;
    const namespace = this.#namespaces.get(
      inventoryKey({
        v: 1,
        type: 'namespace',
        cluster: event.cluster,
        name: event.namespace,
        labels: {},
        annotations: {},
      }),
    );
    const { labels } = this.#labelsOf(
      {
        kind,
        cluster: event.cluster,
        namespace: event.namespace,
        labels: event.labels,
        annotations: event.annotations,
      },
      namespace?.labels ?? {},
    );
    const identity = this.identities.intern({
      kind,
      cluster: event.cluster,
      namespace: event.namespace,
      name: event.type === 'service' ? event.name : '',
      zone: 'inside',
      labels,
    }).index;
    if (owner.identity !== identity) this.changed.add(owner.index);
    owner.identity = identity;
    this.ownerIdentity[owner.index] = identity;
  }

  #forget(key: string): void {
    const owner = this.#byKey.get(key);
    if (owner !== undefined) {
      this.#eachAddress(owner.event, owner.index, false);
      this.#byKey.delete(key);
      if (this.#byUid.get(owner.event.uid) === owner) this.#byUid.delete(owner.event.uid);
      for (const siblings of this.#namespaceOwners.values()) if (siblings.delete(owner)) break;
      this.owners[owner.index] = undefined;
      this.changed.delete(owner.index);
      this.#free.push(owner.index);
      return;
    }
    const range = this.#ranges.delete(key);
    const cluster = key.startsWith('cluster/') && this.#clusters.delete(key.slice('cluster/'.length));
    if (range || cluster) this.#dropViews();
    this.#namespaces.delete(key);
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
  }

  /** The answer of the ranges of `network` for the address in the 16 bytes at `offset`. */
  rangeOf(network: number, address: Uint8Array, offset: number): ReturnType<typeof findRange> {
    return findRange(this.view(network).ranges, address, offset);
  }
}
