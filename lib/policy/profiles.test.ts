import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Profile } from '../../schemas/policy.ts';
import { maxLabelCount, maxLabelValueLength } from './label-limits.ts';
import { type LabelSubject, makeLabeller, ProfileSet, sourceText } from './profiles.ts';

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

function explain(profiles: readonly Profile[], subject: LabelSubject, namespaceLabels = {}) {
  return new ProfileSet(profiles).explain(subject, namespaceLabels);
}

function reasons(profiles: readonly Profile[], annotations: Record<string, string>): string[] {
  return explain(profiles, { ...pod, annotations }).refused.map(({ reason }) => reason);
}

test('labels come from the profile, and each names its source', () => {
  const result = explain(
    [profile],
    { ...pod, annotations: { 'eastwest.io/note': 'mine' } },
    { owner: 'blue' },
  );
  assert.deepEqual(result.labels, {
    app: 'payments',
    env: 'prod',
    note: 'mine',
    role: 'database',
    owner: 'blue',
    loc: 'dc1',
  });
  const words = Object.fromEntries(
    Object.entries(result.sources).map(([key, source]) => [key, sourceText(source, result.profile)]),
  );
  assert.deepEqual(words, {
    app: 'profile payments',
    env: 'profile payments',
    note: 'annotation eastwest.io/note, allowed by profile payments',
    role: 'label tier=db, mapped by profile payments',
    owner: 'namespace label owner=blue, mapped by profile payments',
    loc: 'default of profile payments',
  });
  assert.deepEqual([result.profile, result.managed, result.refused], ['payments', true, []]);
});

test('an allowed annotation beats a mapping; a forbidden one is reported, not obeyed', () => {
  const result = explain([profile], {
    ...pod,
    annotations: {
      'eastwest.io/role': 'cache',
      'eastwest.io/app': 'ledger',
      'eastwest.io/env': 'prod',
      'eastwest.io/zone': 'dmz',
      'example.com/x': 'y',
    },
  });
  assert.equal(result.labels.role, 'cache');
  assert.equal(result.labels.app, 'payments');
  assert.equal(result.labels.zone, undefined);
  assert.deepEqual(
    result.refused.map(({ reason }) => reason),
    [
      'annotation eastwest.io/app=ledger: profile payments assigns app=payments',
      'annotation eastwest.io/zone=dmz: profile payments does not allow it',
    ],
  );
  const bad = explain([profile], { ...pod, annotations: { 'eastwest.io/role': 'root' } });
  assert.equal(bad.labels.role, 'database');
  assert.deepEqual(bad.refused, [
    {
      name: 'eastwest.io/role',
      value: 'root',
      reason: 'annotation eastwest.io/role=root: profile payments allows database, cache',
    },
  ]);
});

test('no annotation is obeyed where no profile matches, or where the profile gives no labels', () => {
  const annotations = { 'eastwest.io/role': 'cache' };
  assert.deepEqual(reasons([], annotations), [
    'annotation eastwest.io/role: no profile matches, so none is obeyed',
  ]);
  assert.deepEqual(reasons([{ name: 'system', match: {}, managed: false }], annotations), [
    'annotation eastwest.io/role: profile system gives no labels (managed: false)',
  ]);
});

test('a value that is empty, too long or not printable is no label, and the next source gives it', () => {
  const long = 'x'.repeat(maxLabelValueLength + 1);
  const cases: [string, RegExp][] = [
    ['', /is empty/],
    [long, /has 254 characters, a label value has at most 253/],
    ['a\nb', /control characters/],
  ];
  for (const [value, reason] of cases) {
    const anything: Profile = { ...profile, allow: { role: [] } };
    const subject = { ...pod, annotations: { 'eastwest.io/role': value } };
    const result = explain([anything], subject);
    assert.equal(result.labels.role, 'database');
    assert.match(result.refused[0]?.reason ?? '', reason);
  }
  const mapped: Profile = {
    name: 'm',
    match: {},
    map: [{ key: 'role', from: { label: 'tier' } }],
    default: { role: 'other' },
  };
  assert.equal(explain([mapped], { ...pod, labels: { tier: '' } }).labels.role, 'other');
  assert.equal(explain([mapped], { ...pod, labels: { tier: long } }).labels.role, 'other');
});

test('a value outside of the table of a mapping gives nothing, and is noted', () => {
  const result = explain([profile], { ...pod, labels: { tier: 'web' } });
  assert.equal(result.labels.role, 'other');
  assert.deepEqual(result.notes, ['label tier=web gives no role: it is not among the mapped values']);
});

test('names that every object has are neither labels nor values', () => {
  const odd: Profile = {
    name: 'odd',
    match: {},
    map: [
      { key: 'a', from: { label: 'constructor' } },
      { key: 'b', from: { label: 'tier' }, values: { db: 'x' } },
    ],
  };
  const subject = { ...pod, labels: { tier: 'toString' }, annotations: { 'eastwest.io/constructor': 'x' } };
  const result = explain([odd], subject);
  assert.deepEqual(result.labels, {});
  assert.equal(result.refused.length, 1);
});

test('of several mappings to one key, the first that gives a value is used', () => {
  const chain: Profile = {
    name: 'chain',
    match: {},
    map: [
      { key: 'app', from: { label: 'app.kubernetes.io/part-of' } },
      { key: 'app', from: { label: 'app' } },
      { key: 'app', from: { namespaceLabel: 'app' } },
    ],
  };
  assert.equal(explain([chain], { ...pod, labels: { app: 'own' } }, { app: 'space' }).labels.app, 'own');
  assert.equal(explain([chain], pod, { app: 'space' }).labels.app, 'space');
});

