import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import type { InventoryEvent, WorkloadEvent } from '../../../../lib/inventory/events.ts';
import { carryRules } from '../../manifests/common.ts';
import { ClusterView, changeTime, type Hearing, type News } from './cluster-view.ts';
import { type Converted, converted } from './converted.ts';
import { headOf, type Kind, resources } from './resources.ts';

const startMs = Date.parse('2026-03-01T10:00:00Z');
const carry = carryRules([], []);
const at = (ms: number): string => new Date(startMs + ms).toISOString().replace(/\.\d+Z$/, 'Z');

let view: ClusterView;
let version = 0;
beforeEach(() => {
  view = new ClusterView({ cluster: 'east', podCidrs: [], serviceCidrs: [] });
  view.reset('uid-of-kube-system');
});

function read(kind: Kind, object: Record<string, unknown>, nowMs: number): Converted {
  return converted(kind, headOf(object), object, { cluster: 'east', carry, nowMs });
}

interface PodChanges {
  readonly uid?: string;
  readonly labels?: object;
  readonly createdMs?: number;
  readonly writtenMs?: number;
  readonly status?: object;
}

function pod(name: string, ip: string | null, changes: PodChanges = {}): Record<string, unknown> {
  const { uid = `uid-${name}`, labels = {}, createdMs = 0, writtenMs = createdMs, status = {} } = changes;
  return {
    metadata: {
      name,
      namespace: 'shop',
      uid,
      labels,
      resourceVersion: String(++version),
      creationTimestamp: at(createdMs),
      managedFields: [{ time: at(writtenMs) }],
    },
    status: {
      phase: 'Running',
      startTime: at(createdMs),
      ...(ip === null ? {} : { podIPs: [{ ip }] }),
      ...status,
    },
  };
}

/** Heard as it came, `afterMs` after the start, everything of half a second before being known. */
function hearing(afterMs: number, more: Partial<Hearing> = {}): Hearing {
  const nowMs = startMs + afterMs;
  return { nowMs, seenToMs: nowMs - 500, toldSinceMs: 0, ...more };
}

function hear(kind: Kind, object: Record<string, unknown>, when: Hearing, isGone = false): News[] {
  return view.apply(kind, read(kind, object, when.nowMs), isGone, when);
}

function readAll(kind: Kind, objects: readonly Record<string, unknown>[], afterMs: number): void {
  const nowMs = startMs + afterMs;
  view.replace(
    kind,
    objects.map((object) => read(kind, object, nowMs)),
  );
}

function changes(news: readonly News[]): { event: InventoryEvent; atMs: number }[] {
  return news.flatMap((one) =>
    one.type === 'change' ? [{ event: one.event, atMs: one.atMs - startMs }] : [],
  );
}

function addressesOf(event: InventoryEvent | undefined): (string | number)[][] {
  assert.ok(event?.type === 'workload' || event?.type === 'service');
  return event.addresses.map(({ ip, sinceMs, certainFromMs }) => [
    ip,
    sinceMs - startMs,
    ...(certainFromMs === undefined ? [] : [certainFromMs - startMs]),
  ]);
}

const pods = (): WorkloadEvent[] =>
  view.all().filter((event): event is WorkloadEvent => event.type === 'workload' && event.kind === 'pod');

