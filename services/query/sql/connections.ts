/** Connections out of single flows: workload or address to workload or address, merged over sides. */
import type { FlowFilter, Page } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { certaintyCounts, worstCertainty } from './certainty.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import {
  bytesOf,
  describedColumns,
  joinEnds,
  type Order,
  ruleNames,
  summedColumns,
  tieBreak,
} from './edges.ts';
import { allFlows, mergedSums, timeCondition } from './plan.ts';

export const connectionSorts = [
  'last_seen',
  'first_seen',
  'connections',
  'bytes',
  'flows',
  'severity',
] as const;
export type ConnectionSort = (typeof connectionSorts)[number];

const sortColumns: Readonly<Record<ConnectionSort, string>> = {
  last_seen: 'last_seen_s',
  first_seen: 'first_seen_s',
  connections: 'c_connections',
  bytes: bytesOf,
  flows: 'c_flows',
  severity: 'severity',
};

/** What tells one connection from another; the addresses count where no workload is known. */
const connectionKey =
  'src_identity, dst_identity, src_workload, dst_workload, src_key, dst_key, dst_port, protocol, verdict, reason, rule';

export function connectionsSql(
  filter: FlowFilter,
  page: Page & { readonly sort: ConnectionSort; readonly order: Order },
): Statement {
  const bindings = new Bindings();
  const time = timeCondition({ fromS: filter.window.sinceS, toS: filter.window.untilS }, bindings);
  const sql = `SELECT *, count() OVER () AS total
FROM (
  SELECT ${describedColumns('e')}, r.ruleset_name AS ruleset_name, r.rule_name AS rule_name,
    toString(e.src_workload) AS src_workload_id, toString(e.dst_workload) AS dst_workload_id,
    e.first_seen_s AS first_seen_s, e.last_seen_s AS last_seen_s, e.dns AS dns, e.process_name AS process_name,
    toString(e.service_ip) AS service_ip, e.service_port AS service_port, e.dropped_count AS dropped_count,
    e.ambiguous_count AS ambiguous_count, e.late_count AS late_count, e.unnamed_count AS unnamed_count,
    e.src_how AS src_how, e.dst_how AS dst_how, e.src_sure AS src_sure, e.dst_sure AS dst_sure,
    ${summedColumns('e')}
  FROM (
    SELECT ${connectionKey}, argMax(src_address, time) AS src_ip, argMax(dst_address, time) AS dst_ip,
      toUnixTimestamp(min(time)) AS first_seen_s, toUnixTimestamp(max(time)) AS last_seen_s,
      anyIf(dns_name, dns_name != '') AS dns, anyIf(process, side = 'source' AND process != '') AS process_name,
      argMaxIf(original_dst_ip, time, original_dst_port != 0) AS service_ip, argMaxIf(original_dst_port, time, original_dst_port != 0) AS service_port,
      countIf(action = 'dropped') AS dropped_count,
      ${certaintyCounts},
      toString(argMax(src_provenance, time)) AS src_how, toString(argMax(dst_provenance, time)) AS dst_how,
      ${worstCertainty('src_certainty')} AS src_sure, ${worstCertainty('dst_certainty')} AS dst_sure,
      ${mergedSums}
    FROM (
      SELECT time, src_identity, dst_identity, src_workload, dst_workload, src_address, dst_address,
        if(src_workload = 0, src_address, toIPv6('::')) AS src_key, if(dst_workload = 0, dst_address, toIPv6('::')) AS dst_key,
        dst_port, protocol, verdict, reason, rule, side, pending, action,
        src_provenance, src_certainty, dst_provenance, dst_certainty,
        toString(dns_name) AS dns_name, toString(process) AS process,
        original_dst_ip, original_dst_port, toUInt64(1) AS flows, connections, bytes_forward, bytes_reverse, packets_forward, packets_reverse
      FROM (
        SELECT * EXCEPT (src_ip, dst_ip), src_ip AS src_address, dst_ip AS dst_address
        FROM ${allFlows} WHERE ${allOf([time, ...rowConditions(filter, bindings)])}
      )
    )
    GROUP BY ${connectionKey}
  ) AS e
  ${joinEnds('e')}
  LEFT JOIN ${ruleNames} AS r ON r.rule_key = e.rule
)
WHERE ${allOf(labelledConditions(filter, bindings))}
ORDER BY ${sortColumns[page.sort]} ${page.order === 'desc' ? 'DESC' : 'ASC'}, ${tieBreak}, src_workload_id, dst_workload_id
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}
