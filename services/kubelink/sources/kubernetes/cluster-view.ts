/**
 * What an API server holds, as inventory events, and what each of its words changes. Pure: times come in as arguments.
 *
 * Of an address that comes, the earliest possible begin is told, of one that goes the latest possible end: where two
 * owners could meet, both stand there, and a flow of that moment is ambiguous, never wrong. After a time in which not
 * everything was seen, the state has to say what is in doubt: see {@link ClusterView.changedMs}.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  type ClusterEvent,
  type InventoryEvent,
  inventoryKey,
  type NetworkPolicyEvent,
  type ServiceEvent,
  type WorkloadEvent,
} from '../../../../lib/inventory/events.ts';
import { type LabelledEvent, losesLabels } from '../../former.ts';
import { ClusterAddresses, type ServiceEndpoints, withEndpoints } from '../../manifests/endpoint-slice.ts';
import type { Converted } from './converted.ts';
import type { Kind } from './resources.ts';

/** The API server cuts times to the second. */
const timeStepMs = 1000;

export type News =
  /** `atMs` where the change is known to be older than now. */
  | { readonly type: 'change'; readonly event: InventoryEvent; readonly atMs: number }
  | { readonly type: 'gone'; readonly key: string; readonly atMs: number };

/** When something was heard. */
export interface Hearing {
  readonly nowMs: number;
  /** Everything that took effect at or before this was heard before; 0 where nothing is known. */
  readonly seenToMs: number;
  /** When everything was told last, so that from then on each change was; infinite while nothing is told. */
  readonly toldSinceMs: number;
}

interface Known {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly events: readonly InventoryEvent[];
  readonly podCidrs: readonly string[];
  readonly endpoints: ServiceEndpoints | null;
  /** Why its newest state could not be read; empty where it could. */
  readonly problem: string;
}

export interface ClusterViewOptions {
  readonly cluster: string;
  /** Empty: those of the nodes. */
  readonly podCidrs: readonly string[];
  readonly serviceCidrs: readonly string[];
}

type Addressed = WorkloadEvent | ServiceEvent;

function hasAddresses(event: InventoryEvent): event is Addressed {
  return event.type === 'workload' || event.type === 'service';
}

function isEnded(event: InventoryEvent): event is (Addressed | NetworkPolicyEvent) & { untilMs: number } {
  return 'untilMs' in event && event.untilMs !== undefined;
}

function isLabelled(event: InventoryEvent): event is LabelledEvent {
  return hasAddresses(event) || event.type === 'namespace';
}

/** When an address came: at the earliest, and from when on for certain. */
interface Begin {
  readonly sinceMs: number;
  readonly certainFromMs: number;
}

/** Gives an address its begin by what its object says: when it came, and when its owner came. */
type BeginOf = (sinceMs: number, ownerSinceMs: number) => Begin;

const sureBegin: BeginOf = (sinceMs) => ({ sinceMs, certainFromMs: sinceMs });

/**
 * The begin of an address that was heard of as it came: any moment since its owner came, as it is in use before anybody
 * notes it. Before everything was told, nobody was told either until when its former owner had it.
 */
function beginHeard({ nowMs, seenToMs, toldSinceMs }: Hearing): BeginOf {
  return (sinceMs, ownerSinceMs) => {
    const beginMs = Math.max(Math.min(sinceMs, ownerSinceMs), seenToMs);
    return { sinceMs: beginMs, certainFromMs: Math.max(beginMs, Math.min(nowMs, toldSinceMs)) };
  };
}

/** The event with begins of addresses that did not stand in `before`, as `beginOf` sees them. */
function withBegins<E extends InventoryEvent>(
  before: InventoryEvent | undefined,
  event: E,
  beginOf: BeginOf,
): E {
  if (!hasAddresses(event)) return event;
  const known = before !== undefined && hasAddresses(before) ? before.addresses : [];
  const addresses = event.addresses.map((interval) => {
    const { ip, network, untilMs } = interval;
    const same = known.find((other) => other.ip === ip && other.network === network);
    const begin = same ?? beginOf(interval.sinceMs, event.sinceMs);
    const sinceMs = Math.min(begin.sinceMs, untilMs ?? begin.sinceMs);
    const { certainFromMs = sinceMs } = begin;
    return { ...interval, sinceMs, ...(certainFromMs > sinceMs ? { certainFromMs } : {}) };
  });
  return { ...event, addresses };
}

function openAddresses(event: InventoryEvent): Set<string> {
  const open = hasAddresses(event) ? event.addresses.filter(({ untilMs }) => untilMs === undefined) : [];
  return new Set(open.map(({ ip, network }) => `${network} ${ip}`));
}

