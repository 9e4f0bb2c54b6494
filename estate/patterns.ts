/** Who talks to whom: every communication of the bank as a pattern with a weight and the verdict it is meant to get. */
import type { Reason, Verdict } from '../schemas/closed-lists.ts';
import { appName, machineGroups } from './catalogue.ts';
import type { Directory } from './directory.ts';
import type { Endpoint } from './ends.ts';
import { appCalls, traitsOf } from './graph.ts';
import { rulesets } from './policy.ts';
import { hash32 } from './random.ts';
import { type Request, scaleRoutine } from './routine.ts';
import type { Cluster, Deployment, MachineGroup, Service, World } from './world.ts';

/** What the policy is meant to say; `ruleset` and `rule` are empty where no rule speaks. */
export interface Outcome {
  readonly verdict: Verdict;
  readonly reason: Reason;
  readonly ruleset: string;
  readonly rule: string;
}

export const allowedBy = (ruleset: string, rule: string): Outcome => ({
  verdict: 'allowed',
  reason: 'rule',
  ruleset,
  rule,
});
const deniedBy = (rule: string): Outcome => ({
  verdict: 'denied',
  reason: 'rule',
  ruleset: rulesets.boundaries,
  rule,
});
export const unexplained = (reason: Reason): Outcome => ({
  verdict: 'unexplained',
  reason,
  ruleset: '',
  rule: '',
});

/** Those who may be at an end; one of them is drawn for each connection. */
export type Party =
  | { readonly type: 'pods'; readonly deployment: Deployment }
  | { readonly type: 'machines'; readonly group: MachineGroup; readonly ipv6?: boolean }
  | { readonly type: 'nodes'; readonly cluster: Cluster }
  | { readonly type: 'fixed'; readonly endpoints: readonly Endpoint[] };

/** How much and how long: keys of {@link shapes}. */
export type ShapeName = 'http' | 'database' | 'lookup' | 'bulk' | 'probe' | 'stream';

export interface Shape {
  readonly durationMedianMs: number;
  readonly durationSigma: number;
  /** Share of connections that stay open, and for how long. */
  readonly longShare: number;
  readonly longMedianMs: number;
  readonly forwardMedian: number;
  readonly reverseMedian: number;
  readonly bytesSigma: number;
  /**
   * How many different requests each pattern repeats, byte for byte: a health check is always the same, and a program looks
   * up the same few names. 0 where every connection has a size of its own.
   */
  readonly requestCount: number;
}

export const shapes: Readonly<Record<ShapeName, Shape>> = {
  http: {
    durationMedianMs: 90,
    durationSigma: 1.3,
    longShare: 0.02,
    longMedianMs: 45_000,
    forwardMedian: 1400,
    reverseMedian: 7000,
    bytesSigma: 1.4,
    requestCount: 0,
  },
  database: {
    durationMedianMs: 900,
    durationSigma: 1.5,
    longShare: 0.1,
    longMedianMs: 90_000,
    forwardMedian: 5200,
    reverseMedian: 30_000,
    bytesSigma: 1.7,
    requestCount: 0,
  },
  lookup: {
    durationMedianMs: 4,
    durationSigma: 0.9,
    longShare: 0,
    longMedianMs: 0,
    forwardMedian: 74,
    reverseMedian: 190,
    bytesSigma: 0.4,
    requestCount: 8,
  },
  bulk: {
    durationMedianMs: 6000,
    durationSigma: 1.1,
    longShare: 0.15,
    longMedianMs: 60_000,
    forwardMedian: 4_000_000,
    reverseMedian: 90_000,
    bytesSigma: 2,
    requestCount: 0,
  },
  probe: {
    durationMedianMs: 3,
    durationSigma: 0.7,
    longShare: 0,
    longMedianMs: 0,
    forwardMedian: 420,
    reverseMedian: 510,
    bytesSigma: 0.2,
    requestCount: 1,
  },
  stream: {
    durationMedianMs: 20_000,
    durationSigma: 0.8,
    longShare: 0.3,
    longMedianMs: 120_000,
    forwardMedian: 40_000,
    reverseMedian: 60_000,
    bytesSigma: 1.5,
    requestCount: 0,
  },
};

