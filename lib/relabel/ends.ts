/** Which identity an end of a stored flow has under other profiles: that of its workload, by the labels of that time. */
import type { IdentityContent } from '../inventory/ids.ts';
import type { Inventory, Owner } from '../inventory/inventory.ts';

/** An end as it is stored. */
export interface StoredEnd {
  /** `workloads.id`, or 0. */
  readonly workload: bigint;
  /** `identities.id`. */
  readonly identity: bigint;
}

/** A name for an end, for flows from `sinceS` (seconds since the epoch) on. */
export interface NamedFrom {
  readonly sinceS: number;
  /** Index into the identities of the inventory. */
  readonly index: number;
  readonly id: bigint;
}

/** In which seconds rows of one end were stored with which identity. */
export type Sightings = ReadonlyMap<bigint, readonly number[]>;

const noSightings: Sightings = new Map();

export interface NamedEnd {
  /** Never empty; the first one is from 0 on. */
  readonly periods: readonly NamedFrom[];
  /** False where the inventory has nothing about it any more, so that it keeps its labels. */
  readonly known: boolean;
}

function placeKey(cluster: string, namespace: string, name: string): string {
  return `${cluster}/${namespace}/${name}`;
}

export class EndNamer {
  readonly #inventory: Inventory;
  readonly #byId = new Map<bigint, Owner>();
  /** Services of one name, oldest first. */
  readonly #services = new Map<string, Owner[]>();
  /** Contents of stored identities, as indexes into the identities of the inventory. */
  readonly #stored = new Map<bigint, number>();

  constructor(inventory: Inventory) {
    this.#inventory = inventory;
    for (const owner of inventory.owners) {
      if (owner === undefined) continue;
      if (owner.id !== 0n) this.#byId.set(owner.id, owner);
      if (owner.kind !== 'service') continue;
      const key = placeKey(owner.cluster, owner.namespace?.name ?? '', owner.name);
      const others = this.#services.get(key) ?? [];
      others.push(owner);
      this.#services.set(
        key,
        others.sort((a, b) => a.sinceMs - b.sinceMs),
      );
    }
    for (const { id, index } of inventory.identities.list) this.#stored.set(id, index);
  }

  /** Whether what a stored identity is made of is known. */
  knows(identity: bigint): boolean {
    return this.#stored.has(identity);
  }

  /** Tells what a stored identity is made of. */
  learn(identity: bigint, content: IdentityContent): void {
    this.#stored.set(identity, this.#inventory.identities.intern(content).index);
  }

  /** Index of an identity that was stored or given, for its verdict. What nobody knows the content of is unknown. */
  indexOf(identity: bigint): number {
    return this.#stored.get(identity) ?? 0;
  }

  /**
   * What of an end stays the same when its labels change: the workload, or the place and name of a service. Null where its
   * labels never change within a second of `from` up to `to` (seconds): then rows leave no doubt.
   */
  doubtful(end: StoredEnd, from: number, to: number): string | null {
    const owners = this.#ownersOf(end, this.indexOf(end.identity)) ?? [];
    const isDoubtful = owners.some(({ index }) =>
      this.#inventory
        .identityPeriods(index)
        .some(({ untilMs }) => untilMs >= from * 1000 && untilMs < to * 1000 && untilMs % 1000 !== 0),
    );
    return isDoubtful ? this.subjectOf(end) : null;
  }

  /** See {@link doubtful}. */
  subjectOf({ workload, identity }: StoredEnd): string {
    if (workload !== 0n) return String(workload);
    const content = this.#inventory.identities.list[this.indexOf(identity)];
    return placeKey(content?.cluster ?? '', content?.namespace ?? '', content?.name ?? '');
  }

  /** The end's names in time, for whole seconds as rows keep them. */
  name(end: StoredEnd, sightings: Sightings = noSightings): NamedEnd {
    const index = this.indexOf(end.identity);
    const kept: NamedFrom = { sinceS: 0, index, id: end.identity };
    const owners = this.#ownersOf(end, index);
    if (owners === null) return { periods: [kept], known: true };
    if (owners.length === 0) return { periods: [kept], known: false };
    const periods: NamedFrom[] = [];
    owners.forEach((owner, i) => {
      const from = i === 0 ? 0 : Math.floor(owner.sinceMs / 1000);
      this.#periodsOf(owner, end.identity, sightings).forEach((period, k) => {
        if (k === 0) periods.push({ ...period, sinceS: from });
        else if (period.sinceS > from) periods.push(period);
      });
    });
    return { periods: ordered(periods), known: true };
  }

  /** The end's name at a moment, ms since the epoch. */
  at(end: StoredEnd, timeMs: number): NamedFrom {
    const index = this.indexOf(end.identity);
    const owners = this.#ownersOf(end, index) ?? [];
    const owner = owners.findLast(({ sinceMs }) => sinceMs <= timeMs) ?? owners[0];
    if (owner === undefined) return { sinceS: 0, index, id: end.identity };
    return this.#named(this.#inventory.identityAt(owner.index, timeMs), 0);
  }

  /** Who the end is, one after the other; empty where that is gone, null where profiles have no say. */
  #ownersOf(end: StoredEnd, index: number): readonly Owner[] | null {
    if (end.workload !== 0n) {
      const owner = this.#byId.get(end.workload);
      return owner === undefined ? [] : [owner];
    }
    const content = this.#inventory.identities.list[index];
    if (content?.kind !== 'service') return null;
    return this.#services.get(placeKey(content.cluster, content.namespace, content.name)) ?? [];
  }

  #named(index: number, sinceS: number): NamedFrom {
    const id = this.#inventory.identities.list[index]?.id ?? 0n;
    this.#stored.set(id, index);
    return { sinceS, index, id };
  }

  #labelsOf(index: number): Labels {
    return this.#inventory.identities.list[index]?.labels ?? {};
  }

  #periodsOf(owner: Owner, stored: bigint, sightings: Sightings): NamedFrom[] {
    const periods = this.#inventory.identityPeriods(owner.index);
    const named = periods.map(({ untilMs, identity }, i): NamedFrom => {
      const fromMs = periods[i - 1]?.untilMs ?? 0;
      const period = this.#named(identity, Math.ceil(fromMs / 1000));
      const before = periods[i - 1];
      if (before === undefined || fromMs % 1000 === 0) return period;
      const isLater = belongsToLater(stored, sightings, {
        fromS: Math.ceil((periods[i - 2]?.untilMs ?? 0) / 1000),
        changeMs: fromMs,
        untilS: Math.floor(untilMs / 1000),
        stored: this.#labelsOf(this.indexOf(stored)),
        earlier: this.#labelsOf(before.identity),
        later: this.#labelsOf(identity),
      });
      return isLater ? { ...period, sinceS: Math.floor(fromMs / 1000) } : period;
    });
    // Of several changes in one second, none begins after a later one.
    let sinceS = Number.POSITIVE_INFINITY;
    return named
      .reverse()
      .map((period) => {
        sinceS = Math.min(sinceS, period.sinceS);
        return { ...period, sinceS };
      })
      .reverse();
  }
}

