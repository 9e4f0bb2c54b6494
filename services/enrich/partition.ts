/**
 * The life of one partition: messages become slices, which are named at once and may wait for their inventory; those that
 * are ready, and were not before, become a block, and each block goes plan -> insert -> commit (design, section 7). The
 * longer that takes the more the next block has. When there is no room for more rows the bus waits.
 */

import type { Logger } from 'pino';
import { type BusMessage, type Committed, FencedError, type TopicPartition } from '../../lib/bus/bus.ts';
import { asError } from '../../lib/runtime/as-error.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { Home } from './home.ts';
import { encodeMark, type Plan } from './plan.ts';
import { pause } from './retry.ts';
import type { SeenBatches } from './sequences.ts';
import { type BatchScheme, type BlockLimits, SliceBuilder } from './slice.ts';

export interface PartitionDeps {
  readonly limits: BlockLimits;
  readonly lingerMs: number;
  readonly scheme: BatchScheme;
  /** Durable when it resolves. Rejects with FencedError when the partition is somebody else's. */
  readonly commit: (at: TopicPartition, committed: Committed) => Promise<void>;
  /** Resolves when the slice is named as well as it can be, or `signal` is aborted. `again`: somebody may have tried before. */
  readonly name: (slice: SliceBuilder, again: boolean, signal: AbortSignal) => Promise<void>;
  /**
   * Inserts the block of these slices, which are named, under the token of the plan; retries until that is done or `signal`
   * is aborted.
   */
  readonly write: (
    at: TopicPartition,
    plan: Plan,
    slices: readonly SliceBuilder[],
    again: boolean,
    signal: AbortSignal,
  ) => Promise<void>;
  readonly log: Logger;
  /** Told when the partition can't go on for another reason than being fenced. */
  readonly onFailure: (error: Error) => void;
}

/** Longest time, ms, that messages are collected into one slice: from then on it is named. */
const sliceMs = 100;
/** Most slices that wait: the one that is built grows until there is room. */
const maxSlices = 64;

/** A slice that grows no more. */
interface Slice {
  readonly builder: SliceBuilder;
  readonly range: Plan;
  /** Its range is planned already, as a block of its own. */
  readonly isPlanned: boolean;
  readonly naming: Promise<void>;
  isReady: boolean;
}

