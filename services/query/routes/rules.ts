/** GET /api/v1/rules: the rules, and what they spoke of. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { Completeness, isoMsOrNull, isoOrNull, listFields, tableField, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import { type Window, windowFilter } from '../filters.ts';
import { pageParameters, toPage, toWindow, windowParameters } from '../parameters.ts';
import type { Policies } from '../policies.ts';
import { badParameter } from '../problem.ts';
import type { Statement } from '../sql/bindings.ts';
import { planEdges } from '../sql/plan.ts';
import {
  keptSinceSql,
  lastHitsSql,
  pendingHitsSql,
  type RuleState,
  type RuleUse,
  ruleSorts,
  ruleStates,
  ruleUses,
  usageSql,
} from '../sql/usage.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });
const listed = (values: readonly string[], what: string) =>
  Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 256,
      description: `${what}: ${values.join(', ')}, or several with |.`,
    }),
  );

const RulesParameters = parameters({
  ...windowParameters,
  state: listed(ruleStates, 'Rules that are'),
  usage: listed(ruleUses, 'Rules that were'),
  sort: Type.Optional(
    Type.Enum([...ruleSorts], { description: `One of ${ruleSorts.join(', ')}; name when absent.` }),
  ),
  ...pageParameters,
});
const Rule = Type.Object({
  id: Type.String(),
  policy: Type.Integer({ description: 'Newest version of the policy that has it.' }),
  ruleset: Type.String(),
  name: Type.String(),
  action: Type.String(),
  owner: Type.String(),
  ticket: Type.String(),
  expires: nullable('From when on it explains nothing, as it is written.'),
  definition: Type.Unknown({ description: 'The rule as it was applied.' }),
  applied: nullable('When that version was applied.'),
  since: nullable('When a policy first had it.'),
  author: Type.String(),
  state: Type.Enum([...ruleStates], {
    description: 'Whether it can speak now; removed: the newest policy does not have it any more.',
  }),
  usage: Type.Enum([...ruleUses], {
    description:
      'gone: in the window only workloads used it that are no more, or have other labels since; unused: nobody did.',
  }),
  connections: Type.Integer({ description: 'Connections that it spoke of in the window.' }),
  bytes: Type.Integer(),
  edges: Type.Integer(),
  edgesAlive: Type.Integer({ description: 'Of the edges those whose ends are both still there.' }),
  pending: Type.Integer({
    description: 'Reports among them that came before the inventory was complete: they may still change.',
  }),
  firstHit: nullable('First in the window.'),
  lastHit: nullable('Last in the window.'),
  lastHitEver: nullable(
    'Last in all that is kept, where the window has none; to the hour where it was pending.',
  ),
});
const RulesAnswer = Type.Object({
  items: Type.Array(Rule),
  ...listFields,
  ...tableField,
  keptSince: nullable('Begin of what is kept: what was before is not known.'),
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
  readonly expires: string;
  readonly definition: string;
  readonly applied_ms: string;
  readonly since_ms: string;
  readonly author_name: string;
  readonly state: RuleState;
  readonly used: RuleUse;
  readonly c_connections: string;
  readonly c_bytes: string;
  readonly edge_count: string;
  readonly alive_count: string;
  readonly c_pending: string;
  readonly first_s: string | number;
  readonly last_s: string | number;
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

/** `a|b` out of a closed list. */
function oneOf<T extends string>(name: string, text: string | undefined, values: readonly T[]): T[] {
  if (text === undefined) return [];
  return text.split('|').map((part) => {
    const known = values.find((value) => value === part.trim());
    if (known === undefined) throw badParameter(name, text, `${values.join(', ')}, or several with |`);
    return known;
  });
}

interface HitRow {
  readonly rule_id: string;
  readonly first_s?: number;
  readonly last_s: number;
}

