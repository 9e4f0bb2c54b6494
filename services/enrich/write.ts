/** Names and judges flows, slice by slice, and inserts blocks of them under the plan's token, with their ledger. */
import type { Logger } from 'pino';
import type { Bus, TopicPartition } from '../../lib/bus/bus.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { Store } from '../../lib/store/store.ts';
import { topics } from '../../schemas/topics.ts';
import type { Catalog } from './catalog.ts';
import { countFlows } from './counts.ts';
import { closeLateRows, offerLateRows } from './late.ts';
import type { EnrichMetrics } from './metrics.ts';
import { Needs } from './needs.ts';
import { insertToken, type Plan } from './plan.ts';
import type { Repairer } from './repair.ts';
import { BlockNamer, judgeBlock, type NamedRows, silentSourceMs, spanOfBlock } from './resolve.ts';
import { retried } from './retry.ts';
import { flowsBlock, type LateRows, lateBlock, runsOf, type SliceContent } from './rows.ts';
import type { LedgerEntry, MovedMessage, SliceBuilder } from './slice.ts';
import { dateTime64 } from './time.ts';
import { AddressTraits } from './traits.ts';
import type { World } from './world.ts';

export interface WriterOptions {
  readonly world: World;
  readonly store: Store;
  readonly bus: Bus;
  readonly catalog: Catalog;
  readonly repairer: Repairer;
  readonly holdMs: number;
  readonly metrics: EnrichMetrics;
  readonly log: Logger;
}

/**
 * Longest wait of a block that is written again, ms: none of its rows can be put aside any more, so what is not settled then
 * stays late for good.
 */
const replayHoldMs = 60_000;
/** Longest time, ms, that a held slice waits for a watermark before it looks: what a source that is silent held back may be free. */
const holdLookMs = 1000;

function ledgerRow(at: TopicPartition, entry: LedgerEntry): Record<string, unknown> {
  const { header, message } = entry;
  // Agents' clocks may be off; everything in the store is by the common one.
  const common = (ms: number | undefined): string =>
    dateTime64(ms === undefined ? message.timestampMs : ms - (header?.clockOffsetMs ?? 0));
  return {
    agent: header?.agentId ?? message.key ?? '',
    boot: header?.bootId ?? '',
    sequence: header?.sequence ?? 0,
    cluster: header?.cluster ?? '',
    node: header?.node ?? '',
    source_kind: header?.sourceKind ?? '',
    observed_from: common(header?.observedFromMs),
    observed_to: common(header?.observedToMs),
    received: dateTime64(message.timestampMs),
    flows: entry.flowCount,
    flows_written: entry.writtenCount,
    flows_refused: entry.outcome === 'dead' ? entry.flowCount : 0,
    source_dropped: entry.outcome === 'resent' ? 0 : (header?.sourceDroppedCount ?? 0),
    sampling_rate: header?.samplingRate ?? 1,
    end_ages: entry.endAges.agesMs,
    end_flows: entry.endAges.flowCounts,
    outcome: entry.outcome,
    cause: entry.cause,
    topic: at.topic,
    bus_partition: at.partition,
    bus_offset: message.offset,
  };
}

/** A slice whose rows have their verdicts, and where they begin in the block. */
interface JudgedSlice {
  readonly firstRow: number;
  readonly named: NamedRows;
  readonly content: SliceContent;
}

function pendingRows({ firstRow, content }: JudgedSlice): LateRows {
  const { source, destination } = content.resolved;
  const isPending = (row: number): boolean => source.pending[row] === 1 || destination.pending[row] === 1;
  return { content, firstRow, runs: runsOf(content.columns.count, isPending) };
}

/** What pending rows of all slices wait for. */
function needsOf(judged: readonly JudgedSlice[]): Needs {
  const all = new Needs();
  for (const { named } of judged) if (named.pendingCount > 0) all.add(named.namer.needs);
  return all;
}

