/** `eastwest sql`. */
import { text } from 'node:stream/consumers';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { SqlAnswer } from './answers.ts';
import type { AskOptions } from './options.ts';
import { start } from './start.ts';
import { countText } from './words.ts';

export interface SqlOptions extends AskOptions {
  readonly format: 'table' | 'json' | 'jsonl' | 'csv' | 'tsv';
  readonly param: readonly string[];
}

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

/** The statement itself, or what stdin holds for `-`. */
async function statementOf(query: string): Promise<string> {
  return query === '-' ? text(process.stdin) : query;
}

/** Resolves with the exit code. */
export async function sql(query: string, options: SqlOptions): Promise<number> {
  const { client, screen } = start(options);
  const body = { query: await statementOf(query), params: parametersOf(options.param) };
  if (options.format !== 'table' && options.format !== 'json' && options.json !== true) {
    const cut = await client.stream('/api/v1/sql', { ...body, format: options.format }, (chunk) =>
      process.stdout.write(chunk),
    );
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
  }
  if (answer.error !== null) throw new OperatorError(answer.error);
  return exitCodes.ok;
}
