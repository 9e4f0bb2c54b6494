/** The simulated agents: one on each node, and one for each handful of machines. */
import type { EstateOptions } from './config.ts';
import { hash32, Random } from './random.ts';
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
  readonly clock: Clock;
}

/** An agent's clock against the true time, ms. */
export interface Clock {
  /** The agent's time minus the true one. */
  readonly skewMs: number;
  /** What it has measured of that, and how far the measurement may be off; -1 where it could not measure. */
  readonly offsetMs: number;
  readonly errorMs: number;
}

/** How sure the agents are that have measured their clocks, ms. */
const leastErrorMs = 20;
const largestErrorMs = 80;

function makeClock(options: ClockOptions, seed: string, agentId: string): Clock {
  const { clockSkewMs, unmeasuredClockShare } = options;
  if (clockSkewMs === 0) return { skewMs: 0, offsetMs: 0, errorMs: -1 };
  const random = new Random(seed, `clock/${agentId}`);
  const skewMs = random.between(-clockSkewMs, clockSkewMs);
  if (random.next() < unmeasuredClockShare) return { skewMs, offsetMs: 0, errorMs: -1 };
  const errorMs = random.between(leastErrorMs, largestErrorMs);
  return { skewMs, offsetMs: skewMs + random.between(-errorMs, errorMs), errorMs };
}

type ClockOptions = Pick<EstateOptions, 'clockSkewMs' | 'unmeasuredClockShare'>;

/** Most machines that share an agent's name. */
export const machinesPerAgent = 64;

export function nodeName(cluster: Cluster, node: number): string {
  return `${cluster.name}-node-${String(node + 1).padStart(3, '0')}`;
}

export function makeAgents(
  world: World,
  options: ClockOptions & Pick<EstateOptions, 'socketAgentShare'>,
): Agent[] {
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
        sockets: hash32(`${world.seed}/${name}/sockets`) / 4294967296 < options.socketAgentShare,
        clock: makeClock(options, world.seed, name),
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
        clock: makeClock(options, world.seed, id),
      });
    }
  }
  return agents;
}
