import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import type { Bus, BusMessage } from '../../../lib/bus/bus.ts';
import { busConfig } from '../../../lib/bus/config.ts';
import { openBus } from '../../../lib/bus/open.ts';
import { topicSpecs } from '../../../lib/bus/topics.ts';
import { topics } from '../../../schemas/topics.ts';
import { type PutWorkload, putKey, tidiedHeader } from '../../../schemas/workload-put.ts';
import { PutSource } from './put.ts';
import { type SourceSink, unrestored } from './source.ts';

const log = pino({ level: 'silent' });
const deadlineMs = 10_000;

let folder: string;
let bus: Bus;
let source: PutSource | null;
/** What the source told, in order: `+id`, `-key@endedMs`, `all: ids`. */
let told: string[];
/** Begin of the workload that was told last, ms. */
let sinceMs: number;

const sink: SourceSink = {
  snapshot: (events) =>
    told.push(`all: ${events.map((event) => (event.type === 'workload' ? event.uid : '')).join(' ')}`),
  change: (event) => {
    assert.ok(event.type === 'workload');
    told.push(`+${event.uid}`);
    ({ sinceMs } = event);
  },
  gone: (key, atMs) => told.push(`-${key}@${atMs}`),
  problems: () => {},
  ignored: () => {},
  failing: (reason) => told.push(reason),
};

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > deadline)
      assert.fail(`not within ${deadlineMs} ms: ${what}; ${told.join(' | ')}`);
    await delay(5);
  }
}

function workload(id: string, more: Partial<PutWorkload> = {}): PutWorkload {
  return {
    v: 1,
    source: 'cmdb',
    put: 'p1',
    putMs: Date.now(),
    id,
    name: id,
    kind: 'vm',
    group: '',
    addresses: [],
    labels: {},
    annotations: {},
    ...more,
  };
}

function append(...said: readonly PutWorkload[]): Promise<void> {
  const messages = said.map((one) => ({
    key: putKey(one.source, one.id),
    value: Buffer.from(JSON.stringify(one)),
  }));
  return bus.append(topics.inventoryPut, messages);
}

function start(over: Bus = bus, endedRetentionMs = 3_600_000): PutSource {
  source = new PutSource({
    name: 'api',
    bus: over,
    maxWorkloadCount: 1000,
    lookIntervalMs: 5,
    endedRetentionMs,
    maxRetryDelayMs: 20,
    log,
  });
  source.start(sink, unrestored);
  return source;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-put-'));
  const config = busConfig({});
  bus = await openBus(config, { dataDir: folder, log, clientId: 'test' });
  await bus.ensureTopics(topicSpecs(config));
  told = [];
  source = null;
});

afterEach(async () => {
  await source?.stop();
  await bus.close();
  rmSync(folder, { recursive: true, force: true });
});

test('nothing is told before all that stands there is read, and then all at once', async () => {
  await append(workload('a'), workload('b'), workload('old', { untilMs: 77 }));
  start();
  await until('the first word', () => told.length > 0);
  await until('the snapshot', () => told.includes('all: a b'));
  assert.deepEqual(told, ['-workload//vm/old@77', 'all: a b']);
  await append(workload('c'));
  await until('the third', () => told.at(-1) === '+c');
});

test('what is vouched for was told before, and what comes later begins and ends later', async () => {
  const endMs = Date.now() + 200;
  await append(workload('a', { untilMs: endMs }));
  const running = start();
  assert.equal(running.completeToMs(), 0);
  await until('the end of the first is vouched for', () => {
    const isVouched = running.completeToMs() >= endMs;
    assert.ok(!isVouched || told.includes(`-workload//vm/a@${endMs}`), told.join(' | '));
    return isVouched;
  });
  const vouchedMs = running.completeToMs();
  // It says that it was put, and ended, long before.
  await append(workload('late', { putMs: 1 }));
  await until('it is told', () => told.at(-1) === '+late');
  assert.ok(sinceMs > vouchedMs);
  const latestMs = running.completeToMs();
  await append(workload('late', { putMs: 1, put: 'p2', untilMs: 2 }));
  await until('its end is told', () => told.at(-1)?.startsWith('-workload//vm/late@') === true);
  assert.ok(Number(told.at(-1)?.split('@')[1]) > latestMs);
});

test('nothing more is vouched for while the end of the topic cannot be seen', async () => {
  let isAway = false;
  let refusedCount = 0;
  const flaky: Bus = Object.assign(Object.create(bus), {
    tail: bus.tail.bind(bus),
    append: bus.append.bind(bus),
    positions: (topic: string, group: string) => {
      if (!isAway) return bus.positions(topic, group);
      refusedCount++;
      return Promise.reject(new Error('away'));
    },
  });
  const running = start(flaky);
  await until('something is vouched for', () => running.completeToMs() > 0);
  isAway = true;
  await until('it is away', () => refusedCount > 0);
  const stoodAtMs = running.completeToMs();
  await until('it is asked in vain', () => refusedCount > 3);
  assert.equal(running.completeToMs(), stoodAtMs);
  isAway = false;
  await until('it goes on', () => running.completeToMs() > stoodAtMs);
});

test('a tail that does not open is opened again, and the reason is said', async () => {
  let failureCount = 0;
  const flaky: Bus = Object.assign(Object.create(bus), {
    positions: bus.positions.bind(bus),
    append: bus.append.bind(bus),
    tail: (options: Parameters<Bus['tail']>[0]) =>
      failureCount++ < 2 ? Promise.reject(new Error('no such luck')) : bus.tail(options),
  });
  start(flaky);
  await until('it is open', () => told.includes('all: '));
  assert.match(told[0] ?? '', /inventory\.put cannot be read: no such luck/);
});

test('what ended long ago leaves the topic, and what is put at that moment stays', async () => {
  const onTopic = new Map<string, BusMessage>();
  await bus.tail({
    topic: topics.inventoryPut,
    onMessages: (_, messages) => {
      for (const message of messages) if (message.key !== null) onTopic.set(message.key, message);
    },
    onCaughtUp: () => {},
    onError: (error) => assert.fail(error),
  });
  await append(workload('a', { untilMs: Date.now() + 20 }));
  start(bus, 100);
  await until('its lifetime passes', () => told.some((one) => one.startsWith('-')));
  await until('it is tidied away', () => onTopic.get('cmdb/a')?.value === null);
  await append(workload('b', { put: 'p2' }));
  // A tombstone that meant an older one comes after the newer.
  const headers = { [tidiedHeader]: 'p1' };
  await bus.append(topics.inventoryPut, [{ key: 'cmdb/b', value: null, headers }]);
  await until('it is given back', () => onTopic.get('cmdb/b')?.value instanceof Uint8Array);
  assert.ok(told.includes('+b'));
  assert.ok(!told.some((one) => one.startsWith('-workload//vm/b')));
});