/** First and last hit of each rule in the window, and the last in all that is kept; Unix seconds, 0 for none. */
async function hitsOf(
  context: RouteContext,
  rows: readonly RuleRow[],
  window: Window,
  signal: AbortSignal,
): Promise<(row: RuleRow) => { readonly firstS: number; readonly lastS: number; readonly everS: number }> {
  const read = async (ids: readonly string[], statement: (ids: readonly string[]) => Statement) => {
    const found = ids.length === 0 ? [] : await context.ask<HitRow>(statement(ids), signal);
    return new Map(found.map((row) => [row.rule_id, row]));
  };
  const idsOf = (holds: (row: RuleRow) => boolean): string[] => rows.filter(holds).map((row) => row.rule_id);
  const [pending, former] = await Promise.all([
    read(
      idsOf((row) => row.c_pending !== '0'),
      (ids) => pendingHitsSql(ids, window),
    ),
    read(
      idsOf((row) => row.used === 'unused'),
      lastHitsSql,
    ),
  ]);
  return (row) => {
    const open = pending.get(row.rule_id);
    const [settledFirstS, settledLastS] = [Number(row.first_s), Number(row.last_s)];
    const firsts = [settledFirstS, open?.first_s ?? 0].filter((seconds) => seconds > 0);
    const lastS = Math.max(settledLastS, open?.last_s ?? 0);
    const firstS = firsts.length === 0 ? 0 : Math.min(...firsts);
    return { firstS, lastS, everS: lastS === 0 ? (former.get(row.rule_id)?.last_s ?? 0) : lastS };
  };
}

/** What rows of rules don't say. */
async function policyFacts(
  policies: Policies | undefined,
  nowMs: number,
  signal: AbortSignal,
): Promise<{ disabledRulesets: string[]; emptyVersion: number | null }> {
  if (policies === undefined) return { disabledRulesets: [], emptyVersion: null };
  const { document } = await policies.at(nowMs, signal);
  const isEmpty = document.rulesets.every(({ rules }) => rules.length === 0);
  return {
    disabledRulesets: document.rulesets.flatMap(({ name, enabled }) => (enabled === false ? [name] : [])),
    emptyVersion: isEmpty && document.version > 0 ? document.version : null,
  };
}

export function ruleRoutes(
  app: FastifyInstance,
  context: RouteContext,
  policies: Policies | undefined,
): void {
  const schema = routeSchema({
    tag: 'policy',
    summary: 'Rules, and what they spoke of in the window',
    description:
      'Rules of the newest policy; and those that it has no more, where flows of the window still name them.',
    querystring: RulesParameters,
    answer: RulesAnswer,
  });
  app.get<{ Querystring: Static<typeof RulesParameters> }>(
    '/api/v1/rules',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const clock = context.clock();
      const signal = clientSignal(reply);
      const { page, window } = toPage(query, context.config.maxLimit);
      const filter = windowFilter(window ?? toWindow(query, clock));
      const plan = planEdges(filter, clock.nowMs, context.kept);
      const rules = {
        states: oneOf('state', query.state, ruleStates),
        uses: oneOf('usage', query.usage, ruleUses),
        nowMs: clock.nowMs,
        ...(await policyFacts(policies, clock.nowMs, signal)),
      };
      const [rows, kept, completeness] = await Promise.all([
        context.ask<RuleRow>(usageSql(filter, plan, rules, { ...page, sort: query.sort ?? 'name' }), signal),
        context.ask<{ kept_s: number }>(keptSinceSql, signal),
        context.completeness(plan.window, signal),
      ]);
      const hits = await hitsOf(context, rows, plan.window, signal);
      const total = Number(rows[0]?.total ?? page.offset);
      const end = page.offset + rows.length;
      return {
        items: rows.map((row): Static<typeof Rule> => {
          const { firstS, lastS, everS } = hits(row);
          return {
            id: row.rule_id,
            policy: row.policy_version,
            ruleset: row.ruleset_name,
            name: row.rule_name,
            action: row.action_name,
            owner: row.owner,
            ticket: row.ticket,
            expires: row.expires === '' ? null : row.expires,
            definition: parsed(row.definition),
            applied: isoMsOrNull(row.applied_ms),
            since: isoMsOrNull(row.since_ms),
            author: row.author_name,
            state: row.state,
            usage: row.used,
            connections: Number(row.c_connections),
            bytes: Number(row.c_bytes),
            edges: Number(row.edge_count),
            edgesAlive: Number(row.alive_count),
            pending: Number(row.c_pending),
            firstHit: isoOrNull(firstS),
            lastHit: isoOrNull(lastS),
            lastHitEver: isoOrNull(everS),
          };
        }),
        total,
        next: rows.length > 0 && end < total ? encodeCursor({ window: plan.window, offset: end }) : null,
        window: windowAnswer(plan.window),
        table: plan.table,
        keptSince: isoOrNull(kept[0]?.kept_s ?? 0),
        completeness,
      };
    },
  );
}
