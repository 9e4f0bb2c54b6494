import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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
import type { InventoryEvent } from '../../lib/inventory/events.ts';
import { createReadiness, type ReadinessBoard } from '../../lib/runtime/readiness.ts';
import { topics } from '../../schemas/topics.ts';
import { KubelinkConfig } from './config.ts';
import { type RunningKubelink, startKubelink } from './kubelink.ts';
import { fromMessage } from './messages.ts';
import { makeMetrics } from './metrics.ts';
import { makeSources, type Sources } from './sources/make.ts';
import type { Restored, Source, SourceSink } from './sources/source.ts';
import type { Publication } from './state.ts';

const deadlineMs = 10_000;
const log = pino({ level: 'silent' });
const busConfig = Value.Parse(BusConfig, Value.Default(BusConfig, {}));

let folder: string;
let bus: Bus;
const running: RunningKubelink[] = [];

interface Mark {
  readonly source: string;
  readonly completeToMs: number | null;
  /** What stood on the topic when it came. */
  readonly before: ReadonlyMap<string, Publication>;
}

/** The topic as somebody who reads it from the begin sees it, followed. */
class Topic {
  readonly newest = new Map<string, Publication>();
  /** Watermarks in the order they came, by source; `null` for one that was taken away. */
  readonly marks: Mark[] = [];
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
    if (publication.key.startsWith('watermark/')) {
      const completeToMs = publication.event?.type === 'watermark' ? publication.event.completeToMs : null;
      const source = publication.key.slice('watermark/'.length);
      this.marks.push({ source, completeToMs, before: new Map(this.newest) });
      return;
    }
    if (publication.event === null) this.newest.delete(publication.key);
    else this.newest.set(publication.key, publication);
  }

  close(): Promise<void> {
    return this.#close();
  }

  markOf(source: string): number | null | undefined {
    return this.marks.findLast((mark) => mark.source === source)?.completeToMs;
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
  return startWith((config) => makeSources(config, log, bus), sources, settings);
}

