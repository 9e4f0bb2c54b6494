/** Keeps the partitions of this process, and with them all others, reckoning with one number of partitions: see home.ts. */

import type { Logger } from 'pino';
import type { Bus, TopicPartition } from '../../lib/bus/bus.ts';
import { asError } from '../../lib/runtime/as-error.ts';
import { enrichGroup } from '../../schemas/topics.ts';
import type { Home } from './home.ts';
import type { PartitionWorker } from './partition.ts';
import { decodeMark } from './plan.ts';
import { pause, retried } from './retry.ts';
import type { SeenBatches } from './sequences.ts';

/** How often a partition that waits looks whether the others reckon with its number of partitions, ms. */
const lookMs = 200;
/** How often it is looked whether partitions were added, ms. */
const watchMs = 2000;

/** Whoever holds a partition, as far as the number of partitions is concerned. */
export interface CountHolder {
  readonly home: Home;
  /** From when it resolves everybody may know that this partition reckons with the number. */
  adopt(partitionCount: number): Promise<void>;
}

/** Resolves once every partition of the topic reckons with one number, this one too; or when `signal` is aborted. */
export async function agreeOnCount(
  bus: Pick<Bus, 'positions'>,
  topic: string,
  holder: CountHolder,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const positions = await bus.positions(topic, enrichGroup);
    const counts = positions.map(({ committed }) => decodeMark(committed?.metadata ?? '').partitionCount);
    // What a broker says may be old: others may know better.
    const { partition, partitionCount } = holder.home;
    const newest = Math.max(partitionCount, partition + 1, positions.length, ...counts);
    if (newest > partitionCount) await holder.adopt(newest);
    else if (positions.length === newest && counts.every((count) => count === newest)) return;
    else await pause(lookMs, signal);
  }
}

export interface AgreementOptions {
  readonly bus: Bus;
  readonly topic: string;
  /** Those of this process, by partition. */
  readonly workers: ReadonlyMap<number, PartitionWorker>;
  /** Batches to be taken for repeats; null when `signal` was aborted. */
  readonly seenAt: (
    at: TopicPartition,
    home: Home,
    offset: number,
    signal: AbortSignal,
  ) => Promise<SeenBatches | null>;
  readonly log: Logger;
  readonly onFailure: (error: Error) => void;
}

export interface Agreement {
  readonly seenAt: AgreementOptions['seenAt'];
  /** Lets a worker begin, or go on, by the number of partitions there are now. */
  join(at: TopicPartition, worker: PartitionWorker): Promise<void>;
  close(): Promise<void>;
}

export function keepAgreement(options: AgreementOptions): Agreement {
  const { bus, topic, workers, seenAt, log } = options;
  const closing = new AbortController();
  const joining = new Set<PartitionWorker>();

  const join = async (at: TopicPartition, worker: PartitionWorker): Promise<void> => {
    if (joining.has(worker)) return;
    joining.add(worker);
    const { signal } = worker;
    try {
      await worker.replayed;
      await retried(signal, log, 'agreeing on the number of partitions', () =>
        agreeOnCount(bus, topic, worker, signal),
      );
      const seen = await seenAt(at, worker.home, worker.committedTo, signal);
      if (seen !== null) worker.begin(seen);
    } catch (error) {
      if (!signal.aborted) options.onFailure(asError(error));
    } finally {
      joining.delete(worker);
    }
  };

  const watch = async (): Promise<void> => {
    for (;;) {
      await pause(watchMs, closing.signal);
      if (closing.signal.aborted) return;
      try {
        const { length } = await bus.positions(topic, enrichGroup);
        for (const [partition, worker] of workers)
          if (worker.home.partitionCount < length) void join({ topic, partition }, worker);
      } catch (error) {
        log.debug({ err: error }, 'the number of partitions is not known now');
      }
    }
  };
  const watching = watch();

  return {
    seenAt,
    join,
    async close() {
      closing.abort();
      await watching;
    },
  };
}
