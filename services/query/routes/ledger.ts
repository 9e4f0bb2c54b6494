/** GET /api/v1/ledger: what arrived, what is missing, what was dropped, and how late. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { Completeness, isoMsOrNull, isoOrNull, WindowAnswer, windowAnswer } from '../answers.ts';
import { readSuspects, readTotals, type TotalsRow } from '../completeness.ts';
import type { RouteContext } from '../context.ts';
import type { Window } from '../filters.ts';
import { toWindow, windowParameters } from '../parameters.ts';
import { isSilent, readSources } from '../sources.ts';
import { ledgerAgentsSql, ledgerCausesSql, ledgerGapsSql, namingSql, repairsSql } from '../sql/ledger.ts';
import { lastReportsSql, ledgerNodesSql, passedEndS, type ReportState, reportStates } from '../sql/nodes.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Most gaps that are listed. */
const maxGaps = 1_000;

const LedgerParameters = parameters({
  ...windowParameters,
  limit: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 10_000,
      description: 'Most agents and most nodes, 1000 when absent.',
    }),
  ),
});

const count = (description: string) => Type.Integer({ minimum: 0, description });
const nullable = Type.Union([Type.String(), Type.Null()]);
const milliseconds = (description: string) => Type.Union([Type.Number(), Type.Null()], { description });

const share = (description: string) =>
  Type.Union([Type.Number({ minimum: 0, maximum: 1 }), Type.Null()], {
    description: `${description}, 0 to 1; null where there were none.`,
  });

const LedgerAnswer = Type.Object({
  totals: Type.Object({
    batches: count('Batches read from the bus.'),
    batchesWritten: count('Batches whose flows are in the store.'),
    batchesResent: count('Second copies, left out.'),
    batchesDead: count('Batches that could not be used; see causes.'),
    batchesMissing: count('Numbers that never came.'),
    flowsReceived: count('Flows in written batches.'),
    flowsWritten: count('Flows in the store.'),
    flowsResent: count('Flows of second copies, left out.'),
    flowsRefused: count('Flows left out for a cause.'),
    flowsDroppedAtSource: count('Flows that sources lost before the agent saw them.'),
    delayMsP50: milliseconds('From the end of a flow to queryable, median over flows.'),
    delayMsP99: milliseconds('The same, 99th percentile.'),
  }),
  naming: Type.Object(
    {
      flows: count('Flows of the window, whole minutes.'),
      pending: count('Came before the inventory was complete: their names may still change.'),
      oldestPending: Type.Union([Type.String(), Type.Null()], {
        description: 'Minute in which the oldest of these began.',
      }),
      repaired: count('Flows that were named anew in the window, when the inventory had come.'),
      ambiguous: count('Settled, with an end whose address several may have had.'),
      late: count('Settled without a complete inventory: the name of an end is a guess.'),
      unnamed: count('Settled, with an end whose address nobody is known to have had.'),
      unresolved: count('Settled, with any of the three.'),
      unresolvedShare: share('Share of settled flows that are unresolved'),
    },
    { description: 'How flows were named, by the time they began.' },
  ),
  sources: Type.Array(
    Type.Object({
      source: Type.String(),
      completeTo: nullable,
      behindMs: milliseconds('How far that is behind the end of the window.'),
      silent: Type.Boolean({ description: 'Whether that is more than `query.sourceSilentAfterSeconds`.' }),
    }),
    { description: 'Sources of inventory and how far each vouches for itself, the furthest behind first.' },
  ),
  causes: Type.Array(
    Type.Object({ cause: Type.String(), batches: count('Dead batches.'), flows: count('Refused flows.') }),
  ),
  agents: Type.Array(
    Type.Object({
      agent: Type.String(),
      cluster: Type.String(),
      node: Type.String(),
      source: Type.String({ description: 'Where its flows come from: conntrack, procfs, estate, ...' }),
      state: Type.Enum(['reporting', 'silent', 'gone'], {
        description: 'At the end of the window; gone with its node, by the inventory.',
      }),
      lastReceived: nullable,
      samplingRate: Type.Integer({ minimum: 1, description: 'It looked at one of so many; 1 is all.' }),
      boots: count('Times it began to count anew.'),
      batches: count('Batches written.'),
      flows: count('Flows received.'),
      batchesResent: count('Second copies.'),
      batchesMissing: count('Numbers that never came.'),
      flowsDropped: count('Lost at the source.'),
      flowsRefused: count('Left out for a cause.'),
    }),
  ),
  agentsTotal: count('Agents in all, before the limit.'),
  nodes: Type.Array(
    Type.Object({
      cluster: Type.String(),
      node: Type.String(),
      state: Type.Enum([...reportStates], {
        description:
          'At the end of the window. never-reported: in the inventory, and the ledger knows no batch of it; gone: its inventory ended.',
      }),
      inInventory: Type.Boolean({ description: 'Whether the inventory knows it as a node of a cluster.' }),
      agents: count('Agents that sent from it, in the window or shortly before.'),
      lastReceived: nullable,
    }),
    { description: 'Where agents report from, or should; what is amiss first.' },
  ),
  nodesTotal: count('Nodes in all, before the limit.'),
  gaps: Type.Array(
    Type.Object({
      agent: Type.String(),
      boot: Type.String(),
      firstMissing: Type.String({ description: 'Sequence.' }),
      lastMissing: Type.String({ description: 'Sequence.' }),
      missing: count('How many.'),
      noticed: Type.Union([Type.String(), Type.Null()], { description: 'When the next one was received.' }),
      from: Type.Union([Type.String(), Type.Null()], {
        description: 'End of what the one before had observed; null where there was none in this boot.',
      }),
      to: Type.Union([Type.String(), Type.Null()], { description: 'Begin of what the next one observed.' }),
    }),
    {
      description:
        'Missing sequences per agent and boot, the newest first: those between batches of which one was received in the window, or one before and one after it. A number that came since is not missing.',
    },
  ),
  window: WindowAnswer,
  completeness: Completeness,
});

