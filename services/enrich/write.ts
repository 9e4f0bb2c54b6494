/** One block to the store: names and judges its flows, then inserts rows and ledger under the plan's token. */
import type { Logger } from 'pino';
import type { Bus, TopicPartition } from '../../lib/bus/bus.ts';
import type { Store } from '../../lib/store/store.ts';
import { certainties, provenances, reasons, verdicts } from '../../schemas/closed-lists.ts';
import { topics } from '../../schemas/topics.ts';
import type { BlockBuilder, LedgerEntry } from './block.ts';
import type { Catalog } from './catalog.ts';
import type { EnrichMetrics } from './metrics.ts';
import { insertToken, type Plan } from './plan.ts';
import { judgeBlock, type ResolvedColumns, resolveBlock } from './resolve.ts';
import { pause, retried } from './retry.ts';
import { flowsBlock } from './rows.ts';
import { dateTime64 } from './time.ts';
import { AddressTraits } from './traits.ts';
import type { World } from './world.ts';

export interface WriterOptions {
  readonly world: World;
  readonly store: Store;
  readonly bus: Bus;
  readonly catalog: Catalog;
  readonly holdMs: number;
  readonly metrics: EnrichMetrics;
  readonly log: Logger;
}

/** How often a held block looks whether the inventory has caught up, ms. */
const holdStepMs = 50;

function ledgerRow(at: TopicPartition, entry: LedgerEntry): Record<string, unknown> {
  const { header, message } = entry;
  return {
    agent: header?.agentId ?? message.key ?? '',
    boot: header?.bootId ?? '',
    sequence: header?.sequence ?? 0,
    cluster: header?.cluster ?? '',
    node: header?.node ?? '',
    source_kind: header?.sourceKind ?? '',
    observed_from: dateTime64(header?.observedFromMs ?? message.timestampMs),
    observed_to: dateTime64(header?.observedToMs ?? message.timestampMs),
    received: dateTime64(message.timestampMs),
    flows: entry.flowCount,
    flows_written: entry.writtenCount,
    flows_refused: entry.outcome === 'dead' ? entry.flowCount : 0,
    source_dropped: entry.outcome === 'written' ? (header?.sourceDroppedCount ?? 0) : 0,
    sampling_rate: header?.samplingRate ?? 1,
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
  /** Addresses waited for in vain are not waited for again until the inventory changes. */
  #heldInVainAt = -1;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#traits = new AddressTraits(options.world.inventory, options.world.engine);
  }

  /** Resolves when the block is in the store, for good; or when `signal` is aborted. */
  async write(at: TopicPartition, plan: Plan, block: BlockBuilder, signal: AbortSignal): Promise<void> {
    const { store, metrics } = this.#options;
    const token = insertToken(at, plan);
    await this.#deadLetters(at, block.ledger, signal);
    if (block.columns.count > 0) {
      await this.#retry(signal, 'catching up with the inventory', () =>
        this.#options.world.catchUp(this.#options.holdMs, signal),
      );
      await this.#waitForInventory(block, signal);
      if (signal.aborted) return;
      const prepared = this.#prepare(block);
      const stopTimer = metrics.insertSeconds.startTimer();
      await this.#retry(signal, 'writing identities', () =>
        this.#options.catalog.writeIdentities(prepared.identityColumns, block.columns.count),
      );
      await this.#retry(signal, 'writing flows', () => store.insertBlock('flows', prepared.rows, token));
      stopTimer();
    }
    await this.#retry(signal, 'writing the ledger', () =>
      store.insertRows(
        'batches',
        block.ledger.map((entry) => ledgerRow(at, entry)),
        `${token}#batches`,
      ),
    );
    if (!signal.aborted) this.#count(block);
  }

  /** Names and judges the block as inventory and policy are now. */
  #prepare(block: BlockBuilder): { rows: ReturnType<typeof flowsBlock>; identityColumns: Int32Array[] } {
    const { world } = this.#options;
    const { columns, batches, resolved } = block;
    this.#resolve(block);
    const engine = world.engine;
    judgeBlock(columns, resolved, world.inventory, engine);
    this.#countFlows(columns.count, resolved);
    return {
      rows: flowsBlock(columns, resolved, batches, world.inventory, engine),
      identityColumns: [
        resolved.source.identity.slice(0, columns.count),
        resolved.destination.identity.slice(0, columns.count),
      ],
    };
  }

  /** Names both ends of all flows; returns how many ends have a pod address without an owner. */
  #resolve(block: BlockBuilder): number {
    const { inventory, engine } = this.#options.world;
    this.#traits.refresh(engine);
    return resolveBlock(block.columns, block.batches, block.resolved, inventory, this.#traits);
  }

  /** Waits, within bounds, until every pod address of the block has an owner. */
  async #waitForInventory(block: BlockBuilder, signal: AbortSignal): Promise<void> {
    const { holdMs, world, metrics } = this.#options;
    const { inventory } = world;
    const oldest = block.ledger[0]?.message.timestampMs ?? Date.now();
    const deadline = Math.min(oldest, Date.now()) + holdMs;
    if (deadline <= Date.now() || this.#heldInVainAt === inventory.generation) return;
    let seenGeneration = -1;
    let held = false;
    while (!signal.aborted) {
      if (inventory.generation !== seenGeneration) {
        seenGeneration = inventory.generation;
        if (this.#resolve(block) === 0) return;
      }
      if (Date.now() >= deadline) {
        this.#heldInVainAt = inventory.generation;
        return;
      }
      if (!held) metrics.held.inc();
      held = true;
      await pause(holdStepMs, signal);
    }
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

  #countFlows(count: number, resolved: ResolvedColumns): void {
    const { metrics } = this.#options;
    const byVerdict = new Uint32Array(64);
    for (let row = 0; row < count; row++) {
      const code = (resolved.verdict[row] ?? 0) & 63;
      byVerdict[code] = (byVerdict[code] ?? 0) + 1;
    }
    byVerdict.forEach((value, code) => {
      if (value > 0)
        metrics.verdicts.inc({ verdict: verdicts[code & 3] ?? '', reason: reasons[code >> 2] ?? '' }, value);
    });
    for (const [end, columns] of [
      ['source', resolved.source],
      ['destination', resolved.destination],
    ] as const) {
      const byKind = new Uint32Array(64);
      for (let row = 0; row < count; row++) {
        const code = (columns.provenance[row] ?? 0) * 8 + (columns.certainty[row] ?? 0);
        byKind[code] = (byKind[code] ?? 0) + 1;
      }
      byKind.forEach((value, code) => {
        if (value === 0) return;
        metrics.certainties.inc(
          { end, provenance: provenances[code >> 3] ?? '', certainty: certainties[code & 7] ?? '' },
          value,
        );
      });
    }
  }
}
