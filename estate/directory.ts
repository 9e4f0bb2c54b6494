/** Addresses of all that does not come and go: nodes, machines, services, and addresses outside the inventory. */
import { parseWireAddress } from '../lib/net/address.ts';
import { type Agent, machinesPerAgent } from './agents.ts';
import { type ListedName, listedNames, ranges } from './catalogue.ts';
import {
  type Endpoint,
  type Identity,
  ipv4,
  ipv4Bytes,
  ipv4Text,
  lastingEndpoint,
  unknownIdentity,
  workloadIdentity,
} from './ends.ts';
import type { Relabels } from './relabel.ts';
import { makeUid } from './uids.ts';
import type { Cluster, MachineGroup, Service, World } from './world.ts';

export const nodeAddress = (cluster: Cluster, node: number): number =>
  (ipv4(10, 16, 0, 10) + cluster.index * 1024 + node) >>> 0;

export function machineAddress(group: MachineGroup, machine: number): number {
  return ((group.kind === 'vm' ? ipv4(10, 20, 0, 10) : ipv4(10, 24, 0, 10)) + machine) >>> 0;
}

/** Proxies speak IPv6 as well. */
export function machineAddress6(group: MachineGroup, machine: number): string | null {
  return group.app === 'proxy' ? `fd20::${(machine + 16).toString(16)}` : null;
}

export function machineName(group: MachineGroup, machine: number): string {
  return `${group.name}-${String(machine - group.first + 1).padStart(4, '0')}`;
}

export const machineUid = (world: World, machine: number): string =>
  makeUid('machine', world.tag, 0, machine);
export const nodeUid = (world: World, node: number): string => makeUid('node', world.tag, 0, node);
export const serviceUid = (world: World, service: Service): string =>
  makeUid('service', world.tag, 0, service.index);

/** Identity of an address by a named range, or of the public internet (`''`: nobody's). */
export function rangeIdentity(name: string): Identity {
  if (name === '') return unknownIdentity;
  const { labels = {}, zone = 'outside' } = ranges.find((range) => range.name === name) ?? {};
  return { workload: 0n, kind: 'range', cluster: '', namespace: '', name, zone, labels, provenance: 'range' };
}

function nameIdentity({ name, zone, labels }: ListedName): Identity {
  return { workload: 0n, kind: 'name', cluster: '', namespace: '', name, zone, labels, provenance: 'name' };
}

/** Endpoints by what they are; each is made when first asked for. */
export class Directory {
  readonly #world: World;
  readonly #relabels: Relabels;
  readonly #nodePorts = new Map<string, Endpoint>();
  readonly #nodes: (Endpoint | undefined)[] = [];
  readonly #machines: (Endpoint | undefined)[] = [];
  readonly #machines6 = new Map<number, Endpoint>();
  readonly #services = new Map<number, Endpoint>();
  readonly #outside = new Map<string, Endpoint>();
  readonly #agentOfGroup: number[] = [];
  /** Numbers of endpoints begin after those of pod addresses. */
  #nextNumber: number;

  constructor(world: World, relabels: Relabels, agents: readonly Agent[]) {
    this.#world = world;
    this.#relabels = relabels;
    this.#nextNumber = world.slotCount;
    for (const agent of agents) {
      if ('group' in agent.place && agent.place.first === agent.place.group.first)
        this.#agentOfGroup[agent.place.group.index] = agent.index;
    }
  }

