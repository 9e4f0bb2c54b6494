/** The case-study bank: a seeded, deterministic estate with its inventory, policy, traffic, and the truth of every flow. */
import type { FlowBatch } from '../lib/wire/flow-batch.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { type Agent, makeAgents } from './agents.ts';
import { bornMs, defaults, type EstateOptions, type EstateSize, quantumMs, sizes } from './config.ts';
import type { DrawContext } from './connections.ts';
import { Directory } from './directory.ts';
import { lastingEvents, podEvent, podEvents } from './events.ts';
import { type EncodedBatch, type EncodedBatchOptions, encodedBatches } from './fast.ts';
import { makePatterns } from './patterns.ts';
import { makePlanted, type PlantedConnection } from './planted.ts';
import { type AdoptedPod, Pods } from './pods.ts';
import { makePolicy } from './policy.ts';
import { Traffic } from './traffic.ts';
import type { Truth } from './truth.ts';
import { buildWorld, type World } from './world.ts';

export type { Agent } from './agents.ts';
export type { EstateOptions, EstateSize, SizeName } from './config.ts';
export type { EncodedBatch, EncodedBatchOptions } from './fast.ts';
export type { PlantedConnection } from './planted.ts';
export type { AdoptedPod } from './pods.ts';
export type { Truth } from './truth.ts';

/** An inventory event and when it happened, ms since the epoch. */
export interface TimedEvent {
  readonly timeMs: number;
  readonly event: InventoryEvent;
}

export interface Step {
  /** In the order in which they happened. */
  readonly inventoryEvents: TimedEvent[];
  readonly batches: FlowBatch[];
  /** `truth[i][j]` is about `batches[i].flows[j]`; empty where the option `truth` is off. */
  readonly truth: Truth[][];
}

export interface Estate {
  readonly world: World;
  readonly agents: readonly Agent[];
  readonly planted: readonly PlantedConnection[];
  /** How far {@link Estate.step} has come, ms since the epoch. */
  readonly nowMs: number;
  /** Everything there is now: clusters, ranges, namespaces, services, nodes, machines, then pods. */
  inventory(): Iterable<InventoryEvent>;
  policy(): PolicyDocument;
  /**
   * Lets time pass, in whole quanta of 250 ms. Events and batches go by what happened up to then: batches hold flows of
   * pods that `inventory()` or the events of this or an earlier step have named.
   */
  step(toMs: number): Step;
  /** Begins churn and all traffic that is not planted, where the option `background` held it back. */
  startBackground(): void;
  /** Encoded batches for benches, without truth; the pods of now go on living meanwhile. */
  flowBatches(options: EncodedBatchOptions): Generator<EncodedBatch>;
}

export type MakeEstateOptions = Pick<EstateOptions, 'seed' | 'size' | 'startMs'> &
  Partial<EstateOptions> & {
    /** Pods of an earlier run of the same seed and size, which go on. */
    readonly adopted?: readonly AdoptedPod[];
  };

function sizeOf(size: EstateOptions['size']): EstateSize {
  return typeof size === 'string' ? sizes[size] : size;
}

/** The world of a seed and size, without time: cheap enough to ask who somebody was. */
export function worldOf(options: Pick<EstateOptions, 'seed' | 'size'>): World {
  return buildWorld(String(options.seed), sizeOf(options.size));
}

/** @throws {RangeError} where the options do not fit each other. */
export function makeEstate(given: MakeEstateOptions): Estate {
  const options: EstateOptions = { ...defaults, ...given };
  if (options.startMs < bornMs + 91 * 86_400_000)
    throw new RangeError('startMs is before the estate was there');
  if (options.intervalMs % quantumMs !== 0 || options.intervalMs < 1000)
    throw new RangeError(`intervalMs must be a multiple of ${quantumMs}, and 1000 or more`);
  const world = worldOf(options);
  const agents = makeAgents(world, options.socketAgentShare);
  const directory = new Directory(world, agents);
  const churn = {
    churnPerMinute: options.churnPerMinute,
    reuseDelayMs: options.reuseDelayMs,
    horizonMs: options.intervalMs + 2 * quantumMs,
  };
  const pods = new Pods(world, churn, bornMs, options.startMs, given.adopted ?? []);
  const patterns = makePatterns(world, directory, options.unexplainedShare);
  const planted = makePlanted(world, directory);
  const context: DrawContext = { pods, directory, agents };
  const traffic = new Traffic(context, patterns, planted, options, world.seed);
  let nowMs = options.startMs;
  let background = false;
  const startBackground = (): void => {
    if (background) return;
    background = true;
    if (options.churnPerMinute > 0) pods.startChurn(nowMs);
  };
  if (options.background) startBackground();

  const quantum = (into: Step): void => {
    const changes = pods.due(nowMs);
    let next = 0;
    const carryOut = (untilMs: number): void => {
      for (
        let change = changes[next];
        change !== undefined && change.timeMs <= untilMs;
        change = changes[++next]
      ) {
        const { timeMs, pod } = pods.apply(change);
        into.inventoryEvents.push({ timeMs, event: podEvent(pods, pod) });
      }
    };
    for (const upcoming of traffic.upcoming(nowMs, background)) {
      carryOut(upcoming.timeMs);
      traffic.begin(upcoming);
    }
    nowMs += quantumMs;
    carryOut(nowMs);
    traffic.report(nowMs, into);
  };

  return {
    world,
    agents,
    planted: planted.map(({ about }) => about),
    get nowMs() {
      return nowMs;
    },
    *inventory() {
      yield* lastingEvents(world);
      yield* podEvents(world, pods);
    },
    policy: () => makePolicy(world, options.startMs),
    step(toMs) {
      const into: Step = { inventoryEvents: [], batches: [], truth: [] };
      while (nowMs + quantumMs <= toMs) quantum(into);
      return into;
    },
    startBackground,
    flowBatches: (batchOptions) => encodedBatches(context, patterns, options, nowMs, batchOptions),
  };
}
