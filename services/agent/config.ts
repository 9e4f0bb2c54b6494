/** The configuration section `agent`. */
import Type, { type Static } from 'typebox';

const kibi = 1024;
const mebi = 1024 * kibi;

export const AgentConfig = Type.Object(
  {
    id: Type.String({
      default: '',
      maxLength: 253,
      description: 'Stable name of this agent, unique in the estate; empty: the host name.',
    }),
    cluster: Type.String({ default: '', description: 'Cluster of the node; empty outside any cluster.' }),
    node: Type.String({
      default: '',
      description: 'Name of the host in the inventory; empty: the host name.',
    }),
    network: Type.String({
      default: 'local',
      minLength: 1,
      description:
        "Address space of the addresses seen here: the cluster's name on a cluster's node, `default` on a host of the routed network. `local` is an island, nobody else's.",
    }),
    source: Type.Union([Type.Literal('auto'), Type.Literal('conntrack'), Type.Literal('procfs')], {
      default: 'auto',
      description:
        "Where flows come from: the kernel's connection tracking, the host's own sockets in /proc, or the first of the two that works here.",
    }),
    intervalMs: Type.Integer({
      default: 10_000,
      minimum: 100,
      maximum: 600_000,
      description: 'How often what was seen is put into a batch, ms.',
    }),
    heartbeatMs: Type.Integer({
      default: 60_000,
      minimum: 0,
      description:
        'A batch without flows is sent after this long without any, so that a quiet node is no silent one, ms; 0: never.',
    }),
    quietReportMs: Type.Integer({
      default: 300_000,
      minimum: 1000,
      description: 'A connection that stays open without traffic is reported again after this long, ms.',
    }),
    localCidrs: Type.Array(Type.String(), {
      default: [],
      maxItems: 1024,
      description: 'Addresses that count as this host beside its own, such as the pod range of the node.',
    }),
    excludePorts: Type.Array(Type.Integer({ minimum: 0, maximum: 65_535 }), {
      default: [],
      maxItems: 1024,
      description: 'Connections to one of these destination ports are not reported.',
    }),
    excludeCidrs: Type.Array(Type.String(), {
      default: [],
      maxItems: 1024,
      description: 'Connections with an end in one of these blocks are not reported.',
    }),
    maxConnections: Type.Integer({
      default: 131_072,
      minimum: 16,
      description:
        'Connections followed at the same time; one beyond it is reported as a whole when it ends.',
    }),
    conntrackCommand: Type.String({
      default: 'conntrack',
      minLength: 1,
      description: 'The conntrack program (Debian package conntrack).',
    }),
    conntrackBufferBytes: Type.Integer({
      default: 8 * mebi,
      minimum: 4 * kibi,
      maximum: 512 * mebi,
      description: 'Size of the kernel buffer for conntrack events, bytes.',
    }),
    pollMs: Type.Integer({
      default: 1000,
      minimum: 50,
      maximum: 60_000,
      description: 'How often the procfs source reads the socket tables, ms.',
    }),
    processScanMs: Type.Integer({
      default: 5,
      minimum: 0,
      maximum: 1000,
      description:
        'Most time one poll spends on finding the processes of new sockets, ms; 0: no process names.',
    }),
    maxFlowsPerBatch: Type.Integer({
      default: 5000,
      minimum: 1,
      maximum: 100_000,
      description: 'Most flows in one batch.',
    }),
    maxBatchBytes: Type.Integer({
      default: mebi,
      minimum: 4 * kibi,
      maximum: 8 * mebi,
      description: 'Largest batch, bytes before compression.',
    }),
    spoolDir: Type.String({
      default: '',
      description: 'Folder for batches that are not delivered yet; empty: `agent-spool` in runtime.dataDir.',
    }),
    maxSpoolBytes: Type.Integer({
      default: 256 * mebi,
      minimum: 64 * kibi,
      description: 'Largest size of the spool, bytes; beyond it the oldest batches are dropped and counted.',
    }),
    maxUnsavedBytes: Type.Integer({
      default: 8 * mebi,
      minimum: 0,
      description: 'Batches kept in memory while the spool cannot be written (a full disk), bytes.',
    }),
    delivery: Type.Union([Type.Literal('http'), Type.Literal('bus')], {
      default: 'http',
      description: 'Where batches go: to the ingest service, or straight to the bus (section `bus`).',
    }),
    ingestUrl: Type.String({
      default: 'http://127.0.0.1:8089',
      pattern: '^https?://',
      description: 'Base address of the ingest service; batches are posted to /v1/flows below it.',
    }),
    token: Type.String({ default: '', secret: true, description: 'Bearer token of this agent at ingest.' }),
    compression: Type.Union([Type.Literal('zstd'), Type.Literal('none')], {
      default: 'zstd',
      description: 'Compression of batches sent over HTTP.',
    }),
    deliveryTimeoutMs: Type.Integer({
      default: 30_000,
      minimum: 100,
      description: 'How long one delivery may take before it is tried again, ms.',
    }),
    clockProbeMs: Type.Integer({
      default: 30_000,
      minimum: 1000,
      description:
        "How often the agent asks ingest for its time, ms: how far this host's clock is off goes into each batch.",
    }),
    backoffMinMs: Type.Integer({
      default: 200,
      minimum: 10,
      description: 'First pause after a delivery that failed, ms; it doubles with each further failure.',
    }),
    backoffMaxMs: Type.Integer({
      default: 30_000,
      minimum: 10,
      description: 'Longest pause between two deliveries of a batch, ms.',
    }),
  },
  {
    default: {},
    additionalProperties: false,
    description: 'The agent that reports the connections of a host.',
  },
);
export type AgentConfig = Static<typeof AgentConfig>;
