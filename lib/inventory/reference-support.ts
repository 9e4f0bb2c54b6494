/**
 * What the time index and the inventory must answer, worked out the obvious way: every event and every interval is looked
 * at for every question. For tests and benches, which hold the real ones against it.
 */
import { parseAddress } from '../net/address.ts';
import type { FormerLabels, InventoryEvent, NamespaceEvent } from './events.ts';
import type { OwnerEvent } from './owners.ts';
import { certaintyCode, forever } from './time-index.ts';

export interface ReferenceInterval {
  /** Network and address. */
  readonly place: string;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly owner: string;
}

export interface ReferenceAnswer {
  readonly certainty: number;
  /** Everybody near. */
  readonly owners: ReadonlySet<string>;
  /** Those of them who are equally likely, and likelier than all others. */
  readonly likeliest: ReadonlySet<string>;
}

/** Weighs the intervals of one place. */
export function weigh(
  intervals: readonly ReferenceInterval[],
  timeMs: number,
  toleranceMs: number,
): ReferenceAnswer {
  const near = intervals.filter(
    ({ sinceMs, untilMs }) => sinceMs <= timeMs + toleranceMs && untilMs > timeMs - toleranceMs,
  );
  const distance = ({ sinceMs, untilMs }: ReferenceInterval): number => {
    if (timeMs < sinceMs) return sinceMs - timeMs;
    return timeMs >= untilMs ? timeMs - untilMs + 1 : 0;
  };
  const owners = new Set(near.map(({ owner }) => owner));
  const leastMs = Math.min(...near.map(distance));
  const nearest = near.filter((interval) => distance(interval) === leastMs);
  const latestMs = Math.max(...nearest.map(({ sinceMs }) => sinceMs));
  const likeliest = new Set(nearest.filter(({ sinceMs }) => sinceMs === latestMs).map(({ owner }) => owner));
  let certainty: number = certaintyCode.none;
  if (owners.size > 1) certainty = certaintyCode.ambiguous;
  else if (owners.size === 1) certainty = leastMs === 0 ? certaintyCode.exact : certaintyCode.grace;
  return { certainty, owners, likeliest };
}

/** The time index with its bounds: keeps all that it was told and works out at each question what has to be forgotten. */
export class ReferenceIndex {
  readonly #max: number;
  readonly #places = new Map<string, ReferencePlace>();
  #floorMs = Number.NEGATIVE_INFINITY;

  constructor(maxIntervalsPerAddress: number) {
    this.#max = maxIntervalsPerAddress;
  }

