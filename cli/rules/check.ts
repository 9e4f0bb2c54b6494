/** `eastwest rules check | schema`: everything that is wrong with a policy, or makes little sense; and what one looks like. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { LoadResult, LocatedProblem } from '../../lib/policy/load.ts';
import { type BroadLimits, defaultBroadLimits, type IdentityCount } from '../../lib/policy/sense.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { policyJsonSchema } from '../../schemas/policy.ts';
import type { SqlAnswer } from '../ask/answers.ts';
import { type Client, openClient } from '../ask/client.ts';
import { defaultUrl } from '../ask/options.ts';
import { styleFor } from '../ask/style.ts';
import type { CliDependencies } from '../dependencies.ts';
import { problemLine, readPolicyFolder } from '../policy-folder.ts';
import { countsOf } from './apply.ts';

interface CheckOptions extends BroadLimits {
  readonly json?: boolean;
  readonly strict?: boolean;
  readonly inventory?: boolean;
  readonly url: string;
}

/** Identities that workloads have now, and those of ranges, services and names, which rules may speak of too. */
const identitiesSql = `SELECT i.kind, i.cluster, i.namespace, i.name, i.label_keys, i.label_values, toUInt32(w.workloads)
FROM identities_current AS i
LEFT JOIN (SELECT identity, uniqExact(id) AS workloads FROM workloads_current GROUP BY identity) AS w ON w.identity = i.id
WHERE w.workloads > 0 OR i.kind IN ('range', 'service', 'name')`;

const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);

function identityOf([
  kind,
  cluster,
  namespace,
  name,
  keys,
  values,
  workloads,
]: readonly unknown[]): IdentityCount {
  const labelValues = texts(values);
  return {
    identity: {
      kind: String(kind),
      cluster: String(cluster),
      namespace: String(namespace),
      name: String(name),
      labels: Object.fromEntries(texts(keys).map((key, i) => [key, labelValues[i] ?? ''])),
    },
    workloads: Number(workloads),
  };
}

/** The inventory as it is now, or why it is not to be had. */
export async function identitiesNow(client: Client): Promise<IdentityCount[] | { readonly missing: string }> {
  try {
    const answer = await client.post<SqlAnswer>('/api/v1/sql', { query: identitiesSql });
    if (answer.error !== null) return { missing: answer.error };
    if (answer.truncated)
      return { missing: `it has more identities than one answer holds (${answer.rowCount})` };
    return answer.rows.map(identityOf);
  } catch (error) {
    if (error instanceof OperatorError) return { missing: error.message };
    throw error;
  }
}

function counted(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

/** What people read: problems by file and line, then one line that sums up. */
function linesOf(result: LoadResult, skipped: string | null): string[] {
  const style = styleFor(process.stdout);
  const paint = (problem: LocatedProblem): string =>
    problemLine(problem, (severity) => style.paint(severity === 'error' ? 'bad' : 'warn', severity));
  const byPlace = (a: LocatedProblem, b: LocatedProblem): number =>
    a.file.localeCompare(b.file) || a.line - b.line || a.column - b.column;
  const errors = result.ok ? [] : result.problems;
  const sum = result.ok
    ? `${counted(result.fileCount, 'file')} in order, ${counted(result.warnings.length, 'warning')}: ${countsOf(result.policy)}`
    : `${counted(errors.length, 'error')}, ${counted(result.warnings.length, 'warning')}: this policy can't be applied`;
  return [
    ...[...errors, ...result.warnings].toSorted(byPlace).map(paint),
    ...(skipped === null ? [] : [`not looked at: rules that match nobody (${skipped})`]),
    sum,
  ];
}

async function check(dependencies: CliDependencies, folder: string, options: CheckOptions): Promise<void> {
  const { maxPorts, maxAddresses, maxWorkloads } = options;
  const found =
    options.inventory === true
      ? await identitiesNow(openClient(options.url))
      : { missing: 'ask the inventory with --inventory' };
  const result = await readPolicyFolder(folder, {
    sense: {
      nowMs: Date.now(),
      limits: { maxPorts, maxAddresses, maxWorkloads },
      identities: Array.isArray(found) ? found : null,
    },
  });
  const skipped = Array.isArray(found) ? null : found.missing;
  if (options.json === true) {
    const { warnings } = result;
    const answer = result.ok
      ? { ok: true, files: result.fileCount, problems: [], warnings, skipped }
      : { ...result, skipped };
    process.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
  } else process.stdout.write(`${linesOf(result, skipped).join('\n')}\n`);
  if (!result.ok) dependencies.exit(exitCodes.usage);
  else if (options.strict === true && result.warnings.length > 0) dependencies.exit(exitCodes.failure);
}

function count(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('expected a whole number');
  return Number(text);
}

export function registerCheck(rules: Command, dependencies: CliDependencies): void {
  const { maxPorts, maxAddresses, maxWorkloads } = defaultBroadLimits;
  rules
    .command('check')
    .argument('<folder>', 'folder of YAML files, or one file')
    .description(
      'report everything that is wrong with a policy, or makes little sense; exit code 2 if there are errors',
    )
    .option('--inventory', 'also name rules that match nobody: asks the API who is there')
    .addOption(new Option('--url <url>', 'address of the API').env('EASTWEST_URL').default(defaultUrl))
    .option('--max-ports <count>', 'ports above which an allow is called broad', count, maxPorts)
    .option('--max-addresses <count>', 'addresses above which an end is called broad', count, maxAddresses)
    .option('--max-workloads <count>', 'workloads above which an end is called broad', count, maxWorkloads)
    .option('--strict', 'exit code 1 if there are warnings')
    .option('--json', 'as JSON')
    .action((folder: string, options: CheckOptions) => check(dependencies, folder, options));

  rules
    .command('schema')
    .description('print the JSON Schema of policy files, for editors')
    .action(() => {
      process.stdout.write(`${JSON.stringify(policyJsonSchema(), undefined, 2)}\n`);
    });
}
