import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Profile } from '../../schemas/policy.ts';
import { maxLabelCount, maxLabelKeyLength } from './label-limits.ts';
import { type LoadResult, readPolicy } from './load.ts';
import { compareMatches } from './profile-overlap.ts';
import { makeLabeller } from './profiles.ts';

function read(text: string, more: Record<string, string> = {}): LoadResult {
  return readPolicy(new Map([['p.yaml', text], ...Object.entries(more)]));
}

/** Every error and warning, as `file:line severity message`. */
function said(text: string, more: Record<string, string> = {}): string[] {
  const result = read(text, more);
  const all = [...(result.ok ? [] : result.problems), ...result.warnings];
  return all.map(({ file, line, severity, message }) => `${file}:${line} ${severity} ${message}`);
}

const labels = 'labels: [{ key: env, values: [dev, prod] }, { key: team }]\n';

test('profiles that say nothing wrong are taken without a word', () => {
  const text = `${labels}profiles:
  - { name: payments, match: { namespace: [payments-*] }, assign: { app: payments, env: prod } }
  - { name: system, match: { namespace: [kube-*] }, managed: false }
  - { name: rest, match: {}, map: [{ key: app, from: { label: app } }], assign: { env: dev } }
rulesets: [{ name: r, scope: [{ env: prod }], rules: [{ name: a, from: [{ labels: { team: x, kind: pod } }], to: [{ any: true }] }] }]
`;
  assert.deepEqual(said(text), []);
});

test('two profiles that match the same and assign other values are an error, also across files', () => {
  const list = said(
    'profiles: [{ name: a, match: { namespace: [x, y], kind: [pod] }, assign: { app: one, env: dev } }]',
    {
      'q.yaml':
        'profiles:\n  - name: b\n    match: { namespace: [y, x, x], kind: [pod] }\n    assign: { app: two, env: dev }\n',
    },
  );
  assert.deepEqual(list, [
    'q.yaml:3 error profile b matches the same workloads as profile a (p.yaml profiles[0]), which gives app=one (here app=two): merge them, or make one narrower',
  ]);
});

test('a profile that never comes to be used is warned of, with the one before it', () => {
  const text = `profiles:
  - { name: all, match: { namespace: ['*'] }, assign: { app: x } }
  - { name: late, match: { namespace: [payments-*], kind: [pod] }, assign: { app: y } }
`;
  assert.deepEqual(said(text), [
    'p.yaml:3 warning profile late is never used: profile all (p.yaml profiles[0]) comes before it and matches all of namespace payments-*; kind pod; put it first, or remove it',
  ]);
});

test('profiles that overlap and differ are warned of; an exception before its rule is not', () => {
  const across = `profiles:
  - { name: prod, match: { namespace: ['*-prod'] }, assign: { env: prod } }
  - { name: pay, match: { namespace: ['pay-*'] }, assign: { env: dev } }
`;
  assert.deepEqual(said(across), [
    'p.yaml:3 warning profile pay overlaps with profile prod (p.yaml profiles[0]), which gives env=prod (here env=dev); where both match, prod wins as it comes first',
  ]);
  const exception = across.replace("'*-prod'", 'pay-blue-prod');
  assert.deepEqual(said(exception), []);
});

