/** Metrics of the enricher. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

export function makeMetrics(registry: Registry) {
  const registers = [registry];
  return {
    rows: new Counter({ name: 'eastwest_enrich_rows_total', help: 'Flows written.', registers }),
    verdicts: new Counter({
      name: 'eastwest_enrich_verdicts_total',
      help: 'Flows judged for good (at once, or by a repair), by verdict and reason.',
      labelNames: ['verdict', 'reason'],
      registers,
    }),
    certainties: new Counter({
      name: 'eastwest_enrich_labels_total',
      help: 'Ends of flows named for good (at once, or by a repair), by side of the flow, provenance and certainty.',
      labelNames: ['end', 'provenance', 'certainty'],
      registers,
    }),
    batches: new Counter({
      name: 'eastwest_enrich_batches_total',
      help: 'Batches read from the bus, by outcome and cause.',
      labelNames: ['outcome', 'cause'],
      registers,
    }),
    moved: new Counter({
      name: 'eastwest_enrich_moved_batches_total',
      help: 'Batches found in a partition that their agent had before partitions were added, and handed on.',
      registers,
    }),
    blocks: new Counter({ name: 'eastwest_enrich_blocks_total', help: 'Blocks inserted.', registers }),
    replays: new Counter({
      name: 'eastwest_enrich_replayed_blocks_total',
      help: 'Blocks built again after a crash between plan and commit.',
      registers,
    }),
    held: new Counter({
      name: 'eastwest_enrich_held_blocks_total',
      help: 'Slices of blocks that waited for late inventory.',
      registers,
    }),
    lateRows: new Counter({
      name: 'eastwest_enrich_late_rows_total',
      help: 'Flows written before the inventory vouched for their time.',
      registers,
    }),
    repairedRows: new Counter({
      name: 'eastwest_enrich_repaired_rows_total',
      help: 'Late flows that were named and judged anew; given-up: the inventory never vouched for their time.',
      labelNames: ['outcome'],
      registers,
    }),
    pendingBlocks: new Gauge({
      name: 'eastwest_enrich_pending_blocks',
      help: 'Blocks with late flows that wait for the inventory.',
      registers,
    }),
    insertSeconds: new Histogram({
      name: 'eastwest_enrich_insert_seconds',
      help: 'Time of one insert, retries included.',
      buckets: [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
      registers,
    }),
    insertRetries: new Counter({
      name: 'eastwest_enrich_insert_retries_total',
      help: 'Inserts tried again.',
      registers,
    }),
    delaySeconds: new Histogram({
      name: 'eastwest_enrich_delay_seconds',
      help: 'Time from the bus taking a batch to its flows being queryable.',
      buckets: [0.1, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300],
      registers,
    }),
    owners: new Gauge({
      name: 'eastwest_enrich_inventory_owners',
      help: 'Workloads and services known.',
      registers,
    }),
    addresses: new Gauge({
      name: 'eastwest_enrich_inventory_addresses',
      help: 'Addresses in the time index.',
      registers,
    }),
    identities: new Gauge({ name: 'eastwest_enrich_identities', help: 'Identities known.', registers }),
    badInventory: new Counter({
      name: 'eastwest_enrich_inventory_refused_total',
      help: 'Inventory events that could not be read.',
      registers,
    }),
    inventoryProblems: new Counter({
      name: 'eastwest_enrich_inventory_problems_total',
      help: 'What was wrong with inventory events; the rest of each was used.',
      labelNames: ['problem'],
      registers,
    }),
    policyVersion: new Gauge({
      name: 'eastwest_enrich_policy_version',
      help: 'Version of the policy in force.',
      registers,
    }),
    partitions: new Gauge({
      name: 'eastwest_enrich_partitions',
      help: 'Partitions of flows this enricher has.',
      registers,
    }),
  };
}
export type EnrichMetrics = ReturnType<typeof makeMetrics>;
