/** Batches of the ledger, rolled up by quarters of an hour wherever that says the same. */
import type { Bindings } from './bindings.ts';

/** Length of a slot of the rollup, seconds. */
const slotS = 900;

/** From when on the rollup holds every batch; before that time they are read one by one. */
export const rolledFrom = '(SELECT max(complete_from) FROM batches_15m_from)';

/** Begin of the slot that holds a time, seconds. */
export function slotBegin(timeS: number): number {
  return Math.floor(timeS / slotS) * slotS;
}

export interface BatchSpan {
  /** Of a span that begins or ends within a slot that is not cut, all of the slot counts. */
  readonly fromS: number;
  /** Exclusive; null for open. */
  readonly toS: number | null;
  /** Times that no row may lie across: their slots are read batch by batch. */
  readonly cuts: readonly (number | null)[];
  /** A condition on agent, boot, cluster, node, source_kind, outcome or cause. */
  readonly where?: string;
}

/** Not toDateTime: with that ClickHouse leaves out parts that lie in the last second before the end of the window. */
export function receivedFrom(fromS: number, bindings: Bindings): string {
  return `received >= toDateTime64(${bindings.bind('UInt32', fromS)}, 3)`;
}

export function receivedBefore(toS: number | null, bindings: Bindings): string {
  return toS === null ? '1' : `received < toDateTime64(${bindings.bind('UInt32', toS)}, 3)`;
}

const keys = 'cluster, node, source_kind, outcome, cause';

/**
 * Rows that each stand for one or more `batches` of one agent, boot, place, outcome and cause, received from
 * `first_received` to `last_received`; `numbered` ones have the sequences from `first_sequence` to `last_sequence`, perhaps
 * with holes.
 */
export function batchRows({ fromS, toS, cuts, where = '1' }: BatchSpan, bindings: Bindings): string {
  const cutSlots = [
    ...new Set(cuts.flatMap((cut) => (cut === null || cut % slotS === 0 ? [] : [slotBegin(cut)]))),
  ];
  const slot = (timeS: number): string => `toDateTime(${bindings.bind('UInt32', timeS)})`;
  const isCut = (timeS: number): boolean => cutSlots.includes(slotBegin(timeS));
  const rolled = [
    where,
    `slot >= ${slot(slotBegin(fromS))}`,
    toS === null ? '1' : `slot < ${slot(toS)}`,
    `slot >= ${rolledFrom}`,
    ...cutSlots.map((cut) => `slot != ${slot(cut)}`),
  ];
  const single = [
    `received < toDateTime64(${rolledFrom}, 3)`,
    ...cutSlots.map((cut) => `(${receivedFrom(cut, bindings)} AND ${receivedBefore(cut + slotS, bindings)})`),
  ];
  const begin = isCut(fromS) ? fromS : slotBegin(fromS);
  const end = toS === null || isCut(toS) ? toS : slotBegin(toS + slotS - 1);
  return `SELECT agent, boot, ${keys}, numbered, batches, flows, flows_written, flows_refused, source_dropped, sampling_rate, first_sequence, last_sequence,
    first_received, last_received, last_observed_to
  FROM batches_15m WHERE ${rolled.join(' AND ')}
  UNION ALL
  SELECT agent, toLowCardinality(batches.boot) AS boot, ${keys}, toUInt8(sequence > 0) AS numbered, toUInt64(1) AS batches, toUInt64(batches.flows) AS flows, toUInt64(batches.flows_written) AS flows_written,
    toUInt64(batches.flows_refused) AS flows_refused, source_dropped, sampling_rate, sequence AS first_sequence, sequence AS last_sequence,
    received AS first_received, received AS last_received, observed_to AS last_observed_to
  FROM batches WHERE ${where} AND (${single.join(' OR ')}) AND ${receivedFrom(begin, bindings)} AND ${receivedBefore(end, bindings)}`;
}
