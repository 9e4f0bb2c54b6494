import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { BusMessage } from '../../../lib/bus/bus.ts';
import { type PutWorkload, putKey, replacedKey, tidiedHeader } from '../../../schemas/workload-put.ts';
import { PutState } from './put-state.ts';

let state: PutState;
let offset: number;
const time = { nowMs: 10_000, vouchedMs: 0 };

function message(
  key: string,
  value: object | string | null,
  headers: Record<string, string> = {},
): BusMessage {
  const bytes =
    value === null ? null : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
  return { offset: offset++, timestampMs: 5000, key, value: bytes, headers };
}

function workload(id: string, more: Partial<PutWorkload> = {}): PutWorkload {
  return {
    v: 1,
    source: 'cmdb',
    put: 'p1',
    putMs: 1000,
    id,
    name: id,
    kind: 'vm',
    group: '',
    addresses: [{ ip: '10.0.0.1', network: 'default' }],
    labels: {},
    annotations: {},
    ...more,
  };
}

function put(said: PutWorkload): void {
  state.take(message(putKey(said.source, said.id), said), time);
}

function replaced(putId: string, source = 'cmdb'): void {
  state.take(message(replacedKey(source), { v: 1, source, put: putId, putMs: 2000 }), time);
}

/** `+vm/a` for a new or different one, `-vm/a@end` for one that has ended. */
function news(): string {
  return state
    .settle()
    .map((one) => {
      const key = one.key.replace('workload//', '');
      return one.event === null ? `-${key}@${one.endedMs}` : `+${key}`;
    })
    .join(' ');
}

beforeEach(() => {
  state = new PutState({ maxWorkloadCount: 3 });
  offset = 0;
});

test('what is put is news once, and again when it says something else', () => {
  put(workload('a'));
  assert.equal(news(), '+vm/a');
  put(workload('a', { put: 'p2', putMs: 1500, untilMs: 99_000 }));
  assert.equal(news(), '');
  put(workload('a', { put: 'p3', labels: { app: 'x' } }));
  assert.equal(news(), '+vm/a');
});

test('a workload begins when it was put, but never in what was vouched for, nor in the future', () => {
  const begin = (id: string): number | undefined => state.events().find((event) => event.uid === id)?.sinceMs;
  put(workload('a', { putMs: 9000 }));
  assert.equal(begin('a'), 9000);
  state.take(message('cmdb/b', workload('b', { putMs: 9000 })), { nowMs: 10_000, vouchedMs: 9500 });
  assert.equal(begin('b'), 9501);
  put(workload('c', { putMs: 99_000 }));
  assert.equal(begin('c'), 10_000);
});

test('a replacing request ends what its source put before and nothing else, also when it is read again later', () => {
  put(workload('a'));
  put(workload('b'));
  put(workload('x', { source: 'cloud' }));
  news();
  put(workload('b', { put: 'p2' }));
  replaced('p2');
  assert.equal(news(), '-vm/a@2000');
  put(workload('c', { put: 'p3' }));
  assert.equal(news(), '+vm/c');
  assert.deepEqual(
    state.events().map(({ uid }) => uid),
    ['b', 'x', 'c'],
  );
});

test('a lifetime passes at its end, unless it was put again', () => {
  put(workload('a', { untilMs: 11_000 }));
  put(workload('b', { untilMs: 12_000 }));
  news();
  assert.equal(state.nextEndMs, 11_000);
  put(workload('a', { untilMs: 15_000, put: 'p2' }));
  state.expire(13_000);
  assert.equal(news(), '-vm/b@12000');
  assert.equal(state.nextEndMs, 15_000);
  state.expire(15_000);
  assert.equal(news(), '-vm/a@15000');
  assert.equal(state.nextEndMs, Number.POSITIVE_INFINITY);
  put(workload('a', { put: 'p3' }));
  assert.equal(news(), '+vm/a');
});

test('a tombstone ends it, also where its begin was never heard', () => {
  put(workload('a'));
  news();
  state.take(message('cmdb/a', null), time);
  assert.equal(news(), '-vm/a@5000');
  state.take(message('cmdb/gone', null), time);
  assert.equal(news(), '-vm/gone@5000 -host/gone@5000');
});

test('another kind is another workload', () => {
  put(workload('a'));
  news();
  put(workload('a', { kind: 'host', put: 'p2', putMs: 3000 }));
  assert.equal(news(), '-vm/a@3000 +host/a');
});

test('of two sources that put one workload the first by name counts, in any order, and the other takes over', () => {
  put(workload('a', { source: 'vcenter', name: 'theirs' }));
  put(workload('a', { source: 'cmdb', name: 'ours' }));
  news();
  assert.deepEqual(
    state.events().map(({ name }) => name),
    ['ours'],
  );
  assert.match(state.problems().join(), /workload a: put by cmdb and by vcenter; what cmdb says counts/);
  state.take(message('cmdb/a', null), time);
  assert.equal(news(), '+vm/a');
  assert.deepEqual(
    state.events().map(({ name }) => name),
    ['theirs'],
  );
  assert.deepEqual(state.problems(), []);
});

test('a message that cannot be read is a problem and ends nothing, until it can', () => {
  put(workload('a'));
  news();
  for (const value of [
    '{',
    JSON.stringify({ ...workload('a'), kind: 'pod' }),
    JSON.stringify(workload('b')),
  ]) {
    state.take(message('cmdb/a', value), time);
    assert.equal(news(), '');
    assert.equal(state.problems().length, 1);
    assert.match(state.problems()[0] ?? '', /^message cmdb\/a: /);
  }
  put(workload('a'));
  assert.deepEqual(state.problems(), []);
});

test('workloads over the limit are named and not taken, until there is room', () => {
  for (const id of ['a', 'b', 'c', 'd']) put(workload(id));
  assert.equal(state.events().length, 3);
  assert.match(state.problems().join(), /workload cmdb\/d: over the limit of 3/);
  state.take(message('cmdb/a', null), time);
  put(workload('d'));
  assert.equal(state.events().length, 3);
  assert.deepEqual(state.problems(), []);
});

test('what ended long ago is tidied away; what was put again meanwhile is given back to the topic', () => {
  put(workload('a', { untilMs: 11_000 }));
  put(workload('b', { untilMs: 20_000 }));
  state.expire(11_000);
  assert.deepEqual(state.tidyings(10_999, 10), []);
  assert.deepEqual(state.tidyings(11_000, 10), [{ key: 'cmdb/a', put: 'p1' }]);
  const again = workload('a', { put: 'p2' });
  put(again);
  assert.deepEqual(state.take(message('cmdb/a', null, { [tidiedHeader]: 'p1' }), time), again);
  assert.equal(state.events().length, 2);
  state.expire(20_000);
  assert.equal(state.take(message('cmdb/b', null, { [tidiedHeader]: 'p1' }), time), null);
  assert.deepEqual(state.tidyings(30_000, 10), []);
});
