/** What the audit of static firewall rules reads: edges of rollups, single flows of some edges, and who had an address. */
import type { Window } from '../filters.ts';
import { Bindings, type Statement } from './bindings.ts';
import { type DraftPage, pageConditions } from './draft.ts';
import { endColumns, identityRows } from './identities.ts';
import { allFlows, type EdgePlan, planRows, timeCondition } from './plan.ts';

/** Oldest rows, Unix seconds; 0 where a table is empty. */
export const oldestSql: Statement = {
  sql: `SELECT (SELECT toUnixTimestamp(min(time)) FROM flows) AS flows_s, (SELECT toUnixTimestamp(min(time)) FROM flows_relabel) AS relabel_s,
  (SELECT toUnixTimestamp(min(time)) FROM flows_late) AS late_s, (SELECT toUnixTimestamp(min(time)) FROM edges_1h) AS hours_s`,
  params: {},
};

const addresses = 'toString(src_ip) AS src_ip, toString(dst_ip) AS dst_ip';
const ids = 'toString(src_identity) AS src_identity, toString(dst_identity) AS dst_identity';
const byteSums = 'sum(bytes_forward) AS bytes_forward, sum(bytes_reverse) AS bytes_reverse';

/** Edges of a page of a plan by side, whatever rules said of them. */
export function edgeRowsSql(plan: EdgePlan, page: DraftPage): Statement {
  const bindings = new Bindings();
  const key = 'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, side';
  const sql = `SELECT ${ids}, ${addresses}, dst_port, protocol, side, flows, connections, bytes_forward, bytes_reverse,
  toUnixTimestamp(first_time) AS first_s, toUnixTimestamp(last_time) AS last_s
FROM (
  SELECT ${key}, sum(flows) AS flows, sum(connections) AS connections, ${byteSums}, min(first_time) AS first_time, max(last_time) AS last_time
  FROM (
    SELECT ${key}, pending, sum(flows) AS flows, sum(connections) AS connections, ${byteSums},
      min(first_seen) AS first_time, max(last_seen) AS last_time
    FROM (
    ${planRows(plan, pageConditions(page, bindings), bindings)}
    )
    GROUP BY ${key}, pending
    HAVING flows != 0
  )
  GROUP BY ${key}
)`;
  return { sql, params: bindings.values };
}

function within(window: Window, bindings: Bindings): string {
  return timeCondition({ fromS: window.sinceS, toS: window.untilS }, bindings);
}

/** Destinations before NAT, each once. */
export function frontsSql(window: Window): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(original_dst_ip) AS address, original_dst_port AS port, protocol
FROM ${allFlows} WHERE ${within(window, bindings)} AND original_dst_ip != toIPv6('::') GROUP BY original_dst_ip, port, protocol`;
  return { sql, params: bindings.values };
}

/** An edge without its addresses, which is how single flows are asked for. */
export interface EdgeId {
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly dst_port: number;
  readonly protocol: number;
}

/** Edges that were reached by one of these destinations before NAT. */
export function frontEdgesSql(window: Window, fronts: readonly string[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT ${ids}, dst_port, protocol
FROM (SELECT src_identity, dst_identity, dst_port, protocol FROM ${allFlows}
  WHERE ${within(window, bindings)} AND original_dst_ip IN (SELECT toIPv6(arrayJoin(${bindings.bind('Array(String)', fronts)}))) GROUP BY ALL)`;
  return { sql, params: bindings.values };
}

/** Single flows of these edges by address, also before NAT, and side. */
export function flowRowsSql(window: Window, edges: readonly EdgeId[]): Statement {
  const bindings = new Bindings();
  const column = (values: readonly string[]): string => bindings.bind('Array(UInt64)', values);
  const destinations = column(edges.map((edge) => edge.dst_identity));
  const sources = column(edges.map((edge) => edge.src_identity));
  const ports = column(edges.map(({ dst_port, protocol }) => String(protocol * 65_536 + dst_port)));
  const wanted = `(dst_identity, dst_port, src_identity, protocol) IN (
    SELECT edge.1, toUInt16(edge.3 % 65536), edge.2, toUInt8(intDiv(edge.3, 65536)) FROM (SELECT arrayJoin(arrayZip(${destinations}, ${sources}, ${ports})) AS edge))`;
  const sql = `SELECT toString(e_src) AS src_identity, toString(e_dst) AS dst_identity, toString(w_src) AS src_workload, toString(w_dst) AS dst_workload,
  toString(a_src) AS src_ip, toString(a_dst) AS dst_ip, dst_port, protocol, toString(a_front) AS front_ip, front_port, side,
  flows, connections, bytes_forward, bytes_reverse, first_s, last_s
FROM (
  SELECT src_identity AS e_src, dst_identity AS e_dst, src_workload AS w_src, dst_workload AS w_dst, src_ip AS a_src, dst_ip AS a_dst,
    dst_port, protocol, original_dst_ip AS a_front, original_dst_port AS front_port, side,
    count() AS flows, sum(connections) AS connections, ${byteSums}, toUnixTimestamp(min(time)) AS first_s, toUnixTimestamp(max(time)) AS last_s
  FROM ${allFlows} WHERE ${within(window, bindings)} AND ${wanted}
  GROUP BY e_src, e_dst, w_src, w_dst, a_src, a_dst, dst_port, protocol, a_front, front_port, side
)`;
  return { sql, params: bindings.values };
}

const intervalColumns = `toString(id) AS workload, toString(kind) AS kind, toString(cluster) AS cluster, toString(namespace) AS namespace, name,
  toString(network) AS network, toString(identity) AS identity, toString(ip) AS address,
  toUnixTimestamp64Milli(valid_from) AS from_ms, toUnixTimestamp64Milli(valid_to) AS to_ms`;

/** All intervals of these addresses. */
export function intervalsSql(list: readonly string[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT ${intervalColumns} FROM workloads FINAL
WHERE ip IN (SELECT toIPv6(arrayJoin(${bindings.bind('Array(String)', list)})))`;
  return { sql, params: bindings.values };
}

/** Who has any address at a moment, counted by application: addresses are told apart, workloads aren't. */
export function heldSql(atMs: number): Statement {
  const bindings = new Bindings();
  const at = `fromUnixTimestamp64Milli(toInt64(${bindings.bind('UInt64', String(atMs))}))`;
  const sql = `SELECT toString(ip) AS address, toString(identity) AS identity, toString(kind) AS kind, toString(namespace) AS namespace, any(name) AS name, uniqExact(id) AS workloads
FROM workloads FINAL WHERE valid_from <= ${at} AND valid_to > ${at} AND ip != toIPv6('::')
GROUP BY ip, identity, kind, namespace`;
  return { sql, params: bindings.values };
}

/** Every identity, with its labels. */
export const identitiesSql: Statement = {
  sql: `SELECT toString(s.id) AS id, ${endColumns('s', 'src')} FROM ${identityRows} AS s`,
  params: {},
};
