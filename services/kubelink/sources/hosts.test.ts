import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { findRange, makeRangeMap } from '../../../lib/inventory/ranges.ts';
import { parseAddress } from '../../../lib/net/address.ts';
import { readHosts, readHostsFile } from './hosts.ts';

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

test('listed DNS names are name events, and those without a star are looked up where it is asked for', () => {
  const { entities, malformed } = readHosts(`
names:
  - name: payment-provider
    dns: [Pay.Example.com., '*.example.com', pay.example.com]
    labels: { partner: acme }
    resolve: true
  - { name: mirror, dns: [mirror.corp], zone: inside }
`);
  assert.deepEqual(malformed, []);
  const common = { v: 1, type: 'name', addresses: [] };
  assert.deepEqual(
    [...entities.values()].map(({ event, lookups }) => [event, lookups]),
    [
      [
        {
          ...common,
          name: 'payment-provider',
          dns: ['pay.example.com', '*.example.com'],
          zone: 'outside',
          labels: { partner: 'acme' },
        },
        ['pay.example.com'],
      ],
      [{ ...common, name: 'mirror', dns: ['mirror.corp'], zone: 'inside', labels: {} }, []],
    ],
  );
});

for (const [entry, message] of [
  ['{ name: x, dns: [] }', /names\[0\] \(x\): dns: /],
  ["{ name: x, dns: ['a.*.com'] }", /names\[0\] \(x\): dns\[0\]: /],
  ["{ name: x, dns: ['https://example.com'] }", /dns\[0\]: /],
  ['{ name: x, dns: [a.com], zone: moon }', /zone: /],
  ['{ name: x, dns: [a.com], resolv: true }', /resolv: is not a known key/],
] as const) {
  test(`a listed name that is wrong is named and does not stop the others: ${entry}`, () => {
    const { entities, malformed } = readHosts(`names:\n  - ${entry}\n  - { name: good, dns: [b.com] }\n`);
    assert.deepEqual([...entities.keys()], ['names/good']);
    assert.match(malformed[0]?.message ?? '', message);
  });
}

test('of ranges inside of ranges the longest prefix answers, in any order of the file', () => {
  const lines = [
    '{ name: partner-acme, cidrs: [203.0.113.0/24], zone: outside }',
    "{ name: data-centre, cidrs: [10.0.0.0/8, '2001:db8::/32'], zone: inside }",
    '{ name: cloud, cidrs: [10.64.0.0/12], zone: inside }',
    "{ name: cloud-db, cidrs: [10.64.7.0/24, '2001:db8:7::/48'], zone: inside }",
    '{ name: bastion, cidrs: [10.64.7.9], zone: inside }',
  ];
  for (const ordered of [lines, lines.toReversed()]) {
    const { entities, malformed } = readHosts(`ranges:\n${ordered.map((line) => `  - ${line}\n`).join('')}`);
    assert.deepEqual(malformed, []);
    const ranges = [...entities.values()].flatMap(({ event }) => (event.type === 'range' ? [event] : []));
    const names = [''];
    const map = makeRangeMap(ranges, undefined, ({ name }) => names.push(name) - 1);
    const rangeOf = (ip: string): string | undefined => {
      const bytes = parseAddress(ip);
      assert.ok(bytes !== null);
      return names[findRange(map, bytes, 0).identity];
    };
    const expected = {
      '10.1.2.3': 'data-centre',
      '10.64.0.1': 'cloud',
      '10.64.7.1': 'cloud-db',
      '10.64.7.9': 'bastion',
      '10.80.0.1': 'data-centre',
      '2001:db8:7::1': 'cloud-db',
      '2001:db8:8::1': 'data-centre',
      '203.0.113.200': 'partner-acme',
      '203.0.114.1': 'internet',
      '192.168.0.1': '',
    };
    for (const [ip, name] of Object.entries(expected)) assert.equal(rangeOf(ip), name, ip);
  }
});

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
  assert.match(malformed[0]?.message ?? '', /a hosts file has hosts, ranges, names, network/);
});

test('the hosts files of docs/inventory.md are read without a complaint, and say the same of the same host', () => {
  const page = readFileSync(new URL('../../../docs/inventory.md', import.meta.url), 'utf8');
  const blocks = [...page.matchAll(/```(yaml|csv)\n([\s\S]*?)```/g)];
  const example = (kind: string, sign: string): string =>
    blocks.find(([, its, text = '']) => its === kind && text.includes(sign))?.[2] ?? '';
  const yaml = readHostsFile(example('yaml', 'hosts:\n'), 'hosts.yaml');
  const csv = readHostsFile(example('csv', 'name,'), 'hosts.csv');
  assert.deepEqual([...yaml.malformed, ...csv.malformed], []);
  assert.deepEqual(
    [...yaml.entities.keys()],
    ['hosts/vm-4711', 'ranges/partner-acme', 'names/payment-provider'],
  );
  const addressesOf = ({ entities }: typeof yaml): unknown => {
    const event = entities.get('hosts/vm-4711')?.event;
    return event?.type === 'workload' ? event.addresses : null;
  };
  assert.deepEqual(addressesOf(csv), addressesOf(yaml));
});
