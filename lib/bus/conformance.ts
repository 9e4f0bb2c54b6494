/** What every bus must do: one suite, run over each implementation. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Bus, type BusMessage, FencedError, MessageTooLargeError } from './bus.ts';
import {
  type BusUnderTest,
  keyFor,
  makeGroup,
  makeTopic,
  outgoing,
  RecordingMember,
  text,
  until,
} from './conformance-support.ts';
import { maxMetadataBytes } from './message-size.ts';
import { partitionOf } from './partitioner.ts';

const partitionCount = 4;
const keyOf = (partition: number): string => keyFor(partition, (key) => partitionOf(key, partitionCount));

/** Runs the suite; `makeBus` is called once, each test has topics and groups of its own. */
export function conformance(name: string, makeBus: () => Promise<BusUnderTest>): void {
  describe(name, () => {
    let made: BusUnderTest;
    before(async () => {
      made = await makeBus();
    });
    after(() => made.close());
    const parts: Parts = { bus: () => made.bus, open: () => made.open() };
    describe('messages', () => messageTests(parts));
    describe('groups', () => groupTests(parts));
    describe('offsets', () => offsetTests(parts));
    describe('back-pressure', () => backPressureTests(parts));
    describe('tail', () => tailTests(parts));
  });
}

interface Parts {
  bus(): Bus;
  open(): Promise<Bus>;
}

