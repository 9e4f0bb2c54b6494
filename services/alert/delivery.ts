/** Delivers to one receiver: its own queue, its own pauses, so that a dead receiver holds up nobody else. */
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Store } from '../../lib/store/store.ts';
import type { AlertConfig, ReceiverConfig } from './config.ts';
import type { AlertMetrics } from './metrics.ts';
import { type AlertRecord, readPending, writeRecords } from './records.ts';
import { type SendResult, sendEvent } from './send.ts';

/** Tries that run at once towards one receiver that answers. */
const concurrentTries = 4;
/** Pause after the store failed, ms. */
const storePauseMs = 1000;
/** Longest wait before a queue looks again, ms. */
const idleMs = 60_000;

/** What a receiver is called: its name, or its host and a hash of its URL. */
export function receiverName(receiver: Pick<ReceiverConfig, 'name' | 'url'>): string {
  if (receiver.name !== '') return receiver.name;
  const hash = createHash('sha256').update(receiver.url).digest('hex').slice(0, 8);
  return `${new URL(receiver.url).host}/${hash}`;
}

/** Changes when a receiver's URL or secret does: then it is somebody else, and a 410 of before is forgotten. */
export function receiverFingerprint(receiver: Pick<ReceiverConfig, 'url' | 'secret'>): string {
  return createHash('sha256').update(`${receiver.url}\n${receiver.secret}`).digest('hex').slice(0, 32);
}

export type RetryLimits = Pick<AlertConfig, 'retryBaseMs' | 'maxRetryPauseMs'>;

/** The pause after `failures` failures in a row, ms: doubling, with a fifth of chance either way. */
export function retryPauseMs(failures: number, limits: RetryLimits, chance: number): number {
  const even = Math.min(limits.maxRetryPauseMs, limits.retryBaseMs * 2 ** Math.min(30, failures - 1));
  return even * (0.8 + 0.4 * chance);
}

export interface DeliveryParts {
  readonly receiver: ReceiverConfig;
  readonly config: AlertConfig;
  readonly store: Store;
  readonly metrics: AlertMetrics;
  readonly log: Logger;
  readonly isGone: boolean;
  /** Told once, when the receiver answers 410 Gone; resolves when that is remembered. */
  readonly onGone: () => Promise<void>;
}

interface Waiting {
  readonly record: AlertRecord;
  readonly dueMs: number;
}

export class Delivery {
  readonly name: string;
  readonly #parts: DeliveryParts;
  readonly #waiting = new Map<string, Waiting>();
  /** Results that the store has yet to take. */
  #unwritten: AlertRecord[] = [];
  /** Whether the table may hold pending events that are not in memory. */
  #mayHoldMore = true;
  #gone: boolean;
  #failuresInRow = 0;
  #pausedUntilMs = 0;
  #wake = new AbortController();

