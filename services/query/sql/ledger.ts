/** The ledger: what arrived, what is missing, what was dropped, and how late. Windows are those of receipt. */
import type { Window } from '../filters.ts';
import { Bindings, type Statement } from './bindings.ts';

export interface LedgerLimits {
  /** Without a batch for this long an agent is silent, seconds. */
  readonly silentAfterS: number;
  /** How far before the window an agent's last batch is looked for, seconds. */
  readonly lookbackS: number;
}

function received(window: Window, bindings: Bindings): string {
  const from = `received >= toDateTime(${bindings.bind('UInt32', window.sinceS)})`;
  return window.untilS === null
    ? from
    : `${from} AND received < toDateTime(${bindings.bind('UInt32', window.untilS)})`;
}

/**
 * One row per agent and boot that sent in the window. A sequence is missing when it lies between the last one before
 * the window (1 where the boot was not seen before) and the newest in it, and never came.
 */
function boots(window: Window, limits: LedgerLimits, bindings: Bindings): string {
  const before = bindings.bind('UInt32', Math.max(0, window.sinceS - limits.lookbackS));
  const since = bindings.bind('UInt32', window.sinceS);
  return `SELECT w.agent AS agent, w.boot AS boot, w.batches AS batches, w.newest AS newest, w.oldest AS oldest, w.last_ms AS last_ms,
    greatest(toInt64(w.newest) - toInt64(b.last_before) - toInt64(w.distinct_after), 0) AS missing, b.last_before AS last_before
  FROM (
    SELECT toString(agent) AS agent, boot, count() AS batches, max(sequence) AS newest, min(sequence) AS oldest,
      uniqExact(sequence) AS distinct_after, toUnixTimestamp64Milli(max(received)) AS last_ms
    FROM batches WHERE ${received(window, bindings)} AND outcome != 'resent' AND agent != '' GROUP BY agent, boot
  ) AS w
  LEFT JOIN (
    SELECT toString(agent) AS agent, boot, max(sequence) AS last_before FROM batches
    WHERE received >= toDateTime(${before}) AND received < toDateTime(${since}) AND agent != '' GROUP BY agent, boot
  ) AS b ON b.agent = w.agent AND b.boot = w.boot`;
}

