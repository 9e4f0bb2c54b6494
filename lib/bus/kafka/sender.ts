/**
 * Sends messages to Kafka: all appends that wait at one moment go in one request, and never two requests at once.
 * kafkajs counts sequence numbers back when a request fails, so a second one in flight could take the first one's
 * numbers and be dropped by the broker as its repetition. After a failure the producer is replaced for the same reason.
 */
import kafkajs, { type Kafka, type Message, type Producer } from 'kafkajs';
import { MessageTooLargeError, type OutgoingMessage } from '../bus.ts';
import { messageBytes } from '../message-size.ts';
import { partitionOf, Spreader } from '../partitioner.ts';
import { metadataMaxAgeMs } from './client.ts';

/** Share of a topic's limit that several messages fill: the rest is for what Kafka adds to each. */
const batchShare = 0.9;

export interface SenderLimits {
  readonly maxAppendBytes: number;
  readonly maxPendingAppendBytes: number;
  readonly appendTimeoutMs: number;
}

interface Pending {
  readonly topic: string;
  readonly messages: readonly OutgoingMessage[];
  readonly bytes: number;
  /** Most bytes that may go to its topic in one request: they become one record batch if they go to one partition. */
  readonly maxBatchBytes: number;
  resolve(): void;
  reject(error: unknown): void;
}

/** A message, and the partition it got at the first try: at a second one it must be the same. */
type PlacedMessage = Message & { partition?: number };

export class Sender {
  readonly #kafka: Kafka;
  readonly #limits: SenderLimits;
  readonly #maxMessageBytes: (topic: string) => Promise<number>;
  #producer: Promise<Producer> | undefined;
  #queue: Pending[] = [];
  #pendingBytes = 0;
  #sending: Promise<void> | undefined;
  #closed = false;

  constructor(kafka: Kafka, limits: SenderLimits, maxMessageBytes: (topic: string) => Promise<number>) {
    this.#kafka = kafka;
    this.#limits = limits;
    this.#maxMessageBytes = maxMessageBytes;
  }

  async append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    if (this.#closed) throw new Error('the bus is closed');
    if (messages.length === 0) return;
    const maxMessageBytes = await this.#maxMessageBytes(topic);
    let bytes = 0;
    for (const message of messages) {
      const size = messageBytes(message);
      if (size > maxMessageBytes) {
        throw new MessageTooLargeError(
          `a message of ${size} bytes is over the ${maxMessageBytes} that topic '${topic}' takes`,
        );
      }
      bytes += size;
    }
    if (this.#pendingBytes + bytes > this.#limits.maxPendingAppendBytes && this.#pendingBytes > 0) {
      throw new Error(
        `${this.#pendingBytes} bytes wait to be sent to the bus already (limit bus.maxPendingAppendBytes)`,
      );
    }
    this.#pendingBytes += bytes;
    const maxBatchBytes = Math.min(this.#limits.maxAppendBytes, Math.floor(maxMessageBytes * batchShare));
    const parts = split(messages, maxBatchBytes);
    const sent = parts.map(
      (part) =>
        new Promise<void>((resolve, reject) => {
          this.#queue.push({
            topic,
            messages: part.messages,
            bytes: part.bytes,
            maxBatchBytes,
            resolve,
            reject,
          });
        }),
    );
    this.#sending ??= this.#drain();
    const results = await Promise.allSettled(sent);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Sends what waits, then refuses more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#sending;
    await this.#dropProducer();
  }

  async #drain(): Promise<void> {
    // Let everything that arrives in this turn of the event loop join the request.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#send(group);
        for (const pending of group) pending.resolve();
      } catch (error) {
        await this.#dropProducer();
        for (const pending of group) pending.reject(error);
      }
      for (const pending of group) this.#pendingBytes -= pending.bytes;
    }
    this.#sending = undefined;
  }

  #takeGroup(): Pending[] {
    const group: Pending[] = [];
    let bytes = 0;
    const topicBytes = new Map<string, number>();
    for (const pending of this.#queue) {
      bytes += pending.bytes;
      const ofTopic = (topicBytes.get(pending.topic) ?? 0) + pending.bytes;
      topicBytes.set(pending.topic, ofTopic);
      if (group.length > 0 && (bytes > this.#limits.maxAppendBytes || ofTopic > pending.maxBatchBytes)) break;
      group.push(pending);
    }
    this.#queue.splice(0, group.length);
    return group;
  }

  async #send(group: readonly Pending[]): Promise<void> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const { appendTimeoutMs } = this.#limits;
    const timer = setTimeout(
      () => reject(new Error(`the brokers did not take the messages within ${appendTimeoutMs} ms`)),
      appendTimeoutMs,
    );
    try {
      await Promise.race([this.#sendAll(group), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #sendAll(group: readonly Pending[]): Promise<void> {
    this.#producer ??= this.#connect();
    const producer = await this.#producer;
    await producer.sendBatch({
      acks: -1,
      compression: kafkajs.CompressionTypes.ZSTD,
      topicMessages: [...Map.groupBy(group, (pending) => pending.topic)].map(([topic, appends]) => ({
        topic,
        messages: appends.flatMap((pending) => pending.messages.map(toRecord)),
      })),
    });
  }

  async #connect(): Promise<Producer> {
    const spreader = new Spreader();
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      metadataMaxAge: metadataMaxAgeMs,
      createPartitioner:
        () =>
        ({ message, partitionMetadata }) => {
          const placed: PlacedMessage = message;
          placed.partition ??=
            typeof message.key === 'string'
              ? partitionOf(message.key, partitionMetadata.length)
              : spreader.partition(partitionMetadata.length);
          // kafkajs would leave the message out without a word.
          if (placed.partition >= partitionMetadata.length)
            throw new Error(`partition ${placed.partition} is not known to the sender yet`);
          return placed.partition;
        },
      // Bounded by appendTimeoutMs; with the same producer and the same partitions a repetition is no second copy.
      retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: 100 },
    });
    await producer.connect();
    return producer;
  }

  async #dropProducer(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    try {
      await (await producer)?.disconnect();
    } catch {
      // It never connected, or is gone: that is what was wanted.
    }
  }
}

function toRecord({ key, value, headers, partition }: OutgoingMessage): PlacedMessage {
  return {
    key,
    ...(partition === undefined ? {} : { partition }),
    value: value === null ? null : Buffer.from(value.buffer, value.byteOffset, value.byteLength),
    ...(headers === undefined ? {} : { headers: { ...headers } }),
  };
}

/** Cuts an append so that no part, hence no record batch, is over `maxBytes` (one message may be). */
function split(
  messages: readonly OutgoingMessage[],
  maxBytes: number,
): { messages: OutgoingMessage[]; bytes: number }[] {
  const parts: { messages: OutgoingMessage[]; bytes: number }[] = [];
  let part: { messages: OutgoingMessage[]; bytes: number } | undefined;
  for (const message of messages) {
    const size = messageBytes(message);
    if (part === undefined || part.bytes + size > maxBytes) {
      part = { messages: [], bytes: 0 };
      parts.push(part);
    }
    part.messages.push(message);
    part.bytes += size;
  }
  return parts;
}
