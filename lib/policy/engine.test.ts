import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyDocument, Rule } from '../../schemas/policy.ts';
import { emptyPolicy, PolicyEngine, ruleOf, type Selectable, verdictCodeOf } from './engine.ts';

const now = Date.UTC(2026, 0, 1);

test('a verdict names the rule that gave it', () => {
  const policy: PolicyDocument = {
    ...emptyPolicy,
    version: 7,
    rulesets: [
      { name: 'x', rules: [{ name: 'all', from: [{ any: true }], to: [{ any: true }], action: 'deny' }] },
      {
        name: 'y',
        rules: [
          { name: 'web', from: [{ any: true }], to: [{ labels: { app: 'web' } }], services: [{ port: 80 }] },
        ],
      },
    ],
  };
  const engine = new PolicyEngine(policy, now);
  const ends: Selectable[] = [
    { kind: 'pod', cluster: '', namespace: '', name: '', labels: {} },
    { kind: 'pod', cluster: '', namespace: '', name: '', labels: { app: 'web' } },
  ];
  const rule = (port: number) => {
    const { ruleset, rule } = engine.rules[ruleOf(engine.verdict(ends, 0, 0, 1, 0, port, 6))]!;
    return `${ruleset.name}/${rule.name}`;
  };
  assert.equal(rule(80), 'y/web');
  assert.equal(rule(81), 'x/all');
  assert.equal(engine.version, 7);
});

test('the engine says when the next rule expires', () => {
  const rules: Rule[] = ['2025-06-01', '2026-06-01', '2027-06-01'].map((expires) => ({
    name: expires,
    from: [{ any: true as const }],
    to: [{ any: true as const }],
    expires,
  }));
  const engine = new PolicyEngine({ ...emptyPolicy, rulesets: [{ name: 's', rules }] }, now);
  assert.equal(engine.rules.length, 2);
  assert.equal(engine.nextExpiryMs, Date.parse('2026-06-01'));
});

test('the memo stays within its bound and keeps answering right', () => {
  const policy: PolicyDocument = {
    ...emptyPolicy,
    rulesets: [
      {
        name: 's',
        rules: [{ name: 'even', from: [{ any: true }], to: [{ any: true }], services: [{ port: '0-999' }] }],
      },
    ],
  };
  const engine = new PolicyEngine(policy, now);
  const ends: Selectable[] = Array.from({ length: 40 }, () => ({
    kind: 'pod',
    cluster: '',
    namespace: '',
    name: '',
    labels: {},
  }));
  for (let i = 0; i < 1_300_000; i++) {
    const port = i % 65536;
    const packed = engine.verdict(ends, Math.floor(i / 65536), 0, 1, 0, port, 6);
    if ((verdictCodeOf(packed) === 1) !== port <= 999) assert.fail(`port ${port}`);
  }
  assert.equal(engine.memoResetCount, 1);
});
