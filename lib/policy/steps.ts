/** Long work as generators that yield between small steps: run at once, or a slice at a time. */

/** Runs steps to their end. */
export function finish<T>(steps: Generator<void, T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** Runs steps to their end, and lets the event loop turn after each `sliceMs` of work. */
export async function finishInSlices<T>(steps: Generator<void, T>, sliceMs: number): Promise<T> {
  let begin = performance.now();
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
    if (performance.now() - begin < sliceMs) continue;
    await new Promise((resolve) => setImmediate(resolve));
    begin = performance.now();
  }
}
