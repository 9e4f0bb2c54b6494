/** Traffic in time: connections begin, go on and end, and each agent reports what it saw, interval by interval. */
import { BatchStrings, type Flow, type FlowBatch } from '../lib/wire/flow-batch.ts';
import type { Agent } from './agents.ts';
import { type EstateOptions, quantumMs } from './config.ts';
import { type Connection, Connections, type DrawContext, type View } from './connections.ts';
import { icmp, type Pattern, tcp } from './patterns.ts';
import type { Planted } from './planted.ts';
import { Random, WeightedChoice } from './random.ts';
import { type Judge, type Truth, truthOf } from './truth.ts';

/** Batches of one moment, and the truth about each of their flows in the same order (empty where it was not asked for). */
export interface Reports {
  readonly batches: FlowBatch[];
  readonly truth: Truth[][];
}

/** Most flows in one batch; an agent with more sends several. */
export const flowsPerBatchLimit = 5000;

const dayMs = 86_400_000;
const noBytes = Buffer.alloc(0);

/** Rate at a time of day (UTC) relative to the mean: quiet at three in the morning, busy at three in the afternoon. */
export function diurnal(timeMs: number): number {
  return 1 - 0.45 * Math.cos((2 * Math.PI * ((timeMs % dayMs) - 3 * 3_600_000)) / dayMs);
}

const processes: Readonly<Record<string, string>> = {
  web: 'nginx',
  api: 'java',
  worker: 'java',
  batch: 'python3',
  db: 'postgres',
  cache: 'redis-server',
  dns: 'coredns',
  monitoring: 'prometheus',
  ingress: 'envoy',
};

function processOf(view: View): string {
  const party = view.side === 'source' ? view.connection.pattern.source : view.connection.pattern.destination;
  return party.type === 'pods' ? (processes[party.deployment.role] ?? 'jupyter-lab') : '';
}

interface Upcoming {
  readonly timeMs: number;
  readonly pattern: Pattern;
}

/** Bytes or packets that had passed at a time, when `total` are spread over the planned duration. */
function passed(total: number, connection: Connection, timeMs: number): number {
  const elapsed = Math.min(timeMs - connection.startMs, connection.plannedMs);
  return Math.floor((total * elapsed) / connection.plannedMs);
}

export class Traffic {
  readonly #options: EstateOptions;
  readonly #agents: readonly Agent[];
  readonly #patterns: readonly Pattern[];
  readonly #choice: WeightedChoice;
  readonly #connections: Connections;
  readonly #random: Random;
  readonly #plantedRandom: Random;
  readonly #planted: { readonly pattern: Pattern; nextMs: number }[];
  readonly #judge: Judge;
  readonly #bootId: string;
  readonly #startMs: number;
  /** Views that each agent has yet to report, and its last sequence. */
  readonly #open: View[][];
  readonly #sequences: Float64Array;
  /** Agents by the quantum of the interval in which they report. */
  readonly #turns: number[][];
  #begunCount = 0;
  #reportCount = 0;
  #owed = 0;

