/**
 * A slice of a block: messages decoded into columns, and a ledger entry for each message. Slices are named one by one as they
 * come, and inserted together.
 */

import type { BusMessage } from '../../lib/bus/bus.ts';
import {
  type BatchHeader,
  clearFlowColumns,
  type FlowColumns,
  growFlowColumns,
  makeFlowColumns,
  readFlowBatch,
} from '../../lib/wire/columns.ts';
import type { BatchOutcome, DropCause } from '../../schemas/closed-lists.ts';
import { type EndAges, endAgesOf, noEndAges } from './ages.ts';
import { type Home, homeOf } from './home.ts';
import type { Plan } from './plan.ts';
import { makeResolvedColumns, type NamedRows, type ResolvedColumns } from './resolve.ts';
import { makeStoredColumns, type NamedBatchRows, type StoredColumns } from './rows.ts';
import type { SeenBatches } from './sequences.ts';

/** One line of the ledger: what became of one message. */
export interface LedgerEntry {
  readonly header: BatchHeader | null;
  readonly message: BusMessage;
  readonly flowCount: number;
  readonly writtenCount: number;
  readonly outcome: BatchOutcome;
  readonly cause: DropCause;
  /** For dead batches: what was wrong, for people. */
  readonly detail: string;
  /** How long before the end of the interval its written flows ended. */
  readonly endAges: EndAges;
}

/** A message of an agent that is at home in another partition: it is handed on, and in the ledger from there. */
export interface MovedMessage {
  readonly message: BusMessage;
  readonly agentId: string;
  /** Where it belongs. */
  readonly partition: number;
}

export interface BlockLimits {
  /** Rows of a block; may change from one to the next. */
  readonly maxRows: number;
  /** Rows of a single batch, which may be more. */
  readonly maxBatchRows: number;
  readonly maxBytes: number;
  readonly maxAgeMs: number;
  readonly maxAheadMs: number;
}

/** What a batch's header means to its rows. */
export interface BatchScheme {
  /** Index of the network with this name. */
  networkIndex(name: string): number;
  /** How far the times of its rows may be off once they are by the common clock, ms. */
  toleranceMs(header: BatchHeader): number;
}

/** Whether a message went in, or goes into the next slice. */
export type TakeResult = 'taken' | 'full';

const initialRows = 8192;
/** Rows of a slice at most, unless a single batch has more: the memory of one fits the next, and none grows for long. */
const sliceRows = 32_768;

export class SliceBuilder {
  readonly #limits: BlockLimits;
  readonly #scheme: BatchScheme;
  #columns = makeFlowColumns(initialRows);
  #resolved = makeResolvedColumns(0);
  #stored = makeStoredColumns(0);
  #ledger: LedgerEntry[] = [];
  #moved: MovedMessage[] = [];
  #range: Plan | null = null;
  #batches: NamedBatchRows[] = [];
  #byteCount = 0;
  /** Takes whatever comes, whatever the limits: a block that is built again must get all of its range. */
  unlimited = false;
  /** What is known of its rows; null until they are named. */
  named: NamedRows | null = null;

  constructor(limits: BlockLimits, scheme: BatchScheme) {
    this.#limits = limits;
    this.#scheme = scheme;
  }

