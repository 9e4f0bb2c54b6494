/**
 * Who had an address at a time: (network, address) -> intervals -> owner, in flat typed arrays.
 * Owners are small numbers that the caller gives a meaning. Intervals are half-open [since, until), ms since the epoch.
 *
 * The intervals of an address lie side by side, those that end last first: most questions are answered by the first or
 * second of them, and whatever ended before the time asked for ends the search.
 */
import {
  AddressTable,
  hashKey,
  homeOf,
  isMappedWords,
  restCount,
  restRun,
  type SlotArrays,
  slotOwner,
  slotShift,
  slotSure,
  stepSlots,
} from './address-table.ts';
import { pageRecords, RunPool } from './runs.ts';

/** How sure an answer is; the codes are those of `certainties` in `schemas/closed-lists.ts`. */
export const certaintyCode = { none: 0, exact: 1, grace: 2, late: 3, ambiguous: 4 } as const;

/** Highest time: an interval that still lasts. */
export const forever = Number.POSITIVE_INFINITY;

/** Most intervals of one address that an index can be told to keep. */
export const maxIntervalsLimit = pageRecords - 1;

const none = -1;

/** Owner of an interval in which anybody may have had the address: whoever else is found there is not sure. */
export const anybody = 0x3fffffff;

/** Addresses that one prefetch takes. */
export const prefetchRows = 32;

/** Doubles of an interval: since, until, owner. */
const stride = 3;
/** Set in the count of an address whose last record is not an interval but says what was forgotten. */
const forgottenBit = 0x10000;
const countMask = 0xffff;

/**
 * A slot says whose the address is for sure from a time on, which alone answers most questions, without a look at the run.
 * The time is counted in units of 1024 ms, rounded up, so that 32 bits reach to the year 2109.
 */
const unitMs = 1024;
const never = 0xffffffff;

function unitAfter(timeMs: number): number {
  return Math.max(0, Math.min(never, Math.ceil(timeMs / unitMs)));
}

export interface TimeIndexOptions {
  /** Bound of the history of one address: of more, those that ended first are forgotten. */
  readonly maxIntervalsPerAddress: number;
}

export class TimeIndex {
  readonly #maxIntervalsPerAddress: number;
  readonly #four = new AddressTable(4);
  readonly #six = new AddressTable(6);
  readonly #runs = new RunPool(stride);
  /** Where eviction goes on: in the table of IPv4, then in that of IPv6; and the array it was in. */
  #evictSlot = 0;
  #evictsSix = false;
  #evictArrays: SlotArrays | null = null;
  /** Live intervals. */
  intervalCount = 0;
  /** Intervals let go because an address had too many, or because they ended too long ago. */
  evictedCount = 0;
  /** What ended at or before this moment is forgotten, ms. */
  floorMs = Number.NEGATIVE_INFINITY;

  // The answer of the last find(): fields, so that a lookup makes no object.
  /** Owner found, or -1. */
  foundOwner = none;
  /** Code of the certainty. */
  foundCertainty = 0;

  /** @throws {RangeError} where the bound is not from 1 to {@link maxIntervalsLimit} */
  constructor(options: TimeIndexOptions) {
    const bound = options.maxIntervalsPerAddress;
    if (!Number.isInteger(bound) || bound < 1 || bound > maxIntervalsLimit)
      throw new RangeError(`maxIntervalsPerAddress must be from 1 to ${maxIntervalsLimit}, not ${bound}`);
    this.#maxIntervalsPerAddress = bound;
  }

  get addressCount(): number {
    return this.#four.count + this.#six.count;
  }

  /** Bytes held by the arrays. */
  get byteLength(): number {
    return this.#four.byteLength + this.#six.byteLength + this.#runs.byteLength;
  }

