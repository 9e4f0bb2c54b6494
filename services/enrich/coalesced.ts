/**
 * `work` for many who ask at once: whoever asks gets what was begun after that, and all who ask while it is being done share
 * the next one.
 */
export function coalesced<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | null = null;
  let next: Promise<T> | null = null;
  const begin = (): Promise<T> => {
    const begun = work();
    running = begun;
    const over = (): void => {
      if (running === begun) running = null;
    };
    begun.then(over, over);
    return begun;
  };
  const beginNext = (): Promise<T> => {
    next = null;
    return begin();
  };
  return () => {
    if (next !== null) return next;
    if (running === null) return begin();
    next = running.then(beginNext, beginNext);
    return next;
  };
}
