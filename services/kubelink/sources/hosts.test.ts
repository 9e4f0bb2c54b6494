import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readHosts } from './hosts.ts';

test('hosts and ranges of a file are workloads and ranges', () => {
  const { entities, malformed } = readHosts(`
network: dc-west
hosts:
  - name: core-db-1
    id: vm-4711
    kind: host
    group: core-banking
    addresses: [10.20.0.5, { ip: 198.51.100.5, network: default }]
    labels: { app: ledger }
    annotations: { eastwest.io/env: prod }
    since: 2026-01-01T00:00:00Z
  - name: jump
    network: default
    addresses: ['2001:DB8::1']
ranges:
  - { name: partner-acme, cidrs: [203.0.113.0/24], zone: outside, network: default }
  - { name: data-centre, cidrs: [10.20.0.0/16], zone: inside, labels: { loc: west } }
`);
  assert.deepEqual(malformed, []);
  const sinceMs = Date.UTC(2026, 0, 1);
  const common = { v: 1, type: 'workload', cluster: '', node: '', hostNetwork: false } as const;
  assert.deepEqual(
    [...entities.values()].map(({ event }) => event),
    [
      {
        ...common,
        kind: 'host',
        uid: 'vm-4711',
        name: 'core-db-1',
        namespace: 'core-banking',
        labels: { app: 'ledger' },
        annotations: { 'eastwest.io/env': 'prod' },
        addresses: [
          { ip: '10.20.0.5', network: 'dc-west', sinceMs },
          { ip: '198.51.100.5', network: 'default', sinceMs },
        ],
        sinceMs,
      },
      {
        ...common,
        kind: 'vm',
        uid: 'jump',
        name: 'jump',
        namespace: '',
        labels: {},
        annotations: {},
        addresses: [{ ip: '2001:db8::1', network: 'default', sinceMs: 0 }],
        sinceMs: 0,
      },
      {
        v: 1,
        type: 'range',
        name: 'partner-acme',
        network: 'default',
        cidrs: ['203.0.113.0/24'],
        zone: 'outside',
        labels: {},
      },
      {
        v: 1,
        type: 'range',
        name: 'data-centre',
        network: 'dc-west',
        cidrs: ['10.20.0.0/16'],
        zone: 'inside',
        labels: { loc: 'west' },
      },
    ],
  );
});

const bad: readonly [string, string, RegExp][] = [
  [
    'an unknown key',
    '{ name: x, addresses: [], adresses: [] }',
    /hosts\[0\] \(x\): adresses: is not a known key/,
  ],
  [
    'an address that does not parse',
    '{ name: x, addresses: [10.0.0.256] }',
    /addresses\[0\]: "10\.0\.0\.256"/,
  ],
  ['a kind that is none', '{ name: x, kind: mainframe, addresses: [] }', /kind: /],
  ['no name', '{ addresses: [] }', /hosts\[0\]: .*name/],
  ['a time that does not parse', '{ name: x, addresses: [], since: soon }', /since: "soon"/],
  ['a text', 'x', /hosts\[0\]: must be object/],
];
for (const [what, entry, message] of bad) {
  test(`a bad entry is named and does not stop the others: ${what}`, () => {
    const { entities, malformed } = readHosts(
      `hosts:\n  - ${entry}\n  - { name: good, addresses: [10.0.0.1] }\n`,
    );
    assert.deepEqual([...entities.keys()], ['hosts/good']);
    assert.equal(malformed.length, 1);
    assert.match(malformed[0]?.message ?? '', message);
  });
}

test('a host that is named twice keeps its first entry', () => {
  const { entities, malformed } = readHosts(
    'hosts: [{ name: a, addresses: [10.0.0.1] }, { name: a, addresses: [10.0.0.2] }]',
  );
  const event = entities.get('hosts/a')?.event;
  assert.ok(event?.type === 'workload');
  assert.equal(event.addresses[0]?.ip, '10.0.0.1');
  assert.match(malformed[0]?.message ?? '', /named twice/);
});

test('a file of another kind is one problem that says what was expected', () => {
  const { entities, malformed } = readHosts('kind: Pod\nmetadata: { name: x }\n');
  assert.equal(entities.size, 0);
  assert.equal(malformed[0]?.ref, null);
  assert.match(malformed[0]?.message ?? '', /a hosts file has hosts, ranges, network/);
});

test('the hosts file of docs/inventory.md is read without a complaint', () => {
  const page = readFileSync(new URL('../../../docs/inventory.md', import.meta.url), 'utf8');
  const example = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)]
    .map(([, yaml = '']) => yaml)
    .find((yaml) => yaml.includes('hosts:\n'));
  const { entities, malformed } = readHosts(example ?? '');
  assert.deepEqual(malformed, []);
  assert.equal(entities.size, 2);
});
