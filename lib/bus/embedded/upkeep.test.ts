import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { type BusConfig, busConfig } from '../config.ts';
import { makeGroup, makeTopic, outgoing, RecordingMember, until } from '../conformance-support.ts';
import { busFileName, EmbeddedBus } from './embedded-bus.ts';

async function makeDir(t: TestContext): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-bus-'));
  t.after(() => rm(dataDir, { recursive: true, force: true }));
  return dataDir;
}

function openBus(t: TestContext, dataDir: string, settings: Partial<BusConfig> = {}): EmbeddedBus {
  const errors: Error[] = [];
  const bus = new EmbeddedBus(busConfig({ upkeepIntervalMs: 100, ...settings }), {
    dataDir,
    onError: (error) => errors.push(error),
  });
  t.after(async () => {
    await bus.close();
    assert.deepEqual(errors, []);
  });
  return bus;
}

test('messages older than the retention go, the others stay and are read from the earliest that is left', async (t) => {
  const bus = openBus(t, await makeDir(t));
  const topic = await makeTopic(bus, { partitionCount: 1, retentionMs: 1000 });
  const kept = await makeTopic(bus, { partitionCount: 1 });
  // More than one step of the upkeep removes.
  const messages = Array.from({ length: 600 }, (_, number) => outgoing('k', `${number}`));
  await bus.append(kept, messages);
  await bus.append(topic, messages);
  await until('all have gone', async () => (await bus.positions(topic, 'g'))[0]?.earliest === 600);
  await bus.append(topic, [outgoing('k', 'new')]);
  const member = await new RecordingMember().join(bus, makeGroup(), topic);
  await until('the new one', () => member.received.length > 0);
  assert.deepEqual(member.texts(), ['new']);
  assert.deepEqual(member.assignments, [{ partition: 0, committed: null, earliest: 600 }]);
  assert.equal((await bus.positions(kept, 'g'))[0]?.earliest, 0);
});

test('a compacted topic keeps one message for each key on disk, and tombstones go after their time', async (t) => {
  const dataDir = await makeDir(t);
  const bus = openBus(t, dataDir, { tombstoneRetentionMs: 1000 });
  const topic = await makeTopic(bus, { compacted: true, partitionCount: 1 });
  for (let round = 0; round < 10; round++)
    await bus.append(topic, [outgoing('a', `${round}`), outgoing('b', 'b')]);
  await bus.append(topic, [outgoing('b', null)]);
  const file = new DatabaseSync(join(dataDir, busFileName), { readOnly: true });
  t.after(() => file.close());
  const rows = (): unknown[] => file.prepare('SELECT key, value IS NULL AS gone FROM messages').all();
  const values = (): string[] => rows().map((row) => JSON.stringify(row));
  assert.deepEqual(values(), ['{"key":"a","gone":0}', '{"key":"b","gone":1}']);
  await until('the tombstone has gone', () => rows().length === 1);
  assert.deepEqual(values(), ['{"key":"a","gone":0}']);
  await bus.append(topic, [outgoing('b', 'again')]);
  assert.equal(rows().length, 2);
  await assert.rejects(bus.append(topic, [outgoing(null, 'x')]), /need a key/);
});

test('a full bus refuses appends and says what to do, and takes them again when there is room', async (t) => {
  const bus = openBus(t, await makeDir(t), { maxFileBytes: 4 * 1024 * 1024 });
  const topic = await makeTopic(bus, { partitionCount: 1, retentionMs: 2000 });
  const value = new Uint8Array(100_000);
  let takenCount = 0;
  await assert.rejects(async () => {
    for (; takenCount < 200; takenCount++) await bus.append(topic, [{ key: 'k', value }]);
  }, /the bus file is full: .*bus\.maxFileBytes/);
  assert.ok(takenCount > 20, `${takenCount} were taken`);
  assert.equal((await bus.positions(topic, 'g'))[0]?.next, takenCount);
  await until('room again', () =>
    bus.append(topic, [{ key: 'k', value }]).then(
      () => true,
      () => false,
    ),
  );
});

test('appends beyond what may wait are refused at once', async (t) => {
  const bus = openBus(t, await makeDir(t), { maxPendingAppendBytes: 1024 * 1024 });
  const topic = await makeTopic(bus);
  const value = new Uint8Array(700_000);
  const results = await Promise.allSettled(
    [1, 2, 3].map((key) => bus.append(topic, [{ key: `${key}`, value }])),
  );
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected'],
  );
  await bus.append(topic, [{ key: 'k', value }]);
});

test('a file of another version is refused with its name', async (t) => {
  const dataDir = await makeDir(t);
  const file = new DatabaseSync(join(dataDir, busFileName));
  file.exec('PRAGMA user_version=99');
  file.close();
  assert.throws(
    () => new EmbeddedBus(busConfig({}), { dataDir, onError: () => undefined }),
    /bus\.sqlite was made by another version of Eastwest \(format 99, here 1\)/,
  );
});
