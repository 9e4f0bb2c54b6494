/** Counts flows whose naming is final, by verdict and by how their ends were named. */
import { certainties, provenances, reasons, verdicts } from '../../schemas/closed-lists.ts';
import type { EnrichMetrics } from './metrics.ts';
import type { SliceContent } from './rows.ts';

export function countFlows(
  metrics: EnrichMetrics,
  { columns, resolved }: Pick<SliceContent, 'columns' | 'resolved'>,
  isFinal: (row: number) => boolean,
): void {
  const byVerdict = new Uint32Array(64);
  const bySource = new Uint32Array(64);
  const byDestination = new Uint32Array(64);
  const { source, destination, verdict } = resolved;
  const bump = (counts: Uint32Array, code: number): void => {
    counts[code] = (counts[code] ?? 0) + 1;
  };
  for (let row = 0; row < columns.count; row++) {
    if (!isFinal(row)) continue;
    bump(byVerdict, (verdict[row] ?? 0) & 63);
    bump(bySource, (source.provenance[row] ?? 0) * 8 + (source.certainty[row] ?? 0));
    bump(byDestination, (destination.provenance[row] ?? 0) * 8 + (destination.certainty[row] ?? 0));
  }
  byVerdict.forEach((value, code) => {
    if (value > 0)
      metrics.verdicts.inc({ verdict: verdicts[code & 3] ?? '', reason: reasons[code >> 2] ?? '' }, value);
  });
  for (const [end, counts] of [
    ['source', bySource],
    ['destination', byDestination],
  ] as const) {
    counts.forEach((value, code) => {
      if (value === 0) return;
      const labels = {
        end,
        provenance: provenances[code >> 3] ?? '',
        certainty: certainties[code & 7] ?? '',
      };
      metrics.certainties.inc(labels, value);
    });
  }
}
