/** The bank's policy: profiles that give labels, and the rules its teams have written. */
import type { PolicyDocument, Profile, Rule, Ruleset } from '../schemas/policy.ts';
import {
  appName,
  componentLabel,
  components,
  type Environment,
  environments,
  isTeamNamed,
  machineGroups,
  namespaceName,
  platformNamespace,
  tiersOf,
} from './catalogue.ts';
import { appCalls, traitsOf } from './graph.ts';
import { dataClasses, defaultDataClass, type World } from './world.ts';

const siteFromNamespace = { key: 'loc', from: { namespaceLabel: 'bank.example/site' } };
const settable = {
  allow: { 'data-class': [...dataClasses], team: [] },
  default: { 'data-class': defaultDataClass },
};

function profiles(world: World): Profile[] {
  const list: Profile[] = [
    {
      name: 'platform',
      match: { namespace: [platformNamespace], kind: ['pod', 'service'] },
      assign: { app: 'platform', env: 'prod' },
      map: [{ key: 'role', from: { label: componentLabel } }, siteFromNamespace],
    },
  ];
  const apps = new Set(world.deployments.filter((d) => d.appIndex >= 0).map((d) => d.appIndex));
  for (const appIndex of apps) {
    if (!isTeamNamed(appIndex)) continue;
    for (const env of environments) {
      list.push({
        name: namespaceName(appIndex, env),
        match: { namespace: [namespaceName(appIndex, env)], kind: ['pod', 'service'] },
        assign: { app: appName(appIndex), env },
        map: [{ key: 'role', from: { label: componentLabel } }, siteFromNamespace],
        ...settable,
      });
    }
  }
  const values = Object.fromEntries(Object.entries(components).map(([tier, component]) => [component, tier]));
  for (const cluster of world.clusters) {
    for (const env of environments) {
      list.push({
        name: `${cluster.name}-${env}`,
        match: { cluster: [cluster.name], namespace: [`*-${env}`], kind: ['pod', 'service'] },
        assign: { env, loc: cluster.site },
        map: [
          { key: 'app', from: { namespaceLabel: 'app.kubernetes.io/part-of' } },
          { key: 'role', from: { label: componentLabel }, values },
        ],
        ...settable,
      });
    }
  }
  list.push({
    name: 'nodes',
    match: { kind: ['node'] },
    assign: { app: 'kubernetes', role: 'node', env: 'prod' },
    map: [{ key: 'loc', from: { label: 'topology.kubernetes.io/region' } }],
  });
  for (const group of machineGroups) {
    list.push({
      name: `machines-${group.name}`,
      match: { namespace: [group.name], kind: [group.kind] },
      assign: {
        app: group.app,
        role: group.role,
        env: 'prod',
        ...(group.critical ? { criticality: 'critical' } : {}),
      },
      map: [{ key: 'loc', from: { label: 'site' } }],
    });
  }
  list.push({
    name: 'machines-appserver',
    match: { namespace: ['appserver-*'], kind: ['vm'] },
    assign: { role: 'appserver', env: 'prod' },
    map: [
      { key: 'app', from: { label: 'application' } },
      { key: 'loc', from: { label: 'site' } },
    ],
  });
  return list;
}

/** Names of the rules that traffic is expected to hit, one meaning in one place. */
export const rulesets = { platform: 'platform', datacentre: 'datacentre', boundaries: 'boundaries' } as const;

