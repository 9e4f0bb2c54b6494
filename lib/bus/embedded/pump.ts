/** Carries the messages of one partition to a handler, one call at a time. */
import { setTimeout as delay } from 'node:timers/promises';
import type { BusMessage } from '../bus.ts';
import { isBusy } from './file.ts';
import type { Reader } from './reader.ts';

const busyRetryMs = 5;

export interface PumpOptions {
  readonly reader: Reader;
  readonly partitionId: number;
  readonly offset: number;
  readonly maxBytesPerCall: number;
  /** May hold back more by its promise. A rejection ends the pump, with `onFailed`. */
  readonly deliver: (messages: readonly BusMessage[]) => Promise<void> | void;
  /** Everything there was has been delivered; `next` is the offset the pump waits for. */
  readonly onIdle?: (next: number) => void;
  readonly onFailed: (error: unknown) => void;
}

export class Pump {
  readonly #options: PumpOptions;
  #next: number;
  #stopped = false;
  #news = false;
  #wake: (() => void) | undefined;
  readonly #done: Promise<void>;

  constructor(options: PumpOptions) {
    this.#options = options;
    this.#next = options.offset;
    this.#done = this.#run();
  }

  /** The next offset to be delivered. */
  get next(): number {
    return this.#next;
  }

  /** There may be new messages. */
  notify(): void {
    this.#news = true;
    this.#wake?.();
  }

  /** No call begins after this; resolves when a running one has ended. */
  stop(): Promise<void> {
    this.#stopped = true;
    this.#wake?.();
    return this.#done;
  }

  async #run(): Promise<void> {
    const { deliver, onIdle, onFailed } = this.#options;
    // The caller finishes its own bookkeeping before the first message comes.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (!this.#stopped) {
      try {
        this.#news = false;
        const messages = this.#read();
        if (messages === undefined) {
          await delay(busyRetryMs);
          continue;
        }
        const last = messages.at(-1);
        if (last !== undefined) {
          await deliver(messages);
          this.#next = last.offset + 1;
          // Reading is synchronous: let timers, sockets and the other partitions have their turn.
          await new Promise<void>((resolve) => setImmediate(resolve));
          continue;
        }
        onIdle?.(this.#next);
      } catch (error) {
        if (!this.#stopped) onFailed(error);
        return;
      }
      await this.#waitForNews();
    }
  }

  /** Undefined while another process holds the file to itself (recovery, last checkpoint). */
  #read(): BusMessage[] | undefined {
    const { reader, partitionId, maxBytesPerCall } = this.#options;
    try {
      return reader.read(partitionId, this.#next, maxBytesPerCall);
    } catch (error) {
      if (isBusy(error)) return undefined;
      throw error;
    }
  }

  async #waitForNews(): Promise<void> {
    if (this.#news || this.#stopped) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = undefined;
  }
}
