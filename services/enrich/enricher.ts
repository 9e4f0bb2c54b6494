/** The enricher: joins the group on `flows` and gives each partition it gets a worker. */
import type { Logger } from 'pino';
import type { Bus, PartitionHandler } from '../../lib/bus/bus.ts';
import type { Store } from '../../lib/store/store.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import { keepAgreement } from './agreement.ts';
import { maxBlockRows } from './block-size.ts';
import type { Catalog } from './catalog.ts';
import type { EnrichConfig } from './config.ts';
import { loadSeen } from './home.ts';
import type { EnrichMetrics } from './metrics.ts';
import { PartitionWorker } from './partition.ts';
import { decodeMark } from './plan.ts';
import { Repairer } from './repair.ts';
import { pause, retried } from './retry.ts';
import { SeenBatches } from './sequences.ts';
import type { BatchScheme } from './slice.ts';
import type { World } from './world.ts';
import { BlockWriter } from './write.ts';

export interface EnricherOptions {
  readonly config: EnrichConfig;
  readonly bus: Bus;
  readonly store: Store;
  readonly world: World;
  readonly catalog: Catalog;
  readonly metrics: EnrichMetrics;
  readonly log: Logger;
  readonly isMemoryTight: () => boolean;
  /** Told when a partition can't go on; the process should end and start anew. */
  readonly onFailure: (error: Error) => void;
}

/** Longest wait for held blocks at the end, ms. */
const drainMs = 1500;
/** Bytes that one call of the bus may hand over. */
const maxBytesPerCall = 8 * 1024 * 1024;

export interface RunningEnricher {
  /** Whether this one of all enrichers is to do what one has to do for all: it has the first partition. */
  leads(): boolean;
  close(): Promise<void>;
}

/** Whoever has this partition leads. */
const leadingPartition = 0;

/** Joins the group; the subscription's close() drains what is held. */
export async function startEnricher(options: EnricherOptions): Promise<RunningEnricher> {
  const { config, bus, store, world, catalog, metrics, log } = options;
  const repairer = new Repairer({
    world,
    store,
    catalog,
    intervalMs: config.repairIntervalMs,
    windowMs: config.repairWindowMs,
    maxRows: config.maxRepairRows,
    metrics,
    log,
  });
  const writer = new BlockWriter({
    world,
    store,
    bus,
    catalog,
    repairer,
    holdMs: config.holdMs,
    metrics,
    log,
  });
  const scheme: BatchScheme = {
    networkIndex: (name) => world.inventory.network(name),
    toleranceMs: ({ clockErrorMs }) =>
      clockErrorMs < 0 ? config.clockToleranceMs : clockErrorMs + config.inventoryErrorMs,
  };
  const workers = new Map<number, PartitionWorker>();
  const closing = new AbortController();

  const agreement = keepAgreement({
    bus,
    topic: topics.flows,
    workers,
    seenAt: (at, home, offset, signal) =>
      retried(signal, log, 'reading the ledger', () =>
        loadSeen(store, at, home, offset, Date.now() - config.maxAgeMs, config.maxTrackedBoots),
      ),
    log,
    onFailure: options.onFailure,
  });

  const handler: PartitionHandler = {
    async assigned(at, committed, earliest, lease) {
      const start = Math.max(committed?.offset ?? earliest, earliest);
      const mark = decodeMark(committed?.metadata ?? '');
      // What retention took of the range can't be built again; if nothing of it is left there is nothing to redo.
      const replay = mark.plan !== null && mark.plan.to >= start ? mark.plan : null;
      const { partitionCount } = mark;
      const seen =
        replay === null
          ? new SeenBatches(0)
          : await agreement.seenAt(at, { partition: at.partition, partitionCount }, start, closing.signal);
      if (seen === null) return start;
      await retried(closing.signal, log, 'reading late flows', () => repairer.assigned(at.partition));
      if (replay !== null) {
        metrics.replays.inc();
        log.info({ ...at, replay }, 'a planned block was not committed: it is built again');
      }
      workers.get(at.partition)?.stop();
      const worker = new PartitionWorker(
        at,
        {
          limits: {
            get maxRows() {
              return maxBlockRows(config, workers.size, options.isMemoryTight());
            },
            maxBatchRows: config.maxBlockRows,
            maxBytes: config.maxBlockBytes,
            maxAgeMs: config.maxAgeMs,
            maxAheadMs: config.maxAheadMs,
          },
          lingerMs: config.lingerMs,
          scheme,
          // Of this holding of the partition: what is left of an earlier one must not commit for it.
          commit: (_, position) => lease.commit(position),
          name: (slice, again, signal) => writer.name(slice, again, signal),
          write: (partition, plan, slices, again, signal) =>
            writer.write(partition, plan, slices, again, signal),
          log,
          onFailure: options.onFailure,
        },
        { offset: start, partitionCount, seen, replay },
      );
      workers.set(at.partition, worker);
      metrics.partitions.set(workers.size);
      void agreement.join(at, worker);
      return start;
    },
    async messages(at, messages) {
      await workers.get(at.partition)?.messages(messages);
    },
    revoked(at) {
      workers.get(at.partition)?.stop();
      workers.delete(at.partition);
      repairer.revoked(at.partition);
      metrics.partitions.set(workers.size);
    },
  };

  const subscription = await bus.subscribe({
    group: enrichGroup,
    topics: [topics.flows],
    maxBytesPerCall,
    handler,
    onError: (error) => log.warn({ err: error }, 'reading flows failed, goes on'),
  });
  repairer.start();
  return {
    leads: () => workers.has(leadingPartition),
    async close() {
      // What is not drained in time is read again by the next owner of the partition: nothing is lost by leaving.
      const drained = Promise.all([...workers.values()].map((worker) => worker.drain()));
      await Promise.race([drained, pause(drainMs, closing.signal)]);
      closing.abort();
      await agreement.close();
      await repairer.stop();
      for (const worker of workers.values()) worker.stop();
      await subscription.close();
    },
  };
}
