/** Fetches many partitions from their leaders; each takes as much as it has room for, and holds up no other. */
import type { Broker, Cluster, Kafka } from 'kafkajs';
import { partitionKey } from '../assignment.ts';
import { Backoff } from '../backoff.ts';
import type { BusMessage, TopicPartition } from '../bus.ts';
import type { Report } from '../reporter.ts';
import { closeCluster, openCluster } from './client.ts';
import { outOfRange } from './errors.ts';
import { type FetchedPartition, messagesFrom, nextOffset } from './records.ts';

const readCommitted = 1;
/** A partition whose leader is not known is looked for again after this, ms. */
const leaderWaitMs = 500;
/** While some partition has no room, its broker holds an empty fetch only so long: room may come at any moment, ms. */
const partialFetchWaitMs = 20;
const maxFetchBytes = 32 * 1024 * 1024;

/** One partition that wants messages. */
export interface Source {
  readonly at: TopicPartition;
  /** The next offset to fetch; the fetcher moves it on. */
  position: number;
  hasRoom(): boolean;
  accept(messages: readonly BusMessage[]): void;
  /** The broker has nothing more at `position` (also when what lay there is gone). */
  reachedEnd?(): void;
}

export interface FetcherOptions {
  readonly kafka: Kafka;
  readonly topics: readonly string[];
  readonly maxBytesPerPartition: number;
  readonly fetchWaitMs: number;
  readonly report: Report;
  /** Called with fresh metadata, at every connection and from time to time. */
  readonly onMetadata?: (cluster: Cluster) => Promise<void>;
}

