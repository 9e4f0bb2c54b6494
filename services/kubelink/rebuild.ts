/** Reads the inventory topic from the begin, so that what ended while kubelink was down is noticed. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Bus, TopicSpec } from '../../lib/bus/bus.ts';
import { backoffMs } from '../../lib/runtime/backoff.ts';
import { topics } from '../../schemas/topics.ts';
import { fromMessage } from './messages.ts';
import type { Publication } from './state.ts';

export interface RebuildOptions {
  readonly bus: Bus;
  /** Topics to make where they are missing. */
  readonly topicSpecs: readonly TopicSpec[];
  /** Gets the newest word on each entity of `owners`; for an entity that is another's by now, a tombstone. */
  readonly restore: (publication: Publication) => void;
  readonly owners: ReadonlySet<string>;
  readonly maxRetryDelayMs: number;
  readonly onBusState: (state: true | string) => void;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

async function readTopic(options: RebuildOptions, aborted: Promise<never>): Promise<void> {
  const { bus, topicSpecs, restore, owners, onBusState } = options;
  const caughtUp = Promise.withResolvers<void>();
  // A bus that is away may keep these waiting for ever, which must not keep the process from ending.
  await Promise.race([bus.ensureTopics(topicSpecs), aborted]);
  const opening = bus.tail({
    topic: topics.inventory,
    onMessages: (_partition, messages) => {
      for (const message of messages) {
        if (message.key === null) continue;
        const publication = fromMessage(message);
        const isOwn = publication !== null && owners.has(publication.source);
        restore(isOwn ? publication : { key: message.key, event: null, source: '', endedMs: null });
      }
    },
    onCaughtUp: caughtUp.resolve,
    onError: (error) => onBusState(`the inventory topic cannot be read: ${error.message}`),
  });
  const tail = await Promise.race([opening, aborted]);
  try {
    await Promise.race([caughtUp.promise, aborted]);
  } finally {
    await tail.close();
  }
}

/** Resolves when all that was on the topic has been restored; tries for ever while the bus is away. Rejects on abort. */
export async function rebuild(options: RebuildOptions): Promise<void> {
  const { onBusState, log, maxRetryDelayMs, signal } = options;
  const abort = Promise.withResolvers<never>();
  abort.promise.catch(() => undefined);
  signal.addEventListener('abort', () => abort.reject(signal.reason), { once: true });
  for (let failureCount = 1; ; failureCount++) {
    try {
      signal.throwIfAborted();
      await readTopic(options, abort.promise);
      onBusState(true);
      return;
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      onBusState(`the inventory topic cannot be read: ${reason}`);
      log.warn({ reason }, 'the inventory topic cannot be read, trying again');
      await sleep(backoffMs(failureCount, { initialMs: 100, maxMs: maxRetryDelayMs }), undefined, { signal });
    }
  }
}
