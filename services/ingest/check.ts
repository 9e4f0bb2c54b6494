/** Checks a framed batch before it goes to the bus: that the columnar reader takes it, and that its times make sense. */
import {
  type BatchHeader,
  clearFlowColumns,
  type FlowColumns,
  readFlowBatch,
} from '../../lib/wire/columns.ts';
import { type RefusedError, refusedBatch } from './refusal.ts';

export interface BatchLimits {
  readonly maxFlowsPerBatch: number;
  readonly maxClockAheadMs: number;
  readonly maxAgeMs: number;
}

export interface CheckedBatch {
  readonly message: Uint8Array;
  readonly header: BatchHeader;
  readonly flowCount: number;
}

/**
 * Reads the batch into `scratch` (overwritten; its capacity is the limit of flows) and checks it at `nowMs`.
 * `prefix` is the place of the batch in the request. @throws {RefusedError}
 */
export function checkBatch(
  message: Uint8Array,
  scratch: FlowColumns,
  limits: BatchLimits,
  nowMs: number,
  prefix: string,
): CheckedBatch {
  clearFlowColumns(scratch);
  const read = readFlowBatch(message, scratch);
  if (!read.ok) {
    const cause = read.cause === 'none' ? 'undecodable' : read.cause;
    throw refusedBatch(cause, read.field, read.detail, prefix);
  }
  const { header, rowCount } = read;
  checkHeader(header, prefix);
  checkTimes(header, scratch.startMs.subarray(0, rowCount), limits, nowMs, prefix);
  return { message, header, flowCount: rowCount };
}

function checkHeader(header: BatchHeader, prefix: string): void {
  const refuse = (field: string, message: string): RefusedError =>
    refusedBatch('bad-value', field, message, prefix);
  if (header.agentId === '') throw refuse('agentId', 'is empty');
  if (header.bootId === '') throw refuse('bootId', 'is empty');
  if (header.network === '') throw refuse('network', 'is empty');
  if (header.sequence < 1) throw refuse('sequence', `is ${header.sequence}, must be 1 or more`);
  if (header.samplingRate < 1) throw refuse('samplingRate', `is ${header.samplingRate}, must be 1 or more`);
  if (header.clockErrorMs < -1)
    throw refuse('clockErrorMs', `is ${header.clockErrorMs}, must be -1 (not measured), 0 or more`);
  if (header.clockErrorMs < 0 && header.clockOffsetMs !== 0)
    throw refuse('clockOffsetMs', `is ${header.clockOffsetMs}, but by clockErrorMs it was not measured`);
  if (header.observedToMs < header.observedFromMs) throw refuse('observedToMs', 'is before observedFromMs');
}

function checkTimes(
  header: BatchHeader,
  starts: Float64Array,
  limits: BatchLimits,
  nowMs: number,
  prefix: string,
): void {
  // Limits are those of the common clock; times are by the agent's.
  const offsetMs = header.clockOffsetMs;
  const earliest = nowMs - limits.maxAgeMs + offsetMs;
  const latest = nowMs + limits.maxClockAheadMs + offsetMs;
  const check = (field: string, ms: number): void => {
    if (ms >= earliest && ms <= latest) return;
    const side =
      ms < earliest
        ? `over ${limits.maxAgeMs} ms in the past (ingest.maxAgeMs)`
        : `over ${limits.maxClockAheadMs} ms in the future (ingest.maxClockAheadMs)`;
    const shown = Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`;
    const clock = offsetMs === 0 ? '' : ` by a clock that is ${offsetMs} ms ahead of this one`;
    throw refusedBatch('time-out-of-range', field, `is ${shown}${clock}, ${side}`, prefix);
  };
  check('observedFromMs', header.observedFromMs);
  check('observedToMs', header.observedToMs);
  for (let i = 0; i < starts.length; i++) {
    const ms = starts[i] ?? 0;
    if (!(ms >= earliest && ms <= latest)) check(`flows[${i}].startMs`, ms);
  }
}
