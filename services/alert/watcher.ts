/**
 * Finds new unexplained edges and makes events of them: each edge once. An event is in the table `alerts`, under an id
 * that follows from the edge, before anybody is told; what was looked at is remembered only after that.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { hash64 } from '../../lib/inventory/ids.ts';
import type { Readiness } from '../../lib/runtime/service.ts';
import { type Store, StoreRefusedError } from '../../lib/store/store.ts';
import { Allowance } from './allowance.ts';
import type { AlertConfig } from './config.ts';
import type { Delivery } from './delivery.ts';
import { type Evidence, findEvidence, findNewEdges, type NewEdge } from './edges.ts';
import { makeConnectionEvent, makeSummaryEvent, messageIdOf, severities, severityOf } from './event.ts';
import type { AlertMetrics } from './metrics.ts';
import { type AlertRecord, readStanding, writeRecords } from './records.ts';
import type { AlertState } from './state.ts';

/** How often the cursor is written down while nothing is found, ms. */
const rememberMs = 10_000;
/** Longest pause after polls that failed, ms. */
const maxPauseMs = 15_000;
/** Most polls reach back this far only, ms: the whole overlap costs more and is for inserts that took long. */
const shortOverlapMs = 10_000;
/** How often a poll reaches back over the whole overlap, ms. */
const sweepIntervalMs = 30_000;
/** A poll that took t is followed by a pause of this many t at least, so that the store has its time for others. */
const pausesPerPoll = 4;

export interface WatcherParts {
  readonly config: AlertConfig;
  readonly store: Store;
  readonly deliveries: readonly Delivery[];
  /** Changes in place; `remember` writes it down. */
  readonly state: AlertState;
  readonly remember: () => Promise<void>;
  readonly metrics: AlertMetrics;
  readonly log: Logger;
  readonly readiness: Readiness;
}

/** Where a service begins to look that has no state yet. */
export async function firstState(store: Store, backfill: boolean): Promise<AlertState> {
  const { nowMs, newestMs } = await readStanding(store);
  // Alerts without a state: the folder was lost, so go on where the newest alert was made.
  const baselineMs = newestMs > 0 ? newestMs : backfill ? 0 : nowMs;
  return { v: 1, baselineMs, cursorMs: baselineMs, gone: {} };
}

/** The most severe first; of these the earliest. */
function byUrgency(a: NewEdge, b: NewEdge): number {
  return severities.indexOf(severityOf(b)) - severities.indexOf(severityOf(a)) || a.writtenMs - b.writtenMs;
}

export class Watcher {
  readonly #parts: WatcherParts;
  #allowance: Allowance | null = null;
  /** Whether events may be in the table that no delivery was offered. */
  #uncertain = false;
  #summaryAtMs = Number.NEGATIVE_INFINITY;
  #sweptAtMs = Number.NEGATIVE_INFINITY;
  #rememberedAtMs = Number.NEGATIVE_INFINITY;

