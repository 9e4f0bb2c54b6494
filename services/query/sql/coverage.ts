/** Coverage: the share of connections, bytes and edges that rules explain. */
import type { FlowFilter } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { bytesOf, joinEnds } from './edges.ts';
import { labelValue } from './identities.ts';
import { type EdgePlan, mergedEdges } from './plan.ts';
import { directionOf, severityOf } from './severity.ts';

/** Sums per verdict, and what they are shares of. */
const verdictSums = ['allowed', 'denied', 'unexplained']
  .map(
    (verdict) => `sumIf(c_connections, verdict_name = '${verdict}') AS ${verdict}_connections,
  sumIf(${bytesOf}, verdict_name = '${verdict}') AS ${verdict}_bytes, sumIf(c_edges, verdict_name = '${verdict}') AS ${verdict}_edges`,
  )
  .join(',\n  ');

/** What the sums are grouped into: all, the label of either end, and the reason of what is unexplained. */
export const coverageParts = ['total', 'src', 'dst', 'reason'] as const;
export type CoveragePart = (typeof coverageParts)[number];

type End = 'src' | 'dst';

/** Edges with the same ends, of those that matter, verdict and reason, added up before they are labelled: far fewer rows. */
function addedUp(merged: string, ends: readonly End[]): string {
  const sums = ['c_connections', 'c_bytes_forward', 'c_bytes_reverse'];
  const identities = (['src', 'dst'] as const).map((end) =>
    ends.includes(end) ? `m.${end}_identity AS ${end}_identity` : `toUInt64(0) AS ${end}_identity`,
  );
  return `SELECT ${identities.join(', ')}, m.verdict AS verdict, m.reason AS reason,
      ${sums.map((column) => `sum(m.${column}) AS ${column}`).join(', ')}, count() AS c_edges
    FROM (${merged}) AS m GROUP BY ALL`;
}

/**
 * Edges with what the filter needs after the join; `parts` is one more column, of the labels of `ends`, `bucket` the time
 * where there is a series.
 */
function labelledEdges(
  filter: FlowFilter,
  plan: EdgePlan,
  bindings: Bindings,
  parts: string,
  ends: readonly End[],
  stepS: number | null,
): string {
  const bucket =
    stepS === null
      ? null
      : {
          expression: `intDiv(toUnixTimestamp(time), ${bindings.bind('UInt32', stepS)}) * ${bindings.bind('UInt32', stepS)}`,
          name: 'bucket_s',
        };
  const merged = mergedEdges(plan, rowConditions(filter, bindings), bindings, bucket);
  const labelled = labelledConditions(filter, bindings);
  // Direction and severity are those of a pair of ends.
  const edges =
    labelled.length === 0 && bucket === null
      ? addedUp(merged, ends)
      : `SELECT *, 1 AS c_edges FROM (${merged})`;
  return `SELECT * FROM (
    SELECT toString(e.verdict) AS verdict_name, e.c_edges AS c_edges, e.c_connections AS c_connections, e.c_bytes_forward AS c_bytes_forward,
      e.c_bytes_reverse AS c_bytes_reverse, ${parts} AS parts, ${bucket === null ? '0' : 'e.bucket_s'} AS bucket_s,
      ${directionOf('s', 'd')} AS direction, ${severityOf('e', 'd')} AS severity
    FROM (${edges}) AS e
    ${joinEnds('e')}
  ) WHERE ${allOf(labelled)}`;
}

/**
 * One row for the total, one for each reason, and one per value of the label of each end in `ends`, those without the label
 * first, then the one with the most unexplained connections. All are of one reading of the tables, so that groups add up
 * to the total. At most `limit` rows of each part; `group_count` says how many there are.
 */
export function coverageSql(
  filter: FlowFilter,
  plan: EdgePlan,
  key: string | null,
  ends: readonly End[],
  limit: number,
): Statement {
  const bindings = new Bindings();
  const parts = [
    `('total', '')`,
    `('reason', if(e.verdict = 'unexplained', toString(e.reason), ''))`,
    ...(key === null
      ? []
      : ends.map((end) => `('${end}', toString(${labelValue(key, bindings, end === 'src' ? 's' : 'd')}))`)),
  ];
  const sql = `SELECT part.1 AS part_name, part.2 AS value, count() OVER (PARTITION BY part_name) AS group_count, ${verdictSums}
FROM (SELECT *, arrayJoin(parts) AS part FROM (${labelledEdges(filter, plan, bindings, `[${parts.join(', ')}]`, key === null ? [] : ends, null)}))
GROUP BY part
ORDER BY part_name, value = '' DESC, unexplained_connections DESC, allowed_connections + denied_connections DESC, value
LIMIT ${bindings.bind('UInt32', limit)} BY part_name`;
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
FROM (${labelledEdges(filter, plan, bindings, '[]', [], stepS)})
GROUP BY bucket_s
ORDER BY bucket_s
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}
