/**
 * The agent's batches that are not yet delivered, on disk: append-only segments, each batch durable before it counts
 * as taken, oldest dropped and counted when the limit is reached. While the disk can't be written, batches wait in
 * memory within a limit. A batch comes out byte for byte as it went in, with its old boot id and sequence, after a
 * restart too. Positions inside a segment aren't kept across restarts: such a batch is sent again, which is harmless.
 */

import { join } from 'node:path';
import { asError } from '../../../lib/runtime/as-error.ts';
import { realFiles, type SpoolFiles } from './files.ts';
import { encodeRecord, type FoundRecord, type RecordHead, readRecords, type SpoolRecord } from './record.ts';
import { emptyState, parseState, type SpoolState } from './state.ts';

export interface SpoolOptions {
  readonly folder: string;
  /** Of this run; sequences count from 1 within it. */
  readonly bootId: string;
  readonly maxSpoolBytes: number;
  readonly maxUnsavedBytes: number;
  readonly files?: SpoolFiles;
  readonly onEvent: (event: SpoolEvent) => void;
}

/** What the operator should know. */
export type SpoolEvent =
  /** Batches cannot be written and wait in memory. */
  | { readonly kind: 'unwritable'; readonly error: Error }
  /** Batches are written again. */
  | { readonly kind: 'writable' }
  /** A segment ended in the middle of a batch (the machine or the process died while writing), or was damaged. */
  | { readonly kind: 'cut'; readonly file: string; readonly bytes: number }
  | {
      readonly kind: 'dropped';
      readonly cause: SpoolDropCause;
      readonly batchCount: number;
      readonly flowCount: number;
    };

export const spoolDropCauses = ['spool-full', 'memory-full', 'unreadable', 'refused'] as const;
export type SpoolDropCause = (typeof spoolDropCauses)[number];

/** A batch that waits for delivery. */
export interface PendingBatch {
  readonly bootId: string;
  readonly sequence: number;
  readonly flowCount: number;
  readonly bytes: Uint8Array;
}

export interface NewBatch {
  readonly flowCount: number;
  /** Drops elsewhere that the batch tells of. */
  readonly sourceDroppedCount: number;
  /** How many of `spool.pendingDropCount` it tells of too. */
  readonly spoolDropCount: number;
  readonly observedToMs: number;
  readonly bytes: Uint8Array;
}

interface Segment {
  readonly number: number;
  length: number;
  /** Undelivered, oldest first. */
  records: FoundRecord[];
  toldDropCount: number;
}

/** Parts of the limit that one segment takes: what is dropped at once, at most. */
const segmentsPerLimit = 16;

const stateFile = 'state.json';
/** Two by turns: while one is written the other still belongs to the last batch. */
const noteFiles = ['note-0', 'note-1'] as const;
const segmentName = /^(\d{10})\.segment$/;

export class Spool {
  readonly #options: SpoolOptions;
  readonly #files: SpoolFiles;
  readonly #segmentBytes: number;
  #segments: Segment[] = [];
  #nextSegment = 1;
  /** The last segment was begun by this run and may grow. */
  #appendable = false;
  /** What was last given out for delivery, and whether it was dropped for want of room meanwhile. */
  #givenOut: { head: RecordHead; dropped: boolean } | null = null;
  #unsaved: SpoolRecord[] = [];
  #unsavedBytes = 0;
  #writable = true;
  #state: SpoolState = emptyState;
  #toldDropCount = 0;
  #note: string | null = null;
  #sequence = 0;
  #waiting: (() => void) | null = null;

  constructor(options: SpoolOptions) {
    this.#options = options;
    this.#files = options.files ?? realFiles;
    this.#segmentBytes = Math.ceil(options.maxSpoolBytes / segmentsPerLimit);
    this.#open();
  }

  /** Sequence that the next batch must carry. */
  get nextSequence(): number {
    return this.#sequence + 1;
  }