function messageTests({ bus, open }: Parts): void {
  test('messages of one key arrive in the order they were appended', async () => {
    const topic = await makeTopic(bus());
    const keys = Array.from({ length: 10 }, (_, number) => `agent-${number}`);
    const appends: Promise<void>[] = [];
    for (let round = 0; round < 50; round++) {
      for (const key of keys) appends.push(bus().append(topic, [outgoing(key, `${round}`)]));
    }
    await Promise.all(appends);
    const member = await new RecordingMember().join(bus(), makeGroup(), topic);
    await until('all messages', () => member.received.length >= 500);
    await member.leave();
    for (const key of keys) {
      const rounds = member.received
        .filter(({ message }) => message.key === key)
        .map(({ message }) => text(message));
      assert.deepEqual(
        rounds,
        Array.from({ length: 50 }, (_, round) => `${round}`),
      );
    }
  });

  test('a key belongs to the partition that the default partitioner of Kafka gives it', async () => {
    const topic = await makeTopic(bus());
    const keys = ['a', 'agent-1', 'agent-22', 'agent-333', 'kärnten', '', 'policy'];
    await bus().append(
      topic,
      keys.map((key) => outgoing(key, key)),
    );
    const member = await new RecordingMember().join(bus(), makeGroup(), topic);
    await until('all messages', () => member.received.length >= keys.length);
    await member.leave();
    for (const { partition, message } of member.received) {
      assert.equal(partition, partitionOf(message.key ?? 'none', partitionCount), `key ${message.key}`);
    }
  });

  test('keys, values, headers and times arrive as they were sent', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    const beforeMs = Date.now();
    const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    await bus().append(topic, [
      { key: 'k', value: bytes, headers: { reason: 'größer', empty: '' } },
      { key: null, value: new Uint8Array(0) },
      { key: 'gone', value: null },
    ]);
    const member = await new RecordingMember().join(bus(), makeGroup(), topic);
    await until('all messages', () => member.received.length >= 3);
    await member.leave();
    const [first, second, third] = member.received.map(({ message }) => message);
    assert.ok(first && second && third);
    assert.deepEqual(Uint8Array.from(first.value ?? []), bytes);
    assert.deepEqual({ ...first.headers }, { reason: 'größer', empty: '' });
    assert.ok(first.timestampMs >= beforeMs - 1 && first.timestampMs <= Date.now() + 1);
    assert.equal(second.key, null);
    assert.equal(second.value?.byteLength, 0);
    assert.deepEqual({ ...second.headers }, {});
    assert.equal(third.value, null);
    assert.deepEqual([first.offset, second.offset, third.offset], [0, 1, 2]);
  });

  test('messages without a key are spread over all partitions', async () => {
    const topic = await makeTopic(bus());
    for (let number = 0; number < 40; number++) await bus().append(topic, [outgoing(null, `${number}`)]);
    const positions = await bus().positions(topic, makeGroup());
    assert.deepEqual(
      positions.map(({ next }) => next),
      [10, 10, 10, 10],
    );
  });

  test('a message at the limit is taken, one over it is refused before anything is written', async () => {
    const maxMessageBytes = 3 * 1024 * 1024;
    const topic = await makeTopic(bus(), { partitionCount: 1, maxMessageBytes });
    // Random bytes: no compression makes them smaller.
    const largest = crypto.getRandomValues(new Uint8Array(65_536));
    const value = new Uint8Array(maxMessageBytes - 1);
    for (let at = 0; at < value.length; at += largest.length)
      value.set(largest.subarray(0, value.length - at), at);
    await bus().append(topic, [{ key: 'k', value }]);
    await assert.rejects(
      bus().append(topic, [outgoing('k', 'small'), { key: 'k', value: new Uint8Array(maxMessageBytes) }]),
      MessageTooLargeError,
    );
    assert.equal((await bus().positions(topic, makeGroup()))[0]?.next, 1);
    const member = await new RecordingMember().join(bus(), makeGroup(), topic, 64 * 1024);
    await until('the large message', () => member.received.length === 1);
    await member.leave();
    assert.ok(Buffer.from(member.received[0]?.message.value ?? []).equals(value));
  });

  test('one append of many large messages is written whole', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    const value = crypto.getRandomValues(new Uint8Array(60_000));
    await bus().append(
      topic,
      Array.from({ length: 100 }, (_, number) => ({ key: `${number}`, value })),
    );
    const member = await new RecordingMember().join(bus(), makeGroup(), topic);
    await until('all messages', () => member.received.length >= 100);
    await member.leave();
    assert.deepEqual(
      member.received.map(({ message }) => message.key),
      Array.from({ length: 100 }, (_, number) => `${number}`),
    );
  });

  test('an append to a topic that does not exist is refused', async () => {
    await assert.rejects(bus().append('no-such-topic', [outgoing('k', 'v')]));
  });

  test('what was appended is there for whoever opens the bus later', async () => {
    const topic = await makeTopic(bus());
    const writer = await open();
    await writer.append(topic, [outgoing('k', 'kept')]);
    await writer.close();
    await assert.rejects(writer.append(topic, [outgoing('k', 'late')]), /closed/);
    const reader = await open();
    const member = await new RecordingMember().join(reader, makeGroup(), topic);
    await until('the message', () => member.received.length > 0);
    await reader.close();
    assert.deepEqual(member.texts(), ['kept']);
  });

  test('topics that exist are left as they are, but partitions may be added, and groups get them', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 2 });
    await bus().append(topic, [outgoing('k', 'kept')]);
    const member = await new RecordingMember().join(bus(), makeGroup(), topic);
    await until('both partitions', () => member.held.size === 2);
    const spec = { name: topic, compacted: false, retentionMs: 3_600_000, maxMessageBytes: 1024 };
    await bus().ensureTopics([{ ...spec, partitionCount: 1 }]);
    assert.equal((await bus().positions(topic, 'g')).length, 2);
    await bus().ensureTopics([{ ...spec, partitionCount: 3 }]);
    await until('three partitions', () => member.held.size === 3);
    await member.leave();
    assert.equal((await bus().positions(topic, 'g')).length, 3);
  });
}

