/** Stored edges for drafts and suggestions: in pages of destinations, and the single flows of a few of them. */
import type { EdgeRow, KnownIdentity } from '../../../lib/draft/edges.ts';
import type { FlowFilter } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { rowConditions } from './conditions.ts';
import { allFlows, type EdgePlan, planRows, timeCondition } from './plan.ts';

/** Rows of the rollups that one page reads, roughly; a single port of a destination is never divided. */
const pageRows = 1_000_000;

/** Short names: they are repeated in each row on the wire. */
export interface PackedRow {
  readonly s: string;
  readonly d: string;
  readonly i: string;
  readonly j: string;
  readonly p: number;
  readonly t: number;
  readonly v: number;
  readonly r: number;
  readonly u: string;
  readonly e: number;
  readonly n: number;
  readonly c: number;
  readonly f: number;
  readonly g: number;
  readonly a: number;
  readonly z: number;
  readonly k?: string;
  readonly l?: string;
  readonly x?: string;
  readonly y?: string;
}

export function unpackRow(row: PackedRow): EdgeRow {
  return {
    source: row.s,
    destination: row.d,
    sourceIp: row.i,
    destinationIp: row.j,
    port: row.p,
    protocol: row.t,
    verdict: row.v,
    reason: row.r,
    rule: row.u,
    side: row.e,
    flows: row.n,
    connections: row.c,
    bytesForward: row.f,
    bytesReverse: row.g,
    firstS: row.a,
    lastS: row.z,
    ...(row.k === undefined ? {} : { sourceAddress: row.k }),
    ...(row.l === undefined ? {} : { destinationAddress: row.l }),
    ...(row.x === undefined ? {} : { process: row.x }),
    ...(row.y === undefined ? {} : { dns: row.y }),
  };
}

/** Sums of unsigned columns wrap around where a repair took rows back: they are right again before they become floats. */
const packedColumns = `toString(src_identity) AS s, toString(dst_identity) AS d, toString(src_ip) AS i, toString(dst_ip) AS j,
  dst_port AS p, protocol AS t, CAST(verdict, 'Int8') AS v, CAST(reason, 'Int8') AS r, toString(rule) AS u, CAST(side, 'Int8') AS e,
  toFloat64(sum(flows)) AS n, toFloat64(sum(connections)) AS c, toFloat64(sum(bytes_forward)) AS f, toFloat64(sum(bytes_reverse)) AS g,
  toUnixTimestamp(min(first_seen)) AS a, toUnixTimestamp(max(last_seen)) AS z`;
const groupColumns =
  'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side';

/** Ports of destinations with the rows that the rollups have of them, in the order of the tables. */
export interface PortRows {
  readonly d: string;
  readonly p: number;
  readonly n: string;
}

export function portRowsSql(filter: FlowFilter, plan: EdgePlan): Statement {
  const bindings = new Bindings();
  const where = rowConditions(filter, bindings);
  const sql = `SELECT toString(dst_identity) AS d, dst_port AS p, count() AS n
FROM (${planRows(plan, where, bindings)})
GROUP BY dst_identity, dst_port ORDER BY dst_identity, dst_port`;
  return { sql, params: bindings.values };
}

/** From a port of a destination up to another, both included. */
export interface DraftPage {
  readonly from: PortRows;
  readonly to: PortRows;
}

export function draftPages(ports: readonly PortRows[], maxRows = pageRows): DraftPage[] {
  const pages: DraftPage[] = [];
  let from: PortRows | null = null;
  let rows = 0;
  ports.forEach((port, i) => {
    from ??= port;
    rows += Number(port.n);
    if (rows < maxRows && i < ports.length - 1) return;
    pages.push({ from, to: port });
    from = null;
    rows = 0;
  });
  return pages;
}

/** What rows of a page are told by. */
export function pageConditions({ from, to }: DraftPage, bindings: Bindings): string[] {
  const at = ({ d, p }: PortRows): string => `(${bindings.bind('UInt64', d)}, ${bindings.bind('UInt16', p)})`;
  return [
    // The first column alone is what the primary key is searched by.
    `dst_identity BETWEEN ${bindings.bind('UInt64', from.d)} AND ${bindings.bind('UInt64', to.d)}`,
    `(dst_identity, dst_port) >= ${at(from)}`,
    `(dst_identity, dst_port) <= ${at(to)}`,
  ];
}

