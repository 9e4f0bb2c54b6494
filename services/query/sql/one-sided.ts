/** Connections that one side saw and the other did not, and who should have reported there. */
import type { FlowFilter, Window } from '../filters.ts';
import { windowFilter } from '../filters.ts';
import { batchRows } from './batches.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { certaintyCounts, worstCertainty } from './certainty.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { describedColumns, joinEnds, ruleNames, summedColumns } from './edges.ts';
import type { LedgerLimits } from './gaps.ts';
import { allFlows, mergedSums, stillThere, timeCondition } from './plan.ts';

/** The ends that can see a connection. */
export const endSides = ['source', 'destination'] as const;
export type EndSide = (typeof endSides)[number];

/** The same connection at both ends: by workload, or by address where none is known, whatever was said of it. */
const pairKey = 'src_workload, dst_workload, src_key, dst_key, dst_port, protocol';

/** A side is not missing if it reported a little before or after the window. */
function widened(window: Window, slackS: number): { fromS: number; toS: number | null } {
  return {
    fromS: Math.max(0, window.sinceS - slackS),
    toS: window.untilS === null ? null : window.untilS + slackS,
  };
}

const unsure = "('late', 'ambiguous')";
/**
 * Keys of pairs that one side alone reported, of those whose other end is a workload, or whose name may be another's:
 * nodes hide what they masquerade, services their backends, and a guess hides anything.
 */
const oneSidedKeys = (withUnknown: boolean): string =>
  `HAVING (countIf(side = 'source') = 0) != (countIf(side = 'destination') = 0)${
    withUnknown
      ? ''
      : ` AND (if(countIf(side = 'source') = 0, src_workload, dst_workload) != 0
        OR countIf(side = 'source' AND (dst_provenance = 'service' OR dst_certainty IN ${unsure})
          OR side = 'destination' AND (src_provenance = 'node' OR src_certainty IN ${unsure})) > 0)`
  }`;

const endpointKeys = `if(src_workload = 0, src_address, toIPv6('::')) AS src_key, if(dst_workload = 0, dst_address, toIPv6('::')) AS dst_key`;

export interface OneSidedOptions {
  readonly slackS: number;
  /** Reports until then have long been answered by the other side, Unix seconds. */
  readonly settledS: number;
  /** Also those whose other end is no workload, where nobody can report. */
  readonly withUnknown: boolean;
  readonly limit: number;
}

/**
 * Connections that one side alone reported, the newest first, with `seen_by`, `first_seen_s`, `last_seen_s`, `settled_s`
 * (the newest report before `settledS`; 0 for none), the `agents` that reported (at most eight), and whether it `is_asked`
 * for: the others are there because one that is may hide behind them.
 */
