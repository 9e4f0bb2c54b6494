/** Draws connections from patterns, and works out what each agent sees of them. */
import type { Side } from '../schemas/closed-lists.ts';
import type { Agent } from './agents.ts';
import type { EstateOptions } from './config.ts';
import type { Directory } from './directory.ts';
import type { Endpoint } from './ends.ts';
import { icmp, type Outcome, type Party, type Pattern, shapes } from './patterns.ts';
import type { Pods } from './pods.ts';
import type { Random } from './random.ts';
import { pickRequest } from './routine.ts';

export interface Connection {
  readonly pattern: Pattern;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly startMs: number;
  /** Earlier than planned when one end is gone before. */
  endMs: number;
  /** Time over which bytes and packets are spread, ms, at least 1. */
  readonly plannedMs: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
  readonly packetsForward: number;
  readonly packetsReverse: number;
}

/** A connection as one agent sees it. */
export interface View {
  readonly connection: Connection;
  readonly agent: number;
  readonly side: Side;
  readonly source: Endpoint;
  readonly sourcePort: number;
  readonly destination: Endpoint;
  readonly destinationPort: number;
  /** Destination before translation, where this agent saw it translated. */
  readonly original: Endpoint | null;
  readonly originalPort: number;
  readonly outcome: Outcome;
  readonly hinted: boolean;
  /** End of what this agent has reported of it, ms; -1 before the first report. */
  reportedToMs: number;
  /** Unique among the connections around this time. */
  readonly key: number;
}

export interface DrawContext {
  readonly pods: Pods;
  readonly directory: Directory;
  readonly agents: readonly Agent[];
}

const longestMs = 3_600_000;
const largestBytes = 2 ** 40;
const segmentBytes = 900;
const firstEphemeralPort = 32_768;
const lastEphemeralPort = 60_999;

/** Somebody of the party who is there now, or null while nobody is. */
export function drawEnd(party: Party, context: DrawContext, random: Random): Endpoint | null {
  switch (party.type) {
    case 'pods': {
      const slot = context.pods.pick(party.deployment, random);
      return slot < 0 ? null : context.pods.endpoint(slot);
    }
    case 'machines': {
      const machine = party.group.first + random.below(party.group.count);
      return party.ipv6 === true
        ? context.directory.machine6(party.group, machine)
        : context.directory.machine(party.group, machine);
    }
    case 'nodes':
      return context.directory.node(party.cluster, random.below(party.cluster.nodeCount));
    case 'fixed':
      return party.endpoints[random.below(party.endpoints.length)] ?? null;
  }
}

export function ephemeralPort(random: Random): number {
  return random.between(firstEphemeralPort, lastEphemeralPort);
}

function amount(median: number, sigma: number, random: Random): number {
  return Math.min(largestBytes, Math.max(40, Math.round(random.logNormal(median, sigma))));
}

function drawConnection(
  pattern: Pattern,
  source: Endpoint,
  destination: Endpoint,
  startMs: number,
  random: Random,
): Connection {
  const shape = shapes[pattern.shape];
  if (pattern.dropped) {
    const tries = random.between(1, 4);
    const endMs = Math.min(startMs + tries * 900, source.untilMs, destination.untilMs);
    return {
      pattern,
      source,
      destination,
      startMs,
      endMs,
      plannedMs: Math.max(1, endMs - startMs),
      bytesForward: tries * 60,
      bytesReverse: 0,
      packetsForward: tries,
      packetsReverse: 0,
    };
  }
  const long = random.next() < shape.longShare;
  const drawn = long
    ? random.logNormal(shape.longMedianMs, 0.9)
    : random.logNormal(shape.durationMedianMs, shape.durationSigma);
  const plannedMs = Math.min(longestMs, Math.max(1, Math.round(drawn)));
  // What stays open longer carries more, though not in proportion.
  const factor = long ? 8 : 1;
  const request = pickRequest(pattern, random);
  const bytesForward = request?.forward ?? amount(shape.forwardMedian * factor, shape.bytesSigma, random);
  const bytesReverse = request?.reverse ?? amount(shape.reverseMedian * factor, shape.bytesSigma, random);
  const handshake = pattern.protocol === 6 ? 3 : 0;
  return {
    pattern,
    source,
    destination,
    startMs,
    endMs: Math.min(startMs + plannedMs, source.untilMs, destination.untilMs),
    plannedMs,
    bytesForward,
    bytesReverse,
    packetsForward: handshake + Math.ceil(bytesForward / segmentBytes),
    packetsReverse: handshake + Math.ceil(bytesReverse / segmentBytes),
  };
}

/** Makes connections, with the views of those who report them. */
export class Connections {
  readonly #context: DrawContext;
  readonly #options: EstateOptions;
  readonly #random: Random;
  /** Keys in use, in two generations: a key is not given again for at least one period. */
  #recent = new Set<number>();
  #older = new Set<number>();
  #rotateMs = 0;
  readonly #periodMs: number;

  constructor(context: DrawContext, options: EstateOptions, random: Random) {
    this.#context = context;
    this.#options = options;
    this.#random = random;
    this.#periodMs = Math.max(30_000, 2 * options.intervalMs);
  }