export class ClusterView {
  readonly #options: ClusterViewOptions;
  readonly #known = new Map<Kind, Map<string, Known>>();
  readonly #synced = new Set<Kind>();
  /** Slices of each service that have addresses of their own, by name. */
  readonly #slices = new Map<string, Map<string, ServiceEndpoints>>();
  /** Services as they were told, with the addresses of their slices. */
  readonly #services = new Map<string, ServiceEvent>();
  readonly #writtenMs = new WeakMap<InventoryEvent, number>();
  #uid = '';
  #clusterEvent: ClusterEvent;
  #others: ClusterAddresses;
  #problemVersion = 0;

  constructor(options: ClusterViewOptions) {
    this.#options = options;
    this.#clusterEvent = this.#makeCluster();
    this.#others = new ClusterAddresses([], this.#clusterEvent);
  }

  /** Whether each of these kinds was read as a whole. */
  isSynced(kinds: readonly Kind[]): boolean {
    return kinds.every((kind) => this.#synced.has(kind));
  }

  /** Another cluster than before: nothing of the old one counts. */
  reset(uid: string): void {
    this.#known.clear();
    this.#synced.clear();
    this.#slices.clear();
    this.#services.clear();
    this.#uid = uid;
    this.#problemVersion++;
    this.#deriveCluster();
  }

  /** Everything, one event for each entity. */
  all(): InventoryEvent[] {
    const events: InventoryEvent[] = [this.#clusterEvent];
    for (const objects of this.#known.values()) {
      for (const { events: own } of objects.values()) for (const event of own) events.push(this.#told(event));
    }
    return events;
  }

  /**
   * When an event of {@link all} came to be as it is now, ms, at the latest; `null` where nothing is known but that it may
   * have been after `seenToMs`.
   */
  changedMs(event: InventoryEvent, { nowMs, seenToMs }: Omit<Hearing, 'toldSinceMs'>): number | null {
    const writtenMs = this.#writtenMs.get(event) ?? 0;
    const latestMs = writtenMs + timeStepMs;
    // Of a node the heartbeats are left out, and with them when its addresses were noted.
    const isNode = event.type === 'workload' && event.kind === 'node';
    return writtenMs === 0 || (isNode && latestMs > seenToMs) ? null : Math.min(nowMs, latestMs);
  }

  /** What cannot be read at present. */
  problems(): string[] {
    return [...this.#known.values()].flatMap((objects) =>
      [...objects.values()].flatMap(({ problem }) => (problem === '' ? [] : [problem])),
    );
  }

  /** Another number whenever the problems may be others. */
  get problemVersion(): number {
    return this.#problemVersion;
  }

  /** What is known of an object in exactly this version: it need not be read again. */
  isKnown(kind: Kind, ref: string, uid: string, resourceVersion: string): boolean {
    const known = this.#known.get(kind)?.get(ref);
    return resourceVersion !== '' && known?.uid === uid && known.resourceVersion === resourceVersion;
  }

  /** All objects of a kind, after a time in which not everything was seen. What follows is told as a whole. */
  replace(kind: Kind, objects: readonly Converted[]): void {
    const before = this.#known.get(kind) ?? new Map<string, Known>();
    const after = new Map<string, Known>();
    this.#known.set(kind, after);
    this.#synced.add(kind);
    for (const known of before.values()) this.#noteProblem(known);
    for (const object of objects) {
      const known = before.get(object.ref);
      const isSame = known !== undefined && known.uid === object.uid;
      const fresh = this.#keep(object, isSame ? known : undefined, sureBegin);
      if (fresh !== null) after.set(object.ref, fresh);
      this.#noteProblem(fresh);
    }
    if (kind === 'EndpointSlice') this.#indexSlices();
    if (kind === 'Node') this.#deriveCluster();
    if (kind !== 'Service' && kind !== 'EndpointSlice' && kind !== 'Node') return;
    for (const ref of [...this.#services.keys(), ...(this.#known.get('Service')?.keys() ?? [])]) {
      this.#completeService(ref, sureBegin);
    }
  }

  /** One object that was created, changed or (`isGone`) deleted, while everything is seen. */
  apply(kind: Kind, object: Converted, isGone: boolean, hearing: Hearing): News[] {
    const objects = this.#known.get(kind) ?? new Map<string, Known>();
    this.#known.set(kind, objects);
    const known = objects.get(object.ref);
    this.#noteProblem(known);
    const isSame = known !== undefined && known.uid === object.uid;
    const news: News[] = [];
    if (known !== undefined && (isGone || !isSame)) {
      objects.delete(object.ref);
      this.#end(known, object, isSame, hearing, news);
    }
    if (!isGone) {
      const fresh = this.#keep(object, isSame ? known : undefined, beginHeard(hearing));
      if (fresh !== null) {
        objects.set(object.ref, fresh);
        this.#noteProblem(fresh);
        this.#compare(isSame ? known.events : [], fresh.events, object.writtenMs, hearing, news);
      }
    }
    if (kind === 'Service' && isGone) this.#services.delete(object.ref);
    news.push(...this.#follow(kind, object, known, hearing));
    return news;
  }

  #noteProblem(known: Known | null | undefined): void {
    if (known && known.problem !== '') this.#problemVersion++;
  }

  /** The new state of an object; `null` where it is left out, or cannot be read and was not known. */
  #keep(object: Converted, known: Known | undefined, beginOf: BeginOf): Known | null {
    const { uid, resourceVersion, conversion, writtenMs } = object;
    const base = { uid, resourceVersion, podCidrs: [], endpoints: null, problem: '' };
    if (conversion === 'known') return known ?? null;
    if (conversion === null) return null;
    switch (conversion.outcome) {
      case 'entity': {
        const events = [conversion.event, ...conversion.also].map((event) => {
          const before = known?.events.find((other) => other.type === event.type);
          const fresh = withBegins(before, event, beginOf);
          const kept = before !== undefined && isDeepStrictEqual(before, fresh) ? before : fresh;
          this.#writtenMs.set(kept, writtenMs);
          return kept;
        });
        return { ...base, events, podCidrs: conversion.podCidrs };
      }
      case 'endpoints':
        return { ...base, events: [], endpoints: conversion.endpoints };
      case 'malformed':
        // It keeps what it said before.
        return { ...base, events: [], ...known, uid, resourceVersion, problem: conversion.message };
      case 'ignored':
        return null;
    }
  }

  #end(known: Known, last: Converted, isSame: boolean, { nowMs }: Hearing, news: News[]): void {
    const { conversion } = last;
    const lastEvent =
      isSame && conversion !== null && conversion !== 'known' && conversion.outcome === 'entity'
        ? conversion.event
        : null;
    // Its last state says when its containers ended, where anybody reported that.
    const atMs = lastEvent !== null && isEnded(lastEvent) ? Math.min(nowMs, lastEvent.untilMs) : nowMs;
    for (const event of known.events) news.push({ type: 'gone', key: inventoryKey(event), atMs });
  }

  #compare(
    before: readonly InventoryEvent[],
    after: readonly InventoryEvent[],
    writtenMs: number,
    hearing: Hearing,
    news: News[],
  ): void {
    for (const event of after) {
      const known = before.find((other) => other.type === event.type);
      if (event.type === 'service' || known === event) continue;
      this.#tellChange(known, event, writtenMs, hearing, news);
    }
    for (const event of before) {
      if (after.some((other) => other.type === event.type)) continue;
      news.push({ type: 'gone', key: inventoryKey(event), atMs: hearing.nowMs });
    }
  }

  #tellChange(
    known: InventoryEvent | undefined,
    event: InventoryEvent,
    writtenMs: number,
    { nowMs, seenToMs }: Hearing,
    news: News[],
  ): void {
    const isNoted =
      known === undefined || !isLabelled(known) || !isLabelled(event) || !losesLabels(known, event);
    const changedMs = isNoted ? changeTime(writtenMs, nowMs, seenToMs) : nowMs;
    if (known === undefined || !hasAddresses(known) || !hasAddresses(event)) {
      news.push({ type: 'change', event, atMs: changedMs });
      return;
    }
    const before = openAddresses(known);
    const after = openAddresses(event);
    const isMoved = [...after].some((address) => !before.has(address));
    // First what came, as early as it can have come, then what went, as late as it can have gone.
    if (isMoved && seenToMs > 0) {
      const fresh = event.addresses.filter(({ network, ip }) => !before.has(`${network} ${ip}`));
      const addresses = [...known.addresses, ...fresh];
      const beginMs = Math.min(nowMs, ...fresh.map(({ sinceMs }) => sinceMs));
      news.push({ type: 'change', event: { ...known, addresses }, atMs: beginMs });
    }
    const isLess = [...before].some((address) => !after.has(address));
    news.push({ type: 'change', event, atMs: isLess ? nowMs : changedMs });
  }

