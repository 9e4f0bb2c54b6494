/** Unexplained edges with their first and last sight, and the evidence for a page of them. */
import type { FlowFilter, Page } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { worstCertainty } from './certainty.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { bytesOf, describedColumns, joinEnds, type Order, summedColumns, tieBreak } from './edges.ts';
import { allFlows, type EdgePlan, mergedEdges } from './plan.ts';

export const unknownSorts = ['severity', 'first_seen', 'last_seen', 'connections', 'bytes'] as const;
export type UnknownSort = (typeof unknownSorts)[number];

function orderBy(sort: UnknownSort, order: Order): string {
  const way = order === 'desc' ? 'DESC' : 'ASC';
  switch (sort) {
    case 'severity':
      return `severity ${way}, first_seen_s DESC, last_seen_s DESC`;
    case 'first_seen':
      return `first_seen_s ${way}, severity DESC`;
    case 'last_seen':
      return `last_seen_s ${way}, severity DESC, first_seen_s DESC`;
    case 'connections':
      return `c_connections ${way}`;
    case 'bytes':
      return `${bytesOf} ${way}`;
  }
}

/**
 * First sight in the whole store is that of settled flows; pending ones add what they say in the window. The filter's
 * verdict is taken as `unexplained`, whatever it says.
 */
export function unknownSql(
  asked: FlowFilter,
  plan: EdgePlan,
  page: Page & { readonly sort: UnknownSort; readonly order: Order },
): Statement {
  const bindings = new Bindings();
  const filter: FlowFilter = { ...asked, verdict: 'unexplained' };
  const since = bindings.bind('UInt32', plan.window.sinceS);
  const sql = `SELECT *, count() OVER () AS total
FROM (
  SELECT ${describedColumns('e')},
    if(n.last_seen_s = 0, e.c_first_s, least(n.first_seen_s, e.c_first_s)) AS first_seen_s,
    greatest(n.last_seen_s, e.c_last_s) AS last_seen_s, ${summedColumns('e')}
  FROM (${mergedEdges(plan, rowConditions(filter, bindings), bindings)}) AS e
  LEFT JOIN (
    SELECT src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol,
      toUnixTimestamp(min(edges_seen.first_seen)) AS first_seen_s, toUnixTimestamp(max(edges_seen.last_seen)) AS last_seen_s
    FROM edges_seen WHERE verdict = 'unexplained' AND pending = 0
    GROUP BY src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol
    HAVING last_seen_s >= ${since} AND sum(edges_seen.flows) != 0
  ) AS n ON n.src_identity = e.src_identity AND n.dst_identity = e.dst_identity AND n.src_ip = e.src_ip
    AND n.dst_ip = e.dst_ip AND n.dst_port = e.dst_port AND n.protocol = e.protocol
  ${joinEnds('e')}
)
WHERE ${allOf(labelledConditions(filter, bindings))}
ORDER BY ${orderBy(page.sort, page.order)}, ${tieBreak}
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}

/** One edge of a page, as far as the lookup of its evidence needs it. */
export interface SeenEdge {
  readonly sourceIdentity: string;
  readonly destinationIdentity: string;
  readonly port: number;
  readonly lastSeenS: number;
}

/**
 * The newest flow of each edge: who exactly, from where to where, by which name and process, how it was named and how
 * surely. Reads only the granules of these edges (the sort key of `flows` begins with destination, port, source) at the
 * second they were last seen.
 */
export function evidenceSql(edges: readonly SeenEdge[]): Statement {
  const bindings = new Bindings();
  const oldest = Math.min(...edges.map((edge) => edge.lastSeenS));
  const newest = Math.max(...edges.map((edge) => edge.lastSeenS));
  const column = (values: readonly (string | number)[]): string =>
    bindings.bind('Array(UInt64)', values.map(String));
  const sql = `SELECT toString(src_identity) AS src_identity_id, toString(dst_identity) AS dst_identity_id,
  dst_port AS port, protocol AS protocol_number, toString(verdict) AS verdict_name,
  toString(if(src_workload = 0, f.src_ip, toIPv6('::'))) AS src_address,
  toString(if(dst_workload = 0, f.dst_ip, toIPv6('::'))) AS dst_address,
  toString(argMax(src_workload, time)) AS src_workload_id, toString(argMax(dst_workload, time)) AS dst_workload_id,
  toString(argMax(f.src_ip, time)) AS src_ip_text, toString(argMax(f.dst_ip, time)) AS dst_ip_text,
  toString(argMax(f.src_provenance, time)) AS src_how, toString(argMax(f.dst_provenance, time)) AS dst_how,
  ${worstCertainty('f.src_certainty')} AS src_sure, ${worstCertainty('f.dst_certainty')} AS dst_sure,
  anyIf(toString(f.dns_name), f.dns_name != '') AS dns,
  anyIf(toString(f.process), f.side = 'source' AND f.process != '') AS process_name
FROM ${allFlows} AS f
WHERE time BETWEEN toDateTime(${bindings.bind('UInt32', oldest)}) AND toDateTime(${bindings.bind('UInt32', newest)})
  AND (dst_identity, dst_port, src_identity, toUnixTimestamp(time)) IN (
    SELECT arrayJoin(arrayZip(${column(edges.map((edge) => edge.destinationIdentity))}, ${column(edges.map((edge) => edge.port))},
      ${column(edges.map((edge) => edge.sourceIdentity))}, ${column(edges.map((edge) => edge.lastSeenS))})))
GROUP BY src_identity, dst_identity, dst_port, protocol, verdict, src_address, dst_address`;
  return { sql, params: bindings.values };
}
