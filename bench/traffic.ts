/** The traffic that all benchmarks share: encoded batches of the generated bank, its inventory and its policy. */
import { makeEstate, type SizeName } from '../estate/index.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { Inventory } from '../lib/inventory/inventory.ts';
import { makeLabeller } from '../lib/policy/profiles.ts';
import { PolicyTimeline } from '../lib/policy/timeline.ts';
import type { PolicyDocument } from '../schemas/policy.ts';

export interface Traffic {
  readonly events: readonly InventoryEvent[];
  readonly policy: PolicyDocument;
  readonly messages: readonly {
    readonly agentId: string;
    readonly message: Buffer;
    readonly flowCount: number;
  }[];
  readonly flowCount: number;
  readonly startMs: number;
}

/** @param startMs begin of the traffic; the pods of that moment live on */
export function makeTraffic(options: {
  size: SizeName;
  flowCount: number;
  flowsPerBatch: number;
  startMs: number;
}): Traffic {
  const estate = makeEstate({ seed: 'bench', size: options.size, startMs: options.startMs });
  const messages = [
    ...estate.flowBatches({ count: options.flowCount, flowsPerBatch: options.flowsPerBatch }),
  ];
  return {
    events: [...estate.inventory()],
    policy: estate.policy(),
    messages,
    startMs: options.startMs,
    flowCount: messages.reduce((sum, { flowCount }) => sum + flowCount, 0),
  };
}

/** Inventory and engine as an enricher has them once it has read both topics. */
export function loadWorld(traffic: Traffic): { inventory: Inventory; policies: PolicyTimeline } {
  const inventory = new Inventory({
    maxIntervalsPerAddress: 64,
    labelsOf: makeLabeller(traffic.policy.profiles),
  });
  for (const event of traffic.events) inventory.apply(inventoryKey(event), event);
  const policies = new PolicyTimeline();
  policies.add(traffic.policy);
  return { inventory, policies };
}
