/** Questions that read the topic `inventory` as a whole: few at once, and within a time. */
import type { Bus } from '../../lib/bus/bus.ts';
import { ProblemError } from './problem.ts';
import type { WithBus } from './routes/labels.ts';

/** Questions at once at most. */
const maxConcurrent = 2;

/**
 * Gives `work` a bus, and a signal that is aborted when the client is `gone` or it takes too long.
 * @throws {ProblemError} `too-many-queries`, `bus-unavailable`, and those of `work`
 */
export type InventoryQuestions = <T>(
  gone: AbortSignal,
  work: (bus: Bus, signal: AbortSignal) => Promise<T>,
) => Promise<T>;

export function makeInventoryQuestions({
  withBus,
  maxSeconds,
}: {
  /** Absent where there is no bus to read. */
  readonly withBus: WithBus | undefined;
  /** Longest time for one question, seconds. */
  readonly maxSeconds: number;
}): InventoryQuestions {
  let running = 0;
  return async (gone, work) => {
    if (withBus === undefined) throw new ProblemError('bus-unavailable', 'this process has no bus');
    if (running >= maxConcurrent)
      throw new ProblemError('too-many-queries', `${running} such questions are under way already`, {
        retryAfterSeconds: 1,
      });
    running++;
    const signal = AbortSignal.any([gone, AbortSignal.timeout(maxSeconds * 1000)]);
    try {
      return await withBus((bus) => work(bus, signal));
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new ProblemError('bus-unavailable', `the inventory can't be read from the bus: ${reason}`, {
        retryAfterSeconds: 2,
      });
    } finally {
      running--;
    }
  };
}
