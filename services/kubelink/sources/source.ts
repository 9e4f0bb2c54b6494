/** What kubelink asks of a place where inventory comes from, and what it offers in return. */
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import type { IgnoredKind } from '../manifests/convert.ts';

/**
 * Told what a source knows. Events are the whole truth about an entity as the source sees it; a `sinceMs` of 0 says
 * that the source does not know the begin. Calls return at once: events wait, by entity, until the bus has them.
 * The same event object given again says that nothing changed.
 */
export interface SourceSink {
  /** Everything there is: what is not named has ended. Also gives the source a chance to take what another let go. */
  snapshot(events: readonly InventoryEvent[]): void;
  /** One entity is new or different. */
  change(event: InventoryEvent): void;
  /** One entity is no more, since `atMs` where the source knows (now where not). */
  gone(key: string, atMs?: number): void;
  /** Everything that cannot be read at present, each with its place; an empty list when all is well. */
  problems(current: readonly string[]): void;
  /** Objects at present that are of no interest to the inventory, by kind. */
  ignored(current: ReadonlyMap<IgnoredKind, number>): void;
  /** The source as a whole cannot be read for now; what is known stays. */
  failing(reason: string): void;
}

export interface Source {
  /** Unique; the owner of what it publishes. */
  readonly name: string;
  /** Begins to tell the sink; goes on by itself through failures until it is stopped. */
  start(sink: SourceSink): void;
  /** Resolves when the sink will hear no more. */
  stop(): Promise<void>;
}
