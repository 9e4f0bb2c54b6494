import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import { Registry } from 'prom-client';
import { Value } from 'typebox/value';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { createReadiness, type ReadinessBoard } from '../../lib/runtime/readiness.ts';
import { topics } from '../../schemas/topics.ts';
import { KubelinkConfig } from './config.ts';
import { type RunningKubelink, startKubelink } from './kubelink.ts';
import { fromMessage } from './messages.ts';
import { makeMetrics } from './metrics.ts';
import { makeSources } from './sources/make.ts';
import type { Publication } from './state.ts';

const deadlineMs = 10_000;
const log = pino({ level: 'silent' });
const busConfig = Value.Parse(BusConfig, Value.Default(BusConfig, {}));

let folder: string;
let bus: Bus;
const running: RunningKubelink[] = [];

/** The topic as somebody who reads it from the begin sees it, followed. */
class Topic {
  readonly newest = new Map<string, Publication>();
  #wake = Promise.withResolvers<void>();
  #close: () => Promise<void> = async () => {};

  async open(): Promise<void> {
    const { close } = await bus.tail({
      topic: topics.inventory,
      onMessages: (_, messages) => {
        for (const message of messages) this.#take(message);
        this.#wake.resolve();
        this.#wake = Promise.withResolvers();
      },
      onCaughtUp: () => {},
      onError: (error) => assert.fail(error),
    });
    this.#close = close;
  }

  #take(message: BusMessage): void {
    const publication = fromMessage(message);
    if (publication === null) return;
    if (publication.event === null) this.newest.delete(publication.key);
    else this.newest.set(publication.key, publication);
  }

  close(): Promise<void> {
    return this.#close();
  }

  hasEnded(key: string): boolean {
    return typeof this.newest.get(key)?.endedMs === 'number';
  }

  /** Keys of what lives, sorted. */
  live(): string {
    return [...this.newest.values()]
      .filter(({ endedMs }) => endedMs === null)
      .map(({ key }) => key)
      .sort()
      .join(' ');
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    while (!condition()) {
      if (performance.now() > deadline)
        assert.fail(`not within ${deadlineMs} ms: ${what}; live: ${this.live()}`);
      await Promise.race([this.#wake.promise, delay(20)]);
    }
  }
}

let topic: Topic;

interface Started {
  readonly kubelink: RunningKubelink;
  readonly readiness: ReadinessBoard;
  readonly metrics: ReturnType<typeof makeMetrics>;
  readonly ready: Promise<void>;
}

async function start(sources: readonly object[], settings: object = {}): Promise<Started> {
  const config = Value.Parse(
    KubelinkConfig,
    Value.Default(KubelinkConfig, { sources, rescanMs: 100, debounceMs: 10, ...settings }),
  );
  const ready = Promise.withResolvers<void>();
  const readiness = createReadiness((state) => {
    if (state.ready) ready.resolve();
  });
  const metrics = makeMetrics(new Registry());
  const kubelink = await startKubelink(
    {
      config,
      sources: makeSources(config, log, bus),
      bus,
      topicSpecs: topicSpecs(busConfig),
      metrics,
      readiness,
      log,
    },
    new AbortController().signal,
  );
  running.push(kubelink);
  return { kubelink, readiness, metrics, ready: ready.promise };
}

function manifests(cluster: string): object {
  return { kind: 'manifests', path: join(folder, cluster), cluster, podCidrs: [], serviceCidrs: [] };
}

function writePods(cluster: string, pods: Readonly<Record<string, string>>): void {
  mkdirSync(join(folder, cluster), { recursive: true });
  const items = Object.entries(pods).map(([name, ip]) => ({
    kind: 'Pod',
    metadata: { name, namespace: 'shop', uid: name, creationTimestamp: '2026-01-01T00:00:00Z' },
    status: { phase: 'Running', podIPs: [{ ip }] },
  }));
  writeFileSync(join(folder, cluster, 'pods.json'), JSON.stringify({ kind: 'List', items }));
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-kubelink-'));
  mkdirSync(join(folder, 'data'));
  bus = await openBus(busConfig, { dataDir: join(folder, 'data'), log, clientId: 'test' });
  await bus.ensureTopics(topicSpecs(busConfig));
  topic = new Topic();
  await topic.open();
});

afterEach(async () => {
  await Promise.all(running.splice(0).map((kubelink) => kubelink.stop()));
  await topic.close();
  await bus.close();
  rmSync(folder, { recursive: true, force: true });
});

const key = (cluster: string, name: string): string => `workload/${cluster}/pod/${name}`;

test('kubelink is ready when the first reading of every source is on the topic, and follows what changes', async () => {
  writePods('east', { a: '10.1.0.1', b: '10.1.0.2' });
  const { ready, metrics, kubelink } = await start([manifests('east')]);
  await ready;
  await topic.until(
    () => topic.live() === `cluster/east ${key('east', 'a')} ${key('east', 'b')}`,
    'first reading',
  );
  writePods('east', { b: '10.1.0.3', c: '10.1.0.1' });
  await topic.until(() => topic.newest.has(key('east', 'c')), 'churn');
  await topic.until(() => topic.hasEnded(key('east', 'a')), 'a deletion');
  const moved = topic.newest.get(key('east', 'b'))?.event;
  assert.ok(moved?.type === 'workload');
  assert.deepEqual(
    moved.addresses.map(({ ip, untilMs }) => [ip, untilMs === undefined]),
    [
      ['10.1.0.2', false],
      ['10.1.0.3', true],
    ],
  );
  kubelink.collect();
  const entities = (await metrics.entities.get()).values.map(({ labels, value }) => [
    labels.kind,
    labels.state,
    value,
  ]);
  assert.deepEqual(entities.sort(), [
    ['cluster', 'live', 1],
    ['pod', 'ended', 1],
    ['pod', 'live', 2],
  ]);
});

