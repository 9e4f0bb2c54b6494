/** One block to the store: names and judges its flows, then inserts rows and ledger under the plan's token. */
import type { Logger } from 'pino';
import type { Bus, TopicPartition } from '../../lib/bus/bus.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { Store } from '../../lib/store/store.ts';
import { topics } from '../../schemas/topics.ts';
import type { BlockBuilder, LedgerEntry, MovedMessage } from './block.ts';
import type { Catalog } from './catalog.ts';
import { countFlows } from './counts.ts';
import { closeLateRows, offerLateRows } from './late.ts';
import type { EnrichMetrics } from './metrics.ts';
import type { Needs } from './needs.ts';
import { insertToken, type Plan } from './plan.ts';
import type { Repairer } from './repair.ts';
import { BlockNamer, judgeBlock, silentSourceMs, spanOfBlock } from './resolve.ts';
import { pause, retried } from './retry.ts';
import { type BlockContent, flowsBlock, lateBlock, runsOf } from './rows.ts';
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
/** How often a held block looks whether the inventory has caught up, ms. */
const holdStepMs = 100;

interface NamedBlock {
  readonly content: BlockContent;
  /** What its pending rows wait for. */
  readonly needs: Needs;
  readonly hasPending: boolean;
}

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

export class BlockWriter {
  readonly #options: WriterOptions;
  readonly #traits: AddressTraits;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#traits = new AddressTraits(options.world.inventory, options.world.policies.at(Date.now()).engine);
  }

  /**
   * Resolves when the block is in the store, for good; or when `signal` is aborted. `again`: another try may have written
   * some of it, and decided which of its rows are late.
   */
  async write(
    at: TopicPartition,
    plan: Plan,
    block: BlockBuilder,
    again: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, metrics } = this.#options;
    const token = insertToken(at, plan);
    await this.#deadLetters(at, block.ledger, signal);
    await this.#handOn(block.moved, signal);
    if (block.columns.count > 0) {
      const named = await this.#name(block, again, signal);
      if (named === null) return;
      const stopTimer = metrics.insertSeconds.startTimer();
      await this.#retry(signal, 'writing identities', () =>
        this.#options.catalog.writeIdentities(
          [
            named.content.resolved.source.identity.slice(0, block.columns.count),
            named.content.resolved.destination.identity.slice(0, block.columns.count),
          ],
          block.columns.count,
        ),
      );
      await this.#writeRows(at, plan, block, named, again, signal);
      stopTimer();
    }
    if (block.ledger.length > 0)
      await this.#retry(signal, 'writing the ledger', () =>
        store.insertRows(
          'batches',
          block.ledger.map((entry) => ledgerRow(at, entry)),
          `${token}#batches`,
        ),
      );
    if (!signal.aborted) this.#count(block);
  }

  /** Names and judges the block, once the inventory vouches for it or the wait is over; null when `signal` was aborted. */
  async #name(block: BlockBuilder, again: boolean, signal: AbortSignal): Promise<NamedBlock | null> {
    const { world, metrics } = this.#options;
    await this.#catchUp(signal);
    if (signal.aborted) return null;
    const { columns, batches, resolved } = block;
    let newestMs = 0;
    for (let row = 0; row < columns.count; row++) newestMs = Math.max(newestMs, columns.startMs[row] ?? 0);
    await world.compiledTo(newestMs);
    const span = spanOfBlock(columns, world.policies);
    this.#traits.refresh(span.engine);
    const namer = new BlockNamer(columns, batches, resolved, world.inventory, this.#traits);
    // Counted from the arrival of its oldest flow, so that no flow waits longer; a backlog does not wait at all.
    const arrivedMs = block.ledger[0]?.message.timestampMs ?? Date.now();
    const deadlineMs = again
      ? Date.now() + replayHoldMs
      : Math.min(arrivedMs, Date.now()) + this.#options.holdMs;
    let pending = namer.nameAll();
    if (pending > 0) metrics.held.inc();
    while (pending > 0) {
      const leftMs = deadlineMs - Date.now();
      // What waits for a source that is further behind than the wait can last is not worth holding the others back.
      if (leftMs <= 0 || namer.needs.shortestWaitMs(world.inventory, silentSourceMs) > leftMs) break;
      await pause(Math.min(holdStepMs, leftMs), signal);
      await this.#catchUp(signal);
      if (signal.aborted) return null;
      this.#traits.refresh(span.engine);
      pending = namer.namePending();
    }
    const engines = judgeBlock(columns, resolved, world.inventory, world.policies, span);
    return {
      content: { columns, resolved, batches, inventory: world.inventory, engines },
      needs: namer.needs,
      hasPending: pending > 0,
    };
  }

  async #catchUp(signal: AbortSignal): Promise<void> {
    const { world, holdMs } = this.#options;
    await this.#retry(signal, 'catching up with the inventory', () => world.catchUp(holdMs, signal));
  }

  /** Late rows to `flows_late`, the others to `flows`. */
  async #writeRows(
    at: TopicPartition,
    plan: Plan,
    block: BlockBuilder,
    named: NamedBlock,
    again: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, repairer, metrics } = this.#options;
    const { content, needs, hasPending } = named;
    const { count } = content.columns;
    const { source, destination } = content.resolved;
    let late: ReadonlySet<number> = new Set();
    if (again) {
      const receivedMs = block.ledger[0]?.message.timestampMs ?? Date.now();
      await this.#retry(signal, 'reading late rows', async () => {
        late = await closeLateRows(store, at, plan, receivedMs);
      });
    } else if (hasPending) {
      const runs = runsOf(count, (row) => source.pending[row] === 1 || destination.pending[row] === 1);
      const rows = lateBlock(content, runs, at.partition, plan.from);
      await this.#retry(signal, 'writing late rows', async () => {
        late = await offerLateRows(store, at, plan, rows);
      });
    }
    if (signal.aborted) return;
    failpoint('enrich.late-written');
    const isLate = late;
    const rows =
      isLate.size === 0
        ? flowsBlock(content)
        : flowsBlock(
            content,
            runsOf(count, (row) => !isLate.has(row)),
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
      repairer.note(at.partition, plan.from, again ? null : needs);
    }
    countFlows(metrics, content, (row) => !isLate.has(row));
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

  #count(block: BlockBuilder): void {
    const { metrics } = this.#options;
    metrics.blocks.inc();
    metrics.rows.inc(block.columns.count);
    const now = Date.now();
    for (const { outcome, cause, message } of block.ledger) {
      metrics.batches.inc({ outcome, cause });
      metrics.delaySeconds.observe((now - message.timestampMs) / 1000);
    }
  }
}