export interface Pattern {
  readonly source: Party;
  readonly destination: Party;
  readonly protocol: number;
  /** Port at the destination itself. */
  readonly port: number;
  /** The service in front of the destination, with the port called there; 0 and null where called directly. */
  readonly front: Endpoint | null;
  readonly frontPort: number;
  /** `cluster`: the source's node translates. `load-balancer`: the destination's node does. */
  readonly frontAt: 'cluster' | 'load-balancer' | 'none';
  /** Share of connections, in any unit. */
  weight: number;
  readonly shape: ShapeName;
  readonly outcome: Outcome;
  /** Verdict of the destination's report where it sees the node instead of the pod; null where nobody reports so. */
  readonly masqueraded: Outcome | null;
  /** The node whose address the destination sees as source, where it is not the one that the calling pod is on. */
  readonly entryNode: Endpoint | null;
  readonly reportedBy: 'either' | 'source' | 'destination';
  readonly dropped: boolean;
  readonly dnsName: string;
  /** What it repeats; empty where every connection has a size of its own. */
  requests: readonly Request[];
}

type Optional =
  | 'front'
  | 'frontPort'
  | 'frontAt'
  | 'masqueraded'
  | 'entryNode'
  | 'reportedBy'
  | 'dropped'
  | 'dnsName'
  | 'protocol'
  | 'shape'
  | 'requests';

export const tcp = 6;
export const udp = 17;
export const icmp = 1;

/** Fills in what most patterns share: TCP, called directly, forwarded, reported by whoever sees it. */
export function pattern(of: Omit<Pattern, Optional> & Partial<Pick<Pattern, Optional>>): Pattern {
  return {
    protocol: tcp,
    shape: 'http',
    front: null,
    frontPort: 0,
    frontAt: 'none',
    masqueraded: null,
    entryNode: null,
    reportedBy: 'either',
    dropped: false,
    dnsName: '',
    requests: [],
    ...of,
  };
}

const masqueraded = allowedBy(rulesets.platform, 'masqueraded');

interface Pools {
  readonly saas: readonly { readonly name: string; readonly endpoints: readonly Endpoint[] }[];
  readonly saas6: readonly Endpoint[];
  readonly storage: readonly Endpoint[];
  readonly partner: readonly Endpoint[];
  readonly branches: readonly Endpoint[];
  readonly customers: readonly Endpoint[];
  readonly strangers: readonly Endpoint[];
  readonly forgottenShares: readonly Endpoint[];
  readonly unregistered: readonly Endpoint[];
}

function makePools(directory: Directory): Pools {
  const some = (count: number, range: string, text: (i: number) => string): Endpoint[] =>
    Array.from({ length: count }, (_, i) => directory.outside(text(i), range));
  return {
    saas: Array.from({ length: 60 }, (_, i) => ({
      name: `api.provider-${i + 1}.example`,
      endpoints: some(3, 'internet', (k) =>
        i % 2 === 0 ? `151.101.${i}.${10 + k}` : `104.18.${i}.${10 + k}`,
      ),
    })),
    saas6: some(24, 'internet', (i) => `2606:4700::${(0x1000 + i * 7).toString(16)}`),
    storage: some(48, 'cloud-storage', (i) => `52.216.${i}.${20 + i}`),
    partner: some(6, 'partner-acme', (i) => `198.51.100.${40 + i}`),
    branches: [
      ...some(120, 'branch-zurich', (i) => `10.64.1.${10 + i}`),
      ...some(600, 'branch-offices', (i) => `10.${65 + (i % 8)}.${i % 200}.${10 + (i % 90)}`),
    ],
    customers: some(2000, 'internet', (i) => {
      const draw = hash32(`customer/${i}`);
      return `${80 + (draw % 12)}.${(draw >>> 8) & 255}.${(draw >>> 16) & 255}.${1 + (i % 254)}`;
    }),
    strangers: some(20, '', (i) => `172.29.4.${10 + i}`),
    forgottenShares: some(6, '', (i) => `172.28.7.${10 + i}`),
    unregistered: some(12, 'data-centre', (i) => `10.31.7.${10 + i}`),
  };
}

class PatternBuilder {
  readonly list: Pattern[] = [];
  readonly #world: World;
  readonly #directory: Directory;
  readonly #pools: Pools;
  readonly #groups: ReadonlyMap<string, MachineGroup>;

  constructor(world: World, directory: Directory) {
    this.#world = world;
    this.#directory = directory;
    this.#pools = makePools(directory);
    this.#groups = new Map(world.groups.map((group) => [group.name, group]));
  }

