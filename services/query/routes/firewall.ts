/** POST /api/v1/firewall/audit: which static rules are used, by whom, and which could be torn down. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { addressNumber } from '../../../lib/firewall/addresses.ts';
import { auditRule, firewallVerdicts, type RuleAudit } from '../../../lib/firewall/audit.ts';
import {
  appOf,
  type Catalogue,
  type Holder,
  holderStates,
  type IdentityInfo,
  type Interval,
  namedAddresses,
} from '../../../lib/firewall/holders.ts';
import { type Bits, type Matcher, makeMatcher, nextCommon } from '../../../lib/firewall/matcher.ts';
import { readRules } from '../../../lib/firewall/read.ts';
import { firewallActions, type RuleFile, ruleFormats, type StaticRule } from '../../../lib/firewall/rule.ts';
import { findShadows } from '../../../lib/firewall/shadow.ts';
import { type EdgeRow, type FlowRow, type MatchMode, Tally } from '../../../lib/firewall/tally.ts';
import { Completeness, isoMsOrNull, isoOrNull, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { type FlowFilter, type Window, windowFilter } from '../filters.ts';
import { toFlowFilter, windowParameters } from '../parameters.ts';
import { ProblemError } from '../problem.ts';
import { type DraftPage, draftPages, type PortRows, portRowsSql } from '../sql/draft.ts';
import {
  type EdgeId,
  edgeRowsSql,
  flowRowsSql,
  frontEdgesSql,
  frontsSql,
  heldSql,
  identitiesSql,
  intervalsSql,
  oldestSql,
} from '../sql/firewall.ts';
import { type EdgePlan, planEdges } from '../sql/plan.ts';
import { bodyLimitOf, clientSignal, routeSchema } from './route.ts';

/** Audits at once at most: each holds a page of edges. */
const maxConcurrent = 2;
/** Rows of rollups that one page reads, roughly. */
const pageRows = 200_000;
/** Longest body, bytes. */
const maxBodyBytes = 16 * 1024 * 1024;
/** Most rules of one audit. */
const maxRules = 20_000;
/** Problems of a file that a refusal lists. */
const maxProblems = 200;
/** Edges, and flows of them by the rollups, that are asked of single flows in one statement. */
const chunkEdges = 2000;
const chunkFlows = 2_000_000;
/** Addresses in one statement: a parameter of ClickHouse has 128 KiB. */
const chunkAddresses = 1500;
/** Apps that hold addresses of a rule now, as listed. */
const maxApps = 20;

const AuditBody = Type.Object(
  {
    rules: Type.String({ minLength: 1, description: 'The rules, as text of one of the formats.' }),
    format: Type.Optional(
      Type.Enum([...ruleFormats], {
        description: `One of ${ruleFormats.join(', ')}; found out when absent.`,
      }),
    ),
    chain: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 256,
        description: 'Chain of nftables or iptables to audit; what is forwarded when absent.',
      }),
    ),
    match: Type.Optional(
      Type.Enum(['first', 'any'], {
        description:
          'first (when absent): a flow counts for the first rule that matches, as in the firewall. any: for every one.',
      }),
    ),
    ...windowParameters,
  },
  { additionalProperties: false },
);
type AuditBody = Static<typeof AuditBody>;

const count = (description: string) => Type.Integer({ minimum: 0, description });
const texts = (description: string) => Type.Array(Type.String(), { description });
const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

