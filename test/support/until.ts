/** Waits for a condition with a deadline; the error says what was waited for, and what the processes said meanwhile. */
export async function until(
  what: string,
  timeoutMs: number,
  done: () => Promise<boolean>,
  detail: () => string = () => '',
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    if (await done()) return;
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}\n${detail()}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
