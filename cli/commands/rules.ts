/** `eastwest rules`: check a policy folder, apply it, list what is in force. */
import type { Command } from 'commander';
import { exitCodes } from '../../lib/runtime/exit.ts';
import { registerRuleQuestions } from '../ask/register.ts';
import type { CliDependencies } from '../dependencies.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';
import { countsOf, print, registerApply } from '../rules/apply.ts';
import { registerTest } from '../rules/test.ts';

interface JsonOption {
  readonly json?: boolean;
}

export function register(program: Command, dependencies: CliDependencies): void {
  const rules = program.command('rules').description('check, apply and list rules (a folder of YAML)');

  rules
    .command('check')
    .argument('<folder>', 'folder of YAML files, or one file')
    .description('report everything that is wrong with a policy; exit code 2 if there are errors')
    .option('--json', 'as JSON')
    .action(async (folder: string, options: JsonOption) => {
      const result = await readPolicyFolder(folder);
      if (result.ok) {
        print(options.json, { ok: true, files: result.fileCount, warnings: result.warnings }, [
          ...problemLines(result.warnings),
          `${result.fileCount} files are in order: ${countsOf(result.policy)}`,
        ]);
        return;
      }
      print(options.json, result, problemLines([...result.problems, ...result.warnings]));
      dependencies.exit(exitCodes.usage);
    });

  registerApply(rules, dependencies);

  registerTest(rules, dependencies);

  registerRuleQuestions(rules, dependencies);
}
