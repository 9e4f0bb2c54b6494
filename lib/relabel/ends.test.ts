import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Profile } from '../../schemas/policy.ts';
import { type InventoryEvent, inventoryKey } from '../inventory/events.ts';
import { type IdentityContent, identityId, workloadId } from '../inventory/ids.ts';
import { Inventory } from '../inventory/inventory.ts';
import { makeLabeller } from '../policy/profiles.ts';
import { EndNamer } from './ends.ts';

const profiles: Profile[] = [
  { name: 'all', match: {}, assign: { app: 'new' }, map: [{ key: 'role', from: { label: 'role' } }] },
];

function labelsThen(untilMs: number, role: string) {
  return { untilMs, labels: { role }, annotations: {} };
}

function pod(former: ReturnType<typeof labelsThen>[], role: string): InventoryEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid: 'u',
    name: 'p',
    namespace: 'n',
    node: '',
    hostNetwork: false,
    labels: { role },
    annotations: {},
    addresses: [],
    sinceMs: 1000,
    former,
  };
}

function service(uid: string, role: string, sinceMs: number): InventoryEvent {
  const labels = { role };
  return {
    v: 1,
    type: 'service',
    cluster: 'east',
    uid,
    name: 's',
    namespace: 'n',
    labels,
    annotations: {},
    selector: {},
    addresses: [],
    ports: [],
    sinceMs,
  };
}

function namer(...events: InventoryEvent[]): EndNamer {
  const inventory = new Inventory({ maxIntervalsPerAddress: 2, labelsOf: makeLabeller(profiles) });
  for (const event of events) inventory.apply(inventoryKey(event), event);
  return new EndNamer(inventory);
}

function content(kind: string, labels: Record<string, string>, name = ''): IdentityContent {
  return { kind, cluster: 'east', namespace: 'n', name, zone: 'inside', labels };
}

function idOf(kind: string, labels: Record<string, string>, name = ''): bigint {
  return identityId(content(kind, labels, name));
}

const workload = workloadId('east', 'pod', 'u');
const asStored = (role: string) => content('pod', { app: 'old', role });
const named = (role: string): bigint => idOf('pod', { app: 'new', role });

/** Where each name begins. */
function periodsOf(of: EndNamer, role: string, sightings?: ReadonlyMap<bigint, readonly number[]>) {
  of.learn(identityId(asStored(role)), asStored(role));
  const { periods } = of.name({ workload, identity: identityId(asStored(role)) }, sightings);
  return periods.map(({ sinceS, id }) => [sinceS, id]);
}

test('an end is called what its workload was called at that time, by the present profiles', () => {
  const of = namer(pod([labelsThen(20_000, 'a'), labelsThen(30_000, 'b')], 'c'));
  const expected = [
    [0, named('a')],
    [20, named('b')],
    [30, named('c')],
  ];
  for (const role of ['a', 'b', 'c']) assert.deepEqual(periodsOf(of, role), expected);
  const end = { workload, identity: identityId(asStored('a')) };
  assert.equal(of.at(end, 19_999).id, named('a'));
  assert.equal(of.at(end, 20_000).id, named('b'));
});

test('in the second of a change, a row is of the time whose labels its own are like', () => {
  const of = namer(pod([labelsThen(20_400, 'a')], 'b'));
  assert.deepEqual(periodsOf(of, 'a'), [
    [0, named('a')],
    [21, named('b')],
  ]);
  assert.deepEqual(periodsOf(of, 'b'), [
    [0, named('a')],
    [20, named('b')],
  ]);
});

test('in the second of a change, rows before and after it tell more than labels', () => {
  const of = namer(pod([labelsThen(20_400, 'a')], 'b'));
  const stored = identityId(asStored('x'));
  const before = new Map([[stored, [18, 19, 20]]]);
  const after = new Map([[stored, [20, 25]]]);
  assert.deepEqual(periodsOf(of, 'x', before)[1], [21, named('b')]);
  assert.deepEqual(periodsOf(of, 'x', after)[1], [20, named('b')]);
});

test('after a second with several changes, the last one holds', () => {
  const of = namer(pod([labelsThen(20_100, 'a'), labelsThen(20_500, 'b'), labelsThen(20_700, 'c')], 'd'));
  for (const role of ['a', 'b', 'c', 'd']) {
    const periods = periodsOf(of, role);
    assert.deepEqual(periods.at(-1)?.[1], named('d'), role);
    assert.ok(Number(periods.at(-1)?.[0]) <= 21, role);
  }
});

test('only changes within a second leave doubt, and only in the seconds asked for', () => {
  const of = namer(pod([labelsThen(20_000, 'a'), labelsThen(30_500, 'b')], 'c'));
  const end = { workload, identity: named('a') };
  assert.equal(of.doubtful(end, 0, 30), null);
  assert.equal(of.doubtful(end, 30, 31), String(workload));
});

test('a service is found by its place and name, one after the other', () => {
  const of = namer(service('first', 'a', 1000), service('second', 'b', 50_000));
  const stored = content('service', { app: 'old' }, 's');
  of.learn(identityId(stored), stored);
  const { periods, known } = of.name({ workload: 0n, identity: identityId(stored) });
  assert.equal(known, true);
  assert.deepEqual(
    periods.map(({ sinceS, id }) => [sinceS, id]),
    [
      [0, idOf('service', { app: 'new', role: 'a' }, 's')],
      [50, idOf('service', { app: 'new', role: 'b' }, 's')],
    ],
  );
  assert.equal(of.at({ workload: 0n, identity: identityId(stored) }, 50_000).id, periods[1]?.id);
});

test('what is no longer in the inventory keeps its labels, and so do ranges, which no profile names', () => {
  const of = namer(pod([], 'a'));
  const gone = content('pod', { app: 'gone' });
  const range = content('range', {}, 'internet');
  for (const one of [gone, range]) of.learn(identityId(one), one);
  const ofGone = of.name({ workload: 5n, identity: identityId(gone) });
  assert.deepEqual([ofGone.known, ofGone.periods[0]?.id], [false, identityId(gone)]);
  const ofRange = of.name({ workload: 0n, identity: identityId(range) });
  assert.deepEqual([ofRange.known, ofRange.periods[0]?.id], [true, identityId(range)]);
});

test('an identity that the store knows nothing of stays what it is, and is judged as unknown', () => {
  const of = namer(pod([], 'a'));
  const { periods } = of.name({ workload: 0n, identity: 77n });
  assert.deepEqual(
    periods.map(({ id, index }) => [id, index]),
    [[77n, 0]],
  );
});
