import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readPolicy } from './load.ts';
import { defaultBroadLimits, type IdentityCount, type SenseOptions } from './sense.ts';

const options: SenseOptions = { nowMs: Date.UTC(2026, 0, 1), limits: defaultBroadLimits, identities: null };

/** Warnings about rules (as lists of properties in YAML), each with its line: rule 0 is on line 6. */
function warnings(rules: readonly string[], rest = '', more: Partial<SenseOptions> = {}): string[] {
  const head = [
    'labelGroups: [{ name: nonprod, key: env, values: [uat, dev] }]',
    'ipLists: [{ name: wide, cidrs: [203.0.112.0/20, "!203.0.113.7"] }]',
    'services: [{ name: web, ports: [{ port: 80 }, { port: 443 }] }]',
    'rulesets:',
    '  - { name: s, rules: [',
  ].join('\n');
  const text = `${head}\n${rules.map((rule, i) => `    { name: r${i}, ${rule} },\n`).join('')}    ] }\n${rest}`;
  const result = readPolicy(new Map([['p.yaml', text]]), { sense: { ...options, ...more } });
  assert.deepEqual(result.ok ? [] : result.problems, []);
  return result.warnings.map(({ line, message }) => `${line} ${message}`);
}

const a = 'from: [{ labels: { app: a } }]';
const b = 'to: [{ labels: { app: b } }]';
const web = 'services: [web]';

test('rules of their own get no warning', () => {
  assert.deepEqual(
    warnings([
      `${a}, ${b}, ${web}`,
      `${b.replace('to', 'from')}, ${a.replace('from', 'to')}, ${web}`,
      `${a}, ${b}, services: [{ port: 8080 }]`,
      `${a}, ${b}, action: deny`,
    ]),
    [],
  );
});

const shadow = (later: string, why: string) =>
  `${later} never decides: s/r0 (p.yaml rulesets.0.rules.0) covers all of it, and ${why}; remove it, or narrow s/r0`;

test('a rule that one before it covers is named', () => {
  const covered = (first: string, second: string): void =>
    assert.deepEqual(warnings([first, second]), [`7 ${shadow('s/r1', 'has the same action')}`], second);
  covered(`${a}, ${b}, ${web}`, `${a}, ${b}, services: [{ port: 443 }]`);
  covered(
    'from: [{ labels: { env: { group: nonprod } } }], to: [{ any: true }], services: [web]',
    'from: [{ labels: { env: uat, app: a } }], to: [{ any: true }], services: [web]',
  );
  covered(
    'from: [{ labels: { app: a, env: { not: prod } } }], to: [{ ipList: wide }], services: [web]',
    'from: [{ labels: { env: dev, app: a } }], to: [{ cidr: 203.0.114.0/24 }], services: [web]',
  );
  covered(
    `from: [{ labels: { app: a } }, { labels: { app: c } }], to: [{ dns: '*.acme.com' }], ${web}`,
    `from: [{ labels: { app: c } }], to: [{ dns: api.acme.com }], services: [{ port: 80 }]`,
  );
  covered(
    `${a}, ${b}, services: [{ port: 80-90, process: 'ng*' }]`,
    `${a}, ${b}, services: [{ port: 85, process: nginx }]`,
  );
});

test('a rule that is covered in part only is left alone', () => {
  const apart = (first: string, second: string): void =>
    assert.deepEqual(warnings([first, second]), [], second);
  apart(`${a}, ${b}, services: [{ port: 443, process: nginx }]`, `${a}, ${b}, services: [{ port: 443 }]`);
  apart(`${a}, ${b}, ${web}, expires: 2027-01-01`, `${a}, ${b}, ${web}, expires: 2028-01-01`);
  apart(`${a}, ${b}, ${web}, enabled: false`, `${a}, ${b}, ${web}`);
  apart(`${a}, to: [{ ipList: wide }], ${web}`, `${a}, to: [{ cidr: 203.0.113.0/24 }], ${web}`);
  apart(`from: [{ labels: { app: a, env: prod } }], ${b}, ${web}`, `${a}, ${b}, ${web}`);
  apart(
    `from: [{ labels: { kind: { not: pod } } }], ${b}, ${web}, action: deny`,
    `from: [{ labels: { kind: [vm, unknown] } }], ${b}, ${web}, action: deny`,
  );
  apart(`${a}, ${b}, services: [{ port: 443, protocol: any }]`, `${a}, ${b}, services: [{ protocol: icmp }]`);
});