  #machines(name: string): Party {
    const group = this.#groups.get(name);
    if (group === undefined) throw new RangeError(`no group ${name}`);
    return { type: 'machines', group };
  }

  #add(of: Parameters<typeof pattern>[0]): void {
    this.list.push(pattern(of));
  }

  /** A call of a service from within its cluster. */
  #call(
    source: Party,
    service: Service,
    weight: number,
    outcome: Outcome,
    more: Partial<Pattern> = {},
  ): void {
    this.#add({
      source,
      destination: { type: 'pods', deployment: service.deployment },
      port: service.targetPort,
      front: this.#directory.service(service, 'cluster'),
      frontPort: service.port,
      frontAt: 'cluster',
      weight,
      outcome,
      ...more,
    });
  }

  build(): Pattern[] {
    for (const cluster of this.#world.clusters) this.#cluster(cluster);
    this.#calls();
    this.#machinesAmongThemselves();
    return this.list;
  }

  #cluster(cluster: Cluster): void {
    const platform = cluster.namespaces[0]?.deployments ?? [];
    const find = (role: string): Deployment => {
      const found = platform.find((deployment) => deployment.role === role);
      if (found === undefined) throw new RangeError(`cluster ${cluster.name} has no ${role}`);
      return found;
    };
    const [dns, monitoring, ingress] = [find('dns'), find('monitoring'), find('ingress')];
    let total = 0;
    for (const namespace of cluster.namespaces) {
      for (const deployment of namespace.deployments) {
        const weight = deploymentWeight(deployment);
        total += weight;
        const pods: Party = { type: 'pods', deployment };
        if (dns.service !== null && deployment !== dns)
          this.#call(pods, dns.service, weight * 0.18, allowedBy(rulesets.platform, 'cluster-dns'), {
            protocol: udp,
            shape: 'lookup',
          });
        if (deployment.appIndex < 0) continue;
        this.#application(deployment, weight, namespace.deployments);
        this.#platformCalls(cluster, deployment, weight, monitoring, ingress);
      }
    }
    this.#edge(ingress, total);
    this.#nodes(cluster, monitoring, dns, total);
    this.#sandbox(cluster);
  }

  #sandbox(cluster: Cluster): void {
    const notebook = cluster.namespaces.flatMap((n) => n.deployments).find((d) => d.name === 'notebook');
    if (notebook === undefined) return;
    const source: Party = { type: 'pods', deployment: notebook };
    const provider = this.#pools.saas[7];
    if (provider === undefined) return;
    this.#add({
      source,
      destination: { type: 'fixed', endpoints: provider.endpoints },
      port: 443,
      weight: 10,
      outcome: unexplained('outside-scope'),
      dnsName: provider.name,
    });
  }

  #platformCalls(
    cluster: Cluster,
    deployment: Deployment,
    weight: number,
    monitoring: Deployment,
    ingress: Deployment,
  ): void {
    const pods: Party = { type: 'pods', deployment };
    this.#add({
      source: { type: 'pods', deployment: monitoring },
      destination: pods,
      port: 9102,
      weight: weight * 0.03,
      shape: 'probe',
      outcome: allowedBy(rulesets.platform, 'scrape'),
    });
    if (deployment.role === 'web' && deployment.service !== null)
      this.#call(
        { type: 'pods', deployment: ingress },
        deployment.service,
        weight * 0.9,
        allowedBy(rulesets.platform, 'edge-to-web'),
      );
    if (deployment.role === 'web' || deployment.role === 'api')
      this.#add({
        source: { type: 'nodes', cluster },
        destination: pods,
        port: 8080,
        weight: weight * 0.02,
        shape: 'probe',
        outcome: allowedBy(rulesets.platform, 'probes'),
        reportedBy: 'source',
      });
  }

  /** Traffic of one deployment inside its own application, and to what the application uses outside. */
  #application(deployment: Deployment, weight: number, siblings: readonly Deployment[]): void {
    const { app, role, appIndex } = deployment;
    const traits = traitsOf(appIndex);
    const source: Party = { type: 'pods', deployment };
    const own = (rule: string): Outcome => allowedBy(app, rule);
    const service = (wanted: string): Service | null =>
      siblings.find((sibling) => sibling.role === wanted)?.service ?? null;
    const [api, db, cache] = [service('api'), service('db'), service('cache')];
    const isJob = role === 'worker' || role === 'batch';
    if (role === 'web' && api !== null) this.#call(source, api, weight, own('web-to-api'));
    if (isJob && api !== null) this.#call(source, api, weight * 0.3, own('jobs-to-api'));
    if ((role === 'api' || isJob) && db !== null)
      this.#call(source, db, weight * 0.7, own('to-database'), { shape: 'database' });
    if ((role === 'api' || role === 'worker') && cache !== null)
      this.#call(source, cache, weight * 0.6, own('to-cache'), { shape: 'database' });
    if (role === 'web' && db !== null) {
      if (traits.webReadsDatabase)
        this.#call(source, db, weight * 0.2, own('web-reads-database'), { shape: 'database' });
      else
        this.#call(source, db, weight * 0.004, deniedBy('web-to-database'), {
          shape: 'database',
          dropped: true,
        });
    }
    if (isJob && deployment.env === 'dev') this.#reachIntoProduction(deployment, source, weight);
    this.#outward(deployment, source, weight);
  }

  #reachIntoProduction(deployment: Deployment, source: Party, weight: number): void {
    const { app, namespace } = deployment;
    const production = namespace.cluster.namespaces
      .flatMap((other) => other.deployments)
      .find((other) => other.app === app && other.env === 'prod' && other.role === 'db');
    if (production?.service == null) return;
    this.#call(source, production.service, weight * 0.02, deniedBy('dev-to-prod-data'), {
      shape: 'database',
      dropped: true,
    });
  }

  #outward(deployment: Deployment, source: Party, weight: number): void {
    const { app, role, appIndex } = deployment;
    const traits = traitsOf(appIndex);
    const own = (rule: string): Outcome => allowedBy(app, rule);
    const pools = this.#pools;
    if (role === 'api' || role === 'worker') {
      const machine = (
        used: boolean,
        group: string,
        port: number,
        rule: string,
        seenFromThere: boolean,
      ): void => {
        if (!used) return;
        this.#add({
          source,
          destination: this.#machines(group),
          port,
          weight: weight * 0.25,
          shape: 'database',
          outcome: own(rule),
          masqueraded: seenFromThere ? masqueraded : null,
          reportedBy: seenFromThere ? 'either' : 'source',
        });
      };
      machine(traits.oracle, 'oracle', 1521, 'to-oracle', true);
      machine(traits.mq, 'mq', 1414, 'to-mq', true);
      machine(traits.mainframe, 'mainframe', 446, 'to-mainframe', false);
      machine(traits.proxy, 'proxy', 3128, 'to-proxy', false);
    }
    const outside = (
      endpoints: readonly Endpoint[],
      port: number,
      share: number,
      outcome: Outcome,
      more: Partial<Pattern> = {},
    ): void =>
      this.#add({
        source,
        destination: { type: 'fixed', endpoints },
        port,
        weight: weight * share,
        outcome,
        ...more,
      });
    if (role === 'api' && traits.saas) {
      const provider = pools.saas[hash32(app) % pools.saas.length];
      if (provider !== undefined) {
        outside(provider.endpoints, 443, 0.2, own('to-saas'), { dnsName: provider.name });
        if (appIndex % 3 === 0)
          outside(provider.endpoints, 8443, 0.03, unexplained('port-not-covered'), {
            dnsName: provider.name,
          });
      }
    }
    if (role === 'api' && traits.partner)
      outside(pools.partner, 443, 0.3, own('to-partner'), { dnsName: 'gateway.acme.example' });
    if (role !== 'worker' && role !== 'batch') return;
    if (traits.hadoop)
      this.#add({
        source,
        destination: this.#machines('hadoop'),
        port: 8020,
        weight: weight * 0.4,
        shape: 'bulk',
        outcome: own('to-hadoop'),
        reportedBy: 'source',
      });
    if (traits.storage)
      outside(pools.storage, 443, 0.4, own('to-storage'), {
        shape: 'bulk',
        dnsName: `${app}.storage.example`,
      });
    if (role === 'batch' && appIndex % 6 === 0)
      outside(pools.forgottenShares, 445, 0.2, unexplained('unknown-destination'), { shape: 'bulk' });
  }

  /** Calls between applications, in the environments and clusters that both are in. */
  #calls(): void {
    const apis = new Map<string, Deployment[]>();
    for (const deployment of this.#world.deployments) {
      if (deployment.role !== 'api') continue;
      const list = apis.get(deployment.app) ?? [];
      list.push(deployment);
      apis.set(deployment.app, list);
    }
    for (const { caller, callee, cover } of appCalls(this.#world)) {
      for (const from of apis.get(appName(caller)) ?? []) {
        const to = (apis.get(appName(callee)) ?? []).find(
          (api) => api.env === from.env && api.namespace.cluster === from.namespace.cluster,
        );
        if (to?.service == null) continue;
        const source: Party = { type: 'pods', deployment: from };
        const weight = deploymentWeight(from) * 0.5;
        const outcome = cover === 'gap' ? unexplained('no-rule') : allowedBy(to.app, 'callers');
        this.#call(source, to.service, weight, outcome);
        if (cover === 'port')
          this.#add({
            source,
            destination: { type: 'pods', deployment: to },
            port: 9443,
            weight: weight * 0.2,
            outcome: unexplained('port-not-covered'),
          });
      }
    }
  }

  /** What comes in from branches, customers and application servers. */
  #edge(ingress: Deployment, total: number): void {
    if (ingress.service === null) return;
    const outcome = allowedBy(rulesets.platform, 'edge');
    const through = {
      destination: { type: 'pods', deployment: ingress } as const,
      port: ingress.service.targetPort,
      front: this.#directory.service(ingress.service, 'load-balancer'),
      frontPort: ingress.service.port,
      frontAt: 'load-balancer' as const,
      outcome,
    };
    const { branches, customers } = this.#pools;
    this.#add({
      source: { type: 'fixed', endpoints: branches },
      weight: total * 0.03,
      reportedBy: 'destination',
      ...through,
    });
    this.#add({
      source: { type: 'fixed', endpoints: customers },
      weight: total * 0.06,
      reportedBy: 'destination',
      ...through,
    });
    for (const group of this.#world.groups.slice(machineGroups.length, machineGroups.length + 8))
      this.#add({
        source: { type: 'machines', group },
        weight: total * 0.002,
        reportedBy: 'either',
        ...through,
      });
  }

  /** Nodes and the pods on their network, which share their addresses. */
  #nodes(cluster: Cluster, monitoring: Deployment, dns: Deployment, total: number): void {
    const nodes: Party = { type: 'nodes', cluster };
    const source: Party = { type: 'pods', deployment: monitoring };
    for (const port of [9100, 10250])
      this.#add({
        source,
        destination: nodes,
        port,
        weight: total * 0.003,
        shape: 'probe',
        outcome: allowedBy(rulesets.platform, 'scrape-nodes'),
        reportedBy: 'source',
      });
    this.#add({
      source,
      destination: this.#machines('oracle'),
      port: 0,
      protocol: icmp,
      weight: total * 0.0005,
      shape: 'probe',
      outcome: allowedBy(rulesets.platform, 'ping-machines'),
      reportedBy: 'source',
    });
    // A collector on the host's network ships to the cluster of record; its flows are the node's.
    this.#add({
      source: nodes,
      destination: this.#machines('hadoop'),
      port: 9866,
      weight: total * 0.01,
      shape: 'stream',
      outcome: masqueraded,
    });
    this.#add({
      source: { type: 'pods', deployment: dns },
      destination: this.#machines('resolvers'),
      port: 53,
      protocol: udp,
      weight: total * 0.03,
      shape: 'lookup',
      outcome: allowedBy(rulesets.datacentre, 'resolvers'),
      reportedBy: 'source',
    });
  }

  #machinesAmongThemselves(): void {
    const podTotal = this.list.reduce(
      (sum, one) => sum + (one.outcome.verdict === 'allowed' ? one.weight : 0),
      0,
    );
    const total = podTotal * 0.12;
    const pools = this.#pools;
    const appservers = this.#world.groups.slice(machineGroups.length);
    const ruled = (
      source: Party,
      to: string,
      port: number,
      weight: number,
      rule: string,
      shape: ShapeName,
    ): void =>
      this.#add({
        source,
        destination: this.#machines(to),
        port,
        weight,
        shape,
        outcome: allowedBy(rulesets.datacentre, rule),
      });
    appservers.forEach((group, position) => {
      const source: Party = { type: 'machines', group };
      const weight = (total * 0.8) / (position + 1) ** 0.8 / harmonic(appservers.length, 0.8);
      ruled(source, 'oracle', 1521, weight * 0.5, 'appserver-oracle', 'database');
      ruled(source, 'mq', 1415, weight * 0.15, 'appserver-mq', 'stream');
      if (position % 4 === 0)
        ruled(source, 'mainframe', 446, weight * 0.1, 'appserver-mainframe', 'database');
      ruled(source, 'directory', 389, weight * 0.1, 'directory', 'http');
      this.#add({
        source,
        destination: this.#machines('resolvers'),
        port: 53,
        protocol: udp,
        weight: weight * 0.15,
        shape: 'lookup',
        outcome: allowedBy(rulesets.datacentre, 'resolvers'),
      });
      this.#add({
        source,
        destination: this.#machines('files'),
        port: 2049,
        weight: weight * 0.05,
        shape: 'bulk',
        outcome: unexplained('no-rule'),
      });
      this.#appserverOddities(position, group, weight);
    });
    ruled(this.#machines('backup'), 'oracle', 10102, total * 0.02, 'backup', 'bulk');
    ruled(this.#machines('hadoop'), 'hadoop', 9866, total * 0.1, 'hadoop-internal', 'bulk');
    this.#proxies(total, pools);
  }

  #appserverOddities(position: number, group: MachineGroup, weight: number): void {
    const pools = this.#pools;
    const here: Party = { type: 'machines', group };
    const from = (endpoints: readonly Endpoint[], port: number, share: number, outcome: Outcome): void =>
      this.#add({
        source: { type: 'fixed', endpoints },
        destination: here,
        port,
        weight: weight * share,
        outcome,
        reportedBy: 'destination',
      });
    from(pools.branches, 9080, 0.1, allowedBy(rulesets.datacentre, 'branch-to-appserver'));
    if (position % 5 === 0) from(pools.strangers, 9080, 0.04, unexplained('unknown-source'));
    if (position % 3 === 0)
      this.#add({
        source: here,
        destination: { type: 'fixed', endpoints: pools.unregistered },
        port: 8443,
        weight: weight * 0.04,
        outcome: unexplained('no-rule'),
      });
  }

  #proxies(total: number, pools: Pools): void {
    const group = this.#groups.get('proxy');
    if (group === undefined) return;
    const outcome = allowedBy(rulesets.datacentre, 'proxy-out');
    for (const provider of pools.saas.slice(0, 20))
      this.#add({
        source: { type: 'machines', group },
        destination: { type: 'fixed', endpoints: provider.endpoints },
        port: 443,
        weight: total * 0.003,
        outcome,
        dnsName: provider.name,
      });
    this.#add({
      source: { type: 'machines', group, ipv6: true },
      destination: { type: 'fixed', endpoints: pools.saas6 },
      port: 443,
      weight: total * 0.02,
      outcome,
      dnsName: 'cdn.provider-61.example',
    });
  }
}

