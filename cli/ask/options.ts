/** Options that asking commands share. */
import { type Command, InvalidArgumentError, Option } from 'commander';

export const defaultUrl = 'http://127.0.0.1:8080';

export interface AskOptions {
  readonly url: string;
  readonly json?: boolean;
  readonly wide?: boolean;
}

export interface FlowOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly app?: string;
  readonly namespace?: string;
  readonly cluster?: string;
  readonly src?: string;
  readonly dst?: string;
  readonly ip?: string;
  readonly port?: string;
  readonly protocol?: string;
  readonly reason?: string;
  readonly verdict?: string;
  readonly direction?: string;
  readonly severity?: string;
  readonly sort?: string;
  readonly limit?: string;
}

/** Where to ask, and in which form to answer. */
export function addAskOptions(command: Command): Command {
  return command
    .addOption(new Option('--url <url>', 'address of the API').env('EASTWEST_URL').default(defaultUrl))
    .option('--json', 'the answer of the API as JSON')
    .option('--wide', 'cut nothing off, however wide the table gets');
}

export function addWindowOptions(command: Command): Command {
  return command
    .option('--since <time>', 'begin: 90s, 5m, 24h, 7d ago, or ISO 8601 (24h when absent)')
    .option('--until <time>', 'end, exclusive (open when absent)');
}

function wholeNumber(text: string): string {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('expected a whole number above 0');
  return text;
}

export function addLimitOption(command: Command): Command {
  return command.option('--limit <count>', 'most lines (100 when absent)', wholeNumber);
}

/** Filters of connections; a verdict only where the command leaves it open. */
export function addFlowOptions(command: Command): Command {
  return addLimitOption(addWindowOptions(command))
    .option('--app <name>', 'label app of either end')
    .option('--namespace <name>', 'namespace of either end')
    .option('--cluster <name>', 'cluster of either end')
    .option('--src <labels>', 'labels of the source: app=payments,env=prod|uat,loc!=fra')
    .option('--dst <labels>', 'labels of the destination')
    .option('--ip <cidr>', 'address of either end')
    .option('--port <port>', 'destination port')
    .option('--protocol <name>', 'tcp, udp, icmp, icmpv6, sctp, or a number')
    .option(
      '--reason <reason>',
      'no-rule, port-not-covered, unknown-source, unknown-destination, outside-scope',
    )
    .option('--direction <direction>', 'leaves-estate, enters-estate, cross-cluster, datacentre, internal')
    .option('--severity <severity>', 'this severe or more: low, medium, high, critical')
    .option('--sort <key>', 'what comes first; see docs/api.md');
}

/** The parameters of the API that the filters are. */
export function flowParameters(options: FlowOptions): Record<string, string | undefined> {
  const { since, until, app, namespace, cluster, src, dst, ip, port, protocol, reason } = options;
  const { verdict, direction, severity, sort, limit } = options;
  return {
    since,
    until,
    app,
    namespace,
    cluster,
    src,
    dst,
    ip,
    port,
    protocol,
    reason,
    verdict,
    direction,
    severity,
    sort,
    limit,
  };
}
