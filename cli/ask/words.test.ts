import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  agoText,
  bytesText,
  countText,
  endpointText,
  kindText,
  marksText,
  shareText,
  whoText,
} from './words.ts';

test('a share that is not whole is never shown as whole', () => {
  assert.equal(shareText(1), '100 %');
  assert.equal(shareText(0.99999), '99.9 %');
  assert.equal(shareText(0), '0.0 %');
  assert.equal(shareText(null), '-');
});

test('numbers and times are short', () => {
  assert.equal(bytesText(0), '0 B');
  assert.equal(bytesText(1000), '1.0 kB');
  assert.equal(bytesText(999_999), '1.0 MB');
  assert.equal(bytesText(123_456_789), '123 MB');
  assert.equal(countText(1234567), '1,234,567');
  const nowMs = Date.parse('2026-02-01T12:00:00Z');
  assert.equal(agoText('2026-02-01T11:59:48Z', nowMs), '12s ago');
  assert.equal(agoText('2026-02-01T12:00:04Z', nowMs), 'now');
  assert.equal(agoText('2026-01-29T12:00:00Z', nowMs), '3d ago');
  assert.equal(agoText(null, nowMs), '-');
});

test('an end is called by its labels, else its name, else its address', () => {
  const end = {
    kind: 'pod',
    cluster: 'c1',
    namespace: 'n',
    name: '',
    workload: null,
    address: '10.0.0.1',
    labels: {},
    provenance: null,
    certainty: null,
  };
  assert.equal(whoText({ ...end, labels: { env: 'prod', app: 'pay' } }), 'pay/prod');
  assert.equal(whoText({ ...end, name: 'internet' }), 'internet');
  assert.equal(whoText(end), 'pod in c1/n');
  assert.equal(whoText({ ...end, cluster: '', namespace: '' }), '10.0.0.1');
  assert.equal(endpointText('2001:db8::1', 443), '[2001:db8::1]:443');
});

test('a kind carries a mark where the name is no fact, and each mark that is shown is explained', () => {
  const kind = (certainty: string | null, pending = 0): string =>
    kindText({ kind: 'pod', certainty }, pending);
  assert.deepEqual(
    [
      kind('exact'),
      kind('exact', 3),
      kind('grace'),
      kind('ambiguous'),
      kind('late'),
      kind('late', 2),
      kind(null),
    ],
    ['pod', 'pod', 'pod~', 'pod?', 'pod?', 'pod…', 'pod'],
  );
  assert.equal(marksText(['pod', 'vm']), '');
  assert.match(marksText(['pod', 'vm?']), /^\? one of several/);
  assert.match(marksText(['pod~', 'vm…']), /^~ .*; … /);
});