interface CauseRow {
  readonly cause_name: string;
  readonly batches_dead: string;
  readonly flows_refused: string;
}
interface AgentRow {
  readonly agent_name: string;
  readonly cluster_name: string;
  readonly node_name: string;
  readonly kind: string;
  readonly last_ms: string;
  readonly state: 'reporting' | 'silent' | 'gone';
  readonly sampling: number;
  readonly batches: string;
  readonly flows_received: string;
  readonly batches_resent: string;
  readonly flows_dropped: string;
  readonly flows_refused: string;
  readonly batches_missing: string;
  readonly boots: string;
  readonly total: string;
}
interface GapRow {
  readonly agent_name: string;
  readonly boot: string;
  readonly first_missing: string;
  readonly last_missing: string;
  readonly missing: string;
  readonly noticed_ms: string;
  readonly from_ms: string;
  readonly to_ms: string;
}
interface NodeRow {
  readonly cluster_name: string;
  readonly node_name: string;
  readonly agents: string;
  readonly last_ms: string;
  readonly is_listed: number;
  readonly state: ReportState;
  readonly total: string;
}

interface NamingRow {
  readonly flows_named: string;
  readonly flows_pending: string;
  readonly flows_ambiguous: string;
  readonly flows_late: string;
  readonly flows_unnamed: string;
  readonly flows_unresolved: string;
  readonly oldest_pending_s: number | null;
}
interface RepairsRow {
  readonly flows_repaired: string;
}

function namingOf(
  row: NamingRow | undefined,
  repairs: RepairsRow | undefined,
): Static<typeof LedgerAnswer>['naming'] {
  const flows = Number(row?.flows_named ?? 0);
  const pending = Number(row?.flows_pending ?? 0);
  const unresolved = Number(row?.flows_unresolved ?? 0);
  return {
    flows,
    pending,
    oldestPending: isoOrNull(row?.oldest_pending_s ?? 0),
    repaired: Number(repairs?.flows_repaired ?? 0),
    ambiguous: Number(row?.flows_ambiguous ?? 0),
    late: Number(row?.flows_late ?? 0),
    unnamed: Number(row?.flows_unnamed ?? 0),
    unresolved,
    unresolvedShare: flows === pending ? null : unresolved / (flows - pending),
  };
}

function totalsOf(
  row: TotalsRow | undefined,
  delaysMs: readonly (number | null)[],
  batchesMissing: number,
): Static<typeof LedgerAnswer>['totals'] {
  return {
    batches: Number(row?.batches_read ?? 0),
    batchesWritten: Number(row?.batches_written ?? 0),
    batchesResent: Number(row?.batches_resent ?? 0),
    batchesDead: Number(row?.batches_dead ?? 0),
    batchesMissing,
    flowsReceived: Number(row?.flows_received ?? 0),
    flowsWritten: Number(row?.flows_written ?? 0),
    flowsResent: Number(row?.flows_resent ?? 0),
    flowsRefused: Number(row?.flows_refused ?? 0),
    flowsDroppedAtSource: Number(row?.flows_dropped_at_source ?? 0),
    delayMsP50: delaysMs[0] ?? null,
    delayMsP99: delaysMs[1] ?? null,
  };
}