test('a deletion that happens while kubelink is down is published when it is back, and nothing else', async () => {
  writePods('east', { a: '10.1.0.1', b: '10.1.0.2' });
  const first = await start([manifests('east')]);
  await first.ready;
  await first.kubelink.stop();
  writePods('east', { b: '10.1.0.2' });
  const second = await start([manifests('east')]);
  await second.ready;
  await topic.until(() => topic.hasEnded(key('east', 'a')), 'the deletion');
  await topic.until(() => topic.live() === `cluster/east ${key('east', 'b')}`, 'what is left');
  const published = (await second.metrics.published.get()).values.map(({ value }) => value);
  assert.deepEqual(published, [1]);
});

test("two kubelinks of two clusters never end what is the other's", async () => {
  writePods('east', { a: '10.1.0.1' });
  writePods('west', { a: '10.1.0.1' });
  const east = await start([manifests('east')]);
  const west = await start([manifests('west')]);
  await Promise.all([east.ready, west.ready]);
  writePods('west', {});
  await topic.until(() => topic.hasEnded(key('west', 'a')), 'the deletion in the west');
  await east.kubelink.stop();
  const again = await start([manifests('east')]);
  await again.ready;
  assert.equal(topic.live(), `cluster/east cluster/west ${key('east', 'a')}`);
});

test('what ended is taken from the topic after its retention', async () => {
  writePods('east', { a: '10.1.0.1' });
  const { ready } = await start([manifests('east')], { endedRetentionMs: 300 });
  await ready;
  await topic.until(() => topic.newest.has(key('east', 'a')), 'first reading');
  writePods('east', {});
  await topic.until(() => !topic.newest.has(key('east', 'a')), 'the tombstone');
});

test('the entities of a retired source end, except those another source has taken over', async () => {
  writePods('east', { a: '10.1.0.1', b: '10.1.0.2' });
  const old = await start([{ ...manifests('east'), name: 'old' }]);
  await old.ready;
  await old.kubelink.stop();
  writePods('east', { a: '10.1.0.1' });
  const renamed = await start([manifests('east'), { kind: 'retired', name: 'old' }]);
  await renamed.ready;
  await topic.until(() => topic.hasEnded(key('east', 'b')), 'the end of what was left');
  assert.equal(topic.live(), `cluster/east ${key('east', 'a')}`);
  assert.equal(topic.newest.get(key('east', 'a'))?.source, 'manifests:east');
});

test('two workloads that claim one address are both published, counted and named', async () => {
  mkdirSync(join(folder, 'hosts'));
  writeFileSync(
    join(folder, 'hosts', 'dc.yaml'),
    'hosts: [{ name: db-1, addresses: [10.9.0.1] }, { name: db-2, addresses: [10.9.0.1] }]',
  );
  const { ready, metrics } = await start([{ kind: 'hosts', path: join(folder, 'hosts') }]);
  await ready;
  await topic.until(() => topic.newest.size === 2, 'both');
  assert.equal((await metrics.conflicts.get()).values[0]?.value, 1);
  assert.deepEqual((await metrics.conflict.get()).values[0]?.labels, {
    network: 'default',
    ip: '10.9.0.1',
    claimants: 'vm db-1, vm db-2',
  });
});

test('a source that cannot be read is named in readiness, and the others go on', async () => {
  writePods('east', { a: '10.1.0.1' });
  const { readiness } = await start([manifests('east'), manifests('nowhere')]);
  await topic.until(() => topic.newest.has(key('east', 'a')), 'the good source');
  await topic.until(() => readiness.state().parts['source manifests:east'] === true, 'its readiness');
  assert.equal(readiness.state().ready, false);
  assert.match(String(readiness.state().parts['source manifests:nowhere']), /nowhere cannot be read/);
});

test('two sources of one name are refused before anything starts', async () => {
  await assert.rejects(
    start([manifests('east'), manifests('east')]),
    /sources\[1\] has the same name .*manifests:east/,
  );
});

test('this machine is a host under its own name with its loopback addresses', async () => {
  const { ready } = await start([{ kind: 'local-host' }]);
  await ready;
  await topic.until(() => topic.newest.size === 1, 'the host');
  const event = [...topic.newest.values()][0]?.event;
  assert.ok(event?.type === 'workload');
  assert.equal(event.kind, 'host');
  assert.deepEqual(event.labels, { source: 'local' });
  const ips = event.addresses.map(({ ip, network }) => `${network} ${ip}`);
  assert.ok(ips.includes('local 127.0.0.1') && ips.includes('local ::1'), ips.join());
});
