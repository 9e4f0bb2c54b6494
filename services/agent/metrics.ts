/** Metrics of the agent. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { retryCauses } from './deliver.ts';
import { spoolDropCauses } from './spool/spool.ts';

/** Why flows were lost, wherever that was. */
export const dropCauses = ['source', 'table-full', 'unfit', ...spoolDropCauses] as const;
export type DropCause = (typeof dropCauses)[number];

export type AgentMetrics = ReturnType<typeof makeMetrics>;

export function makeMetrics(registry: Registry) {
  const registers = [registry];
  const metrics = {
    flows: new Counter({ name: 'eastwest_agent_flows_total', help: 'Flows put into batches.', registers }),
    excludedFlows: new Counter({
      name: 'eastwest_agent_excluded_flows_total',
      help: 'Flows left out because the configuration excludes their port or address.',
      registers,
    }),
    batches: new Counter({ name: 'eastwest_agent_batches_total', help: 'Batches made.', registers }),
    dropped: new Counter({
      name: 'eastwest_agent_dropped_flows_total',
      help: 'Flows lost, by cause.',
      labelNames: ['cause'],
      registers,
    }),
    connections: new Gauge({
      name: 'eastwest_agent_connections',
      help: 'Connections that are followed.',
      registers,
    }),
    untracked: new Gauge({
      name: 'eastwest_agent_untracked_connections',
      help: 'Connections over the limit since the start: reported as a whole when they end.',
      registers,
    }),
    sourceKind: new Gauge({
      name: 'eastwest_agent_source',
      help: 'The source in use (1).',
      labelNames: ['kind'],
      registers,
    }),
    sourceRestarts: new Counter({
      name: 'eastwest_agent_source_restarts_total',
      help: 'Times the conntrack event stream ended and was started again.',
      registers,
    }),
    unreadableLines: new Counter({
      name: 'eastwest_agent_unreadable_lines_total',
      help: 'Lines of conntrack that are no connection.',
      registers,
    }),
    pollSeconds: new Histogram({
      name: 'eastwest_agent_poll_seconds',
      help: 'Time that reading the socket tables takes.',
      buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5],
      registers,
    }),
    deliveries: new Counter({
      name: 'eastwest_agent_deliveries_total',
      help: 'Tries to deliver a batch, by outcome.',
      labelNames: ['outcome'],
      registers,
    }),
    clockOffset: new Gauge({
      name: 'eastwest_agent_clock_offset_seconds',
      help: "This host's clock minus that of ingest, as in the newest batch.",
      registers,
    }),
    clockError: new Gauge({
      name: 'eastwest_agent_clock_error_seconds',
      help: 'How far the offset may be off, as in the newest batch; -1: not measured.',
      registers,
    }),
    clockJumps: new Counter({
      name: 'eastwest_agent_clock_jumps_total',
      help: "Jumps of this host's clock (it was set, or the machine slept).",
      registers,
    }),
    spoolBatches: new Gauge({
      name: 'eastwest_agent_spool_batches',
      help: 'Batches that wait for delivery.',
      registers,
    }),
    spoolBytes: new Gauge({
      name: 'eastwest_agent_spool_bytes',
      help: 'Bytes of batches that wait, by place.',
      labelNames: ['place'],
      registers,
    }),
  };
  // Series that exist from the start can be alerted on.
  for (const cause of dropCauses) metrics.dropped.inc({ cause }, 0);
  for (const outcome of ['delivered', 'refused', ...retryCauses]) metrics.deliveries.inc({ outcome }, 0);
  metrics.clockError.set(-1);
  return metrics;
}
