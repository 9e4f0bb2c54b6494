/** `eastwest sql`. */
import { text } from 'node:stream/consumers';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { SqlAnswer } from './answers.ts';
import type { AskOptions } from './options.ts';
import type { Screen } from './screen.ts';
import { start } from './start.ts';
import { countText } from './words.ts';

export interface SqlOptions extends AskOptions {
  readonly format: 'table' | 'json' | 'jsonl' | 'csv' | 'tsv';
  readonly param: readonly string[];
  readonly since?: string;
  readonly until?: string;
}

type Known = Pick<SqlAnswer, 'window' | 'windowAssumed' | 'completeness'>;

/** Columns of text give way down to this many characters. */
const narrowestText = 12;

function parametersOf(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new OperatorError(`--param is "${pair}"; expected name=value`, exitCodes.usage);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

function shown(value: unknown): string {
  if (value === null) return 'NULL';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function isNumber(type: string): boolean {
  return /^(Nullable\()?(U?Int|Float|Decimal)/.test(type);
}

/** What may be missing from the answer, as far as that can be told. */
function note(screen: Screen, { window, windowAssumed, completeness }: Known): void {
  screen.completeness(completeness);
  if (windowAssumed)
    screen.note(
      `that is of the time since ${window.since}: --since and --until say which the query is about`,
    );
}

/** The statement itself, or what stdin holds for `-`. */
async function statementOf(query: string): Promise<string> {
  return query === '-' ? text(process.stdin) : query;
}

/** Resolves with the exit code. */
export async function sql(query: string, options: SqlOptions): Promise<number> {
  const { client, screen } = start(options);
  const body = {
    query: await statementOf(query),
    params: parametersOf(options.param),
    since: options.since,
    until: options.until,
  };
  if (options.format !== 'table' && options.format !== 'json' && options.json !== true) {
    const trailer = await client.stream('/api/v1/sql', { ...body, format: options.format }, (chunk) =>
      process.stdout.write(chunk),
    );
    const cut = trailer('eastwest-truncated');
    const known = trailer('eastwest-completeness');
    // The API's own contract; its tests hold answers to it.
    if (known !== undefined) note(screen, JSON.parse(known) as Known);
    if (cut !== undefined && cut !== 'no') screen.note(`cut off by the limit of ${cut}`);
    return cut === 'error' ? exitCodes.failure : exitCodes.ok;
  }
  const answer = await client.post<SqlAnswer>('/api/v1/sql', body);
  if (options.json === true || options.format === 'json') screen.json(answer);
  else if (answer.columns.length > 0) {
    const columns = answer.columns.map(({ name, type }) => ({
      title: name,
      align: isNumber(type) ? ('right' as const) : ('left' as const),
      ...(isNumber(type) || /^(Date|IPv|UUID|Enum|Bool)/.test(type) ? {} : { min: narrowestText }),
    }));
    screen.table(
      columns,
      answer.rows.map((row) => row.map(shown)),
    );
    const cut = answer.truncatedBy === null ? '' : `, cut off by the limit of ${answer.truncatedBy}`;
    screen.note(`${countText(answer.rowCount)} rows in ${Math.round(answer.elapsedMs)} ms${cut}`);
    note(screen, answer);
  }
  if (answer.error !== null) throw new OperatorError(answer.error);
  return exitCodes.ok;
}
