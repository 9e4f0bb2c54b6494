/** Sends an estate through the pipeline's own doors: inventory and policy to the bus, flows to ingest over HTTP. */
import type { Estate, Truth } from '../../estate/index.ts';
import { messageOf } from '../../estate/publish.ts';
import type { Bus } from '../../lib/bus/bus.ts';
import type { InventoryEvent } from '../../lib/inventory/events.ts';
import { publishPolicy } from '../../lib/policy/publish.ts';
import { encodeFlowBatch, type FlowBatch } from '../../lib/wire/flow-batch.ts';
import { topics } from '../../schemas/topics.ts';

const lanes = 8;
const appendChunk = 500;

async function publish(bus: Bus, events: readonly InventoryEvent[]): Promise<void> {
  for (let at = 0; at < events.length; at += appendChunk)
    await bus.append(topics.inventory, events.slice(at, at + appendChunk).map(messageOf));
}

/** Sends one encoded batch, again while ingest is busy. */
export async function post(ingestUrl: string, message: Uint8Array): Promise<void> {
  for (;;) {
    const response = await fetch(`${ingestUrl}/v1/flows`, {
      method: 'POST',
      headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' },
      body: Uint8Array.from(message),
    });
    const body = await response.text();
    if (response.status === 202) return;
    if (response.status !== 429 && response.status !== 503)
      throw new Error(`ingest answered ${response.status}: ${body}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Publishes what is there before any flow. */
export async function publishEstate(bus: Bus, estate: Estate): Promise<void> {
  await publishPolicy(bus, estate.policy(), 'test');
  await publish(bus, [...estate.inventory()]);
}

export interface FeedOptions {
  readonly estate: Estate;
  readonly bus: Bus;
  readonly ingestUrl: string;
  /** Stop when this many flows were sent. */
  readonly flowCount: number;
  /** Simulated time of one step, ms. */
  readonly stepMs: number;
  /** How long the estate lives on after the last flow, so that its inventory is complete for all of them, ms. */
  readonly settleMs: number;
  /** Told the truth of the flows of a step before they are sent. */
  readonly beforeSending?: (truths: readonly Truth[]) => void;
  /** Called after each step with the flows sent so far. */
  readonly afterStep?: (sent: number) => Promise<void>;
}

/** Lets the estate live and sends what it reports; resolves with the truth of every flow sent. */
export async function feed(options: FeedOptions): Promise<Truth[]> {
  const { estate, bus, ingestUrl, stepMs } = options;
  const truths: Truth[] = [];
  const live = async (): Promise<ReturnType<Estate['step']>> => {
    const step = estate.step(estate.nowMs + stepMs);
    await publish(bus, [...step.inventoryEvents.map(({ event }) => event), ...step.watermarks]);
    return step;
  };
  while (truths.length < options.flowCount) {
    const step = await live();
    const list = step.truth.flat();
    options.beforeSending?.(list);
    // One agent's batches go in order through one lane, as agents send them.
    const queues = Array.from({ length: lanes }, (): FlowBatch[] => []);
    const laneOf = new Map<string, number>();
    for (const batch of step.batches) {
      const lane = laneOf.get(batch.agentId) ?? laneOf.size % lanes;
      laneOf.set(batch.agentId, lane);
      queues[lane]!.push(batch);
    }
    await Promise.all(
      queues.map(async (queue) => {
        for (const batch of queue) await post(ingestUrl, encodeFlowBatch(batch));
      }),
    );
    truths.push(...list);
    await options.afterStep?.(truths.length);
  }
  for (const endMs = estate.nowMs + options.settleMs; estate.nowMs < endMs; ) await live();
  return truths;
}