function appRuleset(appIndex: number, callers: readonly string[]): Ruleset {
  const app = appName(appIndex);
  const tiers = tiersOf(appIndex);
  const traits = traitsOf(appIndex);
  const own = (role: string | string[]) => [{ labels: { app, role } }];
  const rules: Rule[] = [];
  const clients = tiers.filter((tier) => tier === 'api' || tier === 'worker' || tier === 'batch');
  if (tiers.includes('web'))
    rules.push({ name: 'web-to-api', from: own('web'), to: own('api'), services: ['http'] });
  if (tiers.includes('worker'))
    rules.push({ name: 'jobs-to-api', from: own(['worker', 'batch']), to: own('api'), services: ['http'] });
  if (tiers.includes('db'))
    rules.push({ name: 'to-database', from: own(clients), to: own('db'), services: ['postgres'] });
  if (tiers.includes('cache'))
    rules.push({ name: 'to-cache', from: own(['api', 'worker']), to: own('cache'), services: ['redis'] });
  if (traits.webReadsDatabase)
    rules.push({
      name: 'web-reads-database',
      from: own('web'),
      to: own('db'),
      services: ['postgres'],
      ticket: 'ARC-1180',
      description: 'Agreed exception to the rule that web tiers stay away from databases.',
    });
  if (callers.length > 0)
    rules.push({
      name: 'callers',
      from: [{ labels: { app: [...callers], role: 'api' } }],
      to: own('api'),
      services: ['http'],
    });
  const outward = (
    name: string,
    used: boolean,
    role: string | string[],
    to: Rule['to'],
    service: string,
  ): void => {
    if (used) rules.push({ name, from: own(role), to, services: [service] });
  };
  outward('to-oracle', traits.oracle, ['api', 'worker'], [{ labels: { app: 'oracle' } }], 'oracle');
  outward('to-mq', traits.mq, ['api', 'worker'], [{ labels: { app: 'ibm-mq' } }], 'mq');
  outward('to-mainframe', traits.mainframe, ['api', 'worker'], [{ labels: { app: 'mainframe' } }], 'drda');
  outward('to-hadoop', traits.hadoop, ['worker', 'batch'], [{ labels: { app: 'hadoop' } }], 'hadoop');
  outward('to-saas', traits.saas, 'api', [{ ipList: 'saas' }], 'https');
  outward('to-storage', traits.storage, ['worker', 'batch'], [{ labels: { app: 'cloud-storage' } }], 'https');
  outward('to-partner', traits.partner, 'api', [{ labels: { app: 'partner-acme' } }], 'https');
  outward('to-proxy', traits.proxy, ['api', 'worker'], [{ labels: { app: 'proxy' } }], 'proxy');
  return { name: app, scope: [{ app }], owner: `${app}@bank.example`, rules };
}

const any = [{ any: true as const }];
const applicationRoles = ['web', 'api', 'worker', 'db', 'cache', 'batch'];

function platformRuleset(): Ruleset {
  const platform = (role: string) => [{ labels: { app: 'platform', role } }];
  const node = [{ labels: { kind: 'node' } }];
  return {
    name: rulesets.platform,
    scope: [{ app: 'platform' }, { app: 'kubernetes' }],
    owner: 'platform@bank.example',
    rules: [
      { name: 'cluster-dns', from: any, to: platform('dns'), services: ['dns'] },
      { name: 'edge', from: any, to: platform('ingress'), services: ['edge'] },
      {
        name: 'edge-to-web',
        from: platform('ingress'),
        to: [{ labels: { role: 'web' } }],
        services: ['http'],
      },
      {
        name: 'scrape',
        from: platform('monitoring'),
        to: [{ labels: { role: applicationRoles } }],
        services: ['metrics'],
      },
      { name: 'scrape-nodes', from: platform('monitoring'), to: node, services: ['node-metrics'] },
      {
        name: 'ping-machines',
        from: platform('monitoring'),
        to: [{ labels: { kind: ['vm', 'host'] } }],
        services: [{ protocol: 'icmp' }],
      },
      { name: 'probes', from: node, to: [{ labels: { role: ['web', 'api'] } }], services: ['http'] },
      {
        name: 'masqueraded',
        from: node,
        to: [{ labels: { app: ['oracle', 'ibm-mq', 'hadoop'] } }],
        description: 'Machines see the node where a pod called.',
      },
    ],
  };
}

function datacentreRuleset(): Ruleset {
  const machines = (app: string) => [{ labels: { app } }];
  const appservers = [{ labels: { role: 'appserver' } }];
  return {
    name: rulesets.datacentre,
    scope: [{ kind: ['vm', 'host'] }],
    owner: 'datacentre@bank.example',
    rules: [
      { name: 'directory', from: any, to: machines('active-directory'), services: ['directory'] },
      { name: 'resolvers', from: any, to: machines('dns'), services: ['dns'] },
      { name: 'appserver-oracle', from: appservers, to: machines('oracle'), services: ['oracle'] },
      { name: 'appserver-mq', from: appservers, to: machines('ibm-mq'), services: ['mq'] },
      { name: 'appserver-mainframe', from: appservers, to: machines('mainframe'), services: ['drda'] },
      {
        name: 'backup',
        from: machines('backup'),
        to: [{ labels: { role: ['oracle', 'queue', 'files', 'appserver'] } }],
        services: ['backup'],
      },
      { name: 'hadoop-internal', from: machines('hadoop'), to: machines('hadoop'), services: ['hadoop'] },
      {
        name: 'proxy-out',
        from: machines('proxy'),
        to: [{ ipList: 'anywhere-public' }],
        services: ['https'],
      },
      {
        name: 'branch-to-appserver',
        from: [{ cidr: '10.64.0.0/12' }],
        to: appservers,
        services: [{ port: 9080 }],
      },
      {
        name: 'appserver-files',
        from: appservers,
        to: machines('files'),
        services: ['nfs'],
        expires: '2024-03-31',
        ticket: 'NET-2071',
        description: 'Until the migration; nobody renewed it.',
      },
      { name: 'appserver-files-all', from: appservers, to: machines('files'), enabled: false },
      { name: 'retired-ftp', from: any, to: machines('ftp'), services: [{ port: 21 }], ticket: 'NET-0311' },
    ],
  };
}

