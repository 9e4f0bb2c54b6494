/** Completeness of a window, remembered for a moment: it stands in every answer and moves slowly. */
import { type Completeness, isoMsOrNull } from './answers.ts';
import type { RouteContext } from './context.ts';
import type { Window } from './filters.ts';
import { isSilent, readSources } from './sources.ts';
import { type Suspect, suspectsSql } from './sql/gaps.ts';
import { delaysSql, ledgerTotalsSql, missingSql, reportingSql } from './sql/ledger.ts';

/** Most windows that are remembered at once. */
const maxRemembered = 200;

interface ReportingRow {
  readonly agents_reporting: string;
  readonly agents_silent: string;
  readonly agents_sampling: string;
  readonly nodes_reporting: string;
  readonly nodes_silent: string;
}

export interface TotalsRow {
  readonly batches_read: string;
  readonly batches_written: string;
  readonly batches_resent: string;
  readonly batches_dead: string;
  readonly flows_received: string;
  readonly flows_written: string;
  readonly flows_resent: string;
  readonly flows_refused: string;
  readonly flows_dropped_at_source: string;
  readonly freshest_ms: string;
}

type Asking = Pick<RouteContext, 'ask' | 'clock' | 'ledger' | 'sourceSilentAfterMs'>;

/** What arrived in the window, and how late it was: median and 99th percentile, ms. */
export async function readTotals(
  context: Asking,
  window: Window,
  signal: AbortSignal,
): Promise<{ readonly totals: TotalsRow | undefined; readonly delaysMs: readonly (number | null)[] }> {
  const [totals] = await context.ask<TotalsRow>(ledgerTotalsSql(window), signal);
  const [row] = await context.ask<{ delays_ms: (string | null)[] }>(
    delaysSql(window, Number(totals?.batches_written ?? 0)),
    signal,
  );
  return { totals, delaysMs: (row?.delays_ms ?? []).map((ms) => (ms === null ? null : Number(ms))) };
}

/** Boots that may miss batches; of more than can be named, some. */
export function readSuspects(context: Asking, window: Window, signal: AbortSignal): Promise<Suspect[]> {
  return context.ask<Suspect>(suspectsSql(window, context.ledger), signal);
}

async function readMissing(context: Asking, window: Window, signal: AbortSignal): Promise<number> {
  const suspects = await readSuspects(context, window, signal);
  if (suspects.length === 0) return 0;
  const [row] = await context.ask<{ batches_missing: string }>(
    missingSql(window, context.ledger, suspects),
    signal,
  );
  return Number(row?.batches_missing ?? 0);
}

export function makeCompleteness(context: Asking, cacheMs: number): RouteContext['completeness'] {
  const remembered = new Map<string, { readonly untilMs: number; readonly answer: Completeness }>();
  return async (window: Window, signal) => {
    const { nowMs } = context.clock();
    const key = `${window.sinceS}-${window.untilS}`;
    const known = remembered.get(key);
    if (known !== undefined && known.untilMs > nowMs) return known.answer;
    const [[reporting], { totals, delaysMs }, missing, sources] = await Promise.all([
      context.ask<ReportingRow>(reportingSql(window, Math.floor(nowMs / 1000), context.ledger), signal),
      readTotals(context, window, signal),
      readMissing(context, window, signal),
      readSources(context, signal),
    ]);
    const endMs = Math.min(window.untilS === null ? nowMs : window.untilS * 1000, nowMs);
    const answer: Completeness = {
      agentsReporting: Number(reporting?.agents_reporting ?? 0),
      agentsSilent: Number(reporting?.agents_silent ?? 0),
      agentsSampling: Number(reporting?.agents_sampling ?? 0),
      nodesReporting: Number(reporting?.nodes_reporting ?? 0),
      nodesSilent: Number(reporting?.nodes_silent ?? 0),
      batchesMissing: missing,
      flowsDropped: Number(totals?.flows_dropped_at_source ?? 0) + Number(totals?.flows_refused ?? 0),
      sourcesSilent: sources.filter((source) => isSilent(source, endMs, context.sourceSilentAfterMs)).length,
      freshestTo: isoMsOrNull(totals?.freshest_ms ?? 0),
      delayMsP99: delaysMs[1] ?? null,
    };
    remembered.delete(key);
    remembered.set(key, { untilMs: nowMs + cacheMs, answer });
    const oldest = remembered.keys().next();
    if (remembered.size > maxRemembered && oldest.done !== true) remembered.delete(oldest.value);
    return answer;
  };
}
