/** Connections that should not be there: planted, few, recurring, each with what the pipeline has to say about it. */
import { machineGroups } from './catalogue.ts';
import type { Directory } from './directory.ts';
import type { Labels } from './ends.ts';
import { edgeOf } from './indirect.ts';
import {
  type Outcome,
  type Party,
  type Pattern,
  pattern,
  type ShapeName,
  udp,
  unexplained,
} from './patterns.ts';
import type { Cluster, Deployment, MachineGroup, World } from './world.ts';

export interface PlantedConnection {
  readonly id: string;
  readonly title: string;
  readonly severity: 'critical' | 'high' | 'medium';
  readonly source: {
    readonly kind: 'pod' | 'node' | 'vm' | 'host';
    readonly cluster: string;
    readonly namespace: string;
    /** Name of the deployment or group, empty for nodes; its pods change. */
    readonly workload: string;
    readonly labels: Labels;
  };
  readonly destination: {
    readonly kind: string;
    /** Named range, listed name, service or machine group; empty where nobody knows it. */
    readonly name: string;
    readonly address: string;
    readonly labels: Labels;
  };
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  readonly dnsName: string;
  readonly reason: Outcome['reason'];
  readonly leavesEstate: boolean;
}

export interface Planted {
  readonly about: PlantedConnection;
  readonly pattern: Pattern;
}

interface Scenario extends Pick<PlantedConnection, 'id' | 'title' | 'severity' | 'reason' | 'leavesEstate'> {
  readonly from: From | undefined;
  readonly to: Party | undefined;
  readonly toKind: string;
  readonly toName: string;
  readonly port: number;
  readonly shape: ShapeName;
  readonly protocol?: 'udp';
  readonly dnsName?: string;
}

/** The address of a VM that was switched off long ago; the inventory still knows when. */
export const decommissioned = { name: 'archive-0001', group: 'archive', address: '172.28.4.20' } as const;

function scenarios(world: World, directory: Directory): Scenario[] {
  const pods = (env: string, role: string, app?: string, cluster?: string): Deployment | undefined =>
    world.deployments.find(
      (d) =>
        d.env === env &&
        d.role === role &&
        (app === undefined || d.app === app) &&
        (cluster === undefined || d.namespace.cluster.name === cluster),
    );
  const group = (name: string): MachineGroup | undefined => world.groups.find((g) => g.name === name);
  const outside = (text: string, range: string): Party => ({
    type: 'fixed',
    endpoints: [directory.outside(text, range)],
  });
  const mainframe = group('mainframe');
  const mainframeParty: Party | undefined = mainframe && {
    type: 'fixed',
    endpoints: [directory.machine(mainframe, mainframe.first)],
  };
  const database = pods('prod', 'db', 'analytics') ?? pods('prod', 'db', 'ledger');
  const databaseParty: Party | undefined =
    database?.service == null
      ? undefined
      : { type: 'fixed', endpoints: [directory.service(database.service, 'load-balancer')] };
  const elsewhere = world.clusters.at(-1)?.name;
  const sandbox = world.deployments.find((d) => d.name === 'notebook');
  const batch = pods('dev', 'batch');
  const [main] = world.clusters;
  const edge = main === undefined ? null : edgeOf(main);
  const listed = (text: string, name: string): Party => ({
    type: 'fixed',
    endpoints: [directory.named(text, name)],
  });
  return [
    {
      id: 'dev-batch-to-mainframe-telnet',
      title: 'A development batch job opens a terminal session on the mainframe',
      severity: 'critical',
      reason: 'no-rule',
      leavesEstate: false,
      from: batch,
      to: mainframeParty,
      toKind: 'host',
      toName: 'mainframe',
      port: 23,
      shape: 'stream',
    },
    {
      id: 'dev-batch-to-mainframe-3270',
      title: 'A development batch job speaks TN3270 to the mainframe',
      severity: 'critical',
      reason: 'no-rule',
      leavesEstate: false,
      from: batch,
      to: mainframeParty,
      toKind: 'host',
      toName: 'mainframe',
      port: 3270,
      shape: 'stream',
    },
    {
      id: 'web-beacon',
      title: 'A production web pod calls an internet address on an odd port',
      severity: 'critical',
      reason: 'no-rule',
      leavesEstate: true,
      from: pods('prod', 'web'),
      to: outside('203.0.113.66', 'internet'),
      toKind: 'range',
      toName: 'internet',
      port: 4444,
      shape: 'probe',
    },
    {
      id: 'analytics-to-partner',
      title: 'Analytics copies files to a partner without a rule',
      severity: 'high',
      reason: 'no-rule',
      leavesEstate: true,
      from: pods('prod', 'worker', 'analytics') ?? pods('prod', 'worker'),
      to: outside('198.51.100.25', 'partner-acme'),
      toKind: 'range',
      toName: 'partner-acme',
      port: 22,
      shape: 'bulk',
      dnsName: 'sftp.acme.example',
    },
    {
      id: 'backup-to-nowhere',
      title: 'A forgotten backup job writes to a machine that was switched off',
      severity: 'medium',
      reason: 'unknown-destination',
      leavesEstate: false,
      from: pods('prod', 'batch'),
      to: outside(decommissioned.address, ''),
      toKind: 'unknown',
      toName: '',
      port: 873,
      shape: 'bulk',
    },
    {
      id: 'sandbox-miner',
      title: 'A notebook in the sandbox talks to a mining pool',
      severity: 'critical',
      reason: 'outside-scope',
      leavesEstate: true,
      from: sandbox,
      to: outside('203.0.113.133', 'internet'),
      toKind: 'range',
      toName: 'internet',
      port: 3333,
      shape: 'stream',
      dnsName: 'pool.minexmr.example',
    },
    {
      id: 'dns-tunnel',
      title: 'An API pod asks a resolver outside, much too often',
      severity: 'high',
      reason: 'no-rule',
      leavesEstate: true,
      from: pods('uat', 'api'),
      to: outside('203.0.113.53', 'internet'),
      toKind: 'range',
      toName: 'internet',
      port: 53,
      shape: 'lookup',
      protocol: 'udp',
    },
    {
      id: 'cross-cluster-database',
      title: 'A pod of another cluster reads a production database directly',
      severity: 'high',
      reason: 'no-rule',
      leavesEstate: false,
      from: pods('prod', 'worker', undefined, elsewhere),
      to: databaseParty,
      toKind: 'service',
      toName: database?.service?.name ?? '',
      port: 5432,
      shape: 'database',
    },
    {
      id: 'directory-beacon',
      title: 'A domain controller opens IRC to the internet',
      severity: 'critical',
      reason: 'no-rule',
      leavesEstate: true,
      from: group('directory'),
      to: outside('203.0.113.99', 'internet'),
      toKind: 'range',
      toName: 'internet',
      port: 6667,
      shape: 'probe',
      dnsName: 'irc.node-7.example',
    },
    {
      id: 'card-network',
      title: 'A web pod speaks to the card network itself, past the gateway',
      severity: 'high',
      reason: 'no-rule',
      leavesEstate: true,
      from: pods('prod', 'web'),
      to: listed('192.0.2.60', 'card-network'),
      toKind: 'name',
      toName: 'card-network',
      port: 8583,
      shape: 'stream',
      dnsName: 'switch.cardnet.example',
    },
    {
      id: 'node-to-internet',
      title: 'Something on a node fetches from an internet address without encryption',
      severity: 'high',
      reason: 'no-rule',
      leavesEstate: true,
      from: main,
      to: outside('203.0.113.80', 'internet'),
      toKind: 'range',
      toName: 'internet',
      port: 80,
      shape: 'http',
    },
    {
      id: 'backup-to-node',
      title: 'A backup machine logs into a Kubernetes node',
      severity: 'medium',
      reason: 'no-rule',
      leavesEstate: false,
      from: group('backup'),
      to: main && { type: 'fixed', endpoints: [directory.node(main, 0)] },
      toKind: 'node',
      toName: '',
      port: 22,
      shape: 'stream',
    },
    {
      id: 'edge-by-node-port',
      title: 'An application server calls the edge by the port of a node, past its load balancer',
      severity: 'medium',
      reason: 'port-not-covered',
      leavesEstate: false,
      from: world.groups[machineGroups.length],
      to:
        edge === null
          ? undefined
          : {
              type: 'fixed',
              endpoints: [directory.nodePort(edge, edge.deployment.namespace.cluster.nodeCount - 1)],
            },
      toKind: 'service',
      toName: edge?.name ?? '',
      port: edge?.nodePort ?? 0,
      shape: 'http',
    },
  ];
}

