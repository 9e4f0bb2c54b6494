/** Cuts a stream of chunks into lines. */

/** Longest line that is waited for, characters: more is not what we read. */
const maxLineLength = 64 * 1024;

/** Returns what takes chunks; `onLine` gets each whole line without its end. */
export function lineSplitter(onLine: (line: string) => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    const text = rest + chunk;
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      onLine(text.slice(from, end));
      from = end + 1;
    }
    rest = text.length - from > maxLineLength ? '' : text.slice(from);
  };
}
