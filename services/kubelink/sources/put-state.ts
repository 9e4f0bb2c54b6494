/**
 * What has been put over HTTP, as the topic `inventory.put` tells it: who put what, until when, and what follows for the
 * inventory. Pure: no clock, no bus.
 */
import { isDeepStrictEqual } from 'node:util';
import type { BusMessage } from '../../../lib/bus/bus.ts';
import { inventoryKey, type WorkloadEvent } from '../../../lib/inventory/events.ts';
import { PutReplaced, PutWorkload, putKey, tidiedHeader } from '../../../schemas/workload-put.ts';
import { intervals } from '../manifests/common.ts';
import { checker } from '../validate.ts';

const checkWorkload = checker(PutWorkload);
const checkReplaced = checker(PutReplaced);

/** Refused entries that are named as problems; there may be more. */
const maxRefusedNamed = 1000;

interface Entry {
  readonly said: PutWorkload;
  readonly event: WorkloadEvent;
  readonly key: string;
  /** When it ended, ms; `null` while it lives. Ended ones stand here until the topic has forgotten them. */
  readonly endedMs: number | null;
}

/** What is to be told about one key of the inventory. */
export type PutNews =
  | { readonly key: string; readonly event: WorkloadEvent }
  | { readonly key: string; readonly event: null; readonly endedMs: number };

export interface PutTime {
  readonly nowMs: number;
  /** Nothing that is heard now took effect at or before this moment. */
  readonly vouchedMs: number;
}

/** An ended entry whose message may go. */
export interface Tidying {
  readonly key: string;
  readonly put: string;
}

function eventOf(said: PutWorkload, time: PutTime): WorkloadEvent {
  const sinceMs = said.sinceMs ?? Math.max(Math.min(said.putMs, time.nowMs), time.vouchedMs + 1);
  return {
    v: 1,
    type: 'workload',
    kind: said.kind,
    cluster: '',
    uid: said.id,
    name: said.name,
    namespace: said.group,
    node: '',
    hostNetwork: false,
    labels: said.labels,
    annotations: said.annotations,
    addresses: intervals(said.addresses, sinceMs, 0),
    sinceMs,
  };
}

/** Whether two puts say the same of a workload, whenever they were made and however long they hold. */
function saysTheSame(a: PutWorkload, b: PutWorkload): boolean {
  const { put: _a, putMs: _aMs, untilMs: _aUntil, ...one } = a;
  const { put: _b, putMs: _bMs, untilMs: _bUntil, ...other } = b;
  return isDeepStrictEqual(one, other);
}

export class PutState {
  readonly #maxWorkloadCount: number;
  /** By putting source, then by id. */
  readonly #sources = new Map<string, Map<string, Entry>>();
  /** Live entries of one key of the inventory, by putting source. */
  readonly #claims = new Map<string, Map<string, Entry>>();
  /** Keys of the inventory about which there may be news, each with the end of what was there, ms. */
  readonly #touched = new Map<string, number>();
  /** Keys of the inventory that more than one source puts. */
  readonly #shared = new Set<string>();
  readonly #unreadable = new Map<string, string>();
  readonly #refused = new Set<string>();
  #liveCount = 0;
  #nextEndMs = Number.POSITIVE_INFINITY;

  constructor(options: { readonly maxWorkloadCount: number }) {
    this.#maxWorkloadCount = options.maxWorkloadCount;
  }

  /** A lower bound of when the next lifetime passes, ms; infinite where none will. */
  get nextEndMs(): number {
    return this.#nextEndMs;
  }

  /**
   * Takes one message of the topic. Returns the entry that has to be written again, because a tidying tombstone meant
   * an older one of its key; `null` else.
   */
  take(message: BusMessage, time: PutTime): PutWorkload | null {
    const { key, value } = message;
    if (key === null) return null;
    this.#unreadable.delete(key);
    const slash = key.indexOf('/');
    if (value === null) {
      if (slash < 0) return null;
      return this.#tombstone(key.slice(0, slash), key.slice(slash + 1), message);
    }
    let said: unknown;
    try {
      said = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8'));
    } catch {
      this.#unreadable.set(key, 'not JSON');
      return null;
    }
    if (slash < 0) this.#takeReplaced(key, said);
    else this.#takeWorkload(key, said, time);
    return null;
  }

  /** Ends what outlived its lifetime. */
  expire(nowMs: number): void {
    if (nowMs < this.#nextEndMs) return;
    let nextEndMs = Number.POSITIVE_INFINITY;
    for (const entries of this.#sources.values()) {
      for (const entry of entries.values()) {
        const { untilMs } = entry.said;
        if (untilMs === undefined || entry.endedMs !== null) continue;
        if (untilMs <= nowMs) this.#end(entry, untilMs);
        else nextEndMs = Math.min(nextEndMs, untilMs);
      }
    }
    this.#nextEndMs = nextEndMs;
  }

  /** What is new since the last call. */
  settle(): PutNews[] {
    const news = [...this.#touched].map(([key, endedMs]): PutNews => {
      const winner = this.#winner(key);
      return winner === null ? { key, event: null, endedMs } : { key, event: winner.event };
    });
    this.#touched.clear();
    return news;
  }

