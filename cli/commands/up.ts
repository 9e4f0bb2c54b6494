/** `eastwest up`: everything on this machine. */
import type { Command } from 'commander';
import type { CliDependencies } from '../dependencies.ts';

export function register(program: Command, dependencies: CliDependencies): void {
  program
    .command('up')
    .description('run everything on this machine; without configured sources a generated bank streams in')
    .option('--no-demo', 'without the generated bank')
    .action(async (options: { demo: boolean }) => {
      const { runUp } = await import('../up/run.ts');
      dependencies.exit(await runUp(dependencies, options));
    });
}
