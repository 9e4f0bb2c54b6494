/**
 * Repairs late rows: when the inventory vouches for their time (or never will), they are read back, named and judged anew,
 * and replaced by a cancelling row and a new one in one insert. Rollups follow through the views. Whoever owns the
 * partition repairs its rows; the store remembers what is due, so nothing is lost with a process.
 */
import type { Logger } from 'pino';
import { ruleId } from '../../lib/inventory/ids.ts';
import { type PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../../lib/policy/engine.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { Store } from '../../lib/store/store.ts';
import { certainties, provenances, reasons, verdicts } from '../../schemas/closed-lists.ts';
import type { Catalog } from './catalog.ts';
import { countFlows } from './counts.ts';
import { applyRepair, firstPass, lastPassOf, lateTable, offerRepair } from './late.ts';
import { columnsOfLate, type LateRow } from './late-columns.ts';
import type { EnrichMetrics } from './metrics.ts';
import type { Needs } from './needs.ts';
import {
  BlockNamer,
  type EndColumns,
  judgeBlock,
  makeResolvedColumns,
  type ResolvedColumns,
  silentSourceMs,
  spanOfBlock,
} from './resolve.ts';
import { pause } from './retry.ts';
import { AddressTraits } from './traits.ts';
import type { World } from './world.ts';

export interface RepairerOptions {
  readonly world: World;
  readonly store: Store;
  readonly catalog: Catalog;
  readonly intervalMs: number;
  /** How long late rows wait for the inventory, ms. */
  readonly windowMs: number;
  readonly maxRows: number;
  readonly metrics: EnrichMetrics;
  readonly log: Logger;
}

interface PendingPartition {
  readonly blocks: Map<number, PendingBlock>;
  /** Number of the last repair of the partition that is sure to be written. */
  lastPass: number;
}

interface PendingBlock {
  /** When its rows were written first, ms. */
  readonly writtenMs: number;
  /** What its rows wait for; null where that is not known yet. */
  needs: Needs | null;
}

/** Longest wait for the inventory topic before a look, ms. */
const catchUpMs = 1000;

/** Blocks that are looked at together. */
const maxBlocksAtOnce = 512;

const ofBlocks = `bus_partition = {partition:UInt32} AND block IN {blocks:Array(UInt64)} AND sign = 1`;

export class Repairer {
  readonly #options: RepairerOptions;
  readonly #traits: AddressTraits;
  readonly #pending = new Map<number, PendingPartition>();
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: RepairerOptions) {
    this.#options = options;
    this.#traits = new AddressTraits(
      options.world.inventory,
      options.world.policies.at(Date.now()).engine,
      12,
    );
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Takes over what is due in a partition, after the end of a repair that another one may have left half done. */
  async assigned(partition: number): Promise<void> {
    const lastPass = await lastPassOf(this.#options.store, partition);
    if (lastPass > firstPass) await applyRepair(this.#options.store, partition, lastPass);
    const rows = await this.#options.store.query<{ block: string; written_ms: string }>(
      `SELECT block, min(toUnixTimestamp64Milli(written)) AS written_ms FROM ${lateTable} FINAL
       WHERE bus_partition = {partition:UInt32} AND pending = 1 AND sign = 1
       GROUP BY block ORDER BY block`,
      { partition },
    );
    this.#pending.set(partition, {
      blocks: new Map(
        rows.map(({ block, written_ms }) => [Number(block), { writtenMs: Number(written_ms), needs: null }]),
      ),
      lastPass,
    });
    this.#gauge();
  }

  revoked(partition: number): void {
    this.#pending.delete(partition);
    this.#gauge();
  }

  /** A block was written with late rows. `needs` is null where it isn't known what they wait for. */
  note(partition: number, block: number, needs: Needs | null): void {
    this.#pending.get(partition)?.blocks.set(block, { writtenMs: Date.now(), needs });
    this.#gauge();
  }

  #gauge(): void {
    let count = 0;
    for (const { blocks } of this.#pending.values()) count += blocks.size;
    this.#options.metrics.pendingBlocks.set(count);
  }

  async #run(): Promise<void> {
    const { world, intervalMs, log } = this.#options;
    const { signal } = this.#stop;
    let hasMore = false;
    for (;;) {
      if (!hasMore) await pause(intervalMs, signal);
      hasMore = false;
      if (signal.aborted) return;
      if (![...this.#pending.values()].some(({ blocks }) => blocks.size > 0)) continue;
      try {
        await world.catchUp(catchUpMs, signal);
        hasMore = await this.#repairDue();
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, 'late flows are not repaired yet, tried again');
      }
    }
  }

  /** One pass over each partition, so that none waits for another's backlog. Returns whether there is more to do at once. */
  async #repairDue(): Promise<boolean> {
    let hasMore = false;
    for (const [partition, pending] of this.#pending) {
      const { blocks } = pending;
      if (this.#stop.signal.aborted) return false;
      const due = this.#dueOf(blocks);
      if (due.size === 0) continue;
      await this.#repairBlocks(partition, pending, due);
      const left = await this.#leftOf(partition, due);
      // Lost meanwhile: whoever has the partition now goes on.
      if (this.#pending.get(partition) !== pending) continue;
      for (const block of due.keys()) if (!left.has(block)) blocks.delete(block);
      hasMore ||= due.size === maxBlocksAtOnce && left.size < due.size;
    }
    this.#gauge();
    return hasMore;
  }

  /** The oldest blocks that can be repaired, or that have waited long enough. */
  #dueOf(blocks: ReadonlyMap<number, PendingBlock>): Map<number, PendingBlock> {
    const { world, windowMs } = this.#options;
    const due = new Map<number, PendingBlock>();
    for (const [block, pending] of blocks) {
      const isOver = pending.writtenMs + windowMs <= Date.now();
      const isMet = pending.needs === null || pending.needs.isMet(world.inventory, silentSourceMs);
      if (isOver || isMet) due.set(block, pending);
      if (due.size === maxBlocksAtOnce) break;
    }
    return due;
  }

  /** Blocks of which rows are pending still. What counts is what the store has: others may be at it at the same time. */
  async #leftOf(partition: number, due: ReadonlyMap<number, PendingBlock>): Promise<Set<number>> {
    const rows = await this.#options.store.query<{ block: string }>(
      `SELECT DISTINCT block FROM ${lateTable} FINAL WHERE ${ofBlocks} AND pending = 1`,
      { partition, blocks: [...due.keys()] },
    );
    return new Set(rows.map(({ block }) => Number(block)));
  }

  /** Repairs what can be repaired of these blocks in one insert, as many rows as one may have. */
  async #repairBlocks(
    partition: number,
    of: PendingPartition,
    due: ReadonlyMap<number, PendingBlock>,
  ): Promise<void> {
    const { world, store, catalog, maxRows, metrics } = this.#options;
    // Whoever decides a repair has seen the one before it written: of two enrichers at a partition one succeeds at each.
    const pass = of.lastPass + 1;
    const rows = await store.query<LateRow>(
      `SELECT *, toUnixTimestamp64Milli(start_ms) AS start_ms_epoch FROM ${lateTable} FINAL
       WHERE ${ofBlocks} AND pending = 1 ORDER BY block, row LIMIT {limit:UInt32}`,
      { partition, blocks: [...due.keys()], limit: maxRows },
    );
    const { inventory, policies } = world;
    const { columns, batches } = columnsOfLate(rows, (name) => inventory.network(name));
    const resolved = makeResolvedColumns(rows.length);
    const span = spanOfBlock(columns, policies);
    this.#traits.refresh(span.engine);
    const namer = new BlockNamer(columns, batches, resolved, inventory, this.#traits);
    namer.nameAll();
    const engines = judgeBlock(columns, resolved, inventory, policies, span);
    for (const pending of due.values()) pending.needs = namer.needs;
    const isSettled = (i: number): boolean =>
      resolved.source.pending[i] === 0 && resolved.destination.pending[i] === 0;
    const isOver = (i: number): boolean => {
      const writtenMs = due.get(Number(rows[i]?.block))?.writtenMs ?? Number.POSITIVE_INFINITY;
      return writtenMs + this.#options.windowMs <= Date.now();
    };
    const replaced: Record<string, unknown>[] = [];
    const repaired = rows.map((row, i) => {
      if (!isSettled(i) && !isOver(i)) return false;
      const { start_ms_epoch: _, written: __, ...stored } = row;
      replaced.push({ ...stored, pass, sign: -1 });
      replaced.push({
        ...stored,
        ...this.#named(resolved, i, engines),
        pass,
        version: pass,
        sign: 1,
        pending: 0,
      });
      return true;
    });
    if (replaced.length === 0) return;
    await catalog.writeIdentities([resolved.source.identity, resolved.destination.identity]);
    failpoint('enrich.before-repair');
    await offerRepair(store, partition, pass, replaced);
    of.lastPass = pass;
    failpoint('enrich.repaired');
    const settledCount = repaired.filter((isRepaired, i) => isRepaired && isSettled(i)).length;
    metrics.repairedRows.inc({ outcome: 'settled' }, settledCount);
    if (replaced.length / 2 > settledCount)
      metrics.repairedRows.inc({ outcome: 'given-up' }, replaced.length / 2 - settledCount);
    countFlows(metrics, { columns, resolved }, (i) => repaired[i] === true);
  }

  /** The columns that naming and judging give to a row. */
  #named(resolved: ResolvedColumns, i: number, engines: readonly PolicyEngine[]): Record<string, unknown> {
    const { inventory } = this.#options.world;
    const end = (prefix: string, columns: EndColumns): Record<string, unknown> => ({
      [`${prefix}_workload`]: String(
        (BigInt(columns.workload[i * 2 + 1] ?? 0) << 32n) | BigInt(columns.workload[i * 2] ?? 0),
      ),
      [`${prefix}_identity`]: String(inventory.identities.list[columns.identity[i] ?? 0]?.id ?? 0n),
      [`${prefix}_provenance`]: provenances[columns.provenance[i] ?? 0] ?? 'none',
      [`${prefix}_certainty`]: certainties[columns.certainty[i] ?? 0] ?? 'none',
    });
    const packed = resolved.verdict[i] ?? 0;
    const engine = engines[resolved.judge[i] ?? 0];
    const compiled = engine?.rules[ruleOf(packed)];
    return {
      ...end('src', resolved.source),
      ...end('dst', resolved.destination),
      verdict: verdicts[verdictCodeOf(packed)] ?? 'unexplained',
      reason: reasons[reasonCodeOf(packed)] ?? 'no-rule',
      rule: compiled === undefined ? '0' : String(ruleId(compiled.ruleset.name, compiled.rule.name)),
      policy: engine?.version ?? 0,
    };
  }
}
