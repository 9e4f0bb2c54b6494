/** Cuts a byte stream into lines of bounded length. */
import { StringDecoder } from 'node:string_decoder';

/** Longer lines are handed over in pieces of this many characters. */
export const maxLineLength = 64 * 1024;

export interface LineSplitter {
  push(chunk: Uint8Array): void;
  /** Hands over what came after the last line end. */
  end(): void;
}

export function splitLines(onLine: (line: string) => void): LineSplitter {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  const take = (text: string): void => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      onLine(line);
    }
    while (rest.length > maxLineLength) {
      onLine(rest.slice(0, maxLineLength));
      rest = rest.slice(maxLineLength);
    }
  };
  return {
    push: (chunk) => take(decoder.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))),
    end() {
      take(decoder.end());
      if (rest !== '') {
        onLine(rest);
        rest = '';
      }
    },
  };
}
