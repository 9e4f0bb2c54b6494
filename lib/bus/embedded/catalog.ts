/** Topics and partitions of the embedded bus, as the file has them. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { TopicSpec } from '../bus.ts';
import { embeddedPartitionLimit } from '../config.ts';

export interface Topic {
  readonly id: number;
  readonly name: string;
  readonly compacted: boolean;
  readonly retentionMs: number;
  readonly maxMessageBytes: number;
  /** Row id of each partition, by partition number. */
  readonly partitionIds: readonly number[];
}

/** Reads the catalog; what it has read once it asks for again only when told to. */
export class Catalog {
  readonly #topic: StatementSync;
  readonly #partitions: StatementSync;
  readonly #known = new Map<string, Topic>();

  constructor(database: DatabaseSync) {
    this.#topic = database.prepare(
      'SELECT id, compacted, retention_ms, max_message_bytes FROM topics WHERE name = ?',
    );
    this.#partitions = database.prepare('SELECT id FROM partitions WHERE topic_id = ? ORDER BY partition');
  }

  /** The topic, or undefined when there is none. `fresh` reads the file again. */
  find(name: string, fresh = false): Topic | undefined {
    const known = this.#known.get(name);
    if (known !== undefined && !fresh) return known;
    const row = this.#topic.get(name);
    if (row === undefined) return undefined;
    const id = Number(row.id);
    const topic: Topic = {
      id,
      name,
      compacted: Number(row.compacted) === 1,
      retentionMs: Number(row.retention_ms),
      maxMessageBytes: Number(row.max_message_bytes),
      partitionIds: this.#partitions.all(id).map((partition) => Number(partition.id)),
    };
    this.#known.set(name, topic);
    return topic;
  }

  /** @throws {Error} when there is no such topic. */
  get(name: string, fresh = false): Topic {
    const topic = this.find(name, fresh);
    if (topic === undefined) throw new Error(`the bus has no topic '${name}' (ensureTopics makes it)`);
    return topic;
  }
}

/** Adds missing topics and partitions; to be called in a write transaction. @throws {Error} at the partition limit. */
export function createTopics(database: DatabaseSync, specs: readonly TopicSpec[]): void {
  const addTopic = database.prepare(
    'INSERT INTO topics (name, compacted, retention_ms, max_message_bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
  );
  const topicId = database.prepare('SELECT id FROM topics WHERE name = ?');
  const addPartition = database.prepare(
    'INSERT INTO partitions (topic_id, partition) VALUES (?, ?) ON CONFLICT DO NOTHING',
  );
  for (const spec of specs) {
    addTopic.run(spec.name, spec.compacted ? 1 : 0, spec.retentionMs, spec.maxMessageBytes);
    const id = Number(topicId.get(spec.name)?.id);
    for (let partition = 0; partition < spec.partitionCount; partition++) addPartition.run(id, partition);
  }
  const highest = Number(database.prepare('SELECT max(id) AS id FROM partitions').get()?.id ?? 0);
  if (highest > embeddedPartitionLimit) {
    throw new Error(
      `the embedded bus holds at most ${embeddedPartitionLimit} partitions (${highest} asked for)`,
    );
  }
}