  /** What a change of one object means for others: services for their slices, and all for the addresses of nodes. */
  #follow(kind: Kind, object: Converted, known: Known | undefined, hearing: Hearing): News[] {
    const news: News[] = [];
    if (kind === 'Service') this.#tellService(object.ref, object.writtenMs, hearing, news);
    if (kind === 'EndpointSlice') {
      const fresh = this.#known.get(kind)?.get(object.ref);
      const services = new Set([known?.endpoints?.service, fresh?.endpoints?.service]);
      this.#indexSlice(object.ref, known?.endpoints ?? null, fresh?.endpoints ?? null);
      for (const service of services) {
        if (service !== undefined) this.#tellService(service, object.writtenMs, hearing, news);
      }
    }
    if (kind !== 'Node') return news;
    const fresh = this.#known.get(kind)?.get(object.ref);
    // Most words of a node are heartbeats.
    const isSame = fresh?.events[0] === known?.events[0];
    if (isSame && isDeepStrictEqual(fresh?.podCidrs, known?.podCidrs)) return news;
    const before = this.#clusterEvent;
    if (!this.#deriveCluster()) return news;
    if (this.#clusterEvent !== before) {
      news.push({ type: 'change', event: this.#clusterEvent, atMs: hearing.nowMs });
    }
    for (const service of this.#slices.keys()) this.#tellService(service, 0, hearing, news);
    return news;
  }

  #tellService(ref: string, writtenMs: number, hearing: Hearing, news: News[]): void {
    const before = this.#services.get(ref);
    const after = this.#completeService(ref, beginHeard(hearing));
    if (after === undefined || after === before) return;
    const same = before !== undefined && before.uid === after.uid ? before : undefined;
    this.#tellChange(same, after, writtenMs, hearing, news);
  }

  /** The service with what stands behind it; addresses that come begin as `beginOf` sees it. */
  #completeService(ref: string, beginOf: BeginOf): ServiceEvent | undefined {
    const own = this.#known
      .get('Service')
      ?.get(ref)
      ?.events.find((event) => event.type === 'service');
    if (own === undefined) {
      this.#services.delete(ref);
      return undefined;
    }
    const before = this.#services.get(ref);
    const same = before?.uid === own.uid ? before : own;
    const completed = withEndpoints(own, this.#slices.get(ref)?.values() ?? [], this.#others);
    const fresh = completed === own ? own : withBegins(same, completed, beginOf);
    if (before !== undefined && isDeepStrictEqual(before, fresh)) return before;
    this.#services.set(ref, fresh);
    return fresh;
  }

  /** The event as it is told. */
  #told(event: InventoryEvent): InventoryEvent {
    if (event.type !== 'service') return event;
    return this.#services.get(`${event.namespace}/${event.name}`) ?? event;
  }

  #indexSlices(): void {
    this.#slices.clear();
    for (const [ref, { endpoints }] of this.#known.get('EndpointSlice') ?? []) {
      this.#indexSlice(ref, null, endpoints);
    }
  }

