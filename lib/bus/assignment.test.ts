import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assignPartitions } from './assignment.ts';

const partitionsOf = (count: number): { topic: string; partition: number }[] =>
  Array.from({ length: count }, (_, partition) => ({ topic: 't', partition }));
const membersOf = (ids: readonly string[]): { id: string; topics: string[] }[] =>
  ids.map((id) => ({ id, topics: ['t'] }));

test('every partition has one holder, loads differ by one at most, and no more moves than needed', () => {
  const ids = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 7 });
  fc.assert(
    fc.property(ids, ids, fc.integer({ min: 1, max: 30 }), (before, after, count) => {
      const first = assignPartitions(membersOf(before), partitionsOf(count), new Map());
      const second = assignPartitions(membersOf(after), partitionsOf(count), first);
      assert.equal(second.size, count);
      const loads = after.map((id) => [...second.values()].filter((owner) => owner === id).length);
      assert.ok(Math.max(...loads) - Math.min(...loads) <= 1);
      const orphans = [...first].filter(([, owner]) => !after.includes(owner)).length;
      const moved = [...first].filter(([key, owner]) => second.get(key) !== owner).length;
      // Beyond those that lost their holder, only what newcomers must get.
      const newcomers = after.filter((id) => !before.includes(id)).length;
      assert.ok(moved <= orphans + newcomers * Math.ceil(count / after.length));
    }),
  );
});

test('the same input gives the same result, in whatever order it comes', () => {
  const members = membersOf(['c', 'a', 'b']);
  const one = assignPartitions(members, partitionsOf(10), new Map());
  const other = assignPartitions([...members].reverse(), partitionsOf(10).reverse(), new Map());
  assert.deepEqual([...one].sort(), [...other].sort());
});

test('a member gets only partitions of topics that it reads', () => {
  const owners = assignPartitions(
    [
      { id: 'a', topics: ['t'] },
      { id: 'b', topics: ['u'] },
    ],
    [...partitionsOf(3), { topic: 'u', partition: 0 }, { topic: 'nobody', partition: 0 }],
    new Map([['u/0', 'a']]),
  );
  assert.deepEqual(Object.fromEntries(owners), { 't/0': 'a', 't/1': 'a', 't/2': 'a', 'u/0': 'b' });
});
