/** Tells of failures that go on, without telling the same thing again and again. */

/** The same text is not told again within this time. */
const repeatAfterMs = 10_000;
/** Most different texts remembered. */
const rememberedTexts = 64;

export type Report = (error: unknown) => void;

/** Wraps `onError`: each text at most once in ten seconds, with how often it came in between. */
export function rateLimited(onError: (error: Error) => void): Report {
  const told = new Map<string, { atMs: number; hiddenCount: number }>();
  return (failure) => {
    const error = failure instanceof Error ? failure : new Error(String(failure));
    const nowMs = performance.now();
    const before = told.get(error.message);
    if (before !== undefined && nowMs - before.atMs < repeatAfterMs) {
      before.hiddenCount++;
      return;
    }
    if (told.size >= rememberedTexts) told.clear();
    told.set(error.message, { atMs: nowMs, hiddenCount: 0 });
    const hidden = before?.hiddenCount ?? 0;
    onError(
      hidden === 0 ? error : new Error(`${error.message} (and ${hidden} times before)`, { cause: error }),
    );
  };
}
