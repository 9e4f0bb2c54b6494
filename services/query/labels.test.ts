import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLabels } from './labels.ts';

test('label expressions are read term by term', () => {
  assert.deepEqual(parseLabels('app=payments, env=prod|uat,loc!=fra'), [
    { key: 'app', negated: false, values: ['payments'] },
    { key: 'env', negated: false, values: ['prod', 'uat'] },
    { key: 'loc', negated: true, values: ['fra'] },
  ]);
  assert.deepEqual(parseLabels('app='), [{ key: 'app', negated: false, values: [''] }]);
  assert.deepEqual(parseLabels('note=a=b'), [{ key: 'note', negated: false, values: ['a=b'] }]);
});

test('what is no expression is refused with the part that is wrong', () => {
  assert.deepEqual(parseLabels('app=a,env'), { wrong: '"env" is no term' });
  assert.deepEqual(parseLabels('=a'), { wrong: '"=a" is no term' });
  assert.ok('wrong' in parseLabels(Array.from({ length: 21 }, (_, index) => `k${index}=v`).join(',')));
  assert.ok('wrong' in parseLabels(`app=${Array.from({ length: 51 }, (_, index) => index).join('|')}`));
});