const WhoAnswer = Type.Object({
  kind: Type.String(),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  network: Type.String(),
  labels: Type.Record(Type.String(), Type.String()),
});
const HolderAnswer = Type.Object({
  end: Type.Enum(['source', 'destination']),
  address: Type.String(),
  state: Type.Enum([...holderStates]),
  lastUsed: nullable('Last matching flow, ISO 8601.'),
  before: Type.Union([WhoAnswer, Type.Null()], {
    description: 'Who had it at that flow; without one, whoever had it last, if nobody has it now.',
  }),
  beforeUntil: nullable('When that one gave it up; null while it has it.'),
  now: Type.Array(WhoAnswer),
});
const Extent = Type.Object({
  open: Type.Number({ description: 'How many the rule opens.' }),
  used: Type.Number({ description: 'How many of them were used.' }),
});
const RuleAnswer = Type.Object({
  line: Type.Integer(),
  action: Type.Enum([...firewallActions]),
  source: texts('Addresses and CIDRs, or any.'),
  destination: texts('The same.'),
  port: texts('Ports with protocols, or any.'),
  comment: Type.String(),
  columns: Type.Record(Type.String(), Type.String(), { description: 'Further columns, as they are.' }),
  verdict: Type.Enum([...firewallVerdicts], { description: 'The main one.' }),
  verdicts: Type.Array(Type.Enum([...firewallVerdicts]), {
    description: 'All that hold, the main one first.',
  }),
  notes: texts('What else is to be known of it.'),
  hits: Type.Object({
    connections: count('Connections: of each edge the larger of both sides.'),
    flows: count('Reports, of all sides.'),
    bytesForward: count('Bytes from source to destination.'),
    bytesReverse: count('Bytes back.'),
  }),
  firstSeen: nullable('First matching flow, ISO 8601.'),
  lastSeen: nullable('Last matching flow, ISO 8601.'),
  holders: Type.Array(HolderAnswer, {
    description: 'Addresses that the rule names one by one; of rules that allow.',
  }),
  holdersOmitted: count('Such addresses that are not listed.'),
  heldNow: Type.Object({
    sources: Type.Record(Type.String(), Type.Integer(), {
      description: 'Workloads that have its sources now, by app.',
    }),
    destinations: Type.Record(Type.String(), Type.Integer()),
  }),
  breadth: Type.Union([
    Type.Object({ sources: Extent, destinations: Extent, ports: Extent, isBroader: Type.Boolean() }),
    Type.Null(),
  ]),
  narrowest: Type.Union(
    [
      Type.Object({
        source: texts('Addresses and CIDRs.'),
        destination: texts('The same.'),
        port: texts('Ports.'),
      }),
      Type.Null(),
    ],
    { description: 'The narrowest rule that would still carry what was seen.' },
  ),
  equivalent: Type.Union(
    [
      Type.Object({ rule: Type.Unknown({ description: 'A rule of our policy language.' }) }),
      Type.Object({ why: Type.String({ description: 'Why there is none.' }) }),
      Type.Null(),
    ],
    { description: 'The same in labels, where all hits agree.' },
  ),
  shadowedBy: Type.Array(Type.Integer(), { description: 'Lines of the earlier rules that take all of it.' }),
  conditions: texts('Conditions that flows do not tell.'),
});
const AuditAnswer = Type.Object({
  format: Type.Enum([...ruleFormats]),
  match: Type.Enum(['first', 'any']),
  window: WindowAnswer,
  table: Type.String({ description: 'Tables that answered.' }),
  singleFlowsSince: nullable(
    'Since when single flows are kept, where the window begins before; null otherwise.',
  ),
  edgesRead: count('Rows of rollups.'),
  flowRowsRead: count('Rows of single flows, summed by address.'),
  unmatchedFlows: count('Reports that no rule matched, of those that could be told.'),
  summary: Type.Record(Type.Enum([...firewallVerdicts]), Type.Integer(), {
    description: 'Rules by main verdict.',
  }),
  rules: Type.Array(RuleAnswer),
  ignored: Type.Array(Type.Object({ line: Type.Integer(), text: Type.String(), reason: Type.String() }), {
    description: 'Lines that are not audited, and why.',
  }),
  completeness: Completeness,
});

function readBody(body: AuditBody): RuleFile {
  const file = readRules(body.rules, body);
  if (file.problems.length > 0) {
    const listed = file.problems.slice(0, maxProblems);
    const rest = file.problems.length - listed.length;
    throw new ProblemError('bad-body', [...listed, ...(rest > 0 ? [`and ${rest} more`] : [])].join('\n'), {
      parameter: 'rules',
    });
  }
  if (file.rules.length > maxRules)
    throw new ProblemError(
      'too-large',
      `${file.rules.length} rules; at most ${maxRules} are audited at once`,
    );
  return file;
}

