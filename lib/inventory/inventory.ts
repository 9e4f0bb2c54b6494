/**
 * The inventory as an enricher holds it: applies events, keeps the time index, the ranges and the identities in step,
 * and answers who an address was at a time.
 */
import { defaultNetwork } from '../../schemas/inventory-event.ts';
import { parseCidr } from '../net/address.ts';
import type { ChangedSet } from './changed-set.ts';
import { DnsNames } from './dns-names.ts';
import { type ClusterEvent, type InventoryEvent, inventoryKey, type RangeEvent } from './events.ts';
import { type Identity, IdentityTable } from './identities.ts';
import type { IdentityPeriod, LabelsOf } from './labelling.ts';
import { factsPerOwner, OwnerTable } from './owner-table.ts';
import type { Owner } from './owners.ts';
import { type InventoryProblem, inventoryProblems } from './problems.ts';
import { builtInRanges, findRange, makeRangeMap, type RangeMap, rangeContent } from './ranges.ts';
import { Sources } from './sources.ts';
import { TimeIndex } from './time-index.ts';

export type { IdentityPeriod, LabelsOf } from './labelling.ts';
export {
  factsPerOwner,
  ownerFact,
  provenanceCode,
  provenanceOf,
  sourceOf,
} from './owner-table.ts';
export type { Owner, OwnerEvent } from './owners.ts';

export interface InventoryOptions {
  readonly maxIntervalsPerAddress: number;
  readonly labelsOf: LabelsOf;
  /** Told what was wrong with an event; the rest of it is used. */
  readonly onProblem?: (problem: InventoryProblem, key: string, detail: string) => void;
  /** How long, ms, the index of an owner that is gone is not given to another one (1 minute). */
  readonly reuseAfterMs?: number;
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

/** Long enough for whoever holds owners of a block until it is written. */
const defaultReuseAfterMs = 60_000;

interface ToldCluster {
  readonly event: ClusterEvent;
  readonly source: number;
}

/** Source of names that only the policy lists: of two that list the same DNS name, the other answers. */
export const policySource = 'policy';

export class Inventory {
  readonly identities = new IdentityTable();
  readonly index: TimeIndex;
  /** Rises with each change of ranges or clusters: what was remembered about addresses is void. */
  rangeGeneration = 0;
  /** Rises with each event applied. */
  generation = 0;
  /** How often events had each problem. */
  readonly problemCounts: Record<InventoryProblem, number>;
  readonly #owners: OwnerTable;
  readonly #onProblem: InventoryOptions['onProblem'];
  readonly #clusters = new Map<string, ToldCluster>();
  readonly #ranges = new Map<string, RangeEvent>();
  readonly #networks = new Map<string, number>();
  readonly #networkNames: string[] = [];
  #views: (NetworkView | undefined)[] = [];
  readonly #sources = new Sources();
  readonly #names = new DnsNames();

