/** What rules spoke of: hits per rule in a window, when they were last needed, and whether what used them is still there. */
import type { FlowFilter, Page, Window } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { rowConditions } from './conditions.ts';
import { identityRows } from './identities.ts';
import { type EdgePlan, edgeKey, mergedSums, planRows, stillThere, timeCondition } from './plan.ts';

/** Whether a rule can speak at all; `removed` is one that flows of the window name but the newest policy doesn't have. */
export const ruleStates = ['active', 'disabled', 'expired', 'removed'] as const;
export type RuleState = (typeof ruleStates)[number];

/** Who needed a rule in the window; `gone`: only what is no more. */
export const ruleUses = ['used', 'gone', 'unused'] as const;
export type RuleUse = (typeof ruleUses)[number];

export const ruleSorts = ['name', 'connections', 'bytes', 'edges', 'last_hit'] as const;
export type RuleSort = (typeof ruleSorts)[number];

export interface RuleFilter {
  readonly states: readonly RuleState[];
  readonly uses: readonly RuleUse[];
  /** Rulesets that are disabled as a whole, which the rows of their rules don't say. */
  readonly disabledRulesets: readonly string[];
  /** The newest policy, where it has no rules that could say so; null otherwise. */
  readonly emptyVersion: number | null;
  readonly nowMs: number;
}

const sortColumns: Readonly<Record<RuleSort, string>> = {
  name: 'ruleset_name, rule_name',
  connections: 'c_connections DESC, ruleset_name, rule_name',
  bytes: 'c_bytes DESC, ruleset_name, rule_name',
  edges: 'edge_count DESC, ruleset_name, rule_name',
  last_hit: 'last_s DESC, ruleset_name, rule_name',
};

/** Kinds that stand for something with a life: only of these the store knows whether it is still there. */
const mortal = `('pod', 'node', 'vm', 'host', 'service')`;

/**
 * Each edge that a rule speaks of, with whether both its ends are still there. First and last sight are those of settled
 * reports, 0 for none: of pending ones the rollups also remember what was repaired away since.
 */
function ruleEdges(filter: FlowFilter, plan: EdgePlan, bindings: Bindings): string {
  const conditions = ['rule != 0', ...rowConditions(filter, bindings)];
  return `SELECT e.rule AS rule, e.c_connections AS c_connections, e.c_bytes_forward + e.c_bytes_reverse AS c_bytes,
      if(e.c_flows = e.c_pending, 0, e.settled_first_s) AS first_s, if(e.c_flows = e.c_pending, 0, e.settled_last_s) AS last_s,
      e.c_pending AS c_pending,
      (s.kind NOT IN ${mortal} OR e.src_identity IN present) AND (d.kind NOT IN ${mortal} OR e.dst_identity IN present) AS is_alive
    FROM (
      SELECT ${edgeKey}, ${mergedSums}, toUnixTimestamp(minIf(first_seen, pending = 0)) AS settled_first_s,
        toUnixTimestamp(maxIf(last_seen, pending = 0)) AS settled_last_s
      FROM (${planRows(plan, conditions, bindings)})
      GROUP BY ${edgeKey}
      HAVING ${stillThere}
    ) AS e
    LEFT JOIN ${identityRows} AS s ON s.id = e.src_identity
    LEFT JOIN ${identityRows} AS d ON d.id = e.dst_identity`;
}

/**
 * One row for each rule of the newest policy, and for each that flows of the window name but the newest policy doesn't
 * have (without a name where no policy is known that has it). The sums are those of merged edges (the larger of both sides), and add up to what `edges` answers by rule.
 */