export function oneSidedSql(filter: FlowFilter, options: OneSidedOptions): Statement {
  const bindings = new Bindings();
  const { window, port, protocol } = filter;
  const inside = timeCondition({ fromS: window.sinceS, toS: window.untilS }, bindings);
  const settled = bindings.bind('UInt32', Math.max(0, options.settledS));
  // Only what both sides see alike may leave out rows before sides are compared.
  const alike = rowConditions({ ...windowFilter(window), port, protocol }, bindings);
  const scanned = allOf([
    timeCondition(widened(window, options.slackS), bindings),
    ...alike,
    "side != 'middle'",
  ]);
  const rows = `SELECT * EXCEPT (src_ip, dst_ip), src_ip AS src_address, dst_ip AS dst_address FROM ${allFlows} WHERE ${scanned}`;
  const newest = ['src_identity', 'dst_identity', 'verdict', 'reason', 'rule']
    .map((column) => `argMax(${column}_of, time) AS ${column}`)
    .join(', ');
  const counted = ['connections', 'bytes_forward', 'bytes_reverse', 'packets_forward', 'packets_reverse'].map(
    (column) => `if(is_inside, toUInt64(${column}_of), 0) AS ${column}`,
  );
  const sql = `SELECT * EXCEPT (is_kept), is_kept AND ${allOf(labelledConditions(filter, bindings))} AS is_asked
FROM (
  SELECT ${describedColumns('e')}, r.ruleset_name AS ruleset_name, r.rule_name AS rule_name,
    toString(e.src_workload) AS src_workload_id, toString(e.dst_workload) AS dst_workload_id,
    e.seen_by AS seen_by, e.first_s AS first_seen_s, e.last_s AS last_seen_s, e.settled_s AS settled_s, e.agents AS agents,
    ${allOf(rowConditions(filter, bindings))} AS is_kept, e.dns AS dns, e.process_name AS process_name,
    toString(e.service_ip) AS service_ip, e.service_port AS service_port, e.dropped_count AS dropped_count,
    e.refused_count AS refused_count, e.timed_out_count AS timed_out_count,
    e.ambiguous_count AS ambiguous_count, e.late_count AS late_count, e.unnamed_count AS unnamed_count,
    e.src_how AS src_how, e.dst_how AS dst_how, e.src_sure AS src_sure, e.dst_sure AS dst_sure, ${summedColumns('e')}
  FROM (
    SELECT ${pairKey}, ${newest},
      argMax(src_address, time) AS src_ip, argMax(dst_address, time) AS dst_ip,
      if(countIf(side = 'source') = 0, 'destination', 'source') AS seen_by,
      toUnixTimestamp(minIf(time, is_inside)) AS first_s, toUnixTimestamp(maxIf(time, is_inside)) AS last_s,
      toUnixTimestamp(maxIf(time, is_inside AND time <= toDateTime(${settled}))) AS settled_s,
      groupUniqArray(8)(agent_name) AS agents,
      anyIf(dns_name, dns_name != '') AS dns, anyIf(process, side = 'source' AND process != '') AS process_name,
      argMaxIf(original_dst_ip, time, original_dst_port != 0) AS service_ip, argMaxIf(original_dst_port, time, original_dst_port != 0) AS service_port,
      countIf(is_inside AND action = 'dropped') AS dropped_count, countIf(is_inside AND state = 'refused') AS refused_count,
      countIf(is_inside AND state = 'timed_out') AS timed_out_count,
      ${certaintyCounts},
      toString(argMax(src_provenance, time)) AS src_how, toString(argMax(dst_provenance, time)) AS dst_how,
      ${worstCertainty('src_certainty')} AS src_sure, ${worstCertainty('dst_certainty')} AS dst_sure,
      ${mergedSums}
    FROM (
      SELECT time, is_inside, src_identity_of, dst_identity_of, src_workload, dst_workload, src_address, dst_address, src_key, dst_key,
        dst_port, protocol, verdict_of, reason_of, rule_of, side, pending, action, state, src_provenance, src_certainty,
        dst_provenance, dst_certainty, dns_name, process, agent_name, original_dst_ip, original_dst_port,
        toUInt64(is_inside) AS flows, ${counted.join(', ')}
      FROM (
        SELECT time, ${inside} AS is_inside, src_identity AS src_identity_of, dst_identity AS dst_identity_of, src_workload, dst_workload,
          src_address, dst_address, ${endpointKeys}, dst_port, protocol, verdict AS verdict_of, reason AS reason_of, rule AS rule_of,
          side, pending, action, state, src_provenance, src_certainty, dst_provenance, dst_certainty,
          toString(dns_name) AS dns_name, toString(process) AS process, toString(agent) AS agent_name,
          original_dst_ip, original_dst_port, connections AS connections_of, bytes_forward AS bytes_forward_of,
          bytes_reverse AS bytes_reverse_of, packets_forward AS packets_forward_of, packets_reverse AS packets_reverse_of
        FROM (${rows})
        WHERE (${pairKey}) IN (
          SELECT ${pairKey} FROM (SELECT src_workload, dst_workload, ${endpointKeys}, dst_port, protocol, side, src_provenance,
            dst_provenance, src_certainty, dst_certainty FROM (${rows}))
          GROUP BY ${pairKey} ${oneSidedKeys(options.withUnknown)})
      )
    )
    GROUP BY ${pairKey}
    HAVING ${stillThere}
  ) AS e
  ${joinEnds('e')}
  LEFT JOIN ${ruleNames} AS r ON r.rule_key = e.rule
)
ORDER BY is_asked DESC, last_seen_s DESC, seen_by, port, src_workload_id, dst_workload_id, src_address, dst_address, protocol_number
LIMIT ${bindings.bind('UInt32', options.limit)}`;
  return { sql, params: bindings.values };
}

