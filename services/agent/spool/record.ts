/**
 * A batch as it stands in a segment of the spool: length (4 bytes), CRC-32 of what follows it (4), head length (2),
 * head (JSON), batch bytes. Numbers are little-endian; the length counts everything behind the CRC.
 */
import { crc32 } from 'node:zlib';
import Type, { type Static } from 'typebox';
import { Compile } from 'typebox/compile';

const RecordHead = Type.Object({
  bootId: Type.String(),
  sequence: Type.Integer({ minimum: 1 }),
  /** Flows in the batch. */
  flowCount: Type.Integer({ minimum: 0 }),
  /** Flows that this batch says were dropped before it, whatever the cause. */
  droppedCount: Type.Integer({ minimum: 0 }),
  /** Sum of the spool's own drops that this batch and all before it told of. */
  toldDropCount: Type.Integer({ minimum: 0 }),
  observedToMs: Type.Integer({ minimum: 0 }),
});
export type RecordHead = Static<typeof RecordHead>;

export interface SpoolRecord extends RecordHead {
  /** The framed FlowBatch, as it was and will be sent. */
  readonly batch: Uint8Array;
}

export interface FoundRecord {
  readonly head: RecordHead;
  /** Where the record begins in the segment, bytes. */
  readonly offset: number;
  /** Length of the whole record, bytes. */
  readonly length: number;
  /** Where the batch begins in the segment, bytes. */
  readonly batchOffset: number;
}

const prefixLength = 8;
const headLengthBytes = 2;

/** Longest record that is believed, bytes: more is a torn or foreign file. */
const maxRecordBytes = 64 * 1024 * 1024;

const headCheck = Compile(RecordHead);

export function encodeRecord(record: SpoolRecord): Buffer {
  const { batch, ...head } = record;
  const headBytes = Buffer.from(JSON.stringify(head));
  const out = Buffer.alloc(prefixLength + headLengthBytes + headBytes.length + batch.length);
  out.writeUInt32LE(out.length - prefixLength, 0);
  out.writeUInt16LE(headBytes.length, prefixLength);
  out.set(headBytes, prefixLength + headLengthBytes);
  out.set(batch, prefixLength + headLengthBytes + headBytes.length);
  out.writeUInt32LE(crc32(out.subarray(prefixLength)), 4);
  return out;
}

function readRecord(segment: Buffer, offset: number): FoundRecord | null {
  if (offset + prefixLength + headLengthBytes > segment.length) return null;
  const bodyLength = segment.readUInt32LE(offset);
  const end = offset + prefixLength + bodyLength;
  if (bodyLength < headLengthBytes || bodyLength > maxRecordBytes || end > segment.length) return null;
  const body = segment.subarray(offset + prefixLength, end);
  if (crc32(body) !== segment.readUInt32LE(offset + 4)) return null;
  const headLength = body.readUInt16LE(0);
  if (headLengthBytes + headLength > body.length) return null;
  const head: unknown = parseJson(body.toString('utf8', headLengthBytes, headLengthBytes + headLength));
  if (!headCheck.Check(head)) return null;
  return {
    head,
    offset,
    length: prefixLength + bodyLength,
    batchOffset: offset + prefixLength + headLengthBytes + headLength,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** All whole records from the beginning; `validLength` is where the first broken one begins (or the end). */
export function readRecords(segment: Buffer): { records: FoundRecord[]; validLength: number } {
  const records: FoundRecord[] = [];
  let offset = 0;
  for (let found = readRecord(segment, 0); found !== null; found = readRecord(segment, offset)) {
    records.push(found);
    offset += found.length;
  }
  return { records, validLength: offset };
}