test('label keys that cannot be are refused, each with what is right', () => {
  const long = 'k'.repeat(maxLabelKeyLength + 1);
  const list = said(`profiles:
  - name: a
    match: {}
    assign:
      namespace: x
      ${long}: x
      'a b': x
    default: { app: '' }
`).join('\n');
  assert.match(list, /p.yaml:5 error "namespace" is built in, every workload has it: choose another key/);
  assert.match(list, /p.yaml:6 error "k+\.\.\." has 64 characters: a label key has at most 63/);
  assert.match(list, /p.yaml:7 error "a b" is no label key: write letters/);
  assert.match(list, /p.yaml:8 error the value of app can't be: it is empty/);
});

test('more labels than a workload may have are refused where certain, warned of where possible', () => {
  const some = (count: number, prefix: string) =>
    Array.from({ length: count }, (_, i) => `${prefix}${i}: x`).join(', ');
  const certain = `profiles: [{ name: a, match: {}, assign: { ${some(15, 'a')} }, default: { ${some(6, 'd')} } }]`;
  assert.deepEqual(said(certain), [
    `p.yaml:1 error profile a gives 21 labels, a workload has at most ${maxLabelCount}: give fewer`,
  ]);
  const possible = `profiles: [{ name: a, match: {}, assign: { ${some(15, 'a')} }, allow: { ${some(6, 'b').replaceAll(': x', ': []')} } }]`;
  assert.match(said(possible).join(), /warning profile a may give 21 labels/);
});

test('a value that labels does not list is refused in profiles and rules, with the nearest right one', () => {
  const list = said(`${labels}profiles:
  - name: a
    match: {}
    assign: { env: prd }
    map: [{ key: env, from: { label: e }, values: { p: production } }]
  - { name: b, match: { kind: [vm] }, allow: { env: [dev, uat] } }
rulesets:
  - name: r
    scope: [{ env: [dev, test] }]
    rules: [{ name: x, from: [{ labels: { env: pord } }], to: [{ any: true }] }]
`).filter((line) => line.includes('error'));
  assert.deepEqual(list, [
    'p.yaml:5 error env can\'t be "prd": labels lists dev, prod; did you mean "prod"?',
    'p.yaml:6 error env can\'t be "production": labels lists dev, prod; list it there too',
    'p.yaml:7 error env can\'t be "uat": labels lists dev, prod; list it there too',
    'p.yaml:10 error env can\'t be "test": labels lists dev, prod; list it there too',
    'p.yaml:11 error env can\'t be "pord": labels lists dev, prod; did you mean "prod"?',
  ]);
});

test('an annotation, mapping or default that what is assigned always beats is warned of', () => {
  const list = said(`profiles:
  - name: a
    match: {}
    assign: { app: x, role: y, env: z }
    allow: { app: [] }
    map: [{ key: role, from: { label: r } }]
    default: { env: q }
`);
  assert.deepEqual(list, [
    'p.yaml:5 warning the annotation can never set app: profile a assigns app=x; leave out one of them',
    'p.yaml:6 warning this mapping can never give role: profile a assigns role=y; leave out one of them',
    'p.yaml:7 warning this default can never be used: profile a assigns env=z; leave out one of them',
  ]);
});

test('a profile that is not managed and gives labels all the same is refused', () => {
  assert.match(
    said('profiles: [{ name: a, match: {}, managed: false, assign: { app: x } }]').join(),
    /error profile a has managed: false, so it gives no labels: leave out assign, or managed/,
  );
  assert.match(
    said('profiles: [{ name: a, match: {} }]').join(),
    /warning profile a gives no labels: add assign or map, or say managed: false/,
  );
});

test('a rule that asks for a label nobody gives is warned of, with the nearest one', () => {
  const text = `profiles: [{ name: a, match: {}, map: [{ key: data-class, from: { label: d } }] }]
rulesets:
  - name: r
    rules: [{ name: x, from: [{ labels: { data-clas: x } }], to: [{ labels: { kind: pods } }] }]
`;
  assert.deepEqual(said(text), [
    'p.yaml:4 error there is no kind "pods": write one of unknown, pod, node, vm, host, service, range, name',
    'p.yaml:4 warning no profile gives a label "data-clas", and labels does not declare it; did you mean "data-class"?',
  ]);
});

test('a key that labels does not declare is warned of once labels declares any', () => {
  assert.deepEqual(said(`${labels}profiles: [{ name: a, match: {}, assign: { tema: x } }]`), [
    'p.yaml:2 warning label "tema" is not declared under labels; did you mean "team"?',
  ]);
  assert.deepEqual(said('profiles: [{ name: a, match: {}, assign: { tema: x } }]'), []);
});

test('a label is declared once, with values that can be', () => {
  const list = said(
    "labels: [{ key: env, values: ['', dev] }, { key: env }, { key: kind }, { key: x, values: [] }]",
  );
  assert.equal(list.length, 4);
  assert.match(list.join('\n'), /label "env" is declared already in p.yaml labels\[0\]/);
  assert.match(list.join('\n'), /label "x" may have no value at all/);
});

test('what labels lists bounds mappings and annotations that leave the value open', () => {
  const result = read(`${labels}profiles:
  - { name: a, match: {}, map: [{ key: env, from: { label: e } }], allow: { env: [], team: [] } }
`);
  assert.ok(result.ok);
  const label = makeLabeller(result.policy.profiles);
  const pod = { kind: 'pod', cluster: 'c', namespace: 'n', annotations: {} };
  assert.deepEqual(label({ ...pod, labels: { e: 'prod' } }, {}).labels, { env: 'prod' });
  assert.deepEqual(label({ ...pod, labels: { e: 'production' } }, {}).labels, {});
  const annotations = { 'eastwest.io/env': 'live', 'eastwest.io/team': 'any' };
  assert.deepEqual(label({ ...pod, labels: {}, annotations }, {}).labels, { team: 'any' });
});

test('matches lie apart, inside or around each other, over all that they look at', () => {
  const cases: [Profile['match'], Profile['match'], string][] = [
    [{ namespace: ['a'] }, { namespace: ['b'] }, 'apart'],
    [{ kind: ['pod'] }, { kind: ['vm'] }, 'apart'],
    [{ cluster: ['x-*'] }, { cluster: ['*-y'] }, 'across'],
    [{ namespace: ['a-1'], cluster: ['x'] }, { namespace: ['a-*'] }, 'inside'],
    [{ namespace: ['a-*', 'b'] }, { namespace: ['b', 'a-*'], cluster: [] }, 'same'],
    [{}, { kind: ['pod'] }, 'around'],
    [{ namespace: ['a'] }, { cluster: ['x'] }, 'across'],
  ];
  for (const [first, second, relation] of cases) assert.equal(compareMatches(first, second), relation);
});
