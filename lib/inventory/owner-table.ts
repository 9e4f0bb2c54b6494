/**
 * All owners: by index, by uid, with their places in the time index and their identities. Identities are worked out when
 * somebody asks for them, so that other labels (of a namespace, by other profiles) are in force at once, whoever many
 * they concern.
 */
import { setImmediate } from 'node:timers/promises';
import { parseAddress } from '../net/address.ts';
import { ChangedSet } from './changed-set.ts';
import type { IdentityTable } from './identities.ts';
import { workloadId } from './ids.ts';
import { type IdentityPeriod, Labelling, type LabelsOf } from './labelling.ts';
import { type Namespace, Namespaces } from './namespaces.ts';
import { NodePorts } from './node-ports.ts';
import {
  maxOwnerAddresses,
  OwnedAddresses,
  Owner,
  type OwnerEvent,
  type OwnerExtra,
  type OwnerHome,
  type OwnerKind,
} from './owners.ts';
import type { InventoryProblem } from './problems.ts';
import { ShardedMap } from './sharded-map.ts';
import { labelsText, SharedTexts } from './shared-texts.ts';
import { anybody, forever, type TimeIndex } from './time-index.ts';

/** Codes of `provenances` in `schemas/closed-lists.ts`. */
export const provenanceCode = { none: 0, pod: 1, host: 2, service: 3, node: 4, range: 5, name: 6 } as const;

const provenanceOfKind: Readonly<Record<OwnerKind, number>> = {
  pod: provenanceCode.pod,
  node: provenanceCode.node,
  vm: provenanceCode.host,
  host: provenanceCode.host,
  service: provenanceCode.service,
  name: provenanceCode.name,
};

/**
 * Numbers of each owner, side by side so that whoever needs one has them all: identity (below 0: ask
 * `identityAt`), id as two words, low first, and origin: its provenance and the index of its source.
 */
export const ownerFact = { identity: 0, idLow: 1, idHigh: 2, origin: 3 } as const;
export const factsPerOwner = 4;

/** Code of the provenance in an origin. */
export function provenanceOf(origin: number): number {
  return origin & 0xff;
}

/** Index of the source in an origin. */
export function sourceOf(origin: number): number {
  return origin >>> 8;
}

/** Instead of an identity: not worked out since something it depends on changed; or another one at another time. */
const stale = -1;
const hasHistory = -2;

/** How long a slice of work may take before others get their turn, ms. */
const sliceMs = 4;
/** Owners between two looks at the clock. */
const sliceOwners = 64;

interface FreeIndex {
  readonly index: number;
  readonly atMs: number;
}

interface History {
  readonly before: readonly IdentityPeriod[];
  readonly present: number;
}

interface PlacedInterval {
  readonly network: number;
  readonly address: Uint8Array;
  readonly sinceMs: number;
  readonly untilMs: number;
}

export interface OwnerTableOptions {
  readonly index: TimeIndex;
  readonly identities: IdentityTable;
  readonly labelsOf: LabelsOf;
  readonly networkIndex: (name: string) => number;
  readonly networkName: (network: number) => string;
  readonly onProblem: (problem: InventoryProblem, key: string, detail: string) => void;
  /** How long, ms, the index of an owner that is gone is not given to another: whoever still holds it means the one before. */
  readonly reuseAfterMs: number;
}

export class OwnerTable implements OwnerHome {
  readonly #options: OwnerTableOptions;
  /** Owners by index; a hole where one was removed. */
  readonly list: (Owner | undefined)[] = [];
  readonly addresses = new OwnedAddresses();
  readonly changed = new ChangedSet();
  readonly namespaces = new Namespaces();
  readonly nodePorts = new NodePorts();
  /** The {@link ownerFact}s of each owner; its length is a power of two. Replaced when it grows. */
  facts = new Int32Array(1024 * factsPerOwner);
  /** Rises when profiles change. */
  labelGeneration = 0;
  count = 0;
  readonly #texts = new SharedTexts();
  readonly #empty = this.#texts.take('');
  readonly #byUid = new ShardedMap<Owner>();
  readonly #byName = new Map<string, Owner>();
  readonly #labelling: Labelling;
  #histories = new Map<number, History>();
  /** By network, the number of intervals that each source has there. */
  readonly #speakers: Map<number, number>[] = [];
  /** Indexes of owners that are gone, from `#firstFree` on, oldest first. */
  #free: FreeIndex[] = [];
  #firstFree = 0;

