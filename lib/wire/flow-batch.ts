/**
 * FlowBatch as plain objects, through avsc: what agents, ingest and the estate write, and what the columnar reader
 * (`columns.ts`) is held against. The frame is Avro single-object encoding (Avro 1.11 specification).
 */
import { readFileSync } from 'node:fs';
import avro from 'avsc';
import type { Action, Side, State } from '../../schemas/closed-lists.ts';

/** One flow; `schemas/flow-batch.avsc` says what each field means. Indexes point into the batch's `strings`. */
export interface Flow {
  startMs: number;
  durationMs: number;
  sourceAddress: Uint8Array;
  sourcePort: number;
  destinationAddress: Uint8Array;
  destinationPort: number;
  protocol: number;
  originalDestinationAddress: Uint8Array;
  originalDestinationPort: number;
  reporter: Side;
  bytesForward: number;
  bytesReverse: number;
  packetsForward: number;
  packetsReverse: number;
  connectionCount: number;
  flags: number;
  state: State;
  action: Action;
  actionReason: number;
  dnsName: number;
  processName: number;
  sourceHint: number;
  destinationHint: number;
}

export interface FlowBatch {
  agentId: string;
  bootId: string;
  sequence: number;
  cluster: string;
  node: string;
  network: string;
  sourceKind: string;
  observedFromMs: number;
  observedToMs: number;
  sourceDroppedCount: number;
  samplingRate: number;
  clockOffsetMs: number;
  clockErrorMs: number;
  strings: string[];
  flows: Flow[];
}

const schemaFile = new URL('../../schemas/flow-batch.avsc', import.meta.url);

/** The current schema. */
export const flowBatchType = avro.Type.forSchema(JSON.parse(readFileSync(schemaFile, 'utf8')), {
  // Addresses are handed out as views; nothing else in the schema needs a hook.
  wrapUnions: 'never',
});

/** Length of the frame before the Avro body, bytes. */
export const frameLength = 10;

/** CRC-64-AVRO of a schema's parsing canonical form, as the 8 bytes that follow C3 01 (little-endian). */
export function fingerprint(canonicalForm: string): Uint8Array {
  const empty = 0xc15d213aa4d7a795n;
  let value = empty;
  for (const byte of Buffer.from(canonicalForm, 'utf8')) {
    let entry = (value ^ BigInt(byte)) & 0xffn;
    for (let bit = 0; bit < 8; bit++) entry = (entry >> 1n) ^ (empty & -(entry & 1n) & 0xffffffffffffffffn);
    value = (value >> 8n) ^ entry;
  }
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(value & 0xffffffffffffffffn);
  return out;
}

/** The frame of a message written with `type`: C3 01 and the fingerprint. */
export function frameOf(type: avro.Type): Uint8Array {
  return Buffer.concat([Uint8Array.of(0xc3, 0x01), fingerprint(JSON.stringify(type.schema()))]);
}

/** The frame of the current schema. */
export const currentFrame = frameOf(flowBatchType);

/** Encodes a batch with its frame. @throws {Error} naming the field, where a value does not fit the schema. */
export function encodeFlowBatch(batch: FlowBatch): Buffer {
  return Buffer.concat([currentFrame, flowBatchType.toBuffer(asBuffers(batch))]);
}

/** Decodes a framed batch of the current schema into objects (slow; for tests and tools). @throws {Error} on anything else. */
export function decodeFlowBatch(message: Uint8Array): FlowBatch {
  const buffer = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  if (!buffer.subarray(0, frameLength).equals(currentFrame))
    throw new Error('not a FlowBatch of the current schema');
  return flowBatchType.fromBuffer(buffer.subarray(frameLength)) as FlowBatch;
}

/** avsc takes only Buffers for `bytes`. */
function asBuffers(batch: FlowBatch): FlowBatch {
  const buffer = (bytes: Uint8Array): Buffer =>
    Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    ...batch,
    flows: batch.flows.map((flow) => ({
      ...flow,
      sourceAddress: buffer(flow.sourceAddress),
      destinationAddress: buffer(flow.destinationAddress),
      originalDestinationAddress: buffer(flow.originalDestinationAddress),
    })),
  };
}

/** Collects the texts of a batch; index 0 is the empty text. */
export class BatchStrings {
  readonly list: string[] = [''];
  readonly #indexes = new Map<string, number>([['', 0]]);

  index(text: string): number {
    let index = this.#indexes.get(text);
    if (index === undefined) {
      index = this.list.length;
      this.list.push(text);
      this.#indexes.set(text, index);
    }
    return index;
  }
}
