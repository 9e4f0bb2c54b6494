/** The simulated agents: one on each node, and one for each handful of machines. */
import { hash32 } from './random.ts';
import type { Cluster, MachineGroup, World } from './world.ts';

export interface Agent {
  readonly index: number;
  readonly id: string;
  /** Cluster and network as they stand in its batches. */
  readonly cluster: string;
  readonly network: string;
  readonly node: string;
  readonly place:
    | { readonly cluster: Cluster; readonly node: number }
    | { readonly group: MachineGroup; readonly first: number; readonly count: number };
  /** Sees sockets only: the service address where a pod was called through one. */
  readonly sockets: boolean;
}

/** Most machines that share an agent's name. */
export const machinesPerAgent = 64;

export function nodeName(cluster: Cluster, node: number): string {
  return `${cluster.name}-node-${String(node + 1).padStart(3, '0')}`;
}

export function makeAgents(world: World, socketAgentShare: number): Agent[] {
  const agents: Agent[] = [];
  for (const cluster of world.clusters) {
    for (let node = 0; node < cluster.nodeCount; node++) {
      const name = nodeName(cluster, node);
      agents.push({
        index: agents.length,
        id: name,
        cluster: cluster.name,
        network: cluster.name,
        node: name,
        place: { cluster, node },
        sockets: hash32(`${world.seed}/${name}/sockets`) / 4294967296 < socketAgentShare,
      });
    }
  }
  for (const group of world.groups) {
    for (let offset = 0; offset < group.count; offset += machinesPerAgent) {
      const id = `${group.name}-agent-${String(1 + offset / machinesPerAgent).padStart(3, '0')}`;
      const place = {
        group,
        first: group.first + offset,
        count: Math.min(machinesPerAgent, group.count - offset),
      };
      agents.push({
        index: agents.length,
        id,
        cluster: '',
        network: 'default',
        node: id,
        place,
        sockets: false,
      });
    }
  }
  return agents;
}