  constructor(parts: DeliveryParts) {
    this.#parts = parts;
    this.name = receiverName(parts.receiver);
    this.#gone = parts.isGone;
    parts.metrics.gone.set({ receiver: this.name }, parts.isGone ? 1 : 0);
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Takes events that are in the table already. */
  offer(records: readonly AlertRecord[]): void {
    for (const record of records) {
      if (this.#mayHoldMore || this.#waiting.size >= this.#parts.config.maxQueued) this.#mayHoldMore = true;
      else this.#waiting.set(record.id, { record, dueMs: 0 });
    }
    this.#wake.abort();
  }

  /** Looks into the table again: there may be events that were not offered. */
  recheck(): void {
    this.#mayHoldMore = true;
    this.#wake.abort();
  }

  /** Delivers until the signal; what is under way then is recorded before it returns, if the store is there. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#settle();
        await this.#load();
        this.#parts.metrics.queued.set({ receiver: this.name }, this.#waiting.size);
      } catch (error) {
        this.#parts.log.warn(
          { err: error, receiver: this.name },
          'the store does not take the state of alerts',
        );
        await this.#pause(storePauseMs, signal, false);
        continue;
      }
      const due = this.#gone ? [] : this.#due();
      if (due.length > 0) await Promise.all(due.map((waiting) => this.#try(waiting, signal)));
      else if (this.#unwritten.length === 0) await this.#pause(this.#nextDueMs(), signal, true);
    }
    await this.#settle().catch(() => undefined);
  }

  async #pause(ms: number, signal: AbortSignal, wakes: boolean): Promise<void> {
    if (wakes && this.#wake.signal.aborted) this.#wake = new AbortController();
    else {
      const signals = wakes ? [signal, this.#wake.signal] : [signal];
      await delay(ms, undefined, { signal: AbortSignal.any(signals) }).catch(() => undefined);
    }
  }

  async #settle(): Promise<void> {
    if (this.#unwritten.length === 0) return;
    const records = this.#unwritten;
    await writeRecords(this.#parts.store, records);
    this.#unwritten = this.#unwritten.slice(records.length);
  }

  async #load(): Promise<void> {
    const { store, config } = this.#parts;
    if (!this.#mayHoldMore || this.#waiting.size > config.maxQueued / 2) return;
    // Offers that come while the table is read set it again.
    this.#mayHoldMore = false;
    let records: AlertRecord[];
    try {
      records = await readPending(store, this.name, config.maxQueued);
    } catch (error) {
      this.#mayHoldMore = true;
      throw error;
    }
    if (records.length === config.maxQueued) this.#mayHoldMore = true;
    if (this.#gone) {
      for (const record of records)
        this.#finish(record, 'failed', 'the receiver answered 410 Gone and is out of use');
      return;
    }
    for (const record of records) {
      if (!this.#waiting.has(record.id)) this.#waiting.set(record.id, { record, dueMs: 0 });
    }
  }

  #due(): Waiting[] {
    const nowMs = Date.now();
    if (nowMs < this.#pausedUntilMs) return [];
    // One probe is enough for a receiver that failed; the longest due goes first, so no event blocks the others.
    const most = this.#failuresInRow > 0 ? 1 : concurrentTries;
    return [...this.#waiting.values()]
      .filter(({ dueMs }) => dueMs <= nowMs)
      .sort((a, b) => a.dueMs - b.dueMs || a.record.createdMs - b.record.createdMs)
      .slice(0, most);
  }

  #nextDueMs(): number {
    if (this.#gone && this.#mayHoldMore) return 0;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { dueMs } of this.#waiting.values()) nextMs = Math.min(nextMs, dueMs);
    return Math.min(idleMs, Math.max(0, Math.max(nextMs, this.#pausedUntilMs) - Date.now()));
  }

  async #try({ record }: Waiting, signal: AbortSignal): Promise<void> {
    const { receiver, config, metrics, log } = this.#parts;
    const result = await sendEvent(receiver, record, config.timeoutMs, signal);
    if (result.outcome === 'again' && signal.aborted) return;
    switch (result.outcome) {
      case 'delivered':
        this.#failuresInRow = 0;
        metrics.delaySeconds.observe(Math.max(0, Date.now() - record.createdMs) / 1000);
        metrics.deliveries.inc({ receiver: this.name, outcome: 'delivered' });
        this.#finish(record, 'delivered', '');
        return;
      case 'gone':
        metrics.deliveries.inc({ receiver: this.name, outcome: 'gone' });
        if (!this.#gone) {
          log.error(
            { receiver: this.name },
            'the receiver answered 410 Gone: it is out of use until its configuration changes',
          );
        }
        await this.#retire(record);
        return;
      case 'again':
        this.#again(record, result);
    }
  }

  async #retire(record: AlertRecord): Promise<void> {
    this.#gone = true;
    this.#parts.metrics.gone.set({ receiver: this.name }, 1);
    await this.#parts.onGone();
    this.#finish(record, 'failed', 'answered 410 Gone');
    this.#waiting.clear();
    this.#mayHoldMore = true;
  }

  #again(record: AlertRecord, result: Extract<SendResult, { outcome: 'again' }>): void {
    const { config, metrics, log } = this.#parts;
    const nowMs = Date.now();
    const attempts = record.attempts + 1;
    if (nowMs - record.createdMs > config.maxRetryAgeMs) {
      metrics.deliveries.inc({ receiver: this.name, outcome: 'failed' });
      log.error(
        { receiver: this.name, id: record.id, why: result.why, attempts },
        'an alert could not be delivered',
      );
      this.#finish(record, 'failed', result.why);
      return;
    }
    metrics.deliveries.inc({ receiver: this.name, outcome: 'retried' });
    const askedMs = Math.min(result.afterMs, config.maxRetryPauseMs);
    if (result.receiverAway) {
      this.#failuresInRow++;
      // Said at the first failure and then ever more rarely.
      if (Number.isInteger(Math.log2(this.#failuresInRow))) {
        log.warn(
          { receiver: this.name, why: result.why, failures: this.#failuresInRow },
          'a receiver is away; trying again',
        );
      }
      this.#pausedUntilMs =
        nowMs + Math.max(askedMs, retryPauseMs(this.#failuresInRow, config, Math.random()));
    }
    const changed: AlertRecord = {
      ...record,
      attempts,
      lastError: result.why,
      updatedMs: nextUpdateMs(record),
    };
    const dueMs = nowMs + Math.max(askedMs, retryPauseMs(attempts, config, Math.random()));
    this.#waiting.set(record.id, { record: changed, dueMs });
    this.#unwritten.push(changed);
  }

  #finish(record: AlertRecord, state: 'delivered' | 'failed', lastError: string): void {
    this.#waiting.delete(record.id);
    this.#unwritten.push({
      ...record,
      state,
      attempts: record.attempts + 1,
      lastError,
      updatedMs: nextUpdateMs(record),
    });
  }
}

/** Later than the row before, also when the clock was set back: the newest row counts. */
function nextUpdateMs(record: AlertRecord): number {
  return Math.max(Date.now(), record.updatedMs + 1);
}