describe('what is heard as it comes', () => {
  test('a word that says nothing new is not told', () => {
    readAll('Pod', [pod('a', '10.1.0.1')], 0);
    assert.deepEqual(hear('Pod', pod('a', '10.1.0.1'), hearing(5_000)), []);
    assert.equal(view.isKnown('Pod', 'shop/a', 'uid-a', String(version)), true);
    assert.equal(view.isKnown('Pod', 'shop/a', 'uid-b', String(version)), false);
  });

  test('an address begins no earlier than everything was known, and no later than the pod', () => {
    const [old] = changes(hear('Pod', pod('a', '10.1.0.1', { createdMs: 0 }), hearing(9_000)));
    assert.deepEqual(addressesOf(old?.event), [['10.1.0.1', 8_500]]);
    const [young] = changes(hear('Pod', pod('b', '10.1.0.2', { createdMs: 9_000 }), hearing(9_200)));
    assert.deepEqual(addressesOf(young?.event), [['10.1.0.2', 9_000]]);
  });

  test('an address is in use before the kubelet notes that it is: it begins no later than its pod or what is unheard', () => {
    const ready = { type: 'PodReadyToStartContainers', status: 'True', lastTransitionTime: at(9_000) };
    const fresh = pod('a', '10.1.0.1', { createdMs: 6_000, status: { conditions: [ready] } });
    const [heard] = changes(hear('Pod', fresh, hearing(9_200)));
    assert.deepEqual(addressesOf(heard?.event), [['10.1.0.1', 8_700]]);
  });

  test('an address that comes begins as early, and the one that goes ends as late as it can have been', () => {
    readAll('Pod', [pod('a', '10.1.0.1')], 0);
    const [both, after, ...rest] = changes(hear('Pod', pod('a', '10.1.0.9'), hearing(5_000)));
    assert.equal(both?.atMs, 4_500);
    assert.deepEqual(addressesOf(both?.event), [
      ['10.1.0.1', 0],
      ['10.1.0.9', 4_500],
    ]);
    assert.equal(after?.atMs, 5_000);
    assert.deepEqual(addressesOf(after?.event), [['10.1.0.9', 4_500]]);
    assert.deepEqual(rest, []);
  });

  test("what is heard before everything was told is nobody else's only from then on", () => {
    const [unseen] = changes(hear('Pod', pod('a', '10.1.0.1'), hearing(5_000, { toldSinceMs: Infinity })));
    assert.deepEqual(addressesOf(unseen?.event), [['10.1.0.1', 4_500, 5_000]]);
    const [soon] = changes(
      hear('Pod', pod('b', '10.1.0.2'), hearing(5_000, { toldSinceMs: startMs + 4_800 })),
    );
    assert.deepEqual(addressesOf(soon?.event), [['10.1.0.2', 4_500, 4_800]]);
  });

  test('a pod of another uid under the same name ends the one before', () => {
    readAll('Pod', [pod('a', '10.1.0.1')], 0);
    const news = hear('Pod', pod('a', '10.1.0.2', { uid: 'second' }), hearing(3_000));
    assert.deepEqual(news[0], { type: 'gone', key: 'workload/east/pod/uid-a', atMs: startMs + 3_000 });
    assert.equal(changes(news).length, 1);
    assert.deepEqual(
      pods().map(({ uid }) => uid),
      ['second'],
    );
  });

  test('a deleted pod ended when its containers did, where that is known', () => {
    readAll('Pod', [pod('a', '10.1.0.1'), pod('b', '10.1.0.2')], 0);
    const finishedAt = at(2_000);
    const last = pod('a', '10.1.0.1', {
      status: { phase: 'Failed', containerStatuses: [{ state: { terminated: { finishedAt } } }] },
    });
    assert.deepEqual(hear('Pod', last, hearing(8_000), true), [
      { type: 'gone', key: 'workload/east/pod/uid-a', atMs: startMs + 3_000 },
    ]);
    assert.deepEqual(hear('Pod', pod('b', '10.1.0.2'), hearing(8_000), true), [
      { type: 'gone', key: 'workload/east/pod/uid-b', atMs: startMs + 8_000 },
    ]);
    assert.deepEqual(pods(), []);
  });

  test('an object that cannot be read keeps what it said, and is named until it can', () => {
    readAll('Pod', [pod('a', '10.1.0.1')], 0);
    assert.deepEqual(view.problems(), []);
    assert.deepEqual(hear('Pod', pod('a', 'nonsense'), hearing(1_000)), []);
    assert.match(view.problems().join(), /Pod\/shop\/a: status\.podIPs\[0\]\.ip: "nonsense"/);
    assert.deepEqual(addressesOf(pods()[0]), [['10.1.0.1', 0]]);
    hear('Pod', pod('a', '10.1.0.1'), hearing(2_000));
    assert.deepEqual(view.problems(), []);
  });
});

