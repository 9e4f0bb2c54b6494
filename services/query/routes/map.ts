/** GET /api/v1/map. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { verdicts } from '../../../schemas/closed-lists.ts';
import { Completeness, tableField, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { severities } from '../filters.ts';
import { flowParameters, labelParameters, toFlowFilter } from '../parameters.ts';
import { badParameter } from '../problem.ts';
import { mapSql } from '../sql/map.ts';
import { planEdges } from '../sql/plan.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Most label keys that nodes of the map are grouped by. */
const maxMapKeys = 5;

const MapParameters = parameters(
  {
    ...flowParameters,
    by: Type.Optional(
      Type.String({ description: 'Label keys that make a node, joined by commas; app,cluster when absent.' }),
    ),
    limit: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 10_000,
        description: 'Most edges of the map, 2000 when absent; those with the most connections.',
      }),
    ),
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

export function mapRoutes(app: FastifyInstance, context: RouteContext): void {
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
