import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Bus } from '../../lib/bus/bus.ts';
import { agreeOnCount } from './agreement.ts';
import { homeOf } from './home.ts';
import { decodeMark, encodeMark } from './plan.ts';

test('an agent is at home in one partition of each number', () => {
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 64 }), (agentId, partitionCount) => {
      const homes = Array.from({ length: partitionCount }, (_, partition) => ({ partition, partitionCount }));
      assert.equal(homes.filter((home) => homeOf(agentId, home) === home.partition).length, 1);
    }),
  );
});

/** A bus with this many partitions, of which each has this count committed. */
function busOf(marks: number[]): Pick<Bus, 'positions'> {
  return {
    positions: async () =>
      marks.map((partitionCount, partition) => ({
        partition,
        earliest: 0,
        next: 0,
        committed:
          partitionCount === 0 ? null : { offset: 0, metadata: encodeMark({ plan: null, partitionCount }) },
      })),
  };
}

test('a partition goes on only when all reckon with the number of partitions that there are', async () => {
  const marks = [3, 3, 3, 0, 0];
  const steps: string[] = [];
  const holders = marks.map((partitionCount, partition) => ({
    home: { partition, partitionCount },
    async adopt(count: number) {
      steps.push(`${partition} adopts ${count}`);
      marks[partition] = count;
      this.home = { partition, partitionCount: count };
    },
  }));
  const { signal } = new AbortController();
  await Promise.all(
    holders.map(async (holder, partition) => {
      await agreeOnCount(busOf(marks), 'flows', holder, signal);
      steps.push(`${partition} goes on`);
    }),
  );
  assert.equal(steps.length, 10);
  assert.ok(
    steps.slice(0, 5).every((step) => step.endsWith('adopts 5')),
    steps.join('; '),
  );
});

test('what is known already is not unlearned from a broker that is behind', async () => {
  const marks = [3, 6];
  const adopted: number[] = [];
  const holder = {
    home: { partition: 0, partitionCount: 3 },
    async adopt(count: number) {
      adopted.push(count);
      marks.splice(0, 6, 6, 6, 6, 6, 6, 6);
      this.home = { partition: 0, partitionCount: count };
    },
  };
  await agreeOnCount(busOf(marks), 'flows', holder, new AbortController().signal);
  assert.deepEqual(adopted, [6]);
  assert.equal(decodeMark(encodeMark({ plan: null, partitionCount: 6 })).partitionCount, 6);
});
