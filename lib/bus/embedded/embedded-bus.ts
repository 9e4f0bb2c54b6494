/** The bus for one machine: a durable log in one SQLite file that several processes share. */
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type {
  Bus,
  Committed,
  OutgoingMessage,
  SubscribeOptions,
  Subscription,
  TailOptions,
  TopicSpec,
} from '../bus.ts';
import type { BusConfig } from '../config.ts';
import { type Report, rateLimited } from '../reporter.ts';
import { Appender } from './appender.ts';
import { Catalog, createTopics } from './catalog.ts';
import { openFile, write } from './file.ts';
import { Offsets } from './offsets.ts';
import { Poller } from './poller.ts';
import { Reader } from './reader.ts';
import { EmbeddedSubscription } from './subscription.ts';
import { startTail } from './tail.ts';
import { runUpkeep } from './upkeep.ts';

/** The file in the data folder. */
export const busFileName = 'bus.sqlite';

export interface EmbeddedBusOptions {
  readonly dataDir: string;
  /** Told about failures of the upkeep, which is tried again. */
  readonly onError: (error: Error) => void;
}

export class EmbeddedBus implements Bus {
  readonly kind = 'embedded';
  readonly #config: BusConfig;
  readonly #report: Report;
  /** Reads; writes what need not wait for the disk; writes what must; the same, within the size limit. */
  readonly #databases: {
    reader: DatabaseSync;
    relaxed: DatabaseSync;
    durable: DatabaseSync;
    limited: DatabaseSync;
  };
  readonly #catalog: Catalog;
  readonly #reader: Reader;
  readonly #offsets: Offsets;
  readonly #poller: Poller;
  readonly #appender: Appender;
  readonly #parts = new Set<{ close(): Promise<void> }>();
  #upkeepTimer: NodeJS.Timeout | undefined;
  #upkeep: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** @throws {Error} when the file cannot be opened. */
  constructor(config: BusConfig, options: EmbeddedBusOptions) {
    const path = join(options.dataDir, busFileName);
    this.#config = config;
    this.#report = rateLimited(options.onError);
    this.#databases = {
      durable: openFile(path, { durability: 'full' }),
      limited: openFile(path, { durability: 'full', maxFileBytes: config.maxFileBytes }),
      relaxed: openFile(path, { durability: 'normal' }),
      reader: openFile(path, { durability: 'normal' }),
    };
    this.#catalog = new Catalog(this.#databases.reader);
    this.#reader = new Reader(this.#databases.reader);
    this.#offsets = new Offsets(this.#databases.reader);
    this.#poller = new Poller(this.#databases.reader, config);
    this.#appender = new Appender(this.#databases.limited, this.#catalog, config, () => this.#poller.nudge());
    this.#scheduleUpkeep();
  }

  async ensureTopics(topics: readonly TopicSpec[]): Promise<void> {
    await write(this.#databases.durable, this.#config.appendTimeoutMs, () =>
      createTopics(this.#databases.durable, topics),
    );
    for (const topic of topics) this.#catalog.get(topic.name, true);
  }

  append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    return this.#appender.append(topic, messages);
  }

  async subscribe(options: SubscribeOptions): Promise<Subscription> {
    this.#assertOpen();
    const subscription = new EmbeddedSubscription(options, {
      membershipDatabase: this.#databases.relaxed,
      offsetDatabase: this.#databases.durable,
      catalog: this.#catalog,
      reader: this.#reader,
      poller: this.#poller,
      sessionTimeoutMs: this.#config.sessionTimeoutMs,
      heartbeatIntervalMs: Math.min(this.#config.heartbeatIntervalMs, this.#config.sessionTimeoutMs / 3),
      lockTimeoutMs: this.#config.appendTimeoutMs,
    });
    this.#parts.add(subscription);
    await subscription.join();
    return subscription;
  }

  async tail(options: TailOptions): Promise<{ close(): Promise<void> }> {
    this.#assertOpen();
    const tail = startTail(options, { catalog: this.#catalog, reader: this.#reader, poller: this.#poller });
    this.#parts.add(tail);
    return tail;
  }

  async positions(
    topic: string,
    group: string,
  ): Promise<{ partition: number; earliest: number; next: number; committed: Committed | null }[]> {
    this.#assertOpen();
    return this.#catalog.get(topic, true).partitionIds.map((partitionId, partition) => ({
      partition,
      ...this.#reader.bounds(partitionId),
      committed: this.#offsets.committed(group, partitionId),
    }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#upkeepTimer);
    await Promise.all([...this.#parts].map((part) => part.close()));
    await this.#appender.close();
    await this.#upkeep;
    for (const database of Object.values(this.#databases)) database.close();
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new Error('the bus is closed');
  }

  #scheduleUpkeep(): void {
    if (this.#closing !== undefined) return;
    this.#upkeepTimer = setTimeout(() => {
      const { durable } = this.#databases;
      this.#upkeep = runUpkeep(durable, this.#config, () => this.#closing !== undefined)
        .then(() => undefined, this.#report)
        .then(() => this.#scheduleUpkeep());
    }, this.#config.upkeepIntervalMs);
    // A process that only appends may end without closing the bus.
    this.#upkeepTimer.unref();
  }
}
