/** Follows the topics `inventory` and `policy`, and keeps what flows are joined with: the inventory and the engine. */
import type { Logger } from 'pino';
import { Compile } from 'typebox/compile';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { rateLimited } from '../../lib/bus/reporter.ts';
import { Inventory, type InventoryOptions } from '../../lib/inventory/inventory.ts';
import { emptyPolicy } from '../../lib/policy/engine.ts';
import { makeLabeller } from '../../lib/policy/profiles.ts';
import type { PolicyTimeline } from '../../lib/policy/timeline.ts';
import { InventoryEvent } from '../../schemas/inventory-event.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import { coalesced } from './coalesced.ts';
import { LivePolicies } from './live-policies.ts';
import type { EnrichMetrics } from './metrics.ts';
import { pause } from './retry.ts';

const inventoryEvent = Compile(InventoryEvent);

/** How often a block that waits looks at the inventory again, ms. */
const catchUpStepMs = 5;

export interface World {
  readonly inventory: Inventory;
  /** Which policy judges a flow that began when. */
  readonly policies: PolicyTimeline;
  /**
   * Resolves when everything that is in the topics `inventory` and `policy` now has been applied, so that a flow is never
   * joined with an inventory, or judged by a policy, older than its own arrival; and makes the watermarks that were heard before count. Gives up only when
   * nothing was applied for `waitMs`.
   */
  catchUp(waitMs: number, signal: AbortSignal): Promise<void>;
  /** Resolves when the next watermark is heard, after `waitMs`, or when `signal` is aborted. */
  nextWatermark(waitMs: number, signal: AbortSignal): Promise<void>;
  /** Resolves when policies that judge flows which began at or before `beginMs` are compiled. */
  compiledTo(beginMs: number): Promise<void>;
  close(): Promise<void>;
}

export interface WorldOptions {
  readonly bus: Bus;
  readonly maxIntervalsPerAddress: number;
  readonly log: Logger;
  readonly metrics: EnrichMetrics;
}

function parseJson(value: Uint8Array): unknown {
  return JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8'));
}

/** Counts what was wrong with events, and says it; the same thing not again and again. */
function problemReporter({ log, metrics }: WorldOptions): NonNullable<InventoryOptions['onProblem']> {
  const report = rateLimited((error) => log.warn({ problem: error.message }, 'inventory event used in part'));
  return (problem, key, detail) => {
    metrics.inventoryProblems.inc({ problem });
    report(new Error(`${key}: ${problem}: ${detail}`));
  };
}

/** The event of a message; undefined where it can't be read, which is said and counted. */
function readInventoryEvent(
  { key, offset }: BusMessage,
  value: Uint8Array,
  { log, metrics }: WorldOptions,
): InventoryEvent | undefined {
  try {
    const event = parseJson(value);
    if (inventoryEvent.Check(event)) return event;
    const [first] = inventoryEvent.Errors(event);
    log.warn(
      { key, offset, at: first?.instancePath, problem: first?.message },
      'inventory event left out: it does not fit the schema',
    );
  } catch (error) {
    log.warn({ key, offset, err: error }, 'inventory event left out: it is not JSON');
  }
  metrics.badInventory.inc();
  return undefined;
}

