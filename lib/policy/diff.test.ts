import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffPolicies, type PolicyChange } from './diff.ts';
import type { PolicyContent } from './load.ts';

const any = [{ any: true as const }];
const before: PolicyContent = {
  labels: [{ key: 'env' }],
  profiles: [
    { name: 'narrow', match: { namespace: ['a-b'] }, assign: { app: 'x' } },
    { name: 'wide', match: { namespace: ['a-*'] } },
  ],
  ipLists: [{ name: 'acme', cidrs: ['192.0.2.0/24'] }],
  services: [{ name: 'web', ports: [{ port: 443 }] }],
  rulesets: [
    {
      name: 'one',
      rules: [
        { name: 'a', from: any, to: any },
        { name: 'b', from: any, to: any },
      ],
    },
    { name: 'two', owner: 'ops', rules: [] },
  ],
};

const texts = (changes: readonly PolicyChange[]): string[] =>
  changes.map(({ change, part, name, keys }) => [change, part, name, ...keys].join(' '));

test('equal policies have no difference', () => {
  assert.deepEqual(diffPolicies(before, structuredClone(before)), []);
});

test('what was added, removed and changed is named, with the keys that differ', () => {
  const after: PolicyContent = {
    ...before,
    labels: [],
    labelGroups: [{ name: 'nonprod', key: 'env', values: ['dev'] }],
    ipLists: [{ name: 'acme', cidrs: ['192.0.2.0/25'], description: 'half' }],
    rulesets: [
      {
        name: 'one',
        rules: [
          { name: 'b', from: any, to: any, action: 'deny' },
          { name: 'c', from: any, to: any },
        ],
      },
      { name: 'two', owner: 'sec', rules: [] },
    ],
    boundaries: [{ name: 'prod', from: any, to: any }],
  };
  assert.deepEqual(texts(diffPolicies(before, after)), [
    'removed label env',
    'added label-group nonprod',
    'changed ip-list acme cidrs description',
    'changed ruleset two owner',
    'removed rule one/a',
    'changed rule one/b action',
    'added rule one/c',
    'added boundary prod',
  ]);
});

test('the order of profiles is a difference, since the first that matches is used; that of rules is none', () => {
  const [narrow, wide] = before.profiles;
  assert.ok(narrow !== undefined && wide !== undefined);
  assert.deepEqual(texts(diffPolicies(before, { ...before, profiles: [wide, narrow] })), [
    'changed profile wide order',
    'changed profile narrow order',
  ]);
  assert.deepEqual(diffPolicies(before, { ...before, rulesets: before.rulesets.toReversed() }), []);
});
