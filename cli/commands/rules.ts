/** `eastwest rules`: check a policy folder, apply it, list what is in force. */
import type { Command } from 'commander';
import { currentPolicy } from '../../lib/policy/publish.ts';
import { exitCodes } from '../../lib/runtime/exit.ts';
import { formatTable } from '../../lib/runtime/table.ts';
import type { CliDependencies } from '../dependencies.ts';
import { problemLines, readPolicyFolder } from '../policy-folder.ts';
import { countsOf, print, registerApply } from '../rules/apply.ts';
import { withBus } from '../with-bus.ts';

const clientId = 'eastwest-rules';

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

  rules
    .command('list')
    .description('list the rules in force')
    .option('--json', 'as JSON')
    .action(async (options: JsonOption) => {
      const policy = await withBus(dependencies, clientId, currentPolicy);
      if (policy === null) {
        print(options.json, { version: 0, rulesets: [] }, [
          'no policy is in force yet: apply one with `eastwest rules apply <folder>`',
        ]);
        return;
      }
      const lines = formatTable(
        [
          { title: 'RULE' },
          { title: 'ACTION' },
          { title: 'OWNER' },
          { title: 'TICKET' },
          { title: 'EXPIRES' },
        ],
        policy.rulesets.flatMap((ruleset) =>
          ruleset.rules.map((rule) => [
            `${ruleset.name}/${rule.name}`,
            rule.enabled === false || ruleset.enabled === false ? 'disabled' : (rule.action ?? 'allow'),
            rule.owner ?? ruleset.owner ?? '',
            rule.ticket ?? '',
            rule.expires ?? '',
          ]),
        ),
      );
      const heading = `version ${policy.version} by ${policy.author}, ${new Date(policy.appliedMs).toISOString()}`;
      print(options.json, policy, [heading, '', ...lines]);
    });
}
