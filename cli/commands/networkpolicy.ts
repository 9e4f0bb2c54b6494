/** `eastwest networkpolicy`: what Kubernetes itself permits. */
import type { Command } from 'commander';
import type { CliDependencies } from '../dependencies.ts';
import type { ConnectionsOptions } from '../networkpolicy/command.ts';

export function register(program: Command, dependencies: CliDependencies): void {
  const networkPolicy = program
    .command('networkpolicy')
    .description('what the NetworkPolicies of Kubernetes permit');

  networkPolicy
    .command('connections')
    .argument('<manifests>', 'folder of Kubernetes manifests, or one file')
    .description('the connections that policies permit between the workloads of manifests, and with outside')
    .option('--namespace <name>', 'namespace of objects that name none', 'default')
    .option('--fail-on-open', 'exit with code 3 when no policy isolates some workload for ingress')
    .option('--json', 'as JSON')
    .option('--wide', 'cut nothing off, however wide the table gets')
    .action(async (manifests: string, options: ConnectionsOptions) => {
      dependencies.exit(
        await (await import('../networkpolicy/command.ts')).networkPolicyConnections(manifests, options),
      );
    });
}
