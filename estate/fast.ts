/**
 * Encoded batches as fast as a core can make them, for benches: the same patterns, agents and distributions as the traffic
 * with truth, on the pods of one moment. The bytes are Avro (1.11, binary encoding) written by hand; a test reads them with avsc.
 */
import { currentFrame } from '../lib/wire/flow-batch.ts';
import type { Agent } from './agents.ts';
import type { EstateOptions } from './config.ts';
import { type DrawContext, drawEnd, ephemeralPort } from './connections.ts';
import type { Endpoint } from './ends.ts';
import { icmp, type Party, type Pattern, shapes, tcp } from './patterns.ts';
import { Random, WeightedChoice } from './random.ts';
import { pickRequest } from './routine.ts';

export interface EncodedBatchOptions {
  /** Flows in all. */
  readonly count: number;
  readonly flowsPerBatch: number;
  /** Simulated rate: how far time goes on with each flow. Default 100,000. */
  readonly flowsPerSecond?: number;
}

export interface EncodedBatch {
  /** Key of the message. */
  readonly agentId: string;
  readonly sequence: number;
  readonly flowCount: number;
  readonly message: Buffer;
}

/** Most bytes of one encoded flow: five texts by index, three addresses of 16 bytes, and numbers. */
const maxFlowBytes = 192;

class AvroWriter {
  #buffer: Buffer;
  #at = 0;

  constructor(size: number) {
    this.#buffer = Buffer.allocUnsafe(size);
  }

  reset(): void {
    this.#at = 0;
  }

