/** The map: groups of identities by chosen label keys, and what flows between them. */
import type { FlowFilter } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { joinEnds } from './edges.ts';
import { labelValue } from './identities.ts';
import { type EdgePlan, mergedEdges } from './plan.ts';
import { directionOf, severityOf } from './severity.ts';

/** Values of the keys at one end, in their order. */
function groupValues(keys: readonly string[], alias: string, bindings: Bindings): string {
  return `[${keys.map((key) => `toString(${labelValue(key, bindings, alias)})`).join(', ')}]`;
}

/** What stands for a group without any of the labels: the name of a range or service, or the kind. */
function groupName(values: string, alias: string): string {
  return `multiIf(arrayExists(v -> v != '', ${values}), '', ${alias}.name != '', ${alias}.name, ${alias}.kind != '', ${alias}.kind, 'unknown')`;
}

export function mapSql(
  filter: FlowFilter,
  plan: EdgePlan,
  keys: readonly string[],
  limit: number,
): Statement {
  const bindings = new Bindings();
  const sql = `SELECT source, destination, source_name, destination_name, source_zone, destination_zone, verdict_name,
  sum(c_connections) AS connections, sum(c_bytes_forward) AS bytes_forward, sum(c_bytes_reverse) AS bytes_reverse,
  count() AS edges, max(severity) AS worst, count() OVER () AS total
FROM (
  SELECT ${groupValues(keys, 's', bindings)} AS source, ${groupValues(keys, 'd', bindings)} AS destination,
    ${groupName('source', 's')} AS source_name, ${groupName('destination', 'd')} AS destination_name,
    toString(e.verdict) AS verdict_name, e.c_connections AS c_connections, e.c_bytes_forward AS c_bytes_forward,
    e.c_bytes_reverse AS c_bytes_reverse,
    ${directionOf('s', 'd')} AS direction, ${severityOf('e', 'd')} AS severity,
    if(s.zone = 'outside', 'outside', 'inside') AS source_zone,
    if(d.zone = 'outside', 'outside', 'inside') AS destination_zone
  FROM (${mergedEdges(plan, rowConditions(filter, bindings), bindings)}) AS e
  ${joinEnds('e')}
)
WHERE ${allOf(labelledConditions(filter, bindings))}
GROUP BY source, destination, source_name, destination_name, source_zone, destination_zone, verdict_name
ORDER BY connections DESC, source, destination, source_name, destination_name, verdict_name
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}
