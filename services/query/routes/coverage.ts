/** GET /api/v1/coverage. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { reasons, type verdicts } from '../../../schemas/closed-lists.ts';
import { Completeness, Edge, tableField, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { edgesWithEvidence, type SeenRow } from '../evidence.ts';
import { flowParameters, labelParameters, toFlowFilter } from '../parameters.ts';
import { badParameter } from '../problem.ts';
import { type CoveragePart, coverageSeriesSql, coverageSql } from '../sql/coverage.ts';
import { edgesSql } from '../sql/edges.ts';
import { planEdges, planSeries } from '../sql/plan.ts';
import { isoSeconds, parseDurationSeconds } from '../time.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Most steps of a series. */
const maxSteps = 2_000;

const { verdict: _verdict, ...coverageFilters } = flowParameters;
const CoverageParameters = parameters(
  {
    ...coverageFilters,
    group_by: Type.Optional(
      Type.String({
        pattern: '^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$',
        description:
          'By a label key such as app, env, namespace or cluster: egress by the source, and ingress by the destination. src_<key> or dst_<key>: by that end alone.',
      }),
    ),
    step: Type.Optional(
      Type.String({ description: 'Adds a series with this step, a whole number of minutes: 5m, 1h, 1d.' }),
    ),
    limit: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 10_000,
        description: 'Most groups, 100 when absent; the rest is summed up in `others`.',
      }),
    ),
    top: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_000,
        description: 'How many unexplained edges to list, 10 when absent.',
      }),
    ),
    sort: Type.Optional(
      Type.Enum(['connections', 'bytes', 'severity'], {
        description:
          'Which unexplained edges are listed first: one of connections (when absent), bytes, severity.',
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
type Covered = Static<typeof Covered>;

const grouped = {
  groups: Type.Array(
    Type.Object({ value: Type.String({ description: 'Empty where the label is not set.' }), ...covered }),
    {
      description:
        'Those without the label first, then by unexplained connections. Together with `others` they add up to `total`.',
    },
  ),
  others: Type.Union([Type.Object({ groups: Type.Integer(), ...covered }), Type.Null()], {
    description: 'The groups beyond `limit`, summed up; null for none.',
  }),
};
const CoverageAnswer = Type.Object({
  total: Covered,
  reasons: Type.Array(Type.Object({ reason: Type.Enum([...reasons]), ...VerdictSums.properties }), {
    description: 'What is unexplained, by reason; the most connections first.',
  }),
  groupBy: Type.Union([Type.String(), Type.Null()], {
    description: 'src_<key>: egress, by the source; dst_<key>: ingress; null for none.',
  }),
  ...grouped,
  ingress: Type.Union([Type.Object({ groupBy: Type.String(), ...grouped }), Type.Null()], {
    description: 'The same by the destination, where `group_by` names a key without an end.',
  }),
  series: Type.Array(Type.Object({ time: Type.String(), ...covered })),
  uncovered: Type.Array(Edge, {
    description:
      'Unexplained edges, the largest first, each with its reason and the path of its explanation.',
  }),
  window: WindowAnswer,
  ...tableField,
  seriesTable: Type.Union([Type.String(), Type.Null()], {
    description: 'Tables that answered for the series; null for none.',
  }),
  completeness: Completeness,
});
type CoverageAnswer = Static<typeof CoverageAnswer>;

const measures = ['connections', 'bytes', 'edges'] as const;
type Verdict = (typeof verdicts)[number];
type SumColumn = `${Verdict}_${(typeof measures)[number]}`;
type CoveredRow = Readonly<Record<SumColumn, string>>;
type PartRow = CoveredRow & {
  readonly part_name: CoveragePart;
  readonly value: string;
  readonly group_count: string;
};
type Sums = Covered['allowed'];

function coveredOf(sums: Readonly<Record<Verdict, Sums>>): Covered {
  const { allowed, denied, unexplained } = sums;
  const shareOf = (what: (typeof measures)[number]): number | null => {
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

function ofRow(row: CoveredRow | undefined): Covered {
  const sums = (verdict: Verdict): Sums => ({
    connections: Number(row?.[`${verdict}_connections`] ?? 0),
    bytes: Number(row?.[`${verdict}_bytes`] ?? 0),
    edges: Number(row?.[`${verdict}_edges`] ?? 0),
  });
  return coveredOf({ allowed: sums('allowed'), denied: sums('denied'), unexplained: sums('unexplained') });
}

/** What is left of `total` without `parts`. */
function without(total: Covered, parts: readonly Covered[]): Covered {
  const left = (verdict: Verdict): Sums => {
    const of = (what: (typeof measures)[number]): number =>
      parts.reduce((rest, part) => rest - part[verdict][what], total[verdict][what]);
    return { connections: of('connections'), bytes: of('bytes'), edges: of('edges') };
  };
  return coveredOf({ allowed: left('allowed'), denied: left('denied'), unexplained: left('unexplained') });
}

function groupsOf(
  rows: readonly PartRow[],
  part: CoveragePart,
  total: Covered,
): Pick<CoverageAnswer, 'groups' | 'others'> {
  const own = rows.filter((row) => row.part_name === part);
  const groups = own.map((row) => ({ value: row.value, ...ofRow(row) }));
  const more = Number(own[0]?.group_count ?? 0) - groups.length;
  return { groups, others: more === 0 ? null : { groups: more, ...without(total, groups) } };
}

function reasonsOf(rows: readonly PartRow[]): CoverageAnswer['reasons'] {
  return rows
    .flatMap((row) => {
      const reason = reasons.find((one) => one === row.value);
      return row.part_name !== 'reason' || reason === undefined
        ? []
        : [{ reason, ...ofRow(row).unexplained }];
    })
    .toSorted((a, b) => b.connections - a.connections || b.edges - a.edges);
}

interface Grouping {
  readonly key: string;
  readonly ends: readonly ('src' | 'dst')[];
}

/** By both ends where the key names none: the source's first. */
function groupingOf(text: string | undefined): Grouping | null {
  if (text === undefined) return null;
  if (text.startsWith('dst_')) return { ends: ['dst'], key: text.slice(4) };
  if (text.startsWith('src_')) return { ends: ['src'], key: text.slice(4) };
  return { ends: ['src', 'dst'], key: text };
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

/** The groups of the answer, of the end that comes first and of the other. */
function groupedAnswer(rows: readonly PartRow[], grouping: Grouping | null, total: Covered) {
  const [first, second] = grouping?.ends ?? [];
  const name = (end: 'src' | 'dst'): string => `${end}_${grouping?.key ?? ''}`;
  return {
    groupBy: first === undefined ? null : name(first),
    ...(first === undefined ? { groups: [], others: null } : groupsOf(rows, first, total)),
    ingress: second === undefined ? null : { groupBy: name(second), ...groupsOf(rows, second, total) },
  };
}

export function coverageRoutes(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'coverage',
    summary: 'How much of the traffic rules explain',
    querystring: CoverageParameters,
    answer: CoverageAnswer,
  });
  app.get<{ Querystring: Static<typeof CoverageParameters> }>(
    '/api/v1/coverage',
    { schema },
    async (request, reply): Promise<CoverageAnswer> => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const filter = toFlowFilter(query, clock);
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const grouping = groupingOf(query.group_by);
      const endS = filter.window.untilS ?? Math.floor(clock.nowMs / 1000);
      const stepS = stepOf(query.step, endS - filter.window.sinceS);
      const seriesPlan = stepS === null ? null : planSeries(filter, stepS, clock.nowMs, context.kept);
      const top = query.top ?? 10;
      const uncovered = { limit: top, offset: 0, sort: query.sort ?? 'connections', order: 'desc' } as const;
      const [rows, series, edges, completeness] = await Promise.all([
        context.ask<PartRow>(
          coverageSql(filter, plan, grouping?.key ?? null, grouping?.ends ?? [], query.limit ?? 100),
          signal,
        ),
        stepS === null || seriesPlan === null
          ? []
          : context.ask<CoveredRow & { bucket_s: string | number }>(
              coverageSeriesSql(filter, seriesPlan, stepS, maxSteps + 1),
              signal,
            ),
        top === 0
          ? []
          : context.ask<SeenRow>(edgesSql({ ...filter, verdict: 'unexplained' }, plan, uncovered), signal),
        context.completeness(plan.window, signal),
      ]);
      const total = ofRow(rows.find((row) => row.part_name === 'total'));
      const uncoveredEdges = await edgesWithEvidence(context, edges, false, signal);
      return {
        total,
        reasons: reasonsOf(rows),
        ...groupedAnswer(rows, grouping, total),
        series: series.map((row) => ({ time: isoSeconds(Number(row.bucket_s)), ...ofRow(row) })),
        uncovered: uncoveredEdges.map(({ edge }) => edge),
        window: windowAnswer(plan.window),
        table: plan.table,
        seriesTable: seriesPlan?.table ?? null,
        completeness,
      };
    },
  );
}
