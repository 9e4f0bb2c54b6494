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

async function readTopic(options: RebuildOptions): Promise<void> {
  const { bus, topicSpecs, restore, owners, onBusState, signal } = options;
  await bus.ensureTopics(topicSpecs);
  const caughtUp = Promise.withResolvers<void>();
  const onAbort = (): void => caughtUp.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const tail = await bus.tail({
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
  try {
    await caughtUp.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
    await tail.close();
  }
}

/** Resolves when all that was on the topic has been restored; tries for ever while the bus is away. Rejects on abort. */
export async function rebuild(options: RebuildOptions): Promise<void> {
  const { onBusState, log, maxRetryDelayMs, signal } = options;
  for (let failureCount = 1; ; failureCount++) {
    try {
      await readTopic(options);
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