/** All edges of a page, one row for each stored verdict and side. What a repair took back is left out. */
export function draftPageSql(filter: FlowFilter, plan: EdgePlan, page: DraftPage): Statement {
  const bindings = new Bindings();
  const where = [...pageConditions(page, bindings), ...rowConditions(filter, bindings)];
  const sql = `SELECT ${packedColumns}
FROM (${planRows(plan, where, bindings)})
GROUP BY ${groupColumns}, pending
HAVING sum(flows) != 0`;
  return { sql, params: bindings.values };
}

/** What of single flows is to be told apart, beside the edge. */
export interface FlowDetail {
  readonly process: boolean;
  readonly dns: boolean;
}

/** Edges that one statement asks for. */
export const edgesPerStatement = 2_000;

/** The single flows of some edges (and of others that differ in address alone), grouped by all that rules may ask. */
export function draftFlowsSql(
  filter: FlowFilter,
  plan: EdgePlan,
  edges: readonly EdgeRow[],
  detail: FlowDetail,
  limit: number,
): Statement {
  const bindings = new Bindings();
  const { sinceS, untilS } = plan.window;
  const tuples = edges.map(
    ({ source, destination, port, protocol }) =>
      `(${BigInt(destination)}, ${Number(port)}, ${BigInt(source)}, ${Number(protocol)})`,
  );
  const where = [
    timeCondition({ fromS: sinceS, toS: untilS }, bindings),
    `dst_identity IN (${[...new Set(edges.map(({ destination }) => String(BigInt(destination))))].join(', ')})`,
    `(dst_identity, dst_port, src_identity, protocol) IN (${[...new Set(tuples)].join(', ')})`,
    ...rowConditions(filter, bindings),
  ];
  const own = [...(detail.process ? ['process AS x'] : []), ...(detail.dns ? ['dns_name AS y'] : [])].map(
    (column) => `, toString(${column.replace(' AS', ') AS')}`,
  );
  const sql = `SELECT ${packedColumns}, toString(source_address) AS k, toString(destination_address) AS l${own.join('')}
FROM (
  SELECT raw.src_identity AS src_identity, raw.dst_identity AS dst_identity, raw.src_ip AS source_address,
    raw.dst_ip AS destination_address, if(raw.src_workload = 0, raw.src_ip, toIPv6('::')) AS src_ip,
    if(raw.dst_workload = 0, raw.dst_ip, toIPv6('::')) AS dst_ip, raw.dst_port AS dst_port, raw.protocol AS protocol,
    raw.verdict AS verdict, raw.reason AS reason, raw.rule AS rule, raw.side AS side, raw.process AS process,
    raw.dns_name AS dns_name, toUInt64(1) AS flows, toUInt64(raw.connections) AS connections,
    raw.bytes_forward AS bytes_forward, raw.bytes_reverse AS bytes_reverse, raw.time AS first_seen, raw.time AS last_seen
  FROM ${allFlows} AS raw WHERE ${allOf(where)}
)
GROUP BY ${groupColumns}, source_address, destination_address${detail.process ? ', process' : ''}${detail.dns ? ', dns_name' : ''}
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

interface StoredIdentity extends Omit<KnownIdentity, 'labels'> {
  readonly label_keys: readonly string[];
  readonly label_values: readonly string[];
}

export const allIdentitiesSql: Statement = {
  sql: `SELECT toString(id) AS id, toString(kind) AS kind, toString(cluster) AS cluster, toString(namespace) AS namespace, name,
  toString(zone) AS zone, label_keys, label_values FROM (SELECT * FROM identities FINAL)`,
  params: {},
};

export type IdentityRow = StoredIdentity;

export function identityOfRow({ label_keys, label_values, ...rest }: IdentityRow): KnownIdentity {
  return { ...rest, labels: Object.fromEntries(label_keys.map((key, i) => [key, label_values[i] ?? ''])) };
}

/** Names of rules of every version, newest first named. */
export const allRuleNamesSql: Statement = {
  sql: 'SELECT toString(id) AS id, argMax(ruleset, policy) AS ruleset_name, argMax(name, policy) AS rule_name FROM rules GROUP BY id',
  params: {},
};
