/** `eastwest labels`: which labels workloads have or would get, and from where. */
import type { Command } from 'commander';
import type { ExplainOptions } from '../ask/labels.ts';
import { addAskOptions } from '../ask/options.ts';
import type { CliDependencies } from '../dependencies.ts';
import type { LabelsCheckOptions } from '../labels/command.ts';

export function register(program: Command, dependencies: CliDependencies): void {
  const labels = program.command('labels').description('which labels workloads get, and from where');

  labels
    .command('check')
    .argument('<manifests>', 'folder of Kubernetes manifests, or one file')
    .description('the labels that manifests would get, for CI; exit code 1 if there are errors')
    .option('--policy <folder>', 'policy to check against (the one in force when absent)')
    .option('--cluster <name>', 'cluster that they are meant for', '')
    .option('--namespace <name>', 'namespace of objects that name none', 'default')
    .option('--json', 'as JSON')
    .action(async (manifests: string, options: LabelsCheckOptions) => {
      dependencies.exit(
        await (await import('../labels/command.ts')).labelsCheck(manifests, options, dependencies),
      );
    });

  addAskOptions(labels.command('explain'))
    .argument('<workload>', 'name, namespace/name, uid or address')
    .description('the labels of a workload, each with its source, and what was refused')
    .action(async (workload: string, options: ExplainOptions) => {
      dependencies.exit(await (await import('../ask/labels.ts')).explain(workload, options));
    });
}
