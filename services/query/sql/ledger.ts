/** The ledger: what arrived, what is missing, what was dropped, and how late. Windows are those of receipt. */
import type { Window } from '../filters.ts';
import { batchRows, receivedBefore, receivedFrom, rolledFrom, slotBegin } from './batches.ts';
import { Bindings, type Statement } from './bindings.ts';
import { gapsRows, type LedgerLimits, type Suspect } from './gaps.ts';
import { goneNodes, nodesRows, passedEndS } from './nodes.ts';

/** The batches of a window, each row within it. */
function batchesOf({ sinceS, untilS }: Window, bindings: Bindings): string {
  return batchRows({ fromS: sinceS, toS: untilS, cuts: [sinceS, untilS] }, bindings);
}

/** Delays are told from so many batches at most, one by one; of a longer window in classes, off by 1/128 at most. */
const mostDelayBatches = 100_000;

/**
 * One row: how long flows took from their end until they were queryable, `delays_ms`: median and 99th percentile over
 * flows, not batches; null where there were none. `written` is how many batches were. Those from before ages were kept
 * count as if their flows ended with the interval; of a long window before classes were kept a random part is looked at.
 */
export function delaysSql({ sinceS, untilS }: Window, written: number): Statement {
  const bindings = new Bindings();
  const isLong = written > mostDelayBatches;
  const part = Math.floor(written / mostDelayBatches) + 1;
  const single = [
    receivedFrom(sinceS, bindings),
    receivedBefore(untilS, bindings),
    "outcome = 'written'",
    ...(isLong
      ? [
          `received < toDateTime64(${rolledFrom}, 3)`,
          `cityHash64(bus_partition, bus_offset, sequence) % ${part} = 0`,
        ]
      : []),
  ];
  const end = untilS === null ? '1' : `slot < toDateTime(${bindings.bind('UInt32', untilS)})`;
  const classes = `UNION ALL
  SELECT delay_ms, flows AS flow_count FROM delays_15m
  WHERE slot >= toDateTime(${bindings.bind('UInt32', slotBegin(sinceS))}) AND slot >= ${rolledFrom} AND ${end}`;
  const sql = `SELECT if(sum(flow_count) = 0, [NULL, NULL], quantilesExactWeighted(0.5, 0.99)(delay_ms, flow_count)) AS delays_ms FROM (
  SELECT toUnixTimestamp64Milli(written) - toUnixTimestamp64Milli(observed_to) + age AS delay_ms, toUInt64(flow_count) * ${isLong ? part : 1} AS flow_count
  FROM (SELECT written, observed_to, flows_written, end_ages, end_flows FROM batches WHERE ${single.join(' AND ')})
  ARRAY JOIN if(empty(end_ages), [toUInt32(0)], end_ages) AS age, if(empty(end_flows), [flows_written], end_flows) AS flow_count
  ${isLong ? classes : ''})`;
  return { sql, params: bindings.values };
}

/** One row: who reports and who is silent. */
export function reportingSql(window: Window, nowS: number, limits: LedgerLimits): Statement {
  const bindings = new Bindings();
  const isSilent = "state IN ('silent', 'never-reported')";
  const sql = `SELECT sum(nodes.agents_reporting) AS agents_reporting, sumIf(nodes.agents - nodes.agents_reporting, state != 'gone') AS agents_silent,
  sum(nodes.agents_sampling) AS agents_sampling, countIf(node_name != '' AND state = 'reporting') AS nodes_reporting,
  countIf(node_name != '' AND ${isSilent}) AS nodes_silent
FROM (${nodesRows(window, nowS, limits, bindings)}) AS nodes`;
  return { sql, params: bindings.values };
}

