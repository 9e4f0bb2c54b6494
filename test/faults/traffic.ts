/** Seeded traffic for runs in which processes die: a small cluster, flows between its pods, and what each edge adds up to. */
import { Random } from '../../estate/random.ts';
import { identityId } from '../../lib/inventory/ids.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../../lib/wire/plain-flow.ts';
import type { InventoryEvent } from '../../schemas/inventory-event.ts';

export const clusterName = 'faults';
export const sourceName = 'kubernetes:faults';
const appCount = 6;
const podCount = 60;
const ports = [443, 5432, 9092] as const;
const dayMs = 86_400_000;
/** Flows of a batch begin within this time. */
const spanMs = 2000;
/** Old flows began at this many midnights; ingest takes nothing older than a week. */
const oldestDays = 4;

export interface SentBatch {
  readonly agentId: string;
  readonly message: Buffer;
  readonly flowCount: number;
}

export interface BatchSender {
  readonly agentId: string;
  readonly bootId: string;
  /** Most flows in a batch. */
  readonly maxFlows?: number;
}

/** What an edge adds up to; the key is what {@link edgeKey} makes of it. */
export interface EdgeSum {
  flows: number;
  connections: number;
  bytes: number;
}

const appOf = (pod: number): string => `app-${pod % appCount}`;

/** The address a pod has in this run. */
const addressOf = (pod: number): string => `10.9.${Math.floor(pod / 200)}.${(pod % 200) + 1}`;

export function policyContent() {
  return {
    labels: [],
    services: [],
    ipLists: [],
    profiles: [{ name: 'all', match: {}, map: [{ key: 'app', from: { label: 'app' } }] }],
    rulesets: [
      {
        name: 'even',
        rules: [
          {
            name: 'first-to-second',
            from: [{ labels: { app: 'app-0' } }],
            to: [{ labels: { app: 'app-1' } }],
            services: [{ port: 443 }],
          },
          {
            name: 'nobody-to-third',
            from: [{ any: true as const }],
            to: [{ labels: { app: 'app-3' } }],
            action: 'deny' as const,
          },
        ],
      },
    ],
  };
}

/** Everything there is; it stays as it is for the whole run. */
export function inventory(): InventoryEvent[] {
  const pods = Array.from(
    { length: podCount },
    (_, pod): InventoryEvent => ({
      v: 1,
      type: 'workload',
      kind: 'pod',
      cluster: clusterName,
      uid: `pod-${pod}`,
      name: `pod-${pod}`,
      namespace: 'faults',
      node: `node-${pod % 5}`,
      hostNetwork: false,
      labels: { app: appOf(pod) },
      annotations: {},
      addresses: [{ ip: addressOf(pod), network: clusterName, sinceMs: 0 }],
      sinceMs: 0,
    }),
  );
  return [
    { v: 1, type: 'cluster', cluster: clusterName, podCidrs: ['10.9.0.0/16'], serviceCidrs: [] },
    ...pods,
  ];
}

export function edgeKey(source: string, destination: string, port: number, verdict: string): string {
  return `${source} ${destination} ${port} ${verdict}`;
}

function verdictOf(source: number, destination: number, port: number): string {
  if (appOf(source) === 'app-0' && appOf(destination) === 'app-1' && port === 443) return 'allowed';
  return appOf(destination) === 'app-3' ? 'denied' : 'unexplained';
}

function identityOf(pod: number): string {
  return String(
    identityId({
      kind: 'pod',
      cluster: clusterName,
      namespace: 'faults',
      name: '',
      zone: 'inside',
      labels: { app: appOf(pod) },
    }),
  );
}

export class Traffic {
  readonly #random: Random;
  readonly #run: string;
  readonly #sequences = new Map<string, number>();
  /** What the store must hold in the end. */
  readonly truth = new Map<string, EdgeSum>();
  /** The same by day (UTC). */
  readonly days = new Map<string, EdgeSum>();
  flowCount = 0;

  constructor(seed: string) {
    this.#random = new Random(seed, 'traffic');
    this.#run = seed;
  }

  /**
   * A batch of one of the agents, or of `sender`. Its flows began within the last seconds before `nowMs`; of one in eight
   * batches, in the seconds around a midnight of the last days.
   */
  batch(nowMs: number, sender?: BatchSender): SentBatch {
    const agentId = sender?.agentId ?? `${this.#run}-agent-${this.#random.below(6)}`;
    const sequence = (this.#sequences.get(agentId) ?? 0) + 1;
    this.#sequences.set(agentId, sequence);
    const flowCount = 1 + this.#random.below(sender?.maxFlows ?? 120);
    const isOld = this.#random.below(8) === 0;
    const midnightMs = nowMs - (nowMs % dayMs) - this.#random.below(oldestDays) * dayMs;
    const observedFromMs = (isOld ? midnightMs + spanMs / 2 : nowMs) - spanMs;
    const flows = Array.from({ length: flowCount }, () => this.#flow(observedFromMs));
    this.flowCount += flowCount;
    const message = encodeFlowBatch({
      ...plainBatch,
      agentId,
      bootId: sender?.bootId ?? this.#run,
      sequence,
      cluster: clusterName,
      node: 'node-1',
      network: clusterName,
      observedFromMs,
      observedToMs: observedFromMs + spanMs,
      clockErrorMs: 10,
      flows,
    });
    return { agentId, message, flowCount };
  }

  #flow(observedFromMs: number) {
    const startMs = this.#random.below(spanMs);
    const source = this.#random.below(podCount);
    const destination = this.#random.below(podCount);
    const port = ports[this.#random.below(ports.length)] ?? 443;
    const bytesForward = this.#random.below(100_000);
    const connectionCount = this.#random.below(3);
    const key = edgeKey(
      identityOf(source),
      identityOf(destination),
      port,
      verdictOf(source, destination, port),
    );
    const day = new Date(observedFromMs + startMs).toISOString().slice(0, 10);
    for (const [sums, of] of [
      [this.truth, key],
      [this.days, day],
    ] as const) {
      const sum = sums.get(of) ?? { flows: 0, connections: 0, bytes: 0 };
      sum.flows++;
      sum.connections += connectionCount;
      sum.bytes += bytesForward;
      sums.set(of, sum);
    }
    return {
      ...plainFlow,
      startMs,
      sourceAddress: Buffer.from(addressOf(source).split('.').map(Number)),
      sourcePort: 1024 + this.#random.below(60_000),
      destinationAddress: Buffer.from(addressOf(destination).split('.').map(Number)),
      destinationPort: port,
      bytesForward,
      bytesReverse: 0,
      packetsReverse: 0,
      connectionCount,
    };
  }
}