function groupTests({ bus, open }: Parts): void {
  test('members share the partitions, a newcomer takes only its share, and a leaver gives it back at once', async () => {
    const topic = await makeTopic(bus());
    const group = makeGroup();
    const first = await new RecordingMember().join(bus(), group, topic);
    await until('the first has all', () => first.held.size === partitionCount);
    const second = await new RecordingMember().join(await open(), group, topic);
    await until('each has two', () => first.held.size === 2 && second.held.size === 2);
    assert.deepEqual([...first.held, ...second.held].sort(), [0, 1, 2, 3]);
    assert.equal(first.assignments.length, partitionCount, 'what stays is not assigned again');
    assert.equal(first.revocations.length, 2);

    await second.leave();
    await until('the first has all again', () => first.held.size === partitionCount);
    for (let partition = 0; partition < partitionCount; partition++) {
      await bus().append(topic, [outgoing(keyOf(partition), `${partition}`)]);
    }
    await until('messages of all partitions', () => first.received.length >= partitionCount);
    await first.leave();
    assert.deepEqual(first.texts().sort(), ['0', '1', '2', '3']);
    assert.equal(second.received.length, 0);
  });

  test('two groups each get every message', async () => {
    const topic = await makeTopic(bus());
    const members = [new RecordingMember(), new RecordingMember()];
    for (const member of members) await member.join(bus(), makeGroup(), topic);
    for (let number = 0; number < 20; number++)
      await bus().append(topic, [outgoing(`${number}`, `${number}`)]);
    for (const member of members) await until('all messages', () => member.received.length >= 20);
    for (const member of members) await member.leave();
    for (const member of members) assert.equal(new Set(member.texts()).size, 20);
  });

  test('a member that has lost a partition cannot commit for it, the new holder can', async () => {
    const topic = await makeTopic(bus());
    const group = makeGroup();
    const first = await new RecordingMember().join(bus(), group, topic);
    await until('the first has all', () => first.held.size === partitionCount);
    const second = await new RecordingMember().join(await open(), group, topic);
    await until('each has two', () => first.held.size === 2 && second.held.size === 2);
    for (const partition of second.held) {
      await assert.rejects(first.commit(topic, partition, 7), FencedError);
      await second.commit(topic, partition, 3, 'mine');
    }
    for (const partition of first.held) {
      await first.commit(topic, partition, 5);
      await assert.rejects(second.commit(topic, partition, 6), FencedError);
    }
    const positions = await bus().positions(topic, group);
    for (const { partition, committed } of positions) {
      assert.equal(committed?.offset, first.held.has(partition) ? 5 : 3);
    }
    await first.leave();
    await second.leave();
    await assert.rejects(first.commit(topic, 0, 9), FencedError);
  });

  test('a partition that was lost and came back does not take commits of its earlier holding', async () => {
    const topic = await makeTopic(bus());
    const group = makeGroup();
    const first = await new RecordingMember().join(bus(), group, topic);
    await until('the first has all', () => first.held.size === partitionCount);
    const second = await new RecordingMember().join(await open(), group, topic);
    await until('each has two', () => first.held.size === 2 && second.held.size === 2);
    await second.leave();
    await until('the first has all again', () => first.held.size === partitionCount);
    for (const partition of new Set(first.revocations)) {
      const [earlier, present] = first.leases.get(partition) ?? [];
      assert.ok(earlier && present);
      await present.commit({ offset: 2, metadata: 'present' });
      await assert.rejects(earlier.commit({ offset: 1, metadata: 'earlier' }), FencedError);
      const { committed } = (await bus().positions(topic, group))[partition] ?? {};
      assert.deepEqual(committed, { offset: 2, metadata: 'present' });
    }
    await first.leave();
  });

  test('a handler that fails gets its partition anew, from what was committed', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    await bus().append(topic, [outgoing('k', 'a'), outgoing('k', 'b'), outgoing('k', 'c')]);
    const member = new RecordingMember();
    let failures = 0;
    member.hold = async () => {
      if (failures++ === 0) throw new Error('once');
    };
    await member.join(bus(), makeGroup(), topic);
    await until('all messages', () => member.received.length >= 3);
    await member.leave();
    assert.deepEqual(member.texts(), ['a', 'b', 'c']);
    assert.equal(member.assignments.length, 2);
    assert.equal(member.errors[0]?.message, 'once');
  });
}

