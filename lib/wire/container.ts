/**
 * Reads Avro object container files (Avro 1.11, 'Object Container Files') of flow batches: any writer schema that
 * resolves to ours, codecs null, deflate and zstandard, bounded in bytes and batches.
 */
import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import {
  maxForeignItems,
  type Normalised,
  rewrite,
  type WireProblem,
  type Writer,
  writerOf,
} from './evolve.ts';
import { BoundedCursor, MalformedError } from './measure.ts';

export interface ContainerLimits {
  readonly maxBatches: number;
  /** All blocks together after decompression, bytes. */
  readonly maxBytes: number;
}

/** Limits that a well-meant file does not meet either. */
export class ContainerTooLargeError extends Error {
  override readonly name = 'ContainerTooLargeError';
  readonly limit: 'batches' | 'bytes';

  constructor(limit: 'batches' | 'bytes', message: string) {
    super(message);
    this.limit = limit;
  }
}

/** Longest schema in a file's header, bytes. */
const maxSchemaBytes = 256 * 1024;
const maxHeaderEntries = 100;
const syncLength = 16;
/** Largest window a zstd frame may ask for, as a power of two: 8 MiB. */
export const zstdWindowLog = 23;

const magic = Buffer.from('Obj\x01', 'latin1');

/** Whether the bytes begin like a container file. */
export function isContainer(bytes: Uint8Array): boolean {
  return bytes.length >= magic.length && magic.every((byte, i) => bytes[i] === byte);
}

/**
 * The batches of a file, each framed with the current schema; or what is wrong with the file.
 * @throws {ContainerTooLargeError}
 */
export function readContainer(
  file: Uint8Array,
  limits: ContainerLimits,
): { readonly ok: Uint8Array[] } | { readonly error: WireProblem } {
  try {
    const cursor = new BoundedCursor(file, 0, maxHeaderEntries);
    const header = readHeader(cursor);
    if ('error' in header) return header;
    return readBlocks(cursor, header, limits);
  } catch (error) {
    if (error instanceof MalformedError) return problem(error.field, error.message);
    throw error;
  }
}

interface Header {
  readonly writer: Writer;
  readonly codec: string;
  readonly sync: Uint8Array;
}

function problem(field: string, message: string): { readonly error: WireProblem } {
  return { error: { cause: 'undecodable', field, message } };
}

function readHeader(cursor: BoundedCursor): Header | { readonly error: WireProblem } {
  if (!isContainer(cursor.bytes)) return problem('file', 'does not begin with Obj and 1');
  cursor.skip(magic.length, 'file');
  const entries = new Map<string, string>();
  cursor.items('header', () => {
    const name = Buffer.from(cursor.block('header')).toString('utf8');
    const value = cursor.block('header');
    if (value.length > maxSchemaBytes)
      throw new MalformedError('header', `has an entry over ${maxSchemaBytes} bytes`);
    entries.set(name, Buffer.from(value).toString('utf8'));
  });
  const syncAt = cursor.at;
  cursor.skip(syncLength, 'header');
  const schemaText = entries.get('avro.schema');
  if (schemaText === undefined) return problem('header', 'has no avro.schema');
  let schema: unknown;
  try {
    schema = JSON.parse(schemaText);
  } catch {
    return problem('avro.schema', 'is not JSON');
  }
  const writer = writerOf(schema);
  if (writer === null) {
    return {
      error: {
        cause: 'unknown-schema',
        field: 'avro.schema',
        message: 'does not resolve to io.eastwest.FlowBatch',
      },
    };
  }
  return {
    writer,
    codec: entries.get('avro.codec') ?? 'null',
    sync: cursor.bytes.subarray(syncAt, syncAt + syncLength),
  };
}

function readBlocks(
  cursor: BoundedCursor,
  header: Header,
  limits: ContainerLimits,
): { readonly ok: Uint8Array[] } | { readonly error: WireProblem } {
  const batches: Uint8Array[] = [];
  let bytesLeft = limits.maxBytes;
  while (cursor.at < cursor.bytes.length) {
    const count = cursor.long('block');
    const packed = cursor.block('block');
    const sync = cursor.at;
    cursor.skip(syncLength, 'block');
    if (!header.sync.every((byte, i) => cursor.bytes[sync + i] === byte)) {
      return problem('block', 'does not end with the sync marker of the file');
    }
    if (count < 0) return problem('block', 'has a negative count');
    if (batches.length + count > limits.maxBatches) {
      throw new ContainerTooLargeError('batches', `the file has over ${limits.maxBatches} batches`);
    }
    const data = unpack(packed, header.codec, bytesLeft);
    if ('error' in data) return data;
    bytesLeft -= data.ok.length;
    const inside = new BoundedCursor(data.ok, 0, maxForeignItems);
    for (let i = 0; i < count; i++) {
      const batch = rewrite(header.writer, inside);
      if ('error' in batch) {
        return { error: { ...batch.error, field: `[${batches.length}].${batch.error.field}` } };
      }
      batches.push(batch.ok);
    }
    if (inside.at !== data.ok.length) return problem('block', 'has bytes after its last batch');
  }
  return { ok: batches };
}

function unpack(packed: Uint8Array, codec: string, maxOutputLength: number): Normalised {
  const tooLarge = new ContainerTooLargeError(
    'bytes',
    'the blocks of the file are too large after decompression',
  );
  if (codec === 'null') {
    if (packed.length > maxOutputLength) throw tooLarge;
    return { ok: packed };
  }
  // A limit of 0 is not one that zlib takes.
  if (maxOutputLength === 0) throw tooLarge;
  try {
    if (codec === 'deflate') return { ok: inflateRawSync(packed, { maxOutputLength }) };
    if (codec === 'zstandard') {
      const params = { [constants.ZSTD_d_windowLogMax]: zstdWindowLog };
      return { ok: zstdDecompressSync(packed, { maxOutputLength, params }) };
    }
  } catch (error) {
    if (error instanceof RangeError) throw tooLarge;
    return problem('block', `cannot be decompressed: ${error instanceof Error ? error.message : error}`);
  }
  return problem('avro.codec', `is ${codec}; null, deflate and zstandard can be read`);
}