interface Change {
  readonly fromS: number;
  readonly changeMs: number;
  readonly untilS: number;
  /** Labels of what was stored, and those before and after the change by the present profiles. */
  readonly stored: Labels;
  readonly earlier: Labels;
  readonly later: Labels;
}

type Labels = Readonly<Record<string, string>>;

function agreement(a: Labels, b: Labels): number {
  return Object.entries(a).filter(([key, value]) => b[key] === value).length;
}

/**
 * Whether a row in the second of a change, stored as `stored`, began after the change. Rows know whole seconds only; but
 * what rows of the same end before and after that second were called tells which of them it is one of. Without such rows
 * its labels tell: they are more like those of its own time.
 */
function belongsToLater(stored: bigint, sightings: Sightings, change: Change): boolean {
  const second = Math.floor(change.changeMs / 1000);
  const isBefore = (one: number): boolean => one >= change.fromS && one < second;
  const isAfter = (one: number): boolean => one > second && one < change.untilS;
  const own = sightings.get(stored) ?? [];
  const [ownBefore, ownAfter] = [own.some(isBefore), own.some(isAfter)];
  if (ownBefore !== ownAfter) return ownAfter;
  const [earlier, later] = [agreement(change.stored, change.earlier), agreement(change.stored, change.later)];
  if (earlier !== later) return later > earlier;
  return change.changeMs % 1000 < 500;
}

/** In order of time; of several from one second the last, and none that says the same as the one before. */
function ordered(periods: readonly NamedFrom[]): NamedFrom[] {
  const bySecond = new Map<number, NamedFrom>();
  for (const period of periods) bySecond.set(period.sinceS, period);
  const sorted = [...bySecond.values()].sort((a, b) => a.sinceS - b.sinceS);
  return sorted.filter((period, i) => i === 0 || sorted[i - 1]?.id !== period.id);
}
