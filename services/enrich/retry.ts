/** Waiting and trying again, both ended by a signal. */
import type { Logger } from 'pino';
import { StoreUnavailableError } from '../../lib/store/store.ts';

const retryFromMs = 100;
const retryToMs = 5000;

/** Resolves after `ms`, or when `signal` is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}

/** Does `work` (which `what` names for the log) until it succeeds, with growing waits; `null` when `signal` was aborted before. */
export async function retried<T>(
  signal: AbortSignal,
  log: Logger,
  what: string,
  work: () => Promise<T>,
  onRetry?: () => void,
): Promise<T | null> {
  let waitMs = retryFromMs;
  for (;;) {
    if (signal.aborted) return null;
    try {
      return await work();
    } catch (error) {
      // A refusal repeats itself, but losing the block is no way out either: say it loudly and let people mend it.
      const level = error instanceof StoreUnavailableError ? 'warn' : 'error';
      log[level]({ err: error, retryInMs: waitMs }, `${what} failed, tried again`);
      onRetry?.();
      await pause(waitMs, signal);
      waitMs = Math.min(retryToMs, waitMs * 2);
    }
  }
}
