/** The statements that relabel a day. Pure: each function gives one statement. */

/** Columns of `flows` that relabelling leaves as they are. */
const keptColumns = [
  'time',
  'duration_ms',
  'src_ip',
  'src_port',
  'dst_ip',
  'dst_port',
  'protocol',
  'original_dst_ip',
  'original_dst_port',
  'src_workload',
  'dst_workload',
  'src_provenance',
  'src_certainty',
  'dst_provenance',
  'dst_certainty',
  'side',
  'state',
  'action',
  'action_reason',
  'flags',
  'bytes_forward',
  'bytes_reverse',
  'packets_forward',
  'packets_reverse',
  'connections',
  'dns_name',
  'process',
  'agent',
] as const;

/** Those that it gives anew. */
const givenColumns = ['src_identity', 'dst_identity', 'verdict', 'reason', 'rule', 'policy'] as const;

const counters = [
  'flows',
  'connections',
  'bytes_forward',
  'bytes_reverse',
  'packets_forward',
  'packets_reverse',
] as const;

const edgeKey =
  'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side, pending';

/** Marks statements of a run, so that those of one that was killed can be found and ended. */
const mark = '/* eastwest relabel */';

/** Seconds of a day (UTC), from `from` up to `to`. */
export interface Slice {
  readonly from: number;
  readonly to: number;
}

export interface Given {
  /** Flows from this second on get labels anew. */
  readonly since: number;
  /** Version that they are given; flows of later versions are left alone. */
  readonly policy: number;
  /** Whether rules speak of addresses: otherwise these don't tell ends apart. */
  readonly hasBlocks: boolean;
}

function inSlice({ from, to }: Slice, time = 'time'): string {
  return `${time} >= toDateTime(${from}, 'UTC') AND ${time} < toDateTime(${to}, 'UTC')`;
}

function applies({ since, policy }: Given): string {
  return `(time >= toDateTime(${since}, 'UTC') AND policy <= ${policy})`;
}

function addressKey(column: string, { hasBlocks }: Given): string {
  return hasBlocks ? column : "toIPv6('::')";
}

/** Inserts of their own data are never to be taken for repeats of earlier ones. */
const asNew = 'SETTINGS insert_deduplicate = 0, deduplicate_blocks_in_dependent_materialized_views = 0';

export function keysInsert(table: string, slice: Slice, given: Given): string {
  const ends = (['src', 'dst'] as const).map(
    (end) =>
      `SELECT ${end}_workload AS workload, ${end}_identity AS identity, ${addressKey(`${end}_ip`, given)} AS ip
      FROM ${table} WHERE ${inSlice(slice)} AND ${applies(given)}`,
  );
  return `INSERT INTO relabel_keys ${mark} SELECT DISTINCT workload, identity, ip FROM (${ends.join(' UNION ALL ')})`;
}

/** How far beyond a slice rows tell what an end was called, seconds. */
const sightSeconds = 600;

/** When ends, given by workload or (without one) by identity, were stored as what. */
export function sightingsQuery(table: string, { from, to }: Slice): string {
  const wide = { from: from - sightSeconds, to: to + sightSeconds };
  const ends = (['src', 'dst'] as const).map(
    (end) => `SELECT ${end}_workload AS workload, ${end}_identity AS identity, toUnixTimestamp(time) AS second
      FROM ${table} WHERE ${inSlice(wide)} AND (${end}_workload IN {workloads:Array(UInt64)}
        OR (${end}_workload = 0 AND ${end}_identity IN {identities:Array(UInt64)}))`,
  );
  return `SELECT DISTINCT toString(workload) AS workload, toString(identity) AS identity, second
    FROM (${ends.join(' UNION ALL ')}) LIMIT {limit:UInt32} ${mark}`;
}

/** Rows of a slice with the new identities of their ends, and the sets of blocks that their addresses are in. */
function named(table: string, slice: Slice, given: Given): string {
  return `(
    SELECT f.*, ${applies(given)} AS applies,
      s.new_identity AS src_new, s.block AS src_block, s.known AS src_known,
      d.new_identity AS dst_new, d.block AS dst_block, d.known AS dst_known
    FROM (
      SELECT *, ${addressKey('src_ip', given)} AS src_key, ${addressKey('dst_ip', given)} AS dst_key
      FROM ${table} WHERE ${inSlice(slice)}
    ) AS f
    ASOF LEFT JOIN relabel_ends AS s
      ON f.src_workload = s.workload AND f.src_identity = s.identity AND f.src_key = s.ip AND f.time >= s.since
    ASOF LEFT JOIN relabel_ends AS d
      ON f.dst_workload = d.workload AND f.dst_identity = d.identity AND f.dst_key = d.ip AND f.time >= d.since
  )`;
}

