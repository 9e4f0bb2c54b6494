import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type AddressInterval,
  type InventoryEvent,
  inventoryKey,
  type ServiceEvent,
  type WorkloadEvent,
} from '../../lib/inventory/events.ts';
import { endOf, InventoryState, type Publication } from './state.ts';

const hourMs = 3_600_000;
const endedRetentionMs = 24 * hourMs;

function pod(uid: string, ips: readonly string[], overrides: Partial<WorkloadEvent> = {}): WorkloadEvent {
  const sinceMs = overrides.sinceMs ?? 0;
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid,
    name: uid,
    namespace: 'shop',
    node: 'n1',
    hostNetwork: false,
    labels: {},
    annotations: {},
    addresses: ips.map((ip) => ({ ip, network: 'east', sinceMs })),
    sinceMs,
    ...overrides,
  };
}

function namespace(name: string): InventoryEvent {
  return { v: 1, type: 'namespace', cluster: 'east', name, labels: {}, annotations: {} };
}

function stateOf(...activeSources: string[]): InventoryState {
  return new InventoryState({ activeSources: new Set(activeSources), endedRetentionMs });
}

function only(publications: readonly Publication[]): Publication {
  assert.equal(publications.length, 1, JSON.stringify(publications));
  return publications[0]!;
}

function workloadOf(publication: Publication): WorkloadEvent {
  assert.equal(publication.event?.type, 'workload');
  return publication.event as WorkloadEvent;
}

