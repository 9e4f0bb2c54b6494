/** The policy in force at any moment: the topic `policy` is followed, and the newest version compiled before it is asked about. */

import type { Bus } from '../../lib/bus/bus.ts';
import { PolicyFollower } from '../../lib/policy/follow.ts';
import type { PolicySpan, PolicyTimeline } from '../../lib/policy/timeline.ts';
import { asError } from '../../lib/runtime/as-error.ts';
import { topics } from '../../schemas/topics.ts';
import { ProblemError } from './problem.ts';

export interface Policies {
  /**
   * The policy that judges flows which begin at `timeMs`; before the oldest version that is kept, that one.
   * Other requests go on while it is compiled.
   * @throws {ProblemError} `bus-unavailable` where the topic can't be read before `signal` is aborted
   */
  at(timeMs: number, signal: AbortSignal): Promise<PolicySpan>;
  close(): Promise<void>;
}

export interface PoliciesOptions {
  /** Opens a bus with all topics, which stays open; called anew after it failed. */
  readonly open: () => Promise<Bus>;
  /** Told of messages that are no policy, and of failures that the bus goes on retrying. */
  readonly onError: (error: Error) => void;
}

interface Following {
  readonly policies: PolicyTimeline;
  close(): Promise<void>;
}

async function follow({ open, onError }: PoliciesOptions): Promise<Following> {
  const follower = new PolicyFollower();
  const { policies } = follower;
  const compileNewest = (): void => {
    policies
      .reach(Math.max(Date.now(), policies.newestFromMs))
      .catch((error: unknown) => onError(asError(error)));
  };
  let caughtUp = false;
  const bus = await open();
  try {
    const { promise, resolve } = Promise.withResolvers<void>();
    const tail = await bus.tail({
      topic: topics.policy,
      onMessages: (_partition, messages) => {
        let isNew = false;
        for (const message of messages) {
          try {
            isNew = follower.take(message) || isNew;
          } catch (error) {
            onError(asError(error));
          }
        }
        if (isNew && caughtUp) compileNewest();
      },
      onCaughtUp: () => {
        caughtUp = true;
        compileNewest();
        resolve();
      },
      onError,
    });
    await promise;
    return {
      policies,
      async close() {
        await tail.close();
        await bus.close();
      },
    };
  } catch (error) {
    await bus.close();
    throw error;
  }
}

function unavailable(error: unknown): ProblemError {
  const reason = error instanceof Error ? error.message : String(error);
  return new ProblemError('bus-unavailable', `the policy can't be read from the bus: ${reason}`, {
    retryAfterSeconds: 2,
  });
}

export function followPolicies(options: PoliciesOptions): Policies {
  let following: Promise<Following> | undefined;
  const started = (): Promise<Following> => {
    following ??= follow(options).catch((error: unknown) => {
      following = undefined;
      throw error;
    });
    return following;
  };
  // Whoever asks first while the bus is away tries again, and is told.
  started().catch((error: unknown) => options.onError(asError(error)));
  return {
    async at(timeMs, signal) {
      const late = Promise.withResolvers<never>();
      const stop = (): void => late.reject(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
      try {
        signal.throwIfAborted();
        const { policies } = await Promise.race([started(), late.promise]);
        return await policies.reach(timeMs);
      } catch (error) {
        throw unavailable(error);
      } finally {
        signal.removeEventListener('abort', stop);
      }
    },
    async close() {
      const opened = await following?.catch(() => undefined);
      await opened?.close();
    },
  };
}