/** A part of the window that is answered in one way. */
interface Part {
  readonly plan: EdgePlan;
  /** Whether single flows of it are kept. */
  readonly hasFlows: boolean;
}

interface Oldest {
  readonly flows_s: number;
  readonly relabel_s: number;
  readonly late_s: number;
  readonly hours_s: number;
}

const day = 86_400;

/**
 * Since when single flows are all there; 0 where rollups don't go further back either. They are dropped by days, a day
 * after their time at the earliest: of the oldest day that is past, some may be dropped already.
 */
function flowsSince(oldest: Oldest, nowMs: number): number {
  const times = [oldest.flows_s, oldest.relabel_s, oldest.late_s].filter((time) => time > 0);
  const first = Math.min(...times);
  if (times.length === 0) return 0;
  const begun = Math.floor(first / day) * day;
  if (oldest.hours_s === 0 || oldest.hours_s >= begun) return 0;
  return (begun + day) * 1000 <= nowMs ? begun + day : begun;
}

function partsOf(filter: FlowFilter, oldest: Oldest, context: RouteContext): Part[] {
  const { nowMs } = context.clock();
  const since = flowsSince(oldest, nowMs);
  const plan = (window: Window): EdgePlan => planEdges({ ...filter, window }, nowMs, context.kept);
  const { sinceS, untilS } = filter.window;
  if (since <= sinceS) return [{ plan: plan(filter.window), hasFlows: true }];
  if (untilS !== null && untilS <= since) return [{ plan: plan(filter.window), hasFlows: false }];
  return [
    { plan: plan({ sinceS, untilS: since }), hasFlows: false },
    { plan: plan({ sinceS: since, untilS }), hasFlows: true },
  ];
}

type Ask = <T>(statement: { sql: string; params: Readonly<Record<string, unknown>> }) => Promise<T[]>;

const edgeText = ({ src_identity, dst_identity, dst_port, protocol }: EdgeId): string =>
  `${dst_identity} ${dst_port} ${src_identity} ${protocol}`;

interface Counted {
  edgesRead: number;
  flowRowsRead: number;
  unmatchedFlows: number;
  readonly tables: Set<string>;
}

/** Edges behind destinations before NAT that rules name: only single flows tell these. */
async function readFrontEdges(ask: Ask, window: Window, tally: Tally): Promise<EdgeId[]> {
  const seen = await ask<{ address: string; port: number; protocol: number }>(frontsSql(window));
  const named = seen.filter(({ address, port, protocol }) => tally.namesFront(address, protocol, port));
  const fronts = [...new Set(named.map(({ address }) => address))].sort();
  const edges: EdgeId[] = [];
  for (let at = 0; at < fronts.length; at += chunkAddresses)
    edges.push(...(await ask<EdgeId>(frontEdgesSql(window, fronts.slice(at, at + chunkAddresses)))));
  return edges;
}

interface Wanted extends EdgeId {
  flows: number;
}

/** Edges in chunks by destination, as single flows are sorted; an edge is in one chunk. */
function* chunksOf(edges: readonly Wanted[]): Generator<Wanted[]> {
  let chunk: Wanted[] = [];
  let flows = 0;
  for (const edge of edges) {
    if (chunk.length > 0 && (chunk.length >= chunkEdges || flows + edge.flows > chunkFlows)) {
      yield chunk;
      chunk = [];
      flows = 0;
    }
    chunk.push(edge);
    flows += edge.flows;
  }
  if (chunk.length > 0) yield chunk;
}

