/** `eastwest relabel`. */
import type { Command } from 'commander';
import type { CliDependencies } from '../dependencies.ts';
import type { RelabelCommandOptions } from '../relabel/command.ts';

export function register(program: Command, dependencies: CliDependencies): void {
  program
    .command('relabel')
    .description('give stored flows the labels and verdicts of the policy in force')
    .requiredOption('--since <time>', 'flows from then on: 24h, 7d ago, or ISO 8601')
    .option('--dry-run', 'only say what would change')
    .option('--json', 'the result as JSON')
    .action(async (options: RelabelCommandOptions) => {
      await (await import('../relabel/command.ts')).relabelCommand(options, dependencies);
    });
}