export class PartitionWorker {
  readonly #at: TopicPartition;
  readonly #deps: PartitionDeps;
  /** Which agents are at home here, and their batches that were seen. */
  #home: Home;
  #seen: SeenBatches;
  readonly #stop = new AbortController();
  #building: SliceBuilder;
  readonly #spares: SliceBuilder[] = [];
  /** What was handed over, in its order, and is in no block yet. */
  #waiting: Slice[] = [];
  /** The block on its way. */
  #inHand: readonly Slice[] = [];
  /** Settles when a block was committed, or never will be. */
  #landed = Promise.withResolvers<void>();
  /** Makes blocks of what waits; settles when all that was handed over is committed, or never will be. */
  #running: Promise<void> | null = null;
  /** Ends waiting for larger blocks. */
  readonly #hurry = new AbortController();
  #nextTurnMs = 0;
  #sliceTimer: NodeJS.Timeout | undefined;
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
    this.#building = new SliceBuilder(deps.limits, deps.scheme);
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
    if (this.#building.isFull) await this.#send();
    else this.#armTimer();
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
    await this.#running;
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

  #armTimer(): void {
    if (this.#sliceTimer !== undefined) return;
    this.#sliceTimer = setTimeout(() => {
      this.#sliceTimer = undefined;
      void this.#send();
    }, sliceMs);
  }

  async #finishReplay(): Promise<void> {
    const plan = this.#replay;
    this.#replay = null;
    // What follows is taken by the number of partitions that is agreed on next.
    this.#gate ??= Promise.withResolvers();
    if (plan !== null) await this.#send(plan);
    // Until it is committed nobody can tell from the ledger what was seen.
    await this.#running;
    this.#replayed.resolve();
  }

  /** Hands the slice that is being built over, once there is room for it. It grows until then. */
  async #send(replayed?: Plan): Promise<void> {
    clearTimeout(this.#sliceTimer);
    this.#sliceTimer = undefined;
    const builder = this.#building;
    const { signal } = this.#stop;
    while (!this.#hasRoomFor(builder) && !signal.aborted) await this.#landed.promise;
    // Another caller may have sent it while this one waited.
    if (builder !== this.#building || signal.aborted) return;
    const range = replayed ?? builder.range;
    if (range === null || (replayed === undefined && builder.isEmpty)) return;
    this.#building = this.#spares.pop() ?? new SliceBuilder(this.#deps.limits, this.#deps.scheme);
    const isPlanned = replayed !== undefined;
    const naming = this.#deps.name(builder, isPlanned, signal).then(() => {
      slice.isReady = true;
    });
    // Whoever makes a block of it hears of it.
    naming.catch(() => undefined);
    const slice: Slice = { builder, range, isPlanned, naming, isReady: false };
    this.#waiting.push(slice);
    this.#running ??= this.#run();
  }

  #hasRoomFor(builder: SliceBuilder): boolean {
    const held = [...this.#inHand, ...this.#waiting].map((slice) => slice.builder);
    return held.length === 0 || (held.length < maxSlices && this.#fits([...held, builder], 2));
  }

  /** Whether slices are within the limits of so many blocks. */
  #fits(builders: readonly SliceBuilder[], blockCount: number): boolean {
    const { maxRows, maxBytes } = this.#deps.limits;
    let rows = 0;
    let bytes = 0;
    for (const { columns, byteCount } of builders) {
      rows += columns.count;
      bytes += byteCount;
    }
    return rows <= blockCount * maxRows && bytes <= blockCount * maxBytes;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    try {
      while (!signal.aborted) {
        const [first] = this.#waiting;
        if (first === undefined) break;
        await pause(this.#nextTurnMs - Date.now(), this.#hurry.signal);
        await first.naming;
        if (signal.aborted) break;
        this.#nextTurnMs = Date.now() + this.#deps.lingerMs;
        await this.#carry(this.#takeReady(first));
      }
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
    this.#running = null;
  }

  /** The slices that are ready, from the first one on, as many as a block may have. */
  #takeReady(first: Slice): [Slice, ...Slice[]] {
    const block: [Slice, ...Slice[]] = [first];
    const builders = [first.builder];
    for (const slice of this.#waiting.slice(1)) {
      builders.push(slice.builder);
      if (first.isPlanned || !slice.isReady || !this.#fits(builders, 1)) break;
      block.push(slice);
    }
    this.#waiting = this.#waiting.slice(block.length);
    this.#inHand = block;
    return block;
  }

  async #carry(block: readonly [Slice, ...Slice[]]): Promise<void> {
    const [first] = block;
    const last = block.at(-1) ?? first;
    const at = this.#at;
    const { signal } = this.#stop;
    const plan = { from: first.range.from, to: last.range.to };
    const { isPlanned } = first;
    const { partitionCount } = this.#home;
    failpoint('enrich.before-plan');
    if (!isPlanned)
      await this.#deps.commit(at, { offset: plan.from, metadata: encodeMark({ plan, partitionCount }) });
    failpoint('enrich.planned');
    await this.#deps.write(
      at,
      plan,
      block.map(({ builder }) => builder),
      isPlanned,
      signal,
    );
    if (signal.aborted) return;
    failpoint('enrich.written');
    await this.#deps.commit(at, {
      offset: plan.to + 1,
      metadata: encodeMark({ plan: null, partitionCount }),
    });
    this.#committedTo = plan.to + 1;
    failpoint('enrich.committed');
    for (const { builder } of block) this.#release(builder);
    this.#inHand = [];
    this.#landed.resolve();
    this.#landed = Promise.withResolvers();
  }

  #fail(error: unknown): void {
    this.stop();
    if (error instanceof FencedError)
      this.#deps.log.warn(this.#at, 'partition went to another enricher, which redoes what was planned');
    else this.#deps.onFailure(asError(error));
  }

  /** Keeps the builder for further slices, as long as all that are kept are no more than room for two blocks. */
  #release(builder: SliceBuilder): void {
    builder.clear();
    const rows = this.#spares.reduce((sum, { columns }) => sum + columns.capacity, builder.columns.capacity);
    if (rows <= 2 * this.#deps.limits.maxRows) this.#spares.push(builder);
  }

  /** Writes what is held and resolves when it is committed. */
  async drain(): Promise<void> {
    this.#hurry.abort();
    if (this.#replay === null) await this.#send();
    await this.#running;
  }

  /** Drops what is held at once: whoever owns the partition next reads it again. */
  stop(): void {
    clearTimeout(this.#sliceTimer);
    this.#stop.abort();
    this.#hurry.abort();
    this.#landed.resolve();
    this.#replayed.resolve();
    this.#gate?.resolve();
  }
}
