/** Batches that agents numbered but that never came: runs of numbers missing from a boot's sequence. */
import type { Window } from '../filters.ts';
import type { Bindings } from './bindings.ts';

export interface LedgerLimits {
  /** Without a batch for this long an agent is silent, seconds. */
  readonly silentAfterS: number;
  /** How far before and after the window the ledger looks for an agent's batches, seconds. */
  readonly lookbackS: number;
}

/**
 * One row per gap that touches the window: `agent_name`, `boot`, `previous` and `sequence` on either side of it, `missing`,
 * `noticed_ms`, and the times between which its flows were seen, `from_ms` (0 where nothing came before it in this boot) and
 * `to_ms`. A gap lies between the receipts of its neighbours, so it counts in every window that these enclose or touch, and
 * whatever came since, from a spool or again, fills it. Sequences begin at 1.
 *
 * Only boots whose batches don't add up are looked at number by number. Of them what came before the lookback is one row.
 */
export function gapsRows(window: Window, limits: LedgerLimits, bindings: Bindings): string {
  const before = bindings.bind('UInt32', Math.max(0, window.sinceS - limits.lookbackS));
  const since = bindings.bind('UInt32', window.sinceS);
  const until =
    window.untilS === null
      ? '1'
      : `received < toDateTime64(${bindings.bind('UInt32', window.untilS + limits.lookbackS)}, 3)`;
  const scanned = `received >= toDateTime64(${before}, 3) AND ${until}`;
  const touchesEnd =
    window.untilS === null
      ? '1'
      : `least(noticed_ms, previous_ms) < toInt64(${bindings.bind('UInt32', window.untilS)}) * 1000`;
  const numbered = `agent != '' AND sequence > 0`;
  const suspects = `(SELECT agent, boot FROM batches WHERE ${scanned} AND ${numbered} GROUP BY agent, boot
      HAVING max(received) >= toDateTime64(${since}, 3) AND (countIf(outcome = 'written') != max(sequence) - min(sequence) + 1
        OR (min(received) >= toDateTime64(${since}, 3) AND min(sequence) > 1)))`;
  const inOrder = `OVER (PARTITION BY agent_name, boot ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)`;
  return `SELECT agent_name, boot, previous, number AS sequence, number - previous - 1 AS missing, noticed_ms, from_ms, to_ms
  FROM (
    SELECT agent_name, boot, number, received_ms AS noticed_ms, seen_from_ms AS to_ms,
      lagInFrame(number, 1, toUInt64(0)) ${inOrder} AS previous, lagInFrame(received_ms, 1, received_ms) ${inOrder} AS previous_ms,
      lagInFrame(seen_to_ms, 1, toInt64(0)) ${inOrder} AS from_ms
    FROM (
      SELECT toString(batches.agent) AS agent_name, boot, if(received < toDateTime64(${before}, 3), toUInt64(0), sequence) AS slot,
        max(sequence) AS number, toUnixTimestamp64Milli(min(received)) AS received_ms,
        toUnixTimestamp64Milli(min(observed_from)) AS seen_from_ms, toUnixTimestamp64Milli(max(observed_to)) AS seen_to_ms
      FROM batches WHERE ${until} AND ${numbered} AND (agent, boot) IN ${suspects} GROUP BY agent_name, boot, slot
    )
  )
  WHERE number > previous + 1 AND greatest(noticed_ms, previous_ms) >= toInt64(${since}) * 1000 AND ${touchesEnd}`;
}
