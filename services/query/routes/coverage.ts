/** GET /api/v1/coverage and /map. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { verdicts } from '../../../schemas/closed-lists.ts';
import { Completeness, Edge, tableField, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { edgesWithEvidence, type SeenRow } from '../evidence.ts';
import { severities } from '../filters.ts';
import { flowParameters, labelParameters, toFlowFilter } from '../parameters.ts';
import { badParameter } from '../problem.ts';
import { type CoverageGroup, coverageSeriesSql, coverageSql } from '../sql/coverage.ts';
import { edgesSql } from '../sql/edges.ts';
import { mapSql } from '../sql/map.ts';
import { planEdges, planSeries } from '../sql/plan.ts';
import { isoSeconds, parseDurationSeconds } from '../time.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Most steps of a series. */
const maxSteps = 2_000;
/** Most label keys that nodes of the map are grouped by. */
const maxMapKeys = 5;

const groupForms =
  'a label key of the source such as app, env, namespace or cluster, or src_<key> or dst_<key>';
const limit = (what: string) =>
  Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, description: what }));

const { verdict: _verdict, ...coverageFilters } = flowParameters;
const CoverageParameters = parameters(
  {
    ...coverageFilters,
    group_by: Type.Optional(
      Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$', description: `By ${groupForms}.` }),
    ),
    step: Type.Optional(
      Type.String({ description: 'Adds a series with this step, a whole number of minutes: 5m, 1h, 1d.' }),
    ),
    limit: limit('Most groups, 100 when absent.'),
    top: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_000,
        description: 'How many unexplained edges to list, 10 when absent.',
      }),
    ),
  },
  labelParameters,
);

const share = (what: string) =>
  Type.Union([Type.Number({ minimum: 0, maximum: 1 }), Type.Null()], {
    description: `${what}, 0 to 1; null where there were none.`,
  });
const VerdictSums = Type.Object({
  connections: Type.Integer(),
  bytes: Type.Integer(),
  edges: Type.Integer(),
});
const covered = {
  coverage: Type.Object({
    connections: share('Share of connections that a rule allows or denies'),
    bytes: share('Share of bytes'),
    edges: share('Share of edges'),
  }),
  allowed: VerdictSums,
  denied: VerdictSums,
  unexplained: VerdictSums,
};
const Covered = Type.Object(covered);
const CoverageAnswer = Type.Object({
  total: Covered,
  groups: Type.Array(
    Type.Object({ value: Type.String({ description: 'Empty where the label is not set.' }), ...covered }),
  ),
  groupBy: Type.Union([Type.String(), Type.Null()]),
  series: Type.Array(Type.Object({ time: Type.String(), ...covered })),
  uncovered: Type.Array(Edge, { description: 'Unexplained edges with the most connections.' }),
  window: WindowAnswer,
  ...tableField,
  completeness: Completeness,
});

type SumColumn = `${(typeof verdicts)[number]}_${'connections' | 'bytes' | 'edges'}`;
type CoveredRow = Readonly<Record<SumColumn, string>>;

function coveredOf(row: CoveredRow | undefined): Static<typeof Covered> {
  const sums = (verdict: (typeof verdicts)[number]) => ({
    connections: Number(row?.[`${verdict}_connections`] ?? 0),
    bytes: Number(row?.[`${verdict}_bytes`] ?? 0),
    edges: Number(row?.[`${verdict}_edges`] ?? 0),
  });
  const [allowed, denied, unexplained] = [sums('allowed'), sums('denied'), sums('unexplained')];
  const shareOf = (what: 'connections' | 'bytes' | 'edges'): number | null => {
    const explained = allowed[what] + denied[what];
    const all = explained + unexplained[what];
    return all === 0 ? null : explained / all;
  };
  return {
    coverage: { connections: shareOf('connections'), bytes: shareOf('bytes'), edges: shareOf('edges') },
    allowed,
    denied,
    unexplained,
  };
}

function groupOf(text: string | undefined): CoverageGroup | null {
  if (text === undefined) return null;
  if (text.startsWith('dst_')) return { end: 'dst', key: text.slice(4) };
  return { end: 'src', key: text.startsWith('src_') ? text.slice(4) : text };
}

function stepOf(text: string | undefined, spanS: number): number | null {
  if (text === undefined) return null;
  const seconds = parseDurationSeconds(text);
  if (seconds === null || seconds === 0 || seconds % 60 !== 0)
    throw badParameter('step', text, 'a whole number of minutes such as 5m, 1h or 1d');
  if (spanS / seconds > maxSteps)
    throw badParameter('step', text, `a step that gives at most ${maxSteps} points in this window`);
  return seconds;
}

function coverageRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'coverage',
    summary: 'How much of the traffic rules explain',
    querystring: CoverageParameters,
    answer: CoverageAnswer,
  });
  app.get<{ Querystring: Static<typeof CoverageParameters> }>(
    '/api/v1/coverage',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const filter = toFlowFilter(query, clock);
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const group = groupOf(query.group_by);
      const endS = filter.window.untilS ?? Math.floor(clock.nowMs / 1000);
      const stepS = stepOf(query.step, endS - filter.window.sinceS);
      const top = query.top ?? 10;
      const uncovered = { limit: top, offset: 0, sort: 'connections', order: 'desc' } as const;
      const [totals, groups, series, edges, completeness] = await Promise.all([
        context.ask<CoveredRow>(coverageSql(filter, plan, null, 1), signal),
        group === null
          ? []
          : context.ask<CoveredRow & { value: string }>(
              coverageSql(filter, plan, group, query.limit ?? 100),
              signal,
            ),
        stepS === null
          ? []
          : context.ask<CoveredRow & { bucket_s: string | number }>(
              coverageSeriesSql(
                filter,
                planSeries(filter, stepS, clock.nowMs, context.kept),
                stepS,
                maxSteps + 1,
              ),
              signal,
            ),
        top === 0
          ? []
          : context.ask<SeenRow>(edgesSql({ ...filter, verdict: 'unexplained' }, plan, uncovered), signal),
        context.completeness(plan.window, signal),
      ]);
      const uncoveredEdges = await edgesWithEvidence(context, edges, false, signal);
      return {
        total: coveredOf(totals[0]),
        groups: groups.map((row) => ({ value: row.value, ...coveredOf(row) })),
        groupBy: group === null ? null : `${group.end}_${group.key}`,
        series: series.map((row) => ({ time: isoSeconds(Number(row.bucket_s)), ...coveredOf(row) })),
        uncovered: uncoveredEdges.map(({ edge }) => edge),
        window: windowAnswer(plan.window),
        table: plan.table,
        completeness,
      };
    },
  );
}

const MapParameters = parameters(
  {
    ...flowParameters,
    by: Type.Optional(
      Type.String({ description: 'Label keys that make a node, joined by commas; app,cluster when absent.' }),
    ),
    limit: limit('Most edges of the map, 2000 when absent; those with the most connections.'),
  },
  labelParameters,
);
const MapAnswer = Type.Object({
  by: Type.Array(Type.String()),
  nodes: Type.Array(
    Type.Object({
      id: Type.String(),
      labels: Type.Record(Type.String(), Type.String()),
      name: Type.String({ description: 'What stands for a group without these labels; empty otherwise.' }),
      zone: Type.String({ description: 'inside or outside of the estate.' }),
    }),
  ),
  edges: Type.Array(
    Type.Object({
      source: Type.String({ description: 'Id of a node.' }),
      destination: Type.String(),
      verdict: Type.Enum([...verdicts]),
      severity: Type.Enum([...severities]),
      edges: Type.Integer(),
      connections: Type.Integer(),
      bytesForward: Type.Integer(),
      bytesReverse: Type.Integer(),
    }),
  ),
  truncated: Type.Boolean({ description: 'Whether there are more edges than `limit`.' }),
  window: WindowAnswer,
  ...tableField,
  completeness: Completeness,
});

interface MapRow {
  readonly source: readonly string[];
  readonly destination: readonly string[];
  readonly source_zone: string;
  readonly destination_zone: string;
  readonly source_name: string;
  readonly destination_name: string;
  readonly verdict_name: (typeof verdicts)[number];
  readonly connections: string;
  readonly bytes_forward: string;
  readonly bytes_reverse: string;
  readonly edges: string;
  readonly worst: number;
  readonly total: string;
}

function mapOf(
  rows: readonly MapRow[],
  keys: readonly string[],
): Pick<Static<typeof MapAnswer>, 'nodes' | 'edges'> {
  const nodes = new Map<string, Static<typeof MapAnswer>['nodes'][number]>();
  const nodeId = (values: readonly string[], name: string, zone: string): string => {
    const id = JSON.stringify([...values, name, zone]);
    const labels = Object.fromEntries(
      keys.map((key, index) => [key, values[index] ?? '']).filter(([, value]) => value !== ''),
    );
    if (!nodes.has(id)) nodes.set(id, { id, labels, name, zone });
    return id;
  };
  const edges = rows.map((row) => ({
    source: nodeId(row.source, row.source_name, row.source_zone),
    destination: nodeId(row.destination, row.destination_name, row.destination_zone),
    verdict: row.verdict_name,
    severity: severities[row.worst] ?? 'none',
    edges: Number(row.edges),
    connections: Number(row.connections),
    bytesForward: Number(row.bytes_forward),
    bytesReverse: Number(row.bytes_reverse),
  }));
  return { nodes: [...nodes.values()], edges };
}

function mapRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'connections',
    summary: 'A map: groups of identities and what flows between them',
    querystring: MapParameters,
    answer: MapAnswer,
  });
  app.get<{ Querystring: Static<typeof MapParameters> }>(
    '/api/v1/map',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const keys = (query.by ?? 'app,cluster').split(',').map((key) => key.trim());
      if (keys.length > maxMapKeys || keys.some((key) => !/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/.test(key))) {
        throw badParameter(
          'by',
          query.by ?? '',
          `1 to ${maxMapKeys} label keys joined by commas, such as app,cluster`,
        );
      }
      const filter = toFlowFilter(query, clock);
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const most = query.limit ?? 2_000;
      const [rows, completeness] = await Promise.all([
        context.ask<MapRow>(mapSql(filter, plan, keys, most), signal),
        context.completeness(plan.window, signal),
      ]);
      return {
        by: keys,
        ...mapOf(rows, keys),
        truncated: Number(rows[0]?.total ?? 0) > rows.length,
        window: windowAnswer(plan.window),
        table: plan.table,
        completeness,
      };
    },
  );
}

export function coverageRoutes(app: FastifyInstance, context: RouteContext): void {
  coverageRoute(app, context);
  mapRoute(app, context);
}
