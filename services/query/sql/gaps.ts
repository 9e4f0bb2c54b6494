/** Batches that agents numbered but that never came: runs of numbers missing from a boot's sequence. */
import type { Window } from '../filters.ts';
import { batchRows, slotBegin } from './batches.ts';
import { Bindings, type Statement } from './bindings.ts';

export interface LedgerLimits {
  /** Without a batch for this long an agent is silent, seconds. */
  readonly silentAfterS: number;
  /** How far before and after the window the ledger looks for an agent's batches, seconds. */
  readonly lookbackS: number;
}

/** A boot of an agent whose batches don't add up. */
export interface Suspect {
  readonly agent: string;
  readonly boot: string;
}

/** Most suspects that are named in a statement; where there are more, it finds them itself. */
export const maxNamedSuspects = 200;

const numbered = "agent != ''";

/** What is looked at for gaps of a window, outward to whole slots. */
function scanOf({ sinceS, untilS }: Window, { lookbackS }: LedgerLimits) {
  const fromS = slotBegin(Math.max(0, sinceS - lookbackS));
  return { fromS, toS: untilS === null ? null : untilS + lookbackS, cuts: [] };
}

function suspectsSelect(window: Window, limits: LedgerLimits, bindings: Bindings): string {
  const since = `toDateTime64(${bindings.bind('UInt32', window.sinceS)}, 3)`;
  const rows = batchRows({ ...scanOf(window, limits), where: numbered }, bindings);
  return `SELECT agent, boot FROM (${rows}) WHERE numbered GROUP BY agent, boot
    HAVING max(last_received) >= ${since} AND (sumIf(batches, outcome = 'written') != max(last_sequence) - min(first_sequence) + 1
      OR (min(first_received) >= ${since} AND min(first_sequence) > 1))`;
}

/** Boots that may have gaps which touch the window: of all others the first and the last number tell how many there are. */
export function suspectsSql(window: Window, limits: LedgerLimits): Statement {
  const bindings = new Bindings();
  const sql = `${suspectsSelect(window, limits, bindings)} LIMIT ${maxNamedSuspects + 1}`;
  return { sql, params: bindings.values };
}

/**
 * One row per gap that touches the window: `agent_name`, `boot`, `previous` and `sequence` on either side of it, `missing`,
 * `noticed_ms`, and the times between which its flows were seen, `from_ms` (0 where nothing came before it in this boot) and
 * `to_ms`. A gap lies between the receipts of its neighbours, so it counts in every window that these enclose or touch, and
 * whatever came since, from a spool or again, fills it. Sequences begin at 1.
 *
 * Of the suspects, slots without a hole are runs of numbers, and those with a hole, or beside one, are read number by
 * number. What came before the lookback is one run.
 */
export function gapsRows(
  window: Window,
  limits: LedgerLimits,
  suspects: readonly Suspect[],
  bindings: Bindings,
): string {
  const { fromS, toS } = scanOf(window, limits);
  const list = (of: (suspect: Suspect) => string): string => bindings.bind('Array(String)', suspects.map(of));
  const among =
    suspects.length > maxNamedSuspects
      ? suspectsSelect(window, limits, bindings)
      : `SELECT arrayJoin(arrayZip(${list(({ agent }) => agent)}, ${list(({ boot }) => boot)}))`;
  const before = bindings.bind('UInt32', fromS);
  const sinceMs = `toInt64(${bindings.bind('UInt32', window.sinceS)}) * 1000`;
  const touchesEnd =
    window.untilS === null
      ? '1'
      : `least(noticed_ms, previous_ms) < toInt64(${bindings.bind('UInt32', window.untilS)}) * 1000`;
  const ms = (time: string): string => `toUnixTimestamp64Milli(${time})`;
  // Slot 0 is what came before the lookback; it is never opened.
  const runs = `SELECT agent, boot, if(first_received < toDateTime64(${before}, 3), toDateTime(0), toStartOfFifteenMinutes(first_received)) AS slot,
      if(slot = toDateTime(0), max(last_sequence), min(first_sequence)) AS first, max(last_sequence) AS last,
      slot = toDateTime(0) OR sumIf(batches, outcome = 'written') = last - first + 1 AS is_whole,
      ${ms('min(first_received)')} AS received_ms, ${ms('max(last_observed_to)')} AS seen_to_ms
    FROM (${batchRows({ fromS: 0, toS, cuts: [], where: `${numbered} AND (agent, boot) IN (${among})` }, bindings)})
    WHERE numbered GROUP BY agent, boot, slot`;
  const preceding = 'ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING';
  const inOrder = (rows: string): string => `OVER (PARTITION BY agent, boot ORDER BY first, last ${rows})`;
  const judged = `SELECT *, slot != toDateTime(0) AND (NOT is_whole OR first > max(last) ${inOrder(preceding)} + 1
      OR leadInFrame(first, 1, toUInt64(0)) ${inOrder('ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING')}
        > max(last) ${inOrder('ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW')} + 1) AS is_open
    FROM (${runs})`;
  // As a value, which is worked out once however often it stands here.
  const opened = `arrayJoin((SELECT groupArray((agent, boot, slot)) FROM (${judged}) WHERE is_open))`;
  return `SELECT toString(agent) AS agent_name, toString(boot) AS boot, previous, first AS sequence, first - previous - 1 AS missing,
    received_ms AS noticed_ms, if(previous = 0, noticed_ms, previous_received_ms) AS previous_ms, from_ms, to_ms
  FROM (
    SELECT agent, boot, first, received_ms, seen_from_ms AS to_ms, max(last) ${inOrder(preceding)} AS previous,
      argMax(received_ms, last) ${inOrder(preceding)} AS previous_received_ms, argMax(seen_to_ms, last) ${inOrder(preceding)} AS from_ms
    FROM (
      SELECT agent, boot, first, last, received_ms, toInt64(0) AS seen_from_ms, seen_to_ms FROM (${judged}) WHERE NOT is_open
      UNION ALL
      SELECT agent, toLowCardinality(batches.boot) AS boot, sequence AS first, sequence AS last, ${ms('min(received)')} AS received_ms,
        ${ms('min(observed_from)')} AS seen_from_ms, ${ms('max(observed_to)')} AS seen_to_ms
      FROM batches WHERE sequence > 0 AND (agent, batches.boot, toStartOfFifteenMinutes(received)) IN (SELECT ${opened})
      GROUP BY agent, boot, sequence
    )
  )
  WHERE first > previous + 1 AND greatest(noticed_ms, previous_ms) >= ${sinceMs} AND ${touchesEnd}`;
}
