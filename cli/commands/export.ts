/** `eastwest export`: our rules in the words of what enforces. */
import { type Command, Option } from 'commander';
import { defaultUrl } from '../ask/options.ts';
import type { CliDependencies } from '../dependencies.ts';
import type { NetworkPolicyCommandOptions } from '../export/networkpolicy.ts';
import type { NftablesCommandOptions } from '../export/nftables.ts';

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

function addInventoryOptions(command: Command): Command {
  return command
    .option(
      '--inventory <path>',
      'file or folder: hosts (YAML, JSON, CSV), Kubernetes manifests, events (.jsonl); may be repeated (asks the API when absent)',
      collect,
      [],
    )
    .option('--cluster <name>', 'name of the cluster that manifests are of', 'default')
    .addOption(new Option('--url <url>', 'address of the API').env('EASTWEST_URL').default(defaultUrl))
    .option('--strict', 'exit with code 3 when something could not be exported')
    .option('--json', 'as JSON');
}

function addNetworkOption(command: Command): Command {
  return command.option(
    '--network <name>',
    'also addresses of this network (another cluster); may be repeated',
    collect,
    [],
  );
}

export function register(program: Command, dependencies: CliDependencies): void {
  const exports = program.command('export').description('write rules for firewalls that enforce them');

  addNetworkOption(addInventoryOptions(exports.command('networkpolicy')))
    .argument('[policy]', 'folder of YAML files (the policy in force when absent)')
    .description('NetworkPolicies of Kubernetes: namespaces are closed, and rules open them')
    .option(
      '--namespace <name>',
      'namespace to write policies for; may be repeated (all that profiles label when absent)',
      collect,
      [],
    )
    .option('-o, --output <folder>', 'folder to write a file for each namespace to (stdout when absent)')
    .action(async (folder: string | undefined, options: NetworkPolicyCommandOptions) => {
      dependencies.exit(
        await (await import('../export/networkpolicy.ts')).exportNetworkPolicyCommand(folder, options),
      );
    });

  addNetworkOption(addInventoryOptions(exports.command('nftables')))
    .argument('[policy]', 'folder of YAML files (the policy in force when absent)')
    .description('rules and sets for the nft of one VM, host or node, both ends of each rule')
    .requiredOption('--host <host>', 'name, group/name, uid or address')
    .addOption(
      new Option('--default <action>', 'what happens to what no rule speaks of')
        .choices(['drop', 'accept'])
        .default('drop'),
    )
    .option('-o, --output <file>', 'file to write (stdout when absent)')
    .action(async (folder: string | undefined, options: NftablesCommandOptions) => {
      dependencies.exit(await (await import('../export/nftables.ts')).exportNftablesCommand(folder, options));
    });
}
