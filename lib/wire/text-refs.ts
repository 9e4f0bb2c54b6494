/** Texts of flow batches by number, without reading them. */

/** Texts of the batches in a block, left undecoded in their messages until somebody asks. */
export class TextRefs {
  #messages: Uint8Array[] = [];
  #messageOf = new Uint32Array(1024);
  #from = new Uint32Array(1024);
  #to = new Uint32Array(1024);
  /** References in use; 0 is the empty text. */
  count = 1;

  /** Drops all texts (and with them the messages that held them). */
  clear(): void {
    this.#messages = [];
    this.count = 1;
  }

  addMessage(message: Uint8Array): void {
    this.#messages.push(message);
  }

  /** Adds the text at `from`..`to` of the newest message. */
  add(from: number, to: number): void {
    const at = this.count++;
    if (at === this.#from.length) {
      this.#messageOf = grown(this.#messageOf);
      this.#from = grown(this.#from);
      this.#to = grown(this.#to);
    }
    this.#messageOf[at] = this.#messages.length - 1;
    this.#from[at] = from;
    this.#to[at] = to;
  }

  /** Forgets all references from `count` on, and their message. */
  rollback(count: number): void {
    this.#messages.pop();
    this.count = count;
  }

  text(reference: number): string {
    if (reference === 0) return '';
    const message = this.#messages[this.#messageOf[reference] ?? 0];
    return message === undefined ? '' : utf8(message, this.#from[reference] ?? 0, this.#to[reference] ?? 0);
  }
}

function grown(words: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(words.length * 2);
  larger.set(words);
  return larger;
}

/** The text in bytes `from`..`to`. */
export function utf8(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8', from, to);
}
