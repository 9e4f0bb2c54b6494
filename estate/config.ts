/** Sizes and settings of the generated bank, and the configuration section `demo`. */
import Type, { type Static } from 'typebox';

export interface ClusterSize {
  readonly name: string;
  /** At most 256: each node has a /24 of the pod range. */
  readonly nodes: number;
  /** All pods, also those on the host's network (one for each node). */
  readonly pods: number;
  readonly namespaces: number;
  /** Index of the first application it runs; three namespaces (prod, uat, dev) for each. */
  readonly firstApp: number;
}

export interface EstateSize {
  readonly clusters: readonly ClusterSize[];
  readonly vms: number;
  readonly hosts: number;
}

export const sizeNames = ['tiny', 'small', 'bank'] as const;
export type SizeName = (typeof sizeNames)[number];

export const sizes: Readonly<Record<SizeName, EstateSize>> = {
  tiny: {
    clusters: [
      { name: 'east', nodes: 3, pods: 40, namespaces: 6, firstApp: 0 },
      { name: 'west', nodes: 2, pods: 20, namespaces: 3, firstApp: 0 },
    ],
    vms: 10,
    hosts: 3,
  },
  small: {
    clusters: [
      { name: 'east', nodes: 20, pods: 1200, namespaces: 60, firstApp: 0 },
      { name: 'west', nodes: 10, pods: 500, namespaces: 31, firstApp: 10 },
    ],
    vms: 200,
    hosts: 70,
  },
  bank: {
    clusters: [
      { name: 'east', nodes: 200, pods: 22_000, namespaces: 600, firstApp: 0 },
      { name: 'west', nodes: 180, pods: 20_000, namespaces: 541, firstApp: 150 },
      { name: 'north', nodes: 146, pods: 16_000, namespaces: 451, firstApp: 300 },
      { name: 'south', nodes: 110, pods: 12_000, namespaces: 451, firstApp: 450 },
    ],
    vms: 24_000,
    hosts: 5_364,
  },
};

/** What can be chosen; {@link defaults} has the rest. */
export interface EstateOptions {
  readonly seed: number | string;
  readonly size: SizeName | EstateSize;
  /** Begin of the simulated time, ms since the epoch; after {@link bornMs}. */
  readonly startMs: number;
  /** Reports (flows) a second at the mean of the day. */
  readonly flowsPerSecond: number;
  /** How often each agent reports, ms; a multiple of {@link quantumMs}. */
  readonly intervalMs: number;
  /** Share of the pods that is replaced each minute; what is possible ends near one replacement per pod and interval. */
  readonly churnPerMinute: number;
  /** Longest time from a pod's end until another pod has its address, ms. */
  readonly reuseDelayMs: number;
  /** Share of connections between two reporting ends that only the source reports, and only the destination; the rest by both. */
  readonly sourceOnlyShare: number;
  readonly destinationOnlyShare: number;
  /** Share of nodes whose agent sees sockets only: no counters of NAT, the service address as destination. */
  readonly socketAgentShare: number;
  /** Share of reports in which the agent names the uid of the pod at its end. */
  readonly hintShare: number;
  /** Share of explained traffic is 1 minus this. */
  readonly unexplainedShare: number;
  /** Each inventory event is published up to this long after it took effect, ms, so out of order between entities. */
  readonly inventoryDelayMs: number;
  /** Each agent's clock is off by a fixed amount of up to this, ms, either way. */
  readonly clockSkewMs: number;
  /** Share of the agents that have not measured how far theirs is off; of no effect without skew. */
  readonly unmeasuredClockShare: number;
  /** Share of the pods, and of the namespaces, whose labels change each minute. */
  readonly relabelsPerMinute: number;
  /** Share of the connections that go by NodePorts, listed names, headless services and load balancers of other clusters. */
  readonly indirectShare: number;
  /** How far clocks may be apart; decides the expected certainty, ms. */
  readonly clockToleranceMs: number;
  /** Whether `step` also tells the truth of each flow. */
  readonly truth: boolean;
  /** Whether traffic other than the planted, and churn, run from the beginning. */
  readonly background: boolean;
}

export const defaults: Omit<EstateOptions, 'seed' | 'size' | 'startMs'> = {
  flowsPerSecond: 1500,
  intervalMs: 10_000,
  churnPerMinute: 0.01,
  reuseDelayMs: 1000,
  sourceOnlyShare: 0.5,
  destinationOnlyShare: 0.1,
  socketAgentShare: 0.15,
  hintShare: 0.1,
  unexplainedShare: 0.115,
  inventoryDelayMs: 0,
  clockSkewMs: 0,
  unmeasuredClockShare: 0.2,
  relabelsPerMinute: 0,
  indirectShare: 0,
  clockToleranceMs: 1000,
  truth: true,
  background: true,
};

/** The grain of simulated time, ms. */
export const quantumMs = 250;

/** Everything that is there from the beginning has been there since shortly after this moment (2024-06-01). */
export const bornMs = 1_717_200_000_000;

export const DemoConfig = Type.Object(
  {
    size: Type.Union([Type.Literal('tiny'), Type.Literal('small'), Type.Literal('bank')], {
      default: 'bank',
      description: 'How large the generated bank is.',
    }),
    seed: Type.String({ default: 'eastwest', description: 'The same seed gives the same bank.' }),
    flowsPerSecond: Type.Number({
      default: 1500,
      minimum: 1,
      maximum: 200_000,
      description: 'Flows reported a second, at the mean of the day.',
    }),
    intervalMs: Type.Integer({
      default: 10_000,
      minimum: 1000,
      maximum: 60_000,
      multipleOf: quantumMs,
      description: 'How often each simulated agent reports, ms.',
    }),
    churnPerMinute: Type.Number({
      default: 0.005,
      minimum: 0,
      maximum: 1,
      description: 'Share of the pods that is replaced each minute.',
    }),
    reuseDelayMs: Type.Integer({
      default: 1000,
      minimum: 10,
      maximum: 60_000,
      description: 'Longest time until the address of an ended pod belongs to another, ms.',
    }),
    historyMs: Type.Integer({
      default: 3_600_000,
      minimum: 60_000,
      description: 'How long an ended pod stays in the inventory topic, ms.',
    }),
    ingestUrl: Type.String({ default: 'http://127.0.0.1:8089', description: 'Base URL of ingest.' }),
    ingestToken: Type.String({
      default: '',
      secret: true,
      description: 'Bearer token of the simulated agents; empty: none.',
    }),
    laneCount: Type.Integer({
      default: 8,
      minimum: 1,
      maximum: 64,
      description: 'Requests in flight; one agent stays in one lane, so its batches stay in order.',
    }),
    pendingBatchLimit: Type.Integer({
      default: 5000,
      minimum: 100,
      description: 'Batches waiting for ingest; beyond it the simulated agents wait.',
    }),
    requestTimeoutMs: Type.Integer({
      default: 15_000,
      minimum: 100,
      description: 'Longest wait for an answer of ingest, ms.',
    }),
  },
  {
    additionalProperties: false,
    default: {},
    description: 'The generated bank that streams in while nothing else is configured.',
  },
);
export type DemoConfig = Static<typeof DemoConfig>;
