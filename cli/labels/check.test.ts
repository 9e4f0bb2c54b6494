import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Profile } from '../../schemas/policy.ts';
import { type CheckResult, checkManifests } from './check.ts';

const profiles: Profile[] = [
  {
    name: 'payments',
    match: { namespace: ['payments*'] },
    assign: { app: 'payments', env: 'prod' },
    map: [
      { key: 'role', from: { label: 'component' }, values: { api: 'api' } },
      { key: 'loc', from: { namespaceLabel: 'site' } },
    ],
    allow: { role: ['api', 'batch'] },
  },
  { name: 'system', match: { namespace: ['kube-*'] }, managed: false },
  { name: 'east', match: { cluster: ['east'] }, assign: { app: 'a', role: 'b', env: 'c', loc: 'd' } },
];

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: api
  namespace: payments
spec:
  template:
    metadata:
      labels: { component: api }
      annotations:
        eastwest.io/role: batch
`;
const namespace = '---\nkind: Namespace\nmetadata: { name: payments, labels: { site: dc1 } }\n';

function check(text: string, more: { cluster?: string; namespace?: string } = {}): CheckResult {
  return checkManifests(new Map([['m.yaml', text]]), profiles, {
    cluster: '',
    namespace: 'default',
    ...more,
  });
}

function said(result: CheckResult): string[] {
  return result.problems.map(
    ({ file, line, severity, workload, message }) => `${file}:${line} ${severity} ${workload}: ${message}`,
  );
}

test('a pod template gets the labels of its profile, each with its source', () => {
  const result = check(deployment + namespace);
  assert.deepEqual(said(result), []);
  assert.deepEqual(result.workloads[0], {
    file: 'm.yaml',
    line: 2,
    column: 1,
    kind: 'Deployment',
    namespace: 'payments',
    name: 'api',
    profile: 'payments',
    managed: true,
    labels: [
      { key: 'app', value: 'payments', source: 'profile payments' },
      { key: 'env', value: 'prod', source: 'profile payments' },
      {
        key: 'role',
        value: 'batch',
        source: 'annotation eastwest.io/role, allowed by profile payments',
      },
      { key: 'loc', value: 'dc1', source: 'namespace label site=dc1, mapped by profile payments' },
    ],
  });
});

test('an annotation that is forbidden or out of bounds is an error at its own line', () => {
  const bad = deployment.replace(
    'eastwest.io/role: batch',
    'eastwest.io/role: root\n        eastwest.io/app: x',
  );
  assert.deepEqual(said(check(bad + namespace)), [
    'm.yaml:12 error Deployment payments/api: annotation eastwest.io/role=root: profile payments allows api, batch',
    'm.yaml:13 error Deployment payments/api: annotation eastwest.io/app=x: profile payments assigns app=payments',
  ]);
});

test('every kind that makes pods is looked at, in lists and in JSON too, and nothing else', () => {
  const template = { metadata: { labels: { component: 'api' } } };
  const object = (kind: string, more: object) => ({
    kind,
    metadata: { name: kind.toLowerCase(), namespace: 'payments' },
    ...more,
  });
  const list = {
    kind: 'List',
    items: [
      object('Pod', { metadata: { name: 'pod', namespace: 'payments', labels: { component: 'api' } } }),
      ...['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'ReplicationController', 'Job'].map(
        (kind) => object(kind, { spec: { template } }),
      ),
      object('CronJob', { spec: { jobTemplate: { spec: { template } } } }),
      object('Service', {}),
      object('constructor', {}),
    ],
  };
  const pods = { kind: 'PodList', items: [{ metadata: { name: 'listed', labels: { component: 'api' } } }] };
  const result = checkManifests(
    new Map([
      ['list.json', JSON.stringify(list)],
      ['pods.json', JSON.stringify(pods)],
    ]),
    profiles,
    { cluster: '', namespace: 'payments' },
  );
  assert.deepEqual(
    result.workloads.map(({ kind, labels }) => `${kind} ${labels.find(({ key }) => key === 'role')?.value}`),
    [
      'Pod',
      'Deployment',
      'StatefulSet',
      'DaemonSet',
      'ReplicaSet',
      'ReplicationController',
      'Job',
      'CronJob',
      'Pod',
    ].map((kind) => `${kind} api`),
  );
});

test('a workload that no profile matches is an error, which says how to mend it', () => {
  const elsewhere = deployment
    .replace('namespace: payments', 'namespace: shop')
    .replace(/ *annotations:[\s\S]*$/, '');
  assert.match(
    said(check(elsewhere)).join(),
    /error .*no profile matches namespace shop.*name it with --cluster/,
  );
  assert.deepEqual(said(check(elsewhere, { cluster: 'east' })), []);
  assert.match(said(check(elsewhere, { cluster: 'west' })).join(), /add its namespace to a profile/);
});

test('built-in labels that are missing are a warning, with the reason where it is known', () => {
  const plain = deployment.replace('component: api', 'component: web').replace(/ *annotations:[\s\S]*$/, '');
  assert.deepEqual(said(check(plain)), [
    'm.yaml:2 warning Deployment payments/api: it gets no role, loc (profile payments); label component=web gives no role: it is not among the mapped values; loc comes from label site of namespace payments, which these manifests do not define',
  ]);
});

test('a workload that is not managed gets no labels and no complaint, but its annotations are refused', () => {
  const system = deployment.replace('namespace: payments', 'namespace: kube-system');
  const result = check(system);
  assert.deepEqual(said(result), [
    'm.yaml:12 error Deployment kube-system/api: annotation eastwest.io/role: profile system gives no labels (managed: false)',
  ]);
  assert.deepEqual([result.workloads[0]?.managed, result.workloads[0]?.labels], [false, []]);
});

test('an annotation on the controller instead of its pod template is a warning', () => {
  const wrong = deployment.replace(
    '  namespace: payments',
    '  namespace: payments\n  annotations: { eastwest.io/env: x, other: y }',
  );
  assert.deepEqual(said(check(wrong + namespace)), [
    'm.yaml:2 warning Deployment payments/api: annotation eastwest.io/env stands on the Deployment itself, and its pods do not get it: move it to the metadata of the pod template',
  ]);
});

test('what is no manifest is an error with its line, and the rest is checked all the same', () => {
  const result = checkManifests(
    new Map([
      ['broken.yaml', 'kind: Pod\nmetadata: {{ .Values.meta }\n  x: [\n'],
      [
        'odd.yaml',
        'kind: Pod\nmetadata: { name: a, namespace: payments, annotations: { eastwest.io/role: 1 } }\n---\nkind: Pod\n---\n- 1\n---\napiVersion: v1\n',
      ],
      ['good.yaml', deployment + namespace],
    ]),
    profiles,
    { cluster: '', namespace: 'default' },
  );
  const lines = said(result).join('\n');
  assert.match(lines, /broken.yaml:3 error : this is not YAML: Missing.*column 3\. Render templates first/);
  assert.match(lines, /odd.yaml:2 error : eastwest.io\/role must be a text: put 1 in quotes/);
  assert.match(lines, /odd.yaml:4 error : a Pod needs metadata.name/);
  assert.match(lines, /odd.yaml:8 error : this object has no kind/);
  assert.equal(result.workloads.length, 2);
});