/** One row: how many batches of the suspects are missing. */
export function missingSql(window: Window, limits: LedgerLimits, suspects: readonly Suspect[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT sum(missing) AS batches_missing FROM (${gapsRows(window, limits, suspects, bindings)})`;
  return { sql, params: bindings.values };
}

/** One row of totals for the window. */
export function ledgerTotalsSql(window: Window): Statement {
  const bindings = new Bindings();
  const sql = `SELECT sum(b.batches) AS batches_read, sumIf(b.batches, outcome = 'written') AS batches_written, sumIf(b.batches, outcome = 'resent') AS batches_resent,
  sumIf(b.batches, outcome = 'dead') AS batches_dead, sumIf(b.flows, outcome = 'written') AS flows_received, sum(b.flows_written) AS flows_written,
  sumIf(b.flows, outcome = 'resent') AS flows_resent, sumIf(b.flows_refused, outcome != 'resent') AS flows_refused,
  sumIf(b.source_dropped, outcome != 'resent') AS flows_dropped_at_source,
  toUnixTimestamp64Milli(maxIf(last_observed_to, outcome = 'written')) AS freshest_ms
FROM (${batchesOf(window, bindings)}) AS b`;
  return { sql, params: bindings.values };
}

/** What was refused or dead-lettered, by cause. */
export function ledgerCausesSql(window: Window): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(cause) AS cause_name, sumIf(b.batches, outcome = 'dead') AS batches_dead, sum(b.flows_refused) AS flows_refused
FROM (${batchesOf(window, bindings)}) AS b WHERE cause != 'none' AND outcome != 'resent'
GROUP BY cause ORDER BY cause_name`;
  return { sql, params: bindings.values };
}

/** One row per agent known in the window or the lookback: silent ones first, then those with the most missing. */
export function ledgerAgentsSql(
  window: Window,
  nowS: number,
  limits: LedgerLimits,
  suspects: readonly Suspect[],
  limit: number,
): Statement {
  const bindings = new Bindings();
  const endS = passedEndS(window, nowS);
  const { sinceS, untilS } = window;
  const knownS = Math.max(0, Math.min(sinceS, endS) - limits.lookbackS);
  const silent = bindings.bind('UInt32', Math.max(0, endS - limits.silentAfterS));
  const inWindow = `first_received >= toDateTime64(${bindings.bind('UInt32', sinceS)}, 3)`;
  const rows = batchRows(
    { fromS: knownS, toS: untilS, cuts: [sinceS, untilS], where: "agent != ''" },
    bindings,
  );
  const sql = `SELECT a.agent AS agent_name, a.cluster_name AS cluster_name, a.node_name AS node_name, a.kind AS kind,
  a.last_ms AS last_ms, multiIf(a.is_silent = 0, 'reporting', n.state = 'gone', 'gone', 'silent') AS state, a.sampling AS sampling, a.batches AS batches, a.flows_received AS flows_received,
  a.batches_resent AS batches_resent, a.flows_dropped AS flows_dropped, a.flows_refused AS flows_refused,
  m.missing AS batches_missing, a.boots AS boots, count() OVER () AS total
FROM (
  SELECT toString(b.agent) AS agent, toString(argMaxIf(b.cluster, last_received, b.node != '')) AS cluster_name, toString(argMaxIf(b.node, last_received, b.node != '')) AS node_name,
    toString(argMaxIf(source_kind, last_received, b.node != '')) AS kind, toUnixTimestamp64Milli(max(last_received)) AS last_ms,
    max(last_received) < toDateTime64(${silent}, 3) AS is_silent, sumIf(b.batches, ${inWindow} AND outcome = 'written') AS batches,
    sumIf(b.flows, ${inWindow} AND outcome = 'written') AS flows_received, sumIf(b.batches, ${inWindow} AND outcome = 'resent') AS batches_resent,
    sumIf(source_dropped, ${inWindow} AND outcome != 'resent') AS flows_dropped,
    sumIf(b.flows_refused, ${inWindow} AND outcome != 'resent') AS flows_refused,
    uniqExactIf(boot, ${inWindow}) AS boots, greatest(maxIf(sampling_rate, ${inWindow}), 1) AS sampling
  FROM (${rows}) AS b GROUP BY agent
) AS a
LEFT JOIN (SELECT agent_name, sum(missing) AS missing FROM (${gapsRows(window, limits, suspects, bindings)}) GROUP BY agent_name) AS m ON m.agent_name = a.agent
LEFT JOIN (SELECT cluster_name, node_name, 'gone' AS state FROM (${goneNodes(window, nowS, limits, bindings)})) AS n ON n.cluster_name = a.cluster_name AND n.node_name = a.node_name
ORDER BY indexOf(['silent', 'reporting', 'gone'], state), batches_missing DESC, flows_dropped DESC, agent_name
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/** Gaps, the newest first. */
export function ledgerGapsSql(
  window: Window,
  limits: LedgerLimits,
  suspects: readonly Suspect[],
  limit: number,
): Statement {
  const bindings = new Bindings();
  const sql = `SELECT agent_name, boot, toString(previous + 1) AS first_missing, toString(sequence - 1) AS last_missing, missing,
  noticed_ms, from_ms, to_ms
FROM (${gapsRows(window, limits, suspects, bindings)})
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
