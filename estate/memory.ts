/** What earlier runs have left in the topics, as far as a new run has to know it. */
import type { Bus, BusMessage } from '../lib/bus/bus.ts';
import { policyOfMessage } from '../lib/policy/publish.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';
import { bornMs } from './config.ts';
import type { AdoptedPod } from './index.ts';
import { isEstateSource } from './outbox.ts';
import { readUid } from './uids.ts';

/** Something that has ended and stays in the topic for a while. */
export interface EndedEntity {
  readonly key: string;
  readonly endMs: number;
}

export interface InventoryMemory {
  /** The newest value of each key. */
  readonly values: Map<string, Uint8Array>;
  /** Pods of this world, one entry for each slot that ever had a published pod. */
  readonly adopted: AdoptedPod[];
  /** Living workloads and services of worlds of another seed or size. */
  readonly foreign: InventoryEvent[];
  readonly ended: EndedEntity[];
  /** Sources of estates, of this or other worlds, that have vouched for their inventory. */
  readonly vouching: string[];
}

const watermarkPrefix = 'watermark/';

/** Reads a topic as it is now. */
export async function readTopic(
  bus: Pick<Bus, 'tail'>,
  topic: string,
  onMessage: (message: BusMessage) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const tail = await bus.tail({
    topic,
    onMessages: (_, messages) => messages.forEach(onMessage),
    onCaughtUp: resolve,
    onError: reject,
  });
  try {
    await promise;
  } finally {
    await tail.close();
  }
}

function endOf(event: InventoryEvent): number | null {
  return event.type === 'workload' || event.type === 'service' ? (event.untilMs ?? null) : null;
}

/** When something ended in the course of a run, or null: what ended before all runs is part of the world. */
export function runEndOf(event: InventoryEvent): number | null {
  const endMs = endOf(event);
  return endMs !== null && endMs > bornMs ? endMs : null;
}

/** Collects what the inventory topic says about estates; messages in topic order. */
export function makeInventoryReader(worldTag: number): {
  take(message: BusMessage): void;
  result(): InventoryMemory;
} {
  const values = new Map<string, Uint8Array>();
  return {
    take({ key, value }) {
      if (key === null) return;
      if (value === null) {
        values.delete(key);
        return;
      }
      values.set(key, value);
    },
    result() {
      const slots = new Map<number, AdoptedPod>();
      const foreign: InventoryEvent[] = [];
      const ended: EndedEntity[] = [];
      const vouching: string[] = [];
      for (const [key, value] of values) {
        if (key.startsWith(watermarkPrefix)) {
          const source = key.slice(watermarkPrefix.length);
          if (isEstateSource(source)) vouching.push(source);
          continue;
        }
        const uid = readUid(key.slice(key.lastIndexOf('/') + 1));
        // Of this world only pods change.
        if (uid === null || (uid.world === worldTag && uid.kind !== 'pod')) continue;
        const event = JSON.parse(Buffer.from(value).toString('utf8')) as InventoryEvent;
        const endMs = endOf(event);
        const runEndMs = runEndOf(event);
        if (runEndMs !== null) ended.push({ key, endMs: runEndMs });
        if (uid.world !== worldTag) {
          if (endMs === null) foreign.push(event);
          continue;
        }
        if (event.type !== 'workload') continue;
        const before = slots.get(uid.place);
        const [address] = event.addresses;
        const alive =
          endMs === null && address !== undefined ? { address: address.ip, sinceMs: event.sinceMs } : null;
        slots.set(uid.place, {
          slot: uid.place,
          generation: Math.max(uid.generation, before?.generation ?? 0),
          alive: alive ?? before?.alive ?? null,
        });
      }
      ended.sort((a, b) => a.endMs - b.endMs);
      return { values, adopted: [...slots.values()], foreign, ended, vouching };
    },
  };
}

/** The event that says a foreign workload or service has ended. */
export function endedEvent(event: InventoryEvent, untilMs: number): InventoryEvent {
  if (event.type !== 'workload' && event.type !== 'service') return event;
  const end = Math.max(untilMs, event.sinceMs);
  return {
    ...event,
    untilMs: end,
    addresses: event.addresses.map((address) => ({ ...address, untilMs: address.untilMs ?? end })),
  };
}

/**
 * The policy to publish, or null where the one in force stays: somebody else's always does, and the estate's own where it
 * says the same.
 */
export function nextPolicy(inForce: PolicyDocument | null, wanted: PolicyDocument): PolicyDocument | null {
  if (inForce === null) return wanted;
  if (inForce.author !== wanted.author) return null;
  const content = ({ version: _, appliedMs: __, ...rest }: PolicyDocument): string => JSON.stringify(rest);
  return content(inForce) === content(wanted) ? null : { ...wanted, version: inForce.version + 1 };
}

/** Reads both topics of the state. */
export async function readMemory(
  bus: Pick<Bus, 'tail'>,
  worldTag: number,
): Promise<{ inventory: InventoryMemory; policy: PolicyDocument | null }> {
  const reader = makeInventoryReader(worldTag);
  await readTopic(bus, topics.inventory, (message) => reader.take(message));
  let policy: PolicyDocument | null = null;
  await readTopic(bus, topics.policy, (message) => {
    const document = policyOfMessage(message);
    if (document !== null && document.version > (policy?.version ?? 0)) policy = document;
  });
  return { inventory: reader.result(), policy };
}
