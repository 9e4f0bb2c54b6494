/** Sources of inventory, and how far each vouches for itself. */
import type { RouteContext } from './context.ts';
import { sourcesSql } from './sql/who.ts';

export interface InventorySource {
  readonly source: string;
  /** Every change that took effect until then is known, ms since the epoch. */
  readonly completeToMs: number;
  /** When an enricher last said so, ms since the epoch. */
  readonly heardMs: number;
}

export async function readSources(
  context: Pick<RouteContext, 'ask'>,
  signal: AbortSignal,
): Promise<InventorySource[]> {
  const rows = await context.ask<{
    readonly source: string;
    readonly complete_ms: string;
    readonly heard_ms: string;
  }>(sourcesSql(), signal);
  return rows.map((row) => ({
    source: row.source,
    completeToMs: Number(row.complete_ms),
    heardMs: Number(row.heard_ms),
  }));
}

/** Those that are not far behind the newest: the others are away, and nobody waits for them. */
export function speaking(
  sources: readonly InventorySource[],
  silentAfterMs: number,
): readonly InventorySource[] {
  const newestMs = sources.reduce((newest, { completeToMs }) => Math.max(newest, completeToMs), 0);
  return sources.filter(({ completeToMs }) => completeToMs >= newestMs - silentAfterMs);
}

/** Whether a source vouches for too little of a time until `endMs`. */
export function isSilent(source: InventorySource, endMs: number, silentAfterMs: number): boolean {
  return source.completeToMs < endMs - silentAfterMs;
}
