import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SeenBatches, SequenceSet } from './sequences.ts';

test('each number is new exactly once, in whatever order', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 40 })), (numbers) => {
      const set = new SequenceSet();
      const model = new Set<number>();
      for (const number of numbers) {
        assert.equal(set.add(number), !model.has(number));
        model.add(number);
      }
      const listed = set
        .ranges()
        .flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i));
      assert.deepEqual(
        listed,
        [...model].sort((a, b) => a - b),
      );
    }),
    { numRuns: 1000 },
  );
});

test('a million numbers in a row are one range', () => {
  const set = new SequenceSet();
  for (let i = 1; i <= 1_000_000; i++) set.add(i);
  assert.deepEqual(set.ranges(), [[1, 1_000_000]]);
});

test('boots are told apart, and the least recently used go beyond the limit', () => {
  const seen = new SeenBatches(2);
  assert.equal(seen.add('a', '1', 1), true);
  assert.equal(seen.add('a', '2', 1), true);
  assert.equal(seen.add('a', '1', 1), false);
  assert.equal(seen.add('b', '1', 1), true);
  assert.equal(seen.evictedCount, 1);
  assert.equal(seen.add('a', '1', 1), false);
});
