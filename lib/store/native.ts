/**
 * Typed arrays to a block in ClickHouse's Native format, without a copy of the fixed-width columns.
 * Format: https://clickhouse.com/docs/en/interfaces/formats/Native and the sources of SerializationLowCardinality
 * and SerializationArray. Everything is little-endian, as are the machines this runs on.
 */

/** Words of a LowCardinality(String) column: row i has `dictionary[indexes[i]]`; words may be in any order. */
export interface DictionaryColumn {
  readonly dictionary: readonly string[];
  readonly indexes: Uint8Array | Uint16Array | Uint32Array | (PiecedColumn & { readonly width: 1 | 2 | 4 });
}

/** Bytes of the rows as they lie in memory, end to end, in any number of pieces: exactly as many as the block has rows. */
export interface PiecedColumn {
  readonly pieces: readonly Uint8Array[];
}

/** Strings end to end: row i is `bytes[offsets[i], offsets[i + 1])`; `offsets` has one more element than there are rows. */
export interface BytesColumn {
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
}

export type ColumnData =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigUint64Array
  | BigInt64Array
  | Float32Array
  | Float64Array
  | PiecedColumn
  | DictionaryColumn
  | BytesColumn
  | readonly string[]
  | readonly (readonly string[])[];

/**
 * A column of a block. `type` is the ClickHouse type as the table has it; by type, `data` is
 * - UInt8..UInt64, Int8..Int64, Float32/64: the typed array of that width;
 * - Bool, Enum8: Uint8Array or Int8Array; DateTime: Uint32Array of Unix seconds;
 * - DateTime64(3): BigInt64Array of milliseconds, or Float64Array of milliseconds (whole numbers);
 * - IPv6: Uint8Array of 16 bytes a row in network order; IPv4: Uint32Array of host-order numbers;
 * - String: string[] or BytesColumn; Array(String): string[][];
 * - LowCardinality(String): DictionaryColumn or string[];
 * - any of fixed width: PiecedColumn.
 */
export interface NativeColumn {
  readonly name: string;
  readonly type: string;
  readonly data: ColumnData;
}

/** A block ready to be sent. The chunks share the columns' memory: leave the columns alone until the insert resolves. */
export interface NativeBlock {
  readonly rowCount: number;
  readonly columnNames: readonly string[];
  readonly chunks: readonly Uint8Array[];
  readonly byteLength: number;
}

/** The text of an Enum8 type whose codes are the positions in the list. */
export function enum8Type(names: readonly string[]): string {
  return `Enum8(${names.map((name, code) => `'${name}' = ${code}`).join(', ')})`;
}

const text = new TextEncoder();

function writeVarint(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest & 0x7f) | 0x80;
    rest = Math.floor(rest / 128);
  }
  target[at++] = rest;
  return at;
}

function varint(value: number): Uint8Array {
  const bytes = new Uint8Array(9);
  return bytes.subarray(0, writeVarint(bytes, 0, value));
}

/** Strings with their lengths before them, in one chunk. */
function encodeStrings(values: readonly string[], count: number): Uint8Array {
  let room = 0;
  for (let i = 0; i < count; i++) room += (values[i] ?? '').length * 3 + 5;
  const target = Buffer.allocUnsafe(room);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const value = values[i] ?? '';
    const length = value.length;
    if (length < 0x2b) {
      // At most 126 bytes of UTF-8, so that the length takes one byte, written when it is known.
      const written = target.write(value, at + 1);
      target[at] = written;
      at += written + 1;
    } else {
      at = writeVarint(target, at, Buffer.byteLength(value));
      at += target.write(value, at);
    }
  }
  return target.subarray(0, at);
}

