/** The ledger: what arrived, what is missing, what was dropped, and how late. Windows are those of receipt. */
import type { Window } from '../filters.ts';
import { Bindings, type Statement } from './bindings.ts';
import { gapsRows, type LedgerLimits } from './gaps.ts';
import { goneNodes, nodesRows, passedEndS } from './nodes.ts';

/** Not toDateTime: with that ClickHouse leaves out parts that lie in the last second before the end of the window. */
function received(window: Window, bindings: Bindings): string {
  const from = `received >= toDateTime64(${bindings.bind('UInt32', window.sinceS)}, 3)`;
  return window.untilS === null
    ? from
    : `${from} AND received < toDateTime64(${bindings.bind('UInt32', window.untilS)}, 3)`;
}

/** Delays are told from so many batches at most: of a longer window from a random part of them. */
const mostDelayBatches = 100_000;

/**
 * How long flows took from their end until they were queryable, ms: median and 99th percentile over flows, not batches;
 * null where there were none. Batches from before ages were kept count as if their flows ended with the interval.
 */
function delays(window: Window, bindings: Bindings): string {
  const where = `${received(window, bindings)} AND outcome = 'written'`;
  const part = `intDiv((SELECT count() FROM batches WHERE ${where}), ${mostDelayBatches}) + 1`;
  return `(SELECT if(sum(flow_count) = 0, [NULL, NULL], quantilesExactWeighted(0.5, 0.99)(delay_ms, flow_count)) FROM (
    SELECT toUnixTimestamp64Milli(written) - toUnixTimestamp64Milli(observed_to) + age AS delay_ms, flow_count
    FROM (SELECT written, observed_to, flows_written, end_ages, end_flows FROM batches WHERE ${where} AND cityHash64(bus_partition, bus_offset, sequence) % (${part}) = 0)
    ARRAY JOIN if(empty(end_ages), [toUInt32(0)], end_ages) AS age, if(empty(end_flows), [flows_written], end_flows) AS flow_count))`;
}

/** One row: what every aggregate answer says of itself. */
export function completenessSql(window: Window, nowS: number, limits: LedgerLimits): Statement {
  const bindings = new Bindings();
  const isSilent = "state IN ('silent', 'never-reported')";
  const sql = `SELECT n.agents_reporting AS agents_reporting, n.agents_silent AS agents_silent, n.agents_sampling AS agents_sampling,
  n.nodes_reporting AS nodes_reporting, n.nodes_silent AS nodes_silent, m.missing AS batches_missing,
  t.dropped AS flows_dropped, t.freshest_ms AS freshest_ms, ${delays(window, bindings)}[2] AS delay_p99_ms
FROM (
  SELECT sum(nodes.agents_reporting) AS agents_reporting, sumIf(nodes.agents - nodes.agents_reporting, state != 'gone') AS agents_silent,
    sum(nodes.agents_sampling) AS agents_sampling, countIf(node_name != '' AND state = 'reporting') AS nodes_reporting,
    countIf(node_name != '' AND ${isSilent}) AS nodes_silent
  FROM (${nodesRows(window, nowS, limits, bindings)}) AS nodes
) AS n
CROSS JOIN (SELECT sum(missing) AS missing FROM (${gapsRows(window, limits, bindings)})) AS m
CROSS JOIN (
  SELECT sumIf(source_dropped + flows_refused, outcome != 'resent') AS dropped,
    toUnixTimestamp64Milli(maxIf(observed_to, outcome = 'written')) AS freshest_ms
  FROM batches WHERE ${received(window, bindings)}
) AS t`;
  return { sql, params: bindings.values };
}

/** One row of totals for the window. */
export function ledgerTotalsSql(window: Window): Statement {
  const bindings = new Bindings();
  const sql = `SELECT count() AS batches_read, countIf(outcome = 'written') AS batches_written, countIf(outcome = 'resent') AS batches_resent,
  countIf(outcome = 'dead') AS batches_dead, sumIf(flows, outcome = 'written') AS flows_received, sum(flows_written) AS flows_written,
  sumIf(flows, outcome = 'resent') AS flows_resent, sumIf(flows_refused, outcome != 'resent') AS flows_refused,
  sumIf(source_dropped, outcome != 'resent') AS flows_dropped_at_source,
  ${delays(window, bindings)} AS delays_ms
FROM batches WHERE ${received(window, bindings)}`;
  return { sql, params: bindings.values };
}

