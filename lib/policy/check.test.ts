import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { policyJsonSchema } from '../../schemas/policy.ts';
import { BlockSets, maxBlockSets } from './blocks.ts';
import { readPolicy } from './load.ts';

const good = `labels: [{ key: env, values: [prod, uat] }]
labelGroups:
  - { name: nonprod, key: env, values: [uat] }
ipLists:
  - { name: partners, cidrs: [203.0.113.0/24], names: [api.acme.com] }
services:
  - { name: web, ports: [{ port: 443 }] }
rulesets:
  - name: pay
    scope: [{ app: pay }]
    rules:
      - name: out
        from: [{ labels: { app: pay, env: { group: nonprod } } }]
        to: [{ ipList: partners }]
        services: [web]
boundaries:
  - { name: wall, from: [{ labels: { env: prod } }], to: [{ labels: { env: { not: prod } } }] }
`;

function problems(text: string): string[] {
  const result = readPolicy(new Map([['p.yaml', text]]));
  return result.ok ? [] : result.problems.map(({ line, at, message }) => `${line} ${at}: ${message}`);
}

test('a policy with every part of the language is taken', () => {
  assert.deepEqual(problems(good), []);
});

const rule = 'rulesets[0].rules[0]';
const more = (text: string): [string, string] => ['services: [web]\n', `services: [web]\n        ${text}\n`];

