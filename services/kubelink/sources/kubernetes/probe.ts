/**
 * Proves up to when everything has been heard: asks the server for each kind's newest revision, then waits until the
 * watch of that kind has passed it, or has been silent for a while after the answer. Watches and answers share one
 * connection, so nothing else delays the one more than the other.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ApiConnection } from './connection.ts';
import { listPage, type Resource } from './resources.ts';

/** Longest time a proof may take, ms; then another is begun. */
const maxProofMs = 5_000;

/** What a proof needs to know of a reflector. */
export interface Probed {
  readonly resource: Resource;
  /** Number of the open watch that has told everything so far, 0 where there is none. */
  readonly liveStream: number;
  /** Newest revision heard. */
  readonly revision: number;
  /** When an event was heard last, on the clock of `performance`. */
  readonly heardAt: number;
  /** An event at or before this revision must not come any more. */
  prove(revision: number): void;
}

/** Resolves with the moment, ms since the epoch, up to which everything was heard, or `null` where that cannot be said. */
export async function proveComplete(
  connection: ApiConnection,
  reflectors: readonly Probed[],
  settleMs: number,
  signal: AbortSignal,
): Promise<number | null> {
  const beganMs = Date.now();
  const deadline = performance.now() + maxProofMs;
  const streams = reflectors.map(({ liveStream }) => liveStream);
  if (streams.includes(0)) return null;
  const revisions = await Promise.all(
    reflectors.map(async ({ resource: { path } }) => {
      const page = listPage(await connection.json({ path: `${path}?limit=1` }), path);
      return Number(page.resourceVersion);
    }),
  );
  await connection.ping();
  const answeredAt = performance.now();
  const isReached = (probed: Probed, i: number): boolean =>
    probed.revision >= (revisions[i] ?? Number.POSITIVE_INFINITY) ||
    performance.now() - Math.max(answeredAt, probed.heardAt) >= settleMs;
  while (!reflectors.every(isReached)) {
    if (performance.now() > deadline) return null;
    await sleep(Math.min(settleMs, 20), undefined, { signal });
  }
  if (reflectors.some(({ liveStream }, i) => liveStream !== streams[i])) return null;
  reflectors.forEach((probed, i) => {
    probed.prove(revisions[i] ?? 0);
  });
  return beganMs;
}
