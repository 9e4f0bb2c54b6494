/** Lines of a byte stream, with a limit of bytes for all of them. */

export interface LineBudget {
  /** Bytes that may still come. */
  left: number;
}

/** Yields lines without their end, as many at once as came together; ends early, with `budget.left` below 0, when the bytes run out. */
export async function* linesWithin(
  chunks: AsyncIterable<Uint8Array>,
  budget: LineBudget,
): AsyncGenerator<string[], void, undefined> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks) {
    const room = budget.left;
    budget.left -= chunk.byteLength;
    const taken = chunk.byteLength > room ? chunk.subarray(0, room) : chunk;
    const lines = (rest + decoder.decode(taken, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    if (lines.length > 0) yield lines;
    // The line that the limit cuts is not whole: it is left out.
    if (budget.left < 0) return;
  }
  if (rest !== '') yield [rest];
}