function encodeBytes(column: BytesColumn, count: number): Uint8Array {
  const { bytes, offsets } = column;
  const first = offsets[0] ?? 0;
  const target = new Uint8Array((offsets[count] ?? first) - first + 5 * count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const start = offsets[i] ?? 0;
    const end = offsets[i + 1] ?? start;
    at = writeVarint(target, at, end - start);
    if (end - start < 32) {
      for (let k = start; k < end; k++) target[at++] = bytes[k] ?? 0;
    } else {
      target.set(bytes.subarray(start, end), at);
      at += end - start;
    }
  }
  return target.subarray(0, at);
}

/** Key version, then per block: index width and 'has additional keys' (0x200), the words, the indexes. */
function encodeLowCardinality(column: NativeColumn, data: DictionaryColumn, count: number): Uint8Array[] {
  const { dictionary, indexes } = data;
  const width = 'width' in indexes ? indexes.width : indexes.BYTES_PER_ELEMENT;
  if ('pieces' in indexes) checkPieces(column, indexes, width, count);
  else checkLength(column, indexes.length, count);
  if (count === 0) return [];
  const head = new DataView(new ArrayBuffer(24));
  head.setBigUint64(0, 1n, true);
  head.setBigUint64(8, BigInt(0x200 | Math.log2(width)), true);
  head.setBigUint64(16, BigInt(dictionary.length), true);
  const rows = new DataView(new ArrayBuffer(8));
  rows.setBigUint64(0, BigInt(count), true);
  return [
    new Uint8Array(head.buffer),
    encodeStrings(dictionary, dictionary.length),
    new Uint8Array(rows.buffer),
    ...('pieces' in indexes
      ? indexes.pieces
      : [new Uint8Array(indexes.buffer, indexes.byteOffset, count * width)]),
  ];
}

function toDictionary(values: readonly string[], count: number): DictionaryColumn {
  const words = new Map<string, number>();
  const indexes = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const value = values[i] ?? '';
    let index = words.get(value);
    if (index === undefined) {
      index = words.size;
      words.set(value, index);
    }
    indexes[i] = index;
  }
  return { dictionary: [...words.keys()], indexes };
}

function encodeStringArrays(values: readonly (readonly string[])[], count: number): Uint8Array[] {
  const ends = new BigUint64Array(count);
  const flat: string[] = [];
  for (let i = 0; i < count; i++) {
    for (const value of values[i] ?? []) flat.push(value);
    ends[i] = BigInt(flat.length);
  }
  return [new Uint8Array(ends.buffer), encodeStrings(flat, flat.length)];
}

const fixedWidths: Readonly<Record<string, number>> = {
  UInt8: 1,
  Int8: 1,
  Bool: 1,
  Enum8: 1,
  UInt16: 2,
  Int16: 2,
  Date: 2,
  Enum16: 2,
  UInt32: 4,
  Int32: 4,
  DateTime: 4,
  IPv4: 4,
  Float32: 4,
  UInt64: 8,
  Int64: 8,
  Float64: 8,
  DateTime64: 8,
  IPv6: 16,
  UUID: 16,
};

type ListData = readonly string[] | readonly (readonly string[])[];

/** Bytes a row of a type of fixed width. */
export function fixedWidth(type: string): number | undefined {
  return fixedWidths[baseOf(type)];
}

/** The type without its arguments. */
function baseOf(type: string): string {
  const paren = type.indexOf('(');
  return paren < 0 ? type : type.slice(0, paren);
}

type TypedData = Exclude<ColumnData, PiecedColumn | DictionaryColumn | BytesColumn | ListData>;

function isView(data: ColumnData): data is TypedData {
  return ArrayBuffer.isView(data);
}

function isPieced(data: ColumnData): data is PiecedColumn {
  return 'pieces' in data;
}

function isList(data: PiecedColumn | DictionaryColumn | BytesColumn | ListData): data is ListData {
  return Array.isArray(data);
}

function isStringList(data: ListData): data is readonly string[] {
  return data.length === 0 || typeof data[0] === 'string';
}

function isStringLists(data: ListData): data is readonly (readonly string[])[] {
  return data.length === 0 || Array.isArray(data[0]);
}