const pairColumns = 'src_identity, src_block, dst_identity, dst_block, dst_port, protocol';

export function pairsInsert(table: string, slice: Slice, given: Given): string {
  return `INSERT INTO relabel_pairs (${pairColumns}) ${mark}
    SELECT DISTINCT src_new, src_block, dst_new, dst_block, dst_port, protocol
    FROM ${named(table, slice, given)} WHERE applies`;
}

/** Rows of a slice beside what they will be; rows that relabelling is not for stay as they are. */
function judged(table: string, slice: Slice, given: Given): string {
  const columns = [
    ...keptColumns.map((column) => `n.${column} AS ${column}`),
    ...givenColumns.map((column) => `n.${column} AS old_${column}`),
    'if(n.applies, n.src_new, n.src_identity) AS src_identity',
    'if(n.applies, n.dst_new, n.dst_identity) AS dst_identity',
    'if(n.applies, v.verdict, n.verdict) AS verdict',
    'if(n.applies, v.reason, n.reason) AS reason',
    'if(n.applies, v.rule, n.rule) AS rule',
    `if(n.applies, toUInt32(${given.policy}), n.policy) AS policy`,
    'n.applies AS applies',
    '(n.src_known = 1 AND n.dst_known = 1) AS known',
  ];
  return `(
    SELECT ${columns.join(', ')}
    FROM ${named(table, slice, given)} AS n
    ANY LEFT JOIN relabel_verdicts AS v
      ON n.src_new = v.src_identity AND n.src_block = v.src_block AND n.dst_new = v.dst_identity
        AND n.dst_block = v.dst_block AND n.dst_port = v.dst_port AND n.protocol = v.protocol
    WHERE throwIf(n.applies AND (v.judged = 0 OR n.src_new = 0 OR n.dst_new = 0), 'a flow was not judged') = 0
  )`;
}

export function rowsInsert(table: string, slice: Slice, given: Given): string {
  const columns = [...keptColumns, ...givenColumns].join(', ');
  return `INSERT INTO flows_relabel_new (${columns}) ${mark}
    SELECT ${columns} FROM ${judged(table, slice, given)} ${asNew}`;
}

export interface SliceSummary {
  readonly flows: string;
  readonly changed: string;
  readonly unknown: string;
}

/** What becomes of a slice: see {@link SliceSummary}. */
export function summaryQuery(table: string, slice: Slice, given: Given): string {
  return `SELECT countIf(applies) AS flows,
      countIf(applies AND (old_src_identity, old_dst_identity, old_verdict, old_reason, old_rule)
        != (src_identity, dst_identity, verdict, reason, rule)) AS changed,
      countIf(applies AND NOT known) AS unknown
    FROM ${judged(table, slice, given)} ${mark}`;
}

export interface CoverageRow {
  readonly verdict: string;
  readonly flows: string;
  readonly connections: string;
  readonly bytes: string;
}

export function coverageQuery(table: string, given: Given, slice: Slice | null): string {
  return `SELECT toString(raw.verdict) AS verdict, count() AS flows, sum(raw.connections) AS connections,
      sum(raw.bytes_forward + raw.bytes_reverse) AS bytes
    FROM ${table} AS raw WHERE time >= toDateTime(${given.since}, 'UTC') ${slice === null ? '' : `AND ${inSlice(slice)}`}
    GROUP BY verdict ${mark}`;
}

/** Verdicts of a slice as they would be. */
export function coverageAfterQuery(table: string, slice: Slice, given: Given): string {
  return `SELECT toString(raw.verdict) AS verdict, count() AS flows, sum(raw.connections) AS connections,
      sum(raw.bytes_forward + raw.bytes_reverse) AS bytes
    FROM ${judged(table, slice, given)} AS raw WHERE time >= toDateTime(${given.since}, 'UTC') GROUP BY verdict ${mark}`;
}

/** A number for everything that must not change: equal before and after, or nothing is replaced. */
export function totalsQuery(table: string, day: number): string {
  const sums = counters.slice(1).map((column) => `toString(sum(raw.${column})) AS ${column}`);
  const untouched = keptColumns.map((column) => `raw.${column}`).join(', ');
  return `SELECT toString(count()) AS flows, ${sums.join(', ')}, toString(sum(cityHash64(${untouched}))) AS fingerprint,
      toString(countIf(raw.src_identity = 0 OR raw.dst_identity = 0)) AS nameless
    FROM ${table} AS raw WHERE toYYYYMMDD(raw.time) = ${day} ${mark}`;
}

