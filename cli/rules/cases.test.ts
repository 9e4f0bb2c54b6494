import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyPolicy } from '../../lib/policy/engine.ts';
import { readPolicy } from '../../lib/policy/load.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { readCases, runCases } from './cases.ts';

const yaml = `
ipLists: [{ name: acme, cidrs: [198.51.100.0/24, '!198.51.100.99'] }]
services: [{ name: postgres, ports: [{ port: 5432 }] }]
rulesets:
  - name: payments
    scope: [{ app: payments }]
    rules:
      - { name: to-database, from: [{ labels: { app: payments, role: api } }], to: [{ labels: { app: payments, role: db } }], services: [postgres] }
      - { name: partner, from: [{ labels: { app: payments } }], to: [{ ipList: acme }], services: [{ port: 443 }] }
      - { name: names, from: [{ labels: { app: payments } }], to: [{ dns: '*.acme.example' }], services: [{ port: 443, process: curl }] }
      - { name: no-dev, from: [{ labels: { env: dev } }], to: [{ labels: { app: payments, role: db } }], action: override-deny }
`;

function policy(): PolicyDocument {
  const loaded = readPolicy(new Map([['a.yaml', yaml]]));
  assert.ok(loaded.ok, JSON.stringify(loaded));
  return { ...emptyPolicy, ...loaded.policy };
}

function run(text: string) {
  const read = readCases(text);
  assert.ok(read.ok, JSON.stringify(read));
  return runCases(read.cases, policy(), Date.now());
}

test('cases are asked by labels, addresses, names and processes, each port on its own', () => {
  const results = run(`
cases:
  - { source: { app: payments, role: api }, destination: { app: payments, role: db }, port: [5432, 5433], expect: allowed, rule: payments/to-database }
  - { source: { app: payments, env: dev, role: api }, destination: { app: payments, role: db }, port: 5432, expect: denied, rule: no-dev }
  - { source: { app: payments }, destination: 198.51.100.7, port: 443, expect: allowed }
  - { source: { app: payments }, destination: 198.51.100.99, port: 443, expect: unexplained }
  - { source: { app: payments }, destination: { dns: api.acme.example }, port: 443, process: curl, expect: allowed, rule: names }
  - { source: { app: payments }, destination: { dns: api.acme.example }, port: 443, expect: unexplained }
  - { source: { app: payments }, destination: 198.51.100.7, port: 443, protocol: udp, expect: unexplained }
`);
  assert.deepEqual(
    results.map(({ line, port, verdict, ok }) => [line, port, verdict, ok]),
    [
      [3, 5432, 'allowed', true],
      [3, 5433, 'unexplained', false],
      [4, 5432, 'denied', true],
      [5, 443, 'allowed', true],
      [6, 443, 'unexplained', true],
      [7, 443, 'allowed', true],
      [8, 443, 'unexplained', true],
      [9, 443, 'unexplained', true],
    ],
  );
});

test('the right verdict by another rule is a failure', () => {
  const [result] = run(
    'cases:\n  - { source: { app: payments }, destination: 198.51.100.7, port: 443, expect: allowed, rule: names }\n',
  );
  assert.equal(result?.ok, false);
  assert.equal(result?.rule, 'payments/partner');
});

test('wrong cases are named by line', () => {
  const lines = (text: string): number[] => {
    const read = readCases(text);
    assert.ok(!read.ok);
    return read.problems.map(({ line }) => line);
  };
  assert.deepEqual(
    lines(
      'cases:\n  - { source: { app: a }, destination: { app: b }, expect: maybe }\n  - { source: 10.0.0.300, destination: 10.0.0.1, expect: allowed }\n',
    ),
    [2],
  );
  assert.deepEqual(
    lines('cases:\n  - source: 10.0.0.300\n    destination: 10.0.0.1\n    expect: allowed\n'),
    [2],
  );
  assert.deepEqual(lines('cases: [\n'), [2]);
  assert.deepEqual(lines('cases: []\n'), [1]);
});