/** What was refused or dead-lettered, by cause. */
export function ledgerCausesSql(window: Window): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(cause) AS cause_name, countIf(outcome = 'dead') AS batches_dead, sum(flows_refused) AS flows_refused
FROM batches WHERE ${received(window, bindings)} AND cause != 'none' AND outcome != 'resent'
GROUP BY cause ORDER BY cause_name`;
  return { sql, params: bindings.values };
}

/** One row per agent known in the window or the lookback: silent ones first, then those with the most missing. */
export function ledgerAgentsSql(
  window: Window,
  nowS: number,
  limits: LedgerLimits,
  limit: number,
): Statement {
  const bindings = new Bindings();
  const endS = passedEndS(window, nowS);
  const known = bindings.bind('UInt32', Math.max(0, Math.min(window.sinceS, endS) - limits.lookbackS));
  const since = bindings.bind('UInt32', window.sinceS);
  const silent = bindings.bind('UInt32', Math.max(0, endS - limits.silentAfterS));
  const until =
    window.untilS === null ? '1' : `received < toDateTime64(${bindings.bind('UInt32', window.untilS)}, 3)`;
  const inWindow = `received >= toDateTime64(${since}, 3)`;
  const sql = `SELECT a.agent AS agent_name, a.cluster_name AS cluster_name, a.node_name AS node_name, a.kind AS kind,
  a.last_ms AS last_ms, multiIf(a.is_silent = 0, 'reporting', n.state = 'gone', 'gone', 'silent') AS state, a.sampling AS sampling, a.batches AS batches, a.flows_received AS flows_received,
  a.batches_resent AS batches_resent, a.flows_dropped AS flows_dropped, a.flows_refused AS flows_refused,
  m.missing AS batches_missing, a.boots AS boots, count() OVER () AS total
FROM (
  SELECT toString(batches.agent) AS agent, toString(argMaxIf(cluster, received, node != '')) AS cluster_name, toString(argMaxIf(node, received, node != '')) AS node_name,
    toString(argMaxIf(source_kind, received, node != '')) AS kind, toUnixTimestamp64Milli(max(received)) AS last_ms,
    max(received) < toDateTime64(${silent}, 3) AS is_silent, countIf(${inWindow} AND outcome = 'written') AS batches,
    sumIf(flows, ${inWindow} AND outcome = 'written') AS flows_received, countIf(${inWindow} AND outcome = 'resent') AS batches_resent,
    sumIf(source_dropped, ${inWindow} AND outcome != 'resent') AS flows_dropped,
    sumIf(batches.flows_refused, ${inWindow} AND outcome != 'resent') AS flows_refused,
    uniqExactIf(boot, ${inWindow}) AS boots, greatest(maxIf(sampling_rate, ${inWindow}), 1) AS sampling
  FROM batches WHERE received >= toDateTime64(${known}, 3) AND ${until} AND batches.agent != '' GROUP BY agent
) AS a
LEFT JOIN (SELECT agent_name, sum(missing) AS missing FROM (${gapsRows(window, limits, bindings)}) GROUP BY agent_name) AS m ON m.agent_name = a.agent
LEFT JOIN (SELECT cluster_name, node_name, 'gone' AS state FROM (${goneNodes(window, nowS, limits, bindings)})) AS n ON n.cluster_name = a.cluster_name AND n.node_name = a.node_name
ORDER BY indexOf(['silent', 'reporting', 'gone'], state), batches_missing DESC, flows_dropped DESC, agent_name
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/** Gaps, the newest first. */
export function ledgerGapsSql(window: Window, limits: LedgerLimits, limit: number): Statement {
  const bindings = new Bindings();
  const sql = `SELECT agent_name, boot, toString(previous + 1) AS first_missing, toString(sequence - 1) AS last_missing, missing,
  noticed_ms, from_ms, to_ms
FROM (${gapsRows(window, limits, bindings)})
ORDER BY noticed_ms DESC, agent_name, boot, sequence
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/**
 * One row: how the flows of the window were named. `pending` are those whose names may still change; of the settled ones
 * those with an end that is ambiguous, late for good, or nobody's.
 */
export function namingSql(window: Window): Statement {
  const bindings = new Bindings();
  const since = `time >= toStartOfMinute(toDateTime(${bindings.bind('UInt32', window.sinceS)}))`;
  const where =
    window.untilS === null
      ? since
      : `${since} AND time < toDateTime(${bindings.bind('UInt32', window.untilS)})`;
  const ends = (certainty: string): string =>
    `sumIf(flows, pending = 0 AND (src_certainty = '${certainty}' OR dst_certainty = '${certainty}'))`;
  const unsure = "('ambiguous', 'late', 'none')";
  const sql = `SELECT sum(flows) AS flows_named, sumIf(flows, pending = 1) AS flows_pending,
  (SELECT toUnixTimestamp(min(minute)) FROM (
    SELECT time AS minute FROM naming_1m WHERE pending = 1 AND ${where} GROUP BY minute HAVING sum(flows) != 0)) AS oldest_pending_s,
  ${ends('ambiguous')} AS flows_ambiguous, ${ends('late')} AS flows_late, ${ends('none')} AS flows_unnamed,
  sumIf(flows, pending = 0 AND (src_certainty IN ${unsure} OR dst_certainty IN ${unsure})) AS flows_unresolved
FROM naming_1m WHERE ${where}`;
  return { sql, params: bindings.values };
}

/** One row: flows repaired within the window, by when that was written. */
export function repairsSql(window: Window): Statement {
  const bindings = new Bindings();
  const since = `written >= toDateTime64(${bindings.bind('UInt32', window.sinceS)}, 3)`;
  const until =
    window.untilS === null ? '1' : `written < toDateTime64(${bindings.bind('UInt32', window.untilS)}, 3)`;
  const sql = `SELECT count() AS flows_repaired FROM flows_late
WHERE version > 1 AND sign = 1 AND ${since} AND ${until}`;
  return { sql, params: bindings.values };
}