/** What a slice of `flows_relabel_new` has more, and less, than that of `flows_relabel`, as rows of edges_1m. */
export function minutesInsert(slice: Slice): string {
  const side = (table: string, sign: 1 | -1): string => `SELECT toStartOfMinute(raw.time) AS minute,
      raw.src_identity AS src_identity, raw.dst_identity AS dst_identity,
      if(raw.src_workload = 0, raw.src_ip, toIPv6('::')) AS src_ip,
      if(raw.dst_workload = 0, raw.dst_ip, toIPv6('::')) AS dst_ip,
      raw.dst_port AS dst_port, raw.protocol AS protocol, raw.verdict AS verdict, raw.reason AS reason,
      raw.rule AS rule, raw.side AS side, toUInt8(0) AS pending,
      ${sign} * toInt64(count()) AS flows, ${sign} * toInt64(sum(raw.connections)) AS connections,
      ${counters
        .slice(2)
        .map((column) => `${sign} * toInt64(sum(raw.${column})) AS ${column}`)
        .join(', ')},
      min(raw.time) AS first_seen, max(raw.time) AS last_seen, toInt8(${sign}) AS sign
    FROM ${table} AS raw WHERE ${inSlice(slice, 'raw.time')}
    GROUP BY ALL`;
  const sums = counters.map((column) => `toUInt64(sum(c.${column})) AS ${column}`).join(', ');
  const changes = counters.map((column) => `sum(c.${column}) != 0`).join(' OR ');
  return `INSERT INTO edges_1m_relabel (time, ${edgeKey}, ${counters.join(', ')}, first_seen, last_seen) ${mark}
    SELECT c.minute AS time, ${edgeKey
      .split(', ')
      .map((column) => `c.${column} AS ${column}`)
      .join(', ')}, ${sums},
      if(countIf(c.sign = 1) > 0, minIf(c.first_seen, c.sign = 1), min(c.first_seen)) AS first_seen,
      if(countIf(c.sign = 1) > 0, maxIf(c.last_seen, c.sign = 1), max(c.last_seen)) AS last_seen
    FROM (${side('flows_relabel', -1)} UNION ALL ${side('flows_relabel_new', 1)}) AS c
    GROUP BY ALL HAVING ${changes} ${asNew}`;
}

/** The same per hour, from the minutes, as the view does it. */
export function hoursInsert(): string {
  const sums = counters.map((column) => `sum(raw.${column}) AS ${column}`).join(', ');
  return `INSERT INTO edges_1h_relabel (time, ${edgeKey}, ${counters.join(', ')}, first_seen, last_seen) ${mark}
    SELECT toStartOfHour(raw.time) AS time, ${edgeKey
      .split(', ')
      .map((column) => `raw.${column} AS ${column}`)
      .join(', ')}, ${sums}, min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen
    FROM edges_1m_relabel AS raw GROUP BY ALL ${asNew}`;
}

/**
 * First and last sight of edges. The store is said to have heard of an edge when its first flow began: it is no news, so
 * nobody is alerted. Where an edge only loses flows, the present moment leaves that as it was.
 */
export function seenInsert(): string {
  const key = 'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, pending';
  return `INSERT INTO edges_seen_relabel (${key}, reason, flows, first_seen, last_seen, first_written) ${mark}
    SELECT ${key
      .split(', ')
      .map((column) => `raw.${column} AS ${column}`)
      .join(', ')}, anyLast(raw.reason) AS reason, sum(raw.flows) AS flows,
      min(raw.first_seen) AS first_seen, max(raw.last_seen) AS last_seen,
      if(toInt64(sum(raw.flows)) > 0, toDateTime64(min(raw.first_seen), 3, 'UTC'), now64(3)) AS first_written
    FROM edges_1m_relabel AS raw GROUP BY ALL ${asNew}`;
}

/** Sums of the changes, which must all be 0. */
export function balanceQuery(table: string): string {
  const sums = counters.map((column) => `toString(sum(raw.${column})) AS ${column}`);
  return `SELECT ${sums.join(', ')} FROM ${table} AS raw ${mark}`;
}

export function movePartition(partition: string, from: string, to: string): string {
  return `ALTER TABLE ${from} MOVE PARTITION ${partition} TO TABLE ${to} ${mark}`;
}

export function replacePartition(partition: string, table: string, from: string): string {
  return `ALTER TABLE ${table} REPLACE PARTITION ${partition} FROM ${from} ${mark}`;
}

/** Ends what a killed process may have left running. */
export const killLeftovers =
  "KILL QUERY WHERE query LIKE '%eastwest relabel%' AND query NOT LIKE 'KILL%' AND current_database = currentDatabase() SYNC";
