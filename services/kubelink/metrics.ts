/** Metrics of kubelink. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** `collect` is called before figures are read. */
export function makeMetrics(registry: Registry, collect: () => void = () => {}) {
  const registers = [registry];
  return {
    entities: new Gauge({
      name: 'eastwest_kubelink_entities',
      help: 'Entities known, by source, kind and state (live, or ended and waiting for the tombstone).',
      labelNames: ['source', 'kind', 'state'],
      registers,
      collect,
    }),
    published: new Counter({
      name: 'eastwest_kubelink_events_published_total',
      help: 'Events that the bus took, by type; tombstones have the type tombstone.',
      labelNames: ['type'],
      registers,
    }),
    pending: new Gauge({
      name: 'eastwest_kubelink_events_pending',
      help: 'Entities whose newest event the bus has not taken yet.',
      registers,
    }),
    publishFailures: new Counter({
      name: 'eastwest_kubelink_publish_failures_total',
      help: 'Tries to hand events to the bus that failed and are repeated.',
      registers,
    }),
    refused: new Counter({
      name: 'eastwest_kubelink_events_refused_total',
      help: 'Events that were not published, by cause (invalid, too-large).',
      labelNames: ['cause'],
      registers,
    }),
    malformed: new Gauge({
      name: 'eastwest_kubelink_malformed_documents',
      help: 'Documents, list items and files that cannot be read at present; what they said before still counts.',
      labelNames: ['source'],
      registers,
    }),
    malformedSeen: new Counter({
      name: 'eastwest_kubelink_malformed_documents_total',
      help: 'Documents, list items and files that could not be read, each counted when it was first seen so.',
      labelNames: ['source'],
      registers,
    }),
    ignored: new Gauge({
      name: 'eastwest_kubelink_ignored_objects',
      help: 'Objects that the inventory does not use, by source and kind.',
      labelNames: ['source', 'kind'],
      registers,
    }),
    sourceFailures: new Counter({
      name: 'eastwest_kubelink_source_failures_total',
      help: 'Times a source could not be read as a whole.',
      labelNames: ['source'],
      registers,
    }),
    lastSync: new Gauge({
      name: 'eastwest_kubelink_last_sync_timestamp_seconds',
      help: 'When the source was last read as a whole.',
      labelNames: ['source'],
      registers,
    }),
    completeTo: new Gauge({
      name: 'eastwest_kubelink_complete_to_timestamp_seconds',
      help: 'The moment up to which the source has told everything, as published (its watermark).',
      labelNames: ['source'],
      registers,
    }),
    contested: new Gauge({
      name: 'eastwest_kubelink_contested_entities',
      help: 'Times a source spoke of an entity that another source of this kubelink owns, since the start.',
      registers,
    }),
    conflicts: new Gauge({
      name: 'eastwest_kubelink_address_conflicts',
      help: 'Addresses that two or more live workloads or services claim in one network.',
      registers,
    }),
    conflict: new Gauge({
      name: 'eastwest_kubelink_address_conflict',
      help: 'One for each contested address, with its claimants; the first 50 only.',
      labelNames: ['network', 'ip', 'claimants'],
      registers,
    }),
  };
}

export type KubelinkMetrics = ReturnType<typeof makeMetrics>;
