/** Sends encoded batches to ingest, in order for each agent, and goes on trying where ingest is busy or away. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { rateLimited } from '../lib/bus/reporter.ts';
import { backoffMs } from '../lib/runtime/backoff.ts';
import type { DemoMetrics } from './metrics.ts';
import { hash32 } from './random.ts';

export interface OutgoingBatch {
  readonly agentId: string;
  readonly flowCount: number;
  readonly message: Buffer;
}

export interface DeliveryOptions {
  readonly url: string;
  readonly token: string;
  readonly laneCount: number;
  readonly requestTimeoutMs: number;
  readonly log: Logger;
  readonly metrics: DemoMetrics;
  /** Ends delivery: what is waiting is dropped, and counted. */
  readonly signal: AbortSignal;
}

export interface Delivery {
  readonly pendingCount: number;
  send(batch: OutgoingBatch): void;
  /** Resolves when every lane has come to rest after `signal`. */
  closed(): Promise<void>;
}

/** One FlowBatch in Avro single-object encoding. */
const batchContentType = 'application/vnd.eastwest.flow-batch+avro';
const backoff = { initialMs: 250, maxMs: 5000 };
const longestRetryAfterMs = 30_000;

type Outcome =
  | { readonly kind: 'taken' }
  | { readonly kind: 'refused'; readonly why: string }
  | {
      readonly kind: 'again';
      readonly cause: 'busy' | 'failed' | 'unauthorized';
      readonly why: string;
      readonly waitMs: number | null;
    };

/** What an answer means for the batch. */
export function judgeAnswer(status: number, retryAfter: string | null, text: string): Outcome {
  if (status >= 200 && status < 300) return { kind: 'taken' };
  const why = `ingest answered ${status}: ${text.slice(0, 300)}`;
  if (status === 401 || status === 403)
    return { kind: 'again', cause: 'unauthorized', why, waitMs: backoff.maxMs };
  if (status === 429 || status >= 500) {
    const seconds = Number(retryAfter ?? Number.NaN);
    const waitMs = Number.isFinite(seconds)
      ? Math.min(longestRetryAfterMs, Math.max(0, seconds * 1000))
      : null;
    return { kind: 'again', cause: 'busy', why, waitMs };
  }
  return { kind: 'refused', why };
}

export function startDelivery(options: DeliveryOptions): Delivery {
  const { metrics, signal } = options;
  const report = rateLimited((error) =>
    options.log.warn({ err: error }, 'ingest does not take the demo flows'),
  );
  const url = new URL('/v1/flows', options.url);
  const headers: Record<string, string> = { 'content-type': batchContentType };
  if (options.token !== '') headers.authorization = `Bearer ${options.token}`;
  const lanes = Array.from({ length: options.laneCount }, () => ({
    queue: [] as OutgoingBatch[],
    work: null as Promise<void> | null,
  }));
  let pendingCount = 0;

  const attempt = async (batch: OutgoingBatch): Promise<Outcome> => {
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers,
        body: new Uint8Array(batch.message),
        signal: AbortSignal.any([signal, AbortSignal.timeout(options.requestTimeoutMs)]),
      });
      return judgeAnswer(response.status, response.headers.get('retry-after'), await response.text());
    } catch (error) {
      const why =
        error instanceof Error
          ? error.cause instanceof Error
            ? error.cause.message
            : error.message
          : String(error);
      return { kind: 'again', cause: 'failed', why: `no answer from ${url.origin}: ${why}`, waitMs: null };
    }
  };

  const deliver = async (batch: OutgoingBatch): Promise<void> => {
    for (let failureCount = 1; !signal.aborted; failureCount++) {
      const outcome = await attempt(batch);
      if (outcome.kind === 'taken') {
        metrics.batches.inc();
        metrics.flows.inc(batch.flowCount);
        return;
      }
      if (outcome.kind === 'refused') {
        report(new Error(outcome.why));
        metrics.droppedFlows.inc({ cause: 'refused' }, batch.flowCount);
        return;
      }
      if (signal.aborted) break;
      report(new Error(outcome.why));
      metrics.retries.inc({ cause: outcome.cause });
      await sleep(outcome.waitMs ?? backoffMs(failureCount, backoff), undefined, { signal }).catch(
        () => undefined,
      );
    }
    metrics.droppedFlows.inc({ cause: 'stopped' }, batch.flowCount);
  };

  const run = async (lane: (typeof lanes)[number]): Promise<void> => {
    for (let batch = lane.queue.shift(); batch !== undefined; batch = lane.queue.shift()) {
      await deliver(batch);
      metrics.pending.set(--pendingCount);
    }
    lane.work = null;
  };

  return {
    get pendingCount() {
      return pendingCount;
    },
    send(batch) {
      const lane = lanes[hash32(batch.agentId) % lanes.length];
      if (lane === undefined) return;
      lane.queue.push(batch);
      metrics.pending.set(++pendingCount);
      lane.work ??= run(lane);
    },
    async closed() {
      await Promise.all(lanes.map((lane) => lane.work));
    },
  };
}
