/** What every route has at hand. */
import type { Store } from '../../lib/store/store.ts';
import type { Completeness } from './answers.ts';
import type { QueryConfig } from './config.ts';
import type { Window } from './filters.ts';
import type { Clock } from './parameters.ts';
import type { Statement } from './sql/bindings.ts';
import type { LedgerLimits } from './sql/gaps.ts';
import type { Kept } from './sql/plan.ts';

export interface RouteContext {
  readonly config: QueryConfig;
  readonly kept: Kept;
  readonly ledger: LedgerLimits;
  /** How far a source of inventory may be behind before it is called silent. */
  readonly sourceSilentAfterMs: number;
  /** Rows of a statement, bounded by `query.maxSeconds`. */
  ask<T>(statement: Statement, signal: AbortSignal): Promise<T[]>;
  completeness(window: Window, signal: AbortSignal): Promise<Completeness>;
  clock(): Clock;
}

export function makeAsk(store: Store, maxSeconds: number): RouteContext['ask'] {
  const settings = { max_execution_time: maxSeconds, cancel_http_readonly_queries_on_client_close: 1 };
  return (statement, signal) => store.query(statement.sql, statement.params, { settings, signal });
}