/** What is written instead of what, and the one error that it is. */
const mistakes: readonly (readonly [before: string, after: string, error: string])[] = [
  // Keys.
  [
    'services: [web]',
    'service: [web]',
    `15 ${rule}.service: there is no key "service" here; did you mean "services"?`,
  ],
  ['boundaries:', 'boundary:', '16 boundary: there is no key "boundary" here; did you mean "boundaries"?'],
  [
    '{ ipList: partners }',
    '{ iplst: partners }',
    `14 ${rule}.to[0].iplst: there is no key "iplst" here; did you mean "ipList"?`,
  ],
  [
    '{ ipList: partners }',
    '{ zzz: 1 }',
    `14 ${rule}.to[0].zzz: there is no key "zzz" here; write one of labels, ipList, cidr, dns, any`,
  ],
  [
    '{ ipList: partners }',
    '{ ipList: partners, any: true }',
    `14 ${rule}.to[0].any: "any" can't stand beside "ipList": write one of them`,
  ],
  [
    '{ group: nonprod }',
    '{ nto: prod }',
    `13 ${rule}.from[0].labels.env.nto: there is no key "nto" here; did you mean "not"?`,
  ],
  [
    '        to: [{ ipList: partners }]\n',
    '',
    `12 ${rule}: "to" is missing: Destinations: one of them must match.`,
  ],
  // Kinds of values.
  [
    'services: [web]',
    'services: web',
    `15 ${rule}.services: is text, and should be a list: Names of services, or ports in place. Absent: every port and protocol.`,
  ],
  [
    'services: [web]',
    'services: []',
    `15 ${rule}.services: is an empty list: Names of services, or ports in place. Absent: every port and protocol.`,
  ],
  [
    'app: pay,',
    'app: 7,',
    `13 ${rule}.from[0].labels.app: is a whole number, and should be text, a list or a mapping of keys: write '7' in quotes`,
  ],
  [
    '{ ipList: partners }',
    'partners',
    `14 ${rule}.to[0]: is text, and should be a mapping of keys: One of: labels, ipList, cidr, dns, any.`,
  ],
  ['{ ipList: partners }', '{ any: yes }', `14 ${rule}.to[0].any: "yes" can't be: write true`],
  [
    '- name: out',
    '- name: "o t"',
    `12 ${rule}.name: "o t" can't be: Letters, digits, dots, dashes and underscores; a letter or digit first.`,
  ],
  ['{ port: 443 }', '{ port: 70000 }', '7 services[0].ports[0].port: 70000 is out of range: 0 to 65535'],
  [
    '{ port: 443 }',
    "{ port: '80,443' }",
    `7 services[0].ports[0].port: "80,443" can't be: A port, or a range such as 8000-8080. Absent: all ports.`,
  ],
  [
    '{ port: 443 }',
    '{ protocol: tpc }',
    `7 services[0].ports[0].protocol: "tpc" can't be: write tcp, udp, sctp, icmp, icmpv6 or any; did you mean "tcp"?`,
  ],
  [
    ...more('action: alow'),
    `16 ${rule}.action: "alow" can't be: write allow, deny or override-deny; did you mean "allow"?`,
  ],
  [
    ...more('scope: inter'),
    `16 ${rule}.scope: "inter" can't be: write intra or extra; did you mean "intra"?`,
  ],
  [
    ...more('enabled: maybe'),
    `16 ${rule}.enabled: is text, and should be true or false: False: as if it were not there. True when absent.`,
  ],
  // Names that stand for something.
  [
    'ipList: partners',
    'ipList: partner',
    `14 ${rule}.to[0].ipList: there is no ip-list "partner"; did you mean "partners"?`,
  ],
  [
    'ipList: partners',
    'ipList: zzz',
    `14 ${rule}.to[0].ipList: there is no ip-list "zzz": define it under ipLists`,
  ],
  [
    'services: [web]',
    'services: [wbe]',
    `15 ${rule}.services[0]: there is no service "wbe"; did you mean "web"?`,
  ],
  [
    'services: [web]',
    'services: [dns]',
    `15 ${rule}.services[0]: there is no service "dns": define it under services, or write { port, protocol }`,
  ],
  [
    'group: nonprod',
    'group: nonprd',
    `13 ${rule}.from[0].labels.env.group: there is no label group "nonprd"; did you mean "nonprod"?`,
  ],
  [
    'app: pay, env: {',
    'app: {',
    `13 ${rule}.from[0].labels.app.group: label group "nonprod" is of env, not of app: write env: { group: nonprod }`,
  ],
  [
    '{ not: prod }',
    '{ not: prd }',
    '17 boundaries[0].to[0].labels.env.not: env can\'t be "prd": labels lists prod, uat; did you mean "prod"?',
  ],
  [
    'values: [uat] }',
    'values: [test] }',
    '3 labelGroups[0].values[0]: env can\'t be "test": labels lists prod, uat; list it there too',
  ],
  [
    '{ labels: { env: prod } }',
    '{ labels: { kind: pods } }',
    '17 boundaries[0].from[0].labels.kind: there is no kind "pods": write one of unknown, pod, node, vm, host, service, range, name',
  ],
  // Groups.
  [
    'values: [uat] }',
    'values: [] }',
    '3 labelGroups[0].values: label group nonprod has no values: list some, or groups',
  ],
  [
    'values: [uat] }',
    'values: [uat], groups: [tset] }',
    '3 labelGroups[0].groups[0]: there is no label group "tset": define it under labelGroups',
  ],
  [
    'values: [uat] }',
    'values: [uat], groups: [nonprod] }',
    '3 labelGroups[0].groups[0]: label group "nonprod" holds nonprod itself: take one out of the other',
  ],
  [
    'values: [uat] }',
    'values: [uat], groups: [core] }\n  - { name: core, key: app, values: [pay] }',
    '3 labelGroups[0].groups[0]: label group "core" is of app, not of env: name groups of one key',
  ],
  // Addresses, names, ports, dates.
  [
    '203.0.113.0/24',
    '203.0.113.0/40',
    '5 ipLists[0].cidrs[0]: "203.0.113.0/40" is no address or CIDR: write for example 10.1.0.0/16',
  ],
  [
    '[203.0.113.0/24], names: [api.acme.com]',
    '[]',
    '5 ipLists[0].name: ip-list partners holds nothing: give it cidrs or names',
  ],
  [
    '[203.0.113.0/24], names: [api.acme.com]',
    "['!203.0.113.0/24']",
    '5 ipLists[0].cidrs: ip-list partners only leaves addresses out: list what it holds too',
  ],
  [
    'api.acme.com',
    'https://acme.com',
    '5 ipLists[0].names[0]: "https://acme.com" is no DNS name: write for example api.acme.com, or *.acme.com for all below',
  ],
  [
    '{ ipList: partners }',
    "{ dns: 'a*.acme.com' }",
    `14 ${rule}.to[0].dns: "a*.acme.com" is no DNS name: write for example api.acme.com, or *.acme.com for all below`,
  ],
  [
    '{ ipList: partners }',
    "{ cidr: ['!10.0.0.0/8'] }",
    `14 ${rule}.to[0].cidr[0]: "!10.0.0.0/8" leaves addresses out, which only an ip-list can: define one under ipLists`,
  ],
  [
    '{ ipList: partners }',
    '{ cidr: 10.0.0.256 }',
    `14 ${rule}.to[0].cidr: "10.0.0.256" is no address or CIDR: write for example 10.1.0.0/16`,
  ],
  [
    '{ port: 443 }',
    '{ port: 90-80 }',
    '7 services[0].ports[0].port: 90-80 is no range of ports: write low-high, up to 65535',
  ],
  [
    '{ port: 443 }',
    '{ port: 8, protocol: icmp }',
    '7 services[0].ports[0].port: icmp has no ports: leave port out, or write icmpType',
  ],
  [
    '{ port: 443 }',
    '{ icmpType: 8 }',
    '7 services[0].ports[0].icmpType: tcp has no ICMP types: write protocol: icmp or icmpv6 beside it',
  ],
  [
    '{ port: 443 }',
    '{ protocol: icmp, icmpCode: 0 }',
    '7 services[0].ports[0].icmpCode: a code belongs to a type: write icmpType beside it',
  ],
  [
    ...more('expires: soon'),
    `16 ${rule}.expires: "soon" is no date: write for example 2027-01-31, or 2027-01-31T18:00:00Z`,
  ],
  // Scopes and names given twice.
  [
    '    scope: [{ app: pay }]',
    '    scope: []',
    '10 rulesets[0].scope: the scope is empty, so no rule could ever match: list labels, or leave scope out',
  ],
  [
    '    scope: [{ app: pay }]\n    rules:\n      - name: out',
    '    rules:\n      - name: out\n        scope: intra',
    `12 ${rule}.scope: ruleset pay has no scope for the rule to be intra of: give it one, or leave scope out`,
  ],
  [
    'boundaries:\n',
    'boundaries:\n  - { name: wall, from: [{ any: true }], to: [{ any: true }] }\n',
    '18 boundaries[1].name: "wall" is defined already in p.yaml boundaries[0]: names are unique',
  ],
  [
    '  - name: pay\n',
    '  - name: boundaries\n    rules: [{ name: wall, from: [{ any: true }], to: [{ any: true }] }]\n  - name: pay\n',
    '10 rulesets[0].rules[0].name: "boundaries/wall" is the name of a boundary too (p.yaml boundaries[0]): rename one',
  ],
];

