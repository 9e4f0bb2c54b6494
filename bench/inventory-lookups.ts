/** Lookups in the time index against a Map of arrays, which gives the same answers. */
import { certaintyCode, forever, TimeIndex } from '../lib/inventory/time-index.ts';
import { medianSeconds, mustEqual } from './report.ts';

const intervalsPerAddress = 10;
/** How long each had an address, and how long it was nobody's then, ms. */
const tenureMs = 3_600_000;
const gapMs = 2_000;
const toleranceMs = 250;
const lookupCount = 1 << 20;
const rounds = 5;

interface Interval {
  readonly since: number;
  readonly until: number;
  readonly owner: number;
}

export interface LookupResult {
  readonly indexPerSecond: number;
  readonly mapPerSecond: number;
  readonly indexSkewedPerSecond: number;
  readonly mapSkewedPerSecond: number;
  readonly indexBytesPerInterval: number;
  readonly mapBytesPerInterval: number;
}

function addressOf(i: number): number {
  return Math.imul(i + 1, 2654435761) >>> 0;
}

function textOf(address: number): string {
  return `east|${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** What each question asks for: addresses in no order, or most of them often; half of it now, half at some time. */
function questions(count: number, isSkewed: boolean): { which: Uint32Array; times: Float64Array } {
  let state = 12345;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const which = new Uint32Array(lookupCount);
  const times = new Float64Array(lookupCount);
  const span = intervalsPerAddress * (tenureMs + gapMs);
  for (let i = 0; i < lookupCount; i++) {
    which[i] = Math.floor((isSkewed ? random() ** 8 : random()) * count);
    // Flows are of now; a late one in twenty is of some time before.
    times[i] = i % 20 === 0 ? random() * span : span - gapMs - random() * 60_000;
  }
  return { which, times };
}

/** The plain way: the intervals of an address, newest first, as objects. */
function findPlainly(
  intervals: readonly Interval[] | undefined,
  timeMs: number,
): { owner: number; certainty: number } {
  let found: Interval | undefined;
  let distance = forever;
  let certainty: number = certaintyCode.none;
  for (const interval of intervals ?? []) {
    if (interval.since > timeMs + toleranceMs || interval.until <= timeMs - toleranceMs) continue;
    const away =
      timeMs < interval.since
        ? interval.since - timeMs
        : timeMs >= interval.until
          ? timeMs - interval.until + 1
          : 0;
    if (found !== undefined && found.owner !== interval.owner) certainty = certaintyCode.ambiguous;
    if (away < distance) {
      if (certainty !== certaintyCode.ambiguous)
        certainty = away === 0 ? certaintyCode.exact : certaintyCode.grace;
      found = interval;
      distance = away;
    }
  }
  return { owner: found?.owner ?? -1, certainty };
}

async function measure(
  index: TimeIndex,
  map: ReadonlyMap<string, readonly Interval[]>,
  addresses: number,
  isSkewed: boolean,
): Promise<{ index: number; map: number }> {
  const { which, times } = questions(addresses, isSkewed);
  const words = new Uint32Array(lookupCount * 4);
  for (let i = 0; i < lookupCount; i++) {
    words[i * 4 + 2] = 0xffff0000;
    words[i * 4 + 3] = addressOf(which[i]!);
  }
  let found = 0;
  const indexSeconds = await medianSeconds(rounds, () => {
    found = 0;
    for (let i = 0; i < lookupCount; i++) {
      index.find(1, words, i * 4, times[i]!, toleranceMs);
      found += index.foundOwner * 8 + index.foundCertainty;
    }
  });
  // A flow's address comes as bytes: its text is made for each, as pipelines on objects do, but not counted.
  const texts = Array.from(which, (address) => textOf(addressOf(address)));
  let foundPlainly = 0;
  const mapSeconds = await medianSeconds(rounds, () => {
    foundPlainly = 0;
    for (let i = 0; i < lookupCount; i++) {
      const { owner, certainty } = findPlainly(map.get(texts[i]!), times[i]!);
      foundPlainly += owner * 8 + certainty;
    }
  });
  mustEqual('answers', found, foundPlainly);
  return { index: lookupCount / indexSeconds, map: lookupCount / mapSeconds };
}

export async function benchLookups(addresses: number): Promise<LookupResult> {
  const index = new TimeIndex({ maxIntervalsPerAddress: 64 });
  const words = Uint32Array.of(0, 0, 0xffff0000, 0);
  const intervalAt = (address: number, i: number): Interval => {
    const since = i * (tenureMs + gapMs);
    const isLast = i === intervalsPerAddress - 1;
    return {
      since,
      until: isLast ? forever : since + tenureMs,
      owner: (address + i * 7919) % (addresses * 4),
    };
  };
  // Round by round over all addresses: that is how they are reused.
  for (let i = 0; i < intervalsPerAddress; i++) {
    for (let address = 0; address < addresses; address++) {
      const { since, until, owner } = intervalAt(address, i);
      words[3] = addressOf(address);
      index.add(1, words, 0, since, until, owner);
    }
  }
  const heapBefore = heapBytes();
  const map = new Map<string, Interval[]>();
  for (let address = 0; address < addresses; address++) {
    const intervals: Interval[] = [];
    for (let i = intervalsPerAddress - 1; i >= 0; i--) intervals.push(intervalAt(address, i));
    map.set(textOf(addressOf(address)), intervals);
  }
  const mapBytes = heapBytes() - heapBefore;
  const random = await measure(index, map, addresses, false);
  const skewed = await measure(index, map, addresses, true);
  const intervals = addresses * intervalsPerAddress;
  mustEqual('intervals', index.intervalCount, intervals);
  return {
    indexPerSecond: random.index,
    mapPerSecond: random.map,
    indexSkewedPerSecond: skewed.index,
    mapSkewedPerSecond: skewed.map,
    indexBytesPerInterval: index.byteLength / intervals,
    mapBytesPerInterval: mapBytes / intervals,
  };
}

/** Bytes of the heap in use, after a collection where the process may ask for one. */
function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}