function offsetTests({ bus, open }: Parts): void {
  test('a commit and its metadata come back at the next assignment', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    const group = makeGroup();
    await bus().append(topic, [outgoing('k', 'a'), outgoing('k', 'b'), outgoing('k', 'c')]);
    const first = await new RecordingMember().join(bus(), group, topic);
    await until('all messages', () => first.received.length >= 3);
    assert.deepEqual(first.assignments, [{ partition: 0, committed: null, earliest: 0 }]);
    await first.commit(topic, 0, 1, '');
    const plan = JSON.stringify({ from: 1, to: 3, text: 'Größe' });
    await first.commit(topic, 0, 1, plan);
    assert.deepEqual((await bus().positions(topic, group))[0], {
      partition: 0,
      earliest: 0,
      next: 3,
      committed: { offset: 1, metadata: plan },
    });
    await first.leave();

    const second = await new RecordingMember().join(await open(), group, topic);
    await until('the rest', () => second.received.length >= 2);
    assert.deepEqual(second.assignments[0]?.committed, { offset: 1, metadata: plan });
    assert.deepEqual(second.texts(), ['b', 'c']);
    await second.commit(topic, 0, 3, '');
    assert.deepEqual((await bus().positions(topic, group))[0]?.committed, { offset: 3, metadata: '' });
    await assert.rejects(second.commit(topic, 0, 3, 'x'.repeat(maxMetadataBytes + 1)), /limit/);
    await second.leave();
  });

  test('the answer of assigned() is where messages begin', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    const group = makeGroup();
    await bus().append(
      topic,
      Array.from({ length: 10 }, (_, number) => outgoing('k', `${number}`)),
    );
    const first = await new RecordingMember().join(bus(), group, topic);
    await until('all messages', () => first.received.length >= 10);
    await first.commit(topic, 0, 9);
    await first.leave();
    for (const [startAt, expected] of [
      [4, ['4', '5', '6', '7', '8', '9']],
      [10, ['new']],
    ] as const) {
      const member = new RecordingMember();
      member.startAt = () => startAt;
      await member.join(bus(), group, topic);
      await until('the assignment', () => member.assignments.length > 0);
      if (startAt === 10) await bus().append(topic, [outgoing('k', 'new')]);
      await until('the messages', () => member.received.length >= expected.length);
      await member.leave();
      assert.deepEqual(member.texts(), expected);
    }
  });
}

function backPressureTests({ bus }: Parts): void {
  test('a stalled partition stops no other, its calls do not overlap, and memory stays bounded', async () => {
    const topic = await makeTopic(bus());
    const valueBytes = 50_000;
    // Random each, or compression would put the whole backlog into one fetch.
    const randomValue = (): Uint8Array => crypto.getRandomValues(new Uint8Array(valueBytes));
    const backlogBytes = 40 * 1024 * 1024;
    const messageCount = Math.ceil(backlogBytes / valueBytes);
    for (let sent = 0; sent < messageCount; sent += 40) {
      const count = Math.min(40, messageCount - sent);
      await bus().append(
        topic,
        Array.from({ length: count }, () => ({ key: keyOf(0), value: randomValue() })),
      );
    }
    const member = new RecordingMember();
    const gate = Promise.withResolvers<void>();
    let stalledCalls = 0;
    member.hold = async (partition) => {
      if (partition !== 0) return;
      stalledCalls++;
      await gate.promise;
    };
    const maxBytesPerCall = 512 * 1024;
    const beforeBytes = bufferBytes();
    await member.join(bus(), makeGroup(), topic, maxBytesPerCall);
    await until('the first call of the stalled partition', () => stalledCalls === 1);
    for (let number = 0; number < 30; number++) {
      await bus().append(topic, [outgoing(keyOf(1 + (number % 3)), `${number}`)]);
      await until('a message of another partition', () => member.received.length > number);
    }
    assert.equal(stalledCalls, 1);
    // What was let go of is not counted free at once.
    await until(
      'no more than a part of the backlog is held',
      () => bufferBytes() - beforeBytes < backlogBytes / 4,
    );

    gate.resolve();
    await until('the backlog', () => member.received.length >= messageCount + 30);
    await member.leave();
    assert.equal(member.overlapCount, 0);
    assert.ok(member.largestCallBytes <= maxBytesPerCall, `a call held ${member.largestCallBytes} bytes`);
    const offsets = member.received
      .filter(({ partition }) => partition === 0)
      .map(({ message }) => message.offset);
    assert.deepEqual(
      offsets,
      Array.from({ length: messageCount }, (_, offset) => offset),
    );
  });
}