  constructor(options: OwnerTableOptions) {
    this.#options = options;
    this.#labelling = new Labelling(options.identities, options.labelsOf);
  }

  networkName(network: number): string {
    return this.#options.networkName(network);
  }

  byUid(uid: string): Owner | undefined {
    return this.#byUid.get(uid);
  }

  idOf(owner: number): bigint {
    const high = this.#fact(owner, ownerFact.idHigh) >>> 0;
    return (BigInt(high) << 32n) | BigInt(this.#fact(owner, ownerFact.idLow) >>> 0);
  }

  /** Sources that own addresses of a network. */
  speakersOf(network: number): Iterable<number> {
    return this.#speakers[network]?.keys() ?? [];
  }

  /** Takes the whole truth about an owner. */
  own(key: string, event: OwnerEvent, source: number): void {
    const kind = event.type === 'workload' ? event.kind : event.type;
    const placed = this.#placed(key, event);
    const known =
      event.type === 'name' ? this.#byName.get(event.name) : this.#find(kind, event.cluster, event.uid);
    if (known !== undefined && this.#sourceOf(known) === source && this.#says(known, event, placed)) return;
    const owner = known ?? this.#add(kind, event);
    if (known !== undefined) this.#withdraw(known);
    this.#setFact(owner.index, ownerFact.origin, provenanceOfKind[kind] | (source << 8));
    this.#describe(owner, event);
    this.addresses.resize(owner, placed.length);
    placed.forEach(({ network, address, sinceMs, untilMs }, i) => {
      this.addresses.set(owner, i, network, address, sinceMs, untilMs);
    });
    this.#eachAddress(owner, true);
    if (owner.kind === 'service') this.nodePorts.add(owner);
    this.#makeStale(owner);
  }

  /** The intervals of an event that can be used, each once. */
  #placed(key: string, event: OwnerEvent): PlacedInterval[] {
    const { onProblem, networkIndex } = this.#options;
    const placed: PlacedInterval[] = [];
    for (const { ip, network, sinceMs, untilMs = forever } of event.addresses) {
      const address = parseAddress(ip);
      if (address === null) onProblem('bad-address', key, `${JSON.stringify(ip)} is not an address`);
      else if (placed.length === maxOwnerAddresses) {
        const over = event.addresses.length - maxOwnerAddresses;
        onProblem('too-many-addresses', key, `${over} more than ${maxOwnerAddresses}`);
        break;
      } else {
        if (untilMs < sinceMs)
          onProblem('bad-interval', key, `${ip} until ${untilMs} ends before it begins, ${sinceMs}`);
        // Then it is a moment: nobody's for sure, but who else was near that moment is not sure either.
        placed.push({
          network: networkIndex(network),
          address,
          sinceMs: Math.min(sinceMs, untilMs),
          untilMs,
        });
      }
    }
    return placed.length < 2 ? placed : withoutRepeats(placed);
  }

  /** Whether the owner is already what an event says. */
  #says(owner: Owner, event: OwnerEvent, placed: readonly PlacedInterval[]): boolean {
    if (owner.name !== event.name || owner.addressCount !== placed.length) return false;
    if (owner.labels.text !== labelsText(event.labels)) return false;
    if (JSON.stringify(owner.extra) !== JSON.stringify(extraOf(event))) return false;
    if (event.type !== 'name') {
      if (
        owner.namespace?.name !== event.namespace ||
        owner.sinceMs !== event.sinceMs ||
        owner.untilMs !== (event.untilMs ?? forever) ||
        owner.annotations.text !== labelsText(event.annotations)
      )
        return false;
    }
    if (
      event.type === 'workload' &&
      (owner.node.text !== event.node || owner.hostNetwork !== event.hostNetwork)
    )
      return false;
    let at = 0;
    let isSame = true;
    this.addresses.each(owner, (network, words, word, sinceMs, untilMs) => {
      const other = placed[at++];
      isSame &&=
        other !== undefined &&
        other.network === network &&
        other.sinceMs === sinceMs &&
        other.untilMs === untilMs &&
        Buffer.compare(new Uint8Array(words.buffer, word * 4, 16), other.address) === 0;
    });
    return isSame;
  }

