/** `eastwest rules test`: assertions about a policy, for CI. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { emptyPolicy } from '../../lib/policy/engine.ts';
import { currentPolicy } from '../../lib/policy/publish.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { openScreen, type Screen } from '../ask/screen.ts';
import type { CliDependencies } from '../dependencies.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';
import { withBus } from '../with-bus.ts';
import { type CaseResult, readCases, runCases } from './cases.ts';

interface TestOptions {
  readonly policy?: string;
  readonly json?: boolean;
}

async function policyOf(
  folder: string | undefined,
  dependencies: CliDependencies,
): Promise<{ readonly policy: PolicyDocument; readonly by: string }> {
  if (folder === undefined) {
    const policy = await withBus(dependencies, 'eastwest-rules', currentPolicy);
    if (policy === null)
      throw new OperatorError(
        'no policy is in force here: name a folder with --policy, or apply one with `eastwest rules apply`',
        exitCodes.usage,
      );
    return { policy, by: `policy version ${policy.version}` };
  }
  const result = await readPolicyFolder(folder);
  if (!result.ok)
    throw new OperatorError(
      ['the policy itself is wrong:', ...problemLines(result.problems)].join('\n'),
      exitCodes.usage,
    );
  return { policy: { ...emptyPolicy, ...result.policy }, by: `policy in ${folder}` };
}

function gotText({ verdict, rule, reason }: CaseResult): string {
  return rule === null ? `${verdict} (${reason})` : `${verdict} by ${rule}`;
}

function wantedText({ expect, expectRule }: CaseResult): string {
  return expectRule === null ? expect : `${expect} by ${expectRule}`;
}

function show(screen: Screen, file: string, results: readonly CaseResult[], by: string): void {
  for (const result of results) {
    const mark = result.ok ? screen.style.paint('good', 'ok  ') : screen.style.paint('bad', 'FAIL');
    const what = `${result.name} ${result.port}/${result.protocol}`;
    const rest = result.ok ? gotText(result) : `expected ${wantedText(result)}, got ${gotText(result)}`;
    screen.line(`${mark} ${file}:${result.line}  ${what}: ${rest}`);
  }
  const failed = results.filter(({ ok }) => !ok).length;
  screen.line(
    `${results.length - failed} of ${results.length} hold by ${by}${failed === 0 ? '' : `, ${failed} fail`}`,
  );
}

/** Resolves with the exit code: 1 where a case fails, 2 where the file or the policy is wrong. */
export async function rulesTest(
  file: string,
  options: TestOptions,
  dependencies: CliDependencies,
): Promise<number> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new OperatorError(
      `${file}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
  const read = readCases(text);
  if (!read.ok)
    throw new OperatorError(
      [
        'the cases are wrong:',
        ...read.problems.map(({ line, message }) => `${file}:${line}  ${message}`),
      ].join('\n'),
      exitCodes.usage,
    );
  const { policy, by } = await policyOf(options.policy, dependencies);
  const results = runCases(read.cases, policy, Date.now());
  const ok = results.every((result) => result.ok);
  const screen = openScreen(true);
  if (options.json === true) screen.json({ ok, results });
  else show(screen, file, results, by);
  return ok ? exitCodes.ok : exitCodes.findings;
}

/** Adds `test` to the command `rules`. */
export function registerTest(rules: Command, dependencies: CliDependencies): void {
  rules
    .command('test')
    .argument('<cases>', 'YAML file of cases: source, destination, port, protocol, expect, rule')
    .description('whether a policy says what is expected; exit code 1 if it does not')
    .option('--policy <folder>', 'policy to ask (the one in force when absent)')
    .option('--json', 'as JSON')
    .action(async (file: string, options: TestOptions) => {
      dependencies.exit(await rulesTest(file, options, dependencies));
    });
}
