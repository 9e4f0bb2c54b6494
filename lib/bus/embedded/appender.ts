/** Writes messages: all appends that wait at one moment share a transaction, so they share its flush to disk. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { MessageTooLargeError, type OutgoingMessage } from '../bus.ts';
import { messageBytes } from '../message-size.ts';
import { partitionOf, Spreader } from '../partitioner.ts';
import type { Catalog, Topic } from './catalog.ts';
import { offsetSpan, write } from './file.ts';

export interface AppenderLimits {
  readonly maxAppendBytes: number;
  readonly maxPendingAppendBytes: number;
  readonly appendTimeoutMs: number;
}

interface Pending {
  readonly topic: Topic;
  readonly messages: readonly OutgoingMessage[];
  readonly bytes: number;
  resolve(): void;
  reject(error: unknown): void;
}

export class Appender {
  readonly #database: DatabaseSync;
  readonly #catalog: Catalog;
  readonly #limits: AppenderLimits;
  readonly #onWritten: () => void;
  readonly #spreader = new Spreader();
  readonly #insert: StatementSync;
  readonly #next: StatementSync;
  readonly #advance: StatementSync;
  readonly #previous: StatementSync;
  readonly #remember: StatementSync;
  readonly #remove: StatementSync;
  #queue: Pending[] = [];
  #pendingBytes = 0;
  #writing: Promise<void> | undefined;
  #closed = false;

  constructor(database: DatabaseSync, catalog: Catalog, limits: AppenderLimits, onWritten: () => void) {
    this.#database = database;
    this.#catalog = catalog;
    this.#limits = limits;
    this.#onWritten = onWritten;
    this.#insert = database.prepare(
      'INSERT INTO messages (id, timestamp_ms, key, value, headers) VALUES (?, ?, ?, ?, ?)',
    );
    this.#next = database.prepare('SELECT next FROM partitions WHERE id = ?');
    this.#advance = database.prepare('UPDATE partitions SET next = ? WHERE id = ?');
    this.#previous = database.prepare('SELECT message_id FROM newest WHERE partition_id = ? AND key = ?');
    this.#remember = database.prepare(
      `INSERT INTO newest (partition_id, key, message_id) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET message_id = excluded.message_id`,
    );
    this.#remove = database.prepare('DELETE FROM messages WHERE id = ?');
  }

  /** Resolves when the messages are on the disk. */
  async append(name: string, messages: readonly OutgoingMessage[]): Promise<void> {
    if (this.#closed) throw new Error('the bus is closed');
    let topic = this.#catalog.get(name);
    // Another process may have added it.
    if (messages.some(({ partition = 0 }) => partition >= topic.partitionIds.length))
      topic = this.#catalog.get(name, true);
    let bytes = 0;
    for (const message of messages) {
      const size = messageBytes(message);
      if (size > topic.maxMessageBytes) {
        throw new MessageTooLargeError(
          `a message of ${size} bytes is over the ${topic.maxMessageBytes} that topic '${name}' takes`,
        );
      }
      if (topic.compacted && message.key === null)
        throw new Error(`topic '${name}' is compacted: messages need a key`);
      bytes += size;
    }
    if (messages.length === 0) return;
    if (this.#pendingBytes + bytes > this.#limits.maxPendingAppendBytes && this.#pendingBytes > 0) {
      throw new Error(
        `${this.#pendingBytes} bytes wait to be written to the bus already (limit bus.maxPendingAppendBytes)`,
      );
    }
    this.#pendingBytes += bytes;
    const written = new Promise<void>((resolve, reject) => {
      this.#queue.push({ topic, messages, bytes, resolve, reject });
    });
    this.#writing ??= this.#drain();
    await written;
  }

  /** Writes what waits, then refuses more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
  }

  async #drain(): Promise<void> {
    // Let everything that arrives in this turn of the event loop join the transaction.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await write(this.#database, this.#limits.appendTimeoutMs, () => this.#insertAll(group));
        for (const pending of group) pending.resolve();
        this.#onWritten();
      } catch (error) {
        for (const pending of group) pending.reject(error);
      }
      for (const pending of group) this.#pendingBytes -= pending.bytes;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    this.#writing = undefined;
  }

  #takeGroup(): Pending[] {
    let count = 0;
    let bytes = 0;
    for (const pending of this.#queue) {
      bytes += pending.bytes;
      if (count > 0 && bytes > this.#limits.maxAppendBytes) break;
      count++;
    }
    const group = this.#queue.slice(0, count);
    this.#queue = this.#queue.slice(count);
    return group;
  }

  #insertAll(group: readonly Pending[]): void {
    const nextOffsets = new Map<number, number>();
    const nowMs = Date.now();
    for (const { topic, messages } of group) {
      for (const message of messages) {
        const count = topic.partitionIds.length;
        const partition =
          message.partition ??
          (message.key === null ? this.#spreader.partition(count) : partitionOf(message.key, count));
        const partitionId = topic.partitionIds[partition];
        if (partitionId === undefined) throw new Error(`topic '${topic.name}' has no partition ${partition}`);
        const offset = nextOffsets.get(partitionId) ?? Number(this.#next.get(partitionId)?.next);
        nextOffsets.set(partitionId, offset + 1);
        this.#insertOne(topic, partitionId, offset, nowMs, message);
      }
    }
    for (const [partitionId, next] of nextOffsets) this.#advance.run(next, partitionId);
  }

  #insertOne(
    topic: Topic,
    partitionId: number,
    offset: number,
    nowMs: number,
    message: OutgoingMessage,
  ): void {
    const id = partitionId * offsetSpan + offset;
    const headers = message.headers === undefined ? null : JSON.stringify(message.headers);
    this.#insert.run(id, nowMs, message.key, message.value, headers);
    if (!topic.compacted || message.key === null) return;
    // Compaction here and now: one message of a key is never more than one step of work.
    const previous = this.#previous.get(partitionId, message.key);
    if (previous !== undefined) this.#remove.run(Number(previous.message_id));
    this.#remember.run(partitionId, message.key, id);
  }
}
