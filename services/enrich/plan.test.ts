import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodePlan, encodePlan, insertToken } from './plan.ts';

test('a plan survives the metadata of the offset', () => {
  assert.deepEqual(decodePlan(encodePlan({ from: 7, to: 9 })), { from: 7, to: 9 });
});

test('metadata of others is no plan', () => {
  for (const text of ['', 'x', '[]', 'null', '{"plan":[3]}', '{"plan":[9,7]}', '{"plan":["1","2"]}']) {
    assert.equal(decodePlan(text), null, text);
  }
});

test('the token is the range, so that the same range is taken once', () => {
  assert.equal(insertToken({ topic: 'flows', partition: 3 }, { from: 7, to: 9 }), 'flows/3/7-9');
});
