/** Counts what each rule carried, from rows of rollups where they suffice and from single flows where they don't. */
import { addressNumber } from './addresses.ts';
import { type Bits, type Matcher, nextCommon } from './matcher.ts';
import type { StaticRule } from './rule.ts';

/** Sums of one edge as one side reported it; times in Unix seconds. */
export interface EdgeRow {
  readonly src_identity: string;
  readonly dst_identity: string;
  /** As ClickHouse writes IPv6; `::` where a rollup does not tell. */
  readonly src_ip: string;
  readonly dst_ip: string;
  readonly dst_port: number;
  readonly protocol: number;
  readonly side: string;
  readonly flows: string;
  readonly connections: string;
  readonly bytes_forward: string;
  readonly bytes_reverse: string;
  readonly first_s: number;
  readonly last_s: number;
}

/** The same from single flows, by their addresses. */
export interface FlowRow extends EdgeRow {
  readonly src_workload: string;
  readonly dst_workload: string;
  /** Destination before NAT where a rule names it, else `::`. */
  readonly front_ip: string;
  readonly front_port: number;
}

/** Who had an address when it used a rule. */
export interface Owner {
  /** `workloads.id`; `0` for none. */
  readonly workload: string;
  /** `0` where only an address before NAT is known. */
  readonly identity: string;
  lastS: number;
}

/** An address that used a rule. */
export interface Seen {
  firstS: number;
  lastS: number;
  /** The one at `lastS` is the last to have used it. */
  readonly owners: Owner[];
}

export interface RuleTally {
  flows: number;
  firstS: number;
  lastS: number;
  /** By edge that is not settled: connections, bytes forward and reverse, of each side. */
  readonly edges: Map<string, Float64Array>;
  /** Sums of edges that are settled. */
  readonly settled: { connections: number; bytesForward: number; bytesReverse: number };
  /** By address; only of rules that allow. */
  readonly sources: Map<string, Seen>;
  readonly destinations: Map<string, Seen>;
  /** `protocol port` of what was seen. */
  readonly services: Set<string>;
  /** Identities at the destination, and `protocol port` there: behind NAT, as our own rules look at it. */
  readonly behind: { readonly identities: Set<string>; readonly services: Set<string> };
  /** Flows of rollups older than single flows, of which nobody can say whether they passed by it. */
  undecidedFlows: number;
  undecidedLastS: number;
}

export type MatchMode = 'first' | 'any';

const sidePlaces: Readonly<Record<string, number>> = { source: 0, destination: 3, middle: 6 };
/** `::` where a rollup keeps no address. */
const noAddress = '::';

function newTally(): RuleTally {
  return {
    flows: 0,
    firstS: Number.POSITIVE_INFINITY,
    lastS: 0,
    edges: new Map(),
    settled: { connections: 0, bytesForward: 0, bytesReverse: 0 },
    sources: new Map(),
    destinations: new Map(),
    services: new Set(),
    behind: { identities: new Set(), services: new Set() },
    undecidedFlows: 0,
    undecidedLastS: 0,
  };
}

/** What a rollup row says: the rules it counts for, or that single flows have to tell. */
export type Decision = readonly number[] | 'unclear';

export class Tally {
  readonly rules: readonly RuleTally[];
  readonly #rules: readonly StaticRule[];
  readonly #matcher: Matcher;
  readonly #mode: MatchMode;
  /** Classes of addresses by their text, as the same ones come again and again. */
  readonly #sourceClasses = new Map<string, number>();
  readonly #destinationClasses = new Map<string, number>();
  readonly #decisions = new Map<string, Decision>();

  constructor(rules: readonly StaticRule[], matcher: Matcher, mode: MatchMode) {
    this.#rules = rules;
    this.#matcher = matcher;
    this.#mode = mode;
    this.rules = rules.map(newTally);
  }

