/** `eastwest labels check`: reads the files, prints what they get. */
import { currentPolicy } from '../../lib/policy/publish.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { Profile } from '../../schemas/policy.ts';
import type { CliDependencies } from '../dependencies.ts';
import { readTexts } from '../manifests/files.ts';
import { placeText } from '../manifests/objects.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';
import { withBus } from '../with-bus.ts';
import { type CheckResult, checkManifests, workloadText } from './check.ts';

export interface LabelsCheckOptions {
  readonly policy?: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly json?: boolean;
}

async function profilesFor(
  options: LabelsCheckOptions,
  dependencies: CliDependencies,
): Promise<{ readonly profiles: readonly Profile[]; readonly by: string }> {
  if (options.policy === undefined) {
    const policy = await withBus(dependencies, 'eastwest-labels', currentPolicy);
    if (policy === null)
      throw new OperatorError(
        'no policy is in force here: name a folder with --policy, or apply one with `eastwest rules apply`',
        exitCodes.usage,
      );
    return { profiles: policy.profiles, by: `policy version ${policy.version}` };
  }
  const result = await readPolicyFolder(options.policy);
  if (!result.ok)
    throw new OperatorError(
      ['the policy itself is wrong:', ...problemLines(result.problems)].join('\n'),
      exitCodes.usage,
    );
  return { profiles: result.policy.profiles, by: `policy in ${options.policy}` };
}

function resultLines({ workloads, problems }: CheckResult, by: string): string[] {
  const lines: string[] = [];
  for (const workload of workloads) {
    const { file, line, profile, managed, labels } = workload;
    const found = profile === null ? 'no profile' : `profile ${profile}${managed ? '' : ', not managed'}`;
    lines.push(`${workloadText(workload)}  (${file}:${line}, ${found})`);
    const width = Math.max(0, ...labels.map(({ key, value }) => key.length + value.length + 1));
    for (const { key, value, source } of labels)
      lines.push(`  ${`${key}=${value}`.padEnd(width)}  from ${source}`);
  }
  if (lines.length > 0) lines.push('');
  for (const problem of problems) {
    const what = problem.workload === '' ? '' : `${problem.workload}: `;
    lines.push(
      `${placeText(problem)}  ${problem.severity === 'warning' ? 'warning: ' : ''}${what}${problem.message}`,
    );
  }
  const count = (severity: string) => problems.filter((problem) => problem.severity === severity).length;
  lines.push(
    `${workloads.length} workloads by ${by}: ${count('error')} errors, ${count('warning')} warnings`,
  );
  return lines;
}

/** Resolves with the exit code: 1 where there are errors. */
export async function labelsCheck(
  path: string,
  options: LabelsCheckOptions,
  dependencies: CliDependencies,
): Promise<number> {
  const texts = await readTexts(path);
  const { profiles, by } = await profilesFor(options, dependencies);
  const result = checkManifests(texts, profiles, options);
  const ok = result.problems.every(({ severity }) => severity !== 'error');
  const text =
    options.json === true
      ? JSON.stringify({ ok, ...result }, undefined, 2)
      : resultLines(result, by).join('\n');
  process.stdout.write(`${text}\n`);
  return ok ? exitCodes.ok : exitCodes.failure;
}