for (const [before, after, error] of mistakes) {
  const title = error.slice(error.indexOf(': ') + 2);
  test(`is told: ${title}`, () => {
    assert.ok(good.includes(before), before);
    assert.deepEqual(problems(good.replace(before, after)), [error]);
  });
}

test('an entry that is wrong in itself hides no error of another, and its name is known', () => {
  const text = good
    .replace('cidrs: [203.0.113.0/24]', 'cidr: [203.0.113.0/24]')
    .replace(
      'services: [web]\n',
      'services: [wbe]\n      - { name: bad, form: [] }\n      - { name: out, from: [{ any: true }], to: [{ ipList: nowhere }] }\n',
    );
  assert.deepEqual(problems(text), [
    '5 ipLists[0].cidr: there is no key "cidr" here; did you mean "cidrs"?',
    '16 rulesets[0].rules[1].form: there is no key "form" here; did you mean "from"?',
    '16 rulesets[0].rules[1]: "from" is missing: Sources: one of them must match.',
    '16 rulesets[0].rules[1]: "to" is missing: Destinations: one of them must match.',
    '15 rulesets[0].rules[0].services[0]: there is no service "wbe"; did you mean "web"?',
    '17 rulesets[0].rules[2].name: ruleset pay has a rule "out" already: names are unique in a ruleset',
    '17 rulesets[0].rules[2].to[0].ipList: there is no ip-list "nowhere": define it under ipLists',
  ]);
});

test('blocks that overlap in more ways than a column has room for are refused', () => {
  const blocks = Array.from({ length: maxBlockSets + 1 }, (_, i) => ({
    condition: i,
    text: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
  }));
  assert.equal(new BlockSets(blocks.slice(1)).conditions.length, maxBlockSets + 1);
  assert.throws(() => new BlockSets(blocks), /overlap in more than 65535 ways: use fewer ip-lists or CIDRs/);
});

test('the published schema is that of the policy, and describes every key', () => {
  const file = new URL('../../schemas/policy.schema.json', import.meta.url);
  const published: unknown = JSON.parse(readFileSync(file, 'utf8'));
  assert.deepEqual(
    published,
    policyJsonSchema(),
    'write it anew: npx eastwest rules schema > schemas/policy.schema.json',
  );
  const undescribed: string[] = [];
  let described = 0;
  const walk = (shape: unknown, at: string): void => {
    if (typeof shape !== 'object' || shape === null) return;
    for (const [key, inner] of Object.entries(shape)) {
      walk(inner, `${at}.${key}`);
      if (key !== 'properties') continue;
      for (const [name, property] of Object.entries(inner)) {
        described++;
        if (!Object.hasOwn(Object(property), 'description')) undescribed.push(`${at}.${name}`);
      }
    }
  };
  walk(published, '');
  assert.deepEqual(undescribed, []);
  assert.ok(described > 100);
});
