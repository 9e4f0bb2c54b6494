/** Makes topics on Kafka and says what is known about them. */
import kafkajs, { type Admin, type IResourceConfigEntry } from 'kafkajs';
import type { TopicSpec } from '../bus.ts';
import { errorType } from './errors.ts';

/** A topic's limit counts what a record is wrapped in; this much is left for it, bytes. */
const wrappingBytes = 64 * 1024;
const leaderPollMs = 50;
const leaderWaitMs = 30_000;

/** Creates missing topics, adds missing partitions, and waits until every partition has a leader. */
export async function ensureKafkaTopics(
  admin: Admin,
  specs: readonly TopicSpec[],
  replicationFactor: number,
): Promise<void> {
  const existing = new Set(await admin.listTopics());
  for (const spec of specs) {
    if (!existing.has(spec.name)) await createTopic(admin, spec, replicationFactor);
  }
  const names = specs.map((spec) => spec.name);
  const { topics } = await admin.fetchTopicMetadata({ topics: names });
  for (const spec of specs) {
    const count = topics.find(({ name }) => name === spec.name)?.partitions.length ?? 0;
    if (count > 0 && count < spec.partitionCount) {
      await admin.createPartitions({ topicPartitions: [{ topic: spec.name, count: spec.partitionCount }] });
    }
  }
  await waitForLeaders(admin, specs);
}

async function createTopic(admin: Admin, spec: TopicSpec, replicationFactor: number): Promise<void> {
  try {
    await admin.createTopics({
      waitForLeaders: false,
      topics: [
        {
          topic: spec.name,
          numPartitions: spec.partitionCount,
          replicationFactor,
          configEntries: configEntries(spec),
        },
      ],
    });
  } catch (error) {
    // Another process may have been quicker.
    if (errorType(error) !== 'TOPIC_ALREADY_EXISTS') throw error;
  }
}

/** Age at which a segment of a compacted topic is closed, ms: only closed ones are cleaned. */
const compactedSegmentMs = 600_000;

function configEntries(spec: TopicSpec): IResourceConfigEntry[] {
  const entries: Record<string, string> = {
    'max.message.bytes': String(spec.maxMessageBytes + wrappingBytes),
    'compression.type': 'producer',
    ...(spec.compacted
      ? {
          'cleanup.policy': 'compact',
          'delete.retention.ms': String(spec.retentionMs),
          // Keys that change all the time (watermarks) are cleaned away soon, so that readers start quickly.
          'segment.ms': String(compactedSegmentMs),
          'min.cleanable.dirty.ratio': '0.1',
        }
      : { 'cleanup.policy': 'delete', 'retention.ms': String(spec.retentionMs) }),
  };
  return Object.entries(entries).map(([name, value]) => ({ name, value }));
}

async function waitForLeaders(admin: Admin, specs: readonly TopicSpec[]): Promise<void> {
  const deadline = performance.now() + leaderWaitMs;
  for (;;) {
    const missing = await withoutLeaders(admin, specs);
    if (missing.length === 0) return;
    if (performance.now() > deadline)
      throw new Error(`topics without leaders for all partitions: ${missing.join(', ')}`);
    await new Promise<void>((resolve) => setTimeout(resolve, leaderPollMs));
  }
}

async function withoutLeaders(admin: Admin, specs: readonly TopicSpec[]): Promise<string[]> {
  const names = specs.map((spec) => spec.name);
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: names });
    return specs
      .filter((spec) => {
        const partitions = topics.find(({ name }) => name === spec.name)?.partitions ?? [];
        return partitions.length < spec.partitionCount || partitions.some(({ leader }) => leader < 0);
      })
      .map((spec) => spec.name);
  } catch (error) {
    if (['LEADER_NOT_AVAILABLE', 'UNKNOWN_TOPIC_OR_PARTITION'].includes(errorType(error))) return names;
    throw error;
  }
}

/** The largest message the topic takes, bytes, as the brokers have it. @throws {Error} when there is no such topic. */
export async function fetchMaxMessageBytes(admin: Admin, topic: string): Promise<number> {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configNames: ['max.message.bytes'] }],
  });
  const value = Number(resources[0]?.configEntries[0]?.configValue);
  if (!Number.isFinite(value))
    throw new Error(`the brokers do not say how large a message of '${topic}' may be`);
  return Math.max(1, value - wrappingBytes);
}
