/** Reads a whole topic of the embedded bus and follows it. */
import { Backoff } from '../backoff.ts';
import type { TailOptions } from '../bus.ts';
import { rateLimited } from '../reporter.ts';
import type { Catalog } from './catalog.ts';
import type { Poller } from './poller.ts';
import { Pump } from './pump.ts';
import type { Reader } from './reader.ts';

const maxBytesPerCall = 1024 * 1024;

/** Starts to read. @throws {Error} when there is no such topic. */
export function startTail(
  options: TailOptions,
  parts: { catalog: Catalog; reader: Reader; poller: Poller },
): { close(): Promise<void> } {
  const { catalog, reader, poller } = parts;
  const report = rateLimited(options.onError);
  const closed = new AbortController();
  const pumps = new Map<number, Pump>();
  const behind = new Map<number, number>();
  let caughtUp = false;

  const reached = (partition: number, next: number): void => {
    const target = behind.get(partition);
    if (target === undefined || next < target) return;
    behind.delete(partition);
    tellCaughtUp();
  };
  const tellCaughtUp = (): void => {
    if (caughtUp || behind.size > 0 || closed.signal.aborted) return;
    caughtUp = true;
    options.onCaughtUp();
  };

  const start = (partition: number, partitionId: number, offset: number, backoff: Backoff): void => {
    const pump = new Pump({
      reader,
      partitionId,
      offset,
      maxBytesPerCall,
      deliver: async (messages) => {
        await options.onMessages(partition, messages);
        backoff.reset();
        reached(partition, (messages.at(-1)?.offset ?? -1) + 1);
      },
      // What lies before the end and is not there has been compacted away.
      onIdle: () => reached(partition, Number.POSITIVE_INFINITY),
      onFailed: (error) => {
        report(error);
        void backoff.wait(closed.signal).then(() => {
          if (!closed.signal.aborted) start(partition, partitionId, pump.next, backoff);
        });
      },
    });
    pumps.set(partition, pump);
  };

  const startMissing = (): void => {
    catalog.get(options.topic, true).partitionIds.forEach((partitionId, partition) => {
      if (!pumps.has(partition)) start(partition, partitionId, 0, new Backoff());
    });
  };

  catalog.get(options.topic, true).partitionIds.forEach((partitionId, partition) => {
    behind.set(partition, reader.bounds(partitionId).next);
  });
  const unlisten = poller.listen(() => {
    try {
      startMissing();
    } catch (error) {
      report(error);
    }
    for (const pump of pumps.values()) pump.notify();
  });
  startMissing();

  return {
    close: async () => {
      closed.abort();
      unlisten();
      await Promise.all([...pumps.values()].map((pump) => pump.stop()));
    },
  };
}