type From = Deployment | MachineGroup | Cluster;

function partyOf(from: From): Party {
  if ('namespace' in from) return { type: 'pods', deployment: from };
  return 'nodeLabels' in from ? { type: 'nodes', cluster: from } : { type: 'machines', group: from };
}

function sourceAbout(from: From): PlantedConnection['source'] {
  if ('namespace' in from) {
    const { namespace, name, labels } = from;
    return {
      kind: 'pod',
      cluster: namespace.cluster.name,
      namespace: namespace.name,
      workload: name,
      labels,
    };
  }
  if ('nodeLabels' in from)
    return { kind: 'node', cluster: from.name, namespace: '', workload: '', labels: from.nodeLabels };
  return { kind: from.kind, cluster: '', namespace: from.name, workload: from.name, labels: from.labels };
}

/** The planted connections that a world of this size has the parts for. */
export function makePlanted(world: World, directory: Directory): Planted[] {
  const list: Planted[] = [];
  for (const one of scenarios(world, directory)) {
    const { from, to } = one;
    if (from === undefined || to?.type !== 'fixed') continue;
    const [target] = to.endpoints;
    if (target === undefined) continue;
    const protocol = one.protocol ?? 'tcp';
    const dnsName = one.dnsName ?? '';
    list.push({
      about: {
        id: one.id,
        title: one.title,
        severity: one.severity,
        source: sourceAbout(from),
        destination: {
          kind: one.toKind,
          name: one.toName,
          address: target.text,
          labels: target.identify().labels,
        },
        port: one.port,
        protocol,
        dnsName,
        reason: one.reason,
        leavesEstate: one.leavesEstate,
      },
      pattern: pattern({
        source: partyOf(from),
        destination: to,
        port: one.port,
        weight: 0,
        shape: one.shape,
        outcome: unexplained(one.reason),
        reportedBy: 'source',
        dnsName,
        ...(protocol === 'udp' ? { protocol: udp } : {}),
      }),
    });
  }
  return list;
}
