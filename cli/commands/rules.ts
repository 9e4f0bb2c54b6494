/** `eastwest rules`: check a policy folder, apply it, list what is in force. */
import type { Command } from 'commander';
import { registerRuleQuestions } from '../ask/register.ts';
import type { CliDependencies } from '../dependencies.ts';
import { registerApply } from '../rules/apply.ts';
import { registerCheck } from '../rules/check.ts';
import { registerTest } from '../rules/test.ts';

export function register(program: Command, dependencies: CliDependencies): void {
  const rules = program.command('rules').description('check, apply and list rules (a folder of YAML)');

  registerCheck(rules, dependencies);

  registerApply(rules, dependencies);

  registerTest(rules, dependencies);

  registerRuleQuestions(rules, dependencies);
}
