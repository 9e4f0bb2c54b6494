/** GET /api/v1/workloads: who has which address, and who had it at a moment. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { addressText, listFields } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import type { AddressSpan } from '../filters.ts';
import { pageParameters, toLabels, toPage, toSpan } from '../parameters.ts';
import { badParameter } from '../problem.ts';
import { readSources, speaking } from '../sources.ts';
import { type Moment, type NodeName, rangesOfSql, sharingPodsSql, whoSql } from '../sql/who.ts';
import { workloadsSql } from '../sql/workloads.ts';
import { parseTimeMs, timeForms } from '../time.ts';
import {
  type NetworkOwners,
  ownersOf,
  type RangeRow,
  rangeOf,
  Who,
  type WhoRow,
  Workload,
  type WorkloadRow,
  workloadOf,
} from '../who.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const text = (description: string) =>
  Type.Optional(Type.String({ minLength: 1, maxLength: 1024, description }));

const WorkloadsParameters = parameters({
  ip: text('Address or CIDR.'),
  name: text('Part of the name, in any case.'),
  namespace: text('Namespace, exactly.'),
  cluster: text('Cluster, exactly.'),
  kind: text('pod, node, vm, host or service.'),
  network: text('Network, exactly: the name of a cluster for its pods, default for the routed one.'),
  label: text('Labels: key=value terms joined by commas.'),
  at: text(
    `Who had the address then: ${timeForms}. With a single \`ip\`, \`who\` says how sure it is. Absent: every interval, the present ones first.`,
  ),
  ...pageParameters,
});
const { window: _window, ...unwindowed } = listFields;
const WorkloadsAnswer = Type.Object({
  items: Type.Array(Workload, { description: 'Intervals in which an address and labels stayed.' }),
  ...unwindowed,
  who: Type.Union([Who, Type.Null()], { description: 'null without a single `ip` and `at`.' }),
});

/** Pods behind the nodes among the owners, put beside them. */
async function withCandidates(
  context: RouteContext,
  networks: readonly NetworkOwners[],
  atMs: number,
  signal: AbortSignal,
): Promise<NetworkOwners[]> {
  const nodes = networks.flatMap(({ owners }) =>
    owners.flatMap(({ kind, cluster, name }): NodeName[] => (kind === 'node' ? [[cluster, name]] : [])),
  );
  if (nodes.length === 0) return [...networks];
  const pods = await context.ask<WorkloadRow>(sharingPodsSql(nodes, atMs), signal);
  return networks.map((network) => ({
    ...network,
    candidates: pods
      .filter((pod) =>
        network.owners.some(
          ({ kind, cluster, name }) => kind === 'node' && cluster === pod.cluster && name === pod.node,
        ),
      )
      .map(workloadOf),
  }));
}

async function whoOf(context: RouteContext, moment: Moment, signal: AbortSignal): Promise<Who> {
  const [rows, ranges, sources] = await Promise.all([
    context.ask<WhoRow>(whoSql(moment), signal),
    context.ask<RangeRow>(rangesOfSql(moment.address, moment.network), signal),
    readSources(context, signal),
  ]);
  const vouching = speaking(sources, context.sourceSilentAfterMs);
  return {
    address: addressText(moment.address) ?? '::',
    at: new Date(moment.atMs).toISOString(),
    toleranceMs: moment.toleranceMs,
    settled:
      sources.length === 0
        ? null
        : vouching.every(({ completeToMs }) => completeToMs >= moment.atMs + moment.toleranceMs),
    networks: await withCandidates(context, ownersOf(rows, moment.atMs), moment.atMs, signal),
    ranges: ranges.map(rangeOf),
  };
}

function isSingle(span: AddressSpan | null): span is AddressSpan {
  return span !== null && span.first === span.last;
}

export function workloadRoutes(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'inventory',
    summary: 'Who had which address when',
    querystring: WorkloadsParameters,
    answer: WorkloadsAnswer,
  });
  app.get<{ Querystring: Static<typeof WorkloadsParameters> }>(
    '/api/v1/workloads',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const { nowMs } = context.clock();
      const signal = clientSignal(reply);
      const { page } = toPage(query, context.config.maxLimit);
      const atMs = query.at === undefined ? null : parseTimeMs(query.at, nowMs);
      if (query.at !== undefined && atMs === null) throw badParameter('at', query.at, timeForms);
      const address = toSpan('ip', query.ip);
      const network = query.network ?? null;
      const filter = {
        address,
        name: query.name ?? null,
        namespace: query.namespace ?? null,
        cluster: query.cluster ?? null,
        kind: query.kind ?? null,
        network,
        labels: toLabels('label', query.label),
        atMs,
      };
      const { toleranceMs } = context.config;
      const [rows, who] = await Promise.all([
        context.ask<WorkloadRow & { readonly total: string }>(workloadsSql(filter, page), signal),
        isSingle(address) && atMs !== null
          ? whoOf(context, { address: address.first, atMs, toleranceMs, network }, signal)
          : null,
      ]);
      const total = Number(rows[0]?.total ?? page.offset);
      const end = page.offset + rows.length;
      const window = { sinceS: 0, untilS: null };
      return {
        items: rows.map(workloadOf),
        total,
        next: rows.length > 0 && end < total ? encodeCursor({ window, offset: end }) : null,
        who,
      };
    },
  );
}