  constructor(options: InventoryOptions) {
    this.index = new TimeIndex(options);
    this.#onProblem = options.onProblem;
    this.problemCounts = Object.fromEntries(inventoryProblems.map((problem) => [problem, 0])) as Record<
      InventoryProblem,
      number
    >;
    this.#owners = new OwnerTable({
      index: this.index,
      identities: this.identities,
      labelsOf: options.labelsOf,
      networkIndex: (name) => this.network(name),
      networkName: (network) => this.#networkNames[network] ?? '',
      onProblem: (problem, key, detail) => this.#tell(problem, key, detail),
      reuseAfterMs: options.reuseAfterMs ?? defaultReuseAfterMs,
    });
    this.network(defaultNetwork);
  }

  #tell(problem: InventoryProblem, key: string, detail: string): void {
    this.problemCounts[problem]++;
    this.#onProblem?.(problem, key, detail);
  }

  /** Owners by index; a hole where one was removed. */
  get owners(): readonly (Owner | undefined)[] {
    return this.#owners.list;
  }

  /** Owners whose catalog rows (`workloads`) are out of date. */
  get changed(): ChangedSet {
    return this.#owners.changed;
  }

  /** Numbers of each owner, {@link factsPerOwner} of them: {@link ownerFact}. Replaced when it grows, by `apply`. */
  get ownerFacts(): Int32Array {
    return this.#owners.facts;
  }

  /** Number of owners. */
  get ownerCount(): number {
    return this.#owners.count;
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
      closedSource: cluster?.source ?? -1,
      ranges: makeRangeMap(applies, cluster?.event, (content) => this.identities.intern(content).index),
    };
    this.#views[network] = view;
    return view;
  }

  /** The answer of the ranges of `network` for the address in the 16 bytes at `offset`. */
  rangeOf(network: number, address: Uint8Array, offset: number): ReturnType<typeof findRange> {
    return findRange(this.view(network).ranges, address, offset);
  }

  /** Every named range, with the network whose addresses it names; those that every network has stand for the routed one. */
  *ranges(): Generator<{
    readonly network: string;
    readonly cidrs: readonly string[];
    readonly identity: Identity;
  }> {
    for (const { content, cidrs } of builtInRanges())
      yield { network: defaultNetwork, cidrs, identity: this.identities.intern(content) };
    for (const { network, cidrs, name, zone, labels } of this.#ranges.values())
      yield { network, cidrs, identity: this.identities.intern(rangeContent(name, zone, labels)) };
  }

  /** The owner with this uid, if one is known; of several the last that came. */
  byUid(uid: string): Owner | undefined {
    return this.#owners.byUid(uid);
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
    return this.#sources.leastComplete(this.#owners.speakersOf(network), staleMs);
  }

  /**
   * Prepares for lookups of up to {@link prefetchRows} addresses (four words each, from row `firstRow`) of one network:
   * what they will need is read together, so that they don't wait for it one by one. The number that it returns means nothing:
   * it makes sure that all is read.
   */
  prefetch(network: number, words: Uint32Array, firstRow: number, rowCount: number): number {
    this.index.prefetch(network, words, firstRow, rowCount);
    const owners = this.index.prefetched;
    const facts = this.#owners.facts;
    const mask = facts.length - 1;
    let seen = 0;
    for (let row = 0; row < rowCount; row++) seen |= facts[((owners[row] ?? 0) * factsPerOwner) & mask] ?? 0;
    return seen;
  }

  /** Identity of an owner at a time: the labels it had then. */
  identityAt(owner: number, timeMs: number): number {
    return this.#owners.identityAt(owner, timeMs);
  }

  /** Identity of an owner from `fromMs` to `toMs`, both included; -1 where it had several meanwhile. */
  identityWithin(owner: number, fromMs: number, toMs: number): number {
    return this.#owners.identityWithin(owner, fromMs, toMs);
  }

  /** The identities of an owner in time, oldest first, each until a moment; the last one lasts. */
  identityPeriods(owner: number): readonly IdentityPeriod[] {
    return this.#owners.identityPeriods(owner);
  }

  /** The service (owner) behind a port of a node (owner) at a time, or -1. `protocol` is its IANA number. */
  nodePortOwner(node: number, port: number, protocol: number, timeMs: number): number {
    const owner = this.owners[node];
    if (owner?.kind !== 'node') return -1;
    return this.#owners.nodePorts.find(owner.cluster, port, protocol, timeMs);
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

  /** Forgets intervals that ended at or before `beforeMs`, a slice with each call; see {@link TimeIndex.evictBefore}. */
  evictBefore(beforeMs: number, parts?: number): boolean {
    return this.index.evictBefore(beforeMs, parts);
  }

  /**
   * Gives labels by other profiles, for whoever asks from now on. Resolves when all owners were gone through, in slices,
   * and those whose identity is another now are in {@link changed}; or when still other profiles came.
   */
  relabel(labelsOf: LabelsOf): Promise<void> {
    return this.#owners.relabel(labelsOf);
  }

  /** Rises with each change of profiles: identities that were asked for before may be others now. */
  get labelGeneration(): number {
    return this.#owners.labelGeneration;
  }

  /** Applies the newest event of a key, with the name of its source; `null` is the tombstone. */
  apply(key: string, event: InventoryEvent | null, source = ''): void {
    this.generation++;
    if (event === null) {
      this.#forget(key);
      return;
    }
    if (key !== inventoryKey(event)) {
      this.#tell('wrong-key', key, `the event's own key is ${inventoryKey(event)}`);
      return;
    }
    const sourceIndex = this.#sourceIndex(key, source);
    switch (event.type) {
      case 'workload':
      case 'service':
        this.#owners.own(key, event, sourceIndex);
        return;
      case 'name': {
        this.#owners.own(key, event, sourceIndex);
        const owner = this.#owners.byKey(key);
        this.#names.delete(key);
        this.#names.delete(`~${key}`);
        this.#names.set(source === policySource ? `~${key}` : key, event.dns, owner?.identity ?? 0);
        return;
      }
      case 'namespace': {
        const changed = this.#owners.namespaces.apply(key, event);
        if (changed !== null) this.#owners.relabelMembers(changed);
        return;
      }
      case 'cluster':
        this.#applyCluster(key, event, sourceIndex);
        return;
      case 'range':
        if (JSON.stringify(this.#ranges.get(key)) === JSON.stringify(event)) return;
        this.#checkCidrs(key, event.cidrs);
        this.#ranges.set(key, event);
        this.#dropViews();
        return;
      case 'watermark':
        this.#sourceIndex(key, event.source);
        this.#sources.hear(event.source, event.completeToMs);
        return;
      case 'network-policy':
        // Says nothing of who is who.
        return;
    }
  }

  #sourceIndex(key: string, source: string): number {
    const index = this.#sources.index(source);
    if (index === 0 && source !== '')
      this.#tell('too-many-sources', key, `source ${JSON.stringify(source)} is taken at its word`);
    return index;
  }

  #applyCluster(key: string, event: ClusterEvent, source: number): void {
    const known = this.#clusters.get(event.cluster);
    if (known?.source === source && JSON.stringify(known.event) === JSON.stringify(event)) return;
    if (known?.event.uid !== undefined && event.uid !== undefined && known.event.uid !== event.uid)
      this.#tell('cluster-changed', key, `uid ${event.uid}, which was ${known.event.uid}`);
    this.#checkCidrs(key, [...event.podCidrs, ...event.serviceCidrs]);
    this.#clusters.set(event.cluster, { event, source });
    this.#dropViews();
  }

  #checkCidrs(key: string, cidrs: readonly string[]): void {
    for (const cidr of cidrs)
      if (parseCidr(cidr) === null) this.#tell('bad-cidr', key, `${JSON.stringify(cidr)} is not a CIDR`);
  }

  #dropViews(): void {
    this.#views = [];
    this.rangeGeneration++;
  }

  #forget(key: string): void {
    const slash = key.indexOf('/');
    const type = key.slice(0, slash);
    const afterType = key.slice(slash + 1);
    switch (type) {
      case 'workload':
      case 'service':
      case 'name': {
        const owner = this.#owners.byKey(key);
        if (owner !== undefined) this.#owners.remove(owner);
        this.#names.delete(key);
        this.#names.delete(`~${key}`);
        return;
      }
      case 'namespace': {
        const changed = this.#owners.namespaces.forget(key);
        if (changed !== null) this.#owners.relabelMembers(changed);
        return;
      }
      case 'cluster':
        if (this.#clusters.delete(afterType)) this.#dropViews();
        return;
      case 'range':
        if (this.#ranges.delete(key)) this.#dropViews();
        return;
      case 'watermark':
        this.#sources.forget(afterType);
        return;
    }
  }
}
