/** A member of a consumer group on Kafka: for each partition it holds, a source for the fetcher and an inbox. */
import { partitionKey } from '../assignment.ts';
import { Backoff } from '../backoff.ts';
import {
  type BusMessage,
  type Committed,
  FencedError,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
} from '../bus.ts';
import { checkMetadata } from '../message-size.ts';
import { type Report, rateLimited } from '../reporter.ts';
import { Fetcher } from './fetcher.ts';
import { GroupMember, type GroupOptions } from './group.ts';
import { Inbox } from './inbox.ts';

/** How long `close` waits for handler calls that are under way. */
const closeWaitMs = 5_000;

export interface KafkaSubscriptionParts
  extends Pick<GroupOptions, 'kafka' | 'sessionTimeoutMs' | 'heartbeatIntervalMs' | 'commitTimeoutMs'> {
  readonly fetchWaitMs: number;
}

interface Lease {
  readonly revoked: AbortController;
  readonly done: Promise<void>;
}

export class KafkaSubscription implements Subscription {
  readonly #options: SubscribeOptions;
  readonly #report: Report;
  readonly #fetcher: Fetcher;
  readonly #member: GroupMember;
  readonly #leases = new Map<string, Lease>();
  /** The end of the last lease of each partition: its next one begins after it. */
  readonly #ended = new Map<string, Promise<void>>();
  #closing: Promise<void> | undefined;

  constructor(options: SubscribeOptions, parts: KafkaSubscriptionParts) {
    this.#options = options;
    this.#report = rateLimited(options.onError);
    this.#fetcher = new Fetcher({
      kafka: parts.kafka,
      topics: options.topics,
      maxBytesPerPartition: options.maxBytesPerCall,
      fetchWaitMs: parts.fetchWaitMs,
      report: this.#report,
    });
    this.#member = new GroupMember({
      ...parts,
      group: options.group,
      topics: options.topics,
      report: this.#report,
      onGained: (partitions) => {
        for (const at of partitions) this.#begin(at);
      },
      onLost: (partitions) => {
        for (const at of partitions) this.#revoke(at);
      },
    });
  }

  async commit(at: TopicPartition, committed: Committed): Promise<void> {
    const lease = this.#leases.get(partitionKey(at));
    if (lease === undefined || this.#closing !== undefined) {
      throw new FencedError(`${partitionKey(at)} is not held by this member of ${this.#options.group}`);
    }
    checkMetadata(committed.metadata);
    await this.#member.commit(at, committed, lease.revoked.signal);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#member.close();
    await this.#fetcher.close();
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, closeWaitMs);
    await Promise.race([Promise.all(this.#ended.values()), late]);
    clearTimeout(timer);
  }

  #begin(at: TopicPartition): void {
    const key = partitionKey(at);
    const revoked = new AbortController();
    const done = this.#hold(at, revoked.signal, this.#ended.get(key) ?? Promise.resolve());
    this.#leases.set(key, { revoked, done });
    this.#ended.set(key, done);
  }

  #revoke(at: TopicPartition): void {
    const key = partitionKey(at);
    this.#leases.get(key)?.revoked.abort();
    this.#leases.delete(key);
  }

  async #hold(at: TopicPartition, signal: AbortSignal, after: Promise<void>): Promise<void> {
    await after;
    const backoff = new Backoff();
    // A handler that fails loses the partition and gets it anew, from what the group committed.
    while (!signal.aborted) {
      try {
        await this.#holdOnce(at, signal, backoff);
      } catch (error) {
        if (signal.aborted) return;
        this.#report(error);
        await backoff.wait(signal);
      }
    }
  }

  async #holdOnce(at: TopicPartition, signal: AbortSignal, backoff: Backoff): Promise<void> {
    const { committed, earliest } = await this.#member.committed(at, signal);
    if (signal.aborted) return;
    const { handler } = this.#options;
    const ended = new AbortController();
    const tellRevoked = (): void => {
      if (ended.signal.aborted) return;
      ended.abort();
      try {
        handler.revoked(at);
      } catch (error) {
        this.#report(error);
      }
    };
    signal.addEventListener('abort', tellRevoked, { once: true });
    try {
      const offset = await handler.assigned(at, committed, earliest, {
        commit: async (next) => {
          checkMetadata(next.metadata);
          await this.#member.commit(at, next, ended.signal);
        },
      });
      if (!signal.aborted) await this.#carry(at, offset, signal, backoff);
    } finally {
      signal.removeEventListener('abort', tellRevoked);
      tellRevoked();
    }
  }

  /** Carries messages until the partition is lost; throws when the handler fails. */
  async #carry(at: TopicPartition, offset: number, signal: AbortSignal, backoff: Backoff): Promise<void> {
    const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
    const inbox = new Inbox({
      maxBytesPerCall: this.#options.maxBytesPerCall,
      deliver: async (messages) => {
        await this.#options.handler.messages(at, messages);
        backoff.reset();
      },
      onRoom: () => this.#fetcher.wake(),
      onFailed: reject,
    });
    const source = {
      at,
      position: offset,
      hasRoom: () => inbox.hasRoom(),
      accept: (messages: readonly BusMessage[]) => inbox.accept(messages),
    };
    signal.addEventListener('abort', () => resolve(), { once: true });
    this.#fetcher.add(source);
    try {
      await ended;
    } finally {
      this.#fetcher.remove(source);
      await inbox.stop();
    }
  }
}