function boundariesRuleset(): Ruleset {
  return {
    name: rulesets.boundaries,
    scope: [{ env: [...environments] }],
    owner: 'security@bank.example',
    rules: [
      {
        name: 'dev-to-prod-data',
        from: [{ labels: { env: 'dev' } }],
        to: [{ labels: { env: 'prod', role: ['db', 'cache'] } }],
        action: 'override-deny',
      },
      {
        name: 'web-to-database',
        from: [{ labels: { role: 'web' } }],
        to: [{ labels: { role: 'db' } }],
        action: 'deny',
      },
    ],
  };
}

const tcp = (...ports: (number | string)[]) => ports.map((port) => ({ port, protocol: 'tcp' as const }));
const tcpAndUdp = (port: number) => [
  { port, protocol: 'tcp' as const },
  { port, protocol: 'udp' as const },
];

/** The policy as it is published: version 1, by `estate`. */
export function makePolicy(world: World, appliedMs: number): PolicyDocument {
  const apps = [...new Set(world.deployments.map((d) => d.appIndex))]
    .filter((i) => i >= 0)
    .sort((a, b) => a - b);
  const callers = new Map<number, string[]>();
  for (const call of appCalls(world)) {
    if (call.cover === 'gap') continue;
    const names = callers.get(call.callee) ?? [];
    names.push(appName(call.caller));
    callers.set(call.callee, names);
  }
  const envs: readonly Environment[] = environments;
  return {
    v: 1,
    version: 1,
    author: 'estate',
    appliedMs,
    labels: [
      { key: 'role' },
      { key: 'app' },
      { key: 'env', values: [...envs] },
      { key: 'loc' },
      { key: 'criticality', values: ['critical'] },
      { key: 'data-class', values: [...dataClasses] },
      { key: 'team' },
      { key: 'zone' },
    ],
    profiles: profiles(world),
    ipLists: [
      { name: 'saas', cidrs: ['151.101.0.0/16', '104.16.0.0/13'], description: 'Providers under contract.' },
      {
        name: 'anywhere-public',
        cidrs: ['0.0.0.0/0', '2000::/3', '!10.0.0.0/8', '!172.16.0.0/12', '!192.168.0.0/16'],
      },
    ],
    services: [
      { name: 'http', ports: tcp(80, 8080) },
      { name: 'https', ports: tcp(443) },
      { name: 'edge', ports: tcp(443, 8443) },
      { name: 'postgres', ports: tcp(5432) },
      { name: 'redis', ports: tcp(6379) },
      { name: 'dns', ports: tcpAndUdp(53) },
      { name: 'metrics', ports: tcp(9102) },
      { name: 'node-metrics', ports: tcp(9100, 10250) },
      { name: 'oracle', ports: tcp(1521) },
      { name: 'mq', ports: tcp('1414-1416') },
      { name: 'drda', ports: tcp(446) },
      { name: 'hadoop', ports: tcp(8020, 9866) },
      { name: 'proxy', ports: tcp(3128) },
      { name: 'nfs', ports: tcp(2049) },
      { name: 'backup', ports: tcp(10102) },
      { name: 'directory', ports: [...tcpAndUdp(88), ...tcp(389, 636)] },
    ],
    rulesets: [
      boundariesRuleset(),
      platformRuleset(),
      datacentreRuleset(),
      ...apps.map((app) => appRuleset(app, callers.get(app) ?? [])),
    ],
  };
}
