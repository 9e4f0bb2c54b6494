/** Asks the store for new unexplained edges, and for the evidence of one. */

import { unknownIdentity } from '../../lib/inventory/identities.ts';
import { identityId } from '../../lib/inventory/ids.ts';
import type { Store } from '../../lib/store/store.ts';
import type { Reason } from '../../schemas/closed-lists.ts';
import type { Scope } from './config.ts';

/** One end of an edge, as its identity says. */
export interface End {
  readonly identity: string;
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly zone: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** How far an edge goes: 0 stays inside, 1 leaves the cluster, 2 leaves the estate. */
export type Reach = 0 | 1 | 2;

export interface NewEdge {
  /** 64-bit hash of the edge, decimal. */
  readonly edge: string;
  readonly source: End;
  readonly destination: End;
  /** Address of an end that no workload owns, `::` otherwise (IPv6 text). */
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  readonly port: number;
  readonly protocol: number;
  readonly reason: Reason;
  readonly reach: Reach;
  /** Seconds since the epoch. */
  readonly firstSeenS: number;
  readonly lastSeenS: number;
  /** When the store first heard of it, ms since the epoch; of an edge that is not settled, the time of the question. */
  readonly writtenMs: number;
}

/** Blocks that belong to nobody's internet (RFC 1918, 6598, 3927, 4193, 4291, 5771), as first and last address. */
const privateSpans = [
  ['::ffff:0.0.0.0', '::ffff:0.255.255.255'],
  ['::ffff:10.0.0.0', '::ffff:10.255.255.255'],
  ['::ffff:100.64.0.0', '::ffff:100.127.255.255'],
  ['::ffff:127.0.0.0', '::ffff:127.255.255.255'],
  ['::ffff:169.254.0.0', '::ffff:169.254.255.255'],
  ['::ffff:172.16.0.0', '::ffff:172.31.255.255'],
  ['::ffff:192.168.0.0', '::ffff:192.168.255.255'],
  ['::ffff:224.0.0.0', '::ffff:255.255.255.255'],
  ['::', '::1'],
  ['fc00::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fe80::', 'febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['ff00::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
] as const;

/** Ranges that every network has and no connection leaves a cluster for. */
const localRanges = ['loopback', 'link-local', 'multicast'];

function isOutside(end: string, ip: string): string {
  const spans = privateSpans.map(([first, last]) => `${ip} BETWEEN toIPv6('${first}') AND toIPv6('${last}')`);
  return `if(${end}.kind IN ('', 'unknown'), NOT (${spans.join(' OR ')}), ${end}.zone = 'outside')`;
}

/** 0, 1 or 2, as {@link Reach} says. */
const reachSql = `multiIf(
    NOT ${isOutside('s', 'e.src_ip')} AND ${isOutside('d', 'e.dst_ip')}, 2,
    s.cluster != '' AND s.cluster != d.cluster
      AND NOT (d.kind = 'range' AND d.name IN (${localRanges.map((name) => `'${name}'`).join(', ')})), 1,
    0)`;

const edgeKey = 'dst_identity, dst_port, src_identity, protocol, src_ip, dst_ip';

/** The hash of an edge: what an alert is about, once. */
const edgeHash = `reinterpretAsUInt64(substring(SHA256(arrayStringConcat(['edge', toString(src_identity),
    toString(dst_identity), toString(src_ip), toString(dst_ip), toString(dst_port), toString(protocol)], '/')), 1, 8))`;

const identityRows = `(SELECT id, kind, cluster, namespace, name, zone, app, role, env, loc, label_keys, label_values
    FROM identities FINAL)`;

function endColumns(alias: string, end: 'src' | 'dst'): string {
  return `toString(e.${end}_identity) AS ${end}_id, toString(${alias}.kind) AS ${end}_kind,
    toString(${alias}.cluster) AS ${end}_cluster, toString(${alias}.namespace) AS ${end}_namespace,
    ${alias}.name AS ${end}_name, toString(${alias}.zone) AS ${end}_zone,
    ${alias}.label_keys AS ${end}_keys, ${alias}.label_values AS ${end}_values,
    toString(${alias}.app) AS ${end}_app, toString(${alias}.role) AS ${end}_role,
    toString(${alias}.env) AS ${end}_env, toString(${alias}.loc) AS ${end}_loc`;
}

type EndRow<E extends 'src' | 'dst'> = {
  readonly [K in `${E}_${'id' | 'kind' | 'cluster' | 'namespace' | 'name' | 'zone' | 'app' | 'role' | 'env' | 'loc'}`]: string;
} & { readonly [K in `${E}_${'keys' | 'values'}`]: readonly string[] };

type EdgeRow = EndRow<'src'> &
  EndRow<'dst'> & {
    readonly edge_id: string;
    readonly src_address: string;
    readonly dst_address: string;
    readonly port: number;
    readonly protocol_number: number;
    readonly reason_name: Reason;
    readonly reach: Reach;
    readonly first_seen_s: number;
    readonly last_seen_s: number;
    readonly written_ms: string;
  };

export interface EdgeQuestion {
  /** Edges that the store first heard of after this, ms since the epoch. */
  readonly sinceMs: number;
  readonly scope: Scope;
  readonly identityWaitMs: number;
  /** What came before this is no news, ms since the epoch. */
  readonly baselineMs: number;
  /** How long an edge whose names are not settled yet waits for that, ms. */
  readonly pendingGraceMs: number;
  readonly limit: number;
}

const leastReach: Readonly<Record<Scope, Reach>> = { any: 0, 'leaves-cluster': 1, 'leaves-estate': 2 };

/** The id that an alert about `edge` has, see `messageIdOf`: the key of the table `alerts`. */
const alertId = "concat('msg_edge_', leftPad(lower(hex(edge)), 16, '0'))";

/** Edges with settled names that the store first heard of after `since`. */
const settledEdges = `SELECT ${edgeKey}, ${edgeHash} AS edge, anyLast(reason) AS seen_reason, min(first_seen) AS since,
        max(last_seen) AS until, min(first_written) AS written, written AS told
    FROM edges_seen
    WHERE verdict = 'unexplained' AND pending = 0 AND (${edgeKey}) IN (
        SELECT ${edgeKey} FROM edges_seen
        WHERE verdict = 'unexplained' AND pending = 0 AND first_written > fromUnixTimestamp64Milli({since:Int64}))
    GROUP BY ${edgeKey}
    HAVING sum(edges_seen.flows) != 0 AND written > fromUnixTimestamp64Milli({since:Int64})
        AND edge NOT IN (SELECT edge FROM alerts WHERE created >= fromUnixTimestamp64Milli({since:Int64}) - toIntervalDay(1))`;

/** Edges of flows that came before the inventory and were not settled within the grace. */
const waitingEdges = `SELECT late_dst_identity AS dst_identity, late_port AS dst_port, late_src_identity AS src_identity, late_protocol AS protocol,
        late_src_ip AS src_ip, late_dst_ip AS dst_ip, ${edgeHash} AS edge, late_reason AS seen_reason,
        late_since AS since, late_until AS until, late_written AS written, now64(3) AS told
    FROM (
        SELECT dst_identity AS late_dst_identity, dst_port AS late_port, src_identity AS late_src_identity, protocol AS late_protocol,
            if(src_workload = 0, src_ip, toIPv6('::')) AS late_src_ip, if(dst_workload = 0, dst_ip, toIPv6('::')) AS late_dst_ip,
            any(reason) AS late_reason, min(time) AS late_since, max(time) AS late_until, min(flows_late.written) AS late_written
        FROM flows_late FINAL
        WHERE sign = 1 AND pending = 1 AND verdict = 'unexplained' AND time >= toDateTime({oldest:UInt32})
        GROUP BY ALL
        HAVING late_written < now64(3) - toIntervalMillisecond({grace:UInt32}) AND late_written > fromUnixTimestamp64Milli({baseline:Int64})
    )
    WHERE ${alertId} NOT IN (SELECT id FROM alerts) AND (${edgeKey}) NOT IN (
        SELECT ${edgeKey} FROM edges_seen WHERE verdict = 'unexplained' AND pending = 0
        GROUP BY ${edgeKey} HAVING sum(edges_seen.flows) != 0)`;

/** Of `edges` those within the scope whose labels have come, or shall be waited for no longer; the earliest first. */
async function findWithLabels(
  store: Store,
  edges: string,
  question: EdgeQuestion,
  more: Readonly<Record<string, number>>,
): Promise<NewEdge[]> {
  const rows = await store.query<EdgeRow>(
    `SELECT toString(e.edge) AS edge_id, ${endColumns('s', 'src')}, ${endColumns('d', 'dst')},
    toString(e.src_ip) AS src_address, toString(e.dst_ip) AS dst_address, e.dst_port AS port, e.protocol AS protocol_number,
    toString(e.seen_reason) AS reason_name, ${reachSql} AS reach, toUnixTimestamp(e.since) AS first_seen_s,
    toUnixTimestamp(e.until) AS last_seen_s, toUnixTimestamp64Milli(e.told) AS written_ms
FROM (
    ${edges}
) AS e
LEFT JOIN ${identityRows} AS s ON s.id = e.src_identity
LEFT JOIN ${identityRows} AS d ON d.id = e.dst_identity
WHERE reach >= {reach:UInt8}
    AND (((s.id != 0 OR e.src_identity IN (0, {unknown:UInt64})) AND (d.id != 0 OR e.dst_identity IN (0, {unknown:UInt64})))
        OR e.written < now64(3) - toIntervalMillisecond({wait:UInt32}))
ORDER BY e.written, e.edge
LIMIT {limit:UInt32}`,
    {
      ...more,
      reach: leastReach[question.scope],
      unknown: String(identityId(unknownIdentity)),
      wait: question.identityWaitMs,
      limit: question.limit,
    },
  );
  return rows.map((row) => ({
    edge: row.edge_id,
    source: {
      identity: row.src_id,
      kind: row.src_kind || 'unknown',
      cluster: row.src_cluster,
      namespace: row.src_namespace,
      name: row.src_name,
      zone: row.src_zone,
      labels: labelsOf(row.src_keys, row.src_values, row.src_app, row.src_role, row.src_env, row.src_loc),
    },
    destination: {
      identity: row.dst_id,
      kind: row.dst_kind || 'unknown',
      cluster: row.dst_cluster,
      namespace: row.dst_namespace,
      name: row.dst_name,
      zone: row.dst_zone,
      labels: labelsOf(row.dst_keys, row.dst_values, row.dst_app, row.dst_role, row.dst_env, row.dst_loc),
    },
    sourceAddress: row.src_address,
    destinationAddress: row.dst_address,
    port: row.port,
    protocol: row.protocol_number,
    reason: row.reason_name,
    reach: row.reach,
    firstSeenS: row.first_seen_s,
    lastSeenS: row.last_seen_s,
    writtenMs: Number(row.written_ms),
  }));
}

/** The minute of the oldest flow whose names are not settled, seconds since the epoch; `null` where there is none. */
async function oldestPending(store: Store): Promise<number | null> {
  const [row] = await store.query<{ oldest_s: number | null }>(
    `SELECT toUnixTimestamp(min(minute)) AS oldest_s FROM (
    SELECT time AS minute FROM naming_1m WHERE pending = 1 GROUP BY minute HAVING sum(naming_1m.flows) != 0)
HAVING count() > 0`,
  );
  return row?.oldest_s ?? null;
}

/**
 * New edges within the scope that no alert was made of yet, the earliest first. One that came before its inventory is
 * new when it is settled; one that is not settled within `pendingGraceMs` is told of as it is.
 */
export async function findNewEdges(store: Store, question: EdgeQuestion): Promise<NewEdge[]> {
  const settled = await findWithLabels(store, settledEdges, question, { since: question.sinceMs });
  const oldest = await oldestPending(store);
  if (oldest === null) return settled;
  const waiting = await findWithLabels(store, waitingEdges, question, {
    oldest,
    grace: question.pendingGraceMs,
    baseline: question.baselineMs,
  });
  const known = new Set(settled.map(({ edge }) => edge));
  return [...settled, ...waiting.filter(({ edge }) => !known.has(edge))].slice(0, question.limit);
}

function labelsOf(
  keys: readonly string[],
  values: readonly string[],
  app: string,
  role: string,
  env: string,
  loc: string,
): Record<string, string> {
  const all = [
    ...Object.entries({ app, role, env, loc }),
    ...keys.map((key, i) => [key, values[i] ?? ''] as const),
  ];
  return Object.fromEntries(all.filter(([, value]) => value !== ''));
}

export interface WorkloadName {
  readonly id: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
  readonly node: string;
}

/** What the raw flows say about one edge: its first flow as a sample, and counts of the fuller side. */
export interface Evidence {
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  readonly sourceWorkload: WorkloadName | null;
  readonly destinationWorkload: WorkloadName | null;
  readonly dnsName: string;
  readonly process: string;
  readonly reporters: readonly string[];
  readonly flows: number;
  readonly connections: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
}

interface EvidenceRow {
  readonly src_address: string;
  readonly dst_address: string;
  readonly src_id: string;
  readonly dst_id: string;
  readonly dns: string;
  readonly process_name: string;
  readonly reporters: readonly string[];
  readonly flow_count: string;
  readonly connection_count: string;
  readonly forward: string;
  readonly reverse: string;
}

const perSide = (column: string): string =>
  `greatest(${['source', 'destination', 'middle'].map((side) => `sumIf(${column}, side = '${side}')`).join(', ')})`;

/** The evidence of an edge; `null` where its flows are gone. */
export async function findEvidence(store: Store, edge: NewEdge): Promise<Evidence | null> {
  const [row] = await store.query<EvidenceRow>(
    `SELECT toString(argMin(src_ip, time)) AS src_address, toString(argMin(dst_ip, time)) AS dst_address,
    toString(argMin(src_workload, time)) AS src_id, toString(argMin(dst_workload, time)) AS dst_id,
    anyIf(toString(dns_name), dns_name != '') AS dns, anyIf(toString(process), process != '') AS process_name,
    groupUniqArray(5)(toString(agent)) AS reporters, count() AS flow_count, ${perSide('connections')} AS connection_count,
    ${perSide('bytes_forward')} AS forward, ${perSide('bytes_reverse')} AS reverse
FROM flows_all
WHERE dst_identity = {destination:UInt64} AND dst_port = {port:UInt16} AND src_identity = {source:UInt64}
    AND protocol = {protocol:UInt8} AND verdict = 'unexplained'
    AND time >= toDateTime({first:UInt32}) AND time <= toDateTime({last:UInt32})
    AND if(src_workload = 0, src_ip, toIPv6('::')) = toIPv6({source_ip:String})
    AND if(dst_workload = 0, dst_ip, toIPv6('::')) = toIPv6({destination_ip:String})
HAVING flow_count > 0`,
    {
      destination: edge.destination.identity,
      source: edge.source.identity,
      port: edge.port,
      protocol: edge.protocol,
      first: edge.firstSeenS,
      last: edge.lastSeenS,
      source_ip: edge.sourceAddress,
      destination_ip: edge.destinationAddress,
    },
  );
  if (row === undefined) return null;
  const names = await findWorkloads(store, [row.src_id, row.dst_id]);
  return {
    sourceAddress: row.src_address,
    destinationAddress: row.dst_address,
    sourceWorkload: names.get(row.src_id) ?? null,
    destinationWorkload: names.get(row.dst_id) ?? null,
    dnsName: row.dns,
    process: row.process_name,
    reporters: row.reporters,
    flows: Number(row.flow_count),
    connections: Number(row.connection_count),
    bytesForward: Number(row.forward),
    bytesReverse: Number(row.reverse),
  };
}

async function findWorkloads(
  store: Store,
  ids: readonly [string, string],
): Promise<Map<string, WorkloadName>> {
  const rows = await store.query<WorkloadName>(
    `SELECT toString(w.id) AS id, toString(anyLast(w.kind)) AS kind, anyLast(w.name) AS name,
    toString(anyLast(w.namespace)) AS namespace, toString(anyLast(w.node)) AS node
FROM workloads AS w WHERE w.id IN ({source:UInt64}, {destination:UInt64}) AND w.id != 0 GROUP BY w.id`,
    { source: ids[0], destination: ids[1] },
  );
  return new Map(rows.map((row) => [row.id, row]));
}
