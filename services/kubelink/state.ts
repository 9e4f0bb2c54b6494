/**
 * What is known of the inventory, by entity and owner, and what has to be published when a source says something.
 * Pure: no clock, no bus; times come in as arguments.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  type AddressInterval,
  type ClusterEvent,
  type InventoryEvent,
  inventoryKey,
  type NameEvent,
  type NetworkPolicyEvent,
  type ServiceEvent,
  type WorkloadEvent,
} from '../../lib/inventory/events.ts';
import { formerLabels, type LabelledEvent, losesLabels } from './former.ts';
import {
  closeAll,
  type MergeTime,
  mergeAddresses,
  pruneAddresses,
  resolveSince,
  type Unseen,
} from './intervals.ts';

/** One message for the topic. */
export interface Publication {
  readonly key: string;
  /** `null` is a tombstone. */
  readonly event: InventoryEvent | null;
  /** The source that owns the entity. */
  readonly source: string;
  /** When it ended, ms; `null` while it lives. */
  readonly endedMs: number | null;
}

/** Two sources speak of one entity. */
export interface Contested {
  readonly key: string;
  readonly owner: string;
  /** The one that was not heard. */
  readonly source: string;
}

/** Contested entities that are remembered by name between two looks at them. */
const maxContestedKept = 100;

interface Entity {
  readonly source: string;
  readonly event: InventoryEvent;
  readonly endedMs: number | null;
  /** What the source said last, to see by reference that nothing changed; `null` when it has not spoken of it yet. */
  readonly observed: InventoryEvent | null;
}

export interface InventoryStateOptions {
  /** Names of the sources that run here and now: what they own nobody else may take. */
  readonly activeSources: ReadonlySet<string>;
  readonly endedRetentionMs: number;
}

export class InventoryState {
  readonly #options: InventoryStateOptions;
  readonly #entities = new Map<string, Entity>();
  /** Sources of which something was heard, now or before the last restart. */
  readonly #heardOf = new Set<string>();
  #contestedCount = 0;
  #contested = new Map<string, Contested>();

  constructor(options: InventoryStateOptions) {
    this.#options = options;
  }

  /** How often a source spoke of an entity that another source owns; it was not heard. */
  get contestedCount(): number {
    return this.#contestedCount;
  }

