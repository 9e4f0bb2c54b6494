/** The case-study bank: a seeded, deterministic estate with its inventory, policy, traffic, and the truth of every flow. */
import type { FlowBatch } from '../lib/wire/flow-batch.ts';
import type { InventoryEvent, WatermarkEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { type Agent, makeAgents } from './agents.ts';
import { bornMs, defaults, type EstateOptions, type EstateSize, quantumMs, sizes } from './config.ts';
import type { DrawContext } from './connections.ts';
import { Directory } from './directory.ts';
import type { Identity } from './ends.ts';
import { lastingEvents, namespaceEvent, podEvent, podEvents } from './events.ts';
import { type EncodedBatch, type EncodedBatchOptions, encodedBatches } from './fast.ts';
import { makeIndirectPatterns } from './indirect.ts';
import { naiveVerdict } from './naive.ts';
import { Outbox, type TimedEvent } from './outbox.ts';
import { makePatterns, type Outcome } from './patterns.ts';
import { makePlanted, type PlantedConnection } from './planted.ts';
import { type AdoptedPod, Pods } from './pods.ts';
import { makePolicy } from './policy.ts';
import { Random } from './random.ts';
import { type Relabel, Relabels } from './relabel.ts';
import { drawRequests } from './routine.ts';
import { Traffic } from './traffic.ts';
import type { Judge, Truth } from './truth.ts';
import { buildWorld, type World } from './world.ts';

export type { Agent } from './agents.ts';
export type { EstateOptions, EstateSize, SizeName } from './config.ts';
export type { EncodedBatch, EncodedBatchOptions } from './fast.ts';
export { sourceOf, type TimedEvent } from './outbox.ts';
export type { PlantedConnection } from './planted.ts';
export type { AdoptedPod } from './pods.ts';
export type { Truth } from './truth.ts';

export interface Step {
  /** In the order in which they are published: that in which they happened, unless `inventoryDelayMs` says otherwise. */
  readonly inventoryEvents: TimedEvent[];
  /** What each source vouches for once the events of this step are on the topic. */
  readonly watermarks: WatermarkEvent[];
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
  /** Everything there is now, whether published or not: clusters, ranges, names, namespaces, services, nodes, machines, then pods. */
  inventory(): Iterable<InventoryEvent>;
  policy(): PolicyDocument;
  /**
   * Lets time pass, in whole quanta of 250 ms. Events and batches go by what happened up to then: batches hold flows of
   * pods that `inventory()` or the events of this or an earlier step have named, or with `inventoryDelayMs` of a later one.
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

/** Judges by the policy as it reads, each question once. */
function makeJudge(world: World, startMs: number): Judge {
  const policy = makePolicy(world, startMs);
  const known = new Map<string, Outcome>();
  const keyOf = ({ kind, cluster, namespace, name, labels, ip }: Identity & { ip: string }): string =>
    JSON.stringify([kind, cluster, namespace, name, labels, ip]);
  return (src, dst, port, protocol) => {
    const key = `${keyOf(src)}${keyOf(dst)}${port}/${protocol}`;
    let outcome = known.get(key);
    if (outcome === undefined) {
      outcome = naiveVerdict(policy, startMs, src, dst, port, protocol);
      known.set(key, outcome);
    }
    return outcome;
  };
}

/** @throws {RangeError} where the options do not fit each other. */
export function makeEstate(given: MakeEstateOptions): Estate {
  const options: EstateOptions = { ...defaults, ...given };
  if (options.startMs < bornMs + 91 * 86_400_000)
    throw new RangeError('startMs is before the estate was there');
  if (options.intervalMs % quantumMs !== 0 || options.intervalMs < 1000)
    throw new RangeError(`intervalMs must be a multiple of ${quantumMs}, and 1000 or more`);
  const world = worldOf(options);
  const agents = makeAgents(world, options);
  const relabels = new Relabels(world, options.relabelsPerMinute);
  const directory = new Directory(world, relabels, agents);
  const churn = {
    churnPerMinute: options.churnPerMinute,
    reuseDelayMs: options.reuseDelayMs,
    horizonMs: options.intervalMs + 2 * quantumMs,
  };
  const pods = new Pods(world, relabels, churn, bornMs, options.startMs, given.adopted ?? []);
  const direct = makePatterns(world, directory, options.unexplainedShare);
  const directWeight = direct.reduce((sum, { weight }) => sum + weight, 0);
  const patterns = [
    ...direct,
    ...makeIndirectPatterns(world, directory, options.indirectShare, directWeight),
  ];
  drawRequests(patterns, new Random(world.seed, 'requests'));
  const planted = makePlanted(world, directory);
  const context: DrawContext = { pods, directory, agents };
  const judge = makeJudge(world, options.startMs);
  const traffic = new Traffic(context, patterns, planted, options, world.seed, judge);
  const outbox = new Outbox(world, options.inventoryDelayMs, new Random(world.seed, 'publishing'));
  let nowMs = options.startMs;
  let background = false;
  const startBackground = (): void => {
    if (background) return;
    background = true;
    if (options.churnPerMinute > 0) pods.startChurn(nowMs);
  };
  if (options.background) startBackground();

  const relabel = (change: Relabel): void => {
    const { timeMs } = change;
    if (change.type === 'namespace') {
      relabels.applyNamespace(change.namespace, timeMs);
      outbox.put({ timeMs, event: namespaceEvent(change.namespace, relabels) });
    } else if (pods.relabel(change.slot, change.to)) {
      outbox.put({ timeMs, event: podEvent(pods, pods.pod(change.slot)) });
    }
  };

  const quantum = (into: Step): void => {
    const changes = [...pods.due(nowMs), ...(background ? relabels.due(nowMs) : [])].sort(
      (a, b) => a.timeMs - b.timeMs,
    );
    let next = 0;
    const carryOut = (untilMs: number): void => {
      for (
        let change = changes[next];
        change !== undefined && change.timeMs <= untilMs;
        change = changes[++next]
      ) {
        if ('type' in change) {
          relabel(change);
          continue;
        }
        const { timeMs, pod } = pods.apply(change);
        outbox.put({ timeMs, event: podEvent(pods, pod) });
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
      yield* lastingEvents(world, relabels);
      yield* podEvents(world, pods);
    },
    policy: () => makePolicy(world, options.startMs),
    step(toMs) {
      const into: Step = { inventoryEvents: [], watermarks: [], batches: [], truth: [] };
      while (nowMs + quantumMs <= toMs) quantum(into);
      into.inventoryEvents.push(...outbox.take(nowMs));
      into.watermarks.push(...outbox.watermarks(nowMs));
      return into;
    },
    startBackground,
    flowBatches: (batchOptions) => encodedBatches(context, patterns, options, nowMs, batchOptions),
  };
}
