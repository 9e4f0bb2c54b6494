/** The world as inventory events, in the order in which a reader can use them at once. */
import type {
  ClusterEvent,
  InventoryEvent,
  NameEvent,
  NamespaceEvent,
  RangeEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../schemas/inventory-event.ts';
import { defaultNetwork } from '../schemas/inventory-event.ts';
import { nodeName } from './agents.ts';
import {
  componentLabel,
  headless,
  listedNames,
  platformNamespace,
  podCidr,
  ranges,
  serviceCidr,
} from './catalogue.ts';
import { bornMs } from './config.ts';
import {
  machineAddress,
  machineAddress6,
  machineName,
  machineUid,
  nodeAddress,
  nodeUid,
  serviceUid,
} from './directory.ts';
import { ipv4Text } from './ends.ts';
import { decommissioned } from './planted.ts';
import type { Pod, Pods } from './pods.ts';
import { mix32 } from './random.ts';
import { formerLabels, type Relabels, rawNamespaceLabels, rawPodLabels } from './relabel.ts';
import { makeUid } from './uids.ts';
import type { Cluster, MachineGroup, Namespace, Service, World } from './world.ts';

/** Begin of what is there from the beginning and never changes, ms. */
const lastingSinceMs = bornMs - 400 * 86_400_000;

function clusterEvent(cluster: Cluster): ClusterEvent {
  return { v: 1, type: 'cluster', cluster: cluster.name, podCidrs: [podCidr], serviceCidrs: [serviceCidr] };
}

function serviceEvent(world: World, service: Service): ServiceEvent {
  const { namespace } = service.deployment;
  const cluster = namespace.cluster.name;
  const addresses = [{ ip: ipv4Text(service.clusterIp), network: cluster, sinceMs: lastingSinceMs }];
  if (service.loadBalancerIp !== 0)
    addresses.push({
      ip: ipv4Text(service.loadBalancerIp),
      network: defaultNetwork,
      sinceMs: lastingSinceMs,
    });
  return {
    v: 1,
    type: 'service',
    cluster,
    uid: serviceUid(world, service),
    name: service.name,
    namespace: namespace.name,
    labels: { ...service.rawLabels },
    annotations: {},
    selector: { 'app.kubernetes.io/name': service.deployment.name },
    addresses,
    ports: [
      {
        port: service.port,
        protocol: service.protocol,
        name: 'main',
        ...(service.nodePort === 0 ? {} : { nodePort: service.nodePort }),
      },
    ],
    sinceMs: lastingSinceMs,
  };
}

/** The one service without addresses: whoever asks for its name gets those of the pods. */
function headlessServiceEvent(world: World, cluster: Cluster): ServiceEvent {
  const { name, role } = headless;
  return {
    v: 1,
    type: 'service',
    cluster: cluster.name,
    uid: makeUid('service', world.tag, 1, cluster.index),
    name,
    namespace: platformNamespace,
    labels: { [componentLabel]: role, 'app.kubernetes.io/name': name },
    annotations: {},
    selector: { 'app.kubernetes.io/name': name },
    addresses: [],
    ports: [{ port: headless.port, protocol: 'TCP', name: 'main' }],
    sinceMs: lastingSinceMs,
  };
}

export function namespaceEvent(namespace: Namespace, relabels: Relabels): NamespaceEvent {
  const changes = relabels.changesOf(namespace);
  const raw = (change: (typeof changes)[number] | null) => ({
    labels: rawNamespaceLabels(namespace, change),
    annotations: {},
  });
  return {
    v: 1,
    type: 'namespace',
    cluster: namespace.cluster.name,
    name: namespace.name,
    ...raw(changes.at(-1) ?? null),
    ...formerLabels(changes, raw),
  };
}

function nodeEvent(world: World, cluster: Cluster, node: number): WorkloadEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'node',
    cluster: cluster.name,
    uid: nodeUid(world, cluster.firstNode + node),
    name: nodeName(cluster, node),
    namespace: '',
    node: '',
    hostNetwork: false,
    labels: { ...cluster.rawNodeLabels },
    annotations: {},
    addresses: [
      { ip: ipv4Text(nodeAddress(cluster, node)), network: defaultNetwork, sinceMs: lastingSinceMs },
    ],
    sinceMs: lastingSinceMs,
  };
}

/** The collector that runs on every node with the node's own addresses. */
function hostPodEvent(world: World, cluster: Cluster, node: number): WorkloadEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: cluster.name,
    uid: makeUid('hostPod', world.tag, 0, cluster.firstNode + node),
    name: `node-collector-${(mix32(cluster.firstNode + node) % 0xfffff).toString(36)}`,
    namespace: platformNamespace,
    node: nodeName(cluster, node),
    hostNetwork: true,
    labels: { 'app.kubernetes.io/component': 'collector', 'app.kubernetes.io/name': 'node-collector' },
    annotations: {},
    addresses: [],
    sinceMs: lastingSinceMs,
  };
}

