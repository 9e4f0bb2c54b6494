import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeMark, encodeMark, insertToken } from './plan.ts';

test('a plan and the number of partitions survive the metadata of the offset', () => {
  for (const plan of [null, { from: 7, to: 9 }])
    assert.deepEqual(decodeMark(encodeMark({ plan, partitionCount: 4 })), { plan, partitionCount: 4 });
});

test('metadata of others says nothing', () => {
  for (const text of ['', 'x', '[]', 'null', '{"plan":[3]}', '{"plan":[9,7]}', '{"plan":["1","2"],"of":"4"}'])
    assert.deepEqual(decodeMark(text), { plan: null, partitionCount: 0 }, text);
});

test('the token is the range, so that the same range is taken once', () => {
  assert.equal(insertToken({ topic: 'flows', partition: 3 }, { from: 7, to: 9 }), 'flows/3/7-9');
});
