/** The forms in which the SQL endpoint answers. Rows come as JSON arrays, one a line. */

export const sqlFormats = ['json', 'jsonl', 'csv', 'tsv'] as const;
export type SqlFormat = (typeof sqlFormats)[number];

export const contentTypes: Readonly<Record<SqlFormat, string>> = {
  json: 'application/json; charset=utf-8',
  jsonl: 'application/x-ndjson; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
  tsv: 'text/tab-separated-values; charset=utf-8',
};

export interface SqlColumn {
  readonly name: string;
  readonly type: string;
}

function plain(value: unknown): string {
  if (value === null) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** RFC 4180. */
function csvLine(values: readonly unknown[]): string {
  const cells = values.map((value) => {
    const cell = plain(value);
    return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  });
  return `${cells.join(',')}\r\n`;
}

const tsvEscapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

function tsvLine(values: readonly unknown[]): string {
  return `${values.map((value) => plain(value).replace(/[\\\t\n\r]/g, (char) => tsvEscapes[char] ?? char)).join('\t')}\n`;
}

function valuesOf(line: string): readonly unknown[] {
  const values: unknown = JSON.parse(line);
  return Array.isArray(values) ? values : [values];
}

/** How a format begins, and what it makes of each row. */
export interface RowWriter {
  readonly head: string;
  /** `index` counts from 0. */
  row(line: string, index: number): string;
}

export function rowWriter(format: SqlFormat, columns: readonly SqlColumn[]): RowWriter {
  const names = columns.map((column) => column.name);
  switch (format) {
    case 'json':
      return {
        head: `{"columns":${JSON.stringify(columns)},"rows":[`,
        row: (line, index) => (index === 0 ? line : `,\n${line}`),
      };
    case 'jsonl':
      return {
        head: '',
        row: (line) => {
          const values = valuesOf(line);
          return `${JSON.stringify(Object.fromEntries(names.map((name, at) => [name, values[at]])))}\n`;
        },
      };
    case 'csv':
      return { head: csvLine(names), row: (line) => csvLine(valuesOf(line)) };
    case 'tsv':
      return { head: tsvLine(names), row: (line) => tsvLine(valuesOf(line)) };
  }
}