test('a deny that an allow covers, and an allow that an override-deny covers, are named with the reason', () => {
  assert.deepEqual(warnings([`${a}, ${b}, ${web}`, `${a}, ${b}, services: [{ port: 80 }], action: deny`]), [
    `7 ${shadow('s/r1', 'allow decides before deny')}`,
  ]);
  assert.deepEqual(warnings([`${a}, ${b}, action: override-deny`, `${a}, ${b}, ${web}`]), [
    `7 ${shadow('s/r1', 'override-deny decides before all others')}`,
  ]);
});

test('allow and deny of equal breadth contradict each other', () => {
  assert.deepEqual(warnings([`${a}, ${b}, ${web}, action: deny`, `${a}, ${b}, ${web}`]), [
    '6 s/r0 contradicts s/r1 (p.yaml rulesets.0.rules.1): one is allow, the other deny, of the same; allow wins, so remove one of them',
  ]);
  assert.deepEqual(warnings([`${a}, ${b}, ${web}`], `boundaries: [{ name: wall, ${a}, ${b}, ${web} }]`), [
    '8 boundaries/wall contradicts s/r0 (p.yaml rulesets.0.rules.0): one is allow, the other deny, of the same; allow wins, so remove one of them',
  ]);
});

test('scopes are part of what a rule covers', () => {
  const scoped = (first: string, second: string) =>
    warnings(
      [],
      `  - { name: x, scope: [{ app: a }], rules: [{ name: one, ${first} }] }\n  - { name: y, scope: [{ app: a, env: prod }], rules: [{ name: two, ${second} }] }\n`,
    );
  const any = `from: [{ labels: { env: prod } }], ${b}, ${web}`;
  assert.match(scoped(any, any).join(), /^8 y\/two never decides: x\/one/);
  assert.match(scoped(any, `${any}, scope: intra`).join(), /^8 y\/two never decides: x\/one/);
  assert.deepEqual(scoped(`${any}, scope: intra`, any), []);
  assert.deepEqual(scoped(`${any}, scope: extra`, `${any}, scope: intra`), []);
});

test('an expired rule is named', () => {
  assert.deepEqual(warnings([`${a}, ${b}, ${web}, expires: 2025-12-31`]), [
    '6 s/r0 expired on 2025-12-31: it explains nothing; remove it, or give it a later date',
  ]);
});

test('a rule that is broad beyond a limit is named with the limit', () => {
  assert.deepEqual(warnings(['from: [{ any: true }], to: [{ any: true }], services: [web]']), [
    '6 s/r0 is broad: it allows anything to reach anything; name one end',
  ]);
  assert.deepEqual(warnings([`${a}, ${b}`]), [
    '6 s/r0 is broad: it allows 65,536 ports, more than maxPorts (1,000); name the services it needs',
  ]);
  assert.deepEqual(warnings([`${a}, ${b}, services: [{ port: 1024-2047 }, { protocol: icmp }]`]), [
    '6 s/r0 is broad: it allows 1,024 ports, more than maxPorts (1,000); name the services it needs',
  ]);
  assert.deepEqual(warnings([`${a}, to: [{ cidr: [10.0.0.0/8, 192.0.2.1] }], ${web}`]), [
    '6 s/r0 is broad: it allows 16,777,217 addresses, more than maxAddresses (65,536); name narrower blocks',
  ]);
  assert.deepEqual(warnings([`${a}, to: [{ cidr: '2001:db8::/32' }], ${web}`]).length, 1);
  assert.deepEqual(warnings([`${a}, to: [{ cidr: '2001:db8::/64' }], ${web}`]), []);
  assert.deepEqual(warnings([`from: [{ labels: { env: { not: prod } } }], ${b}, ${web}`]), [
    '6 s/r0 is broad: these labels only leave out, so all that has none of them is in, ranges and services too; name a label or a kind beside it',
  ]);
  assert.deepEqual(warnings([`${a}, ${b}, action: deny`]), [], 'a deny may be broad');
  assert.deepEqual(warnings([`${a}, ${b}`], '', { limits: { ...defaultBroadLimits, maxPorts: 65_536 } }), []);
});

test('with the inventory, a rule that matches nobody is named, and one that selects too many', () => {
  const identity = (app: string, workloads: number): IdentityCount => ({
    identity: { kind: 'pod', cluster: 'c', namespace: 'n', name: '', labels: { app } },
    workloads,
  });
  const identities = [identity('a', 6000), identity('c', 1)];
  assert.deepEqual(warnings([`${a}, ${b}, ${web}`], '', { identities }), [
    '6 s/r0 is broad: these labels select 6,000 workloads, more than maxWorkloads (5,000); name more labels',
    '6 s/r0 matches nobody: no workload has these labels now; mend them, or remove the rule',
  ]);
  assert.deepEqual(
    warnings([`from: [{ labels: { app: c } }], to: [{ any: true }], ${web}`], '', { identities }),
    [],
  );
});
