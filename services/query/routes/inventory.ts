/** GET /api/v1/workloads, /rules and /alerts. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import {
  addressText,
  Completeness,
  isoMsOrNull,
  listFields,
  setLabels,
  tableField,
  windowAnswer,
} from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import { type Window, windowFilter } from '../filters.ts';
import { pageParameters, toLabels, toPage, toSpan, toWindow, windowParameters } from '../parameters.ts';
import { badParameter } from '../problem.ts';
import { planEdges } from '../sql/plan.ts';
import { alertsSql, rulesSql } from '../sql/rules.ts';
import { workloadsSql } from '../sql/workloads.ts';
import { parseTime, timeForms } from '../time.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const text = (description: string) =>
  Type.Optional(Type.String({ minLength: 1, maxLength: 1024, description }));
const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

function nextOf(window: Window, offset: number, count: number, total: number): string | null {
  return count > 0 && offset + count < total ? encodeCursor({ window, offset: offset + count }) : null;
}

const WorkloadsParameters = parameters({
  ip: text('Address or CIDR.'),
  name: text('Part of the name, in any case.'),
  namespace: text('Namespace, exactly.'),
  cluster: text('Cluster, exactly.'),
  kind: text('pod, node, vm or host.'),
  label: text('Labels: key=value terms joined by commas.'),
  at: text(`Who had the address then: ${timeForms}. Absent: every interval, the present ones first.`),
  ...pageParameters,
});
const Workload = Type.Object({
  id: Type.String(),
  kind: Type.String(),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  node: Type.String(),
  uid: Type.String(),
  identity: Type.String(),
  network: Type.String(),
  address: nullable('Its address.'),
  labels: Type.Record(Type.String(), Type.String()),
  from: nullable('Since when it has the address.'),
  to: nullable('Until when; null while it has it.'),
  current: Type.Boolean(),
});
const { window: _window, ...unwindowed } = listFields;
const WorkloadsAnswer = Type.Object({ items: Type.Array(Workload), ...unwindowed });

interface WorkloadRow {
  readonly workload_id: string;
  readonly workload_kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly uid: string;
  readonly identity_id: string;
  readonly network: string;
  readonly address: string;
  readonly from_ms: string;
  readonly to_ms: string;
  readonly is_current: number;
  readonly src_labels: Readonly<Record<string, string>>;
  readonly total: string;
}

function workloadOf(row: WorkloadRow): Static<typeof Workload> {
  return {
    id: row.workload_id,
    kind: row.workload_kind,
    cluster: row.cluster,
    namespace: row.namespace,
    name: row.name,
    node: row.node,
    uid: row.uid,
    identity: row.identity_id,
    network: row.network,
    address: addressText(row.address),
    labels: setLabels(row.src_labels),
    from: isoMsOrNull(row.from_ms),
    to: row.is_current === 1 ? null : isoMsOrNull(row.to_ms),
    current: row.is_current === 1,
  };
}

function workloadsRoute(app: FastifyInstance, context: RouteContext): void {
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
      const { page } = toPage(query, context.config.maxLimit);
      const atS = query.at === undefined ? null : parseTime(query.at, nowMs);
      if (query.at !== undefined && atS === null) throw badParameter('at', query.at, timeForms);
      const filter = {
        address: toSpan('ip', query.ip),
        name: query.name ?? null,
        namespace: query.namespace ?? null,
        cluster: query.cluster ?? null,
        kind: query.kind ?? null,
        labels: toLabels('label', query.label),
        atS,
      };
      const rows = await context.ask<WorkloadRow>(workloadsSql(filter, page), clientSignal(reply));
      const total = Number(rows[0]?.total ?? page.offset);
      return {
        items: rows.map(workloadOf),
        total,
        next: nextOf({ sinceS: 0, untilS: null }, page.offset, rows.length, total),
      };
    },
  );
}

const RulesParameters = parameters({ ...windowParameters, ...pageParameters });
const Rule = Type.Object({
  id: Type.String(),
  policy: Type.Integer({ description: 'Version of the policy.' }),
  ruleset: Type.String(),
  name: Type.String(),
  action: Type.String(),
  owner: Type.String(),
  ticket: Type.String(),
  definition: Type.Unknown({ description: 'The rule as it was applied.' }),
  applied: nullable('When.'),
  author: Type.String(),
  connections: Type.Integer({ description: 'Connections that it spoke of in the window.' }),
  bytes: Type.Integer(),
  edges: Type.Integer(),
});
const RulesAnswer = Type.Object({
  items: Type.Array(Rule),
  ...listFields,
  ...tableField,
  completeness: Completeness,
});

interface RuleRow {
  readonly rule_id: string;
  readonly policy_version: number;
  readonly ruleset_name: string;
  readonly rule_name: string;
  readonly action_name: string;
  readonly owner: string;
  readonly ticket: string;
  readonly definition: string;
  readonly applied_ms: string;
  readonly author_name: string;
  readonly c_connections: string;
  readonly c_bytes: string;
  readonly edges: string;
  readonly total: string;
}

/** JSON as it is meant; the text itself where it is none. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function rulesRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'policy',
    summary: 'Rules of the newest policy, and what they spoke of in the window',
    querystring: RulesParameters,
    answer: RulesAnswer,
  });
  app.get<{ Querystring: Static<typeof RulesParameters> }>(
    '/api/v1/rules',
    { schema },
    async (request, reply) => {
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(request.query, context.config.maxLimit);
      const filter = windowFilter(window ?? toWindow(request.query, clock));
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const [rows, completeness] = await Promise.all([
        context.ask<RuleRow>(rulesSql(filter, plan, page), signal),
        context.completeness(plan.window, signal),
      ]);
      const total = Number(rows[0]?.total ?? page.offset);
      return {
        items: rows.map((row) => ({
          id: row.rule_id,
          policy: row.policy_version,
          ruleset: row.ruleset_name,
          name: row.rule_name,
          action: row.action_name,
          owner: row.owner,
          ticket: row.ticket,
          definition: parsed(row.definition),
          applied: isoMsOrNull(row.applied_ms),
          author: row.author_name,
          connections: Number(row.c_connections),
          bytes: Number(row.c_bytes),
          edges: Number(row.edges),
        })),
        total,
        next: nextOf(plan.window, page.offset, rows.length, total),
        window: windowAnswer(plan.window),
        table: plan.table,
        completeness,
      };
    },
  );
}

/** What may have become of an alert; `recorded` is one that nobody was to be told of. */
const alertStates = ['pending', 'delivered', 'failed', 'recorded', 'summarised'] as const;