  /** Everything that lives. */
  events(): WorkloadEvent[] {
    return [...this.#claims.keys()].flatMap((key) => this.#winner(key)?.event ?? []);
  }

  /** What cannot be taken as it was put, in words. */
  problems(): string[] {
    const shared = [...this.#shared].map((key) => {
      const [first = '', ...others] = [...(this.#claims.get(key)?.keys() ?? [])].sort();
      const id = key.split('/').slice(3).join('/');
      return `workload ${id}: put by ${first} and by ${others.join(', ')}; what ${first} says counts (the first by name)`;
    });
    const unreadable = [...this.#unreadable].map(([key, why]) => `message ${key}: ${why}`);
    const refused = [...this.#refused].map(
      (key) => `workload ${key}: over the limit of ${this.#maxWorkloadCount} (maxWorkloadCount), not taken`,
    );
    return [...shared, ...unreadable, ...refused];
  }

  /** Entries that ended at or before `endedMs`, `limit` at most. */
  tidyings(endedMs: number, limit: number): Tidying[] {
    const old: Tidying[] = [];
    for (const entries of this.#sources.values()) {
      for (const entry of entries.values()) {
        if (old.length >= limit) return old;
        if (entry.endedMs === null || entry.endedMs > endedMs) continue;
        old.push({ key: putKey(entry.said.source, entry.said.id), put: entry.said.put });
      }
    }
    return old;
  }

  #tombstone(source: string, id: string, message: BusMessage): PutWorkload | null {
    const known = this.#sources.get(source)?.get(id);
    const tidied = message.headers[tidiedHeader];
    // Somebody put it again while it was being tidied away: the topic has lost that, and gets it back.
    if (tidied !== undefined && known !== undefined && known.said.put !== tidied) return known.said;
    this.#refused.delete(putKey(source, id));
    if (known !== undefined) {
      if (known.endedMs === null) this.#end(known, message.timestampMs);
      this.#forget(known);
      return null;
    }
    if (tidied !== undefined) return null;
    // It was removed before this process could hear of it, and may still stand in the inventory.
    for (const kind of ['vm', 'host']) this.#touch(`workload//${kind}/${id}`, message.timestampMs);
    return null;
  }

  #takeReplaced(key: string, said: unknown): void {
    const checked = checkReplaced(said);
    if (!checked.ok) {
      this.#unreadable.set(key, checked.message);
      return;
    }
    const { source, put, putMs } = checked.value;
    for (const entry of this.#sources.get(source)?.values() ?? []) {
      if (entry.endedMs === null && entry.said.put !== put) this.#end(entry, putMs);
    }
  }

  #takeWorkload(key: string, said: unknown, time: PutTime): void {
    const checked = checkWorkload(said);
    if (!checked.ok || putKey(checked.value.source, checked.value.id) !== key) {
      this.#unreadable.set(key, checked.ok ? 'does not belong to its key' : checked.message);
      return;
    }
    const put = checked.value;
    const known = this.#sources.get(put.source)?.get(put.id);
    const wasLive = known !== undefined && known.endedMs === null;
    if (!wasLive && this.#liveCount >= this.#maxWorkloadCount) {
      if (this.#refused.size < maxRefusedNamed) this.#refused.add(key);
      return;
    }
    this.#refused.delete(key);
    const isRepeated = wasLive && saysTheSame(known.said, put);
    const event = isRepeated ? known.event : eventOf(put, time);
    const inventory = inventoryKey(event);
    // Another kind is another workload.
    if (wasLive && known.key !== inventory) this.#end(known, put.putMs);
    const entry: Entry = { said: put, event, key: inventory, endedMs: null };
    this.#enter(entry);
    if (put.untilMs !== undefined) this.#nextEndMs = Math.min(this.#nextEndMs, put.untilMs);
    if (!isRepeated) this.#touch(inventory, 0);
  }

  #enter(entry: Entry): void {
    const { source, id } = entry.said;
    const entries = this.#sources.get(source) ?? new Map<string, Entry>();
    const known = entries.get(id);
    if (known === undefined || known.endedMs !== null) this.#liveCount++;
    this.#sources.set(source, entries.set(id, entry));
    const claims = this.#claims.get(entry.key) ?? new Map<string, Entry>();
    this.#claims.set(entry.key, claims.set(source, entry));
    if (claims.size > 1) this.#shared.add(entry.key);
  }

  #end(entry: Entry, endedMs: number): void {
    const { source, id } = entry.said;
    this.#sources.get(source)?.set(id, { ...entry, endedMs });
    this.#liveCount--;
    const claims = this.#claims.get(entry.key);
    claims?.delete(source);
    if ((claims?.size ?? 0) < 2) this.#shared.delete(entry.key);
    if (claims?.size === 0) this.#claims.delete(entry.key);
    this.#touch(entry.key, endedMs);
  }

  #forget(entry: Entry): void {
    const { source, id } = entry.said;
    const entries = this.#sources.get(source);
    entries?.delete(id);
    if (entries?.size === 0) this.#sources.delete(source);
  }

  #touch(key: string, endedMs: number): void {
    this.#touched.set(key, Math.max(endedMs, this.#touched.get(key) ?? 0));
  }

  /** Of several that put one workload the first by name counts, whenever they spoke: it is the same after a restart. */
  #winner(key: string): Entry | null {
    const claims = this.#claims.get(key);
    if (claims === undefined) return null;
    let winner: Entry | null = null;
    for (const entry of claims.values()) {
      if (winner === null || entry.said.source < winner.said.source) winner = entry;
    }
    return winner;
  }
}
