/** The commands that ask: each is loaded only when it runs. */
import { type Command, Option } from 'commander';
import type { CliDependencies } from '../dependencies.ts';
import type { UnknownOptions } from './connections.ts';
import type { CoverageOptions } from './coverage.ts';
import type { ExplainOptions } from './explain.ts';
import type { AlertOptions, WorkloadOptions } from './inventory.ts';
import type { LedgerOptions } from './ledger.ts';
import type { OneSidedOptions } from './one-sided.ts';
import {
  addAskOptions,
  addFlowOptions,
  addLimitOption,
  addWindowOptions,
  type FlowOptions,
} from './options.ts';
import type { PutOptions } from './put.ts';
import type { RulesOptions } from './rules.ts';
import type { SqlOptions } from './sql.ts';

const verdictOption = () =>
  new Option('--verdict <verdict>', 'what rules say of it').choices(['unexplained', 'allowed', 'denied']);

function registerConnections(program: Command, dependencies: Pick<CliDependencies, 'exit'>): void {
  addAskOptions(addFlowOptions(program.command('unknown')))
    .description('connections that no rule explains, the most severe and newest first')
    .option('--fail-on-findings', 'exit with code 3 when there are any, to stop a pipeline')
    .action(async (options: UnknownOptions) => {
      dependencies.exit(await (await import('./connections.ts')).unknown(options));
    });
  addAskOptions(addFlowOptions(program.command('connections')))
    .description('connections: workload or address to workload or address')
    .addOption(verdictOption())
    .action(async (options: FlowOptions) => (await import('./connections.ts')).connections(options));
  addAskOptions(addFlowOptions(program.command('edges')))
    .description('edges: labels to labels, port and verdict, from the rollups')
    .addOption(verdictOption())
    .action(async (options: FlowOptions) => (await import('./connections.ts')).edges(options));
  addAskOptions(addFlowOptions(program.command('one-sided')))
    .description('connections that one side saw and the other did not, though its agent should have')
    .addOption(verdictOption())
    .addOption(
      new Option('--seen-by <side>', 'source: never arrived; destination: never sent').choices([
        'source',
        'destination',
      ]),
    )
    .addOption(
      new Option('--state <state>', 'why the other side did not report (not-seen when absent)').choices([
        'not-seen',
        'waiting',
        'incomplete',
        'silent',
        'translated',
        'same-agent',
        'no-agent',
        'any',
      ]),
    )
    .option('--fail-on-findings', 'exit with code 3 when any was not seen, to stop a pipeline')
    .action(async (options: OneSidedOptions) => {
      dependencies.exit(await (await import('./one-sided.ts')).oneSided(options));
    });
  addAskOptions(addFlowOptions(program.command('coverage')))
    .description('how much of the traffic rules explain')
    .option(
      '--group-by <key>',
      'a label key (app, env, namespace, cluster) for egress and ingress; src_<key> or dst_<key> for one of them',
    )
    .option('--step <duration>', 'adds a series: 5m, 1h, 1d')
    .option('--top <count>', 'how many unexplained edges to list (10 when absent)')
    .action(async (options: CoverageOptions) => (await import('./coverage.ts')).coverage(options));
}

function registerExplain(program: Command, dependencies: Pick<CliDependencies, 'exit'>): void {
  addAskOptions(program.command('explain'))
    .argument('<source>', 'workload (name, namespace/name, uid), labels (app=payments,role=api), or address')
    .argument('<destination>', 'the same, or a DNS name')
    .argument('<port>', '5432, 53/udp, icmp:8:0')
    .description('why a connection is allowed, denied or unexplained, and what a rule would need')
    .option('--at <time>', 'by the policy and for the ends of then: 24h ago, or ISO 8601 (now when absent)')
    .option('--process <name>', "process on the reporter's side, for rules that ask for one")
    .option(
      '--no-kubernetes',
      'do not ask what NetworkPolicies of Kubernetes would say, which reads the inventory',
    )
    .option('--fail-on <verdicts>', 'exit with code 3 for these: unexplained,denied')
    .action(async (source: string, destination: string, port: string, options: ExplainOptions) => {
      dependencies.exit(await (await import('./explain.ts')).explain(source, destination, port, options));
    });
}

