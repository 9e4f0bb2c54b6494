/** Hands what was put to the bus, which is opened when it is needed first: most query processes never write. */
import { setTimeout as delay } from 'node:timers/promises';
import {
  type Bus,
  MessageTooLargeError,
  type OutgoingMessage,
  type TopicSpec,
} from '../../../lib/bus/bus.ts';
import { ProblemError } from '../problem.ts';

/** Messages handed over at once, so that other writers and readers get their turn. */
const maxSliceCount = 1000;

/** Longest wait for the bus at the end, ms. */
const maxCloseMs = 2000;

export interface PutWriterOptions {
  readonly open: () => Promise<Bus>;
  readonly topic: string;
  readonly topicSpecs: readonly TopicSpec[];
  readonly timeoutMs: number;
}

export interface PutWriter {
  /** Resolves when all is durable. @throws {ProblemError} when that is not certain. */
  append(messages: readonly OutgoingMessage[]): Promise<void>;
  close(): Promise<void>;
}

export function makePutWriter(options: PutWriterOptions): PutWriter {
  let opening: Promise<Bus> | null = null;
  /** One request after the other, so that the messages of each stand together. */
  let queue: Promise<unknown> = Promise.resolve();

  const open = async (): Promise<Bus> => {
    const bus = await options.open();
    try {
      await bus.ensureTopics(options.topicSpecs);
      return bus;
    } catch (error) {
      await bus.close();
      throw error;
    }
  };

  const write = async (messages: readonly OutgoingMessage[]): Promise<void> => {
    opening ??= open();
    const bus = await opening.catch((error: unknown) => {
      opening = null;
      throw error;
    });
    for (let from = 0; from < messages.length; from += maxSliceCount) {
      await bus.append(options.topic, messages.slice(from, from + maxSliceCount));
    }
  };

  return {
    async append(messages) {
      const written = queue.then(() => write(messages));
      queue = written.catch(() => undefined);
      const timer = new AbortController();
      const tooLate = delay(options.timeoutMs, undefined, { signal: timer.signal }).then(() => {
        throw new Error(`no answer within ${options.timeoutMs} ms (query.put.timeoutMs)`);
      });
      try {
        await Promise.race([written, tooLate]);
      } catch (error) {
        if (error instanceof MessageTooLargeError) throw new ProblemError('too-large', error.message);
        const reason = error instanceof Error ? error.message : String(error);
        throw new ProblemError(
          'bus-unavailable',
          `the bus did not take it: ${reason}. Put the same again: what was taken already does no harm`,
          { retryAfterSeconds: 2 },
        );
      } finally {
        timer.abort();
        tooLate.catch(() => undefined);
      }
    },
    async close() {
      const closed = opening?.then(
        (bus) => bus.close(),
        () => undefined,
      );
      // A bus that is away must not keep the process from ending; nobody was promised what still waits.
      await Promise.race([closed, delay(maxCloseMs, undefined, { ref: false })]);
    },
  };
}
