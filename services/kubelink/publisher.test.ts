import assert from 'node:assert/strict';
import { test } from 'node:test';
import pino from 'pino';
import { Registry } from 'prom-client';
import { MessageTooLargeError, type OutgoingMessage } from '../../lib/bus/bus.ts';
import { makeMetrics } from './metrics.ts';
import { Publisher } from './publisher.ts';
import type { Publication } from './state.ts';

function namespace(name: string, label = ''): Publication {
  return {
    key: `namespace/east/${name}`,
    event: { v: 1, type: 'namespace', cluster: 'east', name, labels: { label }, annotations: {} },
    source: 'a',
    endedMs: null,
  };
}

function publisherWith(append: (messages: readonly OutgoingMessage[]) => Promise<void>) {
  const metrics = makeMetrics(new Registry());
  const states: (true | string)[] = [];
  const publisher = new Publisher({
    append,
    onBusState: (state) => states.push(state),
    maxBatchMessageCount: 3,
    maxBatchBytes: 1_000_000,
    maxRetryDelayMs: 10,
    metrics,
    log: pino({ level: 'silent' }),
  });
  return { publisher, metrics, states };
}

test('what the bus refuses is tried again until it has it, the newest truth only', async () => {
  const log = new Map<string, string>();
  let failuresLeft = 3;
  const { publisher, states } = publisherWith(async (messages) => {
    await Promise.resolve();
    if (failuresLeft-- > 0) throw new Error('broker away');
    for (const { key, value } of messages) log.set(key ?? '', Buffer.from(value ?? []).toString());
  });
  publisher.put([namespace('shop', 'old'), namespace('pay')]);
  publisher.put([namespace('shop', 'new')]);
  await publisher.flushed();
  assert.equal(log.size, 2);
  assert.match(log.get('namespace/east/shop') ?? '', /"new"/);
  assert.deepEqual(states, [...new Array(3).fill('the bus takes no events: broker away'), true]);
  await publisher.stop();
});

test('no batch is larger than its limit, and everything arrives', async () => {
  const batches: number[] = [];
  const { publisher } = publisherWith(async (messages) => {
    batches.push(messages.length);
  });
  publisher.put(Array.from({ length: 10 }, (_, i) => namespace(`n${i}`)));
  await publisher.flushed();
  assert.deepEqual(batches, [3, 3, 3, 1]);
});

test('an event that changes while it is being sent is sent again', async () => {
  const sent: string[] = [];
  const first = Promise.withResolvers<void>();
  const { publisher } = publisherWith(async ([message]) => {
    sent.push(Buffer.from(message?.value ?? []).toString());
    if (sent.length === 1) await first.promise;
  });
  publisher.put([namespace('shop', 'one')]);
  publisher.put([namespace('shop', 'two')]);
  first.resolve();
  await publisher.flushed();
  assert.equal(sent.length, 2);
  assert.match(sent[1] ?? '', /"two"/);
});

test('what was put before is known to be durable, however often another entity changes meanwhile', async () => {
  let changes = 0;
  const { publisher } = publisherWith(async () => {
    // The entity changes while each of its versions is on the way, without end.
    await Promise.resolve();
    if (changes++ < 1000) publisher.put([namespace('flapping', String(changes))]);
  });
  publisher.put([namespace('flapping', 'first'), namespace('pay')]);
  await publisher.flushed();
  assert.ok(changes < 1000, `${changes} batches until the first two events were known to be there`);
  await publisher.stop();
});

test('what was put before is not taken for durable because an entity before it changed on the way', async () => {
  const sent: (string | null)[] = [];
  const { publisher } = publisherWith(async (messages) => {
    await Promise.resolve();
    if (sent.length === 0) publisher.put([namespace('n0', 'new')]);
    sent.push(...messages.map(({ key }) => key));
  });
  publisher.put(['n0', 'n1', 'n2', 'n3'].map((name) => namespace(name)));
  await publisher.flushed();
  assert.ok(sent.includes('namespace/east/n3'), sent.join());
  await publisher.stop();
});

test('a change that replaces an event on a way that failed is due as early as that one was', async () => {
  const sent: string[] = [];
  let isAway = true;
  const { publisher } = publisherWith(async (messages) => {
    await Promise.resolve();
    if (isAway) {
      isAway = false;
      publisher.put([namespace('late'), namespace('shop', 'two')]);
      throw new Error('broker away');
    }
    sent.push(...messages.map(({ key, value }) => `${key} ${Buffer.from(value ?? []).includes('two')}`));
  });
  publisher.put([namespace('shop', 'one')]);
  await publisher.flushed();
  assert.equal(sent[0], 'namespace/east/shop true');
  await publisher.stop();
});

test('what waits of one source can be dropped, with nothing of it on the way any more', async () => {
  const sent: (string | null)[] = [];
  const gate = Promise.withResolvers<void>();
  const { publisher } = publisherWith(async (messages) => {
    await gate.promise;
    sent.push(...messages.map(({ key }) => key));
  });
  const other = (name: string): Publication => ({ ...namespace(name), source: 'b' });
  publisher.put([namespace('a1'), namespace('a2'), other('b1')]);
  publisher.put([namespace('a3'), other('b2')]);
  let isDropped = false;
  const dropped = publisher.drop('a').then(() => {
    isDropped = true;
  });
  await Promise.resolve();
  assert.equal(isDropped, false);
  gate.resolve();
  await dropped;
  await publisher.flushed();
  // The first batch was on its way already.
  assert.deepEqual(
    sent,
    ['a1', 'a2', 'b1', 'b2'].map((name) => `namespace/east/${name}`),
  );
});

test('an address or a range that does not parse is named, counted and not published', async () => {
  const { publisher, metrics } = publisherWith(async () => {});
  const range = (cidrs: string[]): Publication => ({
    key: 'range/default/r',
    event: { v: 1, type: 'range', name: 'r', network: 'default', cidrs, zone: 'inside', labels: {} },
    source: 'a',
    endedMs: null,
  });
  publisher.put([range(['10.0.0.0/8', '10.0.0.0/99']), range(['10.0.0.0/8']), namespace('shop')]);
  await publisher.flushed();
  assert.deepEqual(
    (await metrics.refused.get()).values.map(({ labels, value }) => [labels.cause, value]),
    [['invalid', 1]],
  );
  const taken = (await metrics.published.get()).values.map(({ labels, value }) => [labels.type, value]);
  assert.deepEqual(taken.sort(), [
    ['namespace', 1],
    ['range', 1],
  ]);
});

test('an event that is too large or does not fit the schema is counted and keeps nothing back', async () => {
  const taken: (string | null)[] = [];
  const { publisher, metrics } = publisherWith(async (messages) => {
    if (messages.some(({ key }) => key?.endsWith('huge'))) throw new MessageTooLargeError('over the limit');
    taken.push(...messages.map(({ key }) => key));
  });
  const wrong = namespace('wrong');
  publisher.put([
    namespace('a'),
    namespace('huge'),
    namespace('b'),
    { ...wrong, event: { ...wrong.event!, v: 2 as 1 } },
  ]);
  await publisher.flushed();
  assert.deepEqual(taken.sort(), ['namespace/east/a', 'namespace/east/b']);
  const causes = (await metrics.refused.get()).values.map(({ labels, value }) => [labels.cause, value]);
  assert.deepEqual(causes, [
    ['invalid', 1],
    ['too-large', 1],
  ]);
});

test('a stop does not wait for a bus that is away', async () => {
  const { publisher } = publisherWith(() => Promise.reject(new Error('broker away')));
  publisher.put([namespace('shop')]);
  await publisher.stop();
});
