/** The bus on Apache Kafka. */
import type { Admin, Kafka } from 'kafkajs';
import kafkajs from 'kafkajs';
import type { Logger } from 'pino';
import { Backoff } from '../backoff.ts';
import type {
  Bus,
  Committed,
  OutgoingMessage,
  SubscribeOptions,
  Subscription,
  TailOptions,
  TopicSpec,
} from '../bus.ts';
import type { BusConfig } from '../config.ts';
import { type Report, rateLimited } from '../reporter.ts';
import { makeKafka } from './client.ts';
import { committedOf } from './group.ts';
import { mendRequestQueue } from './request-queue.ts';
import { Sender } from './sender.ts';
import { KafkaSubscription } from './subscription.ts';
import { KafkaTail } from './tail.ts';
import { ensureKafkaTopics, fetchMaxMessageBytes } from './topics.ts';
import { registerZstd } from './zstd.ts';

/** Tries of an administrative request whose failure passes by itself. */
const adminTries = 8;

/** Connects to nothing yet: every call does what it needs. @throws {Error} on a wrong TLS or login setting. */
export function openKafkaBus(config: BusConfig, options: { clientId: string; log: Logger }): Bus {
  mendRequestQueue();
  registerZstd(config.compressionLevel);
  const { log } = options;
  return new KafkaBus(
    config,
    makeKafka(config, options.clientId, log),
    rateLimited((error) => log.warn({ err: error }, 'the bus goes on after a failure')),
  );
}

class KafkaBus implements Bus {
  readonly kind = 'kafka';
  readonly #config: BusConfig;
  readonly #kafka: Kafka;
  readonly #report: Report;
  readonly #sender: Sender;
  readonly #parts = new Set<{ close(): Promise<void> }>();
  readonly #maxMessageBytes = new Map<string, number>();
  readonly #closed = new AbortController();
  #admin: Promise<Admin> | undefined;

  constructor(config: BusConfig, kafka: Kafka, report: Report) {
    this.#config = config;
    this.#kafka = kafka;
    this.#report = report;
    this.#sender = new Sender(kafka, config, (topic) => this.#limitOf(topic));
  }

  /** Tries until the brokers answer or the bus is closed. */
  async ensureTopics(topics: readonly TopicSpec[]): Promise<void> {
    const backoff = new Backoff();
    for (;;) {
      try {
        await this.#withAdmin((admin) => ensureKafkaTopics(admin, topics, this.#config.replicationFactor));
        break;
      } catch (error) {
        this.#assertOpen();
        if (isRefused(error)) throw error;
        this.#report(error);
        await backoff.wait(this.#closed.signal);
        this.#assertOpen();
      }
    }
    for (const topic of topics) this.#maxMessageBytes.set(topic.name, topic.maxMessageBytes);
  }

  append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    return this.#sender.append(topic, messages);
  }

  async subscribe(options: SubscribeOptions): Promise<Subscription> {
    this.#assertOpen();
    const subscription = new KafkaSubscription(options, {
      kafka: this.#kafka,
      sessionTimeoutMs: this.#config.sessionTimeoutMs,
      heartbeatIntervalMs: Math.min(this.#config.heartbeatIntervalMs, this.#config.sessionTimeoutMs / 3),
      commitTimeoutMs: this.#config.appendTimeoutMs,
      fetchWaitMs: this.#config.fetchWaitMs,
    });
    this.#parts.add(subscription);
    return subscription;
  }

  async tail(options: TailOptions): Promise<{ close(): Promise<void> }> {
    this.#assertOpen();
    const tail = new KafkaTail(options, { kafka: this.#kafka, fetchWaitMs: this.#config.fetchWaitMs });
    this.#parts.add(tail);
    return tail;
  }

  async positions(
    topic: string,
    group: string,
  ): Promise<{ partition: number; earliest: number; next: number; committed: Committed | null }[]> {
    this.#assertOpen();
    return this.#withAdmin(async (admin) => {
      const offsets = await admin.fetchTopicOffsets(topic);
      const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      return offsets
        .map(({ partition, low, high }) => ({
          partition,
          earliest: Number(low),
          next: Number(high),
          committed: committedOf(committed?.partitions.find((entry) => entry.partition === partition)),
        }))
        .sort((a, b) => a.partition - b.partition);
    });
  }

  async close(): Promise<void> {
    this.#closed.abort();
    await Promise.all([...this.#parts].map((part) => part.close()));
    await this.#sender.close();
    await this.#dropAdmin();
  }

  #assertOpen(): void {
    if (this.#closed.signal.aborted) throw new Error('the bus is closed');
  }

  async #limitOf(topic: string): Promise<number> {
    let limit = this.#maxMessageBytes.get(topic);
    if (limit === undefined) {
      limit = await this.#withAdmin((admin) => fetchMaxMessageBytes(admin, topic));
      this.#maxMessageBytes.set(topic, limit);
    }
    return limit;
  }

  /** Tries again what passes by itself: a coordinator that is loading, a leader that moves. */
  async #withAdmin<T>(body: (admin: Admin) => Promise<T>): Promise<T> {
    const backoff = new Backoff();
    for (let triesLeft = adminTries; ; triesLeft--) {
      this.#admin ??= this.#connectAdmin();
      try {
        return await body(await this.#admin);
      } catch (error) {
        // The next try begins with fresh connections.
        await this.#dropAdmin();
        const passes = error instanceof kafkajs.KafkaJSProtocolError && error.retriable;
        if (!passes || triesLeft <= 1 || this.#closed.signal.aborted) throw error;
        await backoff.wait(this.#closed.signal);
      }
    }
  }

  async #connectAdmin(): Promise<Admin> {
    const admin = this.#kafka.admin();
    await admin.connect();
    return admin;
  }

  async #dropAdmin(): Promise<void> {
    const admin = this.#admin;
    this.#admin = undefined;
    try {
      await (await admin)?.disconnect();
    } catch {
      // It never connected, or is gone: that is what was wanted.
    }
  }
}

/** The brokers have answered, and will answer the same again. */
function isRefused(error: unknown): boolean {
  return (
    error instanceof Error && 'type' in error && typeof error.type === 'string' && refusals.has(error.type)
  );
}

const refusals = new Set([
  'INVALID_REPLICATION_FACTOR',
  'INVALID_CONFIG',
  'INVALID_TOPIC_EXCEPTION',
  'POLICY_VIOLATION',
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
]);