describe('what is published when a source speaks', () => {
  test('an entity without a known begin has been there always at the first reading, and since now later', () => {
    const state = stateOf('a');
    assert.equal(workloadOf(only(state.snapshot('a', [pod('p', ['10.0.0.1'])], 5000))).sinceMs, 0);
    const later = workloadOf(
      only(state.snapshot('a', [pod('p', ['10.0.0.1']), pod('q', ['10.0.0.2'])], 9000)),
    );
    assert.equal(later.uid, 'q');
    assert.equal(later.sinceMs, 9000);
    assert.deepEqual(later.addresses, [{ ip: '10.0.0.2', network: 'east', sinceMs: 9000 }]);
  });

  test('the same truth is published once, whether or not it is the same object', () => {
    const state = stateOf('a');
    const event = pod('p', ['10.0.0.1'], { sinceMs: 1000 });
    assert.equal(state.snapshot('a', [event], 5000).length, 1);
    assert.equal(state.snapshot('a', [event], 6000).length, 0);
    assert.equal(state.snapshot('a', [structuredClone(event)], 7000).length, 0);
  });

  test('a new address of a known pod begins at the change, and the old one ends there', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 5000);
    const changed = workloadOf(only(state.change('a', pod('p', ['10.0.0.9'], { sinceMs: 1000 }), 8000)));
    assert.deepEqual(changed.addresses, [
      { ip: '10.0.0.1', network: 'east', sinceMs: 1000, untilMs: 8000 },
      { ip: '10.0.0.9', network: 'east', sinceMs: 8000 },
    ]);
    assert.equal(state.change('a', pod('p', ['10.0.0.9'], { sinceMs: 1000 }), 9000).length, 0);
  });

  test('an address that comes back has two intervals', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 2000);
    state.change('a', pod('p', [], { sinceMs: 1000 }), 3000);
    const back = workloadOf(only(state.change('a', pod('p', ['10.0.0.1'], { sinceMs: 1000 }), 4000)));
    assert.deepEqual(back.addresses, [
      { ip: '10.0.0.1', network: 'east', sinceMs: 1000, untilMs: 3000 },
      { ip: '10.0.0.1', network: 'east', sinceMs: 4000 },
    ]);
  });

  test('a pod that waited for its address has it since the time the pod itself names', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', [], { sinceMs: 1000 })], 2000);
    const changed = workloadOf(only(state.change('a', pod('p', ['10.0.0.1'], { sinceMs: 1500 }), 3000)));
    assert.deepEqual(changed.addresses, [{ ip: '10.0.0.1', network: 'east', sinceMs: 1500 }]);
  });

  test('what is gone is published with its end, and a tombstone follows after the retention', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 }), namespace('shop')], 2000);
    const ended = state.snapshot('a', [], 5000);
    assert.equal(ended.length, 2);
    const workload = workloadOf(ended.find(({ event }) => event?.type === 'workload')!);
    assert.equal(workload.untilMs, 5000);
    assert.equal(workload.addresses[0]?.untilMs, 5000);
    assert.equal(ended.find(({ event }) => event?.type === 'namespace')?.endedMs, 5000);
    assert.deepEqual(state.expire(5000 + endedRetentionMs - 1), []);
    const tombstones = state.expire(5000 + endedRetentionMs);
    assert.deepEqual(
      tombstones.map(({ key, event }) => [key, event]),
      [
        ['workload/east/pod/p', null],
        ['namespace/east/shop', null],
      ],
    );
    assert.deepEqual([...state.entities()], []);
  });

  test('a range that is gone is taken away at once', () => {
    const state = stateOf('a');
    const range: InventoryEvent = {
      v: 1,
      type: 'range',
      name: 'partner',
      network: 'default',
      cidrs: ['203.0.113.0/24'],
      zone: 'outside',
      labels: {},
    };
    state.snapshot('a', [range], 1000);
    assert.deepEqual(only(state.snapshot('a', [], 2000)), {
      key: 'range/default/partner',
      event: null,
      source: 'a',
      endedMs: 2000,
    });
  });

  test('a finished pod keeps its first known end while it is listed, and does not come back after its tombstone', () => {
    const state = stateOf('a');
    const finished = (untilMs: number) =>
      pod('job', [], {
        sinceMs: 1000,
        untilMs,
        addresses: [{ ip: '10.0.0.1', network: 'east', sinceMs: 1000, untilMs }],
      });
    assert.equal(workloadOf(only(state.snapshot('a', [finished(4000)], 5000))).untilMs, 4000);
    assert.deepEqual(state.snapshot('a', [finished(6000)], 7000), []);
    assert.equal(state.expire(4000 + endedRetentionMs).length, 1);
    assert.deepEqual(state.snapshot('a', [finished(4000)], 4000 + endedRetentionMs + 1), []);
    // Nor does its later disappearance say anything.
    assert.deepEqual(state.snapshot('a', [], 4000 + endedRetentionMs + 2), []);
  });

  test('an entity that comes back after it was gone is alive again', () => {
    const state = stateOf('a');
    const event = namespace('shop');
    state.snapshot('a', [event], 1000);
    state.snapshot('a', [], 2000);
    assert.equal(only(state.snapshot('a', [event], 3000)).endedMs, null);
    assert.deepEqual(state.expire(2000 + endedRetentionMs), []);
  });

  test('ended addresses of a long-lived entity leave it after the retention, and are bounded in number', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1 })], 10);
    let last: Publication | undefined;
    for (let i = 1; i <= 200; i++)
      last = only(state.change('a', pod('p', [`10.0.1.${i}`], { sinceMs: 1 }), 10 + i));
    assert.equal(workloadOf(last!).addresses.length, 65);
    const later = only(state.change('a', pod('p', ['10.0.2.1'], { sinceMs: 1 }), 300 + endedRetentionMs));
    assert.deepEqual(
      workloadOf(later).addresses.map(({ ip }) => ip),
      ['10.0.1.200', '10.0.2.1'],
    );
  });
});

describe('who owns what', () => {
  test('a source ends nothing that another source published', () => {
    const state = stateOf('a', 'b');
    state.snapshot('a', [pod('p', ['10.0.0.1'])], 1000);
    state.snapshot('b', [pod('q', ['10.0.0.2'])], 1000);
    assert.deepEqual(
      state.snapshot('b', [], 2000).map(({ key }) => key),
      ['workload/east/pod/q'],
    );
    assert.deepEqual(state.gone('b', 'workload/east/pod/p', 2000), []);
  });

  test('a source that speaks of what another source here owns is counted and not heard, until that one lets it go', () => {
    const state = stateOf('a', 'b');
    const event = pod('p', ['10.0.0.1']);
    state.snapshot('a', [event], 1000);
    assert.deepEqual(state.snapshot('b', [event], 1000), []);
    assert.equal(state.contestedCount, 1);
    assert.deepEqual(state.takeContested(), [{ key: 'workload/east/pod/p', owner: 'a', source: 'b' }]);
    state.snapshot('a', [], 2000);
    const taken = only(state.snapshot('b', [event], 3000));
    assert.equal(taken.source, 'b');
    assert.equal(taken.endedMs, null);
  });

  test('what a source of another name left is taken over with its history', () => {
    const state = stateOf('new');
    const event = pod('p', ['10.0.0.1'], { sinceMs: 500 });
    state.restore({ key: inventoryKey(event), event, source: 'old', endedMs: null });
    const taken = only(state.snapshot('new', [pod('p', ['10.0.0.1'])], 9000));
    assert.equal(taken.source, 'new');
    assert.equal(workloadOf(taken).sinceMs, 500);
    assert.deepEqual(state.snapshot('old', [], 9001), []);
  });
});