const AlertsParameters = parameters({
  ...windowParameters,
  state: Type.Optional(Type.Enum([...alertStates], { description: `One of ${alertStates.join(', ')}.` })),
  receiver: text('Receiver, exactly.'),
  ...pageParameters,
});
const Alert = Type.Object({
  id: Type.String({ description: 'Id of the webhook message, the same for every try.' }),
  edge: Type.String(),
  created: nullable('When the edge was found.'),
  state: Type.String(),
  attempts: Type.Integer(),
  lastError: nullable('What the last try said.'),
  receiver: Type.String(),
  payload: Type.Unknown({ description: 'The body of the webhook.' }),
  updated: nullable('When the state last changed.'),
});
const AlertsAnswer = Type.Object({ items: Type.Array(Alert), ...listFields });

interface AlertRow {
  readonly alert_id: string;
  readonly edge_id: string;
  readonly created_ms: string;
  readonly state_name: string;
  readonly attempts: number;
  readonly last_error: string;
  readonly receiver_name: string;
  readonly payload: string;
  readonly updated_ms: string;
  readonly total: string;
}

function alertsRoute(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'alerts',
    summary: 'What was said to webhooks, or is still being tried',
    querystring: AlertsParameters,
    answer: AlertsAnswer,
  });
  app.get<{ Querystring: Static<typeof AlertsParameters> }>(
    '/api/v1/alerts',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const { page, window: ofCursor } = toPage(query, context.config.maxLimit);
      const window = ofCursor ?? toWindow(query, context.clock());
      const filter = { window, state: query.state ?? null, receiver: query.receiver ?? null };
      const rows = await context.ask<AlertRow>(alertsSql(filter, page), clientSignal(reply));
      const total = Number(rows[0]?.total ?? page.offset);
      return {
        items: rows.map((row) => ({
          id: row.alert_id,
          edge: row.edge_id,
          created: isoMsOrNull(row.created_ms),
          state: row.state_name,
          attempts: row.attempts,
          lastError: row.last_error === '' ? null : row.last_error,
          receiver: row.receiver_name,
          payload: parsed(row.payload),
          updated: isoMsOrNull(row.updated_ms),
        })),
        total,
        next: nextOf(window, page.offset, rows.length, total),
        window: windowAnswer(window),
      };
    },
  );
}

export function inventoryRoutes(app: FastifyInstance, context: RouteContext): void {
  workloadsRoute(app, context);
  rulesRoute(app, context);
  alertsRoute(app, context);
}
