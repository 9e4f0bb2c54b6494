/** The second opinion over HTTP, and the commands around NetworkPolicies and exports, as people run them. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import { parseAllDocuments } from 'yaml';
import { exportNetworkPolicyCommand } from '../cli/export/networkpolicy.ts';
import { exportNftablesCommand } from '../cli/export/nftables.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { readPolicy } from '../lib/policy/load.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { OperatorError } from '../lib/runtime/exit.ts';
import { StoreConfig } from '../lib/store/config.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { topics } from '../schemas/topics.ts';
import { buildQueryApp } from '../services/query/app.ts';
import { QueryConfig } from '../services/query/config.ts';

const log = pino({ level: 'silent' });
const program = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));

type Workload = Extract<InventoryEvent, { type: 'workload' }>;
function workload(name: string, ip: string, more: Partial<Workload> = {}): InventoryEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid: `uid-${name}`,
    name,
    namespace: 'shop',
    node: 'n1',
    hostNetwork: false,
    labels: { app: name.replace(/-\d$/, '') },
    annotations: {},
    addresses: ip === '' ? [] : [{ ip, network: more.cluster ?? 'east', sinceMs: 1 }],
    sinceMs: 1,
    ...more,
  };
}
const policy = (namespace: string, name: string, spec: unknown, cluster = 'east'): InventoryEvent => ({
  v: 1,
  type: 'network-policy',
  cluster,
  uid: `${cluster}-${namespace}-${name}`,
  namespace,
  name,
  labels: {},
  spec,
  sinceMs: 1,
});
const events: InventoryEvent[] = [
  { v: 1, type: 'cluster', cluster: 'east', podCidrs: ['10.1.0.0/16'], serviceCidrs: ['10.96.0.0/16'] },
  { v: 1, type: 'namespace', cluster: 'east', name: 'shop', labels: {}, annotations: {} },
  { v: 1, type: 'namespace', cluster: 'east', name: 'monitoring', labels: { team: 'b' }, annotations: {} },
  workload('web-1', '10.1.0.1', { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] }),
  workload('web-2', '10.1.0.2', {
    labels: { app: 'web', canary: 'yes' },
    ports: [{ name: 'http', port: 9090, protocol: 'TCP' }],
  }),
  workload('db-1', '10.1.0.3'),
  workload('prober', '10.1.0.4', { namespace: 'monitoring', node: 'n2' }),
  workload('agent', '', { namespace: 'monitoring', hostNetwork: true }),
  workload('n1', '192.168.0.1', {
    kind: 'node',
    namespace: '',
    cluster: 'east',
    addresses: [{ ip: '192.168.0.1', network: 'default', sinceMs: 1 }],
  }),
  workload('gone', '10.1.0.9', {
    untilMs: 5,
    addresses: [{ ip: '10.1.0.9', network: 'east', sinceMs: 1, untilMs: 5 }],
  }),
  workload('client', '10.1.0.1', { cluster: 'west', namespace: 'remote', uid: 'west-client' }),
  workload('vm-1', '10.9.0.1', {
    kind: 'vm',
    cluster: '',
    namespace: 'legacy',
    labels: { app: 'legacy' },
    addresses: [{ ip: '10.9.0.1', network: 'default', sinceMs: 1 }],
  }),
  {
    v: 1,
    type: 'service',
    cluster: 'east',
    uid: 'svc-web',
    name: 'web-svc',
    namespace: 'shop',
    labels: {},
    annotations: {},
    selector: { app: 'web' },
    addresses: [{ ip: '10.96.0.1', network: 'east', sinceMs: 1 }],
    ports: [{ port: 80, protocol: 'TCP', name: 'http', targetPort: 'http' }],
    sinceMs: 1,
  },
  policy('shop', 'web', {
    podSelector: { matchLabels: { app: 'web' } },
    ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'b' } } }], ports: [{ port: 8080 }] }],
  }),
  policy('shop', 'db', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress', 'Egress'] }),
  policy('shop', 'broken', { podSelector: {}, ingress: [{ from: [{}] }] }),
  policy(
    'remote',
    'closed',
    { podSelector: {}, policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.1.0.3/32' } }] }] },
    'west',
  ),
];
const policyText = `
profiles:
  - { name: shop, match: { namespace: [shop], kind: [pod] }, map: [{ key: app, from: { label: app }, values: { web: web, db: db } }] }
rulesets:
  - name: shop
    rules:
      - { name: web-to-vm, from: [{ labels: { app: web } }], to: [{ labels: { app: legacy } }], services: [{ port: 1521 }] }
`;

let folder: string;
let bus: Bus;
let store: Store;
let app: FastifyInstance;
let url: string;

interface Opinion {
  allowed: boolean | null;
  why: string;
  pairs: {
    destination: string;
    port: string;
    allowed: boolean;
    remarks: string[];
    ingress: { policies: string[]; reason: string; rules: object[] };
  }[];
  problems: string[];
}
async function opinion(
  source: string,
  destination: string,
  port: string,
  status = 200,
): Promise<Opinion & { detail: string }> {
  const answer = await app.inject({
    url: '/api/v1/networkpolicy/opinion',
    query: { source, destination, port },
  });
  assert.equal(answer.statusCode, status, answer.body);
  return answer.json();
}

function run(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: number; stdout: string; stderr: string }>();
  const env = { ...process.env, EASTWEST_URL: url };
  execFile(
    process.execPath,
    [program, '--data-dir', folder, ...args],
    { env, cwd: folder },
    (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
    },
  );
  return promise;
}

async function write(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'eastwest-networkpolicy-'));
  const config = Parse(BusConfig, Default(BusConfig, {}));
  const open = () => openBus(config, { dataDir: folder, log, clientId: 'test' });
  bus = await open();
  await bus.ensureTopics(topicSpecs(config));
  await bus.append(
    topics.inventory,
    events.map((event) => ({ key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)) })),
  );
  const read = readPolicy(new Map([['p.yaml', policyText]]));
  assert.ok(read.ok);
  await publishPolicy(bus, read.policy, 'test');
  store = openStore(Parse(StoreConfig, Default(StoreConfig, {})), { log });
  app = await buildQueryApp({
    config: Parse(QueryConfig, Default(QueryConfig, { port: 0 })),
    store,
    sqlServer: { url: 'http://127.0.0.1:1', database: 'none', username: '', password: '' },
    minuteDays: 30,
    registry: new Registry(),
    log,
    withBus: async (work) => {
      const opened = await open();
      try {
        return await work(opened);
      } finally {
        await opened.close();
      }
    },
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  url = app.listeningOrigin;
});
after(async () => {
  await app.close();
  await store.close();
  await bus.close();
  await rm(folder, { recursive: true, force: true });
});

describe('the second opinion', () => {
  test('names the policies and rules that decide, and those that can not be read', async () => {
    const open = await opinion('prober', 'web-1', '8080');
    assert.deepEqual(
      [open.allowed, open.why],
      [true, 'no policy selects the source for egress; shop/web ingress[0] allows it'],
    );
    assert.deepEqual(open.problems, [
      'shop/broken: spec.ingress[0].from[0]: must have podSelector, namespaceSelector or ipBlock',
    ]);
    assert.deepEqual(open.pairs[0]?.ingress.rules, [
      { namespace: 'shop', policy: 'web', rule: 'ingress[0]', ports: 'TCP 8080' },
    ]);
    const closed = await opinion('prober', 'web-1', '22');
    assert.deepEqual(
      [closed.allowed, closed.why],
      [
        false,
        'policy shop/web isolates the destination for ingress, and the rules that speak of the other end open TCP 8080 only',
      ],
    );
    const foreign = await opinion('web-1', 'db-1', '5432');
    assert.equal(
      foreign.why,
      'policy shop/db isolates the destination for ingress, and no rule speaks of the other end',
    );
    assert.equal(
      (await opinion('web-1', 'prober', '53/udp')).why,
      'no policy selects the source for egress or the destination for ingress',
    );
  });

  test('of a service is that of each pod behind it, at the port that the pod has', async () => {
    const both = await opinion('prober', 'web-svc', '80');
    assert.deepEqual([both.allowed, both.why], [null, '1 of 2 pods behind the service are reached']);
    assert.deepEqual(
      both.pairs.map(({ destination, port, allowed }) => [destination, port, allowed]).sort(),
      [
        ['east/shop/web-1', '8080/tcp', true],
        ['east/shop/web-2', '9090/tcp', false],
      ],
    );
    assert.equal(
      (await opinion('prober', 'web-svc', '81')).why,
      'no pod stands behind this port of the service',
    );
  });

  test('says where Kubernetes leaves open what happens', async () => {
    const agent = await opinion('agent', 'web-1', '22');
    assert.deepEqual([agent.allowed, agent.pairs[0]?.ingress.reason], [true, 'own-node']);
    assert.match(
      agent.pairs[0]?.remarks[0] ?? '',
      /the source shares the network of its node: Kubernetes leaves open/,
    );
    assert.match(
      (await opinion('web-1', 'db-1', 'icmp')).pairs[0]?.remarks[0] ?? '',
      /TCP, UDP and SCTP only/,
    );
  });

  test('between clusters is that of each cluster, to which the other one is addresses', async () => {
    const denied = await opinion('west/remote/client', 'east/shop/web-1', '8080');
    assert.equal(denied.allowed, false);
    assert.match(
      denied.why,
      /remote\/closed isolates the source for egress.*shop\/web isolates the destination/,
    );
    assert.equal((await opinion('vm-1', 'db-1', '1')).allowed, false);
    assert.equal((await opinion('203.0.113.1', 'prober', '1')).allowed, true);
  });

  test('of what is not clear is an error that says what is right', async () => {
    for (const [source, destination, port, message] of [
      ['nobody', 'web-1', '1', /source is "nobody", which nothing is called; expected a workload/],
      [
        'web-1',
        'gone',
        '1',
        /destination is "gone", which 1 workloads are or were called; expected one workload that is there now/,
      ],
      [
        'web-svc',
        'web-1',
        '1',
        /source is "web-svc"; expected a workload or an address: services begin no connections/,
      ],
      ['web-1', 'db-1', '70000', /port is "70000"; expected a port such as 5432, 53\/udp, or icmp/],
      ['web-1', 'db-1', '1/foo', /port is "1\/foo"/],
    ] as const)
      assert.match((await opinion(source, destination, port, 400)).detail, message);
  });
});

const manifests = {
  'k8s/shop.yaml': `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec: { template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: c, ports: [{ name: http, containerPort: 8080 }] }] } } }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db, namespace: shop }
spec: { template: { metadata: { labels: { app: db } } } }
---
apiVersion: v1
kind: Pod
metadata: { name: probe, namespace: tools }
spec: { hostNetwork: true }
`,
  'k8s/policies.yaml': `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  policyTypes: [Ingress, Egress]
  ingress: [{ from: [{ ipBlock: { cidr: 0.0.0.0/0, except: [10.0.0.0/8] } }], ports: [{ port: http }] }]
  egress: [{ to: [{ podSelector: { matchLabels: { app: db } } }], ports: [{ port: 5432 }] }]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: shop }
spec: { podSelector: { matchLabels: { app: db } }, policyTypes: [Ingress, Egress], ingress: [{ from: [{ podSelector: {} }] }] }
`,
};

describe('eastwest networkpolicy connections', () => {
  test('gathers what is permitted to few lines, and can stop a pipeline', async () => {
    await write(manifests);
    const { code, stdout, stderr } = await run('networkpolicy', 'connections', 'k8s');
    assert.equal(code, 0, stderr);
    assert.deepEqual(
      stdout
        .trim()
        .split('\n')
        .map((line) => line.split(/ {2,}/)),
      [
        ['SOURCE', 'DESTINATION', 'PORTS'],
        ['shop/web', 'shop/db', 'TCP 5432'],
        ['tools/probe', 'tools/probe, any address', 'everything'],
        ['0.0.0.0/0 except 10.0.0.0/8', 'shop/web', 'TCP 8080'],
        ['any address', 'tools/probe', 'everything'],
      ],
    );
    assert.match(stderr, /3 workloads, 2 policies; 1 of the workloads no policy isolates for ingress/);
    assert.match(stderr, /tools\/probe: on the network of the node/);
    const strict = await run('networkpolicy', 'connections', 'k8s', '--json', '--fail-on-open');
    assert.equal(strict.code, 3);
    assert.equal(JSON.parse(strict.stdout).workloads.length, 3);
  });

  test('refuses what is wrong by file, document and path', async () => {
    const head =
      'apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: p, namespace: shop }\n';
    await write({
      'bad/a.yaml': `kind: ConfigMap\nmetadata: { name: c }\n---\n${head}spec:\n  podSelector: {}\n  ingress:\n    - from: [{ ipBlock: { cidr: 10.0.0.1 } }]\n      port: []\n`,
      'bad/b.yaml': `${head}spec: {}\n---\n${head.replace('networking.k8s.io/v1', 'extensions/v1beta1').replace('name: p', 'name: q')}`,
      'bad/c.yaml':
        'kind: Pod\nmetadata: { name: w }\nspec: { containers: [{ ports: [{ containerPort: http }] }] }\n---\nkind: NetworkPolicy\nmetadata: {}\n',
      'bad/d.yaml': 'kind: Pod\nmetadata: {{ .Values.x }\n',
    });
    const { code, stdout } = await run('networkpolicy', 'connections', 'bad');
    assert.equal(code, 2);
    const said = stdout.trim().split('\n');
    const wanted = [
      /^bad\/a\.yaml:11:7 {2}document 2, NetworkPolicy shop\/p: spec\.ingress\[0\]\.port: is not known here; did you mean ports\?/,
      /^bad\/a\.yaml:10:\d+ {2}document 2, NetworkPolicy shop\/p: spec\.ingress\[0\]\.from\[0\]\.ipBlock\.cidr: "10\.0\.0\.1" is not a CIDR/,
      /^bad\/b\.yaml:1:1 {2}document 1: NetworkPolicy shop\/p is defined twice/,
      /^bad\/b\.yaml:6:1 {2}document 2, NetworkPolicy shop\/q: apiVersion: must be networking\.k8s\.io\/v1, not "extensions\/v1beta1"/,
      /^bad\/c\.yaml:3:\d+ {2}document 1, Pod default\/w: spec\.containers\[0\]\.ports\[0\]: needs containerPort/,
      /^bad\/c\.yaml:6:1 {2}a NetworkPolicy needs metadata\.name/,
      /^bad\/d\.yaml:\d+:\d+ {2}this is not YAML.*Render templates first/,
    ];
    for (const [i, pattern] of wanted.entries()) assert.match(said[i] ?? '', pattern);
    assert.equal(said.length, wanted.length, stdout);
    const nothing = await run('networkpolicy', 'connections', 'nowhere');
    assert.equal(nothing.code, 2);
    assert.match(nothing.stderr, /nowhere: ENOENT/);
  });
});

describe('eastwest export', () => {
  test('takes policy and inventory from a running Eastwest', async () => {
    const { code, stdout, stderr } = await run(
      'export',
      'nftables',
      '--host',
      '10.9.0.1',
      '--network',
      'east',
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /elements = \{\n {6}10\.1\.0\.1-10\.1\.0\.2\n/);
    assert.match(stdout, /ip saddr @from4_shop_web-to-vm tcp dport 1521 accept/);
    const policies = await run('export', 'networkpolicy', '--cluster', 'east', '-o', 'out', '--strict');
    assert.equal(policies.code, 0, policies.stderr);
    assert.deepEqual(await readdir(join(folder, 'out')), ['shop.networkpolicies.yaml']);
    const documents = parseAllDocuments(
      await readFile(join(folder, 'out/shop.networkpolicies.yaml'), 'utf8'),
    );
    assert.deepEqual(
      documents.map((document) => document.toJS().spec),
      [
        { podSelector: {}, policyTypes: ['Ingress', 'Egress'] },
        {
          podSelector: { matchLabels: { app: 'web' } },
          policyTypes: ['Egress'],
          egress: [{ to: [{ ipBlock: { cidr: '10.9.0.1/32' } }], ports: [{ protocol: 'TCP', port: 1521 }] }],
        },
      ],
    );
  });

  test('takes them from files: hosts in YAML or CSV, manifests, events', async () => {
    await write({
      'p/policy.yaml': policyText,
      'inv/hosts.csv': 'name,address,label.app\nold-1,10.9.0.1,legacy\n',
      'inv/more.yaml': 'hosts: [{ name: other, addresses: [10.9.0.2], labels: { app: web } }]\n',
      'inv/events.jsonl': `${JSON.stringify(workload('web-9', '10.1.7.7'))}\n`,
    });
    const args = ['export', 'nftables', 'p', '--inventory', 'inv', '--host', 'old-1', '--network', 'east'];
    const { code, stdout, stderr } = await run(...args);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /10\.1\.7\.7,\n {6}10\.9\.0\.2\n/);
    assert.equal((await run(...args)).stdout, stdout, 'the same bytes');
  });

  test('refuses what is wrong, and says what would be right', async () => {
    await write({
      'p/policy.yaml': policyText,
      'wrong-policy/p.yaml':
        'rulesets: [{ name: a, rules: [{ name: b, from: [{ any: true }], to: [{ ipList: none }] }] }]\n',
      'wrong/hosts.yaml': 'hosts: [{ name: a, addresses: [10.0.0.300] }]\n',
      'wrong/events.jsonl': '{"v":1}\n{\n',
      'one/hosts.yaml':
        'hosts: [{ name: web-1, group: a, id: x, addresses: [10.0.0.1] }, { name: web-1, id: y, addresses: [10.0.0.2] }, { name: bare, addresses: [] }]\n',
    });
    const at = (...names: string[]) => names.map((name) => join(folder, name));
    const common = { url, cluster: 'east', default: 'drop' } as const;
    const nft = (host: string, inventory: string, policies = 'p') =>
      exportNftablesCommand(join(folder, policies), { ...common, host, inventory: at(inventory) });
    const kubernetes = (more: object) =>
      exportNetworkPolicyCommand(join(folder, 'p'), { ...common, inventory: at('one'), ...more });
    for (const [found, exitCode, message] of [
      [
        () => nft('a', 'wrong'),
        2,
        /hosts\.yaml: document 1.*hosts\[0\] \(a\): addresses\[0\]: "10\.0\.0\.300" is not an IP address/,
      ],
      [() => nft('a', 'wrong'), 2, /events\.jsonl:1: not an inventory event[\s\S]*events\.jsonl:2: not JSON/],
      [() => nft('a', 'p/none'), 2, /p\/none: ENOENT/],
      [
        () => nft('web-2', 'one'),
        2,
        /--host web-2: the inventory has no VM, host or node of this name or address; did you mean web-1\?/,
      ],
      [() => nft('web-1', 'one'), 2, /--host web-1: 2 hosts are meant: name one of x, y/],
      [() => nft('bare', 'one'), 2, /--host bare: the inventory knows no address of it/],
      [() => nft('x', 'one', 'wrong-policy'), 2, /the policy is wrong, nothing was exported:\n.*p\.yaml:1:/],
      [
        () => kubernetes({}),
        2,
        /no namespace of cluster east that the inventory has is labelled by a profile/,
      ],
      [
        () => kubernetes({ inventory: [], namespace: ['shpo'] }),
        2,
        /--namespace shpo: the inventory has no such namespace in cluster east; did you mean shop\?/,
      ],
      [
        () => kubernetes({ inventory: [], url: 'http://127.0.0.1:1' }),
        1,
        /nothing answers at http:\/\/127\.0\.0\.1:1/,
      ],
    ] as const)
      await assert.rejects(found(), (error) => {
        assert.ok(error instanceof OperatorError);
        assert.match(error.message, message);
        assert.equal(error.exitCode, exitCode);
        return true;
      });
  });
});
