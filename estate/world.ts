/** The world without time: clusters, namespaces, deployments, services, nodes and machines, with their true labels. */
import {
  appLimit,
  appName,
  appserverGroupSize,
  componentLabel,
  components,
  type Environment,
  environments,
  isTeamNamed,
  machineGroups,
  namespaceName,
  platformDeployments,
  platformNamespace,
  sandboxNamespace,
  type Tier,
  tierPorts,
  tiersOf,
} from './catalogue.ts';
import type { ClusterSize, EstateSize } from './config.ts';
import type { Labels } from './ends.ts';
import { ipv4 } from './ends.ts';
import { hash32 } from './random.ts';

export interface Cluster {
  readonly index: number;
  readonly name: string;
  readonly site: string;
  readonly nodeCount: number;
  /** Index of its first node among all nodes. */
  readonly firstNode: number;
  /** Pod slots `[firstSlot, firstSlot + slotCount)`; pods on the host's network have none. */
  readonly firstSlot: number;
  readonly slotCount: number;
  readonly namespaces: Namespace[];
  readonly nodeLabels: Labels;
  readonly rawNodeLabels: Labels;
}

export interface Namespace {
  readonly cluster: Cluster;
  readonly name: string;
  readonly rawLabels: Labels;
  readonly deployments: Deployment[];
}

export interface Deployment {
  readonly index: number;
  readonly namespace: Namespace;
  readonly name: string;
  /** Index of the application, -1 for the platform and the sandbox. */
  readonly appIndex: number;
  readonly app: string;
  readonly env: Environment | '';
  readonly role: string;
  /** What its pods truly are called. */
  readonly labels: Labels;
  readonly rawLabels: Labels;
  readonly annotations: Labels;
  service: Service | null;
  firstSlot: number;
  slotCount: number;
}

export interface Service {
  readonly index: number;
  readonly deployment: Deployment;
  readonly name: string;
  readonly port: number;
  readonly targetPort: number;
  readonly protocol: 'TCP' | 'UDP';
  /** IPv4 as integers; 0 where there is none. */
  readonly clusterIp: number;
  readonly loadBalancerIp: number;
  /** Port on every node of its cluster; 0 where there is none. */
  readonly nodePort: number;
  readonly labels: Labels;
  readonly rawLabels: Labels;
}

export interface MachineGroup {
  readonly index: number;
  readonly name: string;
  readonly app: string;
  readonly role: string;
  readonly kind: 'vm' | 'host';
  readonly critical: boolean;
  readonly labels: Labels;
  readonly rawLabels: Labels;
  /** Machines `[first, first + count)`. */
  readonly first: number;
  readonly count: number;
}

export interface World {
  readonly seed: string;
  /** 16 bits that tell worlds of other seeds and sizes apart. */
  readonly tag: number;
  readonly clusters: readonly Cluster[];
  readonly deployments: readonly Deployment[];
  readonly services: readonly Service[];
  readonly groups: readonly MachineGroup[];
  readonly nodeCount: number;
  readonly slotCount: number;
  readonly machineCount: number;
  readonly deploymentOfSlot: Int32Array;
}

/** Annotation values that ask for labels, and which a profile grants; see `policy.ts`. */
export const dataClasses = ['public', 'internal', 'confidential'] as const;
export const defaultDataClass = 'internal';

/** Begin of what Kubernetes gives out; above it the ports that clients choose begin. */
const firstNodePort = 30_000;

interface Replicas {
  readonly deployment: Deployment;
  /** Part in what is left when each has its least. */
  readonly weight: number;
  readonly least: number;
}

const envWeight: Readonly<Record<string, number>> = { prod: 4, uat: 1, dev: 0.7 };
const roleWeight: Readonly<Record<string, number>> = {
  web: 1.3,
  api: 2,
  worker: 1.4,
  db: 0.5,
  cache: 0.4,
  batch: 0.3,
};

function applicationLabels(appIndex: number, env: Environment, role: Tier, site: string, spread: number) {
  const team = `team-${spread % 40}`;
  const annotations: Record<string, string> = {};
  const labels: Record<string, string> = {
    app: appName(appIndex),
    env,
    role,
    loc: site,
    'data-class': defaultDataClass,
  };
  if (spread % 4 === 0) {
    annotations['eastwest.io/team'] = team;
    labels.team = team;
  }
  if (role === 'db') {
    annotations['eastwest.io/data-class'] = 'confidential';
    labels['data-class'] = 'confidential';
  } else if (spread % 7 === 0) {
    // No profile knows this class, and none lets an annotation set the environment: both must stay without effect.
    annotations['eastwest.io/data-class'] = 'top-secret';
  }
  if (spread % 11 === 0) annotations['eastwest.io/env'] = 'prod';
  return { labels, annotations };
}

