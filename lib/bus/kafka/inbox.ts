/** Messages of one partition between the fetcher and the handler: bounded, in order, one handler call at a time. */
import type { BusMessage } from '../bus.ts';
import { messageBytes } from '../message-size.ts';

export interface InboxOptions {
  readonly maxBytesPerCall: number;
  readonly deliver: (messages: readonly BusMessage[]) => Promise<void> | void;
  /** There is room again, or everything has been delivered. */
  readonly onRoom: () => void;
  /** A call was rejected: nothing more is delivered. */
  readonly onFailed: (error: unknown) => void;
}

export class Inbox {
  readonly #options: InboxOptions;
  #messages: BusMessage[] = [];
  #bytes = 0;
  #stopped = false;
  #running: Promise<void> | undefined;

  constructor(options: InboxOptions) {
    this.#options = options;
  }

  hasRoom(): boolean {
    return !this.#stopped && this.#bytes < this.#options.maxBytesPerCall;
  }

  isEmpty(): boolean {
    return this.#messages.length === 0 && this.#running === undefined;
  }

  accept(messages: readonly BusMessage[]): void {
    if (this.#stopped) return;
    for (const message of messages) {
      this.#messages.push(message);
      this.#bytes += messageBytes(message);
    }
    this.#running ??= this.#run();
  }

  /** No call begins after this; resolves when a running one has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#stopped && this.#messages.length > 0) {
        const messages = this.#take();
        this.#options.onRoom();
        await this.#options.deliver(messages);
      }
    } catch (error) {
      if (!this.#stopped) this.#options.onFailed(error);
      this.#stopped = true;
    }
    this.#running = undefined;
    this.#options.onRoom();
  }

  #take(): BusMessage[] {
    let count = 0;
    let bytes = 0;
    for (const message of this.#messages) {
      const size = messageBytes(message);
      if (count > 0 && bytes + size > this.#options.maxBytesPerCall) break;
      bytes += size;
      count++;
    }
    this.#bytes -= bytes;
    return this.#messages.splice(0, count);
  }
}
