/**
 * How long before the end of their batch's interval flows ended: what the ledger needs to say how late each flow was
 * queryable. Counted in classes whose width grows with the age, so that a batch has a handful of them.
 */
import type { FlowColumns } from '../../lib/wire/columns.ts';

/** Classes with flows in them: a representative age in ms, off by at most a sixteenth, and how many flows. */
export interface EndAges {
  readonly agesMs: readonly number[];
  readonly flowCounts: readonly number[];
}

export const noEndAges: EndAges = { agesMs: [], flowCounts: [] };

/** Classes within each power of two, as a power of two. */
const classBits = 3;
const classesPerPower = 1 << classBits;
const maxAgeMs = 0x7fffffff;
const classCount = classOf(maxAgeMs) + 1;
/** Counts of the batch at hand; all 0 between batches. */
const counts = new Uint32Array(classCount);

/** Ages below 8 ms have a class each, then every power of two has eight. */
function classOf(ageMs: number): number {
  if (ageMs < classesPerPower) return ageMs;
  const shift = 31 - Math.clz32(ageMs) - classBits;
  return (shift << classBits) + (ageMs >> shift);
}

/** The middle of a class. */
function ageOf(index: number): number {
  if (index < 2 * classesPerPower) return index;
  const shift = (index >> classBits) - 1;
  return (index - (shift << classBits)) * 2 ** shift + 2 ** (shift - 1);
}

/** Ages of the flows from `firstRow` on at `observedToMs`; what ended after it, by a flow's own word, is of age 0. */
export function endAgesOf(
  columns: Pick<FlowColumns, 'startMs' | 'durationMs'>,
  firstRow: number,
  rowCount: number,
  observedToMs: number,
): EndAges {
  const { startMs, durationMs } = columns;
  for (let row = firstRow; row < firstRow + rowCount; row++) {
    const age = observedToMs - (startMs[row] ?? 0) - (durationMs[row] ?? 0);
    const at = age > 0 ? classOf(age < maxAgeMs ? Math.trunc(age) : maxAgeMs) : 0;
    counts[at] = (counts[at] ?? 0) + 1;
  }
  const agesMs: number[] = [];
  const flowCounts: number[] = [];
  for (let index = 0; index < classCount; index++) {
    const count = counts[index] ?? 0;
    if (count === 0) continue;
    agesMs.push(ageOf(index));
    flowCounts.push(count);
    counts[index] = 0;
  }
  return { agesMs, flowCounts };
}