function harmonic(count: number, exponent: number): number {
  let sum = 0;
  for (let i = 1; i <= count; i++) sum += i ** -exponent;
  return sum;
}

/** How busy a deployment is: Zipf over deployments, production first, roughly as its replicas. */
export function deploymentWeight(deployment: Deployment): number {
  const rank =
    1 +
    (hash32(`${deployment.namespace.cluster.name}/${deployment.namespace.name}/${deployment.name}/busy`) %
      5000);
  const env = deployment.env === 'prod' ? 1 : 0.25;
  return (env * deployment.slotCount ** 0.7) / rank ** 0.6;
}

/** Shares of the unexplained traffic by reason. */
const unexplainedParts: Readonly<Partial<Record<Reason, number>>> = {
  'no-rule': 0.6,
  'port-not-covered': 0.2,
  'outside-scope': 0.08,
  'unknown-source': 0.06,
  'unknown-destination': 0.06,
};

/** Share of connections that a rule forbids. */
const deniedShare = 0.012;

/**
 * Every pattern but the planted. Weights are scaled so that of all connections `unexplainedShare` are unexplained by
 * design, in fixed parts by reason, and a few are denied.
 */
export function makePatterns(world: World, directory: Directory, unexplainedShare: number): Pattern[] {
  const list = new PatternBuilder(world, directory).build();
  scaleRoutine(list);
  const kindOf = ({ outcome }: Pattern): string =>
    outcome.verdict === 'unexplained' ? outcome.reason : outcome.verdict;
  const sums = new Map<string, number>();
  for (const one of list) sums.set(kindOf(one), (sums.get(kindOf(one)) ?? 0) + one.weight);
  const shares = new Map<string, number>([
    ['denied', deniedShare],
    ...Object.entries(unexplainedParts).map(([reason, part]): [string, number] => [
      reason,
      part * unexplainedShare,
    ]),
  ]);
  const wanted = [...sums.keys()].reduce((sum, kind) => sum + (shares.get(kind) ?? 0), 0);
  const total = (sums.get('allowed') ?? 0) / (1 - wanted);
  for (const one of list) {
    const share = shares.get(kindOf(one));
    if (share !== undefined) one.weight *= (total * share) / (sums.get(kindOf(one)) ?? 1);
  }
  return list;
}
