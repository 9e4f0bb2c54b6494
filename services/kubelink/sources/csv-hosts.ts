/** Hosts in CSV: one line each, the columns named as the keys of a hosts file. */

import { type CsvRow, csvRows } from '../../../lib/runtime/csv.ts';
import { nearest } from '../../../lib/runtime/nearest.ts';

/** Columns with one meaning; beside them `label.<key>` and `annotation.<key>`. */
export const hostColumns = [
  'name',
  'id',
  'kind',
  'group',
  'address',
  'network',
  'since',
  'labels',
  'annotations',
] as const;
const aliases: Readonly<Record<string, string>> = { addresses: 'address' };
const mapPrefixes: Readonly<Record<string, string>> = { 'label.': 'labels', 'annotation.': 'annotations' };

type MapColumn = 'labels' | 'annotations';

interface Column {
  /** As the header has it, for messages. */
  readonly title: string;
  readonly field: string;
  /** Key of a label or annotation that has a column of its own; empty for others. */
  readonly key: string;
}

/** One line: an entry as a hosts file would have it, or what is wrong. */
export type CsvEntry =
  | { readonly line: number; readonly entry: unknown }
  | {
      readonly line: number;
      readonly message: string;
      /** Id or name of the host that the line is about; `null` where it cannot be told. */
      readonly id: string | null;
    };

export interface CsvHosts {
  /** What is wrong with the header; nothing is read then. */
  readonly problems: readonly string[];
  readonly entries: Iterable<CsvEntry>;
  /** Title of the column that an entry's field came from: `addresses[1]` came from `address`. */
  titleOf(field: string): string;
}

function columnOf(title: string): Column | null {
  const name = title.trim();
  for (const [prefix, field] of Object.entries(mapPrefixes)) {
    const key = name.slice(prefix.length);
    if (name.toLowerCase().startsWith(prefix) && key !== '') return { title: name, field, key };
  }
  const field = aliases[name.toLowerCase()] ?? name.toLowerCase();
  return hostColumns.some((column) => column === field) ? { title: name, field, key: '' } : null;
}

function headerProblems(titles: readonly string[], columns: readonly (Column | null)[]): string[] {
  const problems: string[] = [];
  const seen = new Set<string>();
  columns.forEach((column, i) => {
    const title = titles[i]?.trim() ?? '';
    if (column === null) {
      const near = nearest(title, [...hostColumns, 'label.', 'annotation.']);
      const hint = near === undefined ? '' : `; did you mean ${near}${near.endsWith('.') ? '<key>' : ''}?`;
      problems.push(
        title === ''
          ? `line 1: column ${i + 1} has no name`
          : `line 1: column ${title} is not known${hint} (there are ${hostColumns.join(', ')}, label.<key>, annotation.<key>)`,
      );
      return;
    }
    const place = `${column.field} ${column.key}`;
    if (seen.has(place)) problems.push(`line 1: column ${column.title} stands there twice`);
    seen.add(place);
  });
  for (const needed of ['name', 'address']) {
    if (!seen.has(`${needed} `)) problems.push(`line 1: there is no column ${needed}`);
  }
  return problems;
}

/** `10.0.0.5 10.0.0.6@dc-west`: an address with a network of its own has it behind an at sign. */
function addressesOf(cell: string): unknown[] {
  return cell
    .split(/[\s;]+/)
    .filter((text) => text !== '')
    .map((text) => {
      const at = text.indexOf('@');
      return at < 0 ? text : { ip: text.slice(0, at), network: text.slice(at + 1) };
    });
}

function pairsOf(cell: string, title: string): [string, string][] | { readonly message: string } {
  const pairs: [string, string][] = [];
  for (const text of cell.split(';').map((part) => part.trim())) {
    if (text === '') continue;
    const equals = text.indexOf('=');
    if (equals < 1) return { message: `column ${title}: "${text}" is not key=value` };
    pairs.push([text.slice(0, equals).trim(), text.slice(equals + 1).trim()]);
  }
  return pairs;
}

function entryOf(row: CsvRow, columns: readonly Column[]): CsvEntry {
  const { line, cells } = row;
  const plain = new Map<string, string>();
  columns.forEach(({ field, key }, i) => {
    if (key === '') plain.set(field, cells[i]?.trim() ?? '');
  });
  const id = plain.get('id') || plain.get('name') || null;
  // Of a file that is just being written nobody knows which lines are still to come.
  const isCut = row.isUnclear || row.isOpen;
  const wrong = (message: string): CsvEntry => ({ line, message, id: isCut ? null : id });
  if (row.problem !== '') return wrong(row.problem);
  if (cells.length !== columns.length) {
    return wrong(`has ${cells.length} cells, the header has ${columns.length}`);
  }
  const maps: Record<MapColumn, Record<string, string>> = { labels: {}, annotations: {} };
  for (const [i, { title, field, key }] of columns.entries()) {
    if (field !== 'labels' && field !== 'annotations') continue;
    const cell = cells[i]?.trim() ?? '';
    // An empty cell gives no label; an empty value can be given as `key=`.
    const pairs: ReturnType<typeof pairsOf> =
      key === '' ? pairsOf(cell, title) : cell === '' ? [] : [[key, cell]];
    if ('message' in pairs) return wrong(pairs.message);
    for (const [name, value] of pairs) {
      if (name in maps[field]) return wrong(`column ${title}: ${name} is given twice`);
      maps[field][name] = value;
    }
  }
  const texts = ['name', 'id', 'kind', 'group', 'network', 'since'].flatMap((field) => {
    const text = plain.get(field) ?? '';
    return text === '' ? [] : [[field, text]];
  });
  const entry = { ...Object.fromEntries(texts), addresses: addressesOf(plain.get('address') ?? ''), ...maps };
  return { line, entry };
}

/** Reads the header at once, the lines as they are asked for. */
export function csvHosts(text: string): CsvHosts {
  const rows = csvRows(text);
  const header = rows.next();
  if (header.done === true) {
    return {
      problems: ['line 1: there is no header (name, address, ...)'],
      entries: [],
      titleOf: (field) => field,
    };
  }
  const titles = header.value.cells;
  const found = titles.map(columnOf);
  const problems =
    header.value.problem === '' ? headerProblems(titles, found) : [`line 1: ${header.value.problem}`];
  const columns = found.filter((column) => column !== null);
  function* entries(): Generator<CsvEntry> {
    for (const row of rows) yield entryOf(row, columns);
  }
  const titleOf = (field: string): string => {
    const [, name = field, key] = /^([a-z]+)(?:\.(.*)|\[.*)?$/s.exec(field) ?? [];
    const wanted = aliases[name] ?? name;
    const own = columns.find(
      (column) => column.field === wanted && (column.key === '' || column.key === key),
    );
    return own?.title ?? name;
  };
  return { problems, entries: problems.length > 0 ? [] : entries(), titleOf };
}