  constructor(
    context: DrawContext,
    patterns: readonly Pattern[],
    planted: readonly Planted[],
    options: EstateOptions,
    seed: string,
    judge: Judge,
  ) {
    this.#options = options;
    this.#judge = judge;
    this.#agents = context.agents;
    this.#patterns = patterns;
    this.#choice = new WeightedChoice(patterns.map((one) => one.weight));
    this.#random = new Random(seed, 'traffic');
    this.#plantedRandom = new Random(seed, 'planted');
    this.#connections = new Connections(context, options, this.#random);
    this.#startMs = options.startMs;
    this.#bootId = `estate-${options.startMs.toString(36)}`;
    this.#planted = planted.map(({ pattern }) => ({
      pattern,
      nextMs: options.startMs + 300 + this.#plantedRandom.below(1500),
    }));
    this.#open = context.agents.map(() => []);
    this.#sequences = new Float64Array(context.agents.length);
    const turnCount = options.intervalMs / quantumMs;
    this.#turns = Array.from({ length: turnCount }, () => []);
    const turns = new Random(seed, 'turns');
    for (const agent of context.agents) this.#turns[turns.below(turnCount)]?.push(agent.index);
  }

  /** What begins in `[fromMs, fromMs + quantum)`, in time order. */
  upcoming(fromMs: number, background: boolean): Upcoming[] {
    const list: Upcoming[] = [];
    const toMs = fromMs + quantumMs;
    for (const one of this.#planted) {
      while (one.nextMs < toMs) {
        list.push({ timeMs: one.nextMs, pattern: one.pattern });
        one.nextMs += this.#plantedRandom.between(10_000, 20_000);
      }
    }
    if (background) {
      // So many connections that their reports come to the wanted rate: how many each gives is learned on the way.
      const reportsEach = (1700 + this.#reportCount) / (1000 + this.#begunCount);
      this.#owed += (this.#options.flowsPerSecond * diurnal(fromMs) * quantumMs) / 1000 / reportsEach;
      for (; this.#owed >= 1; this.#owed--) {
        const pattern = this.#patterns[this.#choice.pick(this.#random)];
        if (pattern !== undefined) list.push({ timeMs: fromMs + this.#random.below(quantumMs), pattern });
      }
    }
    this.#connections.advance(fromMs);
    return list.sort((a, b) => a.timeMs - b.timeMs);
  }

  begin(upcoming: Upcoming): void {
    const views = this.#connections.begin(upcoming.pattern, upcoming.timeMs);
    if (views.length === 0) return;
    this.#begunCount++;
    this.#reportCount += views.length;
    for (const view of views) this.#open[view.agent]?.push(view);
  }

  /** Reports of the agents whose interval ends at `nowMs`, a whole number of quanta after the start. */
  report(nowMs: number, into: Reports): void {
    const turn = ((nowMs - this.#startMs) / quantumMs) % this.#turns.length;
    for (const agent of this.#turns[turn] ?? []) this.#reportAgent(agent, nowMs, into);
  }

  #reportAgent(index: number, toMs: number, into: Reports): void {
    const agent = this.#agents[index];
    const open = this.#open[index];
    if (agent === undefined || open === undefined || open.length === 0) return;
    const fromMs = Math.max(this.#startMs, toMs - this.#options.intervalMs);
    const goingOn: View[] = [];
    const due: View[] = [];
    for (const view of open) {
      const { connection } = view;
      const { source, destination } = connection;
      connection.endMs = Math.min(connection.endMs, source.untilMs, destination.untilMs);
      const lasts = connection.endMs > toMs;
      if (lasts) {
        goingOn.push(view);
        this.#connections.hold(view);
      }
      // What has only just begun waits for the next report: two of one second could not be told apart.
      const isNew = view.reportedToMs < 0 && isSameSecond(agent, connection.startMs, toMs);
      if (!(lasts && isNew)) due.push(view);
    }
    for (let first = 0; first < due.length; first += flowsPerBatchLimit)
      this.#batch(agent, due.slice(first, first + flowsPerBatchLimit), fromMs, toMs, into);
    this.#open[index] = goingOn;
  }

  #batch(agent: Agent, views: readonly View[], fromMs: number, toMs: number, into: Reports): void {
    const strings = new BatchStrings();
    const flows: Flow[] = [];
    const truth: Truth[] = [];
    for (const view of views) {
      const { connection } = view;
      const startMs = view.reportedToMs < 0 ? connection.startMs : view.reportedToMs;
      flows.push(this.#flow(view, agent, strings, fromMs, startMs, toMs));
      if (this.#options.truth) truth.push(this.#truth(view, agent, startMs));
      if (view.reportedToMs >= 0) this.#reportCount++;
      view.reportedToMs = toMs;
    }
    const sequence = (this.#sequences[agent.index] ?? 0) + 1;
    this.#sequences[agent.index] = sequence;
    into.batches.push({
      agentId: agent.id,
      bootId: this.#bootId,
      sequence,
      cluster: agent.cluster,
      node: agent.node,
      network: agent.network,
      sourceKind: 'estate',
      observedFromMs: fromMs + agent.clock.skewMs,
      observedToMs: toMs + agent.clock.skewMs,
      sourceDroppedCount: 0,
      samplingRate: 1,
      clockOffsetMs: agent.clock.offsetMs,
      clockErrorMs: agent.clock.errorMs,
      strings: strings.list,
      flows,
    });
    if (this.#options.truth) into.truth.push(truth);
  }

  #truth(view: View, agent: Agent, startMs: number): Truth {
    return truthOf(
      {
        agent: agent.id,
        side: view.side,
        source: view.source,
        sourcePort: view.sourcePort,
        sourceHinted: view.hinted && view.side === 'source',
        destination: view.destination,
        destinationPort: view.destinationPort,
        destinationHinted: view.hinted && view.side === 'destination',
        protocol: view.connection.pattern.protocol,
        startMs,
        shiftMs: agent.clock.skewMs - agent.clock.offsetMs,
        outcome: view.outcome,
      },
      this.#options.clockToleranceMs,
      this.#judge,
    );
  }

  #flow(
    view: View,
    agent: Agent,
    strings: BatchStrings,
    fromMs: number,
    startMs: number,
    toMs: number,
  ): Flow {
    const { connection } = view;
    const { pattern } = connection;
    const endMs = Math.min(connection.endMs, toMs);
    const first = view.reportedToMs < 0;
    const last = connection.endMs <= toMs;
    const during = (total: number): number =>
      passed(total, connection, endMs) - (first ? 0 : passed(total, connection, startMs));
    return {
      startMs: startMs - fromMs,
      durationMs: endMs - startMs,
      sourceAddress: view.source.address,
      sourcePort: view.sourcePort,
      destinationAddress: view.destination.address,
      destinationPort: view.destinationPort,
      protocol: pattern.protocol,
      originalDestinationAddress: view.original?.address ?? noBytes,
      originalDestinationPort: view.originalPort,
      reporter: view.side,
      bytesForward: during(connection.bytesForward),
      bytesReverse: during(connection.bytesReverse),
      packetsForward: during(connection.packetsForward),
      packetsReverse: during(connection.packetsReverse),
      connectionCount: first ? 1 : 0,
      flags: flagsOf(pattern, first, last),
      state: pattern.dropped ? 'refused' : last ? 'closed' : first ? 'new' : 'open',
      action: pattern.dropped ? 'dropped' : 'forwarded',
      actionReason: pattern.dropped ? strings.index('network-policy') : 0,
      dnsName: strings.index(view.side === 'source' ? pattern.dnsName : ''),
      processName: agent.sockets ? strings.index(processOf(view)) : 0,
      sourceHint: view.hinted && view.side === 'source' ? strings.index(view.source.uid) : 0,
      destinationHint: view.hinted && view.side === 'destination' ? strings.index(view.destination.uid) : 0,
    };
  }
}

/** Whether two true times are in one second of the time that the pipeline goes by. */
function isSameSecond({ clock }: Agent, oneMs: number, otherMs: number): boolean {
  const shiftMs = clock.skewMs - clock.offsetMs;
  return Math.floor((oneMs + shiftMs) / 1000) === Math.floor((otherMs + shiftMs) / 1000);
}

/** TCP flags (SYN 2, ACK 16, PSH 8, FIN 1) or the ICMP type (echo) times 256. */
function flagsOf(pattern: Pattern, first: boolean, last: boolean): number {
  if (pattern.protocol === icmp) return 8 * 256;
  if (pattern.protocol !== tcp) return 0;
  if (pattern.dropped) return 2;
  return (first ? 2 : 0) | 16 | 8 | (last ? 1 : 0);
}