test('the first profile that matches is used, by whole names with * as a wildcard', () => {
  const profiles: Profile[] = [
    { name: 'a', match: { cluster: ['west'] }, assign: { app: 'a' } },
    { name: 'b', match: { namespace: ['pay.*'] }, assign: { app: 'b' } },
    { name: 'c', match: { namespace: ['*-prod'] }, assign: { app: 'c' } },
    { name: 'd', match: {}, assign: { app: 'd' } },
  ];
  const label = makeLabeller(profiles);
  assert.equal(label(pod, {}).labels.app, 'c');
  assert.equal(label({ ...pod, cluster: 'west' }, {}).labels.app, 'a');
  assert.equal(label({ ...pod, namespace: 'payments-production' }, {}).labels.app, 'd');
  const matching = new ProfileSet(profiles).matching({ ...pod, cluster: 'west' });
  assert.deepEqual(
    matching.map(({ name }) => name),
    ['a', 'c', 'd'],
  );
});

test('a profile can match a group of VMs, and leave pods of the same name alone', () => {
  const group: Profile = {
    name: 'oracle',
    match: { namespace: ['oracle-*'], kind: ['vm', 'host'] },
    assign: { app: 'oracle' },
  };
  const label = makeLabeller([group]);
  assert.deepEqual(label({ ...pod, kind: 'vm', cluster: '', namespace: 'oracle-eu' }, {}).labels, {
    app: 'oracle',
  });
  assert.deepEqual(label({ ...pod, namespace: 'oracle-eu' }, {}).labels, {});
});

test('without a profile, Kubernetes words are no labels, and those of a VM list are', () => {
  const label = makeLabeller([]);
  assert.deepEqual(label(pod, {}).labels, {});
  assert.deepEqual(label({ ...pod, kind: 'vm', labels: { app: 'mainframe', note: '' } }, {}).labels, {
    app: 'mainframe',
  });
});

test('a workload that is not managed has no labels, not even those of a VM list', () => {
  const unmanaged: Profile = { name: 'appliances', match: {}, managed: false, assign: { app: 'x' } };
  const result = explain([unmanaged], { ...pod, kind: 'vm', labels: { app: 'mainframe' } });
  assert.deepEqual([result.labels, result.profile, result.managed], [{}, 'appliances', false]);
});

test('labels over the limit are left out and said', () => {
  const labels = Object.fromEntries(Array.from({ length: maxLabelCount + 3 }, (_, i) => [`k${i}`, 'v']));
  const vm = { ...pod, kind: 'vm', labels };
  const result = explain([], vm);
  assert.equal(Object.keys(result.labels).length, maxLabelCount);
  assert.equal(result.refused.length, 3);
  assert.deepEqual(makeLabeller([])(vm, {}).labels, result.labels);
});

test('workloads that agree in all a profile looks at share one object of labels', () => {
  const label = makeLabeller([profile]);
  const first = label(pod, { owner: 'blue' }).labels;
  assert.equal(label({ ...pod, labels: { tier: 'db', hash: 'abc' } }, { owner: 'blue' }).labels, first);
  assert.notEqual(label(pod, { owner: 'red' }).labels, first);
});

const word = fc.constantFrom('', 'a', 'b', 'c', 'x\ny');
const words = fc.dictionary(fc.constantFrom('k', 'l', 'eastwest.io/k', 'eastwest.io/l', 'toString'), word);
const anyProfile = fc.record({
  name: fc.constantFrom('p', 'q'),
  match: fc.record(
    {
      namespace: fc.array(fc.constantFrom('*', 'n', 'n*', 'm')),
      kind: fc.array(fc.constantFrom('pod', 'vm')),
    },
    { requiredKeys: [] },
  ),
  assign: fc.dictionary(fc.constantFrom('k', 'o'), word),
  allow: fc.dictionary(fc.constantFrom('k', 'l'), fc.array(word, { maxLength: 2 })),
  map: fc.array(
    fc.record({
      key: fc.constantFrom('k', 'l', 'm'),
      from: fc.oneof(
        fc.record({ label: fc.constantFrom('k', 'toString') }),
        fc.record({ namespaceLabel: fc.constant('l') }),
        fc.record({ annotation: fc.constant('l') }),
      ),
      values: fc.option(fc.dictionary(word, word), { nil: undefined }),
    }),
    { maxLength: 3 },
  ),
  default: fc.dictionary(fc.constantFrom('k', 'l', 'z'), word),
  managed: fc.boolean(),
});
const anySubject = fc.record({
  kind: fc.constantFrom('pod', 'vm'),
  cluster: fc.constantFrom('', 'east'),
  namespace: fc.constantFrom('n', 'm', 'nn'),
  labels: words,
  annotations: words,
});

test('the labels of the hot path are those that are explained, whatever was asked before', () => {
  fc.assert(
    fc.property(
      fc.array(anyProfile, { maxLength: 3 }),
      fc.array(fc.tuple(anySubject, words), { minLength: 1, maxLength: 20 }),
      (profiles, questions) => {
        const set = new ProfileSet(profiles as Profile[]);
        for (const [subject, namespaceLabels] of questions) {
          const { labels } = set.labelsOf(subject, namespaceLabels);
          const explained = new ProfileSet(profiles as Profile[]).explain(subject, namespaceLabels);
          assert.deepEqual({ ...labels }, { ...explained.labels });
          assert.deepEqual(Object.keys(explained.sources).sort(), Object.keys(labels).sort());
        }
      },
    ),
    { numRuns: 300 },
  );
});
