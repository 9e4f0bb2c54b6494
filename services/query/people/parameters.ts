/** Values that people bind to `{name:Type}` placeholders, in the form ClickHouse's HTTP interface takes. */
import Type, { type Static } from 'typebox';

const scalar = Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]);
export const SqlParameters = Type.Record(Type.String(), Type.Union([scalar, Type.Array(scalar)]), {
  description: 'Values of {name:Type} placeholders in the query.',
});
export type SqlParameters = Static<typeof SqlParameters>;
type Scalar = Static<typeof scalar>;

const escapes: Readonly<Record<string, string>> = {
  '\\': '\\\\',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  "'": "\\'",
};

function inArray(value: Scalar): string {
  if (value === null) return 'NULL';
  if (typeof value === 'string') return `'${value.replace(/[\\\t\n\r']/g, (char) => escapes[char] ?? char)}'`;
  return String(value);
}

/** One value: TSV escapes for a text, `\N` for null, a bracketed list for an array. */
export function sqlParameter(value: Scalar | readonly Scalar[]): string {
  if (value === null) return '\\N';
  if (typeof value === 'string') return value.replace(/[\\\t\n\r]/g, (char) => escapes[char] ?? char);
  if (typeof value !== 'object') return String(value);
  return `[${value.map(inArray).join(',')}]`;
}
