/** Coverage: the share of connections, bytes and edges that rules explain. */
import type { FlowFilter } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { bytesOf, joinEnds } from './edges.ts';
import { labelValue } from './identities.ts';
import { type EdgePlan, mergedEdges } from './plan.ts';
import { directionOf, severityOf } from './severity.ts';

/** What coverage can be grouped by: a label key of one end. */
export interface CoverageGroup {
  readonly end: 'src' | 'dst';
  readonly key: string;
}

/** Sums per verdict, and what they are shares of. */
const verdictSums = ['allowed', 'denied', 'unexplained']
  .map(
    (verdict) => `sumIf(c_connections, verdict_name = '${verdict}') AS ${verdict}_connections,
  sumIf(${bytesOf}, verdict_name = '${verdict}') AS ${verdict}_bytes, countIf(verdict_name = '${verdict}') AS ${verdict}_edges`,
  )
  .join(',\n  ');

/** Edges with what the filter needs after the join; `grouping` is one more column, `bucket` the time where there is a series. */
function labelledEdges(
  filter: FlowFilter,
  plan: EdgePlan,
  bindings: Bindings,
  grouping: string,
  stepS: number | null,
): string {
  const bucket =
    stepS === null
      ? null
      : {
          expression: `intDiv(toUnixTimestamp(time), ${bindings.bind('UInt32', stepS)}) * ${bindings.bind('UInt32', stepS)}`,
          name: 'bucket_s',
        };
  return `SELECT * FROM (
    SELECT toString(e.verdict) AS verdict_name, e.c_connections AS c_connections, e.c_bytes_forward AS c_bytes_forward,
      e.c_bytes_reverse AS c_bytes_reverse, ${grouping} AS grouping_value, ${bucket === null ? '0' : 'e.bucket_s'} AS bucket_s,
      ${directionOf('s', 'd')} AS direction, ${severityOf('e', 'd')} AS severity
    FROM (${mergedEdges(plan, rowConditions(filter, bindings), bindings, bucket)}) AS e
    ${joinEnds('e')}
  ) WHERE ${allOf(labelledConditions(filter, bindings))}`;
}

/** One row; or one per value of the group, the one with the most unexplained connections first. */
export function coverageSql(
  filter: FlowFilter,
  plan: EdgePlan,
  group: CoverageGroup | null,
  limit: number,
): Statement {
  const bindings = new Bindings();
  const grouping = group === null ? `''` : labelValue(group.key, bindings, group.end === 'src' ? 's' : 'd');
  const sql = `SELECT toString(grouping_value) AS value, ${verdictSums}
FROM (${labelledEdges(filter, plan, bindings, grouping, null)})
GROUP BY value
ORDER BY unexplained_connections DESC, allowed_connections + denied_connections DESC, value
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/** One row per step of the window in which anything was seen, oldest first. */
export function coverageSeriesSql(
  filter: FlowFilter,
  plan: EdgePlan,
  stepS: number,
  limit: number,
): Statement {
  const bindings = new Bindings();
  const sql = `SELECT bucket_s, ${verdictSums}
FROM (${labelledEdges(filter, plan, bindings, `''`, stepS)})
GROUP BY bucket_s
ORDER BY bucket_s
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}
