/** Follows the topics `inventory` and `policy`, and keeps what flows are joined with: the inventory and the engine. */
import type { Logger } from 'pino';
import { Compile } from 'typebox/compile';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { rateLimited } from '../../lib/bus/reporter.ts';
import { Inventory, type InventoryOptions } from '../../lib/inventory/inventory.ts';
import { emptyPolicy, PolicyEngine } from '../../lib/policy/engine.ts';
import { makeLabeller } from '../../lib/policy/profiles.ts';
import { InventoryEvent } from '../../schemas/inventory-event.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import type { EnrichMetrics } from './metrics.ts';
import { pause } from './retry.ts';

const inventoryEvent = Compile(InventoryEvent);

/** How often a block that waits looks at the inventory again, ms. */
const catchUpStepMs = 5;

/** Longest timer Node keeps, ms. */
const maxTimerMs = 2 ** 31 - 1;

export interface World {
  readonly inventory: Inventory;
  /** The engine in force; another object after each change of policy. */
  readonly engine: PolicyEngine;
  /** The policy in force. */
  readonly policy: PolicyDocument;
  /**
   * Resolves when everything that is in the topic `inventory` now has been applied, so that a flow is never joined with
   * an inventory older than its own arrival; and makes the watermarks that were heard before count. Gives up only when
   * nothing was applied for `waitMs`.
   */
  catchUp(waitMs: number, signal: AbortSignal): Promise<void>;
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
  let policy = emptyPolicy;
  let engine = new PolicyEngine(policy, Date.now());
  let expiryTimer: NodeJS.Timeout | undefined;
  const inventory = new Inventory({
    maxIntervalsPerAddress: options.maxIntervalsPerAddress,
    labelsOf: makeLabeller(policy.profiles),
    onProblem: problemReporter(options),
  });

  /** For each partition of the inventory, the next offset to apply. */
  const applied = new Map<number, number>();
  const applyInventory = (messages: readonly BusMessage[], partition: number): void => {
    const last = messages.at(-1);
    if (last !== undefined) applied.set(partition, last.offset + 1);
    for (const message of messages) {
      const { key, value, headers } = message;
      if (key === null) continue;
      const event = value === null ? null : readInventoryEvent(message, value, options);
      if (event !== undefined) inventory.apply(key, event, headers.source);
    }
    metrics.owners.set(inventory.ownerCount);
    metrics.addresses.set(inventory.index.addressCount);
    metrics.identities.set(inventory.identities.list.length);
  };

  const useEngine = (next: PolicyEngine): void => {
    engine = next;
    clearTimeout(expiryTimer);
    if (engine.nextExpiryMs < Number.POSITIVE_INFINITY) {
      // A rule that expires explains nothing from then on: compile again at that moment.
      expiryTimer = setTimeout(
        () => useEngine(new PolicyEngine(policy, Date.now())),
        Math.min(maxTimerMs, Math.max(1, engine.nextExpiryMs - Date.now())),
      );
      expiryTimer.unref();
    }
  };

  const applyPolicy = async (messages: readonly BusMessage[]): Promise<void> => {
    const newest = messages.findLast((message) => message.value !== null);
    if (newest === undefined || newest.value === null) return;
    let document: PolicyDocument;
    let compiled: PolicyEngine;
    try {
      // Whoever publishes checks the whole policy first (lib/policy/load.ts), so its shape is trusted here.
      document = parseJson(newest.value) as PolicyDocument;
      if (document.v !== 1) throw new Error(`policy format ${String(document.v)} is not known`);
      if (document.version < policy.version) return;
      compiled = new PolicyEngine(document, Date.now());
    } catch (error) {
      log.error({ err: error, offset: newest.offset }, 'policy left out: the one before stays in force');
      return;
    }
    // Labels and rules change together, at once; only the list of those whose labels changed takes its time.
    const relabelled = inventory.relabel(makeLabeller(document.profiles));
    policy = document;
    useEngine(compiled);
    metrics.policyVersion.set(policy.version);
    log.info(
      { version: policy.version, rules: engine.rules.length, author: policy.author },
      'policy in force',
    );
    await relabelled;
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

  // Profiles first, so that the inventory is labelled once.
  const policyTail = await follow(topics.policy, applyPolicy);
  const inventoryTail = await follow(topics.inventory, applyInventory);
  return {
    inventory,
    get engine() {
      return engine;
    },
    get policy() {
      return policy;
    },
    async catchUp(waitMs, signal) {
      // What a watermark vouches for stands before it on the topic, perhaps in another partition.
      const heard = inventory.snapshotWatermarks();
      const ends = await bus.positions(topics.inventory, enrichGroup);
      const behind = (): { partition: number; next: number }[] =>
        ends.filter(
          ({ partition, earliest, next }) => next > earliest && (applied.get(partition) ?? 0) < next,
        );
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
      for (const { partition, next } of behind()) applied.set(partition, next);
    },
    async close() {
      clearTimeout(expiryTimer);
      await Promise.all([policyTail.close(), inventoryTail.close()]);
    },
  };
}