class NativeEncodeError extends Error {
  override readonly name = 'NativeEncodeError';
}

function checkLength(column: NativeColumn, rows: number, rowCount: number): void {
  if (rows < rowCount) {
    throw new NativeEncodeError(`column ${column.name}: data for ${rows} rows, the block has ${rowCount}`);
  }
}

function checkPieces(column: NativeColumn, { pieces }: PiecedColumn, width: number, rowCount: number): void {
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (bytes !== rowCount * width)
    throw new NativeEncodeError(
      `column ${column.name}: pieces of ${bytes} bytes together, ${rowCount} rows of ${column.type} have ${rowCount * width}`,
    );
}

function mismatch(column: NativeColumn): NativeEncodeError {
  return new NativeEncodeError(`column ${column.name}: ${column.type} can't be made of this kind of data`);
}

function encodeFixed(column: NativeColumn, base: string, width: number, rowCount: number): Uint8Array {
  let data = column.data;
  if (!isView(data)) throw mismatch(column);
  if (base === 'DateTime64' && data instanceof Float64Array) {
    checkLength(column, data.length, rowCount);
    const whole = new BigInt64Array(rowCount);
    for (let i = 0; i < rowCount; i++) whole[i] = BigInt(data[i] ?? 0);
    data = whole;
  }
  const element = data.BYTES_PER_ELEMENT;
  const asFloat = data instanceof Float64Array || data instanceof Float32Array;
  if ((width === 16 ? element !== 1 : element !== width) || asFloat !== base.startsWith('Float'))
    throw mismatch(column);
  checkLength(column, Math.floor(data.byteLength / width), rowCount);
  return new Uint8Array(data.buffer, data.byteOffset, rowCount * width);
}

function encodeColumn(column: NativeColumn, rowCount: number): readonly Uint8Array[] {
  const { data, type } = column;
  const base = baseOf(type);
  const width = fixedWidths[base];
  if (width !== undefined) {
    if (!isPieced(data)) return [encodeFixed(column, base, width, rowCount)];
    checkPieces(column, data, width, rowCount);
    return data.pieces;
  }
  if (isView(data) || isPieced(data)) throw mismatch(column);
  if (isList(data)) {
    checkLength(column, data.length, rowCount);
    if (type === 'String' && isStringList(data)) return [encodeStrings(data, rowCount)];
    if (type === 'LowCardinality(String)' && isStringList(data)) {
      return encodeLowCardinality(column, toDictionary(data, rowCount), rowCount);
    }
    if (type === 'Array(String)' && isStringLists(data)) return encodeStringArrays(data, rowCount);
  } else if ('bytes' in data) {
    checkLength(column, data.offsets.length - 1, rowCount);
    if (type === 'String') return [encodeBytes(data, rowCount)];
  } else {
    if (type === 'LowCardinality(String)') return encodeLowCardinality(column, data, rowCount);
  }
  throw mismatch(column);
}

/**
 * One block of `rowCount` rows; columns may be longer, the rest is left out.
 * Throws when a column is too short or of another width than its type.
 */
export function encodeNativeBlock(rowCount: number, columns: readonly NativeColumn[]): NativeBlock {
  const chunks: Uint8Array[] = [];
  const head = new Uint8Array(18);
  let at = writeVarint(head, 0, columns.length);
  at = writeVarint(head, at, rowCount);
  chunks.push(head.subarray(0, at));
  for (const column of columns) {
    const name = text.encode(column.name);
    const type = text.encode(column.type);
    chunks.push(varint(name.length), name, varint(type.length), type);
    for (const chunk of encodeColumn(column, rowCount)) if (chunk.length > 0) chunks.push(chunk);
  }
  let byteLength = 0;
  for (const chunk of chunks) byteLength += chunk.length;
  return { rowCount, columnNames: columns.map((column) => column.name), chunks, byteLength };
}