  get columns(): FlowColumns {
    return this.#columns;
  }
  /** Room for what becomes known of the rows. It is this slice's own, as it is on its way while others are resolved. */
  get resolved(): ResolvedColumns {
    if (this.#resolved.verdict.length < this.#columns.capacity)
      this.#resolved = makeResolvedColumns(this.#columns.capacity);
    return this.#resolved;
  }
  /** Room for what the store gets of the rows; on its way while others are made. */
  get stored(): StoredColumns {
    if (this.#stored.verdict.length < this.#columns.capacity)
      this.#stored = makeStoredColumns(this.#columns.capacity);
    return this.#stored;
  }
  get ledger(): readonly LedgerEntry[] {
    return this.#ledger;
  }
  get moved(): readonly MovedMessage[] {
    return this.#moved;
  }
  get batches(): readonly NamedBatchRows[] {
    return this.#batches;
  }
  /** Bytes of the messages taken. */
  get byteCount(): number {
    return this.#byteCount;
  }
  get isEmpty(): boolean {
    return this.#range === null;
  }
  /** Whether it has as many rows as a slice has. */
  get isFull(): boolean {
    return !this.unlimited && this.#columns.count >= this.#maxRows;
  }

  /** Offsets of the messages taken; null while there are none. */
  get range(): Plan | null {
    return this.#range;
  }

  clear(): void {
    clearFlowColumns(this.#columns);
    // One that was built again, or had a large batch, is larger than others.
    if (this.#columns.capacity > sliceRows) {
      this.#columns = makeFlowColumns(initialRows);
      this.#resolved = makeResolvedColumns(0);
      this.#stored = makeStoredColumns(0);
    }
    this.#ledger = [];
    this.#moved = [];
    this.#range = null;
    this.#batches = [];
    this.#byteCount = 0;
    this.unlimited = false;
    this.named = null;
  }

  /** Decodes a message into the slice. A batch that was seen before, or can't be read, leaves a ledger entry only. */
  take(message: BusMessage, home: Home, seen: SeenBatches): TakeResult {
    const size = message.value?.length ?? 0;
    if (!this.unlimited && !this.isEmpty && this.#byteCount + size > this.#limits.maxBytes) return 'full';
    for (;;) {
      const outcome = this.#read(message, home, seen);
      if (outcome === 'grow') {
        this.#grow();
        continue;
      }
      if (outcome === 'taken') {
        this.#byteCount += size;
        this.#range = { from: this.#range?.from ?? message.offset, to: message.offset };
      }
      return outcome;
    }
  }

  #read(message: BusMessage, home: Home, seen: SeenBatches): TakeResult | 'grow' {
    const columns = this.#columns;
    if (message.value === null) {
      this.#note(message, null, 0, 0, 'dead', 'undecodable', 'the message has no value');
      return 'taken';
    }
    const result = readFlowBatch(message.value, columns);
    if (!result.ok) {
      if (result.cause === 'too-many-flows') {
        if (this.unlimited || columns.capacity < this.#mostRows) return 'grow';
        if (!this.isEmpty) return 'full';
      }
      this.#note(message, null, 0, 0, 'dead', result.cause, `${result.field} ${result.detail}`);
      return 'taken';
    }
    const { header, firstRow, rowCount } = result;
    const partition = homeOf(header.agentId, home);
    if (partition !== home.partition) {
      columns.count = firstRow;
      this.#moved.push({ message, agentId: header.agentId, partition });
      return 'taken';
    }
    // From here on every time is by the common clock.
    if (header.clockOffsetMs !== 0) {
      const { startMs } = columns;
      for (let row = firstRow; row < firstRow + rowCount; row++)
        startMs[row] = (startMs[row] ?? 0) - header.clockOffsetMs;
    }
    const badRow = this.#timeOutOfRange(message.timestampMs, firstRow, rowCount);
    if (badRow >= 0) {
      const begin = new Date(columns.startMs[badRow] ?? 0);
      columns.count = firstRow;
      const shown = Number.isNaN(begin.getTime()) ? 'an impossible time' : begin.toISOString();
      this.#note(
        message,
        header,
        rowCount,
        0,
        'dead',
        'time-out-of-range',
        `flows[${badRow - firstRow}] begins at ${shown}`,
      );
      return 'taken';
    }
    if (!seen.add(header.agentId, header.bootId, header.sequence)) {
      columns.count = firstRow;
      this.#note(message, header, rowCount, 0, 'resent', 'none', '');
      return 'taken';
    }
    if (rowCount > 0) {
      this.#batches.push({
        firstRow,
        rowCount,
        network: this.#scheme.networkIndex(header.network),
        toleranceMs: this.#scheme.toleranceMs(header),
        agentId: header.agentId,
        networkName: header.network,
      });
    }
    const observedToMs = header.observedToMs - header.clockOffsetMs;
    const endAges = endAgesOf(columns, firstRow, rowCount, observedToMs);
    this.#note(message, header, rowCount, rowCount, 'written', 'none', '', endAges);
    return 'taken';
  }

  #note(
    message: BusMessage,
    header: BatchHeader | null,
    flowCount: number,
    writtenCount: number,
    outcome: BatchOutcome,
    cause: DropCause,
    detail: string,
    endAges: EndAges = noEndAges,
  ): void {
    this.#ledger.push({ header, message, flowCount, writtenCount, outcome, cause, detail, endAges });
  }

  /** First row that begins too long before, or too far after, the bus took the message; -1 where all are well. */
  #timeOutOfRange(receivedMs: number, firstRow: number, rowCount: number): number {
    const from = receivedMs - this.#limits.maxAgeMs;
    const to = receivedMs + this.#limits.maxAheadMs;
    const startMs = this.#columns.startMs;
    for (let row = firstRow; row < firstRow + rowCount; row++) {
      const start = startMs[row] ?? 0;
      if (!(start >= from && start <= to)) return row;
    }
    return -1;
  }

  get #maxRows(): number {
    return Math.min(sliceRows, this.#limits.maxRows);
  }

  /** A single batch goes in whatever the blocks are at the moment. */
  get #mostRows(): number {
    return this.isEmpty ? Math.max(this.#maxRows, this.#limits.maxBatchRows) : this.#maxRows;
  }

  #grow(): void {
    const capacity = this.#columns.capacity * 2;
    this.#columns = growFlowColumns(
      this.#columns,
      this.unlimited ? capacity : Math.min(capacity, this.#mostRows),
    );
  }
}