describe('when something came to be as it is now', () => {
  const time = { nowMs: startMs + 30_000, seenToMs: startMs + 10_000 };
  const changed = (event: InventoryEvent | undefined): number | null => {
    assert.ok(event !== undefined);
    const changedMs = view.changedMs(event, time);
    return changedMs === null ? null : changedMs - startMs;
  };

  test('it was by the end of the second in which its object was last written, though that changed nothing here', () => {
    readAll('Pod', [pod('a', '10.1.0.1', { writtenMs: 20_000 })], 30_000);
    assert.equal(changed(pods()[0]), 21_000);
    readAll('Pod', [pod('a', '10.1.0.1', { writtenMs: 25_000 })], 30_000);
    assert.equal(changed(pods()[0]), 26_000);
    readAll('Pod', [pod('a', '10.1.0.1', { writtenMs: 30_000 })], 30_000);
    assert.equal(changed(pods()[0]), 30_000);
  });

  test('it cannot be told of an object without notes, nor of a node, whose status is a heartbeat', () => {
    const node = (writtenMs: number) => ({
      metadata: {
        name: 'n',
        uid: 'n',
        resourceVersion: String(++version),
        creationTimestamp: at(0),
        managedFields: [{ time: at(writtenMs) }, { subresource: 'status', time: at(29_000) }],
      },
      status: { addresses: [{ type: 'InternalIP', address: '192.168.7.10' }] },
    });
    const nodes = () => view.all().find((event) => event.type === 'workload' && event.kind === 'node');
    readAll('Node', [node(5_000)], 30_000);
    assert.equal(changed(nodes()), 6_000);
    readAll('Node', [node(20_000)], 30_000);
    assert.equal(changed(nodes()), null);
    readAll(
      'Pod',
      [{ ...pod('a', '10.1.0.1'), metadata: { name: 'a', namespace: 'shop', uid: 'a' } }],
      30_000,
    );
    assert.equal(changed(pods()[0]), null);
  });

  test('a change took effect when it was heard, or within the second in which the server noted it well before', () => {
    assert.equal(changeTime(0, 10_000, 0), 10_000);
    assert.equal(changeTime(9_000, 10_000, 0), 10_000);
    assert.equal(changeTime(3_000, 10_000, 2_000), 4_000);
  });

  test('a note of a time up to which all was seen is of another change', () => {
    assert.equal(changeTime(3_000, 10_000, 4_000), 10_000);
  });

  test('a label that is only taken away was so until now, since the server keeps no note of that', () => {
    readAll('Pod', [pod('a', '10.1.0.1', { labels: { role: 'leader', app: 'db' } })], 0);
    const late = { seenToMs: startMs + 1_000 };
    const removed = pod('a', '10.1.0.1', { labels: { app: 'db' }, writtenMs: 5_000 });
    const [taken] = changes(hear('Pod', removed, hearing(9_000, late)));
    assert.equal(taken?.atMs, 9_000);
    const given = pod('a', '10.1.0.1', { labels: { role: 'leader', app: 'db' }, writtenMs: 12_000 });
    const [other] = changes(hear('Pod', given, hearing(16_000, late)));
    assert.equal(other?.atMs, 13_000);
  });
});

