/** The topics of `schemas/topics.ts` with what the configuration says about them. */
import { maxMessageBytes, topics } from '../../schemas/topics.ts';
import type { TopicSpec } from './bus.ts';
import type { BusConfig } from './config.ts';

/** All topics of Eastwest. The compacted ones have one partition: what they say is read in one order by all. */
export function topicSpecs(config: BusConfig): TopicSpec[] {
  const plain = { compacted: false, maxMessageBytes };
  const compacted = {
    partitionCount: 1,
    compacted: true,
    retentionMs: config.tombstoneRetentionMs,
    maxMessageBytes,
  };
  return [
    {
      name: topics.flows,
      partitionCount: config.partitionCount,
      retentionMs: config.flowsRetentionMs,
      ...plain,
    },
    { name: topics.dead, partitionCount: 1, retentionMs: config.deadRetentionMs, ...plain },
    { name: topics.inventory, ...compacted },
    { name: topics.inventoryPut, ...compacted },
    { name: topics.policy, ...compacted },
  ];
}
