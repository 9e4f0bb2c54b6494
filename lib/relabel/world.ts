/** Inventory and policy as they are now, read from the bus once. */
import { Compile } from 'typebox/compile';
import { InventoryEvent } from '../../schemas/inventory-event.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { topics } from '../../schemas/topics.ts';
import type { Bus, BusMessage } from '../bus/bus.ts';
import { Inventory } from '../inventory/inventory.ts';
import { PolicyEngine } from '../policy/engine.ts';
import { makeLabeller } from '../policy/profiles.ts';
import { currentPolicy } from '../policy/publish.ts';

export interface PresentWorld {
  readonly policy: PolicyDocument;
  readonly engine: PolicyEngine;
  readonly inventory: Inventory;
}

/** Addresses are not asked for here. */
const maxIntervalsPerAddress = 2;

const inventoryEvent = Compile(InventoryEvent);

function eventOf(value: Uint8Array): InventoryEvent | undefined {
  try {
    const event: unknown = JSON.parse(
      Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString(),
    );
    return inventoryEvent.Check(event) ? event : undefined;
  } catch {
    return undefined;
  }
}

async function readInventory(bus: Bus, inventory: Inventory): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const apply = ({ key, value, headers }: BusMessage): void => {
    if (key === null) return;
    // What enrichers leave out as unreadable, they say; here it is passed over.
    const event = value === null ? null : eventOf(value);
    if (event !== undefined) inventory.apply(key, event, headers.source);
  };
  const tail = await bus.tail({
    topic: topics.inventory,
    onMessages: (_partition, messages) => {
      for (const message of messages) apply(message);
    },
    onCaughtUp: resolve,
    onError: reject,
  });
  try {
    await promise;
  } finally {
    await tail.close();
  }
}

/** Null where no policy is in force. */
export async function readWorld(bus: Bus): Promise<PresentWorld | null> {
  const policy = await currentPolicy(bus);
  if (policy === null) return null;
  const inventory = new Inventory({ maxIntervalsPerAddress, labelsOf: makeLabeller(policy.profiles) });
  await readInventory(bus, inventory);
  return { policy, engine: new PolicyEngine(policy, Date.now()), inventory };
}
