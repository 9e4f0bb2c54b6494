import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { endAgesOf } from './ages.ts';

const observedToMs = 1_700_000_000_000;

function agesOf(ages: readonly number[], firstRow = 0) {
  const columns = {
    startMs: Float64Array.from([...Array(firstRow).fill(0), ...ages.map((age) => observedToMs - age - 25)]),
    durationMs: Uint32Array.from([...Array(firstRow).fill(0), ...ages.map(() => 25)]),
  };
  return endAgesOf(columns, firstRow, ages.length, observedToMs);
}

test('each flow is counted with its age, off by a sixteenth at most', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 86_400_000 }), { maxLength: 50 }),
      fc.nat({ max: 3 }),
      (ages, firstRow) => {
        const { agesMs, flowCounts } = agesOf(ages, firstRow);
        const told = agesMs.flatMap((age, index) => Array<number>(flowCounts[index] ?? 0).fill(age));
        const sorted = [...ages].sort((a, b) => a - b);
        assert.equal(told.length, sorted.length);
        for (const [index, age] of sorted.entries())
          assert.ok(Math.abs((told[index] ?? -1) - age) <= age / 16, `${age} became ${told[index]}`);
      },
    ),
  );
});

test('a batch of many flows has few classes, and leaves nothing to the next', () => {
  const many = Array.from({ length: 20_000 }, (_, index) => index / 2);
  assert.ok(agesOf(many).agesMs.length < 100);
  assert.deepEqual(agesOf([3, 3, -5]), { agesMs: [0, 3], flowCounts: [1, 2] });
  assert.deepEqual(agesOf([]), { agesMs: [], flowCounts: [] });
});

test('an impossible age is the oldest there is', () => {
  const { agesMs, flowCounts } = agesOf([1e15]);
  assert.deepEqual(flowCounts, [1]);
  assert.ok((agesMs[0] ?? 0) > 2e9);
});
