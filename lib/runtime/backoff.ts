/** How long to wait before trying again. */

export interface BackoffLimits {
  readonly initialMs: number;
  readonly maxMs: number;
}

/**
 * Doubles from `initialMs` up to `maxMs` with the number of failures so far (1 for the first), then takes a random
 * half to whole of that, so that many who failed together don't come back together. Milliseconds.
 */
export function backoffMs(
  failureCount: number,
  limits: BackoffLimits,
  random: () => number = Math.random,
): number {
  const full = Math.min(limits.maxMs, limits.initialMs * 2 ** Math.min(Math.max(failureCount - 1, 0), 52));
  return Math.round(full / 2 + (random() * full) / 2);
}
