/** Lets the estate live in real time: first what the planted connections need, then all the rest. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Readiness } from '../lib/runtime/service.ts';
import { encodeFlowBatch, type FlowBatch } from '../lib/wire/flow-batch.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';
import { type DemoConfig, quantumMs } from './config.ts';
import type { Delivery } from './deliver.ts';
import { type Estate, makeEstate } from './index.ts';
import { endedEvent, type InventoryMemory, nextPolicy } from './memory.ts';
import type { DemoMetrics } from './metrics.ts';
import { sourcesOf } from './outbox.ts';
import type { Publisher } from './publish.ts';

/** Beyond this the flows of the time that was missed are left out, ms. */
export const longestLagMs = 60_000;
/** Most simulated time in one go, ms, so that memory and other work stay in bounds while catching up. */
const longestStrideMs = 5000;

/**
 * The estate of the configuration, going on from what an earlier run left. It begins one interval ago, so that its agents
 * have something to report at once, but not before the last pod that is known to have ended.
 */
export function resumeEstate(config: DemoConfig, memory: InventoryMemory, nowMs: number): Estate {
  const lastEndMs = memory.ended.at(-1)?.endMs ?? 0;
  return makeEstate({
    seed: config.seed,
    size: config.size,
    startMs: Math.max(nowMs - config.intervalMs, lastEndMs + 1),
    flowsPerSecond: config.flowsPerSecond,
    intervalMs: config.intervalMs,
    churnPerMinute: config.churnPerMinute,
    reuseDelayMs: config.reuseDelayMs,
    truth: false,
    background: false,
    adopted: memory.adopted,
  });
}

/** Whether the planted connections need the event: all but pods and machines elsewhere. */
export function neededFirst(estate: Pick<Estate, 'planted'>): (event: InventoryEvent) => boolean {
  const places = new Set<string>();
  for (const { source, destination } of estate.planted) {
    places.add(`${source.cluster}/${source.namespace}`);
    if (destination.kind === 'vm' || destination.kind === 'host') places.add(`/${destination.name}`);
  }
  return (event) =>
    event.type !== 'workload' || event.kind === 'node' || places.has(`${event.cluster}/${event.namespace}`);
}

export interface StreamOptions {
  readonly config: DemoConfig;
  readonly estate: Estate;
  readonly memory: { readonly inventory: InventoryMemory; readonly policy: PolicyDocument | null };
  readonly publisher: Publisher;
  readonly delivery: Delivery;
  readonly log: Logger;
  readonly metrics: DemoMetrics;
  readonly readiness: Readiness;
  readonly signal: AbortSignal;
}

function* select(
  events: Iterable<InventoryEvent>,
  wanted: (event: InventoryEvent) => boolean,
): Generator<InventoryEvent> {
  for (const event of events) if (wanted(event)) yield event;
}

/** Publishes policy and inventory, and streams until `signal`. */
export async function stream(options: StreamOptions): Promise<void> {
  const { estate, memory, publisher, log, signal, readiness } = options;
  const policy = nextPolicy(memory.policy, estate.policy());
  if (policy !== null)
    await publisher.append(topics.policy, [
      { key: `policy/${policy.version}`, value: Buffer.from(JSON.stringify(policy), 'utf8') },
    ]);
  else if (memory.policy?.author !== 'estate')
    log.info('a policy that is not of the estate is in force: it stays');
  // Addresses of another seed or size must be free before this one's owners come.
  await publisher.publish(memory.inventory.foreign.map((event) => endedEvent(event, estate.nowMs)));
  const sources = sourcesOf(estate.world);
  await publisher.silence(memory.inventory.vouching.filter((source) => !sources.includes(source)));
  const first = neededFirst(estate);
  let count = await publisher.publish(select(estate.inventory(), first));
  let isComplete = false;
  const rest = async (): Promise<void> => {
    count += await publisher.publish(select(estate.inventory(), (event) => !first(event)));
    if (signal.aborted) return;
    memory.inventory.values.clear();
    estate.startBackground();
    isComplete = true;
    readiness.set('inventory', true);
    log.info(
      { published: count, planted: estate.planted.length, agents: estate.agents.length },
      'the generated bank is there',
    );
  };
  await Promise.all([rest(), live(options, () => isComplete)]);
}

/** Time goes on. @param isComplete whether everything is published that was there at the beginning: nobody vouches before */
async function live(options: StreamOptions, isComplete: () => boolean): Promise<void> {
  const { estate, publisher, delivery, config, metrics, signal } = options;
  while (!signal.aborted) {
    const lagMs = Date.now() - estate.nowMs;
    metrics.lagSeconds.set(lagMs / 1000);
    if (delivery.pendingCount < config.pendingBatchLimit || lagMs > longestLagMs) {
      const { inventoryEvents, watermarks, batches } = estate.step(
        Math.min(Date.now(), estate.nowMs + longestStrideMs),
      );
      await publisher.publish(inventoryEvents.map(({ event }) => event));
      if (isComplete()) await publisher.vouch(estate.nowMs, watermarks);
      await publisher.bury(estate.nowMs);
      hand(options, batches, lagMs > longestLagMs && delivery.pendingCount >= config.pendingBatchLimit);
    }
    const waitMs = Date.now() - estate.nowMs > longestStrideMs ? 0 : quantumMs;
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Hands batches over, or leaves them out: the gap in their sequences then tells the ledger what is missing. */
function hand({ delivery, metrics }: StreamOptions, batches: readonly FlowBatch[], leaveOut: boolean): void {
  for (const batch of batches) {
    const flowCount = batch.flows.length;
    if (leaveOut) metrics.droppedFlows.inc({ cause: 'lagging' }, flowCount);
    else delivery.send({ agentId: batch.agentId, flowCount, message: encodeFlowBatch(batch) });
  }
}