/** Destinations and ports of all parts in pages of so many rows of rollups; a port of a destination is never divided. */
async function readPages(ask: Ask, parts: readonly Part[]): Promise<DraftPage[]> {
  const rows = new Map<string, PortRows>();
  for (const { plan } of parts) {
    for (const port of await ask<PortRows>(portRowsSql(windowFilter(plan.window), plan))) {
      const key = `${port.d} ${port.p}`;
      const known = rows.get(key);
      rows.set(key, known === undefined ? port : { ...port, n: String(Number(port.n) + Number(known.n)) });
    }
  }
  return draftPages([...rows.values()].sort(comparePorts), pageRows);
}

function comparePorts(a: Pick<PortRows, 'd' | 'p'>, b: Pick<PortRows, 'd' | 'p'>): number {
  const [left, right] = [BigInt(a.d), BigInt(b.d)];
  return left === right ? a.p - b.p : left < right ? -1 : 1;
}

/** Whether an edge is in the page, or lies before the next one. */
function isBefore({ dst_identity, dst_port }: EdgeId, { to }: DraftPage): boolean {
  return comparePorts({ d: dst_identity, p: dst_port }, to) <= 0;
}

/** A page of a part: rollups where they are exact, single flows where not, and for these `fronts`. */
async function countPage(
  ask: Ask,
  { plan, hasFlows }: Part,
  page: DraftPage,
  fronts: readonly EdgeId[],
  tally: Tally,
  counted: Counted,
): Promise<void> {
  const wanted = new Map<string, Wanted>(fronts.map((edge) => [edgeText(edge), { ...edge, flows: 0 }]));
  const rows = await ask<EdgeRow>(edgeRowsSql(plan, page));
  counted.edgesRead += rows.length;
  for (const row of rows) {
    const known = wanted.get(edgeText(row));
    if (known !== undefined) known.flows += Number(row.flows);
    else if (tally.decide(row) === 'unclear') {
      const { src_identity, dst_identity, dst_port, protocol } = row;
      wanted.set(edgeText(row), { src_identity, dst_identity, dst_port, protocol, flows: Number(row.flows) });
    }
  }
  for (const row of rows) {
    if (wanted.has(edgeText(row))) {
      if (!hasFlows) tally.addUndecided(row);
      continue;
    }
    const decision = tally.decide(row);
    if (decision === 'unclear') continue;
    if (decision.length === 0) counted.unmatchedFlows += Number(row.flows);
    tally.addEdge(row, decision);
  }
  if (!hasFlows || wanted.size === 0) return;
  counted.tables.add('flows');
  const sorted = [...wanted].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, edge]) => edge);
  for (const chunk of chunksOf(sorted)) {
    const flows = await ask<FlowRow>(flowRowsSql(plan.window, chunk));
    counted.flowRowsRead += flows.length;
    for (const row of flows) if (!tally.addFlow(row)) counted.unmatchedFlows += Number(row.flows);
  }
}

/** Counts a window page by page: of an edge all rows of all parts are in one, so that it is settled behind it. */
async function countParts(ask: Ask, parts: readonly Part[], tally: Tally, counted: Counted): Promise<void> {
  const left = new Map<Part, EdgeId[]>();
  for (const part of parts) {
    for (const { table } of part.plan.parts) counted.tables.add(table);
    left.set(part, part.hasFlows ? await readFrontEdges(ask, part.plan.window, tally) : []);
  }
  for (const page of await readPages(ask, parts)) {
    for (const part of parts) {
      const { true: fronts = [], false: later = [] } = Object.groupBy(left.get(part) ?? [], (edge) =>
        isBefore(edge, page) ? 'true' : 'false',
      );
      left.set(part, later);
      await countPage(ask, part, page, fronts, tally, counted);
    }
    tally.settle();
  }
}

type IntervalRow = Omit<Interval, 'fromMs' | 'toMs'> & {
  readonly address: string;
  readonly from_ms: string;
  readonly to_ms: string;
};
interface IdentityRow {
  readonly id: string;
  readonly src_kind: string;
  readonly src_cluster: string;
  readonly src_namespace: string;
  readonly src_name: string;
  readonly src_labels: Readonly<Record<string, string>>;
}

