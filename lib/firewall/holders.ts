/** Who had the addresses of a rule when it was last used, and who has them now. */
import { type AddressSet, addressNumber, addressText } from './addresses.ts';
import type { Owner, Seen } from './tally.ts';

/** An interval of the table `workloads`; times in ms since the epoch. */
export interface Interval {
  readonly workload: string;
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly network: string;
  readonly identity: string;
  readonly fromMs: number;
  /** Exclusive. */
  readonly toMs: number;
}

export interface IdentityInfo {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Somebody who has or had an address. */
export interface Who {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly network: string;
  readonly labels: Readonly<Record<string, string>>;
}

export const holderStates = ['same', 'another-app', 'shared', 'gone', 'outside', 'not-used'] as const;
/**
 * `same`: the app that used the rule last still has the address. `another-app`: another one has it. `shared`: apps had it
 * one after another and used the rule. `gone`: nobody has it. `outside`: it never was a workload's. `not-used`: no flow.
 */
export type HolderState = (typeof holderStates)[number];

export interface Holder {
  readonly end: 'source' | 'destination';
  readonly address: string;
  readonly state: HolderState;
  /** Last matching flow, Unix seconds; `null` for none. */
  readonly lastUsedS: number | null;
  /** Who had it at that flow; without a flow, whoever had it last before now. */
  readonly before: Who | null;
  /** When that one gave it up, ms; `null` while it has it, and where that is not known. */
  readonly beforeUntilMs: number | null;
  readonly now: readonly Who[];
}

/** Ranges of a rule with this many addresses or fewer name hosts; wider ones name networks, whose hosts come and go. */
export const maxNamedAddresses = 64;

/** Addresses that a rule names one by one, as ClickHouse writes them. */
export function namedAddresses(set: AddressSet): string[] {
  return set.flatMap(({ first, last }) => {
    const size = Number(last - first + 1n);
    return size > maxNamedAddresses
      ? []
      : Array.from({ length: size }, (_, i) => storedText(first + BigInt(i)));
  });
}

export function storedText(address: bigint): string {
  const text = addressText(address);
  return text.includes(':') ? text : `::ffff:${text}`;
}

export function shownText(stored: string): string {
  const number = addressNumber(stored);
  return number === null ? stored : addressText(number);
}

export interface Catalogue {
  /** Intervals by address (as stored), in any order. */
  readonly intervals: ReadonlyMap<string, readonly Interval[]>;
  readonly identities: ReadonlyMap<string, IdentityInfo>;
  readonly nowMs: number;
}

const workloadKinds = new Set(['pod', 'vm', 'host', 'node']);

function whoOf(interval: Interval, { identities }: Catalogue): Who {
  const { kind, cluster, namespace, name, network, identity } = interval;
  return { kind, cluster, namespace, name, network, labels: identities.get(identity)?.labels ?? {} };
}

/** What makes two holders one application. */
export function appOf(who: Pick<Who, 'kind' | 'namespace' | 'name' | 'labels'>): string {
  const { app = '' } = who.labels;
  if (app !== '') return `app ${app}`;
  return who.namespace === '' ? `${who.kind} ${who.name}` : `namespace ${who.namespace}`;
}

interface Former {
  readonly who: Who;
  readonly untilMs: number | null;
  /** Whether it came and goes: not a range, a name or the unknown. */
  readonly isWorkload: boolean;
}

function covers({ fromMs, toMs }: Interval, atMs: number): boolean {
  // Times of flows are whole seconds.
  return fromMs < atMs + 1000 && toMs > atMs;
}

/** Intervals of an owner: of a workload all of its own, of others those that held when it was seen. */
function intervalsOf(owner: Owner, intervals: readonly Interval[]): Interval[] {
  const { workload, identity, lastS } = owner;
  if (workload !== '0') return intervals.filter((one) => one.workload === workload);
  // Of an address before NAT, only the time tells whose it was.
  return intervals.filter(
    (one) => covers(one, lastS * 1000) && (identity === '0' || one.identity === identity),
  );
}

function formerOf(owner: Owner, intervals: readonly Interval[], catalogue: Catalogue): Former | null {
  const { nowMs, identities } = catalogue;
  const held = intervalsOf(owner, intervals);
  const interval =
    held.find((one) => covers(one, owner.lastS * 1000)) ?? held.toSorted((a, b) => b.toMs - a.toMs)[0];
  if (interval !== undefined) {
    const labels = identities.get(owner.identity === '0' ? interval.identity : owner.identity)?.labels ?? {};
    const untilMs = interval.toMs > nowMs ? null : interval.toMs;
    return { who: { ...whoOf(interval, catalogue), labels }, untilMs, isWorkload: true };
  }
  const identity = identities.get(owner.identity);
  if (identity === undefined || identity.kind === 'unknown') return null;
  const { kind, cluster, namespace, name, labels } = identity;
  const who = { kind, cluster, namespace, name, network: '', labels };
  return { who, untilMs: null, isWorkload: workloadKinds.has(kind) };
}

/** The last interval that had ended by a moment. */
function lastBefore(intervals: readonly Interval[], atMs: number): Interval | undefined {
  return intervals.filter(({ toMs }) => toMs <= atMs).toSorted((a, b) => b.toMs - a.toMs)[0];
}

function unusedHolder(
  end: Holder['end'],
  address: string,
  intervals: readonly Interval[],
  catalogue: Catalogue,
): Holder {
  const { nowMs } = catalogue;
  const now = intervals.filter(({ fromMs, toMs }) => fromMs <= nowMs && toMs > nowMs);
  const former = now.length > 0 ? undefined : lastBefore(intervals, nowMs);
  return {
    end,
    address: shownText(address),
    state: 'not-used',
    lastUsedS: null,
    before: former === undefined ? null : whoOf(former, catalogue),
    beforeUntilMs: former?.toMs ?? null,
    now: now.map((interval) => whoOf(interval, catalogue)),
  };
}

function stateOf(former: Former | null, now: readonly Who[], formers: readonly Former[]): HolderState {
  if (former === null || !former.isWorkload) return 'outside';
  if (now.length === 0) return 'gone';
  const app = appOf(former.who);
  if (!now.some((who) => appOf(who) === app)) return 'another-app';
  const movable = ({ who }: Former): boolean => who.kind !== 'node' && who.kind !== 'service';
  const shared = formers.some(
    (other) =>
      other.isWorkload &&
      movable(other) &&
      movable(former) &&
      other.who.network === former.who.network &&
      appOf(other.who) !== app,
  );
  return shared ? 'shared' : 'same';
}

/** What became of one address that a rule names. */
export function holderOf(
  end: Holder['end'],
  address: string,
  seen: Seen | undefined,
  catalogue: Catalogue,
): Holder {
  const intervals = catalogue.intervals.get(address) ?? [];
  if (seen === undefined) return unusedHolder(end, address, intervals, catalogue);
  const { nowMs } = catalogue;
  const formers = seen.owners
    .toSorted((a, b) => b.lastS - a.lastS)
    .flatMap((owner) => formerOf(owner, intervals, catalogue) ?? []);
  // Where nobody had it any more when it was last used, the one before counts.
  const newest = formers[0] ?? null;
  const lost = newest?.isWorkload === true ? undefined : lastBefore(intervals, seen.lastS * 1000);
  const former =
    lost === undefined ? newest : { who: whoOf(lost, catalogue), untilMs: lost.toMs, isWorkload: true };
  const now = intervals
    .filter(({ fromMs, toMs, network }) => {
      const sameNetwork = former === null || former.who.network === '' || former.who.network === network;
      return fromMs <= nowMs && toMs > nowMs && sameNetwork;
    })
    .map((interval) => whoOf(interval, catalogue));
  return {
    end,
    address: shownText(address),
    state: stateOf(former, now, formers),
    lastUsedS: seen.lastS,
    before: former?.who ?? null,
    beforeUntilMs: former?.untilMs ?? null,
    now,
  };
}
