/**
 * What services may ask of the bus. Two implementations keep this contract, `kafka` and `embedded`,
 * and one conformance suite (`conformance.ts`) runs over both.
 */

/** Names one partition of one topic. */
export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export interface OutgoingMessage {
  /** Decides the partition (same key, same partition, in order). `null` spreads. */
  readonly key: string | null;
  /** `null` is a tombstone: on a compacted topic it removes the key. */
  readonly value: Uint8Array | null;
  readonly headers?: Readonly<Record<string, string>>;
  /** The partition itself, whatever the key says. */
  readonly partition?: number;
}

export interface BusMessage {
  readonly offset: number;
  /** When the bus took the message, ms since the epoch. */
  readonly timestampMs: number;
  readonly key: string | null;
  readonly value: Uint8Array | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** A committed position: the next offset to read, and a text that the committer keeps with it. */
export interface Committed {
  readonly offset: number;
  readonly metadata: string;
}

export interface TopicSpec {
  readonly name: string;
  readonly partitionCount: number;
  /** Keep only the newest message of each key. */
  readonly compacted: boolean;
  /** How long messages of a topic that is not compacted are kept, ms. */
  readonly retentionMs: number;
  /** Largest message the topic takes, bytes. */
  readonly maxMessageBytes: number;
}

/**
 * Receives the partitions of a group member. Calls for one partition never overlap; a promise that is not yet
 * settled holds back further messages of that partition (back-pressure) and nothing else. A rejection is told to
 * `onError`; the partition is then revoked and, after a pause, assigned anew from what was committed.
 */
export interface PartitionHandler {
  /**
   * The partition is now this member's, until {@link revoked}; `lease` is this holding of it. Returns the offset to start at; to go on where the group stood,
   * return `committed.offset` (`null`: nothing was ever committed; the earliest offset is `earliest`).
   */
  assigned(
    at: TopicPartition,
    committed: Committed | null,
    earliest: number,
    lease: PartitionLease,
  ): Promise<number>;
  /** Messages in offset order, never empty. Offsets may have holes (compaction, transactions). */
  messages(at: TopicPartition, messages: readonly BusMessage[]): Promise<void>;
  /** The partition is lost; commits for it will be refused with {@link FencedError}. Must not throw. */
  revoked(at: TopicPartition): void;
}

/**
 * One holding of a partition, from `assigned` to `revoked`. A partition may be lost and come back to the same member:
 * work that was begun under the earlier holding then has to commit through that one's lease, which refuses.
 */
export interface PartitionLease {
  /** As {@link Subscription.commit}, and rejects with {@link FencedError} also when this holding has ended. */
  commit(committed: Committed): Promise<void>;
}

export interface Subscription {
  /**
   * Durable when it resolves. Rejects with {@link FencedError} when the partition now belongs to another member.
   * `committed.offset` is the next offset to read; `committed.metadata` holds at most 4096 bytes.
   */
  commit(at: TopicPartition, committed: Committed): Promise<void>;
  /** Leaves the group in an orderly way (others take over at once). */
  close(): Promise<void>;
}

export interface SubscribeOptions {
  readonly group: string;
  readonly topics: readonly string[];
  /** Upper bound of what one `messages` call holds, bytes (a single larger message still comes). */
  readonly maxBytesPerCall: number;
  readonly handler: PartitionHandler;
  /** Told about failures that the bus goes on retrying. */
  readonly onError: (error: Error) => void;
}

export interface TailOptions {
  readonly topic: string;
  /** Called in offset order for each partition, from the earliest message on. A returned promise holds back more. */
  readonly onMessages: (partition: number, messages: readonly BusMessage[]) => void | Promise<void>;
  /** Called once, when everything that was in the topic at the time of the call has been delivered. */
  readonly onCaughtUp: () => void;
  readonly onError: (error: Error) => void;
}

export interface Bus {
  readonly kind: 'kafka' | 'embedded';
  /** Creates missing topics; leaves existing ones as they are, except that partitions may be added. */
  ensureTopics(topics: readonly TopicSpec[]): Promise<void>;
  /**
   * Resolves when all messages are durable; rejects when that is not certain (then some may be there).
   * @throws {MessageTooLargeError} before anything is written.
   * @throws {BusFullError} when nothing was written for want of room.
   */
  append(topic: string, messages: readonly OutgoingMessage[]): Promise<void>;
  /** Joins a consumer group. */
  subscribe(options: SubscribeOptions): Promise<Subscription>;
  /** Reads a whole topic and follows it, outside any group (compacted topics: the current state, then changes). */
  tail(options: TailOptions): Promise<{ close(): Promise<void> }>;
  /** For each partition of the topic: first kept offset, next offset to be written, and what the group committed. */
  positions(
    topic: string,
    group: string,
  ): Promise<
    readonly {
      readonly partition: number;
      readonly earliest: number;
      readonly next: number;
      readonly committed: Committed | null;
    }[]
  >;
  close(): Promise<void>;
}

/** The partition belongs to another member of the group now; what was to be committed is theirs to redo. */
export class FencedError extends Error {
  override readonly name = 'FencedError';
}

/** The bus holds all it may, or its disk is full: nothing was written. */
export class BusFullError extends Error {
  override readonly name = 'BusFullError';
}

/** A message is over the topic's limit. */
export class MessageTooLargeError extends Error {
  override readonly name = 'MessageTooLargeError';
}