  /** Forgets keys that are long out of use. To be called as time goes on. */
  advance(nowMs: number): void {
    if (nowMs < this.#rotateMs) return;
    this.#older = this.#recent;
    this.#recent = new Set();
    this.#rotateMs = nowMs + this.#periodMs;
  }

  /** Keeps the key of a connection that goes on. */
  hold(view: View): void {
    this.#recent.add(view.key);
  }

  #agent(index: number): Agent | null {
    return index < 0 ? null : (this.#context.agents[index] ?? null);
  }

  /** A source port that is free for the pair (the wanted one, if it is not -1), or null. ICMP has 0, once in a while. */
  #claim(
    source: Endpoint,
    destination: Endpoint,
    side: number,
    wanted: number,
  ): { port: number; key: number } | null {
    for (let attempt = wanted < 0 ? 8 : 1; attempt > 0; attempt--) {
      const port = wanted < 0 ? ephemeralPort(this.#random) : wanted;
      // 17 bits each for the addresses, 16 for the port, 1 for the side: exact in a double.
      const pair = (source.number * 65_536 + port) * 131_072 + (destination.number % 131_072);
      const key = pair * 2 + side;
      if (this.#recent.has(key) || this.#older.has(key)) continue;
      this.#recent.add(key);
      return { port, key };
    }
    return null;
  }

  /** One connection of the pattern at a time; no views where an end is not there at the moment. */
  begin(pattern: Pattern, startMs: number): View[] {
    const random = this.#random;
    const source = drawEnd(pattern.source, this.#context, random);
    const destination = drawEnd(pattern.destination, this.#context, random);
    if (source === null || destination === null || source === destination) return [];
    const connection = drawConnection(pattern, source, destination, startMs, random);
    const { atSource, atDestination } = this.#reporters(pattern, source, destination);
    const views: View[] = [];
    let sourcePort = -1;
    if (atSource !== null) {
      const view = this.#fromSource(connection, atSource);
      if (view === null) return [];
      sourcePort = view.sourcePort;
      views.push(view);
    }
    if (atDestination !== null) {
      const view = this.#fromDestination(connection, atDestination, sourcePort);
      if (view !== null) views.push(view);
    }
    return views;
  }

  #reporters(pattern: Pattern, source: Endpoint, destination: Endpoint) {
    const atSource = this.#agent(source.agent);
    const atDestination = this.#agent(destination.agent);
    if (pattern.reportedBy === 'source') return { atSource, atDestination: null };
    if (pattern.reportedBy === 'destination') return { atSource: null, atDestination };
    if (atSource === null || atDestination === null) return { atSource, atDestination };
    const draw = this.#random.next();
    const { sourceOnlyShare, destinationOnlyShare } = this.#options;
    if (draw < sourceOnlyShare) return { atSource, atDestination: null };
    if (draw < sourceOnlyShare + destinationOnlyShare) return { atSource: null, atDestination };
    return { atSource, atDestination };
  }

  #hinted(): boolean {
    return this.#random.next() < this.#options.hintShare;
  }

  #fromSource(connection: Connection, agent: Agent): View | null {
    const { pattern, source } = connection;
    const { front } = pattern;
    // Sockets name the service that was called; so does whoever is not the one to translate.
    const frontOnly = front !== null && (agent.sockets || pattern.frontAt === 'load-balancer');
    const destination = frontOnly ? front : connection.destination;
    const claim = this.#claim(source, destination, 0, pattern.protocol === icmp ? 0 : -1);
    if (claim === null) return null;
    const translated = front !== null && !frontOnly;
    return {
      connection,
      agent: agent.index,
      side: 'source',
      source,
      sourcePort: claim.port,
      destination,
      destinationPort: frontOnly ? pattern.frontPort : pattern.port,
      original: translated ? front : null,
      originalPort: translated ? pattern.frontPort : 0,
      outcome: pattern.outcome,
      hinted: source.uid !== '' && this.#hinted(),
      reportedToMs: -1,
      key: claim.key,
    };
  }

  #fromDestination(connection: Connection, agent: Agent, sourcePort: number): View | null {
    const { pattern, destination } = connection;
    const node = pattern.masqueraded === null ? null : (pattern.entryNode ?? this.#nodeOf(connection.source));
    const source = node ?? connection.source;
    // Both ends of a connection see one source port, unless it was translated between them.
    const claim = this.#claim(source, destination, 1, node === null ? sourcePort : -1);
    if (claim === null) return null;
    const translated = pattern.front !== null && pattern.frontAt === 'load-balancer' && !agent.sockets;
    return {
      connection,
      agent: agent.index,
      side: 'destination',
      source,
      sourcePort: claim.port,
      destination,
      destinationPort: pattern.port,
      original: translated ? pattern.front : null,
      originalPort: translated ? pattern.frontPort : 0,
      outcome: node === null ? pattern.outcome : (pattern.masqueraded ?? pattern.outcome),
      hinted: destination.uid !== '' && this.#hinted(),
      reportedToMs: -1,
      key: claim.key,
    };
  }

  #nodeOf(source: Endpoint): Endpoint | null {
    const agent = this.#agent(source.agent);
    if (agent === null || !('node' in agent.place)) return null;
    return this.#context.directory.node(agent.place.cluster, agent.place.node);
  }
}