/** One row: what every aggregate answer says of itself. */
export function completenessSql(window: Window, nowS: number, limits: LedgerLimits): Statement {
  const bindings = new Bindings();
  const endS = Math.min(window.untilS ?? nowS, nowS);
  const known = bindings.bind('UInt32', Math.max(0, Math.min(window.sinceS, endS) - limits.lookbackS));
  const silent = bindings.bind('UInt32', Math.max(0, endS - limits.silentAfterS));
  const sql = `SELECT a.agents_reporting AS agents_reporting, a.agents_silent AS agents_silent, m.missing AS batches_missing,
  t.dropped AS flows_dropped, t.freshest_ms AS freshest_ms, t.delay_p99_ms AS delay_p99_ms
FROM (
  SELECT countIf(last_received >= toDateTime(${silent})) AS agents_reporting, countIf(last_received < toDateTime(${silent})) AS agents_silent
  FROM (SELECT agent, max(received) AS last_received FROM batches
    WHERE received >= toDateTime(${known})${window.untilS === null ? '' : ` AND received < toDateTime(${bindings.bind('UInt32', window.untilS)})`} AND agent != ''
    GROUP BY agent)
) AS a
CROSS JOIN (SELECT sum(missing) AS missing FROM (${boots(window, limits, bindings)})) AS m
CROSS JOIN (
  SELECT sumIf(source_dropped + flows_refused, outcome != 'resent') AS dropped,
    toUnixTimestamp64Milli(maxIf(observed_to, outcome = 'written')) AS freshest_ms,
    round(quantileIf(0.99)(toUnixTimestamp64Milli(written) - toUnixTimestamp64Milli(observed_to), outcome = 'written')) AS delay_p99_ms
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
  round(quantileIf(0.5)(toUnixTimestamp64Milli(written) - toUnixTimestamp64Milli(observed_to), outcome = 'written')) AS delay_p50_ms,
  round(quantileIf(0.99)(toUnixTimestamp64Milli(written) - toUnixTimestamp64Milli(observed_to), outcome = 'written')) AS delay_p99_ms
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
  const endS = Math.min(window.untilS ?? nowS, nowS);
  const known = bindings.bind('UInt32', Math.max(0, Math.min(window.sinceS, endS) - limits.lookbackS));
  const since = bindings.bind('UInt32', window.sinceS);
  const silent = bindings.bind('UInt32', Math.max(0, endS - limits.silentAfterS));
  const until =
    window.untilS === null ? '1' : `received < toDateTime(${bindings.bind('UInt32', window.untilS)})`;
  const inWindow = `received >= toDateTime(${since})`;
  const sql = `SELECT a.agent AS agent_name, a.cluster_name AS cluster_name, a.node_name AS node_name, a.kind AS kind,
  a.last_ms AS last_ms, a.is_silent AS is_silent, a.batches AS batches, a.flows_received AS flows_received,
  a.batches_resent AS batches_resent, a.flows_dropped AS flows_dropped, a.flows_refused AS flows_refused,
  m.missing AS batches_missing, a.boots AS boots, count() OVER () AS total
FROM (
  SELECT toString(batches.agent) AS agent, toString(argMax(cluster, received)) AS cluster_name, toString(argMax(node, received)) AS node_name,
    toString(argMax(source_kind, received)) AS kind, toUnixTimestamp64Milli(max(received)) AS last_ms,
    max(received) < toDateTime(${silent}) AS is_silent, countIf(${inWindow} AND outcome = 'written') AS batches,
    sumIf(flows, ${inWindow} AND outcome = 'written') AS flows_received, countIf(${inWindow} AND outcome = 'resent') AS batches_resent,
    sumIf(source_dropped, ${inWindow} AND outcome != 'resent') AS flows_dropped,
    sumIf(batches.flows_refused, ${inWindow} AND outcome != 'resent') AS flows_refused,
    uniqExactIf(boot, ${inWindow}) AS boots
  FROM batches WHERE received >= toDateTime(${known}) AND ${until} AND batches.agent != '' GROUP BY agent
) AS a
LEFT JOIN (SELECT agent, sum(missing) AS missing FROM (${boots(window, limits, bindings)}) GROUP BY agent) AS m ON m.agent = a.agent
ORDER BY is_silent DESC, batches_missing DESC, flows_dropped DESC, agent_name
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/** Boots with missing sequences, with the sequences before each gap; at most `limit` gaps. */
export function ledgerGapsSql(window: Window, limits: LedgerLimits, limit: number): Statement {
  const bindings = new Bindings();
  const before = bindings.bind('UInt32', Math.max(0, window.sinceS - limits.lookbackS));
  const since = bindings.bind('UInt32', window.sinceS);
  const until =
    window.untilS === null ? '1' : `received < toDateTime(${bindings.bind('UInt32', window.untilS)})`;
  const sql = `SELECT agent_name, boot, toString(previous + 1) AS first_missing, toString(sequence - 1) AS last_missing,
  sequence - previous - 1 AS missing, received_ms
FROM (
  SELECT agent_name, boot, sequence, received_ms, lagInFrame(sequence, 1, toUInt64(0)) OVER (PARTITION BY agent_name, boot ORDER BY sequence
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS previous
  FROM (
    SELECT toString(agent) AS agent_name, boot, sequence, toUnixTimestamp64Milli(min(received)) AS received_ms FROM batches
    WHERE received >= toDateTime(${before}) AND ${until} AND outcome != 'resent' AND agent != ''
    GROUP BY agent_name, boot, sequence
  )
)
WHERE sequence > previous + 1 AND received_ms >= toUInt64(${since}) * 1000
ORDER BY received_ms DESC, agent_name, boot, sequence
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
  const since = `written >= toDateTime(${bindings.bind('UInt32', window.sinceS)})`;
  const until =
    window.untilS === null ? '1' : `written < toDateTime(${bindings.bind('UInt32', window.untilS)})`;
  const sql = `SELECT count() AS flows_repaired FROM flows_late
WHERE version > 1 AND sign = 1 AND ${since} AND ${until}`;
  return { sql, params: bindings.values };
}
