/** What kubelink asks of a place where inventory comes from, and what it offers in return. */
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import type { IgnoredKind } from '../manifests/convert.ts';

/**
 * Told what a source knows. Events are the whole truth about an entity as the source sees it; a `sinceMs` of 0 says
 * that the source does not know the begin. Calls return at once: events wait, by entity, until the bus has them.
 * The same event object given again says that nothing changed.
 */
export interface SourceSink {
  /**
   * Everything there is: what is not named has ended. Also gives the source a chance to take what another let go.
   * A source that saw nothing for a while (a restart, a watch that broke) gives the moment up to which it had seen all:
   * what is no more ends right after it, since nobody can say how long it lived on. Without: it ended now.
   * A source that hears of changes gives `changedMs`: when an entity came to be as it is now, ms, at the latest; `null`
   * where it does not know. What it told for a time after `seenToMs` is in doubt then, since it told only a part of it.
   */
  snapshot(
    events: readonly InventoryEvent[],
    seenToMs?: number,
    changedMs?: (event: InventoryEvent) => number | null,
  ): void;
  /**
   * One entity is new or different, since `atMs` where the source knows (now where not): the end of its former labels. Up
   * to `seenToMs`, where that is given, they were so for sure; from there on they may have been others.
   */
  change(event: InventoryEvent, atMs?: number, seenToMs?: number): void;
  /** One entity is no more, since `atMs` where the source knows (now where not). */
  gone(key: string, atMs?: number): void;
  /** Everything that cannot be read at present, each with its place; an empty list when all is well. */
  problems(current: readonly string[]): void;
  /** Objects at present that are of no interest to the inventory, by kind. */
  ignored(current: ReadonlyMap<IgnoredKind, number>): void;
  /** The source as a whole cannot be read for now; what is known stays. */
  failing(reason: string): void;
  /** Another process publishes what this source would say; it follows, ready to take over. */
  standby?(holder: string): void;
  /** `completeToMs` has risen, and this is worth to be known at once. */
  vouches?(): void;
}

/** What stands on the topic of one source, from before it was started or from another process of the same name. */
export interface Restored {
  /** `uid` of the cluster event that stands there; `null` where there is none. */
  clusterUid(cluster: string): string | null;
  /** What stands there of one entity; `null` where nothing does. */
  event(key: string): InventoryEvent | null;
  /** The newest watermark that stands there, ms; 0 where there is none. Good for {@link SourceSink.snapshot}. */
  completeToMs(): number;
  /**
   * For a source that takes over from another process (a lease): drops what of this source still waits for the bus, and
   * reads the topic anew. To be awaited before the first word to the sink. Tries until it succeeds; rejects on abort.
   */
  refresh(signal: AbortSignal): Promise<void>;
  /** For a source that lost its lease: drops what of it still waits for the bus. */
  release(): void;
}

/** Of a source that was never heard of. */
export const unrestored: Restored = {
  clusterUid: () => null,
  event: () => null,
  completeToMs: () => 0,
  refresh: () => Promise.resolve(),
  release: () => {},
};

export interface Source {
  /** Unique; the owner of what it publishes. */
  readonly name: string;
  /** Begins to tell the sink; goes on by itself through failures until it is stopped. */
  start(sink: SourceSink, restored: Restored): void;
  /**
   * The moment, ms since the epoch, up to which everything that took effect and that this source can know of has been
   * told to the sink; 0: nothing yet, or not now. Asked often. It is published as the source's watermark once the bus
   * has all that was told before, and flows until then are judged by it for good: never say more than is certain.
   * A source without it vouches for nothing and is taken at its word.
   */
  completeToMs?(): number;
  /** Resolves when the sink will hear no more. */
  stop(): Promise<void>;
}