  /** Flows dropped here that no batch told of yet; the next batch must. */
  get pendingDropCount(): number {
    return Math.max(0, this.#state.dropCount - this.#toldDropCount);
  }

  /** End of the last interval that an earlier run put here, ms since the epoch; `null`: there was none. */
  get observedToMs(): number | null {
    return this.#state.observedToMs === 0 ? null : this.#state.observedToMs;
  }

  /** The note of the last batch that an earlier run put here; `null`: there is none. */
  get note(): string | null {
    return this.#note;
  }

  get writable(): boolean {
    return this.#writable;
  }

  /** Bytes on disk. */
  get diskBytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.length, 0);
  }

  get unsavedBytes(): number {
    return this.#unsavedBytes;
  }

  get batchCount(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.records.length, 0) + this.#unsaved.length;
  }

  #path(name: string): string {
    return join(this.#options.folder, name);
  }

  #segmentPath(number: number): string {
    return this.#path(`${String(number).padStart(10, '0')}.segment`);
  }

  #open(): void {
    try {
      this.#files.makeFolder(this.#options.folder);
      const names = this.#files.list(this.#options.folder);
      if (names.includes(stateFile)) {
        this.#state = parseState(this.#files.read(this.#path(stateFile)).toString('utf8')) ?? emptyState;
      }
      this.#toldDropCount = this.#state.toldDropCount;
      this.#nextSegment = Math.max(0, ...this.#state.droppedSegments) + 1;
      const numbers = names.flatMap((name) => segmentName.exec(name)?.[1] ?? []).map(Number);
      for (const number of numbers.sort((a, b) => a - b)) this.#openSegment(number);
      this.#note = this.#readNote(names);
    } catch (error) {
      this.#setUnwritable(asError(error));
    }
  }

  #readNote(names: readonly string[]): string | null {
    const { lastBootId, lastSequence } = this.#state;
    for (const name of noteFiles.filter((one) => names.includes(one))) {
      const text = this.#files.read(this.#path(name)).toString('utf8');
      const end = text.indexOf('\n');
      if (text.slice(0, end) === `${lastBootId} ${lastSequence}`) return text.slice(end + 1);
    }
    return null;
  }

  /**
   * Keeps a text that belongs to the batch with this sequence, to be written just before the batch: a later run finds
   * it as `note` if, and only if, that batch was the last one to be kept.
   */
  writeNote(sequence: number, text: string): void {
    const name = noteFiles[sequence % noteFiles.length] ?? noteFiles[0];
    try {
      this.#files.replace(
        this.#path(name),
        Buffer.from(`${this.#options.bootId} ${sequence}\n${text}`),
        false,
      );
    } catch (error) {
      this.#setUnwritable(asError(error));
    }
  }

  #openSegment(number: number): void {
    this.#nextSegment = Math.max(this.#nextSegment, number + 1);
    const path = this.#segmentPath(number);
    if (this.#state.droppedSegments.includes(number)) {
      this.#files.remove(path);
      return;
    }
    const bytes = this.#files.read(path);
    const { records, validLength } = readRecords(bytes);
    if (validLength < bytes.length) {
      this.#files.truncate(path, validLength);
      this.#options.onEvent({ kind: 'cut', file: path, bytes: bytes.length - validLength });
    }
    const last = records.at(-1);
    if (last === undefined) {
      this.#files.remove(path);
      return;
    }
    this.#toldDropCount = Math.max(this.#toldDropCount, last.head.toldDropCount);
    this.#state = withLast(this.#state, last.head);
    this.#segments.push({ number, length: validLength, records, toldDropCount: last.head.toldDropCount });
  }

  /**
   * Takes a batch, which carries `nextSequence`. Durable when it returns, unless the spool isn't writable. Never throws
   * for a full or broken disk.
   */
  append(batch: NewBatch): void {
    this.#sequence++;
    this.#toldDropCount += batch.spoolDropCount;
    this.#unsaved.push({
      bootId: this.#options.bootId,
      sequence: this.#sequence,
      flowCount: batch.flowCount,
      droppedCount: batch.sourceDroppedCount + batch.spoolDropCount,
      toldDropCount: this.#toldDropCount,
      observedToMs: batch.observedToMs,
      batch: batch.bytes,
    });
    this.#unsavedBytes += batch.bytes.length;
    this.#save();
    this.#waiting?.();
  }

  /** Writes what is in memory, in order, until the disk refuses. */
  #save(): void {
    for (let record = this.#unsaved[0]; record !== undefined; record = this.#unsaved[0]) {
      try {
        this.#write(record);
      } catch (error) {
        this.#setUnwritable(asError(error));
        this.#dropUnsaved();
        return;
      }
      this.#unsaved.shift();
      this.#unsavedBytes -= record.batch.length;
    }
    if (!this.#writable) {
      this.#writable = true;
      this.#options.onEvent({ kind: 'writable' });
    }
  }

  #write(record: SpoolRecord): void {
    const bytes = encodeRecord(record);
    this.#makeRoom(bytes.length);
    if (!this.#writable) this.#files.makeFolder(this.#options.folder);
    let segment = this.#segments.at(-1);
    if (segment === undefined || !this.#appendable || segment.length + bytes.length > this.#segmentBytes) {
      segment = { number: this.#nextSegment, length: 0, records: [], toldDropCount: 0 };
    }
    this.#files.writeAt(this.#segmentPath(segment.number), segment.length, bytes);
    const found = readRecords(bytes).records[0];
    if (found === undefined) throw new Error('a record could not be read back');
    if (segment.number === this.#nextSegment) {
      this.#nextSegment++;
      this.#segments.push(segment);
      this.#appendable = true;
    }
    segment.records.push({
      ...found,
      offset: segment.length,
      batchOffset: segment.length + found.batchOffset,
    });
    segment.length += bytes.length;
    segment.toldDropCount = record.toldDropCount;
    this.#state = withLast(this.#state, record);
  }

  /** Drops the oldest segments until `length` more bytes fit. */
  #makeRoom(length: number): void {
    while (this.diskBytes + length > this.#options.maxSpoolBytes) {
      const oldest = this.#segments[0];
      if (oldest === undefined) return;
      const flowCount = oldest.records.reduce((sum, { head }) => sum + head.flowCount + head.droppedCount, 0);
      // The count is durable before the batches go, so that dying in between neither loses nor doubles it.
      const state: SpoolState = {
        ...this.#state,
        dropCount: this.#state.dropCount + flowCount,
        toldDropCount: Math.max(this.#state.toldDropCount, oldest.toldDropCount),
        droppedSegments: [oldest.number],
      };
      this.#writeState(state, true);
      this.#files.remove(this.#segmentPath(oldest.number));
      this.#segments.shift();
      if (oldest.records.some(({ head }) => head === this.#givenOut?.head) && this.#givenOut !== null) {
        this.#givenOut.dropped = true;
      }
      if (this.#segments.length === 0) this.#appendable = false;
      this.#options.onEvent({
        kind: 'dropped',
        cause: 'spool-full',
        batchCount: oldest.records.length,
        flowCount,
      });
    }
  }

  #writeState(state: SpoolState, durable: boolean): void {
    this.#state = state;
    try {
      this.#files.replace(this.#path(stateFile), Buffer.from(JSON.stringify(state)), durable);
    } catch (error) {
      // On a full disk making room goes before the memory of why.
      this.#setUnwritable(asError(error));
    }
  }

  #dropUnsaved(): void {
    while (this.#unsavedBytes > this.#options.maxUnsavedBytes) {
      const oldest = this.#unsaved.shift();
      if (oldest === undefined) return;
      this.#unsavedBytes -= oldest.batch.length;
      this.#countDropped('memory-full', oldest);
    }
  }

  #countDropped(cause: SpoolDropCause, head: RecordHead): void {
    const flowCount = head.flowCount + head.droppedCount;
    this.#state = { ...this.#state, dropCount: this.#state.dropCount + flowCount };
    this.#options.onEvent({ kind: 'dropped', cause, batchCount: 1, flowCount });
  }

  #setUnwritable(error: Error): void {
    if (!this.#writable) return;
    this.#writable = false;
    this.#options.onEvent({ kind: 'unwritable', error });
  }

  /** The oldest batch that waits, or `null`. */
  oldest(): PendingBatch | null {
    for (let segment = this.#waitingSegment(); segment !== undefined; segment = this.#waitingSegment()) {
      const record = segment.records[0];
      const bytes = record === undefined ? null : this.#readBatch(segment, record);
      if (record !== undefined && bytes !== null) return this.#giveOut(record.head, bytes);
      // The file was taken away or is damaged: what it held is lost, and counted.
      for (const { head } of segment.records) this.#countDropped('unreadable', head);
      segment.records = [];
      this.#removeSettled(segment);
    }
    const record = this.#unsaved[0];
    return record === undefined ? null : this.#giveOut(record, record.batch);
  }

  #waitingSegment(): Segment | undefined {
    return this.#segments.find((segment) => segment.records.length > 0);
  }

  #readBatch(segment: Segment, record: FoundRecord): Uint8Array | null {
    try {
      const bytes = this.#files.readAt(this.#segmentPath(segment.number), record.offset, record.length);
      if (readRecords(bytes).validLength !== record.length) return null;
      return bytes.subarray(record.batchOffset - record.offset);
    } catch {
      return null;
    }
  }

  #giveOut(head: RecordHead, bytes: Uint8Array): PendingBatch {
    this.#givenOut = { head, dropped: false };
    const { bootId, sequence, flowCount } = head;
    return { bootId, sequence, flowCount, bytes };
  }

  /** Resolves as soon as a batch waits, or when the signal is aborted. */
  async waitForBatch(signal: AbortSignal): Promise<void> {
    while (this.batchCount === 0 && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          this.#waiting = null;
          resolve();
        };
        this.#waiting = wake;
        signal.addEventListener('abort', wake, { once: true });
      });
    }
  }

  /** The batch was taken by the other end, or (`refused`) will never be: then its flows count as dropped. */
  settle(batch: PendingBatch, outcome: 'delivered' | 'refused'): void {
    const isIt = (head: RecordHead | undefined): head is RecordHead =>
      head !== undefined && head.bootId === batch.bootId && head.sequence === batch.sequence;
    const segment = this.#waitingSegment();
    const head = segment === undefined ? this.#unsaved[0] : segment.records[0]?.head;
    if (!isIt(head)) {
      this.#settleDropped(batch, outcome);
      return;
    }
    if (outcome === 'refused') this.#countDropped('refused', head);
    if (segment === undefined) {
      this.#unsaved.shift();
      this.#unsavedBytes -= batch.bytes.length;
      return;
    }
    segment.records.shift();
    if (segment.records.length === 0) this.#removeSettled(segment);
    else if (outcome === 'refused') this.#writeState(this.#state, true);
  }

  /** It was dropped for want of room while it was on its way: if it arrived all the same, the count is taken back. */
  #settleDropped(batch: PendingBatch, outcome: 'delivered' | 'refused'): void {
    const given = this.#givenOut;
    if (outcome === 'refused' || given === null || !given.dropped) return;
    const { bootId, sequence, flowCount, droppedCount } = given.head;
    if (bootId !== batch.bootId || sequence !== batch.sequence) return;
    this.#givenOut = null;
    const counted = flowCount + droppedCount;
    if (this.pendingDropCount < counted) return;
    this.#state = { ...this.#state, dropCount: this.#state.dropCount - counted };
  }

  /** A segment whose batches are all settled goes; the one that is being written is emptied and goes on. */
  #removeSettled(segment: Segment): void {
    const toldDropCount = Math.max(this.#state.toldDropCount, segment.toldDropCount);
    const dropsAreNews = toldDropCount !== this.#state.toldDropCount || this.pendingDropCount > 0;
    this.#writeState({ ...this.#state, toldDropCount }, dropsAreNews);
    const path = this.#segmentPath(segment.number);
    try {
      if (this.#appendable && segment === this.#segments.at(-1)) {
        this.#files.truncate(path, 0);
        segment.length = 0;
        return;
      }
      this.#files.remove(path);
    } catch (error) {
      // Left behind it would only be sent again.
      this.#setUnwritable(asError(error));
    }
    this.#segments = this.#segments.filter((other) => other !== segment);
    if (this.#segments.length === 0) this.#appendable = false;
  }
}

/** The state with a batch as the last one that is kept. */
function withLast(state: SpoolState, head: RecordHead): SpoolState {
  return {
    ...state,
    observedToMs: Math.max(state.observedToMs, head.observedToMs),
    lastBootId: head.bootId,
    lastSequence: head.sequence,
  };
}
