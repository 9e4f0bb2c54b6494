/**
 * Repeats are told by the partition that an agent's batches are in. When partitions are added agents move to others, while
 * batches of theirs may still lie, or come late, in the partition they had before. So each partition counts only the batches
 * of agents that are at home in it, by the number of partitions, and hands others on to their home; and it begins with the
 * agents of a new number only when every partition reckons with that number. What was counted by the old one is in the
 * ledger by then (docs/decisions/006).
 */
import type { TopicPartition } from '../../lib/bus/bus.ts';
import { partitionOf } from '../../lib/bus/partitioner.ts';
import type { Store } from '../../lib/store/store.ts';
import { SeenBatches } from './sequences.ts';

/** A partition, and the number of partitions of its topic that it reckons with. */
export interface Home {
  readonly partition: number;
  /** 0: it reckons with none yet, all that is in it counts there. */
  readonly partitionCount: number;
}

/** Where the batches of this agent belong. */
export function homeOf(agentId: string, { partition, partitionCount }: Home): number {
  return partitionCount === 0 ? partition : partitionOf(agentId, partitionCount);
}

/**
 * The batches that the ledger has of the agents at home in a partition, wherever they were read, so that repeats are known.
 * Those of the partition itself from `offset` on are left out: after a crash they may be in the ledger already, and are to
 * be written again all the same.
 */
export async function loadSeen(
  store: Store,
  at: TopicPartition,
  { partitionCount }: Home,
  offset: number,
  sinceMs: number,
  limit: number,
): Promise<SeenBatches> {
  const seen = new SeenBatches(limit);
  // The partition of a key as every Kafka client has it: see lib/bus/partitioner.ts.
  const rows = await store.query<{ agent: string; boot: string; begins: string[]; ends: string[] }>(
    `SELECT agent, boot, arraySort(groupUniqArray(sequence)) AS sequences, arrayDifference(sequences) AS steps,
       arrayFilter((sequence, step) -> step != 1, sequences, steps) AS begins,
       arrayFilter((sequence, step) -> step != 1, sequences, arrayPushBack(arrayPopFront(steps), 0)) AS ends
     FROM batches
     WHERE topic = {topic:String} AND outcome = 'written' AND received >= fromUnixTimestamp64Milli({since:Int64})
       AND if({count:UInt32} = 0, bus_partition, bitAnd(kafkaMurmurHash(agent), 0x7fffffff) % greatest({count:UInt32}, 1)) = {partition:UInt32}
       AND NOT (bus_partition = {partition:UInt32} AND bus_offset >= {offset:UInt64})
     GROUP BY agent, boot ORDER BY max(received)`,
    { topic: at.topic, partition: at.partition, offset, since: sinceMs, count: partitionCount },
  );
  for (const { agent, boot, begins, ends } of rows)
    begins.forEach((begin, i) => {
      seen.addRange(agent, boot, Number(begin), Number(ends[i]));
    });
  return seen;
}