  #classOf(text: string, end: 'source' | 'destination'): number {
    const known = end === 'source' ? this.#sourceClasses : this.#destinationClasses;
    let found = known.get(text);
    if (found === undefined) {
      const address = addressNumber(text) ?? 0n;
      found = end === 'source' ? this.#matcher.sourceClass(address) : this.#matcher.destinationClass(address);
      known.set(text, found);
    }
    return found;
  }

  #set(index: number): Bits | null {
    return this.#matcher.sets[index] ?? null;
  }

  /**
   * The rules that a row of a rollup counts for, in their order. Unclear where an address that it doesn't keep decides, or
   * would have to be told of a rule that allows.
   */
  decide(row: EdgeRow): Decision {
    const source = row.src_ip === noAddress ? -1 : this.#classOf(row.src_ip, 'source');
    const destination = row.dst_ip === noAddress ? -1 : this.#classOf(row.dst_ip, 'destination');
    const service = this.#matcher.serviceClass(row.protocol, row.dst_port);
    const key = `${source} ${destination} ${service}`;
    let decision = this.#decisions.get(key);
    if (decision === undefined) {
      decision = this.#decide(source, destination, service);
      this.#decisions.set(key, decision);
    }
    return decision;
  }

  #decide(source: number, destination: number, service: number): Decision {
    const { ruleCount, anySource, anyDestination } = this.#matcher;
    const possible = [
      source < 0 ? null : this.#set(source),
      destination < 0 ? null : this.#set(destination),
      this.#set(service),
    ];
    const certain = [source < 0 ? anySource : null, destination < 0 ? anyDestination : null];
    const out: number[] = [];
    for (
      let rule = nextCommon(ruleCount, 0, possible);
      rule >= 0;
      rule = nextCommon(ruleCount, rule + 1, possible)
    ) {
      const isHidden = source < 0 || destination < 0;
      if (isHidden && this.#rules[rule]?.action === 'allow') return 'unclear';
      if (nextCommon(ruleCount, rule, certain) !== rule) return 'unclear';
      out.push(rule);
      if (this.#ends(rule)) break;
    }
    return out;
  }

  /** The rules that might have carried a row, with all that is hidden open. */
  candidates(row: EdgeRow): number[] {
    const source = row.src_ip === noAddress ? null : this.#set(this.#classOf(row.src_ip, 'source'));
    const destination = row.dst_ip === noAddress ? null : this.#set(this.#classOf(row.dst_ip, 'destination'));
    const sets = [source, destination, this.#set(this.#matcher.serviceClass(row.protocol, row.dst_port))];
    const out: number[] = [];
    const { ruleCount } = this.#matcher;
    for (let rule = nextCommon(ruleCount, 0, sets); rule >= 0; rule = nextCommon(ruleCount, rule + 1, sets))
      out.push(rule);
    return out;
  }

  /** Whether a flow that matches the rule goes no further. */
  #ends(rule: number): boolean {
    return this.#mode === 'first' && this.#rules[rule]?.conditions.length === 0;
  }

  /** Whether a rule names this destination before NAT, with its port, so that single flows to it have to be looked at. */
  namesFront(address: string, protocol: number, port: number): boolean {
    const { ruleCount, namedDestination } = this.#matcher;
    const sets = [
      this.#set(this.#classOf(address, 'destination')),
      namedDestination,
      this.#set(this.#matcher.serviceClass(protocol, port)),
    ];
    return nextCommon(ruleCount, 0, sets) >= 0;
  }

  /** Counts a row of a rollup for the rules that {@link decide} gave. */
  addEdge(row: EdgeRow, rules: readonly number[]): void {
    for (const rule of rules) this.#count(rule, row, row.src_ip, row.dst_ip, null);
  }

  /** Adds up the edges that were counted, of which no more rows come, and lets go of them. */
  settle(): void {
    for (const tally of this.rules) {
      if (tally.edges.size === 0) continue;
      const { connections, bytesForward, bytesReverse } = hitsOf(tally);
      Object.assign(tally.settled, { connections, bytesForward, bytesReverse });
      tally.edges.clear();
    }
  }

  /** Counts a row for nobody: it is older than single flows, and one of them would have to tell. */
  addUndecided(row: EdgeRow): void {
    for (const rule of this.candidates(row)) {
      const tally = this.rules[rule];
      if (tally === undefined) continue;
      tally.undecidedFlows += Number(row.flows);
      tally.undecidedLastS = Math.max(tally.undecidedLastS, row.last_s);
    }
  }

  /** Counts single flows; false where no rule matches. */
  addFlow(row: FlowRow): boolean {
    const { ruleCount, namedDestination } = this.#matcher;
    const source = this.#set(this.#classOf(row.src_ip, 'source'));
    const direct = [
      source,
      this.#set(this.#classOf(row.dst_ip, 'destination')),
      this.#set(this.#matcher.serviceClass(row.protocol, row.dst_port)),
    ];
    const front =
      row.front_ip === noAddress
        ? null
        : [
            source,
            this.#set(this.#classOf(row.front_ip, 'destination')),
            namedDestination,
            this.#set(this.#matcher.serviceClass(row.protocol, row.front_port)),
          ];
    const next = (from: number): { rule: number; isFront: boolean } => {
      const rule = nextCommon(ruleCount, from, direct);
      const other = front === null ? -1 : nextCommon(ruleCount, from, front);
      return other >= 0 && (rule < 0 || other < rule)
        ? { rule: other, isFront: true }
        : { rule, isFront: false };
    };
    const src = row.src_workload === '0' ? row.src_ip : noAddress;
    const dst = row.dst_workload === '0' ? row.dst_ip : noAddress;
    let isMatched = false;
    for (let { rule, isFront } = next(0); rule >= 0; { rule, isFront } = next(rule + 1)) {
      this.#count(rule, row, src, dst, { row, isFront });
      isMatched = true;
      if (this.#ends(rule)) break;
    }
    return isMatched;
  }

  #count(
    rule: number,
    row: EdgeRow,
    src: string,
    dst: string,
    flow: { readonly row: FlowRow; readonly isFront: boolean } | null,
  ): void {
    const tally = this.rules[rule];
    if (tally === undefined) return;
    tally.flows += Number(row.flows);
    tally.firstS = Math.min(tally.firstS, row.first_s);
    tally.lastS = Math.max(tally.lastS, row.last_s);
    const key = `${row.src_identity} ${row.dst_identity} ${src} ${dst} ${row.dst_port} ${row.protocol}`;
    let sums = tally.edges.get(key);
    if (sums === undefined) {
      sums = new Float64Array(9);
      tally.edges.set(key, sums);
    }
    const at = sidePlaces[row.side] ?? 6;
    sums[at] = (sums[at] ?? 0) + Number(row.connections);
    sums[at + 1] = (sums[at + 1] ?? 0) + Number(row.bytes_forward);
    sums[at + 2] = (sums[at + 2] ?? 0) + Number(row.bytes_reverse);
    if (this.#rules[rule]?.action !== 'allow') return;
    const owners = flow?.row;
    see(tally.sources, row.src_ip, row, owners?.src_workload ?? '0', row.src_identity);
    if (flow?.isFront === true) see(tally.destinations, flow.row.front_ip, row, '0', '0');
    else see(tally.destinations, row.dst_ip, row, owners?.dst_workload ?? '0', row.dst_identity);
    const port = flow?.isFront === true ? flow.row.front_port : row.dst_port;
    tally.services.add(`${row.protocol} ${port}`);
    tally.behind.identities.add(row.dst_identity);
    tally.behind.services.add(`${row.protocol} ${row.dst_port}`);
  }
}

function see(
  into: Map<string, Seen>,
  address: string,
  row: EdgeRow,
  workload: string,
  identity: string,
): void {
  let seen = into.get(address);
  if (seen === undefined) {
    seen = { firstS: row.first_s, lastS: row.last_s, owners: [] };
    into.set(address, seen);
  }
  seen.firstS = Math.min(seen.firstS, row.first_s);
  seen.lastS = Math.max(seen.lastS, row.last_s);
  const owner = seen.owners.find((one) => one.workload === workload && one.identity === identity);
  if (owner === undefined) seen.owners.push({ workload, identity, lastS: row.last_s });
  else owner.lastS = Math.max(owner.lastS, row.last_s);
}

export interface Hits {
  readonly connections: number;
  readonly flows: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
}

/** Sums over edges; of each edge the larger of its sides. */
export function hitsOf({ flows, edges, settled }: RuleTally): Hits {
  const larger = (sums: Float64Array, of: number): number =>
    Math.max(sums[of] ?? 0, sums[of + 3] ?? 0, sums[of + 6] ?? 0);
  let { connections, bytesForward, bytesReverse } = settled;
  for (const sums of edges.values()) {
    connections += larger(sums, 0);
    bytesForward += larger(sums, 1);
    bytesReverse += larger(sums, 2);
  }
  return { connections, flows, bytesForward, bytesReverse };
}
