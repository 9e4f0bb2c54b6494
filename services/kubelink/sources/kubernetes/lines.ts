/** Cuts a stream of bytes into lines. */

export class LineSplitter {
  readonly #maxLineBytes: number;
  #rest: Buffer[] = [];
  #restBytes = 0;

  constructor(maxLineBytes: number) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** The lines that are complete with this chunk, without empty ones. @throws {Error} for one that is too long. */
  *push(chunk: Buffer): Generator<string> {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const end = chunk.subarray(from, at);
      from = at + 1;
      const line = this.#restBytes === 0 ? end : Buffer.concat([...this.#rest, end]);
      this.#rest = [];
      this.#restBytes = 0;
      this.#check(line.length);
      if (line.length > 0) yield line.toString('utf8');
    }
    if (from === chunk.length) return;
    this.#restBytes += chunk.length - from;
    this.#check(this.#restBytes);
    this.#rest.push(chunk.subarray(from));
  }

  #check(byteCount: number): void {
    if (byteCount > this.#maxLineBytes) {
      throw new Error(`a line of more than ${this.#maxLineBytes} bytes, which is no Kubernetes object`);
    }
  }
}
