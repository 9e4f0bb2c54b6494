/** `eastwest rules apply | history | show | rollback | watch`: which policy is in force, and how it came to be. */
import { execFile } from 'node:child_process';
import { userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import type { Bus } from '../../lib/bus/bus.ts';
import { type Applied, applyContent, contentOf } from '../../lib/policy/apply.ts';
import { diffPolicies, type PolicyChange } from '../../lib/policy/diff.ts';
import type { LoadResult, PolicyContent } from '../../lib/policy/load.ts';
import { policyHistory } from '../../lib/policy/publish.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { formatTable } from '../../lib/runtime/table.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { CliDependencies } from '../dependencies.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';
import { withBus } from '../with-bus.ts';

const clientId = 'eastwest-rules';
const execute = promisify(execFile);

interface JsonOption {
  readonly json?: boolean;
}
interface ApplyOptions extends JsonOption {
  readonly author: string;
  readonly dryRun?: boolean;
}

export function print(json: boolean | undefined, value: unknown, lines: readonly string[]): void {
  process.stdout.write(`${json === true ? JSON.stringify(value, undefined, 2) : lines.join('\n')}\n`);
}

export function countsOf(policy: PolicyContent): string {
  const rules = policy.rulesets.reduce((sum, ruleset) => sum + ruleset.rules.length, 0);
  return `${policy.rulesets.length} rulesets with ${rules} rules, ${policy.profiles.length} profiles, ${policy.ipLists.length} ip-lists, ${policy.services.length} services`;
}

const signs = { added: '+', removed: '-', changed: '~' } as const;

export function changeLines(changes: readonly PolicyChange[]): string[] {
  return formatTable(
    [{ title: '' }, { title: 'PART' }, { title: 'NAME' }, { title: 'WHAT' }],
    changes.map(({ change, part, name, keys }) => [signs[change], part, name, keys.join(', ')]),
  );
}

const iso = (ms: number): string => new Date(ms).toISOString();

function appliedLines({ document, changes }: Applied, isDry: boolean): string[] {
  return [
    ...changeLines(changes),
    '',
    isDry
      ? `${changes.length} differences from version ${document.version}; nothing was applied`
      : `version ${document.version} is in force for flows that begin at ${iso(document.appliedMs)} or later: ${countsOf(document)}`,
  ];
}

async function apply(dependencies: CliDependencies, folder: string, options: ApplyOptions): Promise<void> {
  const result = await readPolicyFolder(folder);
  if (!result.ok) {
    print(options.json, result, [...problemLines(result.problems), '', 'nothing was applied']);
    dependencies.exit(exitCodes.usage);
    return;
  }
  const isDry = options.dryRun === true;
  const applied = await withBus(dependencies, clientId, (bus) =>
    applyContent(bus, result.policy, options.author, isDry),
  );
  const { warnings } = result;
  if (applied === null) {
    const text = 'the policy in force says the same: nothing was applied';
    print(options.json, { ok: true, applied: false, changes: [], warnings }, [
      ...problemLines(warnings),
      text,
    ]);
    return;
  }
  const { document, changes } = applied;
  print(
    options.json,
    { ok: true, applied: !isDry, version: document.version, fromMs: document.appliedMs, changes, warnings },
    [...problemLines(warnings), ...appliedLines(applied, isDry)],
  );
}

/** @throws {OperatorError} where that version is not kept. */
function versionOf(history: readonly PolicyDocument[], text: string): PolicyDocument {
  const found = history.find(({ version }) => String(version) === text);
  if (found !== undefined) return found;
  const kept =
    history.length === 0
      ? 'there is none yet'
      : `kept are ${history[0]?.version} to ${history.at(-1)?.version}`;
  throw new OperatorError(`there is no version ${text}: ${kept}`, exitCodes.usage);
}

async function rollback(
  dependencies: CliDependencies,
  version: string,
  options: ApplyOptions,
): Promise<void> {
  const applied = await withBus(dependencies, clientId, async (bus) => {
    const wanted = versionOf(await policyHistory(bus), version);
    return applyContent(bus, contentOf(wanted), options.author, options.dryRun === true);
  });
  if (applied === null) {
    print(options.json, { ok: true, applied: false, changes: [] }, [
      `the policy in force says the same as version ${version}: nothing was applied`,
    ]);
    return;
  }
  const { document, changes } = applied;
  const isDry = options.dryRun === true;
  print(
    options.json,
    { ok: true, applied: !isDry, version: document.version, fromMs: document.appliedMs, changes },
    [...appliedLines(applied, isDry)],
  );
}

async function history(dependencies: CliDependencies, options: JsonOption): Promise<void> {
  const versions = (await withBus(dependencies, clientId, policyHistory)).toReversed();
  const rows = versions.map((document, i) => {
    const before = versions[i + 1];
    const changes = before === undefined ? null : diffPolicies(contentOf(before), contentOf(document));
    return { document, changes };
  });
  print(
    options.json,
    rows.map(({ document: { version, author, appliedMs }, changes }) => ({
      version,
      author,
      appliedMs,
      changes,
    })),
    rows.length === 0
      ? ['no policy is in force yet: apply one with `eastwest rules apply <folder>`']
      : formatTable(
          [
            { title: 'VERSION', align: 'right' },
            { title: 'FROM' },
            { title: 'AUTHOR' },
            { title: 'CHANGES' },
          ],
          rows.map(({ document, changes }) => [
            String(document.version),
            iso(document.appliedMs),
            document.author,
            changes === null ? countsOf(document) : summaryOf(changes),
          ]),
        ),
  );
}

function summaryOf(changes: readonly PolicyChange[]): string {
  const first = changes.slice(0, 3).map(({ change, part, name }) => `${signs[change]}${part} ${name}`);
  return changes.length > first.length
    ? `${first.join(', ')} and ${changes.length - first.length} more`
    : first.join(', ');
}

async function show(
  dependencies: CliDependencies,
  version: string | undefined,
  options: JsonOption,
): Promise<void> {
  const versions = await withBus(dependencies, clientId, policyHistory);
  const document = versionOf(versions, version ?? String(versions.at(-1)?.version ?? 0));
  const { version: number, author, appliedMs } = document;
  print(options.json, document, [
    `# version ${number} by ${author}, for flows that began at ${iso(appliedMs)} or later`,
    stringify(contentOf(document)).trimEnd(),
  ]);
}

/** Commit that last touched the folder, and who made it; null outside of git. */
async function commitOf(folder: string): Promise<{ readonly id: string; readonly author: string } | null> {
  try {
    const { stdout } = await execute('git', ['-C', folder, 'log', '-1', '--format=%h%x09%an', '--', '.']);
    const [id = '', author = ''] = stdout.trim().split('\t');
    return id === '' ? null : { id, author };
  } catch {
    return null;
  }
}

interface WatchOptions {
  readonly interval: string;
  readonly author?: string;
}

/** What a look at the folder has found, as a line; the same line is not said twice in a row. */
async function applyIfDifferent(
  bus: Bus,
  folder: string,
  result: LoadResult,
  options: WatchOptions,
): Promise<string> {
  if (!result.ok)
    return [...problemLines(result.problems), 'the policy in force stays until this is put right'].join('\n');
  const commit = await commitOf(folder);
  const author =
    options.author ?? (commit === null ? userInfo().username : `${commit.author} (${commit.id})`);
  const applied = await applyContent(bus, result.policy, author, false);
  if (applied === null) return '';
  return `${appliedLines(applied, false).join('\n')}, by ${author}`;
}

async function watch(dependencies: CliDependencies, folder: string, options: WatchOptions): Promise<void> {
  const seconds = Number(options.interval);
  if (!(seconds >= 1))
    throw new OperatorError(
      `--interval is "${options.interval}"; expected seconds, 1 or more`,
      exitCodes.usage,
    );
  await withBus(dependencies, clientId, async (bus) => {
    process.stdout.write(`following ${folder}, looked at every ${seconds} s\n`);
    for (let said = ''; ; ) {
      const line = await readPolicyFolder(folder)
        .then((result) => applyIfDifferent(bus, folder, result, options))
        // A checkout in progress, or a bus that is away: the next look tells.
        .catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
      if (line !== '' && line !== said) process.stdout.write(`${iso(Date.now())} ${line}\n`);
      said = line;
      await sleep(seconds * 1000);
    }
  });
}

/** Adds the commands that change the policy, or tell of its past. */
export function registerApply(rules: Command, dependencies: CliDependencies): void {
  const author = ['--author <name>', 'who applies it', userInfo().username] as const;
  const dryRun = ['--dry-run', 'only show what would change'] as const;
  rules
    .command('apply')
    .argument('<folder>', 'folder of YAML files, or one file')
    .description('put a policy in force, as a whole and as the next version; a wrong one changes nothing')
    .option(...author)
    .option(...dryRun)
    .option('--json', 'as JSON')
    .action((folder: string, options: ApplyOptions) => apply(dependencies, folder, options));
  rules
    .command('history')
    .description('list the versions there were, who applied them and what they changed')
    .option('--json', 'as JSON')
    .action((options: JsonOption) => history(dependencies, options));
  rules
    .command('show')
    .argument('[version]', 'the newest unless told')
    .description('print a version as YAML')
    .option('--json', 'as JSON')
    .action((version: string | undefined, options: JsonOption) => show(dependencies, version, options));
  rules
    .command('rollback')
    .argument('<version>', 'an earlier version, see `rules history`')
    .description('apply an earlier version again, as the next one')
    .option(...author)
    .option(...dryRun)
    .option('--json', 'as JSON')
    .action((version: string, options: ApplyOptions) => rollback(dependencies, version, options));
  rules
    .command('watch')
    .argument('<folder>', 'folder that something keeps up to date, for example a clone that is pulled')
    .description('apply a folder whenever it changes and is in order; the author is that of the commit')
    .option('--author <name>', 'who applies it; the author of the last commit unless told')
    .option('--interval <seconds>', 'how often to look', '5')
    .action((folder: string, options: WatchOptions) => watch(dependencies, folder, options));
}
