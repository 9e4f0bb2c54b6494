/**
 * The life of one partition: messages become blocks, and each block goes plan -> insert -> commit (design, section 7).
 * One block is on its way to the store while the next one is built; a third waits, and with it the bus.
 */
import type { Logger } from 'pino';
import { type BusMessage, type Committed, FencedError, type TopicPartition } from '../../lib/bus/bus.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import { type BatchScheme, BlockBuilder, type BlockLimits } from './block.ts';
import type { Home } from './home.ts';
import { encodeMark, type Plan } from './plan.ts';
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
  /** Which agents are at home here, and their batches that were seen. */
  #home: Home;
  #seen: SeenBatches;
  readonly #stop = new AbortController();
  #building: BlockBuilder;
  #spare: BlockBuilder;
  /** Settles when the block on its way is committed. */
  #onItsWay: Promise<void> = Promise.resolve();
  #lingerTimer: NodeJS.Timeout | undefined;
  /** Range that must be written as one block before anything else, after a crash between plan and commit. */
  #replay: Plan | null;
  /** Settles when the range is committed. */
  readonly #replayed = Promise.withResolvers<void>();
  /** While the number of partitions changes nothing is taken, until this settles. */
  #gate: PromiseWithResolvers<void> | null = null;
  /** Next offset that is not committed. */
  #committedTo: number;

  /**
   * Begins at `offset`. A range to `replay` is built at once, by the number of partitions in `home`; other messages are
   * taken once {@link begin} is called.
   */
  constructor(
    at: TopicPartition,
    deps: PartitionDeps,
    start: {
      readonly offset: number;
      readonly partitionCount: number;
      readonly seen: SeenBatches;
      readonly replay: Plan | null;
    },
  ) {
    const { offset, partitionCount, seen, replay } = start;
    this.#at = at;
    this.#deps = deps;
    this.#home = { partition: at.partition, partitionCount };
    this.#seen = seen;
    this.#replay = replay;
    this.#committedTo = offset;
    if (replay === null) {
      this.#gate = Promise.withResolvers();
      this.#replayed.resolve();
    }
    this.#building = new BlockBuilder(deps.limits, deps.scheme);
    this.#spare = new BlockBuilder(deps.limits, deps.scheme);
    this.#building.unlimited = replay !== null;
  }

  /** Takes messages in offset order; resolves when there is room for more. */
  async messages(messages: readonly BusMessage[]): Promise<void> {
    for (const message of messages) {
      if (this.#replay !== null && message.offset > this.#replay.to) await this.#finishReplay();
      for (;;) {
        while (this.#gate !== null && !this.#stop.signal.aborted) await this.#gate.promise;
        if (this.#stop.signal.aborted) return;
        if (this.#building.take(message, this.#home, this.#seen) === 'taken') break;
        await this.#send();
      }
      if (this.#replay !== null && message.offset === this.#replay.to) await this.#finishReplay();
    }
    if (this.#replay !== null || this.#building.isEmpty) return;
    if (this.#building.columns.count >= this.#deps.limits.maxRows) await this.#send();
    else this.#armLinger();
  }

  /** Signal that ends with this holding of the partition. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Settles when a range that had to be built again is committed. */
  get replayed(): Promise<void> {
    return this.#replayed.promise;
  }

  get home(): Home {
    return this.#home;
  }

  /** Next offset of which nothing is committed; meant for when nothing is on its way. */
  get committedTo(): number {
    return this.#committedTo;
  }

  /**
   * From now on nothing more is taken by the old number of partitions, which everybody may know when this resolves:
   * what was taken is written, and the new number is committed.
   */
  async adopt(partitionCount: number): Promise<void> {
    await this.#replayed.promise;
    this.#gate ??= Promise.withResolvers();
    await this.#send();
    await this.#onItsWay;
    if (this.#stop.signal.aborted) return;
    try {
      await this.#deps.commit(this.#at, {
        offset: this.#committedTo,
        metadata: encodeMark({ plan: null, partitionCount }),
      });
      this.#home = { ...this.#home, partitionCount };
    } catch (error) {
      if (!(error instanceof FencedError)) throw error;
      this.stop();
    }
  }

  /** Takes messages, by the number of partitions that was adopted last. */
  begin(seen: SeenBatches): void {
    this.#seen = seen;
    this.#gate?.resolve();
    this.#gate = null;
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
    // What follows is taken by the number of partitions that is agreed on next.
    this.#gate ??= Promise.withResolvers();
    if (plan !== null) await this.#send(plan);
    // Until it is committed nobody can tell from the ledger what was seen.
    await this.#onItsWay;
    this.#replayed.resolve();
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
      const { partitionCount } = this.#home;
      if (!planned)
        await this.#deps.commit(at, { offset: plan.from, metadata: encodeMark({ plan, partitionCount }) });
      failpoint('enrich.planned');
      await this.#deps.write(at, plan, block, planned, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      failpoint('enrich.written');
      await this.#deps.commit(at, {
        offset: plan.to + 1,
        metadata: encodeMark({ plan: null, partitionCount }),
      });
      this.#committedTo = plan.to + 1;
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
    this.#replayed.resolve();
    this.#gate?.resolve();
  }
}