describe('what follows from several objects', () => {
  const service = (spec: object = {}) => ({
    metadata: {
      name: 'db',
      namespace: 'shop',
      uid: 's',
      resourceVersion: String(++version),
      creationTimestamp: at(0),
    },
    spec: { clusterIP: '10.96.0.7', ...spec },
  });
  const slice = (addresses: readonly string[]) => ({
    metadata: {
      name: 'db-1',
      namespace: 'shop',
      uid: 'e',
      resourceVersion: String(++version),
      labels: { 'kubernetes.io/service-name': 'db' },
      creationTimestamp: at(0),
    },
    addressType: 'IPv4',
    endpoints: [{ addresses }],
  });
  const node = (ip: string, podCidr: string) => ({
    metadata: { name: 'n', uid: 'n', resourceVersion: String(++version), creationTimestamp: at(0) },
    spec: { podCIDRs: [podCidr] },
    status: { addresses: [{ type: 'InternalIP', address: ip }] },
  });
  const open = (event: InventoryEvent | undefined): string =>
    addressesOf(event)
      .map(([ip]) => ip)
      .join(' ');

  test('a service has the addresses of its slices, whichever comes first, as long as they are there', () => {
    assert.deepEqual(hear('EndpointSlice', slice(['172.16.0.5']), hearing(1_000)), []);
    const [first] = changes(hear('Service', service(), hearing(2_000)));
    assert.equal(open(first?.event), '10.96.0.7 172.16.0.5');
    const news = changes(hear('EndpointSlice', slice(['172.16.0.6']), hearing(3_000)));
    assert.equal(open(news.at(-1)?.event), '10.96.0.7 172.16.0.6');
    assert.equal(news.at(-1)?.atMs, 3_000);
    assert.equal(open(view.all().find(({ type }) => type === 'service')), '10.96.0.7 172.16.0.6');
    const gone = changes(hear('EndpointSlice', slice([]), hearing(4_000), true));
    assert.equal(open(gone.at(-1)?.event), '10.96.0.7');
    assert.deepEqual(hear('Service', service(), hearing(5_000), true), [
      { type: 'gone', key: 'service/east/s', atMs: startMs + 5_000 },
    ]);
  });

  test("the ranges of the cluster are those of its nodes, and an address of a node is no service's", () => {
    readAll('Service', [service()], 0);
    readAll('EndpointSlice', [slice(['192.168.7.10', '10.1.0.5', '172.16.0.5'])], 0);
    const news = changes(hear('Node', node('192.168.7.10', '10.1.0.0/24'), hearing(1_000)));
    const cluster = news.find(({ event }) => event.type === 'cluster')?.event;
    assert.ok(cluster?.type === 'cluster');
    assert.deepEqual(cluster.podCidrs, ['10.1.0.0/24']);
    assert.equal(cluster.uid, 'uid-of-kube-system');
    const changed = news.filter(({ event }) => event.type === 'service').at(-1);
    assert.equal(open(changed?.event), '10.96.0.7 172.16.0.5');
    assert.deepEqual(hear('Node', node('192.168.7.10', '10.1.0.0/24'), hearing(2_000)), []);
  });

  test('a name goes when its service is one of another kind', () => {
    const external = { type: 'ExternalName', externalName: 'db.example.org', clusterIP: '' };
    hear('Service', service(external), hearing(1_000));
    assert.ok(view.all().some(({ type }) => type === 'name'));
    const news = hear('Service', service(), hearing(2_000));
    assert.ok(news.some((one) => one.type === 'gone' && one.key === 'name/east/shop/db'));
    assert.ok(!view.all().some(({ type }) => type === 'name'));
  });

  test('everything is there once every kind was read, and nothing of another cluster stays', () => {
    const kinds = resources.map(({ kind }) => kind);
    for (const kind of kinds) {
      assert.equal(view.isSynced(kinds), false);
      readAll(kind, kind === 'Pod' ? [pod('a', '10.1.0.1')] : [], 0);
    }
    assert.equal(view.isSynced(kinds), true);
    view.reset('another');
    assert.equal(view.isSynced(kinds), false);
    assert.deepEqual(
      view.all().map((event) => [event.type, event.type === 'cluster' && event.uid]),
      [['cluster', 'another']],
    );
  });
});
