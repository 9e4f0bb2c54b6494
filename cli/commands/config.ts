/** `eastwest config`: what is in force and where it comes from, or every key there is. */
import type { Command } from 'commander';
import { type ConfigEntry, loadConfig } from '../../lib/runtime/config.ts';
import { describeExpected, leavesOf, maskSecrets, shapeOf } from '../../lib/runtime/config-shape.ts';
import { environmentName } from '../../lib/runtime/config-sources.ts';
import type { Sections } from '../../lib/runtime/service.ts';
import { formatTable } from '../../lib/runtime/table.ts';
import type { CliDependencies } from '../dependencies.ts';

/** Longer values are cut in the table; `--json` has them whole. */
const shownValueLength = 60;

export interface ReferenceEntry {
  readonly key: string;
  readonly environment: string;
  /** `undefined` where there is none. */
  readonly default: unknown;
  readonly expected: string;
  readonly description: string;
  readonly secret: boolean;
}

/** Every key of every section. */
export function configReference(sections: Sections): ReferenceEntry[] {
  return Object.entries(sections).flatMap(([name, schema]) =>
    leavesOf(shapeOf(schema), [name]).map(({ path, shape }) => ({
      key: path.join('.'),
      environment: environmentName(path),
      default: maskSecrets(shape, shape.default),
      expected: describeExpected(shape),
      description: shape.description ?? '',
      secret: shape.secret === true,
    })),
  );
}

function shown(value: unknown): string {
  const text = value === undefined ? '' : typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > shownValueLength ? `${text.slice(0, shownValueLength - 3)}...` : text;
}

/** The table of what is in force. */
export function formatEntries(entries: readonly ConfigEntry[]): string[] {
  return formatTable(
    [{ title: 'KEY' }, { title: 'VALUE' }, { title: 'SOURCE' }, { title: 'SET BY' }],
    entries.map((entry) => [entry.key, shown(entry.value), entry.source, entry.place]),
  );
}

function formatReference(entries: readonly ReferenceEntry[]): string[] {
  return entries.flatMap((entry) => [
    entry.key,
    `    ${entry.description}`,
    `    expected: ${entry.expected}${entry.secret ? ' (secret)' : ''}`,
    `    default:  ${entry.default === undefined ? 'none' : JSON.stringify(entry.default)}`,
    `    variable: ${entry.environment}`,
    '',
  ]);
}

export function register(program: Command, dependencies: CliDependencies): void {
  program
    .command('config')
    .description('print the configuration in force with its sources, secrets masked')
    .option('--reference', 'print every key with its default, unit and meaning instead')
    .option('--json', 'as JSON')
    .action((options: { reference?: boolean; json?: boolean }) => {
      const { sections } = dependencies;
      const print = (value: unknown, lines: readonly string[]): void => {
        const text = options.json === true ? JSON.stringify(value, undefined, 2) : lines.join('\n');
        process.stdout.write(`${text}\n`);
      };
      if (options.reference === true) {
        const reference = configReference(sections);
        print(reference, formatReference(reference));
        return;
      }
      const { file, entries } = loadConfig(sections, dependencies.inputs());
      const heading = file === undefined ? 'no configuration file' : `configuration file: ${file}`;
      print({ file: file ?? null, entries }, [heading, '', ...formatEntries(entries)]);
    });
}
