/** A line on a terminal that says what is being waited for, from the third second on. */
const quietMs = 2_000;

export async function whileWaiting<T>(what: string, work: Promise<T>): Promise<T> {
  const { stderr } = process;
  if (stderr.isTTY !== true) return work;
  const begin = Date.now();
  const timer = setInterval(() => {
    const elapsed = Date.now() - begin;
    if (elapsed >= quietMs) stderr.write(`\r${what} ... ${Math.floor(elapsed / 1000)} s`);
  }, 500);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    if (Date.now() - begin >= quietMs) stderr.write(`\r${' '.repeat(what.length + 12)}\r`);
  }
}
