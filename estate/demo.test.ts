import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Bus, BusMessage, OutgoingMessage } from '../lib/bus/bus.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import { topics } from '../schemas/topics.ts';
import { type DemoConfig, quantumMs } from './config.ts';
import { judgeAnswer } from './deliver.ts';
import { makeEstate, worldOf } from './index.ts';
import { makeInventoryReader, nextPolicy, readMemory } from './memory.ts';
import { makeMetrics } from './metrics.ts';
import { NaiveInventory } from './naive.ts';
import { Publisher } from './publish.ts';
import { neededFirst, resumeEstate } from './stream.ts';

const startMs = Date.UTC(2026, 0, 7, 10);
const config: DemoConfig = {
  size: 'tiny',
  seed: 'demo-test',
  flowsPerSecond: 100,
  intervalMs: 5000,
  churnPerMinute: 3,
  reuseDelayMs: 500,
  historyMs: 60_000,
  ingestUrl: 'http://127.0.0.1:1',
  ingestToken: '',
  laneCount: 1,
  pendingBatchLimit: 100,
  requestTimeoutMs: 1000,
};

/** A compacted topic per name, in memory: what the demo asks of a bus, no more. */
class MemoryBus implements Pick<Bus, 'append' | 'tail'> {
  readonly logs = new Map<string, BusMessage[]>();

  async append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    const log = this.logs.get(topic) ?? [];
    for (const { key, value } of messages)
      log.push({ offset: log.length, timestampMs: 0, key, value, headers: {} });
    this.logs.set(topic, log);
  }

  async tail(options: Parameters<Bus['tail']>[0]): Promise<{ close(): Promise<void> }> {
    const log = this.logs.get(options.topic) ?? [];
    if (log.length > 0) await options.onMessages(0, log);
    options.onCaughtUp();
    return { close: async () => undefined };
  }
}

function publisherOf(
  bus: MemoryBus,
  memory: Pick<Awaited<ReturnType<typeof readMemory>>['inventory'], 'values' | 'ended'>,
): Publisher {
  return new Publisher({
    bus: bus,
    log: pino({ enabled: false }),
    metrics: makeMetrics(new Registry()),
    signal: new AbortController().signal,
    values: memory.values,
    ended: memory.ended,
    historyMs: config.historyMs,
  });
}

/** One life of the demo without its clock: publishes, lives for a while, and stops without a word. */
async function live(bus: MemoryBus, fromMs: number, forMs: number, of: DemoConfig = config): Promise<number> {
  const { inventory } = await readMemory(bus, worldOf(of).tag);
  const estate = resumeEstate(of, inventory, fromMs);
  const publisher = publisherOf(bus, inventory);
  const published = await publisher.publish(estate.inventory());
  estate.startBackground();
  await publisher.publish(estate.step(estate.nowMs + forMs).inventoryEvents.map(({ event }) => event));
  return published;
}

function inventoryOf(bus: MemoryBus): InventoryEvent[] {
  const newest = new Map<string, Uint8Array | null>();
  for (const { key, value } of bus.logs.get(topics.inventory) ?? []) newest.set(key ?? '', value);
  return [...newest.values()]
    .filter((value) => value !== null)
    .map((value) => JSON.parse(Buffer.from(value).toString('utf8')) as InventoryEvent);
}

function livingPods(events: readonly InventoryEvent[]): InventoryEvent[] {
  return events.filter(
    (event) => event.type === 'workload' && event.kind === 'pod' && event.untilMs === undefined,
  );
}

test('a demo that starts again goes on with the pods that live, and no address ever has two owners', async () => {
  const bus = new MemoryBus();
  const everything = await live(bus, startMs, 30_000);
  for (const pauseMs of [40_000, 100_000]) {
    const published = await live(bus, startMs + pauseMs, 30_000);
    assert.ok(published < everything / 5, `${published} of ${everything} published again`);
  }
  const events = inventoryOf(bus);
  assert.equal(livingPods(events).length <= 60, true);
  assert.ok(livingPods(events).length >= 50);
  const inventory = new NaiveInventory();
  const times = new Set<number>();
  const addresses = new Set<string>();
  for (const event of events) {
    inventory.add(event);
    if (event.type !== 'workload') continue;
    for (const at of event.addresses) {
      times.add(at.sinceMs);
      addresses.add(`${at.network}|${at.ip}`);
    }
  }
  for (const address of addresses) {
    const [network = '', ip = ''] = address.split('|');
    for (const timeMs of times)
      assert.ok(inventory.holders(network, ip, timeMs).length <= 1, `${address} at ${timeMs}`);
  }
});

