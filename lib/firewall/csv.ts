/** Static rules in CSV: source, destination, port, action, comment; further columns are kept as they are. */
import { csvRows } from '../runtime/csv.ts';
import { nearest } from '../runtime/nearest.ts';
import { parseAddresses } from './addresses.ts';
import type { FirewallAction, RuleFile, StaticRule } from './rule.ts';
import { type PortRange, parseServices, protocolNumber } from './services.ts';

const needed = ['source', 'destination', 'port', 'action'] as const;
const optional = ['comment', 'protocol'] as const;
type Column = (typeof needed)[number] | (typeof optional)[number];

const actions: Readonly<Record<string, FirewallAction>> = {
  allow: 'allow',
  permit: 'allow',
  accept: 'allow',
  deny: 'deny',
  drop: 'deny',
  reject: 'deny',
};

interface Header {
  readonly titles: readonly string[];
  readonly position: ReadonlyMap<string, number>;
}

function readHeader(cells: readonly string[], problems: string[]): Header {
  const titles = cells.map((cell) => cell.trim());
  const position = new Map<string, number>();
  titles.forEach((title, i) => {
    const name = title.toLowerCase();
    if (name === '') problems.push(`line 1: column ${i + 1} has no name`);
    else if (position.has(name)) problems.push(`line 1: column ${title} stands there twice`);
    else position.set(name, i);
  });
  for (const name of needed) {
    if (position.has(name)) continue;
    const near = nearest(name, titles);
    const hint = near === undefined ? '' : `; is ${near} meant?`;
    const separator =
      titles.length === 1 && /[;\t]/.test(titles[0] ?? '') ? '; separate columns by commas' : '';
    problems.push(`line 1: there is no column ${name}${hint}${separator} (needed: ${needed.join(', ')})`);
  }
  return { titles, position };
}

function readProtocol(text: string): PortRange['protocol'] | string {
  const name = text.trim().toLowerCase();
  if (name === '') return 'tcp-udp';
  if (name === 'any' || name === 'all' || name === '*' || name === 'ip') return 'any';
  if (/^tcp\s*[;/+]\s*udp$/.test(name)) return 'tcp-udp';
  return (
    protocolNumber(name) ??
    `"${text.trim()}" is no protocol; expected tcp, udp, icmp, icmpv6, sctp, a number or any`
  );
}

/** Reads the text of a CSV file; every problem is named by its line, and with one there are no rules. */
export function readCsvRules(text: string): RuleFile {
  const problems: string[] = [];
  const rules: StaticRule[] = [];
  const rows = csvRows(text);
  const first = rows.next();
  if (first.done === true) return file([], ['line 1: the file is empty; expected a header line']);
  const { titles, position } = readHeader(first.value.cells, problems);
  if (problems.length > 0) return file([], problems);
  const known = new Set<string>([...needed, ...optional]);
  for (const row of rows) {
    const at = `line ${row.line}:`;
    if (row.problem !== '') {
      problems.push(`${at} ${row.problem}`);
      continue;
    }
    if (row.cells.length !== titles.length) {
      problems.push(`${at} ${row.cells.length} columns, the header has ${titles.length}`);
      continue;
    }
    const cell = (name: Column): string => row.cells[position.get(name) ?? -1]?.trim() ?? '';
    const before = problems.length;
    const complain = (name: Column, what: string): void => {
      problems.push(`${at} ${name}: ${what}`);
    };
    const source = parseAddresses(cell('source'));
    if (typeof source === 'string') complain('source', source);
    const destination = parseAddresses(cell('destination'));
    if (typeof destination === 'string') complain('destination', destination);
    const protocol = readProtocol(cell('protocol'));
    const isWrong = typeof protocol === 'string' && protocol !== 'any' && protocol !== 'tcp-udp';
    if (isWrong) complain('protocol', protocol);
    const services = parseServices(cell('port'), isWrong ? 'any' : protocol);
    if (typeof services === 'string') complain('port', services);
    const action = actions[cell('action').toLowerCase()];
    if (action === undefined)
      complain('action', `"${cell('action')}" is no action; expected ${Object.keys(actions).join(', ')}`);
    if (problems.length > before) continue;
    if (typeof source === 'string' || typeof destination === 'string' || typeof services === 'string')
      continue;
    if (action === undefined) continue;
    rules.push({
      index: rules.length,
      line: row.line,
      action,
      source,
      destination,
      services,
      comment: cell('comment'),
      columns: Object.fromEntries(
        titles.flatMap((title, i) => (known.has(title.toLowerCase()) ? [] : [[title, row.cells[i] ?? '']])),
      ),
      conditions: [],
    });
  }
  if (rules.length === 0 && problems.length === 0) problems.push('line 2: there is no rule below the header');
  return file(problems.length > 0 ? [] : rules, problems);
}

function file(rules: readonly StaticRule[], problems: readonly string[]): RuleFile {
  return { format: 'csv', rules, ignored: [], problems };
}
