/** Metrics of the door. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { refusalCauses } from './refusal.ts';

export type IngestMetrics = ReturnType<typeof makeIngestMetrics>;

const deadLetterOutcomes = ['kept', 'limited', 'failed'] as const;

export function makeIngestMetrics(registry: Registry) {
  const registers = [registry];
  const metrics = {
    receivedBytes: new Counter({
      name: 'eastwest_ingest_received_bytes_total',
      help: 'Bytes of request bodies as they arrived',
      registers,
    }),
    batchBytes: new Counter({
      name: 'eastwest_ingest_batch_bytes_total',
      help: 'Bytes of batches given to the bus',
      registers,
    }),
    batches: new Counter({
      name: 'eastwest_ingest_batches_total',
      help: 'Batches accepted',
      labelNames: ['format'] as const,
      registers,
    }),
    flows: new Counter({ name: 'eastwest_ingest_flows_total', help: 'Flows accepted', registers }),
    refused: new Counter({
      name: 'eastwest_ingest_refused_total',
      help: 'Requests refused, by cause',
      labelNames: ['cause'] as const,
      registers,
    }),
    deadLetters: new Counter({
      name: 'eastwest_ingest_dead_letters_total',
      help: 'Copies of unreadable batches: kept, left out by the limit, or failed',
      labelNames: ['outcome'] as const,
      registers,
    }),
    appendSeconds: new Histogram({
      name: 'eastwest_ingest_append_seconds',
      help: 'Time the bus took to make a request durable',
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
      registers,
    }),
    backlogBatches: new Gauge({
      name: 'eastwest_ingest_backlog_batches',
      help: 'Batches that wait on the bus for the enrichers',
      registers,
    }),
    inFlightBytes: new Gauge({
      name: 'eastwest_ingest_in_flight_bytes',
      help: 'Bytes of requests held now',
      registers,
    }),
  };
  for (const cause of refusalCauses) metrics.refused.inc({ cause }, 0);
  for (const outcome of deadLetterOutcomes) metrics.deadLetters.inc({ outcome }, 0);
  return metrics;
}
