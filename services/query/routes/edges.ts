/** GET /api/v1/edges, /connections and /unknown. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import {
  Completeness,
  Connection,
  Edge,
  isoOrNull,
  listFields,
  tableField,
  Unknown,
  windowAnswer,
} from '../answers.ts';
import { type ConnectionRow, connectionOf } from '../connections.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import { edgesWithEvidence, type SeenRow, workloadNames } from '../evidence.ts';
import type { Window } from '../filters.ts';
import { flowParameters, labelParameters, pageParameters, toFlowFilter, toPage } from '../parameters.ts';
import { absentEnds, readWatched } from '../reporters.ts';
import { connectionSorts, connectionsSql } from '../sql/connections.ts';
import { edgeSorts, edgesSql, orders } from '../sql/edges.ts';
import type { EndSide } from '../sql/one-sided.ts';
import { planEdges } from '../sql/plan.ts';
import { unknownSorts, unknownSql } from '../sql/unknown.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const order = Type.Optional(Type.Enum([...orders], { description: 'desc (when absent) or asc.' }));
const listParameters = { ...flowParameters, ...pageParameters, order };

const EdgesParameters = parameters(
  {
    ...listParameters,
    sort: Type.Optional(Type.Enum([...edgeSorts], { description: `One of ${edgeSorts.join(', ')}.` })),
  },
  labelParameters,
);
const ConnectionsParameters = parameters(
  {
    ...listParameters,
    sort: Type.Optional(
      Type.Enum([...connectionSorts], { description: `One of ${connectionSorts.join(', ')}.` }),
    ),
  },
  labelParameters,
);
const { verdict: _verdict, ...unknownFilters } = listParameters;
const UnknownParameters = parameters(
  {
    ...unknownFilters,
    sort: Type.Optional(
      Type.Enum([...unknownSorts], {
        description: `One of ${unknownSorts.join(', ')}; severity when absent: the most severe first, of these the newest.`,
      }),
    ),
  },
  labelParameters,
);

function listOf<T>(
  items: readonly T[],
  rows: readonly { readonly total: string }[],
  window: Window,
  page: { readonly offset: number; readonly limit: number },
) {
  const end = page.offset + items.length;
  const total = Math.max(Number(rows[0]?.total ?? 0), rows.length === 0 ? page.offset : 0);
  return {
    items: [...items],
    total,
    next: end < total && items.length > 0 ? encodeCursor({ window, offset: end }) : null,
    window: windowAnswer(window),
  };
}

type UnknownRow = SeenRow & { readonly first_seen_s: number };

const UnknownAnswer = Type.Object({
  items: Type.Array(Unknown),
  ...listFields,
  ...tableField,
  completeness: Completeness,
});

function unknownRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'connections',
    summary: 'Connections that no rule explains',
    description: 'Merged over both sides. The most severe first, of these the newest.',
    querystring: UnknownParameters,
    answer: UnknownAnswer,
  });
  app.get<{ Querystring: Static<typeof UnknownParameters> }>(
    '/api/v1/unknown',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(query, context.config.maxLimit);
      const asked = toFlowFilter(query, clock);
      const filter = window === null ? asked : { ...asked, window };
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const sorted = { ...page, sort: query.sort ?? 'severity', order: query.order ?? 'desc' };
      const [rows, completeness] = await Promise.all([
        context.ask<UnknownRow>(unknownSql(filter, plan, sorted), signal),
        context.completeness(plan.window, signal),
      ]);
      const evidenced = await edgesWithEvidence(context, rows, true, signal);
      const items = evidenced.map(
        ({ row, edge, process }): Unknown => ({
          ...edge,
          firstSeen: isoOrNull(row.first_seen_s),
          lastSeen: isoOrNull(row.last_seen_s),
          process,
        }),
      );
      return { ...listOf(items, rows, plan.window, page), table: plan.table, completeness };
    },
  );
}

const EdgesAnswer = Type.Object({
  items: Type.Array(Edge),
  ...listFields,
  ...tableField,
  completeness: Completeness,
});

function edgesRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'connections',
    summary: 'Edges: identity to identity, port and verdict',
    description: 'From the smallest rollups that suffice, merged over both sides.',
    querystring: EdgesParameters,
    answer: EdgesAnswer,
  });
  app.get<{ Querystring: Static<typeof EdgesParameters> }>(
    '/api/v1/edges',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(query, context.config.maxLimit);
      const asked = toFlowFilter(query, clock);
      const filter = window === null ? asked : { ...asked, window };
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const sorted = { ...page, sort: query.sort ?? 'connections', order: query.order ?? 'desc' };
      const [rows, completeness] = await Promise.all([
        context.ask<SeenRow>(edgesSql(filter, plan, sorted), signal),
        context.completeness(plan.window, signal),
      ]);
      const items = (await edgesWithEvidence(context, rows, false, signal)).map(({ edge }) => edge);
      return { ...listOf(items, rows, plan.window, page), table: plan.table, completeness };
    },
  );
}

const ConnectionsAnswer = Type.Object({
  items: Type.Array(Connection),
  ...listFields,
  ...tableField,
  completeness: Completeness,
});

function connectionsRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'connections',
    summary: 'Connections: workload or address to workload or address',
    description: 'From single flows, merged over both sides; the newest first.',
    querystring: ConnectionsParameters,
    answer: ConnectionsAnswer,
  });
  app.get<{ Querystring: Static<typeof ConnectionsParameters> }>(
    '/api/v1/connections',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(query, context.config.maxLimit);
      const asked = toFlowFilter(query, clock);
      const filter = window === null ? asked : { ...asked, window };
      const sorted = { ...page, sort: query.sort ?? 'last_seen', order: query.order ?? 'desc' };
      const [rows, completeness] = await Promise.all([
        context.ask<ConnectionRow>(connectionsSql(filter, sorted), signal),
        context.completeness(filter.window, signal),
      ]);
      const idOf = (row: ConnectionRow, side: EndSide): string =>
        side === 'source' ? row.src_workload_id : row.dst_workload_id;
      const ids = rows.flatMap((row) => [row.src_workload_id, row.dst_workload_id]);
      const [names, watched] = await Promise.all([
        workloadNames(context, ids, signal),
        readWatched(context, 'id', absentEnds(rows, idOf), filter.window, signal),
      ]);
      const items = rows.map((row) => connectionOf(row, names, watched));
      return { ...listOf(items, rows, filter.window, page), table: 'flows', completeness };
    },
  );
}

export function edgeRoutes(app: FastifyInstance, context: RouteContext): void {
  unknownRoute(app, context);
  edgesRoute(app, context);
  connectionsRoute(app, context);
}
