/** GET /api/v1/edges, /connections and /unknown. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import {
  addressText,
  Completeness,
  Connection,
  type DescribedRow,
  Edge,
  edgeOf,
  isoOrNull,
  listFields,
  type Sight,
  tableField,
  textOrNull,
  Unknown,
  windowAnswer,
} from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import type { Window } from '../filters.ts';
import { flowParameters, labelParameters, pageParameters, toFlowFilter, toPage } from '../parameters.ts';
import { connectionSorts, connectionsSql } from '../sql/connections.ts';
import { edgeSorts, edgesSql, orders } from '../sql/edges.ts';
import { planEdges } from '../sql/plan.ts';
import { evidenceSql, unknownSorts, unknownSql } from '../sql/unknown.ts';
import { workloadNamesSql } from '../sql/workloads.ts';
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

/** Most workload ids that one lookup of names asks for. */
const namesAtOnce = 2_000;
/** Most edges whose evidence is looked up in one question. */
const evidenceAtOnce = 500;

interface NameRow {
  readonly workload_id: string;
  readonly workload_name: string;
}

/** Names of workloads by id; 0 has none. */
async function workloadNames(
  context: RouteContext,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const names = new Map<string, string>();
  const wanted = [...new Set(ids)].filter((id) => id !== '0');
  for (let at = 0; at < wanted.length; at += namesAtOnce) {
    const rows = await context.ask<NameRow>(workloadNamesSql(wanted.slice(at, at + namesAtOnce)), signal);
    for (const row of rows) names.set(row.workload_id, row.workload_name);
  }
  return names;
}

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

interface EvidenceRow {
  readonly src_identity_id: string;
  readonly dst_identity_id: string;
  readonly port: number;
  readonly protocol_number: number;
  readonly src_address: string;
  readonly dst_address: string;
  readonly src_workload_id: string;
  readonly dst_workload_id: string;
  readonly src_ip_text: string;
  readonly dst_ip_text: string;
  readonly dns: string;
  readonly process_name: string;
}

type UnknownRow = DescribedRow & { readonly first_seen_s: number; readonly last_seen_s: number };
type EdgeIdentity = Pick<
  EvidenceRow,
  'src_identity_id' | 'dst_identity_id' | 'port' | 'protocol_number' | 'src_address' | 'dst_address'
>;

function edgeKeyOf(row: EdgeIdentity): string {
  return [
    row.src_identity_id,
    row.dst_identity_id,
    row.port,
    row.protocol_number,
    row.src_address,
    row.dst_address,
  ].join(' ');
}

/** The newest flow of each edge of a page, by the key of the edge. */
async function evidenceOf(
  context: RouteContext,
  rows: readonly UnknownRow[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, EvidenceRow>> {
  const evidence = new Map<string, EvidenceRow>();
  const seen = rows.filter((row) => row.last_seen_s > 0);
  for (let at = 0; at < seen.length; at += evidenceAtOnce) {
    const statement = evidenceSql(
      seen.slice(at, at + evidenceAtOnce).map((row) => ({
        sourceIdentity: row.src_identity_id,
        destinationIdentity: row.dst_identity_id,
        port: row.port,
        lastSeenS: row.last_seen_s,
      })),
    );
    for (const row of await context.ask<EvidenceRow>(statement, signal)) evidence.set(edgeKeyOf(row), row);
  }
  return evidence;
}

function sightOf(names: ReadonlyMap<string, string>, workload: string, address: string): Sight {
  return { workload: names.get(workload) ?? null, address: addressText(address) };
}

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
      const evidence = await evidenceOf(context, rows, signal);
      const ids = [...evidence.values()].flatMap((row) => [row.src_workload_id, row.dst_workload_id]);
      const names = await workloadNames(context, ids, signal);
      const items = rows.map((row): Unknown => {
        const found = evidence.get(edgeKeyOf(row));
        const source = sightOf(names, found?.src_workload_id ?? '0', found?.src_ip_text ?? '::');
        const destination = sightOf(names, found?.dst_workload_id ?? '0', found?.dst_ip_text ?? '::');
        return {
          ...edgeOf(row, source, destination),
          firstSeen: isoOrNull(row.first_seen_s),
          lastSeen: isoOrNull(row.last_seen_s),
          dns: textOrNull(found?.dns),
          process: textOrNull(found?.process_name),
        };
      });
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
        context.ask<DescribedRow>(edgesSql(filter, plan, sorted), signal),
        context.completeness(plan.window, signal),
      ]);
      const items = rows.map((row) => edgeOf(row));
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

type ConnectionRow = UnknownRow & {
  readonly src_workload_id: string;
  readonly dst_workload_id: string;
  readonly dns: string;
  readonly process_name: string;
  readonly service_ip: string;
  readonly service_port: number;
  readonly dropped_count: string;
  readonly ambiguous_count: string;
};

function serviceAddress(row: ConnectionRow): string | null {
  const address = addressText(row.service_ip);
  if (address === null) return null;
  return address.includes(':') ? `[${address}]:${row.service_port}` : `${address}:${row.service_port}`;
}

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
      const names = await workloadNames(
        context,
        rows.flatMap((row) => [row.src_workload_id, row.dst_workload_id]),
        signal,
      );
      const items = rows.map(
        (row): Connection => ({
          ...edgeOf(
            row,
            sightOf(names, row.src_workload_id, row.src_address),
            sightOf(names, row.dst_workload_id, row.dst_address),
          ),
          firstSeen: isoOrNull(row.first_seen_s),
          lastSeen: isoOrNull(row.last_seen_s),
          dns: textOrNull(row.dns),
          process: textOrNull(row.process_name),
          serviceAddress: serviceAddress(row),
          dropped: Number(row.dropped_count),
          ambiguous: Number(row.ambiguous_count),
        }),
      );
      return { ...listOf(items, rows, filter.window, page), table: 'flows', completeness };
    },
  );
}

export function edgeRoutes(app: FastifyInstance, context: RouteContext): void {
  unknownRoute(app, context);
  edgesRoute(app, context);
  connectionsRoute(app, context);
}