function tailTests({ bus, open }: Parts): void {
  test('the tail of an empty topic has caught up, and follows what comes', async () => {
    const topic = await makeTopic(bus());
    const reader = await TailReader.start(bus(), topic);
    await until('caught up', () => reader.caughtUpCount > 0);
    assert.equal(reader.messages.length, 0);
    const writer = await open();
    await writer.append(topic, [outgoing('k', 'later')]);
    await until('the message', () => reader.messages.length > 0);
    await reader.close();
    assert.equal(reader.caughtUpCount, 1);
    assert.deepEqual(reader.messages.map(text), ['later']);
  });

  test('the tail of a full topic has caught up when all of it was delivered, and not before', async () => {
    const topic = await makeTopic(bus());
    const messages = Array.from({ length: 2000 }, (_, number) => outgoing(`${number}`, `${number}`));
    await bus().append(topic, messages);
    const reader = await TailReader.start(bus(), topic);
    await until('caught up', () => reader.caughtUpCount > 0);
    assert.equal(reader.countAtCatchUp, 2000);
    await reader.close();
    assert.equal(new Set(reader.messages.map(text)).size, 2000);
  });

  test('the tail of a compacted topic tells the newest of each key and forgets the deleted', async () => {
    const topic = await makeTopic(bus(), { compacted: true, partitionCount: 1 });
    for (let round = 0; round < 5; round++) {
      await bus().append(
        topic,
        Array.from({ length: 20 }, (_, number) => outgoing(`${number}`, `${number}:${round}`)),
      );
    }
    await bus().append(topic, [outgoing('3', null), outgoing('7', null)]);
    await bus().append(topic, [outgoing('7', 'back')]);
    const reader = await TailReader.start(bus(), topic);
    await until('caught up', () => reader.caughtUpCount > 0);
    await reader.close();
    const state = new Map<string | null, string | null>();
    for (const message of reader.messages) state.set(message.key, text(message));
    const live = [...state].filter(([, value]) => value !== null);
    assert.equal(live.length, 19);
    assert.equal(state.get('3'), null);
    assert.equal(state.get('7'), 'back');
    assert.equal(state.get('5'), '5:4');
  });

  test('a receiver that fails gets the same messages once more', async () => {
    const topic = await makeTopic(bus(), { partitionCount: 1 });
    await bus().append(topic, [outgoing('k', 'a'), outgoing('k', 'b')]);
    const reader = new TailReader();
    let failures = 0;
    reader.hold = async () => {
      if (failures++ === 0) throw new Error('once');
    };
    await reader.follow(bus(), topic);
    await until('caught up', () => reader.caughtUpCount > 0);
    await reader.close();
    assert.deepEqual(reader.messages.map(text), ['a', 'b']);
    assert.equal(reader.errors[0]?.message, 'once');
  });
}

class TailReader {
  readonly messages: BusMessage[] = [];
  readonly errors: Error[] = [];
  caughtUpCount = 0;
  countAtCatchUp = -1;
  hold: () => Promise<void> = async () => undefined;
  #tail: { close(): Promise<void> } | undefined;

  static async start(bus: Bus, topic: string): Promise<TailReader> {
    const reader = new TailReader();
    await reader.follow(bus, topic);
    return reader;
  }

  async follow(bus: Bus, topic: string): Promise<void> {
    this.#tail = await bus.tail({
      topic,
      onMessages: async (_, messages) => {
        await this.hold();
        this.messages.push(...messages);
      },
      onCaughtUp: () => {
        this.caughtUpCount++;
        this.countAtCatchUp = this.messages.length;
      },
      onError: (error) => this.errors.push(error),
    });
  }

  async close(): Promise<void> {
    await this.#tail?.close();
  }
}

/** Bytes in buffers that are still in use. */
function bufferBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  if (typeof collect === 'function') collect();
  return process.memoryUsage().arrayBuffers;
}
