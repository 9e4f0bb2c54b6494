/** The topics of the bus, in one place. Partition counts and retention are the defaults; configuration may raise them. */
export const topics = {
  /** FlowBatch messages keyed by agent id. */
  flows: 'flows',
  /** Flow batches that could not be read, with the reason in the header `reason`. */
  dead: 'flows.dead',
  /** Inventory events keyed by entity, compacted. */
  inventory: 'inventory',
  /** Workloads that were put over HTTP, keyed by putting source and id (`schemas/workload-put.ts`), compacted. */
  inventoryPut: 'inventory.put',
  /** The policy in force, one message keyed `policy`, compacted. */
  policy: 'policy',
} as const;

/** Consumer group of the enrichers. */
export const enrichGroup = 'eastwest-enrich';

/** Largest message any topic takes, bytes. */
export const maxMessageBytes = 8 * 1024 * 1024;