export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #sources = new Map<string, Source>();
  readonly #closed = new AbortController();
  readonly #done: Promise<void>;
  #changed = Promise.withResolvers<void>();

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  add(source: Source): void {
    this.#sources.set(partitionKey(source.at), source);
    this.wake();
  }

  remove(source: Source): void {
    const key = partitionKey(source.at);
    if (this.#sources.get(key) === source) this.#sources.delete(key);
  }

  /** A source has room again. */
  wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async close(): Promise<void> {
    this.#closed.abort();
    this.#sources.clear();
    this.wake();
    await this.#done;
  }

  async #run(): Promise<void> {
    const { kafka, topics, report } = this.#options;
    const { signal } = this.#closed;
    const backoff = new Backoff();
    while (!signal.aborted) {
      let cluster: Cluster | undefined;
      try {
        cluster = await openCluster(kafka, topics);
        await this.#fetchAll(cluster, backoff);
      } catch (error) {
        if (!signal.aborted) report(error);
      } finally {
        if (cluster !== undefined) await closeCluster(cluster);
      }
      if (!signal.aborted) await backoff.wait(signal);
    }
  }

  /** One loop for each broker, until one fails or the brokers are others. */
  async #fetchAll(cluster: Cluster, backoff: Backoff): Promise<void> {
    await cluster.refreshMetadata();
    await this.#options.onMetadata?.(cluster);
    const nodeIds = cluster.getNodeIds().map(String);
    const ended = new AbortController();
    const signal = AbortSignal.any([this.#closed.signal, ended.signal]);
    const loops = nodeIds.map(async (nodeId, index) => {
      try {
        await this.#fetchFrom(cluster, nodeId, index === 0, signal, backoff);
      } finally {
        ended.abort();
        this.wake();
      }
    });
    const results = await Promise.allSettled(loops);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #fetchFrom(
    cluster: Cluster,
    nodeId: string,
    isFirst: boolean,
    signal: AbortSignal,
    backoff: Backoff,
  ): Promise<void> {
    const known = cluster.getNodeIds().map(String).sort().join();
    let checkedMs = performance.now();
    while (!signal.aborted) {
      await cluster.refreshMetadataIfNecessary();
      if (cluster.getNodeIds().map(String).sort().join() !== known) return;
      if (isFirst && performance.now() - checkedMs > leaderWaitMs) {
        checkedMs = performance.now();
        await this.#options.onMetadata?.(cluster);
      }
      const { wanted, homeless, isPartial } = this.#wantedFrom(cluster, nodeId);
      if (wanted.length === 0) {
        await this.#waitForChange(leaderWaitMs);
        if (homeless && isFirst) await cluster.refreshMetadata();
        continue;
      }
      const broker = await cluster.findBroker({ nodeId });
      try {
        await this.#fetchOnce(broker, wanted, isPartial ? partialFetchWaitMs : this.#options.fetchWaitMs);
        backoff.reset();
      } catch (error) {
        if (!(await this.#recoverRange(cluster, error))) throw error;
      }
    }
  }

  #wantedFrom(cluster: Cluster, nodeId: string): { wanted: Source[]; homeless: boolean; isPartial: boolean } {
    const wanted: Source[] = [];
    let homeless = false;
    let isPartial = false;
    for (const source of this.#sources.values()) {
      if (!source.hasRoom()) {
        isPartial = true;
        continue;
      }
      const leader = cluster
        .findTopicPartitionMetadata(source.at.topic)
        .find((metadata) => metadata.partitionId === source.at.partition)?.leader;
      if (leader === undefined || leader < 0) homeless = true;
      else if (String(leader) === nodeId) wanted.push(source);
    }
    return { wanted, homeless, isPartial };
  }

  async #fetchOnce(broker: Broker, wanted: readonly Source[], maxWaitTime: number): Promise<void> {
    const byTopic = Map.groupBy(wanted, (source) => source.at.topic);
    const maxBytes = this.#options.maxBytesPerPartition;
    const response: { responses: { topicName: string; partitions: FetchedPartition[] }[] } =
      await broker.fetch({
        maxWaitTime,
        minBytes: 1,
        maxBytes: maxFetchBytes,
        isolationLevel: readCommitted,
        rackId: '',
        topics: [...byTopic].map(([topic, sources]) => ({
          topic,
          partitions: sources.map((source) => ({
            partition: source.at.partition,
            fetchOffset: String(source.position),
            maxBytes,
          })),
        })),
      });
    const asked = new Map(wanted.map((source) => [partitionKey(source.at), source.position]));
    const fetched = response.responses.flatMap(({ topicName, partitions }) =>
      partitions.map((partition) => ({
        key: partitionKey({ topic: topicName, partition: partition.partition }),
        partition,
      })),
    );
    // A partition may come back empty only because others filled the answer.
    const allEmpty = fetched.every(({ partition }) => partition.messages.length === 0);
    for (const { key, partition } of fetched) {
      const source = this.#sources.get(key);
      if (source !== undefined && asked.get(key) === source.position) take(source, partition, allEmpty);
    }
  }

  /** Goes on at the earliest message where the one asked for is gone; true when that was the failure. */
  async #recoverRange(cluster: Cluster, error: unknown): Promise<boolean> {
    const at = outOfRange(error);
    const source = at === undefined ? undefined : this.#sources.get(partitionKey(at));
    if (source === undefined) return at !== undefined;
    const { earliest, next } = await partitionBounds(cluster, source.at);
    const position = source.position > next ? next : earliest;
    this.#options.report(
      new Error(
        `${partitionKey(source.at)} has no offset ${source.position} (it holds ${earliest} to ${next}): going on at ${position}`,
      ),
    );
    source.position = position;
    return true;
  }

  async #waitForChange(longestMs: number): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, longestMs);
    await Promise.race([this.#changed.promise, late]);
    clearTimeout(timer);
  }
}

function take(source: Source, fetched: FetchedPartition, allEmpty: boolean): void {
  const messages = messagesFrom(fetched, source.position);
  source.position = nextOffset(fetched, source.position);
  if (messages.length > 0) source.accept(messages);
  const end = Number(fetched.lastStableOffset ?? fetched.highWatermark);
  if (source.position >= end || allEmpty) source.reachedEnd?.();
}

/** The first kept offset and the next one to be written. */
export async function partitionBounds(
  cluster: Cluster,
  at: TopicPartition,
): Promise<{ earliest: number; next: number }> {
  const ask = async (fromBeginning: boolean): Promise<number> => {
    const [answer] = await cluster.fetchTopicsOffset([
      { topic: at.topic, partitions: [{ partition: at.partition }], fromBeginning },
    ]);
    const offset = answer?.partitions.find(({ partition }) => partition === at.partition)?.offset;
    if (offset === undefined) throw new Error(`the brokers do not know the offsets of ${partitionKey(at)}`);
    return Number(offset);
  };
  return { earliest: await ask(true), next: await ask(false) };
}