  /** A copy of what was written. */
  take(): Buffer {
    return Buffer.from(this.#buffer.subarray(0, this.#at));
  }

  /** Makes room for `size` more bytes. */
  reserve(size: number): void {
    if (this.#at + size <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + size));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }

  raw(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** An int or long: zigzag makes it non-negative, then 7 bits a byte, low first. */
  long(value: number): void {
    const buffer = this.#buffer;
    let at = this.#at;
    let rest = value < 0 ? -value * 2 - 1 : value * 2;
    while (rest > 0x7fffffff) {
      buffer[at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    while (rest > 127) {
      buffer[at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    buffer[at++] = rest;
    this.#at = at;
  }

  /** An address: `bytes` with its length. */
  address(bytes: Buffer): void {
    this.#buffer[this.#at++] = bytes.length * 2;
    for (let i = 0; i < bytes.length; i++) this.#buffer[this.#at++] = bytes[i] ?? 0;
  }

  text(text: string): void {
    const bytes = Buffer.from(text, 'utf8');
    this.reserve(bytes.length + 10);
    this.long(bytes.length);
    this.raw(bytes);
  }
}

/** What an agent can see: its own endpoints, each with the patterns it takes part in. */
interface Outlook {
  readonly agent: Agent;
  readonly local: Endpoint[];
  readonly patterns: Pattern[];
  /** 1 where the local end is the source. */
  readonly outgoing: number[];
  readonly dnsIndexes: number[];
  readonly choice: WeightedChoice;
  /** Encoded array of strings. */
  readonly strings: Buffer;
  sequence: number;
}

interface Candidate {
  readonly pattern: Pattern;
  readonly outgoing: boolean;
  readonly weight: number;
}

interface Candidates {
  readonly ofDeployment: readonly Candidate[][];
  readonly ofGroup: readonly Candidate[][];
  readonly ofNodes: readonly Candidate[][];
}

function partySize(party: Party): number {
  switch (party.type) {
    case 'pods':
      return party.deployment.slotCount;
    case 'machines':
      return party.group.count;
    case 'nodes':
      return party.cluster.nodeCount;
    case 'fixed':
      return party.endpoints.length;
  }
}

/** For each kind of local end, the patterns in which its agent would report it, weighed for one end. */
function collect(context: DrawContext, patterns: readonly Pattern[], options: EstateOptions): Candidates {
  const { world } = context.pods;
  const lists = (count: number): Candidate[][] => Array.from({ length: count }, () => []);
  const found = {
    ofDeployment: lists(world.deployments.length),
    ofGroup: lists(world.groups.length),
    ofNodes: lists(world.clusters.length),
  };
  const listOf = (party: Party): Candidate[] | undefined => {
    if (party.type === 'pods') return found.ofDeployment[party.deployment.index];
    if (party.type === 'machines') return found.ofGroup[party.group.index];
    return party.type === 'nodes' ? found.ofNodes[party.cluster.index] : undefined;
  };
  for (const pattern of patterns) {
    const { source, destination, reportedBy } = pattern;
    const alone = source.type === 'fixed' || destination.type === 'fixed' || reportedBy !== 'either';
    const sourceShare = reportedBy === 'destination' ? 0 : alone ? 1 : 1 - options.destinationOnlyShare;
    const destinationShare = reportedBy === 'source' ? 0 : alone ? 1 : 1 - options.sourceOnlyShare;
    const weigh = (share: number, party: Party): number => (pattern.weight * share) / partySize(party);
    if (sourceShare > 0)
      listOf(source)?.push({ pattern, outgoing: true, weight: weigh(sourceShare, source) });
    // A machine that sees the node instead of the pod is left to the traffic with truth.
    if (destinationShare > 0 && pattern.masqueraded === null)
      listOf(destination)?.push({ pattern, outgoing: false, weight: weigh(destinationShare, destination) });
  }
  return found;
}

function weightOf(candidates: readonly Candidate[] | undefined): number {
  return (candidates ?? []).reduce((sum, one) => sum + one.weight, 0);
}

class Outlooks {
  readonly #context: DrawContext;
  readonly #candidates: Candidates;
  readonly #slotsOfNode: number[][];
  readonly #known = new Map<number, Outlook>();

  constructor(context: DrawContext, patterns: readonly Pattern[], options: EstateOptions) {
    this.#context = context;
    this.#candidates = collect(context, patterns, options);
    const { pods } = context;
    const { world } = pods;
    this.#slotsOfNode = Array.from({ length: world.nodeCount }, () => []);
    for (let slot = 0; slot < world.slotCount; slot++) {
      if (!pods.isAlive(slot)) continue;
      const node = pods.deploymentOf(slot).namespace.cluster.firstNode + pods.nodeOf(pods.placeOf(slot));
      this.#slotsOfNode[node]?.push(slot);
    }
  }

  /** How much each agent reports, relative to the others. */
  weights(): number[] {
    const { pods, agents } = this.#context;
    const { ofDeployment, ofGroup, ofNodes } = this.#candidates;
    const deployments = ofDeployment.map(weightOf);
    return agents.map((agent) => {
      const { place } = agent;
      if ('group' in place) return weightOf(ofGroup[place.group.index]) * place.count;
      let weight = weightOf(ofNodes[place.cluster.index]);
      for (const slot of this.#slotsOfNode[agent.index] ?? [])
        weight += deployments[pods.deploymentOf(slot).index] ?? 0;
      return weight;
    });
  }

  of(agent: Agent): Outlook {
    let outlook = this.#known.get(agent.index);
    if (outlook === undefined) {
      outlook = this.#make(agent);
      this.#known.set(agent.index, outlook);
    }
    return outlook;
  }

  #make(agent: Agent): Outlook {
    const { pods, directory } = this.#context;
    const { place } = agent;
    const local: Endpoint[] = [];
    const chosen: Candidate[] = [];
    const add = (
      endpointFor: (candidate: Candidate) => Endpoint,
      candidates: readonly Candidate[] | undefined,
    ): void => {
      for (const candidate of candidates ?? []) {
        local.push(endpointFor(candidate));
        chosen.push(candidate);
      }
    };
    if ('group' in place) {
      const { group } = place;
      for (let machine = place.first; machine < place.first + place.count; machine++) {
        add(({ pattern: { source }, outgoing }) => {
          const ipv6 = outgoing && source.type === 'machines' && source.ipv6 === true;
          return ipv6 ? directory.machine6(group, machine) : directory.machine(group, machine);
        }, this.#candidates.ofGroup[group.index]);
      }
    } else {
      const node = directory.node(place.cluster, place.node);
      add(() => node, this.#candidates.ofNodes[place.cluster.index]);
      for (const slot of this.#slotsOfNode[agent.index] ?? [])
        add(() => pods.endpoint(slot), this.#candidates.ofDeployment[pods.deploymentOf(slot).index]);
    }
    const names = [
      '',
      'network-policy',
      ...new Set(chosen.map(({ pattern }) => pattern.dnsName).filter((name) => name !== '')),
    ];
    const indexes = new Map(names.map((name, index) => [name, index]));
    const strings = new AvroWriter(1024);
    strings.long(names.length);
    for (const name of names) strings.text(name);
    strings.reserve(1);
    strings.long(0);
    return {
      agent,
      local,
      patterns: chosen.map(({ pattern }) => pattern),
      outgoing: chosen.map(({ outgoing }) => (outgoing ? 1 : 0)),
      dnsIndexes: chosen.map(({ pattern }) => indexes.get(pattern.dnsName) ?? 0),
      choice: new WeightedChoice(chosen.map(({ weight }) => weight)),
      strings: strings.take(),
      sequence: 0,
    };
  }
}

/** Factors of log-normal distributions with sigma 1, drawn once: a table is as good and several times faster. */
function normalTable(random: Random): Float64Array {
  return Float64Array.from({ length: 65_536 }, () => random.normal());
}

/** Yields `count` flows in batches of agents drawn by how much they report. Deterministic for the estate and its time. */
export function* encodedBatches(
  context: DrawContext,
  patterns: readonly Pattern[],
  options: EstateOptions,
  nowMs: number,
  given: EncodedBatchOptions,
): Generator<EncodedBatch> {
  const random = new Random(String(options.seed), `fast/${nowMs}`);
  const normals = normalTable(random);
  const outlooks = new Outlooks(context, patterns, options);
  const agentChoice = new WeightedChoice(outlooks.weights());
  const writer = new AvroWriter(given.flowsPerBatch * maxFlowBytes + 65_536);
  const bootId = `fast-${nowMs.toString(36)}`;
  const flowsPerMs = (given.flowsPerSecond ?? 100_000) / 1000;
  for (let done = 0; done < given.count; ) {
    const agent = context.agents[agentChoice.pick(random)];
    if (agent === undefined) continue;
    const outlook = outlooks.of(agent);
    const flowCount = Math.min(given.flowsPerBatch, given.count - done);
    const fromMs = nowMs + Math.floor(done / flowsPerMs);
    writer.reset();
    writer.raw(currentFrame);
    writer.text(agent.id);
    writer.text(bootId);
    writer.long(++outlook.sequence);
    writer.text(agent.cluster);
    writer.text(agent.node);
    writer.text(agent.network);
    writer.text('estate');
    writer.long(fromMs + agent.clock.skewMs);
    writer.long(fromMs + agent.clock.skewMs + options.intervalMs);
    writer.long(0);
    writer.long(1);
    writer.long(agent.clock.offsetMs);
    writer.long(agent.clock.errorMs);
    writer.reserve(outlook.strings.length + 16 + flowCount * maxFlowBytes);
    writer.raw(outlook.strings);
    writer.long(flowCount);
    for (let i = 0; i < flowCount; i++)
      writeFlow(writer, outlook, context, random, normals, options.intervalMs);
    writer.long(0);
    done += flowCount;
    yield { agentId: agent.id, sequence: outlook.sequence, flowCount, message: writer.take() };
  }
}

/** Codes of the enums in the schema. */
const reporterCode = { source: 0, destination: 1 } as const;
const stateCode = { closed: 3, refused: 5 } as const;
const actionCode = { forwarded: 1, dropped: 2 } as const;

function writeFlow(
  writer: AvroWriter,
  outlook: Outlook,
  context: DrawContext,
  random: Random,
  normals: Float64Array,
  intervalMs: number,
): void {
  const pick = outlook.choice.pick(random);
  const pattern = outlook.patterns[pick];
  const local = outlook.local[pick];
  if (pattern === undefined || local === undefined)
    throw new RangeError('an agent without anything to report');
  const outgoing = outlook.outgoing[pick] === 1;
  // A deployment whose pods are all about to be replaced is stood in for by the local end.
  const remote = drawEnd(outgoing ? pattern.destination : pattern.source, context, random) ?? local;
  const shape = shapes[pattern.shape];
  const bits = random.bits();
  const spread = (median: number, sigma: number, index: number): number =>
    Math.max(40, Math.round(median * Math.exp(sigma * (normals[index] ?? 0))));
  const request = pattern.requests.length === 0 ? null : pickRequest(pattern, random);
  const forward = pattern.dropped
    ? 60
    : (request?.forward ?? spread(shape.forwardMedian, shape.bytesSigma, bits & 0xffff));
  const reverse = pattern.dropped
    ? 0
    : (request?.reverse ?? spread(shape.reverseMedian, shape.bytesSigma, bits >>> 16));
  const startMs = random.below(intervalMs);
  const drawn =
    shape.durationMedianMs * Math.exp(shape.durationSigma * (normals[random.bits() & 0xffff] ?? 0));
  const durationMs = Math.min(intervalMs - startMs, Math.round(drawn));
  const sockets = outlook.agent.sockets && outgoing;
  const { front } = pattern;
  const frontOnly = front !== null && outgoing && (sockets || pattern.frontAt === 'load-balancer');
  const translated = front !== null && !frontOnly && outgoing === (pattern.frontAt === 'cluster');
  const source = outgoing ? local : remote;
  const destination = frontOnly ? front : outgoing ? remote : local;
  const handshake = pattern.protocol === tcp ? 3 : 0;
  writer.long(startMs);
  writer.long(durationMs);
  writer.address(source.address);
  writer.long(pattern.protocol === icmp ? 0 : ephemeralPort(random));
  writer.address(destination.address);
  writer.long(frontOnly ? pattern.frontPort : pattern.port);
  writer.long(pattern.protocol);
  if (translated) writer.address(front.address);
  else writer.long(0);
  writer.long(translated ? pattern.frontPort : 0);
  writer.long(outgoing ? reporterCode.source : reporterCode.destination);
  writer.long(forward);
  writer.long(reverse);
  writer.long(handshake + Math.ceil(forward / 900));
  writer.long(reverse === 0 ? 0 : handshake + Math.ceil(reverse / 900));
  writer.long(1);
  writer.long(pattern.protocol === tcp ? (pattern.dropped ? 2 : 27) : pattern.protocol === icmp ? 2048 : 0);
  writer.long(pattern.dropped ? stateCode.refused : stateCode.closed);
  writer.long(pattern.dropped ? actionCode.dropped : actionCode.forwarded);
  writer.long(pattern.dropped ? 1 : 0);
  writer.long(outgoing ? (outlook.dnsIndexes[pick] ?? 0) : 0);
  writer.long(0);
  writer.long(0);
  writer.long(0);
}
