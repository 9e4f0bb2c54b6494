/** What the agent asks of a source of connection events. */
import type { FlowEvent } from '../flow-event.ts';

export interface FlowSource {
  readonly kind: 'conntrack' | 'procfs';
  /** Whether its events carry byte and packet counts. */
  readonly hasCounters: boolean;
  /** Begins to tell of connections: those that are open now, then all that happens. */
  start(onFlowEvent: (event: FlowEvent) => void): Promise<void>;
  /** Called before each report: brings counters up to date where that needs asking. Never rejects. */
  refresh(): Promise<void>;
  stop(): Promise<void>;
  /** Connections (at most) that were lost before the agent could see them, since the start. */
  droppedCount(): number;
}

/** Why a source can't be used here, and what would help. */
export interface SourceUnavailable {
  readonly reason: 'not-installed' | 'not-permitted' | 'not-tracking' | 'not-supported';
  readonly message: string;
}
