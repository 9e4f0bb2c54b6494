/** What the conformance suites share: a handler that keeps a record, and waiting for conditions. */
import { randomUUID } from 'node:crypto';
import type {
  Bus,
  BusMessage,
  Committed,
  OutgoingMessage,
  PartitionHandler,
  PartitionLease,
  Subscription,
  TopicPartition,
  TopicSpec,
} from './bus.ts';

/** A bus for one test. */
export interface BusUnderTest {
  readonly bus: Bus;
  /** Another connection to the same log, as another process would have it. */
  open(): Promise<Bus>;
  /** Closes all of them and removes what they kept. */
  close(): Promise<void>;
}

const deadlineMs = 20_000;
const lookEveryMs = 5;

/** Waits until `condition` holds. @throws {Error} naming `what` when it does not in time. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain: ${what}`);
    await new Promise<void>((resolve) => setTimeout(resolve, lookEveryMs));
  }
}

/** Makes a topic that no other test uses. */
export async function makeTopic(bus: Bus, settings: Partial<TopicSpec> = {}): Promise<string> {
  const name = `topic-${randomUUID()}`;
  await bus.ensureTopics([
    {
      name,
      partitionCount: 4,
      compacted: false,
      retentionMs: 3_600_000,
      maxMessageBytes: 1024 * 1024,
      ...settings,
    },
  ]);
  return name;
}

export function makeGroup(): string {
  return `group-${randomUUID()}`;
}

export function text(message: BusMessage): string | null {
  return message.value === null ? null : Buffer.from(message.value).toString('utf8');
}

export function outgoing(key: string | null, value: string | null): OutgoingMessage {
  return { key, value: value === null ? null : Buffer.from(value, 'utf8') };
}

/** A key that belongs to `partition`, found with `partitionOf`. */
export function keyFor(partition: number, partitionOf: (key: string) => number): string {
  for (let number = 0; ; number++) if (partitionOf(`key-${number}`) === partition) return `key-${number}`;
}

/** A group member that keeps a record of everything it was told. */
export class RecordingMember implements PartitionHandler {
  readonly received: { partition: number; message: BusMessage }[] = [];
  readonly assignments: { partition: number; committed: Committed | null; earliest: number }[] = [];
  readonly revocations: number[] = [];
  readonly held = new Set<number>();
  /** Of each partition, what it was held by, in order. */
  readonly leases = new Map<number, PartitionLease[]>();
  readonly errors: Error[] = [];
  overlapCount = 0;
  largestCallBytes = 0;
  /** Where to begin; by default where the group stood. */
  startAt: (at: TopicPartition, committed: Committed | null, earliest: number) => number = (
    _,
    committed,
    earliest,
  ) => committed?.offset ?? earliest;
  /** Awaited in each call. */
  hold: (partition: number, messages: readonly BusMessage[]) => Promise<void> = async () => undefined;
  readonly #busy = new Set<number>();
  subscription: Subscription | undefined;

  async join(bus: Bus, group: string, topic: string, maxBytesPerCall = 1024 * 1024): Promise<this> {
    this.subscription = await bus.subscribe({
      group,
      topics: [topic],
      maxBytesPerCall,
      handler: this,
      onError: (error) => this.errors.push(error),
    });
    return this;
  }

  async assigned(
    at: TopicPartition,
    committed: Committed | null,
    earliest: number,
    lease: PartitionLease,
  ): Promise<number> {
    this.leases.set(at.partition, [...(this.leases.get(at.partition) ?? []), lease]);
    this.assignments.push({ partition: at.partition, committed, earliest });
    this.held.add(at.partition);
    return this.startAt(at, committed, earliest);
  }

  async messages(at: TopicPartition, messages: readonly BusMessage[]): Promise<void> {
    if (this.#busy.has(at.partition)) this.overlapCount++;
    this.#busy.add(at.partition);
    try {
      const bytes = messages.reduce((sum, message) => sum + (message.value?.byteLength ?? 0), 0);
      if (messages.length > 1) this.largestCallBytes = Math.max(this.largestCallBytes, bytes);
      await this.hold(at.partition, messages);
      for (const message of messages) this.received.push({ partition: at.partition, message });
    } finally {
      this.#busy.delete(at.partition);
    }
  }

  revoked(at: TopicPartition): void {
    this.revocations.push(at.partition);
    this.held.delete(at.partition);
  }

  async commit(topic: string, partition: number, offset: number, metadata = ''): Promise<void> {
    if (this.subscription === undefined) throw new Error('the member has not joined');
    await this.subscription.commit({ topic, partition }, { offset, metadata });
  }

  /** The values received, in order. */
  texts(): (string | null)[] {
    return this.received.map(({ message }) => text(message));
  }

  async leave(): Promise<void> {
    await this.subscription?.close();
  }
}
