/** Metrics of the demo service. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** Why flows of the demo did not get to ingest. */
export type DropCause = 'refused' | 'lagging' | 'stopped';

export function makeMetrics(registry: Registry) {
  const registers = [registry];
  return {
    flows: new Counter({
      name: 'eastwest_demo_flows_total',
      help: 'Flows that ingest has taken.',
      registers,
    }),
    batches: new Counter({
      name: 'eastwest_demo_batches_total',
      help: 'Batches that ingest has taken.',
      registers,
    }),
    droppedFlows: new Counter({
      name: 'eastwest_demo_dropped_flows_total',
      help: 'Flows that did not get to ingest, by cause.',
      labelNames: ['cause'],
      registers,
    }),
    retries: new Counter({
      name: 'eastwest_demo_retries_total',
      help: 'Requests that have to be made again, by cause: busy, failed, unauthorized.',
      labelNames: ['cause'],
      registers,
    }),
    inventory: new Counter({
      name: 'eastwest_demo_inventory_messages_total',
      help: 'Messages published on the inventory topic.',
      registers,
    }),
    pending: new Gauge({
      name: 'eastwest_demo_pending_batches',
      help: 'Batches waiting for ingest.',
      registers,
    }),
    lagSeconds: new Gauge({
      name: 'eastwest_demo_lag_seconds',
      help: 'How far the simulated time is behind the clock.',
      registers,
    }),
  };
}
export type DemoMetrics = ReturnType<typeof makeMetrics>;