describe('times that are not now', () => {
  test('what was lost from sight while nobody looked ends right after the last moment at which all was seen', () => {
    const state = stateOf('a');
    const [p, q] = [pod('p', ['10.0.0.1'], { sinceMs: 1000 }), pod('q', ['10.0.0.2'], { sinceMs: 1000 })];
    state.snapshot('a', [p, q], 5000);
    const readdressed = pod('q', ['10.0.0.3'], { sinceMs: 1000 });
    const back = state.snapshot('a', [readdressed], 9000, 6000);
    const byUid = new Map(back.map((publication) => [workloadOf(publication).uid, workloadOf(publication)]));
    assert.equal(byUid.get('p')?.untilMs, 6001);
    assert.deepEqual(byUid.get('p')?.addresses, [
      { ip: '10.0.0.1', network: 'east', sinceMs: 1000, untilMs: 6001 },
    ]);
    assert.deepEqual(byUid.get('q')?.addresses, [
      { ip: '10.0.0.2', network: 'east', sinceMs: 1000, untilMs: 6001 },
      { ip: '10.0.0.3', network: 'east', sinceMs: 9000 },
    ]);
  });

  test('a pod that came and went while nobody looked never ends before it began', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 7000 })], 7500);
    const gone = workloadOf(only(state.snapshot('a', [], 9000, 6000)));
    assert.equal(gone.untilMs, 7000);
    assert.equal(gone.addresses[0]?.untilMs, 7000);
  });

  test('an address that passes from one pod to the next within a millisecond has both, one after the other', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 1000);
    const gone = workloadOf(only(state.gone('a', 'workload/east/pod/p', 2000)));
    const next = workloadOf(only(state.change('a', pod('q', ['10.0.0.1'], { sinceMs: 2000 }), 2000)));
    assert.equal(gone.addresses[0]?.untilMs, next.addresses[0]?.sinceMs);
  });

  test('an address that comes back with a time before its last end begins at that end', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 1000);
    state.change('a', pod('p', [], { sinceMs: 1000 }), 5000);
    const back = workloadOf(only(state.change('a', pod('p', ['10.0.0.1'], { sinceMs: 1000 }), 6000, 4000)));
    assert.deepEqual(back.addresses, [
      { ip: '10.0.0.1', network: 'east', sinceMs: 1000, untilMs: 5000 },
      { ip: '10.0.0.1', network: 'east', sinceMs: 5000 },
    ]);
  });

  test('any order of sayings, with any times, leaves intervals that neither overlap nor end before they begin', () => {
    const saying = fc.record({
      kind: fc.constantFrom('change', 'gone', 'snapshot'),
      uid: fc.constantFrom('p', 'q'),
      ips: fc.uniqueArray(fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'), { maxLength: 3 }),
      sinceMs: fc.constantFrom(0, 100, 5000),
      passMs: fc.constantFrom(0, 1, 1000),
      /** How long before it was heard it was so; negative: by a clock that is ahead. */
      lateMs: fc.option(fc.constantFrom(-500, 0, 1, 10_000), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(saying, { minLength: 1, maxLength: 20 }), (sayings) => {
        const state = stateOf('a');
        const newest = new Map<string, readonly string[] | null>();
        let nowMs = 50_000;
        state.snapshot('a', [], nowMs);
        for (const { kind, uid, ips, sinceMs, passMs, lateMs } of sayings) {
          nowMs += passMs;
          const atMs = lateMs === undefined ? undefined : nowMs - lateMs;
          const key = `workload/east/pod/${uid}`;
          const event = pod(uid, ips, { sinceMs });
          if (kind === 'change') state.change('a', event, nowMs, atMs);
          else if (kind === 'gone') state.gone('a', key, atMs ?? nowMs);
          else state.snapshot('a', [event], nowMs, atMs);
          if (kind === 'snapshot') newest.clear();
          newest.set(key, kind === 'gone' ? null : [...ips].sort());
        }
        for (const { key, event, endedMs } of state.entities()) {
          assert.ok(event?.type === 'workload');
          checkIntervals(event);
          const said = newest.get(key) ?? null;
          assert.equal(endedMs === null, said !== null, key);
          assert.deepEqual(openIps(event), said ?? []);
          assert.ok(endedMs === null || event.sinceMs <= endedMs);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('a source that hears of changes, after a time in which it heard nothing', () => {
  const at = (sinceMs: number, more: Partial<AddressInterval> = {}): AddressInterval => ({
    ip: '10.0.0.1',
    network: 'east',
    sinceMs,
    ...more,
  });
  const changedAt = (ms: number | null) => (): number | null => ms;

  test('an end that was told after the last moment at which all was seen is in doubt from there, also of what is gone', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 5000);
    state.gone('a', 'workload/east/pod/p', 7000);
    const doubtful = workloadOf(only(state.snapshot('a', [], 9000, 6000, changedAt(null))));
    assert.equal(doubtful.untilMs, 7000);
    assert.deepEqual(doubtful.addresses, [
      at(1000, { untilMs: 6001 }),
      at(6001, { untilMs: 7000, certainFromMs: 7000 }),
    ]);
    assert.deepEqual(state.snapshot('a', [], 9500, 6000, changedAt(null)), []);
    assert.deepEqual(state.snapshot('a', [], 9500, 8000, changedAt(null)), []);
  });

  test('so is the end of an address that moved, whether its owner is there or gone', () => {
    for (const isThere of [true, false]) {
      const state = stateOf('a');
      state.snapshot('a', [pod('p', ['10.0.0.1'], { sinceMs: 1000 })], 5000);
      const moved = pod('p', ['10.0.0.2'], { sinceMs: 1000 });
      state.change('a', moved, 7000);
      const back = workloadOf(only(state.snapshot('a', isThere ? [moved] : [], 9000, 6000, changedAt(5900))));
      const doubtful = at(6001, { untilMs: 7000, certainFromMs: 7000 });
      assert.deepEqual(back.addresses.slice(0, 2), [at(1000, { untilMs: 6001 }), doubtful]);
    }
  });

  test('what was changed meanwhile is certain up to then and from then on, what was not throughout', () => {
    const state = stateOf('a');
    const p = pod('p', ['10.0.0.1'], { sinceMs: 1000 });
    state.snapshot('a', [p], 5000);
    assert.deepEqual(state.snapshot('a', [p], 9000, 6000, changedAt(5900)), []);
    const changed = workloadOf(only(state.snapshot('a', [p], 9000, 6000, changedAt(7000))));
    assert.deepEqual(changed.addresses, [at(1000, { untilMs: 6001 }), at(6001, { certainFromMs: 7000 })]);
    assert.deepEqual(state.snapshot('a', [p], 9500, 6000, changedAt(7000)), []);
  });

  test('an address that did not stand there came after all was seen, however long its owner was there before', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', [], { sinceMs: 1000 })], 5000);
    const [q, p] = [pod('q', ['10.0.0.2'], { sinceMs: 8000 }), pod('p', ['10.0.0.1'], { sinceMs: 1000 })];
    const back = state.snapshot('a', [q, p], 9000, 6000, (event) => (event === p ? 7000 : 5900));
    assert.deepEqual(
      back.flatMap((publication) => workloadOf(publication).addresses),
      [
        { ip: '10.0.0.2', network: 'east', sinceMs: 8000, certainFromMs: 9000 },
        at(6001, { certainFromMs: 7000 }),
      ],
    );
  });

  test('a label that is only taken away may have been there until now', () => {
    const state = stateOf('a');
    state.snapshot('a', [pod('p', [], { sinceMs: 1000, labels: { role: 'x' } })], 5000);
    const back = state.snapshot('a', [pod('p', [], { sinceMs: 1000 })], 9000, 6000, changedAt(7000));
    const former = { untilMs: 9000, knownToMs: 6001, labels: { role: 'x' }, annotations: {} };
    assert.deepEqual(workloadOf(only(back)).former, [former]);
  });

  test('what was never vouched for is in doubt as a whole', () => {
    const state = stateOf('a');
    const [p, q] = [pod('p', ['10.0.0.1'], { sinceMs: 1000 }), pod('q', ['10.0.0.2'], { sinceMs: 1000 })];
    for (const { key, event } of stateOf('a').snapshot('a', [p, q], 5000))
      state.restore({ key, event, source: 'a', endedMs: null });
    const back = state.snapshot('a', [p], 9000, 0, changedAt(2000));
    assert.deepEqual(
      back.flatMap((publication) => workloadOf(publication).addresses),
      [{ ip: '10.0.0.2', network: 'east', sinceMs: 1000, untilMs: 1000 }, at(1000, { certainFromMs: 2000 })],
    );
  });
});

describe('things that are not workloads', () => {
  test('a network policy ends with its time', () => {
    const state = stateOf('a');
    const policy: InventoryEvent = {
      v: 1,
      type: 'network-policy',
      cluster: 'east',
      uid: 'u',
      namespace: 'shop',
      name: 'deny',
      labels: {},
      spec: { podSelector: {} },
      sinceMs: 500,
    };
    state.snapshot('a', [policy], 1000);
    const ended = only(state.snapshot('a', [], 2000));
    assert.equal(ended.event?.type === 'network-policy' && ended.event.untilMs, 2000);
    assert.equal(ended.endedMs, 2000);
  });

  test('a listed name keeps the addresses it had, and is taken away at once when it is no longer listed', () => {
    const state = stateOf('a');
    const name = (ip: string, sinceMs: number): InventoryEvent => ({
      v: 1,
      type: 'name',
      name: 'payments',
      dns: ['pay.example.com'],
      zone: 'outside',
      labels: {},
      addresses: [{ ip, network: 'default', sinceMs }],
    });
    state.snapshot('a', [name('203.0.113.1', 1000)], 1000);
    const moved = only(state.snapshot('a', [name('203.0.113.2', 2000)], 2000)).event;
    assert.deepEqual(moved?.type === 'name' && moved.addresses, [
      { ip: '203.0.113.1', network: 'default', sinceMs: 1000, untilMs: 2000 },
      { ip: '203.0.113.2', network: 'default', sinceMs: 2000 },
    ]);
    assert.equal(only(state.snapshot('a', [], 3000)).event, null);
  });

  test('the id of a cluster outlives a restart and a source that cannot tell it', () => {
    const cluster = (uid?: string): InventoryEvent => ({
      v: 1,
      type: 'cluster',
      cluster: 'east',
      podCidrs: [],
      serviceCidrs: [],
      ...(uid === undefined ? {} : { uid }),
    });
    const state = stateOf('a');
    state.restore(only(stateOf('a').snapshot('a', [cluster('one')], 1000)));
    assert.deepEqual(state.snapshot('a', [cluster()], 2000), []);
    const found = state.find('cluster/east')?.event;
    assert.equal(found?.type === 'cluster' && found.uid, 'one');
    const other = only(state.snapshot('a', [cluster('two')], 3000)).event;
    assert.equal(other?.type === 'cluster' && other.uid, 'two');
  });
});

test('what another process published under a name takes the place of what was known of that source, and of nothing else', () => {
  const state = stateOf('a', 'b');
  state.snapshot('a', [pod('old', ['10.0.0.1']), pod('kept', ['10.0.0.2'])], 1000);
  state.snapshot('b', [pod('other', ['10.0.0.3'])], 1000);
  const [kept] = stateOf('a').snapshot('a', [pod('kept', ['10.0.0.9'])], 1500);
  const [added] = stateOf('a').snapshot('a', [pod('added', ['10.0.0.4'])], 1500);
  state.replace('a', [kept!, added!]);
  assert.deepEqual([...state.entities()].map(({ key, source }) => [key.split('/').at(-1), source]).sort(), [
    ['added', 'a'],
    ['kept', 'a'],
    ['other', 'b'],
  ]);
  // What the other process published and is no more is ended, as by the process itself.
  assert.deepEqual(
    state.snapshot('a', [pod('kept', ['10.0.0.9'])], 2000).map(({ key }) => key),
    ['workload/east/pod/added'],
  );
});

/** What a source may say in one snapshot: entity number -> addresses it has, or ended. */
const said = fc.dictionary(
  fc.constantFrom('0', '1', '2', '3'),
  fc.record({
    ips: fc.uniqueArray(fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'), { maxLength: 3 }),
    isEnded: fc.boolean(),
    label: fc.constantFrom('x', 'y'),
    type: fc.constantFrom('pod', 'service', 'namespace', 'range'),
    sinceMs: fc.constantFrom(0, 100, 200),
  }),
);
const step = fc.record({
  source: fc.constantFrom('a', 'b'),
  said,
  restart: fc.boolean(),
  passMs: fc.constantFrom(0, 1, 1000, 13 * hourMs),
});

type Said = typeof said extends fc.Arbitrary<infer T> ? T : never;

function eventsOf(source: string, snapshot: Said, nowMs: number): InventoryEvent[] {
  return Object.entries(snapshot).map(([number, { ips, isEnded, label, type, sinceMs }]): InventoryEvent => {
    const name = `${source}${number}`;
    const labels = { label };
    const addresses: AddressInterval[] = ips.map((ip) => ({
      ip,
      network: 'east',
      sinceMs,
      ...(isEnded ? { untilMs: nowMs } : {}),
    }));
    if (type === 'namespace') return { ...namespace(name), labels } as InventoryEvent;
    if (type === 'range') {
      return { v: 1, type: 'range', name, network: 'default', cidrs: ['10.0.0.0/8'], zone: 'inside', labels };
    }
    if (type === 'service') {
      const service: ServiceEvent = {
        v: 1,
        type: 'service',
        cluster: 'east',
        uid: name,
        name,
        namespace: 'shop',
        labels,
        annotations: {},
        selector: {},
        addresses: ips.map((ip) => ({ ip, network: 'east', sinceMs })),
        ports: [],
        sinceMs,
      };
      return service;
    }
    return pod(name, [], { labels, addresses, sinceMs, ...(isEnded ? { untilMs: nowMs } : {}) });
  });
}

function checkIntervals(event: InventoryEvent): void {
  if (event.type !== 'workload' && event.type !== 'service') return;
  for (const { sinceMs, untilMs } of event.addresses) assert.ok(untilMs === undefined || sinceMs <= untilMs);
  const byAddress = Map.groupBy(event.addresses, ({ ip, network }) => `${network} ${ip}`);
  for (const list of byAddress.values()) {
    const sorted = [...list].sort((x, y) => x.sinceMs - y.sinceMs);
    for (const [i, interval] of sorted.slice(0, -1).entries()) {
      assert.ok(
        interval.untilMs !== undefined && interval.untilMs <= sorted[i + 1]!.sinceMs,
        'intervals overlap',
      );
    }
  }
}

function openIps(event: InventoryEvent): string[] {
  if (event.type !== 'workload' && event.type !== 'service') return [];
  return event.addresses.flatMap(({ ip, untilMs }) => (untilMs === undefined ? [ip] : [])).sort();
}

function labelsOf(event: InventoryEvent): Record<string, string> {
  return 'labels' in event ? event.labels : {};
}

describe('any sequence of snapshots', () => {
  test('leaves the topic with the newest snapshot of each source, and beside it only what has ended lately', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const topic = new Map<string, Publication>();
        const newest = new Map<string, InventoryEvent[]>();
        let nowMs = 1_000_000;
        let state = stateOf('a', 'b');
        const publish = (publications: readonly Publication[]): void => {
          for (const publication of publications) {
            if (publication.event === null) topic.delete(publication.key);
            else topic.set(publication.key, publication);
          }
        };
        for (const { source, said: snapshot, restart, passMs } of steps) {
          nowMs += passMs;
          if (restart) {
            state = stateOf('a', 'b');
            for (const publication of topic.values()) state.restore(publication);
          }
          publish(state.expire(nowMs));
          const events = eventsOf(source, snapshot, nowMs);
          newest.set(source, events);
          publish(state.snapshot(source, events, nowMs));
        }
        const liveKeys = new Set<string>();
        for (const [source, events] of newest) {
          for (const observed of events) {
            const key = inventoryKey(observed);
            const published = topic.get(key);
            if (endOf(observed) !== null) continue;
            liveKeys.add(key);
            assert.equal(published?.source, source, key);
            assert.equal(published?.endedMs, null);
            assert.deepEqual(openIps(published!.event!), openIps(observed));
            assert.deepEqual(labelsOf(published!.event!), labelsOf(observed));
          }
        }
        for (const [key, { event, endedMs }] of topic) {
          checkIntervals(event!);
          if (liveKeys.has(key)) continue;
          assert.notEqual(endedMs, null, `${key} is alive though no source names it`);
          assert.deepEqual(openIps(event!), []);
          assert.ok(endedMs! + endedRetentionMs > nowMs - 13 * hourMs);
        }
        assert.deepEqual(
          new Map([...state.entities()].map((known) => [known.key, known.event])),
          new Map([...topic].map(([key, { event }]) => [key, event])),
        );
      }),
      { numRuns: 300 },
    );
  });
});