  #find(kind: OwnerKind, cluster: string, uid: string): Owner | undefined {
    for (let owner = this.#byUid.get(uid) ?? null; owner !== null; owner = owner.sameUid)
      if (owner.kind === kind && owner.cluster === cluster) return owner;
    return undefined;
  }

  #add(kind: OwnerKind, event: OwnerEvent): Owner {
    const index = this.#newIndex();
    const uid = event.type === 'name' ? '' : event.uid;
    const owner = new Owner(this, index, kind, uid, this.#empty);
    this.list[index] = owner;
    this.count++;
    if (event.type === 'name') this.#byName.set(event.name, owner);
    else {
      owner.sameUid = this.#byUid.get(uid) ?? null;
      this.#byUid.set(uid, owner);
    }
    const id = event.type === 'workload' ? workloadId(event.cluster, kind, uid) : 0n;
    this.#setFact(index, ownerFact.idLow, Number(id & 0xffffffffn));
    this.#setFact(index, ownerFact.idHigh, Number(id >> 32n));
    return owner;
  }

  #newIndex(): number {
    const free = this.#free[this.#firstFree];
    if (free !== undefined && free.atMs + this.#options.reuseAfterMs <= performance.now()) {
      this.#firstFree++;
      if (this.#firstFree * 2 > this.#free.length) {
        this.#free = this.#free.slice(this.#firstFree);
        this.#firstFree = 0;
      }
      return free.index;
    }
    const index = this.list.length;
    if ((index + 1) * factsPerOwner > this.facts.length) this.#grow();
    return index;
  }

  /** Keeps what an event says, but for addresses. */
  #describe(owner: Owner, event: OwnerEvent): void {
    const texts = this.#texts;
    const { node, labels, annotations } = owner;
    owner.name = event.name;
    owner.extra = extraOf(event);
    owner.labels = texts.take(labelsText(event.labels));
    owner.annotations = texts.take(event.type === 'name' ? '{}' : labelsText(event.annotations));
    owner.node = texts.take(event.type === 'workload' ? event.node : '');
    for (const before of [node, labels, annotations]) if (before !== this.#empty) texts.release(before);
    if (event.type === 'name') return;
    owner.sinceMs = event.sinceMs;
    owner.untilMs = event.untilMs ?? forever;
    owner.hostNetwork = event.type === 'workload' && event.hostNetwork;
    const namespace = this.namespaces.take(event.cluster, event.namespace);
    if (owner.namespace === namespace) return;
    if (owner.namespace !== null) this.namespaces.leave(owner.namespace, owner);
    owner.namespace = namespace;
    this.namespaces.join(namespace, owner);
  }

  /** Takes the owner's intervals into the time index, or out of it. */
  #eachAddress(owner: Owner, isAdded: boolean): void {
    // A pod on the host network owns no address: its node does.
    if (owner.hostNetwork) return;
    const { index } = this.#options;
    const source = this.#sourceOf(owner);
    this.addresses.each(owner, (network, words, at, sinceMs, untilMs) => {
      if (isAdded) index.add(network, words, at, sinceMs, untilMs, owner.index);
      else index.remove(network, words, at, sinceMs, untilMs, owner.index);
      let speakers = this.#speakers[network];
      if (speakers === undefined) {
        speakers = new Map();
        this.#speakers[network] = speakers;
      }
      const count = (speakers.get(source) ?? 0) + (isAdded ? 1 : -1);
      if (count === 0) speakers.delete(source);
      else speakers.set(source, count);
    });
    for (const { ip, network, sinceMs, certainFromMs = 0, untilMs = forever } of owner.extra?.unsure ?? []) {
      const address = parseAddress(ip);
      if (address === null) continue;
      const words = new Uint32Array(Uint8Array.from(address).buffer);
      const at = this.#options.networkIndex(network);
      const until = Math.min(certainFromMs, untilMs);
      if (isAdded) index.add(at, words, 0, sinceMs, until, anybody);
      else index.remove(at, words, 0, sinceMs, until, anybody);
    }
  }

  /** Takes back what the last event of an owner placed. */
  #withdraw(owner: Owner): void {
    this.#eachAddress(owner, false);
    if (owner.kind === 'service') this.nodePorts.remove(owner);
  }

  /** The owner that a message key names. */
  byKey(key: string): Owner | undefined {
    if (key.startsWith('name/')) return this.#byName.get(key.slice('name/'.length));
    // Clusters and uids may have slashes in them: the uid is what comes after one of them.
    for (let slash = key.indexOf('/'); slash >= 0; slash = key.indexOf('/', slash + 1)) {
      for (let owner = this.#byUid.get(key.slice(slash + 1)) ?? null; owner !== null; owner = owner.sameUid)
        if (keyOf(owner) === key) return owner;
    }
    return undefined;
  }

  /** Forgets an owner. */
  remove(owner: Owner): void {
    const { index, uid } = owner;
    this.#withdraw(owner);
    this.addresses.resize(owner, 0);
    if (owner.kind === 'name') this.#byName.delete(owner.name);
    else this.#unlinkUid(owner, uid);
    if (owner.namespace !== null) this.namespaces.leave(owner.namespace, owner);
    for (const text of [owner.node, owner.labels, owner.annotations])
      if (text !== this.#empty) this.#texts.release(text);
    this.list[index] = undefined;
    this.count--;
    this.#setIdentity(index, 0);
    this.#histories.delete(index);
    this.changed.delete(index);
    this.#free.push({ index, atMs: performance.now() });
  }

  #unlinkUid(owner: Owner, uid: string): void {
    const first = this.#byUid.get(uid);
    if (first === owner) {
      if (owner.sameUid === null) this.#byUid.delete(uid);
      else this.#byUid.set(uid, owner.sameUid);
      return;
    }
    for (let before = first ?? null; before !== null; before = before.sameUid)
      if (before.sameUid === owner) before.sameUid = owner.sameUid;
  }

  /** The owner's labels may be others from now on. */
  #makeStale(owner: Owner): void {
    this.#setIdentity(owner.index, stale);
    this.#histories.delete(owner.index);
    this.changed.add(owner.index);
  }

  /** The labels of a namespace changed. */
  relabelMembers(namespace: Namespace): void {
    for (const owner of namespace.members) this.#makeStale(owner);
  }

  /** Identity of an owner at a time. */
  identityAt(owner: number, timeMs: number): number {
    const identity = this.#fact(owner, ownerFact.identity);
    return identity >= 0 ? identity : this.#identityOf(owner, timeMs);
  }

  /** Identity that an owner has now. */
  identityOf(owner: number): number {
    return this.identityAt(owner, forever);
  }

  #identityOf(index: number, timeMs: number): number {
    if (this.#fact(index, ownerFact.identity) === stale) this.#workOut(index);
    const history = this.#histories.get(index);
    if (history === undefined) return this.#fact(index, ownerFact.identity);
    for (const { untilMs, identity } of history.before) if (timeMs < untilMs) return identity;
    return history.present;
  }

  #workOut(index: number): void {
    const owner = this.list[index];
    if (owner === undefined) {
      this.#setIdentity(index, 0);
      return;
    }
    const present = this.#labelling.present(owner);
    const before = this.#labelling.before(owner, present);
    if (before === null) this.#setIdentity(index, present);
    else {
      this.#histories.set(index, { before, present });
      this.#setIdentity(index, hasHistory);
    }
  }

  /** Identity of an owner from `fromMs` to `toMs`, both included; -1 where it had several meanwhile. */
  identityWithin(owner: number, fromMs: number, toMs: number): number {
    const identity = this.#fact(owner, ownerFact.identity);
    if (identity >= 0) return identity;
    const first = this.#identityOf(owner, fromMs);
    for (const { untilMs, unsureFromMs = untilMs } of this.#histories.get(owner)?.before ?? [])
      if (untilMs > fromMs && unsureFromMs <= toMs) return -1;
    return first;
  }

  /** The identities of an owner in time, oldest first, each until a moment; the last one lasts. */
  identityPeriods(owner: number): readonly IdentityPeriod[] {
    const present = { untilMs: forever, identity: this.identityOf(owner) };
    return [...(this.#histories.get(owner)?.before ?? []), present];
  }

  /**
   * Uses other profiles, at once. Resolves when all owners were gone through, in slices, and those whose identity is another
   * now are in {@link changed}; or when still other profiles came.
   */
  async relabel(labelsOf: LabelsOf): Promise<void> {
    this.#labelling.use(labelsOf);
    const generation = ++this.labelGeneration;
    const before = new Int32Array(this.list.length);
    for (let index = 0; index < before.length; index++) {
      before[index] = this.#fact(index, ownerFact.identity);
      if (this.list[index] !== undefined) this.#setIdentity(index, stale);
    }
    const histories = this.#histories;
    this.#histories = new Map();
    let endMs = performance.now() + sliceMs;
    for (let index = 0; index < this.list.length; index++) {
      if (index % sliceOwners === 0 && performance.now() > endMs) {
        await setImmediate();
        if (generation !== this.labelGeneration) return;
        endMs = performance.now() + sliceMs;
      }
      if (this.list[index] === undefined) continue;
      this.identityOf(index);
      const now = this.#fact(index, ownerFact.identity);
      if (before[index] !== now || histories.has(index) || this.#histories.has(index))
        this.changed.add(index);
    }
  }

  #fact(owner: number, fact: number): number {
    return this.facts[owner * factsPerOwner + fact] ?? 0;
  }

  #setFact(owner: number, fact: number, value: number): void {
    this.facts[owner * factsPerOwner + fact] = value;
  }

  #setIdentity(owner: number, identity: number): void {
    this.#setFact(owner, ownerFact.identity, identity);
  }

  #sourceOf(owner: Owner): number {
    return sourceOf(this.#fact(owner.index, ownerFact.origin));
  }

  #grow(): void {
    const larger = new Int32Array(this.facts.length * 2);
    larger.set(this.facts);
    this.facts = larger;
  }
}

function keyOf({ kind, cluster, uid }: Owner): string {
  return kind === 'service' ? `service/${cluster}/${uid}` : `workload/${cluster}/${kind}/${uid}`;
}

function withoutRepeats(placed: readonly PlacedInterval[]): PlacedInterval[] {
  const seen = new Set<string>();
  return placed.filter(({ network, address, sinceMs, untilMs }) => {
    const key = `${network}|${address.join('.')}|${sinceMs}|${untilMs}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

function extraOf(event: OwnerEvent): OwnerExtra | null {
  const unsure = event.addresses.filter(
    ({ sinceMs, certainFromMs = 0, untilMs = forever }) => certainFromMs > sinceMs && untilMs > sinceMs,
  );
  const parts: OwnerExtra = unsure.length === 0 ? {} : { unsure };
  if (event.type === 'name') return { ...parts, dns: event.dns, zone: event.zone };
  const { former = [] } = event;
  const more = former.length === 0 ? parts : { ...parts, former };
  if (event.type === 'service') return { ...more, service: { selector: event.selector, ports: event.ports } };
  return Object.keys(more).length === 0 ? null : more;
}
