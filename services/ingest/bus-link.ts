/** Keeps a bus open for the door: retries at start, watches it afterwards, and says how it stands. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Bus, TopicSpec } from '../../lib/bus/bus.ts';
import type { Readiness } from '../../lib/runtime/service.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';

const firstRetryMs = 250;
/** An answer of 503 costs little, and a bus that is back is wanted at once. */
const maxRetryMs = 1_000;
const checkIntervalMs = 2_000;

export interface BusLinkOptions {
  readonly open: () => Promise<Bus>;
  readonly topics: readonly TopicSpec[];
  readonly readiness: Readiness;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Told of the batches that wait for the enrichers, each time that is looked at. */
  readonly onBacklog: (batchCount: number) => void;
}

export interface BusLink {
  /** The bus, or why there is none. */
  readonly current: () => Bus | string;
  /** Looks at the bus soon, because it failed. */
  readonly doubt: (error: Error) => void;
  /** Ends with the signal; the bus stays open for what is on its way. */
  readonly run: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Makes a link; `run` must be running for it to do anything. */
export function makeBusLink(options: BusLinkOptions): BusLink {
  const { readiness, log, signal } = options;
  let bus: Bus | null = null;
  let usable: true | string = 'not open yet';
  let wake = new AbortController();

  const say = (state: true | string): void => {
    if (state !== usable) {
      if (state === true) log.info('the bus takes messages');
      else log.warn({ why: state }, 'the bus is away; trying again');
    }
    usable = state;
    readiness.set('bus', state);
  };

  const attempt = async (): Promise<void> => {
    try {
      bus ??= await options.open();
      if (usable !== true) await bus.ensureTopics(options.topics);
      const positions = await bus.positions(topics.flows, enrichGroup);
      options.onBacklog(
        positions.reduce((sum, { next, earliest, committed }) => {
          const from = Math.max(earliest, committed?.offset ?? earliest);
          return sum + Math.max(0, next - from);
        }, 0),
      );
      say(true);
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
    }
  };

  const pause = async (ms: number): Promise<void> => {
    wake = new AbortController();
    await delay(ms, undefined, { signal: AbortSignal.any([signal, wake.signal]) }).catch(() => undefined);
  };

  return {
    current: () => (bus === null || usable !== true ? String(usable) : bus),
    doubt: () => wake.abort(),
    async close() {
      await bus?.close();
    },
    async run() {
      let retryMs = firstRetryMs;
      readiness.set('bus', usable);
      while (!signal.aborted) {
        await attempt();
        if (usable === true) {
          retryMs = firstRetryMs;
          await pause(checkIntervalMs);
        } else {
          await pause(retryMs);
          retryMs = Math.min(retryMs * 2, maxRetryMs);
        }
      }
    },
  };
}
