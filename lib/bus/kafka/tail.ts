/** Reads a whole Kafka topic and follows it, outside any group: each partition is fetched from its earliest message. */
import type { Cluster, Kafka } from 'kafkajs';
import { Backoff } from '../backoff.ts';
import type { BusMessage, TailOptions } from '../bus.ts';
import { type Report, rateLimited } from '../reporter.ts';
import { Fetcher, partitionBounds, type Source } from './fetcher.ts';
import { Inbox } from './inbox.ts';

const maxBytesPerCall = 1024 * 1024;

interface FollowedPartition {
  readonly source: Source;
  inbox: Inbox;
  /** Offset to be reached before the topic counts as caught up; undefined once it was. */
  target: number | undefined;
  delivered: number;
}

export class KafkaTail {
  readonly #options: TailOptions;
  readonly #report: Report;
  readonly #fetcher: Fetcher;
  readonly #closed = new AbortController();
  readonly #partitions = new Map<number, FollowedPartition>();
  #started = false;
  #caughtUp = false;

  constructor(options: TailOptions, parts: { kafka: Kafka; fetchWaitMs: number }) {
    this.#options = options;
    this.#report = rateLimited(options.onError);
    this.#fetcher = new Fetcher({
      ...parts,
      topics: [options.topic],
      maxBytesPerPartition: maxBytesPerCall,
      report: this.#report,
      onMetadata: (cluster) => this.#followAll(cluster),
    });
  }

  async close(): Promise<void> {
    this.#closed.abort();
    await this.#fetcher.close();
    await Promise.all([...this.#partitions.values()].map(({ inbox }) => inbox.stop()));
  }

  async #followAll(cluster: Cluster): Promise<void> {
    const { topic } = this.#options;
    const missing = cluster
      .findTopicPartitionMetadata(topic)
      .map(({ partitionId }) => partitionId)
      .filter((partition) => !this.#partitions.has(partition));
    const bounds = await Promise.all(
      missing.map(async (partition) => ({
        partition,
        ...(await partitionBounds(cluster, { topic, partition })),
      })),
    );
    for (const { partition, earliest, next } of bounds) this.#follow(partition, earliest, next);
    this.#started = true;
    this.#tellCaughtUp();
  }

  #follow(partition: number, earliest: number, next: number): void {
    const backoff = new Backoff();
    const source: Source = {
      at: { topic: this.#options.topic, partition },
      position: earliest,
      hasRoom: () => followed.inbox.hasRoom(),
      accept: (messages) => followed.inbox.accept(messages),
      reachedEnd: () => {
        if (followed.inbox.isEmpty()) this.#reached(followed, Number.POSITIVE_INFINITY);
      },
    };
    const followed: FollowedPartition = {
      source,
      inbox: this.#makeInbox(partition, backoff),
      target: earliest < next ? next : undefined,
      delivered: earliest,
    };
    this.#partitions.set(partition, followed);
    this.#fetcher.add(source);
  }

  #makeInbox(partition: number, backoff: Backoff): Inbox {
    return new Inbox({
      maxBytesPerCall,
      deliver: async (messages: readonly BusMessage[]) => {
        await this.#options.onMessages(partition, messages);
        backoff.reset();
        const followed = this.#partitions.get(partition);
        const last = messages.at(-1);
        if (followed === undefined || last === undefined) return;
        followed.delivered = last.offset + 1;
        this.#reached(followed, followed.delivered);
      },
      onRoom: () => this.#fetcher.wake(),
      onFailed: (error) => {
        this.#report(error);
        void backoff.wait(this.#closed.signal).then(() => this.#again(partition, backoff));
      },
    });
  }

  /** After a failure of the receiver: the same messages once more. */
  #again(partition: number, backoff: Backoff): void {
    const followed = this.#partitions.get(partition);
    if (followed === undefined || this.#closed.signal.aborted) return;
    followed.inbox = this.#makeInbox(partition, backoff);
    followed.source.position = followed.delivered;
    this.#fetcher.wake();
  }

  #reached(followed: FollowedPartition, next: number): void {
    if (followed.target === undefined || next < followed.target) return;
    followed.target = undefined;
    this.#tellCaughtUp();
  }

  #tellCaughtUp(): void {
    if (!this.#started || this.#caughtUp || this.#closed.signal.aborted) return;
    for (const { target } of this.#partitions.values()) if (target !== undefined) return;
    this.#caughtUp = true;
    this.#options.onCaughtUp();
  }
}
