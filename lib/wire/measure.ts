/**
 * Walks Avro bytes by a writer's schema and says where the value ends, without building it. avsc trusts the counts and
 * lengths that it reads; bytes from outside are measured first, so that a lying count costs nothing.
 */
import avro from 'avsc';

/** The bytes are no value of the schema; `field` is the path of the place. */
export class MalformedError extends Error {
  override readonly name = 'MalformedError';
  readonly field: string;
  /** Whether it is the limit of items that was reached, and not the bytes that are broken. */
  readonly tooMany: boolean;

  constructor(field: string, detail: string, tooMany = false) {
    super(detail);
    this.field = field;
    this.tooMany = tooMany;
  }
}

/** Deepest nesting of types that is followed. */
const maxDepth = 32;
/** Longest varint of a 64-bit integer, bytes. */
const maxVarintBytes = 10;

const { types } = avro;

/** A position in bytes that throws {@link MalformedError} instead of passing the end. */
export class BoundedCursor {
  readonly bytes: Uint8Array;
  at: number;
  readonly #maxItems: number;

  constructor(bytes: Uint8Array, at: number, maxItems: number) {
    this.bytes = bytes;
    this.at = at;
    this.#maxItems = maxItems;
  }

  skip(length: number, field: string): void {
    if (length > this.bytes.length - this.at) throw new MalformedError(field, 'the bytes end in the middle');
    this.at += length;
  }

  /** A zigzag varint; refused beyond ten bytes or 2^53, where a double is no longer exact. */
  long(field: string): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < maxVarintBytes; i++) {
      const byte = this.bytes[this.at];
      if (byte === undefined) throw new MalformedError(field, 'the bytes end in the middle');
      this.at++;
      value += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
      }
    }
    throw new MalformedError(field, 'has a number beyond 2^53');
  }

  /** A length in bytes, and the bytes. */
  block(field: string): Uint8Array {
    const length = this.long(field);
    if (length < 0) throw new MalformedError(field, 'has a negative length');
    const from = this.at;
    this.skip(length, field);
    return this.bytes.subarray(from, this.at);
  }

  /** The items of an array or map: calls `item` for each, holds its blocks to their stated size. */
  items(field: string, item: (index: number) => void): void {
    let total = 0;
    for (;;) {
      let count = this.long(field);
      if (count === 0) return;
      let size = -1;
      if (count < 0) {
        count = -count;
        size = this.long(field);
      }
      if (total + count > this.#maxItems) {
        throw new MalformedError(field, `has over ${this.#maxItems} items`, true);
      }
      const from = this.at;
      for (let i = 0; i < count; i++) {
        const before = this.at;
        item(total++);
        // An item without bytes would make any count believable.
        if (this.at === before) throw new MalformedError(field, 'has items without content');
      }
      if (size >= 0 && this.at - from !== size)
        throw new MalformedError(field, 'has a block of another size');
    }
  }
}

/** Moves the cursor over one value of `type`. @throws {MalformedError} where the bytes are none. */
export function measure(type: avro.Type, cursor: BoundedCursor, field = '', depth = 0): void {
  if (depth > maxDepth) throw new MalformedError(field, `is nested over ${maxDepth} deep`);
  const inside = (name: string): string => (field === '' ? name : `${field}.${name}`);
  if (type instanceof types.RecordType) {
    for (const member of type.fields) measure(member.type, cursor, inside(member.name), depth + 1);
  } else if (type instanceof types.ArrayType) {
    cursor.items(field, (index) => measure(type.itemsType, cursor, `${field}[${index}]`, depth + 1));
  } else if (type instanceof types.MapType) {
    const values: avro.Type = type.valuesType;
    cursor.items(field, () => {
      cursor.block(field);
      measure(values, cursor, inside('*'), depth + 1);
    });
  } else if (type instanceof types.UnwrappedUnionType || type instanceof types.WrappedUnionType) {
    const branch = type.types[cursor.long(field)];
    if (branch === undefined) throw new MalformedError(field, 'names no branch of its union');
    measure(branch, cursor, field, depth + 1);
  } else if (type instanceof types.EnumType) {
    if (type.symbols[cursor.long(field)] === undefined)
      throw new MalformedError(field, 'names no symbol of its enum');
  } else if (type instanceof types.LogicalType) {
    measure(type.underlyingType, cursor, field, depth + 1);
  } else {
    measurePrimitive(type, cursor, field);
  }
}

function measurePrimitive(type: avro.Type, cursor: BoundedCursor, field: string): void {
  if (type instanceof types.LongType || type instanceof types.IntType) cursor.long(field);
  else if (type instanceof types.StringType || type instanceof types.BytesType) cursor.block(field);
  else if (type instanceof types.FixedType) cursor.skip(type.size, field);
  else if (type instanceof types.BooleanType) cursor.skip(1, field);
  else if (type instanceof types.FloatType) cursor.skip(4, field);
  else if (type instanceof types.DoubleType) cursor.skip(8, field);
  else if (!(type instanceof types.NullType)) {
    throw new MalformedError(field, `has a type that is not known here: ${type.typeName}`);
  }
}