async function readCatalogue(ask: Ask, rules: readonly StaticRule[], nowMs: number): Promise<Catalogue> {
  const named = new Set(
    rules.flatMap((rule) =>
      rule.action === 'allow' ? [...namedAddresses(rule.source), ...namedAddresses(rule.destination)] : [],
    ),
  );
  const list = [...named];
  const intervals = new Map<string, Interval[]>();
  for (let at = 0; at < list.length; at += chunkAddresses) {
    for (const { address, from_ms, to_ms, ...rest } of await ask<IntervalRow>(
      intervalsSql(list.slice(at, at + chunkAddresses)),
    )) {
      const known = intervals.get(address);
      const interval = { ...rest, fromMs: Number(from_ms), toMs: Number(to_ms) };
      if (known === undefined) intervals.set(address, [interval]);
      else known.push(interval);
    }
  }
  const identities = new Map<string, IdentityInfo>();
  for (const row of await ask<IdentityRow>(identitiesSql)) {
    const labels = Object.fromEntries(Object.entries(row.src_labels).filter(([, value]) => value !== ''));
    identities.set(row.id, {
      kind: row.src_kind,
      cluster: row.src_cluster,
      namespace: row.src_namespace,
      name: row.src_name,
      labels,
    });
  }
  return { intervals, identities, nowMs };
}

interface HeldRow {
  readonly address: string;
  readonly identity: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly workloads: string;
}

type HeldNow = RuleAudit['heldNow'];

type Apps = Map<string, number>;

function addTo(apps: Apps, app: string, workloads: number): void {
  apps.set(app, (apps.get(app) ?? 0) + workloads);
}

/** Sums of classes of addresses, added up for each rule that is in the set of the class. */
function appsByRule(classes: ReadonlyMap<number, Apps>, matcher: Matcher, named: Bits): Map<number, Apps> {
  const out = new Map<number, Apps>();
  const { ruleCount, sets } = matcher;
  for (const [found, apps] of classes) {
    const both = [sets[found] ?? null, named];
    for (let rule = nextCommon(ruleCount, 0, both); rule >= 0; rule = nextCommon(ruleCount, rule + 1, both)) {
      const sums = out.get(rule) ?? new Map<string, number>();
      out.set(rule, sums);
      for (const [app, workloads] of apps) addTo(sums, app, workloads);
    }
  }
  return out;
}

function topApps(apps: Apps | undefined): Record<string, number> {
  return Object.fromEntries([...(apps ?? [])].sort((a, b) => b[1] - a[1]).slice(0, maxApps));
}

/** Who has the addresses of each rule now, by app; of an end that is open, nobody. */
async function readHeld(
  ask: Ask,
  matcher: Matcher,
  catalogue: Catalogue,
): Promise<(rule: StaticRule) => HeldNow> {
  const sources = new Map<number, Apps>();
  const destinations = new Map<number, Apps>();
  const add = (classes: Map<number, Apps>, found: number, app: string, workloads: number): void => {
    const apps = classes.get(found) ?? new Map<string, number>();
    classes.set(found, apps);
    addTo(apps, app, workloads);
  };
  for (const row of await ask<HeldRow>(heldSql(catalogue.nowMs))) {
    const address = addressNumber(row.address) ?? 0n;
    const app = appOf({ ...row, labels: catalogue.identities.get(row.identity)?.labels ?? {} });
    add(sources, matcher.sourceClass(address), app, Number(row.workloads));
    add(destinations, matcher.destinationClass(address), app, Number(row.workloads));
  }
  const from = appsByRule(sources, matcher, matcher.namedSource);
  const to = appsByRule(destinations, matcher, matcher.namedDestination);
  return ({ index }) => ({ sources: topApps(from.get(index)), destinations: topApps(to.get(index)) });
}