  node(cluster: Cluster, node: number): Endpoint {
    const index = cluster.firstNode + node;
    const known = this.#nodes[index];
    if (known !== undefined) return known;
    const address = nodeAddress(cluster, node);
    const uid = nodeUid(this.#world, index);
    const made = lastingEndpoint(
      {
        address: ipv4Bytes(address),
        text: ipv4Text(address),
        number: this.#nextNumber++,
        agent: index,
        uid: '',
      },
      () => workloadIdentity({ cluster: cluster.name, kind: 'node', uid, namespace: '' }, cluster.nodeLabels),
    );
    this.#nodes[index] = made;
    return made;
  }

  #machineAgent(group: MachineGroup, machine: number): number {
    return (this.#agentOfGroup[group.index] ?? 0) + Math.floor((machine - group.first) / machinesPerAgent);
  }

  machine(group: MachineGroup, machine: number): Endpoint {
    const known = this.#machines[machine];
    if (known !== undefined) return known;
    const address = machineAddress(group, machine);
    const made = lastingEndpoint(
      {
        address: ipv4Bytes(address),
        text: ipv4Text(address),
        number: this.#nextNumber++,
        agent: this.#machineAgent(group, machine),
        uid: '',
      },
      () => this.#machineIdentity(group, machine),
    );
    this.#machines[machine] = made;
    return made;
  }

  /** The IPv6 side of a machine that has one, else its IPv4 side. */
  machine6(group: MachineGroup, machine: number): Endpoint {
    const known = this.#machines6.get(machine);
    if (known !== undefined) return known;
    const text = machineAddress6(group, machine);
    if (text === null) return this.machine(group, machine);
    const agent = this.#machineAgent(group, machine);
    const made = lastingEndpoint({ ...this.#wire(text), agent, uid: '' }, () =>
      this.#machineIdentity(group, machine),
    );
    this.#machines6.set(machine, made);
    return made;
  }

  #machineIdentity(group: MachineGroup, machine: number): Identity {
    const { kind, name } = group;
    return workloadIdentity(
      { cluster: '', kind, uid: machineUid(this.#world, machine), namespace: name },
      group.labels,
    );
  }

  /** A service's cluster address, or the one of its load balancer. */
  service(service: Service, at: 'cluster' | 'load-balancer'): Endpoint {
    const key = service.index * 2 + (at === 'cluster' ? 0 : 1);
    const known = this.#services.get(key);
    if (known !== undefined) return known;
    const address = at === 'cluster' ? service.clusterIp : service.loadBalancerIp;
    const made = this.#serviceAt(service, address);
    this.#services.set(key, made);
    return made;
  }

  /** A node of the service's cluster, as those see it who call the service on its node port. */
  nodePort(service: Service, node: number): Endpoint {
    const key = `${service.index}/${node}`;
    let made = this.#nodePorts.get(key);
    if (made === undefined) {
      made = this.#serviceAt(service, nodeAddress(service.deployment.namespace.cluster, node));
      this.#nodePorts.set(key, made);
    }
    return made;
  }

  #serviceAt(service: Service, address: number): Endpoint {
    const { deployment, name, labels } = service;
    const { namespace } = deployment;
    return lastingEndpoint(
      {
        address: ipv4Bytes(address),
        text: ipv4Text(address),
        number: this.#nextNumber++,
        agent: -1,
        uid: '',
      },
      () => ({
        workload: 0n,
        kind: 'service',
        cluster: namespace.cluster.name,
        namespace: namespace.name,
        name,
        zone: 'inside',
        labels,
        provenance: 'service',
      }),
      this.#relabels.labelsAt(deployment, []),
    );
  }

  /** An address that is nobody's in the inventory; `range` is the named range it lies in, `internet`, or empty. */
  outside(text: string, range: string): Endpoint {
    return this.#nobodys(text, range, () => rangeIdentity(range));
  }

  /** An address that was called by a listed name. */
  named(text: string, name: string): Endpoint {
    const listed = listedNames.find((one) => one.name === name);
    if (listed === undefined) throw new RangeError(`no listed name ${name}`);
    return this.#nobodys(text, name, () => nameIdentity(listed));
  }

  #nobodys(text: string, called: string, identify: () => Identity): Endpoint {
    const key = `${text} ${called}`;
    let made = this.#outside.get(key);
    if (made === undefined) {
      made = lastingEndpoint({ ...this.#wire(text), agent: -1, uid: '' }, identify);
      this.#outside.set(key, made);
    }
    return made;
  }

  #wire(text: string): { address: Buffer; text: string; number: number } {
    const bytes = parseWireAddress(text);
    if (bytes === null) throw new RangeError(`not an address: ${text}`);
    return { address: Buffer.from(bytes), text, number: this.#nextNumber++ };
  }
}
