/**
 * What travels on the topic `inventory`: one JSON document per entity, keyed by {@link inventoryKey}, each event the
 * whole truth about its entity (so order between entities never matters and the newest event per key is enough).
 * An entity that ends is published once more with its end; the tombstone (null value) comes only after
 * the retention of history. The JSON Schema is `schemas/inventory-event.ts`.
 */
import type { InventoryEvent } from '../../schemas/inventory-event.ts';

export type {
  AddressInterval,
  ClusterEvent,
  FormerLabels,
  InventoryEvent,
  NameEvent,
  NamespaceEvent,
  NetworkPolicyEvent,
  RangeEvent,
  ServiceEvent,
  WatermarkEvent,
  WorkloadEvent,
  WorkloadKind,
} from '../../schemas/inventory-event.ts';

/** The message key of an event: `type/cluster/...`, unique per entity. */
export function inventoryKey(event: InventoryEvent): string {
  switch (event.type) {
    case 'cluster':
      return `cluster/${event.cluster}`;
    case 'namespace':
      return `namespace/${event.cluster}/${event.name}`;
    case 'workload':
      return `workload/${event.cluster}/${event.kind}/${event.uid}`;
    case 'service':
      return `service/${event.cluster}/${event.uid}`;
    case 'range':
      return `range/${event.network}/${event.name}`;
    case 'name':
      return `name/${event.name}`;
    case 'network-policy':
      return `network-policy/${event.cluster}/${event.uid}`;
    case 'watermark':
      return `watermark/${event.source}`;
  }
}
