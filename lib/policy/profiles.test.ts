import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Profile } from '../../schemas/policy.ts';
import { type LabelSubject, makeLabeller, maxLabelCount } from './profiles.ts';

const pod: LabelSubject = {
  kind: 'pod',
  cluster: 'east',
  namespace: 'payments-prod',
  labels: { tier: 'db', team: 'k8s-words' },
  annotations: {},
};
const profile: Profile = {
  name: 'payments',
  match: { namespace: ['payments-*'], kind: ['pod'] },
  assign: { app: 'payments', env: 'prod' },
  map: [
    { key: 'role', from: { label: 'tier' }, values: { db: 'database' } },
    { key: 'owner', from: { namespaceLabel: 'owner' } },
  ],
  allow: { role: ['database', 'cache'], note: [] },
  default: { role: 'other', loc: 'dc1' },
};

test('labels come from the profile, each with its source', () => {
  const result = makeLabeller([profile])(pod, { owner: 'blue' });
  assert.deepEqual(result, {
    labels: { app: 'payments', env: 'prod', role: 'database', owner: 'blue', loc: 'dc1' },
    sources: { app: 'profile', env: 'profile', role: 'mapping', owner: 'mapping', loc: 'default' },
    profile: 'payments',
    refused: [],
  });
});

test('an allowed annotation beats a mapping; a forbidden one is reported, not obeyed', () => {
  const result = makeLabeller([profile])(
    {
      ...pod,
      annotations: {
        'eastwest.io/role': 'cache',
        'eastwest.io/note': 'anything',
        'eastwest.io/app': 'ledger',
        'eastwest.io/env': 'dev',
        'example.com/x': 'y',
      },
    },
    {},
  );
  assert.equal(result.labels.role, 'cache');
  assert.equal(result.labels.note, 'anything');
  assert.equal(result.labels.app, 'payments');
  assert.equal(result.labels.env, 'prod');
  assert.equal(result.refused.length, 2);
  const bad = makeLabeller([profile])({ ...pod, annotations: { 'eastwest.io/role': 'root' } }, {});
  assert.equal(bad.labels.role, 'database');
  assert.match(bad.refused[0]!, /role=root: profile payments allows database, cache/);
});

test('the first profile that matches is used, by whole names with * as a wildcard', () => {
  const label = makeLabeller([
    { name: 'a', match: { cluster: ['west'] }, assign: { app: 'a' } },
    { name: 'b', match: { namespace: ['pay.*'] }, assign: { app: 'b' } },
    { name: 'c', match: { namespace: ['*-prod'] }, assign: { app: 'c' } },
    { name: 'd', match: {}, assign: { app: 'd' } },
  ]);
  assert.equal(label(pod, {}).labels.app, 'c');
  assert.equal(label({ ...pod, cluster: 'west' }, {}).labels.app, 'a');
  assert.equal(label({ ...pod, namespace: 'payments-production' }, {}).labels.app, 'd');
});

test('without a profile, Kubernetes words are no labels, and those of a VM list are', () => {
  const label = makeLabeller([]);
  assert.deepEqual(label(pod, {}).labels, {});
  assert.deepEqual(label({ ...pod, kind: 'vm', labels: { app: 'mainframe' } }, {}).labels, {
    app: 'mainframe',
  });
});

test('labels over the limit are left out and said', () => {
  const labels = Object.fromEntries(Array.from({ length: maxLabelCount + 3 }, (_, i) => [`k${i}`, 'v']));
  const result = makeLabeller([])({ ...pod, kind: 'vm', labels }, {});
  assert.equal(Object.keys(result.labels).length, maxLabelCount);
  assert.equal(result.refused.length, 3);
});