/** Adds to `eastwest rules` what asks the HTTP API. */
export function registerRuleQuestions(rules: Command, dependencies: Pick<CliDependencies, 'exit'>): void {
  const addRuleOptions = (command: Command): Command =>
    addAskOptions(addLimitOption(addWindowOptions(command))).option(
      '--state <states>',
      'active, disabled, expired, removed, or several with |',
    );
  addRuleOptions(rules.command('list'))
    .description('list the rules, and what they spoke of')
    .option('--usage <usages>', 'used, gone (only by what is no more), unused, or several with |')
    .addOption(
      new Option('--sort <key>', 'what comes first').choices([
        'name',
        'connections',
        'bytes',
        'edges',
        'last_hit',
      ]),
    )
    .action(async (options: RulesOptions) => (await import('./rules.ts')).list(options));
  addRuleOptions(rules.command('unused'))
    .description(
      'list active rules that nothing used since a time (30d when absent), or only what is no more',
    )
    .option('--fail-on-findings', 'exit with code 3 when there are any, to stop a pipeline')
    .action(async (options: RulesOptions) => {
      dependencies.exit(await (await import('./rules.ts')).unused(options));
    });
}

function addWorkloadOptions(command: Command): Command {
  return addAskOptions(addLimitOption(command))
    .option('--at <time>', 'who it was then: 24h ago, or ISO 8601 (all intervals when absent)')
    .option('--network <name>', 'in one network: a cluster for its pods, default for the routed one');
}

function registerInventory(program: Command): void {
  const workloads = addWorkloadOptions(program.command('workloads'))
    .description('workloads with their addresses and when they had them')
    .option('--ip <cidr>', 'address or CIDR')
    .option('--name <text>', 'part of the name')
    .option('--namespace <name>', 'namespace')
    .option('--cluster <name>', 'cluster')
    .option('--kind <kind>', 'pod, node, vm, host or service')
    .option('--label <labels>', 'labels: app=payments,env=prod')
    .action(async (options: WorkloadOptions) => (await import('./inventory.ts')).workloads(options));
  addAskOptions(workloads.command('put').argument('<file>', 'YAML, JSON or CSV, or - for stdin'))
    .description('tell the inventory about VMs and bare metal: the hosts of a file, or a request')
    .option('--source <name>', 'system that speaks, such as cmdb; it ends only what it put itself')
    .option('--replace', 'these are all: whatever else the source put before has ended')
    .option('--ttl <duration>', 'they end unless they are put again within 30m, 24h, 7d')
    .addOption(new Option('--token <token>', 'a token of query.writeTokens').env('EASTWEST_TOKEN'))
    // `workloads` has options of the same names, and takes them wherever they stand.
    .action(async (file: string, _own: PutOptions, command: Command) =>
      (await import('./put.ts')).put(file, command.optsWithGlobals<PutOptions>()),
    );
  addWorkloadOptions(program.command('who').argument('<ip>', 'address or CIDR'))
    .description('who has an address, or who had it at a time and how sure that is')
    .action(async (ip: string, options: WorkloadOptions) =>
      (await import('./who.ts')).who({ ...options, ip }),
    );
  addAskOptions(addLimitOption(addWindowOptions(program.command('alerts'))))
    .description('what was said to webhooks, or is still being tried')
    .addOption(
      new Option('--state <state>', 'what became of it').choices([
        'pending',
        'delivered',
        'failed',
        'recorded',
        'summarised',
      ]),
    )
    .option('--receiver <name>', 'receiver')
    .action(async (options: AlertOptions) => (await import('./inventory.ts')).alerts(options));
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** Adds the commands that ask the HTTP API. */
export function register(program: Command, dependencies: Pick<CliDependencies, 'exit'>): void {
  registerConnections(program, dependencies);
  registerExplain(program, dependencies);
  registerInventory(program);
  addAskOptions(addLimitOption(addWindowOptions(program.command('ledger'))))
    .description('what arrived, what is missing, what was dropped, and how late')
    .action(async (options: LedgerOptions) => (await import('./ledger.ts')).ledger(options));
  addAskOptions(
    addWindowOptions(program.command('sql').argument('<query>', 'one statement that reads, or - for stdin')),
  )
    .description(
      'ask in SQL, read-only; flows_labeled, edges_labeled and unknown_connections have plain names. --since and --until filter nothing: they say of which time completeness is told',
    )
    .addOption(
      new Option('--format <format>', 'form of the answer')
        .choices(['table', 'json', 'jsonl', 'csv', 'tsv'])
        .default('table'),
    )
    .option('--param <name=value>', 'value of a {name:Type} placeholder; may be repeated', collect, [])
    .action(async (query: string, options: SqlOptions) => {
      dependencies.exit(await (await import('./sql.ts')).sql(query, options));
    });
}
