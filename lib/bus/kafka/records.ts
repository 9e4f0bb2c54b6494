/** Turns fetched Kafka records into bus messages. */
import type { BusMessage } from '../bus.ts';

/** A record as kafkajs decodes it. */
export interface FetchedRecord {
  readonly offset: string;
  readonly timestamp: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: Readonly<Record<string, Buffer | string | (Buffer | string)[] | undefined>>;
  readonly isControlRecord?: boolean;
  readonly batchContext?: { readonly producerId: string; readonly inTransaction: boolean };
}

export interface FetchedPartition {
  readonly partition: number;
  readonly highWatermark: string;
  readonly lastStableOffset?: string;
  readonly abortedTransactions?: readonly { readonly producerId: string; readonly firstOffset: string }[];
  readonly messages: readonly FetchedRecord[];
}

/** The messages from `offset` on (a fetch may begin earlier, in the middle of a batch). */
export function messagesFrom(fetched: FetchedPartition, offset: number): BusMessage[] {
  const isAborted = abortedFilter(fetched);
  const messages: BusMessage[] = [];
  for (const record of fetched.messages) {
    if (isAborted(record) || record.isControlRecord === true || Number(record.offset) < offset) continue;
    messages.push(toMessage(record));
  }
  return messages;
}

/** The offset after everything in the fetch, messages or not. */
export function nextOffset(fetched: FetchedPartition, offset: number): number {
  const last = fetched.messages.at(-1);
  return last === undefined ? offset : Math.max(offset, Number(last.offset) + 1);
}

function toMessage(record: FetchedRecord): BusMessage {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(record.headers ?? {})) {
    const last = Array.isArray(value) ? value.at(-1) : value;
    if (last !== undefined) headers[name] = typeof last === 'string' ? last : last.toString('utf8');
  }
  return {
    offset: Number(record.offset),
    timestampMs: Number(record.timestamp),
    key: record.key === null ? null : record.key.toString('utf8'),
    value: record.value,
    headers,
  };
}

/** Second bytes of a control record's key: the transaction was aborted (Kafka protocol, control records). */
const abortMarker = 0;

/** Tells records of aborted transactions, which a broker sends along even to readers of committed ones. */
function abortedFilter(fetched: FetchedPartition): (record: FetchedRecord) => boolean {
  const waiting = [...(fetched.abortedTransactions ?? [])].sort(
    (a, b) => Number(a.firstOffset) - Number(b.firstOffset),
  );
  const open = new Set<string>();
  return (record) => {
    while (waiting[0] !== undefined && Number(waiting[0].firstOffset) <= Number(record.offset)) {
      open.add(waiting[0].producerId);
      waiting.shift();
    }
    const context = record.batchContext;
    if (context === undefined || !context.inTransaction || !open.has(context.producerId)) return false;
    if (record.isControlRecord === true && record.key?.readInt16BE(2) === abortMarker)
      open.delete(context.producerId);
    return true;
  };
}
