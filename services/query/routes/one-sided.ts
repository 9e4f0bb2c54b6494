/** GET /api/v1/one-sided: what one side saw and the other did not. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { Completeness, Connection, listFields, tableField, windowAnswer } from '../answers.ts';
import { type ConnectionRow, connectionOf } from '../connections.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import { workloadNames } from '../evidence.ts';
import type { FlowFilter } from '../filters.ts';
import {
  type Absence,
  absenceMeanings,
  absenceOf,
  absences,
  Counterparts,
  type OneSided,
} from '../one-sided.ts';
import { flowParameters, labelParameters, pageParameters, toFlowFilter, toPage } from '../parameters.ts';
import { type ReportersOf, readReporters } from '../reporters.ts';
import { type EndSide, endSides, oneSidedSql } from '../sql/one-sided.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Most one-sided connections that are looked into for one answer. */
const maxCandidates = 20_000;

const meanings = absences.map((state) => `${state}: ${absenceMeanings[state]}`).join('; ');

const OneSidedParameters = parameters(
  {
    ...flowParameters,
    ...pageParameters,
    seen_by: Type.Optional(
      Type.Enum([...endSides], {
        description: 'Side that saw it: source for what never arrived, destination for what was never sent.',
      }),
    ),
    state: Type.Optional(
      Type.Enum([...absences, 'any'], {
        description: `Why the other side did not report; not-seen when absent. ${meanings}.`,
      }),
    ),
  },
  labelParameters,
);

const OneSidedAnswer = Type.Object({
  items: Type.Array(
    Type.Object({
      ...Connection.properties,
      seenBy: Type.Enum([...endSides], { description: 'The side that reported it.' }),
      state: Type.Enum([...absences], { description: meanings }),
      missing: Type.Array(Type.String(), { description: 'Agents that report for the other side.' }),
      refused: Type.Integer({ description: 'Reports of it being refused.' }),
      timedOut: Type.Integer({ description: 'Reports of it ending without an answer.' }),
    }),
  ),
  states: Type.Object(
    Object.fromEntries(
      absences.map((state) => [state, Type.Integer({ description: absenceMeanings[state] })]),
    ),
    {
      description:
        'How many of each state; connections without a workload at the other side count only if asked for.',
    },
  ),
  truncated: Type.Boolean({
    description: `Whether there were more than ${maxCandidates} one-sided connections, of which the oldest were not looked into.`,
  }),
  ...listFields,
  ...tableField,
  completeness: Completeness,
});
type Item = Static<typeof OneSidedAnswer>['items'][number];

interface OneSidedRow extends ConnectionRow {
  readonly seen_by: EndSide;
  readonly settled_s: number;
  readonly agents: readonly string[];
  readonly is_asked: number;
  readonly refused_count: string;
  readonly timed_out_count: string;
}

function pairOf(row: OneSidedRow): OneSided {
  const times = [row.first_seen_s, row.settled_s, row.last_seen_s];
  return {
    seenBy: row.seen_by,
    source: {
      workload: row.src_workload_id,
      address: row.src_address,
      cluster: row.src_cluster,
      how: row.src_how,
      sure: row.src_sure,
    },
    destination: {
      workload: row.dst_workload_id,
      address: row.dst_address,
      cluster: row.dst_cluster,
      how: row.dst_how,
      sure: row.dst_sure,
    },
    port: row.port,
    protocol: row.protocol_number,
    reportsMs: [...new Set(times.filter((time) => time > 0))].map((time) => time * 1000),
    pending: row.c_pending === row.c_flows,
    agents: row.agents,
  };
}

/** The side that did not report, and its workload. */
function missingEnd(row: OneSidedRow): { readonly side: EndSide; readonly workload: string } {
  return row.seen_by === 'source'
    ? { side: 'destination', workload: row.dst_workload_id }
    : { side: 'source', workload: row.src_workload_id };
}

async function reportersFor(
  context: RouteContext,
  filter: FlowFilter,
  rows: readonly OneSidedRow[],
  signal: AbortSignal,
): Promise<ReportersOf> {
  const wanted = { source: new Set<string>(), destination: new Set<string>() };
  for (const row of rows) {
    const { side, workload } = missingEnd(row);
    if (workload !== '0') wanted[side].add(workload);
  }
  return readReporters(context, filter.window, wanted, signal);
}

