/** Delivers the spool's batches in order, one at a time, and waits longer each time the other end can't take one. */
import type { Logger } from 'pino';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { PendingBatch } from './spool/spool.ts';

/** What became of one try. */
export type SendOutcome =
  | { readonly kind: 'delivered' }
  /** May be taken later. `afterMs`: how long the other end asks to wait. */
  | { readonly kind: 'retry'; readonly cause: RetryCause; readonly detail: string; readonly afterMs?: number }
  /** Will never be taken: the batch itself is wrong. */
  | { readonly kind: 'refused'; readonly detail: string };

export const retryCauses = ['unreachable', 'busy', 'unauthorized', 'misplaced', 'failed'] as const;
export type RetryCause = (typeof retryCauses)[number];

export interface Sender {
  /** Never rejects. */
  send(batch: PendingBatch, signal: AbortSignal): Promise<SendOutcome>;
  close(): Promise<void>;
}

export interface DeliveryQueue {
  oldest(): PendingBatch | null;
  settle(batch: PendingBatch, outcome: 'delivered' | 'refused'): void;
  waitForBatch(signal: AbortSignal): Promise<void>;
}

export interface DeliveryOptions {
  readonly queue: DeliveryQueue;
  readonly sender: Sender;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  readonly log: Logger;
  /** From 0 to below 1. */
  readonly random: () => number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Told of every try. */
  readonly onOutcome: (outcome: SendOutcome, batch: PendingBatch) => void;
}

/** Longest wait that the other end may ask for, ms. */
const maxAskedWaitMs = 300_000;

/** Half of the full pause plus a random share of the other half, so that agents don't come back all at once. */
export function backoffMs(failureCount: number, minMs: number, maxMs: number, random: number): number {
  const full = Math.min(maxMs, minMs * 2 ** Math.min(30, failureCount - 1));
  return Math.round(full / 2 + (full / 2) * random);
}

function explain(log: Logger, outcome: SendOutcome, batch: PendingBatch, lastCause: RetryCause | null): void {
  const { bootId, sequence, flowCount } = batch;
  if (outcome.kind === 'refused') {
    log.error(
      { bootId, sequence, flowCount, detail: outcome.detail },
      'a batch was refused for good and is dropped',
    );
  } else if (outcome.kind === 'retry' && outcome.cause !== lastCause) {
    log.warn(
      { cause: outcome.cause, detail: outcome.detail },
      'batches cannot be delivered now; they are kept and tried again',
    );
  } else if (outcome.kind === 'delivered' && lastCause !== null) {
    log.info({ sequence }, 'batches are delivered again');
  }
}

/** Runs until the signal is aborted; a try that is under way is then given up. */
export async function deliver(options: DeliveryOptions, signal: AbortSignal): Promise<void> {
  const { queue, sender, log } = options;
  let failureCount = 0;
  let lastCause: RetryCause | null = null;
  while (!signal.aborted) {
    await queue.waitForBatch(signal);
    // Asked for anew each time: while it waited the oldest batch may have been dropped.
    const batch = queue.oldest();
    if (batch === null || signal.aborted) continue;
    if (failureCount > 0) failpoint('agent.resending');
    const outcome = await sender.send(batch, signal);
    if (failureCount > 0) failpoint('agent.resent');
    if (outcome.kind === 'delivered') failpoint('agent.delivered');
    if (signal.aborted && outcome.kind === 'retry') return;
    options.onOutcome(outcome, batch);
    explain(log, outcome, batch, lastCause);
    if (outcome.kind === 'retry') {
      lastCause = outcome.cause;
      failureCount++;
      const own = backoffMs(failureCount, options.backoffMinMs, options.backoffMaxMs, options.random());
      const asked = Math.min(maxAskedWaitMs, outcome.afterMs ?? 0);
      await options.sleep(Math.max(own, asked), signal);
      continue;
    }
    queue.settle(batch, outcome.kind);
    failureCount = 0;
    lastCause = null;
  }
}