  constructor(parts: WatcherParts) {
    this.#parts = parts;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, metrics, log, readiness } = this.#parts;
    let failures = 0;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        await this.#poll();
        metrics.pollSeconds.observe((performance.now() - started) / 1000);
        failures = 0;
        readiness.set('store', true);
      } catch (error) {
        metrics.pollErrors.inc();
        const why = error instanceof Error ? error.message : String(error);
        readiness.set('store', why);
        if (failures === 0) log.warn({ why }, 'new edges cannot be asked for; trying again');
        failures++;
      }
      const pauseMs =
        failures === 0
          ? Math.max(config.pollIntervalMs, pausesPerPoll * (performance.now() - started))
          : config.pollIntervalMs * 2 ** Math.min(failures, 10);
      const waitMs = Math.min(maxPauseMs, pauseMs);
      await delay(waitMs, undefined, { signal }).catch(() => undefined);
    }
    await this.#parts.remember();
  }

  async #poll(): Promise<void> {
    const { config, store, state, deliveries } = this.#parts;
    const standing = await readStanding(store);
    this.#allowance ??= new Allowance(config.maxAlertsPerMinute, standing.recentCount);
    const sweeps = performance.now() - this.#sweptAtMs >= sweepIntervalMs;
    const overlapMs = sweeps ? config.overlapMs : Math.min(config.overlapMs, shortOverlapMs);
    const edges = await findNewEdges(store, {
      sinceMs: Math.max(state.baselineMs, state.cursorMs - overlapMs),
      scope: config.scope,
      identityWaitMs: config.identityWaitMs,
      baselineMs: state.baselineMs,
      pendingGraceMs: config.pendingGraceMs,
      limit: config.maxEdgesPerPoll,
    });
    if (sweeps) this.#sweptAtMs = performance.now();
    // What a failed write left in the table after all was just left out as known, so the deliveries have to look.
    if (this.#uncertain) for (const delivery of deliveries) delivery.recheck();
    this.#uncertain = false;
    const held = edges.length === 0 ? [] : await this.#record(edges, standing.nowMs);
    const left = edges.length < config.maxEdgesPerPoll ? held : edges;
    const upTo = left.reduce((least, edge) => Math.min(least, edge.writtenMs - 1), standing.nowMs);
    // Never back: the overlap covers what becomes visible late.
    state.cursorMs = Math.max(state.cursorMs, upTo);
    if (edges.length > 0 || performance.now() - this.#rememberedAtMs > rememberMs) {
      await this.#parts.remember();
      this.#rememberedAtMs = performance.now();
    }
  }

  /** Makes events of the edges and records them; returns those that have to wait for the next summary. */
  async #record(edges: readonly NewEdge[], createdMs: number): Promise<readonly NewEdge[]> {
    const { config, store, deliveries, metrics, log } = this.#parts;
    const urgent = [...edges].sort(byUrgency);
    const own = urgent.slice(0, this.#allowance?.left ?? 0);
    const rest = urgent.slice(own.length);
    const maySummarise = performance.now() - this.#summaryAtMs >= config.summaryIntervalMs;
    const records: AlertRecord[] = [];
    for (const edge of own) {
      const event = makeConnectionEvent(edge, await this.#evidenceOf(edge), createdMs, config.baseUrl);
      records.push(...this.#recordsOf(messageIdOf(edge.edge), edge.edge, JSON.stringify(event), createdMs));
    }
    if (rest.length > 0 && maySummarise) records.push(...this.#summarise(rest, createdMs));
    if (records.length === 0) return rest;
    // Until the store has said yes, nobody knows whether the events are there.
    this.#uncertain = true;
    await writeRecords(store, records);
    this.#uncertain = false;

    this.#allowance?.spend(own.length);
    for (const edge of own) metrics.edges.inc({ severity: severityOf(edge), as: 'event' });
    if (own.length > 0) log.info({ edges: own.length }, 'new unexplained connections');
    if (rest.length > 0 && maySummarise) {
      this.#summaryAtMs = performance.now();
      for (const edge of rest) metrics.edges.inc({ severity: severityOf(edge), as: 'summary' });
      log.warn({ edges: rest.length }, 'too many new unexplained connections: the rest shares a summary');
    }
    for (const delivery of deliveries) {
      delivery.offer(
        records.filter(({ receiver, state }) => receiver === delivery.name && state === 'pending'),
      );
    }
    return maySummarise ? [] : rest;
  }

  /** An alert without its sample is better than none. */
  async #evidenceOf(edge: NewEdge): Promise<Evidence | null> {
    try {
      return await findEvidence(this.#parts.store, edge);
    } catch (error) {
      if (!(error instanceof StoreRefusedError)) throw error;
      this.#parts.log.error({ err: error, edge: edge.edge }, 'an alert goes without its sample of flows');
      return null;
    }
  }

  #recordsOf(id: string, edge: string, payload: string, createdMs: number): AlertRecord[] {
    const common = { id, edge, createdMs, attempts: 0, payload, updatedMs: createdMs };
    const { deliveries } = this.#parts;
    if (deliveries.length === 0) return [{ ...common, state: 'recorded', lastError: '', receiver: '' }];
    return deliveries.map((delivery) =>
      delivery.gone
        ? {
            ...common,
            state: 'failed',
            lastError: 'the receiver answered 410 Gone and is out of use',
            receiver: delivery.name,
          }
        : { ...common, state: 'pending', lastError: '', receiver: delivery.name },
    );
  }

  #summarise(edges: readonly NewEdge[], createdMs: number): AlertRecord[] {
    const { config } = this.#parts;
    const ids = edges.map(({ edge }) => edge).sort();
    const id = `msg_summary_${hash64(JSON.stringify(['summary', ids]))
      .toString(16)
      .padStart(16, '0')}`;
    const event = makeSummaryEvent(edges, createdMs, config.baseUrl);
    const parts = edges.map(
      ({ edge }): AlertRecord => ({
        id: messageIdOf(edge),
        edge,
        createdMs,
        state: 'summarised',
        attempts: 0,
        lastError: '',
        receiver: '',
        payload: JSON.stringify({ summary: id }),
        updatedMs: createdMs,
      }),
    );
    return [...parts, ...this.#recordsOf(id, '0', JSON.stringify(event), createdMs)];
  }
}
