/**
 * Schema evolution (Avro 1.11, 'Schema Resolution'): brings messages of other writer schemas to the current one, so
 * that everything behind the door reads one schema only. Earlier versions live in `schemas/history/`, known by the
 * fingerprint in the frame; a container file brings its own schema.
 */
import { readdirSync, readFileSync } from 'node:fs';
import avro from 'avsc';
import type { DropCause } from '../../schemas/closed-lists.ts';
import {
  currentFrame,
  encodeFlowBatch,
  type FlowBatch,
  flowBatchType,
  frameLength,
  frameOf,
} from './flow-batch.ts';
import { BoundedCursor, MalformedError, measure } from './measure.ts';

/** Why bytes are no batch: `field` is the path of the place, `message` a sentence that goes on from it. */
export interface WireProblem {
  readonly cause: Exclude<DropCause, 'none'>;
  readonly field: string;
  readonly message: string;
}

export type Normalised = { readonly ok: Uint8Array } | { readonly error: WireProblem };

/** A writer's schema that resolves to ours. */
export interface Writer {
  readonly type: avro.Type;
  readonly resolver: ReturnType<avro.Type['createResolver']>;
}

/** Most items that an array of a message of another schema may have; ours are held to the reader's capacity. */
export const maxForeignItems = 65_536;

const historyFolder = new URL('../../schemas/history/', import.meta.url);

/** The writer of a schema, or `null` where it cannot be resolved to the current one. */
export function writerOf(schema: unknown): Writer | null {
  try {
    const type = avro.Type.forSchema(schema as avro.Schema);
    return { type, resolver: flowBatchType.createResolver(type) };
  } catch {
    return null;
  }
}

function frameKey(frame: Uint8Array): string {
  return Buffer.from(frame.buffer, frame.byteOffset, frameLength).toString('hex');
}

/** Earlier versions by their frame. */
const writersByFrame: ReadonlyMap<string, Writer> = new Map(
  readdirSync(historyFolder)
    .filter((name) => name.endsWith('.avsc'))
    .map((name): [string, Writer] => {
      const writer = writerOf(JSON.parse(readFileSync(new URL(name, historyFolder), 'utf8')));
      if (writer === null) throw new Error(`schemas/history/${name} does not resolve to the current schema`);
      return [frameKey(frameOf(writer.type)), writer];
    }),
);

/**
 * The message as a framed batch of the current schema. One that is written with it comes back as it is, unread (the
 * columnar reader checks it); one of an earlier version is read and written anew.
 */
export function normalise(message: Uint8Array): Normalised {
  if (message.length < frameLength || message[0] !== 0xc3 || message[1] !== 0x01) {
    return refused('undecodable', 'frame', 'does not begin with C3 01 and a schema fingerprint');
  }
  const key = frameKey(message);
  if (key === currentKey) return { ok: message };
  const writer = writersByFrame.get(key);
  if (writer === undefined) {
    return refused(
      'unknown-schema',
      'fingerprint',
      `${key.slice(4)} belongs to no version of FlowBatch known here`,
    );
  }
  const cursor = new BoundedCursor(message, frameLength, maxForeignItems);
  const batch = rewrite(writer, cursor);
  if ('ok' in batch && cursor.at !== message.length) {
    return refused('undecodable', 'message', 'has bytes after its end');
  }
  return batch;
}

const currentKey = frameKey(currentFrame);

/** Reads the batch at the cursor with the writer's schema, moves the cursor behind it, and writes it with ours. */
export function rewrite(writer: Writer, cursor: BoundedCursor): Normalised {
  const from = cursor.at;
  try {
    measure(writer.type, cursor);
    const body = Buffer.from(cursor.bytes.buffer, cursor.bytes.byteOffset + from, cursor.at - from);
    const batch: FlowBatch = flowBatchType.fromBuffer(body, writer.resolver);
    return { ok: encodeFlowBatch(batch) };
  } catch (error) {
    if (error instanceof MalformedError) {
      const tooMany = error.tooMany && error.field === 'flows';
      return refused(tooMany ? 'too-many-flows' : 'undecodable', error.field || 'message', error.message);
    }
    // avsc: a value that its own schema allows and ours does not, such as an enum's new symbol.
    return refused(
      'bad-value',
      'message',
      `does not fit the current schema: ${error instanceof Error ? error.message : error}`,
    );
  }
}

function refused(cause: WireProblem['cause'], field: string, message: string): Normalised {
  return { error: { cause, field, message } };
}
