/** The enricher: joins the group on `flows` and gives each partition it gets a worker. */
import type { Logger } from 'pino';
import type { Bus, PartitionHandler, TopicPartition } from '../../lib/bus/bus.ts';
import type { Store } from '../../lib/store/store.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import type { BatchScheme } from './block.ts';
import type { Catalog } from './catalog.ts';
import type { EnrichConfig } from './config.ts';
import type { EnrichMetrics } from './metrics.ts';
import { PartitionWorker } from './partition.ts';
import { decodePlan } from './plan.ts';
import { Repairer } from './repair.ts';
import { pause, retried } from './retry.ts';
import { SeenBatches } from './sequences.ts';
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
  /** Told when a partition can't go on; the process should end and start anew. */
  readonly onFailure: (error: Error) => void;
}

/** Longest wait for held blocks at the end, ms. */
const drainMs = 1500;
/** Bytes that one call of the bus may hand over. */
const maxBytesPerCall = 8 * 1024 * 1024;

/**
 * The batches that the ledger has of a partition before `offset`, so that repeats are known. Batches of the planned range
 * itself are left out: after a crash they may be in the ledger already, and are to be written again all the same.
 */
async function loadSeen(
  store: Store,
  at: TopicPartition,
  offset: number,
  sinceMs: number,
  limit: number,
): Promise<SeenBatches> {
  const seen = new SeenBatches(limit);
  const rows = await store.query<{ agent: string; boot: string; sequences: string[] }>(
    `SELECT agent, boot, arraySort(groupUniqArray(sequence)) AS sequences FROM batches
     WHERE topic = {topic:String} AND bus_partition = {partition:UInt32} AND bus_offset < {offset:UInt64}
       AND outcome = 'written' AND received >= fromUnixTimestamp64Milli({since:Int64})
     GROUP BY agent, boot ORDER BY max(received)`,
    { topic: at.topic, partition: at.partition, offset, since: sinceMs },
  );
  for (const { agent, boot, sequences } of rows)
    for (const sequence of sequences) seen.add(agent, boot, Number(sequence));
  return seen;
}

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

  const handler: PartitionHandler = {
    async assigned(at, committed, earliest, lease) {
      const start = Math.max(committed?.offset ?? earliest, earliest);
      const replay = decodePlan(committed?.metadata ?? '');
      const seen = await retried(closing.signal, log, 'reading the ledger', () =>
        loadSeen(store, at, start, Date.now() - config.maxAgeMs, config.maxTrackedBoots),
      );
      if (seen === null) return start;
      await retried(closing.signal, log, 'reading late flows', () => repairer.assigned(at.partition));
      if (replay !== null) {
        metrics.replays.inc();
        log.info({ ...at, replay }, 'a planned block was not committed: it is built again');
      }
      workers.get(at.partition)?.stop();
      workers.set(
        at.partition,
        new PartitionWorker(
          at,
          {
            limits: {
              maxRows: config.maxBlockRows,
              maxBytes: config.maxBlockBytes,
              maxAgeMs: config.maxAgeMs,
              maxAheadMs: config.maxAheadMs,
            },
            lingerMs: config.lingerMs,
            scheme,
            // Of this holding of the partition: what is left of an earlier one must not commit for it.
            commit: (_, position) => lease.commit(position),
            write: (partition, plan, block, again, signal) =>
              writer.write(partition, plan, block, again, signal),
            log,
            onFailure: options.onFailure,
          },
          seen,
          // What retention took of the range can't be built again; if nothing of it is left there is nothing to redo.
          replay !== null && replay.to >= start ? replay : null,
        ),
      );
      metrics.partitions.set(workers.size);
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
      await repairer.stop();
      for (const worker of workers.values()) worker.stop();
      await subscription.close();
    },
  };
}
