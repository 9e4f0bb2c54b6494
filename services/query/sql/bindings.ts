/** A statement and what is bound to its placeholders: the only way that values of a request reach ClickHouse. */
export interface Statement {
  readonly sql: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** ClickHouse types that requests bind. */
export type BoundType =
  | 'String'
  | 'UInt8'
  | 'UInt16'
  | 'UInt32'
  | 'UInt64'
  | 'IPv6'
  | 'Array(String)'
  | 'Array(UInt64)';

/** Collects values under names of its own; `bind` answers the placeholder to put into the text. */
export class Bindings {
  readonly values: Record<string, unknown> = {};
  #count = 0;

  bind(type: BoundType, value: string | number | readonly string[]): string {
    const name = `p${this.#count++}`;
    // The client writes big integers bare, and texts in quotes, which ClickHouse doesn't read as numbers of an array.
    this.values[name] = type === 'Array(UInt64)' && typeof value === 'object' ? value.map(BigInt) : value;
    return `{${name}:${type}}`;
  }
}

/** `a AND b`, or `1` where there is nothing to ask for. */
export function allOf(conditions: readonly string[]): string {
  return conditions.length === 0 ? '1' : conditions.join(' AND ');
}