  /**
   * Adds an interval. `words` holds the address at word `at` (4 words). Intervals of one address may overlap.
   * What ended before all that is remembered of the address is not taken; it counts as evicted.
   */
  add(
    network: number,
    words: Uint32Array,
    at: number,
    sinceMs: number,
    untilMs: number,
    owner: number,
  ): void {
    if (untilMs <= this.floorMs) {
      this.evictedCount++;
      return;
    }
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    const table = isMappedWords(w0, w1, w2) ? this.#four : this.#six;
    const hash = hashKey(network, w0, w1, w2, w3);
    let slot = table.claim(hash, network, w0, w1, w2, w3);
    if (slot < 0) {
      slot = table.insert(hash, network, w0, w1, w2, w3);
      const rest = slot << table.restShift;
      table.arrays.rests[rest + restRun] = this.#runs.allocate(1);
      table.arrays.rests[rest + restCount] = 0;
    }
    this.#insert(table.arrays.rests, slot << table.restShift, sinceMs, untilMs, owner);
    this.#summarise(table, slot);
  }

  /** Notes in the slot from when on the address is one owner's for sure. */
  #summarise(table: AddressTable, slot: number): void {
    const { slots, rests } = table.arrays;
    const rest = slot << table.restShift;
    const word = rests[rest + restCount] ?? 0;
    const run = rests[rest + restRun] ?? 0;
    const data = this.#runs.segmentOf(run);
    const base = this.#runs.offsetOf(run);
    const records = word & countMask;
    const live = word & forgottenBit ? records - 1 : records;
    const owner = live === 0 ? anybody : (data[base + 2] ?? 0);
    let sureFromMs = data[base + 1] === forever && owner !== anybody ? (data[base] ?? 0) : forever;
    if (live > 1) sureFromMs = Math.max(sureFromMs, data[base + stride + 1] ?? 0);
    if (live !== records) sureFromMs = Math.max(sureFromMs, data[base + live * stride + 1] ?? 0);
    slots[(slot << slotShift) + slotOwner] = owner;
    slots[(slot << slotShift) + slotSure] = unitAfter(sureFromMs);
  }

  /** Puts an interval into the run of a slot, and keeps the bound. */
  #insert(rests: Uint32Array, rest: number, sinceMs: number, untilMs: number, owner: number): void {
    const word = rests[rest + restCount] ?? 0;
    const hasForgotten = (word & forgottenBit) !== 0;
    let records = word & countMask;
    let run = rests[rest + restRun] ?? 0;
    let data = this.#runs.segmentOf(run);
    let base = this.#runs.offsetOf(run);
    const live = hasForgotten ? records - 1 : records;
    if (hasForgotten && untilMs <= (data[base + live * stride] ?? 0)) {
      this.evictedCount++;
      return;
    }
    let place = 0;
    while (place < live) {
      const until = data[base + place * stride + 1] ?? 0;
      if (until < untilMs || (until === untilMs && (data[base + place * stride] ?? 0) <= sinceMs)) break;
      place++;
    }
    if (live === this.#maxIntervalsPerAddress) {
      this.evictedCount++;
      if (place === live) {
        this.#forget(rests, rest, untilMs);
        return;
      }
      const lastUntil = data[base + (live - 1) * stride + 1] ?? 0;
      const last = base + (live - 1) * stride;
      data.copyWithin(base + (place + 1) * stride, base + place * stride, last);
      write(data, base + place * stride, sinceMs, untilMs, owner);
      this.#forget(rests, rest, lastUntil);
      return;
    }
    if (records === this.#runs.capacityOf(run)) {
      run = this.#runs.move(run, records, records + 1);
      rests[rest + restRun] = run;
      data = this.#runs.segmentOf(run);
      base = this.#runs.offsetOf(run);
    }
    data.copyWithin(base + (place + 1) * stride, base + place * stride, base + records * stride);
    write(data, base + place * stride, sinceMs, untilMs, owner);
    records++;
    rests[rest + restCount] = hasForgotten ? records | forgottenBit : records;
    this.intervalCount++;
  }

  /**
   * Notes in the last record of a run that an interval with this end is no longer known. The record: the latest end that
   * was forgotten; the end up to which nothing is sure; how many are forgotten that last.
   */
  #forget(rests: Uint32Array, rest: number, untilMs: number): void {
    const word = rests[rest + restCount] ?? 0;
    let records = word & countMask;
    let run = rests[rest + restRun] ?? 0;
    if ((word & forgottenBit) === 0) {
      if (records === this.#runs.capacityOf(run)) {
        run = this.#runs.move(run, records, records + 1);
        rests[rest + restRun] = run;
      }
      write(
        this.#runs.segmentOf(run),
        this.#runs.offsetOf(run) + records * stride,
        Number.NEGATIVE_INFINITY,
        0,
        0,
      );
      records++;
      rests[rest + restCount] = records | forgottenBit;
    }
    const data = this.#runs.segmentOf(run);
    const last = this.#runs.offsetOf(run) + (records - 1) * stride;
    if (untilMs === forever) data[last + 2] = (data[last + 2] ?? 0) + 1;
    else if (untilMs > (data[last] ?? 0)) data[last] = untilMs;
    data[last + 1] = (data[last + 2] ?? 0) > 0 ? forever : (data[last] ?? 0);
  }

  /** Removes one interval of `owner` at the address with this begin and end. Returns whether it was there. */
  remove(
    network: number,
    words: Uint32Array,
    at: number,
    sinceMs: number,
    untilMs: number,
    owner: number,
  ): boolean {
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    const table = isMappedWords(w0, w1, w2) ? this.#four : this.#six;
    const hash = hashKey(network, w0, w1, w2, w3);
    const slot = table.claim(hash, network, w0, w1, w2, w3);
    if (slot < 0) return false;
    const { rests } = table.arrays;
    const rest = slot << table.restShift;
    const word = rests[rest + restCount] ?? 0;
    const records = word & countMask;
    const run = rests[rest + restRun] ?? 0;
    const data = this.#runs.segmentOf(run);
    const base = this.#runs.offsetOf(run);
    const end = base + (word & forgottenBit ? records - 1 : records) * stride;
    for (let record = base; record < end; record += stride) {
      if (data[record] !== sinceMs || data[record + 1] !== untilMs || data[record + 2] !== owner) continue;
      data.copyWithin(record, record + stride, base + records * stride);
      rests[rest + restCount] = word - 1;
      this.intervalCount--;
      this.#tidy(table, slot);
      return true;
    }
    // One that was forgotten and lasted is no longer claimed.
    if (untilMs === forever && word & forgottenBit && (data[end + 2] ?? 0) > 0) {
      data[end + 2] = (data[end + 2] ?? 0) - 1;
      if (data[end + 2] === 0) data[end + 1] = data[end] ?? 0;
      this.#tidy(table, slot);
    }
    return false;
  }

  /** Frees a slot that holds no interval any more, or moves its run to a shorter place. Returns whether it was freed. */
  #tidy(table: AddressTable, slot: number): boolean {
    const { rests } = table.arrays;
    const rest = slot << table.restShift;
    const word = rests[rest + restCount] ?? 0;
    const records = word & countMask;
    const run = rests[rest + restRun] ?? 0;
    if (records === (word & forgottenBit ? 1 : 0)) {
      // What was forgotten is still claimed by somebody where it lasts.
      const isClaimed = records === 1 && (this.#runs.segmentOf(run)[this.#runs.offsetOf(run) + 2] ?? 0) > 0;
      if (isClaimed) {
        this.#summarise(table, slot);
        return false;
      }
      this.#runs.free(run);
      table.delete(slot);
      return true;
    }
    if (records * 3 <= this.#runs.capacityOf(run))
      rests[rest + restRun] = this.#runs.move(run, records, records);
    this.#summarise(table, slot);
    return false;
  }

  /**
   * Forgets what ended at or before `beforeMs`, in slices: looks at about `places` places of the index, going on where
   * the last call stopped. Returns whether that ended a round.
   */
  evictBefore(beforeMs: number, places = 16_384): boolean {
    if (beforeMs > this.floorMs) this.floorMs = beforeMs;
    let left = places;
    while (left > 0) {
      const table = this.#evictsSix ? this.#six : this.#four;
      // While the table grows there are two arrays to look at: first it has to be one again.
      for (; table.old !== null && left > 0; left -= stepSlots) table.step();
      if (left <= 0) return false;
      if (this.#evictArrays !== table.arrays) {
        this.#evictArrays = table.arrays;
        this.#evictSlot = 0;
      }
      const slotCount = table.arrays.mask + 1;
      const end = Math.min(slotCount, this.#evictSlot + left);
      left -= end - this.#evictSlot;
      this.#evictIn(table, this.#evictSlot, end);
      this.#evictSlot = end;
      if (end < slotCount) return false;
      this.#evictsSix = !this.#evictsSix;
      this.#evictArrays = null;
      if (!this.#evictsSix) return true;
    }
    return false;
  }

  #evictIn(table: AddressTable, from: number, end: number): void {
    const { slots } = table.arrays;
    for (let slot = from; slot < end; ) {
      // A slot that was freed may hold another address now: it is looked at again.
      if (slots[slot << slotShift] === 0 || !this.#evictAt(table, slot)) slot++;
    }
  }

  /** Returns whether the slot was freed. */
  #evictAt(table: AddressTable, slot: number): boolean {
    const { rests } = table.arrays;
    const rest = slot << table.restShift;
    const word = rests[rest + restCount] ?? 0;
    const data = this.#runs.segmentOf(rests[rest + restRun] ?? 0);
    const base = this.#runs.offsetOf(rests[rest + restRun] ?? 0);
    const records = word & countMask;
    const hasForgotten = (word & forgottenBit) !== 0;
    const live = hasForgotten ? records - 1 : records;
    let kept = live;
    while (kept > 0 && (data[base + (kept - 1) * stride + 1] ?? 0) <= this.floorMs) kept--;
    const last = base + live * stride;
    const dropsForgotten = hasForgotten && (data[last + 1] ?? 0) <= this.floorMs;
    if (kept === live && !dropsForgotten) return false;
    if (hasForgotten && !dropsForgotten) data.copyWithin(base + kept * stride, last, last + stride);
    rests[rest + restCount] = hasForgotten && !dropsForgotten ? (kept + 1) | forgottenBit : kept;
    this.intervalCount -= live - kept;
    this.evictedCount += live - kept;
    return this.#tidy(table, slot);
  }

  /**
   * Finds who had the address at `timeMs`; the answer is in `foundOwner` and `foundCertainty`:
   * one owner for the whole tolerance around the time and in possession at the time: exact; one owner near, not in
   * possession: grace; several near, or others near that were forgotten: ambiguous, with the one in possession, else the
   * nearest, of equals the one that began last; nobody near: none.
   */
  find(network: number, words: Uint32Array, at: number, timeMs: number, toleranceMs: number): void {
    this.foundOwner = none;
    this.foundCertainty = certaintyCode.none;
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    const table = isMappedWords(w0, w1, w2) ? this.#four : this.#six;
    const hash = hashKey(network, w0, w1, w2, w3);
    let arrays = table.arrays;
    let slot = table.find(arrays, hash, network, w0, w1, w2, w3);
    if (slot < 0) {
      if (table.old === null) return;
      arrays = table.old;
      slot = table.find(arrays, hash, network, w0, w1, w2, w3);
      if (slot < 0) return;
    }
    const word = slot << slotShift;
    const fromMs = timeMs - toleranceMs;
    if (fromMs / unitMs >= (arrays.slots[word + slotSure] ?? 0) && fromMs >= this.floorMs) {
      this.foundOwner = arrays.slots[word + slotOwner] ?? none;
      this.foundCertainty = certaintyCode.exact;
      return;
    }
    const rest = slot << table.restShift;
    this.#weigh(arrays.rests[rest + restRun] ?? 0, arrays.rests[rest + restCount] ?? 0, timeMs, toleranceMs);
  }

  /** Owners that {@link prefetch} saw: whom the next lookups will likely find. */
  readonly prefetched = new Int32Array(prefetchRows);
  readonly #places = new Int32Array(prefetchRows);

  /**
   * Reads the places of up to {@link prefetchRows} addresses (four words each, from row `firstRow`) all at once, in less
   * time than lookups one by one would wait for two of them: those that follow find them in the processor's cache.
   */
  prefetch(network: number, words: Uint32Array, firstRow: number, rowCount: number): void {
    const { slots, mask } = this.#four.arrays;
    const places = this.#places;
    const owners = this.prefetched;
    for (let row = 0; row < rowCount; row++) {
      const at = (firstRow + row) * 4;
      // IPv6 addresses hash to a place where they are not, which does no harm.
      const hash = hashKey(
        network,
        words[at] ?? 0,
        words[at + 1] ?? 0,
        words[at + 2] ?? 0,
        words[at + 3] ?? 0,
      );
      places[row] = (homeOf(hash, mask) << slotShift) + slotOwner;
    }
    for (let row = 0; row < rowCount; row++) owners[row] = slots[places[row] ?? 0] ?? 0;
  }

  #weigh(run: number, word: number, timeMs: number, toleranceMs: number): void {
    const data = this.#runs.segmentOf(run);
    const base = this.#runs.offsetOf(run);
    const records = base + (word & countMask) * stride;
    const end = word & forgottenBit ? records - stride : records;
    const from = timeMs - toleranceMs;
    const to = timeMs + toleranceMs;
    let owner = none;
    let nearestMs = forever;
    let nearestSince = 0;
    let isAlone = true;
    for (let record = base; record < end; record += stride) {
      const until = data[record + 1] ?? 0;
      if (until <= from) break;
      const since = data[record] ?? 0;
      if (since > to) continue;
      const distanceMs = timeMs < since ? since - timeMs : timeMs >= until ? timeMs - until + 1 : 0;
      const candidate = (data[record + 2] ?? none) | 0;
      if (candidate === anybody) {
        isAlone = false;
        continue;
      }
      if (candidate !== owner && owner !== none) isAlone = false;
      if (distanceMs < nearestMs || (distanceMs === nearestMs && since > nearestSince)) {
        owner = candidate;
        nearestMs = distanceMs;
        nearestSince = since;
      }
    }
    if (owner === none) return;
    if (from < this.floorMs || (end !== records && (data[end + 1] ?? 0) > from)) isAlone = false;
    this.foundOwner = owner;
    this.foundCertainty = !isAlone
      ? certaintyCode.ambiguous
      : nearestMs === 0
        ? certaintyCode.exact
        : certaintyCode.grace;
  }

  /** Owners that {@link find} weighs, the likeliest first. */
  candidates(network: number, words: Uint32Array, at: number, timeMs: number, toleranceMs: number): number[] {
    const w0 = words[at] ?? 0;
    const w1 = words[at + 1] ?? 0;
    const w2 = words[at + 2] ?? 0;
    const w3 = words[at + 3] ?? 0;
    const table = isMappedWords(w0, w1, w2) ? this.#four : this.#six;
    const hash = hashKey(network, w0, w1, w2, w3);
    const slot = table.claim(hash, network, w0, w1, w2, w3);
    if (slot < 0) return [];
    const { rests } = table.arrays;
    const rest = slot << table.restShift;
    const word = rests[rest + restCount] ?? 0;
    const run = rests[rest + restRun] ?? 0;
    const data = this.#runs.segmentOf(run);
    const base = this.#runs.offsetOf(run);
    const end = base + ((word & countMask) - (word & forgottenBit ? 1 : 0)) * stride;
    const near: { owner: number; distanceMs: number; since: number }[] = [];
    for (let record = base; record < end; record += stride) {
      const since = data[record] ?? 0;
      const until = data[record + 1] ?? 0;
      if (until <= timeMs - toleranceMs || since > timeMs + toleranceMs) continue;
      const distanceMs = timeMs < since ? since - timeMs : timeMs >= until ? timeMs - until + 1 : 0;
      near.push({ owner: data[record + 2] ?? none, distanceMs, since });
    }
    near.sort((a, b) => a.distanceMs - b.distanceMs || b.since - a.since);
    return [...new Set(near.map(({ owner }) => owner))].filter((owner) => owner !== anybody);
  }
}

function write(data: Float64Array, at: number, sinceMs: number, untilMs: number, owner: number): void {
  data[at] = sinceMs;
  data[at + 1] = untilMs;
  data[at + 2] = owner;
}