function agentOf(row: AgentRow): Static<typeof LedgerAnswer>['agents'][number] {
  return {
    agent: row.agent_name,
    cluster: row.cluster_name,
    node: row.node_name,
    source: row.kind,
    state: row.state,
    lastReceived: isoMsOrNull(row.last_ms),
    samplingRate: row.sampling,
    boots: Number(row.boots),
    batches: Number(row.batches),
    flows: Number(row.flows_received),
    batchesResent: Number(row.batches_resent),
    batchesMissing: Number(row.batches_missing),
    flowsDropped: Number(row.flows_dropped),
    flowsRefused: Number(row.flows_refused),
  };
}

/** Nodes; of those that seem never to have reported it is looked up whether they did long ago. */
async function readNodes(
  context: RouteContext,
  window: Window,
  nowS: number,
  limit: number,
  signal: AbortSignal,
): Promise<Pick<Static<typeof LedgerAnswer>, 'nodes' | 'nodesTotal'>> {
  const rows = await context.ask<NodeRow>(ledgerNodesSql(window, nowS, context.ledger, limit), signal);
  const unheard = rows
    .filter(({ state }) => state === 'never-reported')
    .map(({ cluster_name, node_name }) => ({ cluster: cluster_name, node: node_name }));
  const before =
    unheard.length === 0
      ? []
      : await context.ask<Pick<NodeRow, 'cluster_name' | 'node_name' | 'last_ms'>>(
          lastReportsSql(unheard, passedEndS(window, nowS)),
          signal,
        );
  const lastMs = new Map(before.map((row) => [`${row.cluster_name}\n${row.node_name}`, row.last_ms]));
  return {
    nodes: rows.map((row) => {
      const long = lastMs.get(`${row.cluster_name}\n${row.node_name}`);
      return {
        cluster: row.cluster_name,
        node: row.node_name,
        state: long === undefined ? row.state : 'silent',
        inInventory: row.is_listed === 1,
        agents: Number(row.agents),
        lastReceived: isoMsOrNull(long ?? row.last_ms),
      };
    }),
    nodesTotal: Number(rows[0]?.total ?? 0),
  };
}

export function ledgerRoutes(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'ledger',
    summary: 'What arrived, what is missing, what was dropped, and how late',
    description: 'Batches are counted by when the bus took them.',
    querystring: LedgerParameters,
    answer: LedgerAnswer,
  });
  app.get<{ Querystring: Static<typeof LedgerParameters> }>(
    '/api/v1/ledger',
    { schema },
    async (request, reply) => {
      const clock = context.clock();
      const nowS = Math.floor(clock.nowMs / 1000);
      const signal = clientSignal(reply);
      const window = toWindow(request.query, clock);
      const endMs = Math.min(window.untilS === null ? clock.nowMs : window.untilS * 1000, clock.nowMs);
      const limit = request.query.limit ?? 1_000;
      const suspects = await readSuspects(context, window, signal);
      const [{ totals, delaysMs }, naming, repairs, sources, causes, agents, nodes, gaps, completeness] =
        await Promise.all([
          readTotals(context, window, signal),
          context.ask<NamingRow>(namingSql(window), signal),
          context.ask<RepairsRow>(repairsSql(window), signal),
          readSources(context, signal),
          context.ask<CauseRow>(ledgerCausesSql(window), signal),
          context.ask<AgentRow>(ledgerAgentsSql(window, nowS, context.ledger, suspects, limit), signal),
          readNodes(context, window, nowS, limit, signal),
          context.ask<GapRow>(ledgerGapsSql(window, context.ledger, suspects, maxGaps), signal),
          context.completeness(window, signal),
        ]);
      return {
        totals: totalsOf(totals, delaysMs, completeness.batchesMissing),
        naming: namingOf(naming[0], repairs[0]),
        sources: sources.map((source) => ({
          source: source.source,
          completeTo: isoMsOrNull(source.completeToMs),
          behindMs: Math.max(0, endMs - source.completeToMs),
          silent: isSilent(source, endMs, context.sourceSilentAfterMs),
        })),
        causes: causes.map((row) => ({
          cause: row.cause_name,
          batches: Number(row.batches_dead),
          flows: Number(row.flows_refused),
        })),
        agents: agents.map(agentOf),
        agentsTotal: Number(agents[0]?.total ?? 0),
        ...nodes,
        gaps: gaps.map((row) => ({
          agent: row.agent_name,
          boot: row.boot,
          firstMissing: row.first_missing,
          lastMissing: row.last_missing,
          missing: Number(row.missing),
          noticed: isoMsOrNull(row.noticed_ms),
          from: isoMsOrNull(row.from_ms),
          to: isoMsOrNull(row.to_ms),
        })),
        window: windowAnswer(window),
        completeness,
      };
    },
  );
}