export class BlockWriter {
  readonly #options: WriterOptions;
  readonly #traits: AddressTraits;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#traits = new AddressTraits(options.world.inventory, options.world.policies.at(Date.now()).engine);
  }

  /**
   * Names the slice, and waits for the inventory to vouch for it while the wait lasts. `again`: another try may have
   * written some of it, and decided which of its rows are late.
   */
  async name(slice: SliceBuilder, again: boolean, signal: AbortSignal): Promise<void> {
    const { world, metrics } = this.#options;
    const { columns } = slice;
    if (columns.count === 0) return;
    await this.#catchUp(signal);
    let newestMs = 0;
    for (let row = 0; row < columns.count; row++) newestMs = Math.max(newestMs, columns.startMs[row] ?? 0);
    await world.compiledTo(newestMs);
    if (signal.aborted) return;
    const span = spanOfBlock(columns, world.policies);
    this.#traits.refresh(span.engine);
    const namer = new BlockNamer(columns, slice.batches, slice.resolved, world.inventory, this.#traits);
    const named: NamedRows = { namer, span, pendingCount: namer.nameAll() };
    slice.named = named;
    // Counted from the arrival of its oldest flow, so that no flow waits longer; a backlog does not wait at all.
    const arrivedMs = slice.ledger[0]?.message.timestampMs ?? Date.now();
    const deadlineMs = again
      ? Date.now() + replayHoldMs
      : Math.min(arrivedMs, Date.now()) + this.#options.holdMs;
    if (named.pendingCount > 0) metrics.held.inc();
    while (named.pendingCount > 0 && !signal.aborted) {
      const leftMs = deadlineMs - Date.now();
      // What waits for a source that is further behind than the wait can last is not worth holding the others back.
      if (leftMs <= 0 || namer.needs.shortestWaitMs(world.inventory, silentSourceMs) > leftMs) break;
      await world.nextWatermark(Math.min(leftMs, holdLookMs), signal);
      await this.#catchUp(signal);
      if (!signal.aborted && namer.needs.isMet(world.inventory, silentSourceMs)) this.#namePending([named]);
    }
  }

  /** Names those ends that are pending by what is known now. */
  #namePending(pending: readonly NamedRows[]): void {
    for (const named of pending) {
      this.#traits.refresh(named.span.engine);
      named.pendingCount = named.namer.namePending();
    }
  }

  /**
   * Resolves when the block of these slices, which are named, is in the store, for good; or when `signal` is aborted.
   * `again`: as when they were named.
   */
  async write(
    at: TopicPartition,
    plan: Plan,
    slices: readonly SliceBuilder[],
    again: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, catalog, metrics } = this.#options;
    const token = insertToken(at, plan);
    const ledger = slices.flatMap((slice) => slice.ledger);
    await this.#deadLetters(at, ledger, signal);
    await this.#handOn(
      slices.flatMap((slice) => slice.moved),
      signal,
    );
    const judged = await this.#judge(slices, signal);
    if (signal.aborted) return;
    if (judged.length > 0) {
      const stopTimer = metrics.insertSeconds.startTimer();
      const identities = judged.flatMap(({ content: { columns, resolved } }) => [
        resolved.source.identity.subarray(0, columns.count),
        resolved.destination.identity.subarray(0, columns.count),
      ]);
      await this.#retry(signal, 'writing identities', () => catalog.writeIdentities(identities));
      const receivedMs = ledger[0]?.message.timestampMs ?? Date.now();
      await this.#writeRows(at, plan, judged, again ? { receivedMs } : null, signal);
      stopTimer();
    }
    if (ledger.length > 0)
      await this.#retry(signal, 'writing the ledger', () =>
        store.insertRows(
          'batches',
          ledger.map((entry) => ledgerRow(at, entry)),
          `${token}#batches`,
        ),
      );
    if (!signal.aborted) this.#count(judged, ledger);
  }

  /** Gives verdicts to all slices that have rows, after a last look at what is pending: more may have become known. */
  async #judge(slices: readonly SliceBuilder[], signal: AbortSignal): Promise<JudgedSlice[]> {
    const { inventory, policies } = this.#options.world;
    const pending = slices.flatMap(({ named }) => (named !== null && named.pendingCount > 0 ? [named] : []));
    const judged: JudgedSlice[] = [];
    if (pending.length > 0) await this.#catchUp(signal);
    if (signal.aborted) return judged;
    this.#namePending(pending);
    let firstRow = 0;
    for (const { columns, batches, resolved, stored, named } of slices) {
      if (named === null) continue;
      const engines = judgeBlock(columns, resolved, inventory, policies, named.span);
      judged.push({ firstRow, named, content: { columns, resolved, stored, batches, inventory, engines } });
      firstRow += columns.count;
    }
    return judged;
  }

  async #catchUp(signal: AbortSignal): Promise<void> {
    const { world, holdMs } = this.#options;
    await this.#retry(signal, 'catching up with the inventory', () => world.catchUp(holdMs, signal));
  }

  /** Late rows to `flows_late`, the others to `flows`. `again` where another try may have decided which are late. */
  async #writeRows(
    at: TopicPartition,
    plan: Plan,
    judged: readonly JudgedSlice[],
    again: { readonly receivedMs: number } | null,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, repairer, metrics } = this.#options;
    let late: ReadonlySet<number> = new Set();
    if (again !== null) {
      await this.#retry(signal, 'reading late rows', async () => {
        late = await closeLateRows(store, at, plan, again.receivedMs);
      });
    } else if (judged.some(({ named }) => named.pendingCount > 0)) {
      const rows = lateBlock(judged.map(pendingRows), at.partition, plan.from);
      await this.#retry(signal, 'writing late rows', async () => {
        late = await offerLateRows(store, at, plan, rows);
      });
    }
    if (signal.aborted) return;
    failpoint('enrich.late-written');
    const isLate = late;
    const rows = flowsBlock(
      judged.map(({ content, firstRow }) => ({
        content,
        runs: isLate.size === 0 ? null : runsOf(content.columns.count, (row) => !isLate.has(firstRow + row)),
      })),
    );
    if (rows.rowCount > 0) {
      await this.#retry(signal, 'writing flows', () =>
        store.insertBlock('flows', rows, insertToken(at, plan)),
      );
    }
    if (signal.aborted) return;
    failpoint('enrich.flows-written');
    if (isLate.size > 0) {
      metrics.lateRows.inc(isLate.size);
      repairer.note(at.partition, plan.from, again === null ? needsOf(judged) : null);
    }
    for (const { content, firstRow } of judged)
      countFlows(metrics, content, (row) => !isLate.has(firstRow + row));
  }

  /** Sends what could not be read to `flows.dead`; after a crash it may be there twice. */
  async #deadLetters(at: TopicPartition, ledger: readonly LedgerEntry[], signal: AbortSignal): Promise<void> {
    const dead = ledger.filter((entry) => entry.outcome === 'dead');
    if (dead.length === 0) return;
    for (const { message, cause, detail } of dead.slice(0, 5)) {
      this.#options.log.warn(
        { ...at, offset: message.offset, agent: message.key, cause, detail },
        'batch refused, kept in flows.dead',
      );
    }
    await this.#retry(signal, 'keeping dead batches', () =>
      this.#options.bus.append(
        topics.dead,
        dead.map(({ message, cause, detail }) => ({
          key: message.key,
          value: message.value,
          headers: { reason: cause, detail, origin: `${at.topic}/${at.partition}/${message.offset}` },
        })),
      ),
    );
  }

  /** Sends batches of agents that are at home in other partitions there; after a crash again, which counts once there. */
  async #handOn(moved: readonly MovedMessage[], signal: AbortSignal): Promise<void> {
    if (moved.length === 0) return;
    this.#options.metrics.moved.inc(moved.length);
    await this.#retry(signal, 'handing batches on to another partition', () =>
      this.#options.bus.append(
        topics.flows,
        moved.map(({ message, agentId, partition }) => ({
          key: agentId,
          value: message.value,
          headers: message.headers,
          partition,
        })),
      ),
    );
  }

  async #retry(signal: AbortSignal, what: string, work: () => Promise<void>): Promise<void> {
    await retried(signal, this.#options.log, what, work, () => this.#options.metrics.insertRetries.inc());
  }

  #count(judged: readonly JudgedSlice[], ledger: readonly LedgerEntry[]): void {
    const { metrics } = this.#options;
    metrics.blocks.inc();
    metrics.rows.inc(judged.reduce((sum, { content }) => sum + content.columns.count, 0));
    const now = Date.now();
    for (const { outcome, cause, message } of ledger) {
      metrics.batches.inc({ outcome, cause });
      metrics.delaySeconds.observe((now - message.timestampMs) / 1000);
    }
  }
}