/** Times as people and programs read them; the schema of the answer is held by tests. */
function holderAnswer({ lastUsedS, beforeUntilMs, ...holder }: Holder) {
  return {
    ...holder,
    lastUsed: lastUsedS === null ? null : isoOrNull(lastUsedS),
    beforeUntil: beforeUntilMs === null ? null : isoMsOrNull(beforeUntilMs),
  };
}

function ruleAnswer({ firstS, lastS, holders, ...audit }: RuleAudit) {
  return {
    ...audit,
    holders: holders.map(holderAnswer),
    firstSeen: firstS === null ? null : isoOrNull(firstS),
    lastSeen: lastS === null ? null : isoOrNull(lastS),
  };
}

async function audit(context: RouteContext, body: AuditBody, signal: AbortSignal) {
  const { format, rules, ignored } = readBody(body);
  const { since, until } = body;
  const times = { ...(since === undefined ? {} : { since }), ...(until === undefined ? {} : { until }) };
  const filter = toFlowFilter(times, context.clock());
  const { nowMs } = context.clock();
  const ask: Ask = (statement) => context.ask(statement, signal);
  const matcher = makeMatcher(rules);
  const mode: MatchMode = body.match ?? 'first';
  const tally = new Tally(rules, matcher, mode);
  const [oldest] = await ask<Oldest>(oldestSql);
  const parts = partsOf(filter, oldest ?? { flows_s: 0, relabel_s: 0, late_s: 0, hours_s: 0 }, context);
  const counted: Counted = { edgesRead: 0, flowRowsRead: 0, unmatchedFlows: 0, tables: new Set() };
  await countParts(ask, parts, tally, counted);
  const catalogue = await readCatalogue(ask, rules, nowMs);
  const heldNow = await readHeld(ask, matcher, catalogue);
  // Among rules of which a flow counts for each, none hides another.
  const shadows = mode === 'first' ? findShadows(rules, matcher) : [];
  const audits = rules.map((rule, index) => {
    const counts = tally.rules[index];
    if (counts === undefined) throw new RangeError(`no counts of rule ${index}`);
    return auditRule({
      rule,
      tally: counts,
      shadow: shadows[index] ?? null,
      lineOf: (of) => rules[of]?.line ?? 0,
      catalogue,
      heldNow: heldNow(rule),
    });
  });
  const first = parts[0]?.plan.window ?? filter.window;
  const last = parts.at(-1)?.plan.window ?? filter.window;
  const window = { sinceS: first.sinceS, untilS: last.untilS };
  return {
    format,
    match: mode,
    window: windowAnswer(window),
    table: [...counted.tables].sort().join('+'),
    singleFlowsSince: parts[0]?.hasFlows === false ? isoOrNull(last.sinceS) : null,
    edgesRead: counted.edgesRead,
    flowRowsRead: counted.flowRowsRead,
    unmatchedFlows: counted.unmatchedFlows,
    summary: Object.fromEntries(
      firewallVerdicts.map((verdict) => [verdict, audits.filter((one) => one.verdict === verdict).length]),
    ),
    rules: audits.map(ruleAnswer),
    ignored,
    completeness: await context.completeness(window, signal),
  };
}

export function firewallRoutes(app: FastifyInstance, context: RouteContext): void {
  let running = 0;
  const schema = routeSchema({
    tag: 'firewall',
    summary: 'Which static firewall rules are used, by whom, and which could be torn down',
    description:
      'Rules in CSV, nftables or iptables-save. Edges of rollups answer where they are exact, single flows where an address decides that they do not keep.',
    body: AuditBody,
    answer: AuditAnswer,
  });
  app.post<{ Body: AuditBody }>(
    '/api/v1/firewall/audit',
    { schema, ...bodyLimitOf(maxBodyBytes) },
    async (request, reply) => {
      if (running >= maxConcurrent)
        throw new ProblemError('too-many-queries', `${running} audits are under way already`, {
          retryAfterSeconds: 5,
        });
      running++;
      try {
        return await audit(context, request.body, clientSignal(reply));
      } finally {
        running--;
      }
    },
  );
}