/** Shares `total` out in proportion to weights, after each has its least. */
function share(parts: readonly Replicas[], total: number): void {
  const spare = total - parts.reduce((all, part) => all + part.least, 0);
  if (spare < 0) throw new RangeError(`${total} pods are too few for ${parts.length} deployments`);
  const sum = parts.reduce((all, part) => all + part.weight, 0);
  let given = 0;
  let passed = 0;
  for (const { deployment, weight, least } of parts) {
    passed += weight;
    const until = Math.round((spare * passed) / sum);
    deployment.slotCount = least + until - given;
    given = until;
  }
}

class Builder {
  readonly clusters: Cluster[] = [];
  readonly deployments: Deployment[] = [];
  readonly services: Service[] = [];
  readonly groups: MachineGroup[] = [];
  nodeCount = 0;
  slotCount = 0;
  machineCount = 0;
  #loadBalancers = 0;

  cluster(size: ClusterSize): void {
    const slotCount = size.pods - size.nodes;
    if (size.nodes > 256 || slotCount > size.nodes * 250)
      throw new RangeError(
        `cluster ${size.name}: ${size.pods} pods do not fit ${size.nodes} nodes (250 each, 256 nodes)`,
      );
    const site = `dc-${size.name}`;
    const cluster: Cluster = {
      index: this.clusters.length,
      name: size.name,
      site,
      nodeCount: size.nodes,
      firstNode: this.nodeCount,
      firstSlot: this.slotCount,
      slotCount,
      namespaces: [],
      nodeLabels: { app: 'kubernetes', role: 'node', env: 'prod', loc: site },
      rawNodeLabels: { 'topology.kubernetes.io/region': site, 'kubernetes.io/os': 'linux' },
    };
    this.clusters.push(cluster);
    this.nodeCount += size.nodes;
    const parts: Replicas[] = [];
    const serviceBase = this.services.length;
    this.#platform(cluster, slotCount, parts, serviceBase);
    for (let i = 0; i < size.namespaces - (cluster.index === 0 ? 2 : 1); i++) {
      const env = environments[i % 3] ?? 'prod';
      this.#application(cluster, (size.firstApp + Math.floor(i / 3)) % appLimit, env, parts, serviceBase);
    }
    share(parts, slotCount);
    for (const { deployment } of parts) {
      deployment.firstSlot = this.slotCount;
      this.slotCount += deployment.slotCount;
    }
  }

