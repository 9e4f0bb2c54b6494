/** Reads messages of one partition, a bounded number of bytes at a time. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { BusMessage } from '../bus.ts';
import { offsetSpan } from './file.ts';

/** Most messages one read hands out, so that tiny messages do not make it long. */
const messagesPerRead = 4096;
/** What a row weighs besides its value. */
const rowBytes = 64;

export interface PartitionBounds {
  readonly earliest: number;
  readonly next: number;
}

export class Reader {
  readonly #select: StatementSync;
  readonly #bounds: StatementSync;

  constructor(database: DatabaseSync) {
    this.#select = database.prepare(
      'SELECT id, timestamp_ms, key, value, headers FROM messages WHERE id >= ? AND id < ? ORDER BY id',
    );
    this.#select.setReturnArrays(true);
    this.#bounds = database.prepare('SELECT earliest, next FROM partitions WHERE id = ?');
  }

  /** Messages from `offset` on, up to `maxBytes` of values (at least one message, when there is one). */
  read(partitionId: number, offset: number, maxBytes: number): BusMessage[] {
    const base = partitionId * offsetSpan;
    const messages: BusMessage[] = [];
    let bytes = 0;
    for (const row of this.#select.iterate(base + offset, base + offsetSpan)) {
      const message = toMessage(row, base);
      bytes += (message.value?.byteLength ?? 0) + rowBytes;
      if (messages.length > 0 && bytes > maxBytes) break;
      messages.push(message);
      if (messages.length >= messagesPerRead || bytes >= maxBytes) break;
    }
    return messages;
  }

  bounds(partitionId: number): PartitionBounds {
    const row = this.#bounds.get(partitionId);
    return { earliest: Number(row?.earliest ?? 0), next: Number(row?.next ?? 0) };
  }
}

const noHeaders: Readonly<Record<string, string>> = Object.freeze({});

function toMessage(row: unknown, base: number): BusMessage {
  if (!Array.isArray(row)) throw new Error('the bus file returned a row of another shape');
  const [id, timestampMs, key, value, headers]: unknown[] = row;
  return {
    offset: Number(id) - base,
    timestampMs: Number(timestampMs),
    key: typeof key === 'string' ? key : null,
    value: value instanceof Uint8Array ? value : null,
    headers: typeof headers === 'string' ? JSON.parse(headers) : noHeaders,
  };
}
