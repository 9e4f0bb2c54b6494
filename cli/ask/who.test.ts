import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Who, Workload } from './answers.ts';
import { whoNotes, whoRows } from './who.ts';

const pod: Workload = {
  kind: 'pod',
  cluster: 'c1',
  namespace: 'pay',
  name: 'api-1',
  node: 'n1',
  network: 'c1',
  address: '10.0.0.1',
  labels: { app: 'pay' },
  from: '2026-02-01T08:00:00.000Z',
  to: null,
  current: true,
};
const nobody = { network: 'c1', certainty: 'none', owners: [], candidates: [], before: null, after: null };
const who = (networks: Who['networks'], more: Partial<Who> = {}): Who => ({
  address: '10.0.0.1',
  at: '2026-02-01T09:00:00.000Z',
  toleranceMs: 1000,
  settled: true,
  networks,
  ranges: [{ network: 'default', name: 'rack-7', cidr: '10.0.0.0/24', zone: 'inside', labels: {} }],
  ...more,
});
const cells = (answer: Who): string[] =>
  whoRows(answer).map((row) =>
    row
      .slice(1, 4)
      .map((cell) => (typeof cell === 'string' ? cell : cell.text))
      .join(' '),
  );

test('an owner is said with how sure it is, without the range around it', () => {
  const answer = who([{ ...nobody, certainty: 'exact', owners: [pod] }]);
  assert.deepEqual(cells(answer), ['exact pod api-1']);
  assert.deepEqual(whoNotes(answer), []);
});

test('several claimants are all named, and the tolerance is said', () => {
  const answer = who([{ ...nobody, certainty: 'ambiguous', owners: [pod, { ...pod, name: 'api-2' }] }]);
  assert.deepEqual(cells(answer), ['one of these pod api-1', 'one of these pod api-2']);
  assert.match(whoNotes(answer).join(), /1000 ms; the likeliest comes first/);
});

test('nobody is an answer, with those before and after and the range', () => {
  const answer = who([{ ...nobody, before: pod, after: { ...pod, name: 'api-3' } }], { settled: false });
  assert.deepEqual(cells(answer), [
    'nobody',
    'before pod api-1',
    'after pod api-3',
    'in 10.0.0.0/24 range rack-7',
  ]);
  assert.match(whoNotes(answer).join(), /nobody is known to have had 10.0.0.1 at .*do not vouch/);
});

test('pods that share the address of a node are offered', () => {
  const node = { ...pod, kind: 'node', name: 'n1' };
  const answer = who([{ ...nobody, certainty: 'exact', owners: [node], candidates: [pod] }]);
  assert.deepEqual(cells(answer), ['exact node n1', 'or on it pod api-1']);
  assert.match(whoNotes(answer).join(), /any of them may be meant/);
});