  #indexSlice(ref: string, before: ServiceEndpoints | null, after: ServiceEndpoints | null): void {
    if (before !== null) {
      const slices = this.#slices.get(before.service);
      slices?.delete(ref);
      if (slices?.size === 0) this.#slices.delete(before.service);
    }
    // Most slices hold pods only: they need no place here.
    if (after === null || after.service === '' || after.addresses.length === 0) return;
    const slices = this.#slices.get(after.service) ?? new Map<string, ServiceEndpoints>();
    slices.set(ref, after);
    this.#slices.set(after.service, slices);
  }

  #makeCluster(): ClusterEvent {
    const { cluster, podCidrs, serviceCidrs } = this.#options;
    const nodes = [...(this.#known.get('Node')?.values() ?? [])];
    const ofNodes = [...new Set(nodes.flatMap((node) => node.podCidrs))].sort();
    return {
      v: 1,
      type: 'cluster',
      cluster,
      podCidrs: [...(podCidrs.length > 0 ? podCidrs : ofNodes)],
      serviceCidrs: [...serviceCidrs],
      ...(this.#uid === '' ? {} : { uid: this.#uid }),
    };
  }

  /** Derives what follows from all nodes; returns whether anything is different. */
  #deriveCluster(): boolean {
    const event = this.#makeCluster();
    const nodes = [...(this.#known.get('Node')?.values() ?? [])].flatMap(({ events }) =>
      events.filter((one): one is WorkloadEvent => one.type === 'workload'),
    );
    const isSame = isDeepStrictEqual(event, this.#clusterEvent);
    if (!isSame) this.#clusterEvent = event;
    const others = new ClusterAddresses(nodes, event);
    const isOther = !others.equals(this.#others);
    if (isOther) this.#others = others;
    return !isSame || isOther;
  }
}

/**
 * When a change took effect, at the latest: the moment it was heard, unless the server had noted it well before then (a
 * watch that was away); its note is cut to the second. A note of a time up to which all was seen speaks of another change.
 */
export function changeTime(writtenMs: number, nowMs: number, seenToMs: number): number {
  const latestMs = writtenMs + timeStepMs;
  if (writtenMs === 0 || latestMs <= seenToMs || nowMs - writtenMs < 1.5 * timeStepMs) return nowMs;
  return Math.min(nowMs, latestMs);
}