/** Starts following; resolves when everything that is in both topics now has been applied. */
export async function openWorld(options: WorldOptions): Promise<World> {
  const { bus, log, metrics } = options;
  const inventory = new Inventory({
    maxIntervalsPerAddress: options.maxIntervalsPerAddress,
    labelsOf: makeLabeller(emptyPolicy.profiles),
    onProblem: problemReporter(options),
  });

  const rules = new LivePolicies(inventory, metrics, log);
  /** For each topic and partition, the next offset to apply. */
  const applied = new Map<string, number>();
  const note = (topic: string, partition: number, messages: readonly BusMessage[]): void => {
    const last = messages.at(-1);
    if (last !== undefined) applied.set(`${topic}/${partition}`, last.offset + 1);
  };
  let watermarkHeard = Promise.withResolvers<void>();
  const applyInventory = (messages: readonly BusMessage[], partition: number): void => {
    note(topics.inventory, partition, messages);
    let hasWatermark = false;
    for (const message of messages) {
      const { key, value, headers } = message;
      if (key === null) continue;
      const event = value === null ? null : readInventoryEvent(message, value, options);
      if (event === undefined) continue;
      inventory.apply(key, event, headers.source);
      rules.names.note(key, event === null);
      hasWatermark ||= event?.type === 'watermark';
    }
    if (hasWatermark) {
      watermarkHeard.resolve();
      watermarkHeard = Promise.withResolvers();
    }
    metrics.owners.set(inventory.ownerCount);
    metrics.addresses.set(inventory.index.addressCount);
    metrics.identities.set(inventory.identities.list.length);
  };

  const applyPolicy = async (messages: readonly BusMessage[], partition: number): Promise<void> => {
    const isNew = rules.take(messages);
    note(topics.policy, partition, messages);
    if (isNew) await inventory.relabel(makeLabeller(rules.policies.newest.profiles));
  };

  const follow = (
    topic: string,
    apply: (messages: readonly BusMessage[], partition: number) => void | Promise<void>,
  ): Promise<{ close(): Promise<void> }> =>
    new Promise((resolve, reject) => {
      let caughtUp = false;
      const opened = bus.tail({
        topic,
        onMessages: (partition, messages) => apply(messages, partition),
        onCaughtUp: () => {
          caughtUp = true;
          opened.then(resolve, reject);
        },
        onError: (error) =>
          log.warn(
            { err: error, topic },
            caughtUp ? 'following a topic failed, goes on' : 'reading a topic failed, goes on',
          ),
      });
      opened.catch(reject);
    });

  const lookForEnds = coalesced(async () => {
    // What a watermark vouches for stands before it on the topic, perhaps in another partition.
    const heard = inventory.snapshotWatermarks();
    const positions = await Promise.all(
      [topics.inventory, topics.policy].map(async (topic) =>
        (await bus.positions(topic, enrichGroup)).map((end) => ({ ...end, of: `${topic}/${end.partition}` })),
      ),
    );
    return { heard, ends: positions.flat() };
  });

  // Profiles first, so that the inventory is labelled once.
  const policyTail = await follow(topics.policy, applyPolicy);
  const inventoryTail = await follow(topics.inventory, applyInventory);
  return {
    inventory,
    policies: rules.policies,
    compiledTo: (beginMs) => rules.compiledTo(beginMs),
    async catchUp(waitMs, signal) {
      const { heard, ends } = await lookForEnds();
      const behind = (): { of: string; next: number }[] =>
        ends.filter(({ of, earliest, next }) => next > earliest && (applied.get(of) ?? 0) < next);
      let progress = inventory.generation;
      let deadline = Date.now() + waitMs;
      while (behind().length > 0 && !signal.aborted) {
        if (inventory.generation !== progress) {
          // What is there is being read: however long it takes, it is worth the wait.
          progress = inventory.generation;
          deadline = Date.now() + waitMs;
        } else if (Date.now() > deadline) break;
        await pause(catchUpStepMs, signal);
      }
      if (signal.aborted) return;
      if (behind().length === 0) inventory.confirmWatermarks(heard);
      // The last messages may have been compacted away, which no reader can see: don't wait for them again.
      for (const { of, next } of behind()) applied.set(of, next);
    },
    async nextWatermark(waitMs, signal) {
      const over = new AbortController();
      await Promise.race([watermarkHeard.promise, pause(waitMs, AbortSignal.any([signal, over.signal]))]);
      over.abort();
    },
    async close() {
      await Promise.all([policyTail.close(), inventoryTail.close()]);
    },
  };
}