export function usageSql(
  filter: FlowFilter,
  plan: EdgePlan,
  rules: RuleFilter,
  page: Page & { readonly sort: RuleSort },
): Statement {
  const bindings = new Bindings();
  const now = `toDateTime(${bindings.bind('UInt32', Math.floor(rules.nowMs / 1000))}, 'UTC')`;
  const where: string[] = [];
  if (rules.states.length > 0) where.push(`has(${bindings.bind('Array(String)', rules.states)}, state)`);
  if (rules.uses.length > 0) where.push(`has(${bindings.bind('Array(String)', rules.uses)}, used)`);
  const sql = `WITH present AS (SELECT identity FROM workloads FINAL WHERE valid_to > now64(3)),
newest AS (SELECT greatest(max(policy), ${bindings.bind('UInt32', rules.emptyVersion ?? 0)}) FROM rules)
SELECT *, count() OVER () AS total
FROM (
  SELECT toString(greatest(r.id, u.rule)) AS rule_id, r.policy_version AS policy_version, r.ruleset_name AS ruleset_name,
    r.rule_name AS rule_name, r.action_name AS action_name, r.owner AS owner, r.ticket AS ticket,
    r.definition AS definition, r.applied_ms AS applied_ms, r.since_ms AS since_ms, r.author_name AS author_name,
    r.expires AS expires,
    multiIf(r.is_newest = 0, 'removed',
      JSONExtractString(r.definition, 'expires') != '' AND parseDateTimeBestEffortOrZero(r.expires, 'UTC') <= ${now}, 'expired',
      JSONExtractRaw(r.definition, 'enabled') = 'false' OR has(${bindings.bind('Array(String)', rules.disabledRulesets)}, r.ruleset_name), 'disabled',
      'active') AS state,
    multiIf(u.edges = 0, 'unused', u.alive_edges = 0, 'gone', 'used') AS used,
    u.connections AS c_connections, u.bytes AS c_bytes, u.edges AS edge_count, u.alive_edges AS alive_count,
    u.pending AS c_pending, u.first_s AS first_s, u.last_s AS last_s
  FROM (
    SELECT id, max(policy) AS policy_version, ifNull(policy_version = (SELECT * FROM newest), 0) AS is_newest,
      toString(argMax(ruleset, policy)) AS ruleset_name, argMax(name, policy) AS rule_name,
      toString(argMax(action, policy)) AS action_name, argMax(rules.owner, policy) AS owner,
      argMax(rules.ticket, policy) AS ticket, argMax(rules.definition, policy) AS definition,
      JSONExtractString(definition, 'expires') AS expires,
      toUnixTimestamp64Milli(argMax(applied, policy)) AS applied_ms, toUnixTimestamp64Milli(min(applied)) AS since_ms,
      toString(argMax(author, policy)) AS author_name
    FROM rules GROUP BY id
  ) AS r
  FULL JOIN (
    SELECT rule, sum(c_connections) AS connections, sum(c_bytes) AS bytes, count() AS edges, countIf(is_alive) AS alive_edges,
      sum(c_pending) AS pending, minIf(first_s, first_s != 0) AS first_s, max(last_s) AS last_s
    FROM (${ruleEdges(filter, plan, bindings)}) GROUP BY rule
  ) AS u ON u.rule = r.id
  WHERE r.is_newest = 1 OR u.edges > 0
)
WHERE ${allOf(where)}
ORDER BY ${sortColumns[page.sort]}, rule_id
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}

/**
 * When each of these rules last spoke, in all that is kept, and since when that is: from the rollup per hour alone. A group
 * whose flows sum to 0 was repaired away.
 */
export function lastHitsSql(ids: readonly string[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(rule) AS rule_id, max(last_s) AS last_s FROM (
  SELECT rule, toUnixTimestamp(max(last_seen)) AS last_s FROM edges_1h
  WHERE rule IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)}))
  GROUP BY rule, dst_identity, dst_port, src_identity, time, protocol, src_ip, dst_ip, verdict, pending
  HAVING sum(flows) != 0
) GROUP BY rule`;
  return { sql, params: bindings.values };
}

/** When these rules first and last spoke of what is still pending in the window: from the flows themselves, which are few. */
export function pendingHitsSql(ids: readonly string[], window: Window): Statement {
  const bindings = new Bindings();
  const time = timeCondition({ fromS: window.sinceS, toS: window.untilS }, bindings);
  const sql = `SELECT toString(rule) AS rule_id, toUnixTimestamp(min(begin)) AS first_s, toUnixTimestamp(max(begin)) AS last_s
FROM (
  SELECT rule, any(flows_late.time) AS begin FROM flows_late
  WHERE pending = 1 AND ${time} AND rule IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)}))
  GROUP BY rule, bus_partition, block, row HAVING sum(sign) > 0
) GROUP BY rule`;
  return { sql, params: bindings.values };
}

/** Begin of what the rollup per hour still holds, Unix seconds; 0 where it is empty. */
export const keptSinceSql: Statement = {
  sql: 'SELECT toUnixTimestamp(min(time)) AS kept_s FROM edges_1h',
  params: {},
};