interface Judged {
  readonly row: OneSidedRow;
  readonly state: Absence;
  readonly missing: readonly string[];
}

async function judge(
  context: RouteContext,
  filter: FlowFilter,
  rows: readonly OneSidedRow[],
  nowMs: number,
  signal: AbortSignal,
): Promise<Judged[]> {
  const reportersOf = await reportersFor(context, filter, rows, signal);
  const pairs = rows.map(pairOf);
  const counterparts = new Counterparts(pairs);
  const limits = {
    slackMs: context.config.otherSideSeconds * 1000,
    toleranceMs: context.config.toleranceMs,
    silentAfterMs: context.config.silentAfterSeconds * 1000,
    nowMs,
  };
  return rows.flatMap((row, index) => {
    const pair = pairs[index];
    if (row.is_asked !== 1 || pair === undefined) return [];
    const { side, workload } = missingEnd(row);
    const reporters = workload === '0' ? [] : reportersOf(side, workload);
    const state = absenceOf(pair, reporters, counterparts, limits);
    return [{ row, state, missing: reporters.map(({ agent }) => agent) }];
  });
}

function countStates(judged: readonly Judged[]): Record<Absence, number> {
  const counts: Record<Absence, number> = {
    'not-seen': 0,
    waiting: 0,
    incomplete: 0,
    silent: 0,
    translated: 0,
    'same-agent': 0,
    'no-agent': 0,
  };
  for (const { state } of judged) counts[state]++;
  return counts;
}

export function oneSidedRoutes(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'connections',
    summary: 'Connections that one side saw and the other did not',
    description:
      'From single flows. What an agent of the other side should have seen and did not is a finding: it never arrived, or was never sent. The newest first.',
    querystring: OneSidedParameters,
    answer: OneSidedAnswer,
  });
  app.get<{ Querystring: Static<typeof OneSidedParameters> }>(
    '/api/v1/one-sided',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(query, context.config.maxLimit);
      const asked = toFlowFilter(query, clock);
      const filter = window === null ? asked : { ...asked, window };
      const state = query.state ?? 'not-seen';
      const slackS = context.config.otherSideSeconds;
      const endS = Math.min(filter.window.untilS ?? Number.POSITIVE_INFINITY, Math.floor(clock.nowMs / 1000));
      const statement = oneSidedSql(filter, {
        slackS,
        settledS: endS - 3 * slackS,
        withUnknown: state === 'no-agent' || state === 'any',
        limit: maxCandidates,
      });
      const [rows, completeness] = await Promise.all([
        context.ask<OneSidedRow>(statement, signal),
        context.completeness(filter.window, signal),
      ]);
      const all = (await judge(context, filter, rows, clock.nowMs, signal)).filter(
        ({ row }) => query.seen_by === undefined || row.seen_by === query.seen_by,
      );
      const wanted = all.filter((one) => state === 'any' || one.state === state);
      const shown = wanted.slice(page.offset, page.offset + page.limit);
      const names = await workloadNames(
        context,
        shown.flatMap(({ row }) => [row.src_workload_id, row.dst_workload_id]),
        signal,
      );
      const watched = new Set(
        shown.filter(({ missing }) => missing.length > 0).map(({ row }) => missingEnd(row).workload),
      );
      const items = shown.map(
        (one): Item => ({
          ...connectionOf(one.row, names, watched),
          seenBy: one.row.seen_by,
          state: one.state,
          missing: [...one.missing],
          refused: Number(one.row.refused_count),
          timedOut: Number(one.row.timed_out_count),
        }),
      );
      const end = page.offset + items.length;
      return {
        items,
        states: countStates(all),
        truncated: rows.length === maxCandidates,
        total: wanted.length,
        next: end < wanted.length ? encodeCursor({ window: filter.window, offset: end }) : null,
        window: windowAnswer(filter.window),
        table: 'flows',
        completeness,
      };
    },
  );
}
