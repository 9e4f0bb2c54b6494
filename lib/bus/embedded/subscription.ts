/** A member of a consumer group on the embedded bus: beats, follows the sharing-out, runs a lease per partition. */
import type { DatabaseSync } from 'node:sqlite';
import { partitionKey } from '../assignment.ts';
import {
  type Committed,
  FencedError,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
} from '../bus.ts';
import { checkMetadata } from '../message-size.ts';
import { type Report, rateLimited } from '../reporter.ts';
import type { Catalog } from './catalog.ts';
import { write } from './file.ts';
import { Lease } from './lease.ts';
import { type Holding, Membership } from './membership.ts';
import { Offsets } from './offsets.ts';
import type { Poller } from './poller.ts';
import type { Reader } from './reader.ts';

/** How long `close` waits for handler calls that are under way. */
const closeWaitMs = 5_000;

export interface SubscriptionParts {
  /** For membership: a loss of power ends all members anyway, so it need not wait for the disk. */
  readonly membershipDatabase: DatabaseSync;
  /** For commits: on the disk when they resolve. */
  readonly offsetDatabase: DatabaseSync;
  readonly catalog: Catalog;
  readonly reader: Reader;
  readonly poller: Poller;
  readonly sessionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly lockTimeoutMs: number;
}

export class EmbeddedSubscription implements Subscription {
  readonly #options: SubscribeOptions;
  readonly #parts: SubscriptionParts;
  readonly #membership: Membership;
  readonly #offsets: Offsets;
  readonly #report: Report;
  readonly #leases = new Map<string, Lease>();
  /** Leases that were revoked while a call of theirs is under way. */
  readonly #ending = new Map<string, Promise<void>>();
  #generation = -1;
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> = Promise.resolve();
  #unlisten: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: SubscribeOptions, parts: SubscriptionParts) {
    this.#options = options;
    this.#parts = parts;
    this.#report = rateLimited(options.onError);
    this.#offsets = new Offsets(parts.offsetDatabase);
    this.#membership = new Membership(parts.membershipDatabase, parts.catalog, {
      group: options.group,
      topics: options.topics,
      sessionTimeoutMs: parts.sessionTimeoutMs,
    });
  }

  async join(): Promise<void> {
    await this.#write(() => this.#membership.beat());
    this.#unlisten = this.#parts.poller.listen(() => this.#look());
    this.#follow();
    this.#schedule();
  }

  async commit(at: TopicPartition, committed: Committed): Promise<void> {
    const lease = this.#leases.get(partitionKey(at));
    if (lease === undefined || this.#closing !== undefined) {
      throw new FencedError(
        `${at.topic}/${at.partition} is not held by this member of ${this.#options.group}`,
      );
    }
    await this.#commit(lease.holding, committed);
  }

  async #commit(holding: Holding, committed: Committed): Promise<void> {
    checkMetadata(committed.metadata);
    await write(this.#parts.offsetDatabase, this.#parts.lockTimeoutMs, () =>
      this.#offsets.commit(this.#options.group, this.#membership.id, holding, committed),
    );
  }

  close(): Promise<void> {
    this.#closing ??= this.#leave();
    return this.#closing;
  }

  async #leave(): Promise<void> {
    clearTimeout(this.#timer);
    this.#unlisten?.();
    await this.#beating;
    const ended = [...this.#leases.values()].map((lease) => lease.revoke());
    this.#leases.clear();
    await this.#write(() => this.#membership.leave());
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, closeWaitMs);
    await Promise.race([Promise.all([...ended, ...this.#ending.values()]), late]);
    clearTimeout(timer);
  }

  #schedule(): void {
    if (this.#closing !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#beating = this.#beat();
      void this.#beating.then(() => this.#schedule());
    }, this.#parts.heartbeatIntervalMs);
  }

  async #beat(): Promise<void> {
    try {
      await this.#write(() => this.#membership.beat());
      if (this.#closing === undefined) this.#follow();
    } catch (error) {
      this.#report(error);
    }
  }

  #look(): void {
    try {
      if (this.#membership.generation() !== this.#generation) this.#follow();
      for (const lease of this.#leases.values()) lease.notify();
    } catch (error) {
      this.#report(error);
    }
  }

  /** Brings the leases in line with what the file says this member holds. */
  #follow(): void {
    const generation = this.#membership.generation();
    if (generation === this.#generation) return;
    this.#generation = generation;
    const holdings = new Map(
      this.#membership.holdings().map((holding) => [partitionKey(holding.at), holding]),
    );
    for (const [key, lease] of this.#leases) {
      if (holdings.get(key)?.since === lease.holding.since) continue;
      this.#leases.delete(key);
      const ended = lease.revoke().finally(() => {
        if (this.#ending.get(key) === ended) this.#ending.delete(key);
      });
      this.#ending.set(key, ended);
    }
    for (const [key, holding] of holdings) {
      if (!this.#leases.has(key)) this.#leases.set(key, this.#begin(key, holding));
    }
  }

  #begin(key: string, holding: Holding): Lease {
    const { group, handler, maxBytesPerCall } = this.#options;
    return new Lease({
      holding,
      group,
      handler,
      maxBytesPerCall,
      reader: this.#parts.reader,
      offsets: this.#offsets,
      report: this.#report,
      commit: (held, committed) => this.#commit(held, committed),
      after: this.#ending.get(key) ?? Promise.resolve(),
    });
  }

  #write(body: () => void): Promise<void> {
    return write(this.#parts.membershipDatabase, this.#parts.lockTimeoutMs, body);
  }
}