  add(interval: ReferenceInterval): void {
    const place = this.#places.get(interval.place) ?? {
      kept: [],
      forgottenUntilMs: Number.NEGATIVE_INFINITY,
      lasting: [],
    };
    if (interval.untilMs <= this.#floorMs || interval.untilMs <= place.forgottenUntilMs) return;
    this.#places.set(interval.place, place);
    place.kept.push(interval);
    if (place.kept.length <= this.#max) return;
    // Ended first, of those begun first, of those the one that is known longest.
    const first = place.kept.reduce((a, b) =>
      b.untilMs < a.untilMs || (b.untilMs === a.untilMs && b.sinceMs < a.sinceMs) ? b : a,
    );
    place.kept.splice(place.kept.indexOf(first), 1);
    if (first.untilMs === forever) place.lasting.push(first);
    else place.forgottenUntilMs = Math.max(place.forgottenUntilMs, first.untilMs);
  }

  remove(interval: ReferenceInterval): void {
    const place = this.#places.get(interval.place);
    if (place === undefined) return;
    const isIt = (other: ReferenceInterval): boolean =>
      other.owner === interval.owner &&
      other.sinceMs === interval.sinceMs &&
      other.untilMs === interval.untilMs;
    const at = place.kept.findIndex(isIt);
    if (at >= 0) place.kept.splice(at, 1);
    // Which of those that last was forgotten is not known; only how many.
    else if (interval.untilMs === forever) place.lasting.pop();
    if (place.kept.length === 0 && place.lasting.length === 0) this.#places.delete(interval.place);
  }

  /** Forgets what ended, all at once. */
  evictBefore(beforeMs: number): void {
    this.#floorMs = Math.max(this.#floorMs, beforeMs);
    for (const [name, place] of this.#places) {
      place.kept = place.kept.filter(({ untilMs }) => untilMs > this.#floorMs);
      if (place.lasting.length === 0 && place.forgottenUntilMs <= this.#floorMs)
        place.forgottenUntilMs = Number.NEGATIVE_INFINITY;
      if (place.kept.length === 0 && place.lasting.length === 0) this.#places.delete(name);
    }
  }

  get intervalCount(): number {
    return [...this.#places.values()].reduce((sum, { kept }) => sum + kept.length, 0);
  }

  get addressCount(): number {
    return this.#places.size;
  }

  find(place: string, timeMs: number, toleranceMs: number): ReferenceAnswer {
    const { kept, forgottenUntilMs, lasting } = this.#places.get(place) ?? nothing;
    const answer = weigh(kept, timeMs, toleranceMs);
    const fromMs = timeMs - toleranceMs;
    const isBlurred = fromMs < this.#floorMs || fromMs < forgottenUntilMs || lasting.length > 0;
    return answer.owners.size > 0 && isBlurred ? { ...answer, certainty: certaintyCode.ambiguous } : answer;
  }
}

interface ReferencePlace {
  kept: ReferenceInterval[];
  forgottenUntilMs: number;
  lasting: ReferenceInterval[];
}

const nothing: ReferencePlace = { kept: [], forgottenUntilMs: Number.NEGATIVE_INFINITY, lasting: [] };

/** What a set of labels depends on. */
export interface ReferenceLabels {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly namespaceLabels: Readonly<Record<string, string>>;
}

function inForce<T>(
  former: readonly (T & { readonly untilMs: number })[] | undefined,
  now: T,
  timeMs: number,
): T {
  const ended = [...(former ?? [])].sort((a, b) => a.untilMs - b.untilMs);
  return ended.find(({ untilMs }) => timeMs < untilMs) ?? now;
}

/** The inventory without bounds: the newest event of each key. */
export class ReferenceInventory {
  readonly #events = new Map<string, InventoryEvent>();

  apply(key: string, event: InventoryEvent | null): void {
    if (event === null) this.#events.delete(key);
    else this.#events.set(key, event);
  }

  /** Who had the address, by key. */
  find(network: string, ip: string, timeMs: number, toleranceMs: number): ReferenceAnswer {
    const asked = parseAddress(ip)?.join('.');
    const intervals: ReferenceInterval[] = [];
    for (const [owner, event] of this.#events) {
      if (event.type !== 'workload' && event.type !== 'service' && event.type !== 'name') continue;
      if (event.type === 'workload' && event.hostNetwork) continue;
      for (const address of event.addresses) {
        if (address.network !== network || parseAddress(address.ip)?.join('.') !== asked) continue;
        const { untilMs = forever } = address;
        intervals.push({ place: '', sinceMs: Math.min(address.sinceMs, untilMs), untilMs, owner });
      }
    }
    return weigh(intervals, timeMs, toleranceMs);
  }

  /** What the labels of an owner were made of at a time. */
  labelsAt(key: string, timeMs: number): ReferenceLabels | null {
    const event = this.#events.get(key);
    if (event?.type !== 'workload' && event?.type !== 'service') return null;
    const namespace = this.#events.get(`namespace/${event.cluster}/${event.namespace}`);
    const { labels, annotations } = inForce<Omit<FormerLabels, 'untilMs'>>(event.former, event, timeMs);
    const around = namespace?.type === 'namespace' ? namespace : undefined;
    return {
      labels,
      annotations,
      // Before it was there its namespace did not matter.
      namespaceLabels: this.#namespaceLabels(around, Math.max(timeMs, event.sinceMs)),
    };
  }

  #namespaceLabels(namespace: NamespaceEvent | undefined, timeMs: number): ReferenceLabels['labels'] {
    if (namespace === undefined) return {};
    return inForce<Omit<FormerLabels, 'untilMs'>>(namespace.former, namespace, timeMs).labels;
  }

  event(key: string): OwnerEvent | undefined {
    const event = this.#events.get(key);
    return event?.type === 'workload' || event?.type === 'service' || event?.type === 'name'
      ? event
      : undefined;
  }
}
