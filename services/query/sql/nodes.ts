/** Nodes: those that agents report from, and those that the inventory knows. */
import type { Window } from '../filters.ts';
import { batchRows } from './batches.ts';
import { Bindings, type Statement } from './bindings.ts';
import type { LedgerLimits } from './gaps.ts';

/** What is to be said of an agent or node at the end of a window. */
export const reportStates = ['reporting', 'silent', 'never-reported', 'gone'] as const;
export type ReportState = (typeof reportStates)[number];

/** End of the window that has passed, seconds. */
export function passedEndS(window: Window, nowS: number): number {
  return Math.min(window.untilS ?? nowS, nowS);
}

/** Nodes of the inventory, one row each, with `began_ms` and `ended_ms` as far as known now; those that ended long before are left out. */
function inventoryNodes(knownS: string, endS: string): string {
  // The newest version of an interval counts; of two in the same second the one that has ended.
  return `SELECT cluster_name, node_name, toUnixTimestamp64Milli(min(began)) AS began_ms, toUnixTimestamp64Milli(max(ended)) AS ended_ms
    FROM (
      SELECT toString(workloads.cluster) AS cluster_name, workloads.name AS node_name, valid_from AS began,
        argMin(valid_to, (-toInt64(toUnixTimestamp(updated_at)), valid_to)) AS ended
      FROM workloads WHERE kind = 'node' AND valid_from <= toDateTime64(${endS}, 3) GROUP BY id, network, ip, valid_from, cluster_name, node_name
    )
    WHERE ended > toDateTime64(${knownS}, 3) GROUP BY cluster_name, node_name`;
}

/** Nodes of the inventory that had ended by the end of the window: whoever reported from there is not silent, but gone. */
export function goneNodes(window: Window, nowS: number, limits: LedgerLimits, bindings: Bindings): string {
  const endS = passedEndS(window, nowS);
  const end = bindings.bind('UInt32', endS);
  const known = bindings.bind('UInt32', Math.max(0, Math.min(window.sinceS, endS) - limits.lookbackS));
  return `SELECT cluster_name, node_name FROM (${inventoryNodes(known, end)}) WHERE ended_ms <= toInt64(${end}) * 1000`;
}

/**
 * One row per node known in the window or the lookback: `cluster_name`, `node_name`, `agents` that report from it now,
 * `agents_reporting`, `agents_sampling`, `last_ms` (0: no batch), `is_listed` (in the inventory), `state`. A node that is
 * new, or whose inventory ended, is not silent. Agents that name no node are one node without a name.
 */
export function nodesRows(window: Window, nowS: number, limits: LedgerLimits, bindings: Bindings): string {
  const endS = passedEndS(window, nowS);
  const end = bindings.bind('UInt32', endS);
  const since = bindings.bind('UInt32', window.sinceS);
  const silent = bindings.bind('UInt32', Math.max(0, endS - limits.silentAfterS));
  const knownS = Math.max(0, Math.min(window.sinceS, endS) - limits.lookbackS);
  const known = bindings.bind('UInt32', knownS);
  const { sinceS, untilS } = window;
  const rows = batchRows(
    { fromS: knownS, toS: untilS, cuts: [sinceS, untilS], where: "agent != ''" },
    bindings,
  );
  const ms = (seconds: string): string => `toInt64(${seconds}) * 1000`;
  return `SELECT cluster_name, node_name, countIf(listed = 0) AS agents, countIf(received_ms >= ${ms(silent)}) AS agents_reporting,
    countIf(sampled) AS agents_sampling, max(received_ms) AS last_ms, max(listed) AS is_listed,
    multiIf(last_ms >= ${ms(silent)}, 'reporting', is_listed = 1 AND max(gone_ms) <= ${ms(end)}, 'gone', last_ms = 0, 'never-reported', 'silent') AS state
  FROM (
    SELECT toString(argMaxIf(b.cluster, last_received, b.node != '')) AS cluster_name, toString(argMaxIf(b.node, last_received, b.node != '')) AS node_name,
      toUnixTimestamp64Milli(max(last_received)) AS received_ms, maxIf(sampling_rate, first_received >= toDateTime64(${since}, 3)) > 1 AS sampled,
      0 AS listed, toInt64(0) AS new_ms, toInt64(0) AS gone_ms
    FROM (${rows}) AS b GROUP BY agent
    UNION ALL
    SELECT cluster_name, node_name, toInt64(0) AS received_ms, 0 AS sampled, 1 AS listed, began_ms AS new_ms, ended_ms AS gone_ms
    FROM (${inventoryNodes(known, end)})
  )
  GROUP BY cluster_name, node_name
  HAVING (last_ms > 0 OR max(new_ms) < ${ms(silent)}) AND (state != 'gone' OR greatest(last_ms, max(gone_ms)) >= ${ms(since)})`;
}

/** Nodes of a window: those that never reported first, then the silent, the longest silent first; with `total` before the limit. */
export function ledgerNodesSql(window: Window, nowS: number, limits: LedgerLimits, limit: number): Statement {
  const bindings = new Bindings();
  const order = `indexOf(['never-reported', 'silent', 'reporting', 'gone'], state)`;
  const sql = `SELECT *, count() OVER () AS total FROM (${nodesRows(window, nowS, limits, bindings)}) WHERE node_name != ''
ORDER BY ${order}, last_ms, cluster_name, node_name
LIMIT ${bindings.bind('UInt32', limit)}`;
  return { sql, params: bindings.values };
}

/** When each of these nodes last reported before `beforeS`, however long ago that is. */
export function lastReportsSql(
  nodes: readonly { readonly cluster: string; readonly node: string }[],
  beforeS: number,
): Statement {
  const bindings = new Bindings();
  const list = (values: readonly string[]): string => bindings.bind('Array(String)', values);
  const where = `(cluster, node) IN (
  SELECT arrayJoin(arrayZip(${list(nodes.map(({ cluster }) => cluster))}, ${list(nodes.map(({ node }) => node))})))`;
  const sql = `SELECT toString(b.cluster) AS cluster_name, toString(b.node) AS node_name, toUnixTimestamp64Milli(max(last_received)) AS last_ms
FROM (${batchRows({ fromS: 0, toS: beforeS, cuts: [beforeS], where }, bindings)}) AS b
GROUP BY cluster_name, node_name`;
  return { sql, params: bindings.values };
}