/**
 * One row per agent: `cluster_name` and `node_name` it reports from, `reached_ms` (everything it saw until then is in the
 * store, but for its hazards), `is_sampling`, and `hazards`: spans of time, in ms, of which reports are lost or were never
 * made, that is before its first batch, between two boots, around missing batches, and where it lost flows.
 */
export function reportersSql(window: Window, limits: LedgerLimits): Statement {
  const bindings = new Bindings();
  const since = bindings.bind('UInt32', Math.max(0, window.sinceS - limits.lookbackS));
  const until =
    window.untilS === null
      ? ''
      : ` AND received < toDateTime64(${bindings.bind('UInt32', window.untilS + limits.lookbackS)}, 3)`;
  const inOrder =
    'OVER (PARTITION BY agent_name ORDER BY from_ms, boot, sequence ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)';
  const sql = `SELECT agent_name, argMax(cluster_name, to_ms) AS cluster_name, argMax(node_name, to_ms) AS node_name, max(to_ms) AS reached_ms,
  max(sampled) AS is_sampling,
  groupArrayArray(arrayConcat(
    if(boot != previous_boot OR sequence > previous + 1, [(previous_to_ms, from_ms)], []),
    if(lost, [(from_ms, to_ms)], []))) AS hazards
FROM (
  SELECT agent_name, cluster_name, node_name, boot, sequence, from_ms, to_ms, lost, sampled,
    lagInFrame(boot, 1, '') ${inOrder} AS previous_boot, lagInFrame(sequence, 1, toUInt64(0)) ${inOrder} AS previous,
    lagInFrame(to_ms, 1, toInt64(0)) ${inOrder} AS previous_to_ms
  FROM (
    SELECT toString(batches.agent) AS agent_name, toString(batches.cluster) AS cluster_name, toString(batches.node) AS node_name, boot, sequence,
      toUnixTimestamp64Milli(observed_from) AS from_ms, toUnixTimestamp64Milli(observed_to) AS to_ms,
      source_dropped > 0 OR outcome = 'dead' AS lost, sampling_rate > 1 AS sampled
    FROM batches WHERE received >= toDateTime64(${since}, 3)${until} AND outcome != 'resent' AND agent != '' AND batches.node != ''
  )
)
GROUP BY agent_name`;
  return { sql, params: bindings.values };
}

/** Where workloads run, by id: the node of a pod, or the machine itself. At most a few thousand ids at once. */
export function placesSql(ids: readonly string[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(id) AS workload_id, toString(argMax(workloads.cluster, updated_at)) AS cluster_name,
  argMax(if(kind IN ('node', 'vm', 'host'), workloads.name, toString(workloads.node)), updated_at) AS node_name
FROM workloads WHERE id IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)})) GROUP BY id`;
  return { sql, params: bindings.values };
}

/** Agents that spoke for workloads on this side within the window, at most four each. */
export function spokesmenSql(side: EndSide, ids: readonly string[], window: Window): Statement {
  const bindings = new Bindings();
  const workload = side === 'source' ? 'src_workload' : 'dst_workload';
  const sql = `SELECT toString(${workload}) AS workload_id, groupUniqArray(4)(toString(agent)) AS agents
FROM ${allFlows} WHERE ${timeCondition({ fromS: window.sinceS, toS: window.untilS }, bindings)} AND side = '${side}'
  AND ${workload} IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)}))
GROUP BY ${workload}`;
  return { sql, params: bindings.values };
}

/**
 * Which of these workloads, or identities that workloads have, are where an agent reports from in the window or the
 * lookback around it. At most a few thousand ids at once.
 */
export function watchedSql(
  column: 'id' | 'identity',
  ids: readonly string[],
  window: Window,
  limits: LedgerLimits,
): Statement {
  const bindings = new Bindings();
  const rows = batchRows(
    {
      fromS: Math.max(0, window.sinceS - limits.lookbackS),
      toS: window.untilS === null ? null : window.untilS + limits.lookbackS,
      cuts: [],
      where: "agent != '' AND node != ''",
    },
    bindings,
  );
  const sql = `SELECT DISTINCT toString(${column}) AS watched FROM workloads
WHERE ${column} IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)}))
  AND (cluster, if(kind IN ('node', 'vm', 'host'), name, toString(node))) IN (SELECT DISTINCT cluster, toString(node) FROM (${rows}))`;
  return { sql, params: bindings.values };
}
