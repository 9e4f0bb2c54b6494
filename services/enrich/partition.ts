/**
 * The life of one partition: messages become blocks, and each block goes plan -> insert -> commit (design, section 7).
 * One block is on its way to the store while the next one is built; a third waits, and with it the bus.
 */
import type { Logger } from 'pino';
import { type BusMessage, type Committed, FencedError, type TopicPartition } from '../../lib/bus/bus.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import { type BatchScheme, BlockBuilder, type BlockLimits } from './block.ts';
import { encodePlan, type Plan } from './plan.ts';
import type { SeenBatches } from './sequences.ts';

export interface PartitionDeps {
  readonly limits: BlockLimits;
  readonly lingerMs: number;
  readonly scheme: BatchScheme;
  /** Durable when it resolves. Rejects with FencedError when the partition is somebody else's. */
  readonly commit: (at: TopicPartition, committed: Committed) => Promise<void>;
  /**
   * Names, judges and inserts the block under the token of the plan; retries until it is done or `signal` is aborted.
   * `again`: somebody may have tried before.
   */
  readonly write: (
    at: TopicPartition,
    plan: Plan,
    block: BlockBuilder,
    again: boolean,
    signal: AbortSignal,
  ) => Promise<void>;
  readonly log: Logger;
  /** Told when the partition can't go on for another reason than being fenced. */
  readonly onFailure: (error: Error) => void;
}

export class PartitionWorker {
  readonly #at: TopicPartition;
  readonly #deps: PartitionDeps;
  readonly #seen: SeenBatches;
  readonly #stop = new AbortController();
  #building: BlockBuilder;
  #spare: BlockBuilder;
  /** Settles when the block on its way is committed. */
  #onItsWay: Promise<void> = Promise.resolve();
  #lingerTimer: NodeJS.Timeout | undefined;
  /** Range that must be written as one block before anything else, after a crash between plan and commit. */
  #replay: Plan | null;

  constructor(at: TopicPartition, deps: PartitionDeps, seen: SeenBatches, replay: Plan | null) {
    this.#at = at;
    this.#deps = deps;
    this.#seen = seen;
    this.#replay = replay;
    this.#building = new BlockBuilder(deps.limits, deps.scheme);
    this.#spare = new BlockBuilder(deps.limits, deps.scheme);
    this.#building.unlimited = replay !== null;
  }

  /** Takes messages in offset order; resolves when there is room for more. */
  async messages(messages: readonly BusMessage[]): Promise<void> {
    for (const message of messages) {
      if (this.#stop.signal.aborted) return;
      if (this.#replay !== null && message.offset > this.#replay.to) await this.#finishReplay();
      while (this.#building.take(message, this.#seen) === 'full') {
        await this.#send();
        if (this.#stop.signal.aborted) return;
      }
      if (this.#replay !== null && message.offset === this.#replay.to) await this.#finishReplay();
    }
    if (this.#replay !== null || this.#building.isEmpty) return;
    if (this.#building.columns.count >= this.#deps.limits.maxRows) await this.#send();
    else this.#armLinger();
  }

  #armLinger(): void {
    if (this.#lingerTimer !== undefined) return;
    this.#lingerTimer = setTimeout(() => {
      this.#lingerTimer = undefined;
      void this.#send();
    }, this.#deps.lingerMs);
  }

  async #finishReplay(): Promise<void> {
    const plan = this.#replay;
    this.#replay = null;
    if (plan !== null) await this.#send(plan);
  }

  /** Hands the block that was being built over, once the one before it is committed. */
  async #send(replayed?: Plan): Promise<void> {
    clearTimeout(this.#lingerTimer);
    this.#lingerTimer = undefined;
    await this.#onItsWay;
    const block = this.#building;
    const plan = replayed ?? block.range;
    // Another caller may have sent it while this one waited.
    if (plan === null || this.#stop.signal.aborted || (replayed === undefined && block.isEmpty)) return;
    this.#building = this.#spare;
    this.#spare = block;
    this.#onItsWay = this.#carry(plan, block, replayed !== undefined);
  }

  async #carry(plan: Plan, block: BlockBuilder, planned: boolean): Promise<void> {
    const at = this.#at;
    try {
      failpoint('enrich.before-plan');
      if (!planned) await this.#deps.commit(at, { offset: plan.from, metadata: encodePlan(plan) });
      failpoint('enrich.planned');
      await this.#deps.write(at, plan, block, planned, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      failpoint('enrich.written');
      await this.#deps.commit(at, { offset: plan.to + 1, metadata: '' });
      failpoint('enrich.committed');
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.stop();
      if (error instanceof FencedError) {
        this.#deps.log.warn(
          { ...at, plan },
          'partition went to another enricher, which redoes the planned range',
        );
      } else {
        this.#deps.onFailure(error instanceof Error ? error : new Error(String(error)));
      }
    } finally {
      block.clear();
    }
  }

  /** Writes what is held and resolves when it is committed. */
  async drain(): Promise<void> {
    if (this.#replay === null) await this.#send();
    await this.#onItsWay;
  }

  /** Drops what is held at once: whoever owns the partition next reads it again. */
  stop(): void {
    clearTimeout(this.#lingerTimer);
    this.#stop.abort();
  }
}
