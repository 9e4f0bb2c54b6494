/** Completeness of a window, remembered for a moment: it stands in every answer and moves slowly. */
import { type Completeness, isoMsOrNull } from './answers.ts';
import type { RouteContext } from './context.ts';
import type { Window } from './filters.ts';
import { isSilent, readSources } from './sources.ts';
import { completenessSql } from './sql/ledger.ts';

/** Most windows that are remembered at once. */
const maxRemembered = 200;

interface Row {
  readonly agents_reporting: string;
  readonly agents_silent: string;
  readonly agents_sampling: string;
  readonly nodes_reporting: string;
  readonly nodes_silent: string;
  readonly batches_missing: string;
  readonly flows_dropped: string;
  readonly freshest_ms: string;
  readonly delay_p99_ms: string | null;
}

/** Quantiles of nothing are null. */
export function delayOrNull(value: string | null | undefined): number | null {
  return value === null || value === undefined ? null : Number(value);
}

export function makeCompleteness(
  context: Pick<RouteContext, 'ask' | 'clock' | 'ledger' | 'sourceSilentAfterMs'>,
  cacheMs: number,
): RouteContext['completeness'] {
  const remembered = new Map<string, { readonly untilMs: number; readonly answer: Completeness }>();
  return async (window: Window, signal) => {
    const { nowMs } = context.clock();
    const key = `${window.sinceS}-${window.untilS}`;
    const known = remembered.get(key);
    if (known !== undefined && known.untilMs > nowMs) return known.answer;
    const statement = completenessSql(window, Math.floor(nowMs / 1000), context.ledger);
    const [[row], sources] = await Promise.all([
      context.ask<Row>(statement, signal),
      readSources(context, signal),
    ]);
    const endMs = Math.min(window.untilS === null ? nowMs : window.untilS * 1000, nowMs);
    const answer: Completeness = {
      agentsReporting: Number(row?.agents_reporting ?? 0),
      agentsSilent: Number(row?.agents_silent ?? 0),
      agentsSampling: Number(row?.agents_sampling ?? 0),
      nodesReporting: Number(row?.nodes_reporting ?? 0),
      nodesSilent: Number(row?.nodes_silent ?? 0),
      batchesMissing: Number(row?.batches_missing ?? 0),
      flowsDropped: Number(row?.flows_dropped ?? 0),
      sourcesSilent: sources.filter((source) => isSilent(source, endMs, context.sourceSilentAfterMs)).length,
      freshestTo: isoMsOrNull(row?.freshest_ms ?? 0),
      delayMsP99: delayOrNull(row?.delay_p99_ms),
    };
    remembered.delete(key);
    remembered.set(key, { untilMs: nowMs + cacheMs, answer });
    const oldest = remembered.keys().next();
    if (remembered.size > maxRemembered && oldest.done !== true) remembered.delete(oldest.value);
    return answer;
  };
}