  /** Entities that were spoken of by a source that does not own them, since the last call; bounded in number. */
  takeContested(): Contested[] {
    const contested = [...this.#contested.values()];
    this.#contested = new Map();
    return contested;
  }

  /** Takes over what was published before a restart. A tombstone forgets. */
  restore(publication: Publication): void {
    const { key, event, source, endedMs } = publication;
    if (event === null) {
      this.#entities.delete(key);
      return;
    }
    this.#heardOf.add(source);
    this.#entities.set(key, { source, event, endedMs, observed: null });
  }

  /** Takes over what now stands on the topic of one source, in place of what was known of it: another process spoke. */
  replace(source: string, publications: Iterable<Publication>): void {
    for (const [key, entity] of this.#entities) if (entity.source === source) this.#entities.delete(key);
    for (const publication of publications) {
      const known = this.#entities.get(publication.key);
      if (known === undefined || this.#mayTake(known, source)) this.restore(publication);
    }
  }

  /** What is known of one entity, or `null`. */
  find(key: string): Publication | null {
    const entity = this.#entities.get(key);
    if (entity === undefined) return null;
    const { event, source, endedMs } = entity;
    return { key, event, source, endedMs };
  }

  /** Every entity: live ones and those that ended and wait for their tombstone. */
  *entities(): IterableIterator<Publication> {
    for (const [key, { event, source, endedMs }] of this.#entities) yield { key, event, source, endedMs };
  }

  /**
   * The source has said everything: what it owns and did not name has ended, right after `seenToMs` where that is given.
   * Of two events with one key the last counts. `changedMs` says since when an entity is as it is now. A source that gives
   * it hears of changes: what was told after `seenToMs` was the latest possible end or the earliest possible begin, good
   * only together with what the source would have said next, so it is in doubt.
   */
  snapshot(
    source: string,
    events: readonly InventoryEvent[],
    atMs: number,
    seenToMs?: number,
    changedMs?: (event: InventoryEvent) => number | null,
  ): Publication[] {
    const firstReading = !this.#heardOf.has(source);
    const hasUnseen = changedMs !== undefined && !firstReading;
    const endMs = seenToMs || hasUnseen ? Math.min(atMs, (seenToMs ?? 0) + 1) : atMs;
    const unseenUntil = (writtenMs: number | null): Unseen => {
      const isChanged = writtenMs === null || writtenMs > endMs;
      return { fromMs: endMs, toMs: isChanged ? Math.min(writtenMs ?? atMs, atMs) : atMs, isChanged };
    };
    this.#heardOf.add(source);
    const named = new Map(events.map((event) => [inventoryKey(event), event]));
    const out: Publication[] = [];
    for (const [key, entity] of this.#entities) {
      if (entity.source !== source || named.has(key)) continue;
      this.#end(key, entity, endMs, out, hasUnseen ? unseenUntil(null) : null);
    }
    for (const [key, event] of named) {
      const unseen = hasUnseen ? unseenUntil(changedMs(event)) : null;
      const labels = { labelsMs: unseen?.toMs ?? atMs, labelsKnownToMs: endMs };
      this.#observe(source, key, event, { atMs, endMs, ...labels, firstReading, unseen }, out);
    }
    return out;
  }

  /**
   * The source has said something new about one entity: it is so since `sinceMs` where that is known, else since now. What
   * was before is known to have been so until `seenToMs`, where that is given.
   */
  change(
    source: string,
    event: InventoryEvent,
    atMs: number,
    sinceMs?: number,
    seenToMs?: number,
  ): Publication[] {
    const out: Publication[] = [];
    const changeMs = Math.min(atMs, sinceMs ?? atMs);
    const time = {
      atMs: changeMs,
      endMs: changeMs,
      labelsMs: changeMs,
      labelsKnownToMs: Math.min(changeMs, seenToMs ?? changeMs),
      firstReading: false,
      unseen: null,
    };
    this.#observe(source, inventoryKey(event), event, time, out);
    return out;
  }

  /** The source has said that an entity is no more. */
  gone(source: string, key: string, atMs: number): Publication[] {
    const out: Publication[] = [];
    const entity = this.#entities.get(key);
    if (entity?.source === source) this.#end(key, entity, atMs, out);
    return out;
  }

  /** Tombstones for what ended longer ago than the retention. */
  expire(nowMs: number): Publication[] {
    const out: Publication[] = [];
    for (const [key, { source, endedMs }] of this.#entities) {
      if (endedMs === null || !this.#isExpired(endedMs, nowMs)) continue;
      this.#entities.delete(key);
      out.push({ key, event: null, source, endedMs });
    }
    return out;
  }

  #isExpired(endedMs: number, nowMs: number): boolean {
    return endedMs + this.#options.endedRetentionMs <= nowMs;
  }

  #mayTake(entity: Entity, source: string): boolean {
    return (
      entity.source === source || entity.endedMs !== null || !this.#options.activeSources.has(entity.source)
    );
  }

  #observe(source: string, key: string, observed: InventoryEvent, time: MergeTime, out: Publication[]): void {
    const known = this.#entities.get(key);
    if (known !== undefined && !this.#mayTake(known, source)) {
      this.#contestedCount++;
      if (this.#contested.size < maxContestedKept)
        this.#contested.set(key, { key, owner: known.source, source });
      return;
    }
    // Source files are read again only when they change: the same object says nothing new.
    if (known?.observed === observed && known.source === source && time.unseen === null) return;
    const observedEndMs = endOf(observed);
    if (known === undefined && observedEndMs !== null && this.#isExpired(observedEndMs, time.atMs)) return;
    const horizonMs = time.atMs - this.#options.endedRetentionMs;
    const event = merge(known?.event ?? null, observed, time, horizonMs);
    const endedMs = endOf(event);
    const isNews =
      known === undefined ||
      known.source !== source ||
      known.endedMs !== endedMs ||
      !isDeepStrictEqual(known.event, event);
    const kept = isNews ? pruned(event, horizonMs) : known.event;
    this.#entities.set(key, { source, event: kept, endedMs, observed });
    if (isNews) out.push({ key, event: kept, source, endedMs });
  }

  #end(key: string, entity: Entity, atMs: number, out: Publication[], unseen: Unseen | null = null): void {
    const { source, event } = entity;
    if (entity.endedMs !== null) {
      const doubtful = unseen === null ? event : withDoubtfulEnds(event, unseen);
      if (doubtful !== event) out.push({ key, event: doubtful, source, endedMs: entity.endedMs });
      // It ended before it left the source; should it come back, the source has to be heard again.
      this.#entities.set(key, { ...entity, event: doubtful, observed: null });
      return;
    }
    // A range or a listed name has no time of its own: its name must not be given to anything from now on.
    if (event.type === 'range' || event.type === 'name') {
      this.#entities.delete(key);
      out.push({ key, event: null, source, endedMs: atMs });
      return;
    }
    const ended = ending(event, atMs, unseen);
    const endedMs = endOf(ended) ?? atMs;
    this.#entities.set(key, { source, event: ended, endedMs, observed: null });
    out.push({ key, event: ended, source, endedMs });
  }
}

/** Events that name their begin and end. */
type TimedEvent = WorkloadEvent | ServiceEvent | NetworkPolicyEvent;
/** Events with addresses that come and go. */
type AddressedEvent = WorkloadEvent | ServiceEvent | NameEvent;

function isTimed(event: InventoryEvent): event is TimedEvent {
  return event.type === 'workload' || event.type === 'service' || event.type === 'network-policy';
}

function hasAddresses(event: InventoryEvent): event is AddressedEvent {
  return event.type === 'workload' || event.type === 'service' || event.type === 'name';
}

/** The end an event itself names, ms. */
export function endOf(event: InventoryEvent): number | null {
  return isTimed(event) ? (event.untilMs ?? null) : null;
}

function ending(event: InventoryEvent, atMs: number, unseen: Unseen | null): InventoryEvent {
  if (!isTimed(event)) return event;
  const untilMs = Math.max(event.sinceMs, atMs);
  if (event.type === 'network-policy') return { ...event, untilMs };
  return { ...event, addresses: closeAll(event.addresses, atMs, unseen), untilMs };
}

/** What ended already, with ends in doubt that fall into a time that was not seen; the same event where none does. */
function withDoubtfulEnds(event: InventoryEvent, unseen: Unseen): InventoryEvent {
  if (!hasAddresses(event)) return event;
  const isCertainThen = ({ sinceMs, untilMs = 0, certainFromMs = sinceMs }: AddressInterval): boolean =>
    untilMs > Math.max(unseen.fromMs, certainFromMs);
  if (!event.addresses.some(isCertainThen)) return event;
  return { ...event, addresses: closeAll(event.addresses, unseen.fromMs, unseen) };
}

function pruned(event: InventoryEvent, horizonMs: number): InventoryEvent {
  // An ended entity is kept whole: its addresses go with it.
  if (!hasAddresses(event) || endOf(event) !== null) return event;
  return { ...event, addresses: pruneAddresses(event.addresses, horizonMs) };
}

function mergeTimes<E extends TimedEvent>(known: E | null, observed: E, time: MergeTime): E {
  // Where the source goes on saying that it has ended, the end that was known first stays.
  const untilMs = observed.untilMs === undefined ? undefined : (known?.untilMs ?? observed.untilMs);
  const sinceMs = known?.sinceMs ?? resolveSince(observed.sinceMs, time);
  if (untilMs === undefined) return { ...observed, sinceMs };
  return { ...observed, sinceMs: Math.min(sinceMs, untilMs), untilMs };
}

function withAddresses<E extends AddressedEvent>(known: E | null, event: E, time: MergeTime): E {
  const endMs = endOf(event) ?? time.endMs;
  return { ...event, addresses: mergeAddresses(known?.addresses ?? null, event.addresses, endMs, time) };
}

/** Remembers the labels it had. */
function withFormer<E extends LabelledEvent>(
  known: E | null,
  event: E,
  time: MergeTime,
  horizonMs: number,
): E {
  const isUnnoted = time.unseen !== null && known !== null && losesLabels(known, event);
  const labelsMs = isUnnoted ? time.atMs : time.labelsMs;
  const former = formerLabels(known, event, labelsMs, time.labelsKnownToMs, horizonMs);
  return former.length === 0 ? event : { ...event, former };
}

/** The id of a cluster stays known when a source speaks that cannot tell it. */
function mergeCluster(known: ClusterEvent | null, observed: ClusterEvent): ClusterEvent {
  if (known?.uid === undefined || observed.uid !== undefined) return observed;
  return { ...observed, uid: known.uid };
}

function merge(
  known: InventoryEvent | null,
  observed: InventoryEvent,
  time: MergeTime,
  horizonMs: number,
): InventoryEvent {
  switch (observed.type) {
    case 'workload': {
      const before = known?.type === 'workload' ? known : null;
      const event = withAddresses(before, mergeTimes(before, observed, time), time);
      return withFormer(before, event, time, horizonMs);
    }
    case 'service': {
      const before = known?.type === 'service' ? known : null;
      const event = withAddresses(before, mergeTimes(before, observed, time), time);
      return withFormer(before, event, time, horizonMs);
    }
    case 'namespace':
      return withFormer(known?.type === 'namespace' ? known : null, observed, time, horizonMs);
    case 'network-policy':
      return mergeTimes(known?.type === 'network-policy' ? known : null, observed, time);
    case 'name':
      return withAddresses(known?.type === 'name' ? known : null, observed, time);
    case 'cluster':
      return mergeCluster(known?.type === 'cluster' ? known : null, observed);
    case 'range':
    case 'watermark':
      return observed;
  }
}
