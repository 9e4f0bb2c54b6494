/** What single flows say of unexplained edges: who took part, in how many minutes, and which names were asked for. */
import type { EdgeRow } from '../../../lib/draft/edges.ts';
import type { FlowFilter } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { rowConditions } from './conditions.ts';
import { allFlows, type EdgePlan, timeCondition } from './plan.ts';

/** Workloads of one end of an edge that are told apart. */
const maxWorkloads = 200;
/** Names of one edge that are told. */
const maxNames = 3;

export interface EvidenceRow {
  readonly s: string;
  readonly d: string;
  readonly i: string;
  readonly j: string;
  readonly p: number;
  readonly t: number;
  readonly minutes: string;
  readonly sources: readonly string[];
  readonly destinations: readonly string[];
  readonly names: readonly string[];
}

export function draftEvidenceSql(filter: FlowFilter, plan: EdgePlan, edges: readonly EdgeRow[]): Statement {
  const bindings = new Bindings();
  const { sinceS, untilS } = plan.window;
  const tuples = edges.map(
    ({ source, destination, port, protocol }) =>
      `(${BigInt(destination)}, ${Number(port)}, ${BigInt(source)}, ${Number(protocol)})`,
  );
  const destinations = new Set(edges.map(({ destination }) => String(BigInt(destination))));
  const where = [
    timeCondition({ fromS: sinceS, toS: untilS }, bindings),
    `dst_identity IN (${[...destinations].join(', ')})`,
    `(dst_identity, dst_port, src_identity, protocol) IN (${[...new Set(tuples)].join(', ')})`,
    ...rowConditions(filter, bindings),
  ];
  const workloads = (column: string): string =>
    `arrayMap(id -> toString(id), groupUniqArrayIf(${maxWorkloads})(${column}, ${column} != 0))`;
  const sql = `SELECT toString(src_identity) AS s, toString(dst_identity) AS d, toString(source_ip) AS i, toString(destination_ip) AS j,
  dst_port AS p, protocol AS t, toString(uniqExact(toStartOfMinute(time))) AS minutes,
  ${workloads('src_workload')} AS sources, ${workloads('dst_workload')} AS destinations,
  topKIf(${maxNames})(toString(dns_name), dns_name != '') AS names
FROM (
  SELECT time, src_identity, dst_identity, dst_port, protocol, src_workload, dst_workload, dns_name,
    if(src_workload = 0, src_ip, toIPv6('::')) AS source_ip, if(dst_workload = 0, dst_ip, toIPv6('::')) AS destination_ip
  FROM ${allFlows} WHERE ${allOf(where)}
)
GROUP BY src_identity, dst_identity, source_ip, destination_ip, dst_port, protocol`;
  return { sql, params: bindings.values };
}
