/** `eastwest firewall`: static rules of firewalls, held against what flows. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type FirewallVerdict, firewallVerdicts } from '../../lib/firewall/audit.ts';
import { ruleFormats } from '../../lib/firewall/rule.ts';
import { addAskOptions } from '../ask/options.ts';
import type { CliDependencies } from '../dependencies.ts';
import type { AuditOptions } from './audit.ts';

function verdictList(text: string): FirewallVerdict[] {
  return text.split(',').map((word) => {
    const verdict = firewallVerdicts.find((one) => one === word.trim());
    if (verdict === undefined)
      throw new InvalidArgumentError(
        `"${word.trim()}" is no verdict; there are ${firewallVerdicts.join(', ')}`,
      );
    return verdict;
  });
}

export function register(program: Command, dependencies: CliDependencies): void {
  const firewall = program
    .command('firewall')
    .description('static rules of perimeter firewalls, held against what flows');
  addAskOptions(
    firewall.command('audit').argument('<file>', 'rules in CSV, nftables or iptables-save, or - for stdin'),
  )
    .description(
      'which rules are used, whose addresses now belong to another app or to nobody, which are too broad',
    )
    .addOption(
      new Option('--format <format>', 'format of the file (found out when absent)').choices([...ruleFormats]),
    )
    .option('--since <time>', 'begin: 24h, 90d ago, or ISO 8601', '90d')
    .option('--until <time>', 'end, exclusive (open when absent)')
    .option('--chain <name>', 'chain of nftables or iptables to audit (what is forwarded when absent)')
    .addOption(
      new Option('--match <mode>', 'first: a flow counts for the first rule that matches; any: for every one')
        .choices(['first', 'any'])
        .default('first'),
    )
    .option(
      '--only <verdicts>',
      `show rules of these verdicts only: ${firewallVerdicts.join(',')}`,
      verdictList,
    )
    .option('--details', 'who had and has the addresses, and the narrowest rule, below each rule')
    .option('--narrowest', 'print the narrowest rules instead, as CSV')
    .option('--policy', 'print the rules in labels instead, as a file of a policy folder')
    .option('--fail-on <verdicts>', 'exit with code 1 when any rule has one of these verdicts', verdictList)
    .action(async (file: string, options: AuditOptions) => {
      dependencies.exit(await (await import('./audit.ts')).audit(file, options));
    });
  firewall
    .command('example')
    .description('static rules of the demo estate in CSV, to audit while it runs')
    .action(async () => (await import('./example.ts')).example(dependencies));
}
