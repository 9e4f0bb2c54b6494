/** Rules of the newest policy with what they explained in the window, and alerts. */
import type { FlowFilter, Page, Window } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { rowConditions } from './conditions.ts';
import { type EdgePlan, mergedEdges } from './plan.ts';

export function rulesSql(filter: FlowFilter, plan: EdgePlan, page: Page): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(r.id) AS rule_id, r.policy_version AS policy_version, r.ruleset_name AS ruleset_name, r.rule_name AS rule_name,
  r.action_name AS action_name, r.owner AS owner, r.ticket AS ticket, r.definition AS definition, r.applied_ms AS applied_ms,
  r.author_name AS author_name, u.connections AS c_connections, u.bytes AS c_bytes, u.edges AS edges, count() OVER () AS total
FROM (
  SELECT id, policy AS policy_version, toString(ruleset) AS ruleset_name, name AS rule_name, toString(action) AS action_name,
    owner, ticket, definition, toUnixTimestamp64Milli(applied) AS applied_ms, toString(author) AS author_name
  FROM rules FINAL WHERE policy = (SELECT max(policy) FROM rules)
) AS r
LEFT JOIN (
  SELECT rule, sum(c_connections) AS connections, sum(c_bytes_forward + c_bytes_reverse) AS bytes, count() AS edges
  FROM (${mergedEdges(plan, rowConditions(filter, bindings), bindings)}) WHERE rule != 0 GROUP BY rule
) AS u ON u.rule = r.id
ORDER BY ruleset_name, rule_name, rule_id
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}

export interface AlertFilter {
  readonly window: Window;
  readonly state: string | null;
  readonly receiver: string | null;
}

export function alertsSql(filter: AlertFilter, page: Page): Statement {
  const bindings = new Bindings();
  const where = [`created >= toDateTime(${bindings.bind('UInt32', filter.window.sinceS)})`];
  if (filter.window.untilS !== null)
    where.push(`created < toDateTime(${bindings.bind('UInt32', filter.window.untilS)})`);
  if (filter.state !== null) where.push(`state = ${bindings.bind('String', filter.state)}`);
  if (filter.receiver !== null) where.push(`receiver = ${bindings.bind('String', filter.receiver)}`);
  const sql = `SELECT id AS alert_id, toString(edge) AS edge_id, toUnixTimestamp64Milli(created) AS created_ms, toString(state) AS state_name,
  attempts, last_error, toString(receiver) AS receiver_name, payload, toUnixTimestamp64Milli(updated_at) AS updated_ms, count() OVER () AS total
FROM alerts FINAL
WHERE ${allOf(where)}
ORDER BY created DESC, alert_id, receiver_name
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}
