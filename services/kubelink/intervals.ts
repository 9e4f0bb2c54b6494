/**
 * Merges what a source says now with what was published before: which addresses an entity has or had, and when.
 * A source that does not know when something began says 0.
 */
import type { AddressInterval } from '../../lib/inventory/events.ts';

/** A time in which nobody saw what became of an entity. */
export interface Unseen {
  /** It begins right after the last moment at which all was seen, ms. */
  readonly fromMs: number;
  /** The entity is as it is now since then at the latest, ms. */
  readonly toMs: number;
  /** Whether the entity was changed in that time: if not, what it was before and is now it was throughout. */
  readonly isChanged: boolean;
}

/** Most ended intervals one entity carries; the oldest go first. Their history is in the store. */
export const maxEndedIntervalsPerEntity = 64;

export interface MergeTime {
  /** When the source said it, or since when it says that it is so, ms. */
  readonly atMs: number;
  /** The end of what is no longer so, ms: not after `atMs`; before it where nobody saw what happened between. */
  readonly endMs: number;
  /** The end of labels that are no longer so, ms. */
  readonly labelsMs: number;
  /** Until when the former labels are known to have been so, ms: not after `labelsMs`. */
  readonly labelsKnownToMs: number;
  /** The source is read for the first time ever: what has no begin has been so always. */
  readonly firstReading: boolean;
  /** What was not seen before the source said it; `null` where it sees everything, or only reads it. */
  readonly unseen: Unseen | null;
}

/** The begin of something that is new. */
export function resolveSince(sinceMs: number, time: MergeTime): number {
  return sinceMs === 0 && !time.firstReading ? time.atMs : sinceMs;
}

function sameAddress(a: AddressInterval, b: AddressInterval): boolean {
  return a.ip === b.ip && a.network === b.network;
}

function lastEndOf(address: AddressInterval, intervals: readonly AddressInterval[]): number {
  let lastMs = 0;
  for (const interval of intervals) {
    if (sameAddress(interval, address)) lastMs = Math.max(lastMs, interval.untilMs ?? 0);
  }
  return lastMs;
}

function close(interval: AddressInterval, untilMs: number): AddressInterval {
  if (interval.untilMs !== undefined) return interval;
  return { ...interval, untilMs: Math.max(interval.sinceMs, untilMs) };
}

/**
 * Says of an interval that between `fromMs` and `toMs` somebody else may have had the address. Two intervals where it was
 * certain before.
 */
function withDoubt(interval: AddressInterval, fromMs: number, toMs: number): AddressInterval[] {
  const { sinceMs, untilMs = Number.POSITIVE_INFINITY, certainFromMs = sinceMs } = interval;
  const doubtMs = Math.min(toMs, untilMs);
  if (untilMs <= fromMs || doubtMs <= Math.max(fromMs, certainFromMs)) return [interval];
  if (sinceMs >= fromMs) return [{ ...interval, certainFromMs: doubtMs }];
  return [
    { ...interval, untilMs: fromMs },
    { ...interval, sinceMs: fromMs, certainFromMs: doubtMs },
  ];
}

/**
 * Closes all that is open. An end that was heard is the latest possible, good only with the begin of who came next; in a
 * time that was `unseen` that one may have come and gone without a word, so such an end there is in doubt.
 */
export function closeAll(
  addresses: readonly AddressInterval[],
  untilMs: number,
  unseen: Unseen | null = null,
): AddressInterval[] {
  const closed = addresses.map((interval) => close(interval, untilMs));
  if (unseen === null) return closed;
  return closed.flatMap((interval) => withDoubt(interval, unseen.fromMs, interval.untilMs ?? unseen.toMs));
}

/**
 * The intervals of an entity after an observation. An address that stays keeps its begin; one that is no longer there
 * ends at `endMs`; one that comes while the entity had others begins now, since the source's begin is that of the
 * first. `known` is `null` for an entity never heard of. What was not seen is in doubt: see {@link Unseen}.
 */
export function mergeAddresses(
  known: readonly AddressInterval[] | null,
  observed: readonly AddressInterval[],
  endMs: number,
  time: MergeTime,
): AddressInterval[] {
  const merged = (known ?? []).map((interval) =>
    observed.some((one) => sameAddress(one, interval)) ? interval : close(interval, endMs),
  );
  const hadAddresses = merged.length > 0;
  for (const one of observed) {
    const open = merged.findIndex((other) => other.untilMs === undefined && sameAddress(one, other));
    const interval = merged[open];
    if (interval !== undefined) {
      if (one.untilMs !== undefined) merged[open] = close(interval, one.untilMs);
      continue;
    }
    // The end of an ended interval is known already: it was published when it was noticed.
    if (one.untilMs !== undefined && merged.some((other) => sameAddress(one, other))) continue;
    // A source that tells from when on it is certain knows the earliest begin too.
    const isTold = !hadAddresses || one.certainFromMs !== undefined || time.unseen !== null;
    const toldMs = isTold ? resolveSince(one.sinceMs, time) : time.atMs;
    // What did not stand there when all was seen came after that.
    const beganMs = Math.max(toldMs, time.unseen?.fromMs ?? 0);
    // A change told with a time before the last end of the same address: the two must not overlap.
    const sinceMs = Math.max(beganMs, lastEndOf(one, merged));
    merged.push(
      one.untilMs === undefined
        ? { ...one, sinceMs }
        : { ...one, sinceMs: Math.min(sinceMs, one.untilMs), untilMs: one.untilMs },
    );
  }
  const { unseen } = time;
  if (unseen === null) return merged;
  return merged.flatMap((interval, i) => {
    const isNamed = observed.some(
      (one) => sameAddress(one, interval) && (interval.untilMs === undefined || one.untilMs !== undefined),
    );
    if (!isNamed) return closeAll([interval], endMs, unseen);
    const isNew = i >= (known?.length ?? 0);
    return isNew || unseen.isChanged ? withDoubt(interval, unseen.fromMs, unseen.toMs) : [interval];
  });
}

/** Leaves out what ended before `horizonMs`, and the oldest beyond {@link maxEndedIntervalsPerEntity}. */
export function pruneAddresses(addresses: readonly AddressInterval[], horizonMs: number): AddressInterval[] {
  const ended = addresses
    .filter(({ untilMs }) => untilMs !== undefined && untilMs > horizonMs)
    .sort((a, b) => (b.untilMs ?? 0) - (a.untilMs ?? 0));
  const kept = new Set(ended.slice(0, maxEndedIntervalsPerEntity));
  return addresses.filter((interval) => interval.untilMs === undefined || kept.has(interval));
}