test('another seed ends the workloads and services of the world before', async () => {
  const bus = new MemoryBus();
  await live(bus, startMs, 1000);
  const other = { ...config, seed: 'another' };
  const reader = makeInventoryReader(worldOf(other).tag);
  for (const message of bus.logs.get(topics.inventory) ?? []) reader.take(message);
  const { foreign, adopted } = reader.result();
  assert.equal(adopted.length, 0);
  const kinds = new Set(foreign.map((event) => (event.type === 'workload' ? event.kind : event.type)));
  assert.deepEqual([...kinds].sort(), ['host', 'node', 'pod', 'service', 'vm']);
});

test('what is none of the estate stays untouched in the topic', async () => {
  const bus = new MemoryBus();
  const theirs = { key: 'workload//host/laptop', value: Buffer.from('{"v":1,"type":"workload"}') };
  await bus.append(topics.inventory, [theirs]);
  await live(bus, startMs, 20_000);
  await live(bus, startMs + 60_000, 20_000, { ...config, seed: 'another' });
  const about = (bus.logs.get(topics.inventory) ?? []).filter(({ key }) => key === theirs.key);
  assert.equal(about.length, 1);
});

test('ended pods leave the topic after the history, the decommissioned machine stays', async () => {
  const bus = new MemoryBus();
  await live(bus, startMs, 30_000);
  const { inventory } = await readMemory(bus, worldOf(config).tag);
  assert.ok(inventory.ended.length > 20);
  const publisher = publisherOf(bus, inventory);
  await publisher.bury(startMs + 30_000);
  assert.equal((bus.logs.get(topics.inventory) ?? []).filter(({ value }) => value === null).length, 0);
  await publisher.bury(startMs + 30_000 + config.historyMs);
  const events = inventoryOf(bus);
  assert.equal(
    events.filter((event) => event.type === 'workload' && event.kind === 'pod' && event.untilMs).length,
    0,
  );
  assert.ok(events.some((event) => event.type === 'workload' && event.name === 'archive-0001'));
});

test('what the planted connections need comes first, and is little', () => {
  for (const size of ['tiny', 'bank'] as const) {
    const estate = makeEstate({ seed: 1, size, startMs, background: false });
    const isFirst = neededFirst(estate);
    const inventory = new NaiveInventory();
    let workloads = 0;
    let needed = 0;
    for (const event of estate.inventory()) {
      if (event.type === 'workload') workloads++;
      if (!isFirst(event)) continue;
      if (event.type === 'workload') needed++;
      inventory.add(event);
    }
    if (size === 'bank') assert.ok(needed < workloads / 50, `${needed} of ${workloads}`);
    const { profiles } = estate.policy();
    const { batches, truth } = estate.step(startMs + 40 * quantumMs * 4);
    let flowCount = 0;
    batches.forEach((batch, i) => {
      batch.flows.forEach((flow, j) => {
        const of = truth[i]?.[j];
        assert.ok(of);
        flowCount++;
        const timeMs = batch.observedFromMs + flow.startMs;
        assert.equal(inventory.name(batch.network, of.srcIp, timeMs, profiles).kind, of.srcKind);
        const { destinationPort: port, protocol } = flow;
        const call = { port, protocol, dnsName: batch.strings[flow.dnsName] ?? '' };
        assert.equal(inventory.name(batch.network, of.dstIp, timeMs, profiles, call).kind, of.dstKind);
      });
    });
    assert.ok(flowCount >= estate.planted.length);
  }
});

test('the policy of somebody else stays in force, an own one is renewed only when it says something else', () => {
  const mine = makeEstate({ seed: 1, size: 'tiny', startMs }).policy();
  const later = makeEstate({ seed: 1, size: 'tiny', startMs: startMs + 99_000 }).policy();
  assert.equal(nextPolicy(null, mine), mine);
  assert.equal(nextPolicy({ ...mine, version: 7 }, later), null);
  assert.equal(nextPolicy({ ...mine, version: 7, rulesets: [] }, later)?.version, 8);
  assert.equal(nextPolicy({ ...mine, author: 'alice', rulesets: [] }, later), null);
});

test('answers of ingest are taken, tried again, or given up', () => {
  assert.equal(judgeAnswer(202, null, '').kind, 'taken');
  assert.equal(judgeAnswer(400, null, 'bad').kind, 'refused');
  assert.equal(judgeAnswer(413, null, '').kind, 'refused');
  for (const status of [429, 503, 500, 401]) assert.equal(judgeAnswer(status, null, '').kind, 'again');
  const busy = judgeAnswer(429, '2', '');
  assert.equal(busy.kind === 'again' ? busy.waitMs : null, 2000);
  const endless = judgeAnswer(503, '86400', '');
  assert.equal(endless.kind === 'again' ? endless.waitMs : null, 30_000);
});
