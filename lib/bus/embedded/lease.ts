/** One partition while a group member holds it: asks where to begin, then carries messages until it is revoked. */
import { Backoff } from '../backoff.ts';
import { type Committed, FencedError, type PartitionHandler } from '../bus.ts';
import type { Report } from '../reporter.ts';
import type { Holding } from './membership.ts';
import type { Offsets } from './offsets.ts';
import { Pump } from './pump.ts';
import type { Reader } from './reader.ts';

export interface LeaseOptions {
  readonly holding: Holding;
  readonly group: string;
  readonly handler: PartitionHandler;
  readonly maxBytesPerCall: number;
  readonly reader: Reader;
  readonly offsets: Offsets;
  readonly report: Report;
  readonly commit: (holding: Holding, committed: Committed) => Promise<void>;
  /** Resolves when an earlier lease of the same partition in this process has ended its last call. */
  readonly after: Promise<void>;
}

export class Lease {
  readonly holding: Holding;
  readonly #options: LeaseOptions;
  readonly #revoked = new AbortController();
  readonly #done: Promise<void>;
  #pump: Pump | undefined;
  #told = false;
  /** Aborted when what was assigned last is revoked. */
  #assigned: AbortController | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.holding = options.holding;
    this.#done = this.#run();
  }

  notify(): void {
    this.#pump?.notify();
  }

  /** Tells the handler at once; resolves when its last call has ended. */
  revoke(): Promise<void> {
    if (!this.#revoked.signal.aborted) {
      this.#revoked.abort();
      this.#tellRevoked();
    }
    return this.#done;
  }

  #tellRevoked(): void {
    if (!this.#told) return;
    this.#told = false;
    this.#assigned?.abort();
    try {
      this.#options.handler.revoked(this.holding.at);
    } catch (error) {
      this.#options.report(error);
    }
  }

  async #run(): Promise<void> {
    await this.#options.after;
    const { signal } = this.#revoked;
    const backoff = new Backoff();
    // A handler that fails loses the partition and gets it anew, from what the group committed.
    while (!signal.aborted) {
      try {
        const offset = await this.#assign();
        if (!signal.aborted) await this.#carry(offset, backoff);
      } catch (error) {
        if (signal.aborted) return;
        this.#options.report(error);
        this.#tellRevoked();
        await backoff.wait(signal);
      }
    }
  }

  #assign(): Promise<number> {
    const { group, handler, offsets, reader } = this.#options;
    const { at, partitionId } = this.holding;
    const committed = offsets.committed(group, partitionId);
    const { earliest } = reader.bounds(partitionId);
    this.#told = true;
    const ended = new AbortController();
    this.#assigned = ended;
    const commit = async (committed: Committed): Promise<void> => {
      if (ended.signal.aborted)
        throw new FencedError(`this holding of ${at.topic}/${at.partition} has ended`);
      await this.#options.commit(this.holding, committed);
    };
    return handler.assigned(at, committed, earliest, { commit });
  }

  async #carry(offset: number, backoff: Backoff): Promise<void> {
    const { handler, maxBytesPerCall, reader } = this.#options;
    const { signal } = this.#revoked;
    const { promise: failed, resolve: fail } = Promise.withResolvers<unknown>();
    const pump = new Pump({
      reader,
      partitionId: this.holding.partitionId,
      offset,
      maxBytesPerCall,
      deliver: async (messages) => {
        if (signal.aborted) return;
        await handler.messages(this.holding.at, messages);
        backoff.reset();
      },
      onFailed: fail,
    });
    this.#pump = pump;
    const revoked = new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    const failure = await Promise.race([failed.then((error) => ({ error })), revoked]);
    this.#pump = undefined;
    await pump.stop();
    if (failure !== undefined) throw failure.error;
  }
}