function machineEvent(world: World, group: MachineGroup, machine: number): WorkloadEvent {
  const addresses = [
    { ip: ipv4Text(machineAddress(group, machine)), network: defaultNetwork, sinceMs: lastingSinceMs },
  ];
  const second = machineAddress6(group, machine);
  if (second !== null) addresses.push({ ip: second, network: defaultNetwork, sinceMs: lastingSinceMs });
  return {
    v: 1,
    type: 'workload',
    kind: group.kind,
    cluster: '',
    uid: machineUid(world, machine),
    name: machineName(group, machine),
    namespace: group.name,
    node: '',
    hostNetwork: false,
    labels: { ...group.rawLabels },
    annotations: {},
    addresses,
    sinceMs: lastingSinceMs,
  };
}

/** The VM that was switched off before anything of the run began. */
function decommissionedEvent(world: World): WorkloadEvent {
  const untilMs = bornMs - 30 * 86_400_000;
  return {
    v: 1,
    type: 'workload',
    kind: 'vm',
    cluster: '',
    uid: machineUid(world, world.machineCount),
    name: decommissioned.name,
    namespace: decommissioned.group,
    node: '',
    hostNetwork: false,
    labels: { site: 'dc-east' },
    annotations: {},
    addresses: [{ ip: decommissioned.address, network: defaultNetwork, sinceMs: lastingSinceMs, untilMs }],
    sinceMs: lastingSinceMs,
    untilMs,
  };
}

/** A pod as an event; one that has ended carries its end, of the address as of itself. */
export function podEvent(pods: Pods, pod: Pod): WorkloadEvent {
  const deployment = pods.deploymentOf(pod.slot);
  const { cluster } = deployment.namespace;
  const until = Number.isFinite(pod.untilMs) ? { untilMs: pod.untilMs } : {};
  const changes = pods.changesOf(pod.slot);
  const raw = (change: (typeof changes)[number] | null) => rawPodLabels(deployment, change);
  const { labels, annotations } = raw(changes.at(-1) ?? null);
  const suffix = mix32(pod.slot * 31 + pod.generation * 7919 + 1).toString(36);
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: cluster.name,
    uid: pods.uidOf(pod),
    name: `${deployment.name}-${mix32(deployment.index + 1).toString(16)}-${suffix.slice(-5)}`,
    namespace: deployment.namespace.name,
    node: nodeName(cluster, pods.nodeOf(pod.place)),
    hostNetwork: false,
    labels: { ...labels },
    annotations: { ...annotations },
    addresses: [
      { ip: ipv4Text(pods.addressOf(pod.place)), network: cluster.name, sinceMs: pod.sinceMs, ...until },
    ],
    sinceMs: pod.sinceMs,
    ...until,
    ...formerLabels(changes, raw),
  };
}

/** All but pods: clusters, ranges, names, namespaces, services, nodes, machines. */
export function* lastingEvents(world: World, relabels: Relabels): Generator<InventoryEvent> {
  for (const cluster of world.clusters) yield clusterEvent(cluster);
  for (const { name, cidrs, zone, labels } of ranges) {
    const event: RangeEvent = {
      v: 1,
      type: 'range',
      name,
      network: defaultNetwork,
      cidrs: [...cidrs],
      zone,
      labels: { ...labels },
    };
    yield event;
  }
  for (const { name, dns, zone, labels, addresses } of listedNames) {
    const event: NameEvent = {
      v: 1,
      type: 'name',
      name,
      dns: [...dns],
      zone,
      labels: { ...labels },
      addresses: addresses.map((ip) => ({ ip, network: defaultNetwork, sinceMs: lastingSinceMs })),
    };
    yield event;
  }
  for (const cluster of world.clusters)
    for (const namespace of cluster.namespaces) yield namespaceEvent(namespace, relabels);
  for (const service of world.services) yield serviceEvent(world, service);
  for (const cluster of world.clusters) yield headlessServiceEvent(world, cluster);
  for (const cluster of world.clusters) {
    for (let node = 0; node < cluster.nodeCount; node++) yield nodeEvent(world, cluster, node);
  }
  yield decommissionedEvent(world);
  for (const group of world.groups) {
    for (let i = 0; i < group.count; i++) yield machineEvent(world, group, group.first + i);
  }
}

/** Every pod there is at the moment, those on the host's network first. */
export function* podEvents(world: World, pods: Pods): Generator<WorkloadEvent> {
  for (const cluster of world.clusters) {
    for (let node = 0; node < cluster.nodeCount; node++) yield hostPodEvent(world, cluster, node);
  }
  for (let slot = 0; slot < world.slotCount; slot++)
    if (pods.isAlive(slot)) yield podEvent(pods, pods.pod(slot));
}
