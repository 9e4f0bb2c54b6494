/** Adds `draft` and `suggest`: loaded only when they run. */
import type { Command } from 'commander';
import { addAskOptions, addLimitOption, addWindowOptions } from '../ask/options.ts';
import type { CliDependencies } from '../dependencies.ts';
import type { SuggestOptions } from '../suggest/suggest.ts';
import type { DraftOptions } from './draft.ts';

export function register(program: Command, dependencies: Pick<CliDependencies, 'exit'>): void {
  addAskOptions(
    addLimitOption(
      addWindowOptions(
        program.command('draft').argument('<folder>', 'folder of YAML files, or one file: a whole policy'),
      ),
    ),
  )
    .description('what a policy would change of what was seen (7d when no --since is given)')
    .option('--app <name>', 'only edges one end of which has this label app')
    .option('--against <folder>', 'compare with this policy instead of the verdicts that were stored')
    .option(
      '--fail-on <changes>',
      'exit with code 1 when there are any: new-unexplained, new-denied, new-explained, joined by commas',
    )
    .action(async (folder: string, options: DraftOptions) => {
      dependencies.exit(await (await import('./draft.ts')).draft(folder, options));
    });
  addAskOptions(addWindowOptions(program.command('suggest')))
    .description('rules for what no rule explains, as YAML for a pull request')
    .option('--app <name>', 'only for edges one end of which has this label app')
    .option('--policy <folder>', 'beside the rules of this folder (those in force when absent)')
    .option('-o, --output <file>', 'write the YAML to this file, and show what is in it')
    .action(async (options: SuggestOptions) => (await import('../suggest/suggest.ts')).suggest(options));
}