  #namespace(cluster: Cluster, name: string, rawLabels: Labels): Namespace {
    const namespace: Namespace = { cluster, name, rawLabels, deployments: [] };
    cluster.namespaces.push(namespace);
    return namespace;
  }

  #deployment(of: Omit<Deployment, 'index' | 'service' | 'firstSlot' | 'slotCount'>): Deployment {
    const deployment: Deployment = {
      ...of,
      index: this.deployments.length,
      service: null,
      firstSlot: 0,
      slotCount: 0,
    };
    this.deployments.push(deployment);
    of.namespace.deployments.push(deployment);
    return deployment;
  }

  #service(
    deployment: Deployment,
    spec: Pick<Service, 'port' | 'targetPort' | 'protocol' | 'labels'> & { loadBalancer: boolean },
    base: number,
  ): void {
    const number = this.services.length - base + 10;
    const service: Service = {
      index: this.services.length,
      deployment,
      name: deployment.name,
      port: spec.port,
      targetPort: spec.targetPort,
      protocol: spec.protocol,
      clusterIp: (ipv4(10, 96, 0, 0) + number) >>> 0,
      loadBalancerIp: spec.loadBalancer ? (ipv4(10, 30, 0, 10) + this.#loadBalancers++) >>> 0 : 0,
      // The clusters count alike, so that equal ports are different services.
      nodePort: spec.loadBalancer ? firstNodePort + number : 0,
      labels: spec.labels,
      rawLabels: deployment.rawLabels,
    };
    deployment.service = service;
    this.services.push(service);
  }

  #platform(cluster: Cluster, podCount: number, parts: Replicas[], serviceBase: number): void {
    const namespace = this.#namespace(cluster, platformNamespace, { 'bank.example/site': cluster.site });
    for (const spec of platformDeployments) {
      const labels = { app: 'platform', env: 'prod', role: spec.role, loc: cluster.site };
      const deployment = this.#deployment({
        namespace,
        name: spec.name,
        appIndex: -1,
        app: 'platform',
        env: 'prod',
        role: spec.role,
        labels,
        rawLabels: { [componentLabel]: spec.role, 'app.kubernetes.io/name': spec.name },
        annotations: {},
      });
      parts.push({ deployment, weight: 0, least: Math.max(1, Math.round(podCount / spec.perPods)) });
      if (spec.service !== 0) {
        const { service: port, target: targetPort, protocol, loadBalancer } = spec;
        this.#service(deployment, { port, targetPort, protocol, labels, loadBalancer }, serviceBase);
      }
    }
    if (cluster.index !== 0) return;
    const sandbox = this.#namespace(cluster, sandboxNamespace, {});
    const deployment = this.#deployment({
      namespace: sandbox,
      name: 'notebook',
      appIndex: -1,
      app: '',
      env: '',
      role: '',
      labels: {},
      rawLabels: { 'app.kubernetes.io/name': 'notebook' },
      annotations: { 'eastwest.io/app': 'payments' },
    });
    parts.push({ deployment, weight: 1, least: 1 });
  }

  #application(
    cluster: Cluster,
    appIndex: number,
    env: Environment,
    parts: Replicas[],
    serviceBase: number,
  ): void {
    const app = appName(appIndex);
    const namespace = this.#namespace(cluster, namespaceName(appIndex, env), {
      'app.kubernetes.io/part-of': app,
      'bank.example/site': cluster.site,
    });
    // Zipf over applications: a few are most of the bank.
    const rank = 1 + (hash32(`${app}/rank`) % 200);
    for (const role of tiersOf(appIndex)) {
      const name = `${app}-${role}`;
      const spread = hash32(`${cluster.name}/${namespace.name}/${role}`);
      const { labels, annotations } = applicationLabels(appIndex, env, role, cluster.site, spread);
      const deployment = this.#deployment({
        namespace,
        name,
        appIndex,
        app,
        env,
        role,
        labels,
        rawLabels: {
          [componentLabel]: isTeamNamed(appIndex) ? role : components[role],
          'app.kubernetes.io/name': name,
        },
        annotations,
      });
      const weight = ((envWeight[env] ?? 1) * (roleWeight[role] ?? 1)) / rank ** 0.6;
      parts.push({ deployment, weight, least: 1 });
      const ports = tierPorts[role];
      if (ports === undefined) continue;
      this.#service(
        deployment,
        {
          port: ports[0],
          targetPort: ports[1],
          protocol: 'TCP',
          labels: { app, env, role, loc: cluster.site, 'data-class': defaultDataClass },
          // Replication of the databases of record leaves the cluster.
          loadBalancer: role === 'db' && env === 'prod' && appIndex < 3,
        },
        serviceBase,
      );
    }
  }

  #group(of: Omit<MachineGroup, 'index' | 'first' | 'labels' | 'rawLabels'>): void {
    const index = this.groups.length;
    const site = index % 3 === 2 ? 'dc-west' : 'dc-east';
    this.groups.push({
      ...of,
      index,
      first: this.machineCount,
      labels: {
        app: of.app,
        role: of.role,
        env: 'prod',
        loc: site,
        ...(of.critical ? { criticality: 'critical' } : {}),
      },
      rawLabels: { site, application: of.app, os: of.kind === 'vm' ? 'rhel9' : 'bare' },
    });
    this.machineCount += of.count;
  }

  machines(size: EstateSize): void {
    let vms = size.vms;
    let hosts = size.hosts;
    machineGroups.forEach((spec, position) => {
      const isVm = spec.kind === 'vm';
      const later = machineGroups.slice(position + 1).filter(({ kind }) => kind === spec.kind).length;
      // The last group of hosts takes what is left; VMs that are left become application servers.
      const wanted =
        !isVm && later === 0 ? hosts : Math.max(1, Math.round((isVm ? size.vms : size.hosts) * spec.share));
      const count = Math.min(wanted, (isVm ? vms : hosts) - later);
      if (count < 1) throw new RangeError(`too few machines of kind ${spec.kind} for the group ${spec.name}`);
      if (isVm) vms -= count;
      else hosts -= count;
      this.#group({ ...spec, count });
    });
    if (vms < 1) throw new RangeError('too few VMs for application servers');
    for (let number = 1; vms > 0; number++) {
      const count = Math.min(vms, appserverGroupSize);
      const name = `appserver-${String(number).padStart(3, '0')}`;
      this.#group({ name, app: `legacy-${number}`, role: 'appserver', kind: 'vm', critical: false, count });
      vms -= count;
    }
  }
}

/** Builds the world of a seed and size. @throws {RangeError} where the numbers cannot be met. */
export function buildWorld(seed: string, size: EstateSize): World {
  const builder = new Builder();
  for (const cluster of size.clusters) builder.cluster(cluster);
  builder.machines(size);
  const deploymentOfSlot = new Int32Array(builder.slotCount);
  for (const { index, firstSlot, slotCount } of builder.deployments)
    deploymentOfSlot.fill(index, firstSlot, firstSlot + slotCount);
  return {
    seed,
    tag: hash32(JSON.stringify([seed, size])) & 0xffff,
    clusters: builder.clusters,
    deployments: builder.deployments,
    services: builder.services,
    groups: builder.groups,
    nodeCount: builder.nodeCount,
    slotCount: builder.slotCount,
    machineCount: builder.machineCount,
    deploymentOfSlot,
  };
}