/** With sources of the test's own making. */
async function startWith(
  make: (config: KubelinkConfig) => Sources,
  sources: readonly object[] = [],
  settings: object = {},
): Promise<Started> {
  const config = Value.Parse(
    KubelinkConfig,
    Value.Default(KubelinkConfig, {
      sources,
      rescanMs: 100,
      debounceMs: 10,
      watermarkIntervalMs: 20,
      ...settings,
    }),
  );
  const ready = Promise.withResolvers<void>();
  const readiness = createReadiness((state) => {
    if (state.ready) ready.resolve();
  });
  const metrics = makeMetrics(new Registry());
  const kubelink = await startKubelink(
    {
      config,
      sources: make(config),
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
  const published = (await second.metrics.published.get()).values
    .filter(({ labels }) => labels.type !== 'watermark')
    .map(({ value }) => value);
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

test('what a source told stands on the topic before its watermark, which keeps rising while all is quiet', async () => {
  writePods('east', { a: '10.1.0.1' });
  const beforeMs = Date.now();
  const { ready } = await start([manifests('east')], { rescanMs: 3_600_000 });
  await ready;
  await topic.until(() => topic.marks.length >= 3, 'watermarks without another look');
  assert.ok(topic.marks.every(({ before }) => before.has(key('east', 'a'))));
  const times = topic.marks.map(({ completeToMs }) => completeToMs ?? 0);
  assert.deepEqual(
    times,
    [...new Set(times)].sort((a, b) => a - b),
  );
  assert.ok(times[0]! >= beforeMs && times.at(-1)! <= Date.now());
});

test('a change of a file is on the topic before a watermark reaches the time at which it took effect', async () => {
  writePods('east', { a: '10.1.0.1', b: '10.1.0.2' });
  await (await start([manifests('east')], { rescanMs: 3_600_000 })).ready;
  await topic.until(() => topic.marks.length > 0, 'the first watermark');
  for (let round = 0; round < 5; round++) {
    writePods('east', round % 2 === 0 ? { b: '10.1.0.2' } : { a: '10.1.0.1', b: '10.1.0.2' });
    await topic.until(() => topic.hasEnded(key('east', 'a')) === (round % 2 === 0), `round ${round}`);
  }
  const changesOf = (publication: Publication | undefined): readonly number[] => {
    assert.ok(publication?.event?.type === 'workload');
    return publication.event.addresses.flatMap(({ sinceMs, untilMs }) => [sinceMs, untilMs ?? sinceMs]);
  };
  const changes = changesOf(topic.newest.get(key('east', 'a')));
  assert.equal(new Set(changes).size, 6);
  await topic.until(
    () => (topic.markOf('manifests:east') ?? 0) > Math.max(...changes),
    'a watermark behind all',
  );
  for (const { completeToMs, before } of topic.marks) {
    const known = changesOf(before.get(key('east', 'a')));
    for (const change of changes) {
      if (change <= (completeToMs ?? 0))
        assert.ok(known.includes(change), 'it was vouched for before it was there');
    }
  }
});

test('a source that cannot be read vouches for nothing new until it can', async () => {
  writePods('east', { a: '10.1.0.1' });
  await (await start([manifests('east')])).ready;
  await topic.until(() => topic.marks.length > 0, 'the first watermark');
  renameSync(join(folder, 'east'), join(folder, 'away'));
  const awayMs = Date.now();
  // The watermark of a second source shows that time goes on.
  await (await start([{ kind: 'local-host', intervalMs: 100 }])).ready;
  const isPast = ({ source, completeToMs }: Mark): boolean =>
    source.startsWith('local-host') && (completeToMs ?? 0) > awayMs + 500;
  await topic.until(() => topic.marks.some(isPast), 'watermarks of the other source');
  const stoodAtMs = topic.markOf('manifests:east') ?? 0;
  assert.ok(stoodAtMs <= awayMs + 100, `${stoodAtMs - awayMs} ms after the folder went`);
  renameSync(join(folder, 'away'), join(folder, 'east'));
  await topic.until(() => (topic.markOf('manifests:east') ?? 0) > awayMs + 500, 'watermarks when it is back');
});

test('the watermark of a retired source is taken away after its entities have ended', async () => {
  writePods('east', { a: '10.1.0.1' });
  const old = await start([{ ...manifests('east'), name: 'old' }]);
  await old.ready;
  await topic.until(() => typeof topic.markOf('old') === 'number', 'its watermark');
  await old.kubelink.stop();
  await start([{ kind: 'retired', name: 'old' }]);
  await topic.until(() => topic.markOf('old') === null, 'its end');
  assert.ok(topic.hasEnded(key('east', 'a')));
});

/** A source that says what the test wants. */
class Script implements Source {
  readonly name = 'script';
  sink: SourceSink | null = null;
  restored: Restored | null = null;
  completeMs = 0;

  start(sink: SourceSink, restored: Restored): void {
    this.sink = sink;
    this.restored = restored;
  }
  completeToMs = (): number => this.completeMs;
  stop = async (): Promise<void> => {};
}

function vm(uid: string, ip: string): InventoryEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'vm',
    cluster: '',
    uid,
    name: uid,
    namespace: '',
    node: '',
    hostNetwork: false,
    labels: {},
    annotations: {},
    addresses: [{ ip, network: 'default', sinceMs: 1000 }],
    sinceMs: 1000,
  };
}

const cluster = (uid: string): InventoryEvent => ({
  v: 1,
  type: 'cluster',
  cluster: 'east',
  podCidrs: [],
  serviceCidrs: [],
  uid,
});

test('a source is told the id of its cluster and the watermark that stood on the topic before it started', async () => {
  const first = new Script();
  const { kubelink } = await startWith(() => ({ sources: [first], retired: [] }));
  assert.equal(first.restored?.clusterUid('east'), null);
  assert.equal(first.restored?.completeToMs(), 0);
  first.sink?.snapshot([cluster('one')]);
  first.completeMs = 12_345;
  await topic.until(() => topic.markOf('script') === 12_345, 'the watermark');
  await kubelink.stop();
  const second = new Script();
  await startWith(() => ({ sources: [second], retired: [] }));
  assert.equal(second.restored?.clusterUid('east'), 'one');
  assert.equal(second.restored?.clusterUid('west'), null);
  assert.equal(second.restored?.completeToMs(), 12_345);
});

test('a source that takes over from another process ends what that one published and is no more', async () => {
  const [active, standby] = [new Script(), new Script()];
  await startWith(() => ({ sources: [active], retired: [] }));
  await startWith(() => ({ sources: [standby], retired: [] }));
  active.sink?.snapshot([cluster('one'), vm('a', '10.9.0.1'), vm('b', '10.9.0.2')]);
  active.completeMs = 50_000;
  await topic.until(() => topic.markOf('script') === 50_000, 'all of it');
  active.restored?.release();
  await standby.restored?.refresh(new AbortController().signal);
  assert.equal(standby.restored?.clusterUid('east'), 'one');
  assert.equal(standby.restored?.completeToMs(), 50_000);
  standby.sink?.snapshot([cluster('one'), vm('b', '10.9.0.2')], standby.restored?.completeToMs());
  const a = 'workload//vm/a';
  await topic.until(() => topic.hasEnded(a), 'the end of what is no more');
  assert.equal(topic.newest.get(a)?.endedMs, 50_001);
});
