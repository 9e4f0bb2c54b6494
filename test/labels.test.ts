import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { readPolicy } from '../lib/policy/load.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { StoreConfig } from '../lib/store/config.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { topics } from '../schemas/topics.ts';
import { buildQueryApp } from '../services/query/app.ts';
import { QueryConfig } from '../services/query/config.ts';

const log = pino({ level: 'silent' });
const program = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));

const policyText = `
profiles:
  - name: payments
    match: { namespace: [payments-*], kind: [pod] }
    assign: { app: payments, env: prod }
    map:
      - { key: role, from: { label: component }, values: { api: api } }
      - { key: loc, from: { namespaceLabel: site } }
    allow: { role: [api, batch] }
  - { name: everything-in-east, match: { cluster: [east] }, assign: { env: dev } }
  - { name: appliances, match: { kind: [vm] }, managed: false }
`;

interface Explanation {
  workload: { name: string; uid: string; current: boolean } | null;
  labels: { key: string; value: string; from: string; source: string }[];
  refused: { name: string; reason: string }[];
  notes: string[];
  profile: string | null;
  managed: boolean;
  otherProfiles: string[];
  policy: number;
  matches: { uid: string }[];
  total: number;
}

function pod(uid: string, more: Partial<Extract<InventoryEvent, { type: 'workload' }>> = {}): InventoryEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid,
    name: uid,
    namespace: 'payments-prod',
    node: 'n1',
    hostNetwork: false,
    labels: {},
    annotations: {},
    addresses: [],
    sinceMs: 1000,
    ...more,
  };
}

const events: InventoryEvent[] = [
  {
    v: 1,
    type: 'namespace',
    cluster: 'east',
    name: 'payments-prod',
    labels: { site: 'dc1' },
    annotations: {},
  },
  pod('api-1', {
    labels: { component: 'api' },
    annotations: { 'eastwest.io/role': 'root', 'eastwest.io/app': 'payments' },
    addresses: [{ ip: '10.0.0.1', network: 'east', sinceMs: 1000 }],
  }),
  pod('uid-old', {
    name: 'db-0',
    addresses: [{ ip: '10.0.0.1', network: 'east', sinceMs: 100, untilMs: 900 }],
    sinceMs: 100,
    untilMs: 900,
  }),
  pod('uid-new', { name: 'db-0', annotations: { 'eastwest.io/role': 'batch' } }),
  pod('uid-west', {
    name: 'web',
    cluster: 'west',
    addresses: [{ ip: '10.0.0.9', network: 'west', sinceMs: 1 }],
  }),
  pod('uid-east', { name: 'web', addresses: [{ ip: '10.0.0.9', network: 'east', sinceMs: 1 }] }),
  pod('vm-1', { kind: 'vm', cluster: '', namespace: 'lb', labels: { app: 'f5' } }),
];

let folder: string;
let bus: Bus;
let store: Store;
let app: FastifyInstance;
let url: string;

async function explain(workload: string): Promise<Explanation> {
  const answer = await app.inject({ url: '/api/v1/labels/explain', query: { workload } });
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json();
}

function run(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: number; stdout: string; stderr: string }>();
  const env = { ...process.env, EASTWEST_URL: url };
  execFile(process.execPath, [program, '--data-dir', folder, ...args], { env }, (error, stdout, stderr) => {
    resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
  });
  return promise;
}

async function publish(list: readonly InventoryEvent[]): Promise<void> {
  await bus.append(
    topics.inventory,
    list.map((event) => ({ key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)) })),
  );
}

const busConfig = Parse(BusConfig, Default(BusConfig, {}));

function openTestBus(): Promise<Bus> {
  return openBus(busConfig, { dataDir: folder, log, clientId: 'test' });
}

function buildApp(settings: Record<string, unknown>): Promise<FastifyInstance> {
  return buildQueryApp({
    config: Parse(QueryConfig, Default(QueryConfig, settings)),
    store,
    sqlServer: { url: 'http://127.0.0.1:1', database: 'none', username: '', password: '' },
    minuteDays: 30,
    registry: new Registry(),
    log,
    withBus: async (work) => {
      const opened = await openTestBus();
      try {
        return await work(opened);
      } finally {
        await opened.close();
      }
    },
  });
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'eastwest-labels-'));
  bus = await openTestBus();
  await bus.ensureTopics(topicSpecs(busConfig));
  await publish(events);
  const policy = readPolicy(new Map([['p.yaml', policyText]]));
  assert.ok(policy.ok);
  await publishPolicy(bus, policy.policy, 'test');
  store = openStore(Parse(StoreConfig, Default(StoreConfig, {})), { log });
  app = await buildApp({ port: 0 });
  await app.listen({ host: '127.0.0.1', port: 0 });
  url = app.listeningOrigin;
});

after(async () => {
  await app.close();
  await store.close();
  await bus.close();
  await rm(folder, { recursive: true, force: true });
});

test('a workload is explained by name, namespace and name, cluster too, uid and address alike', async () => {
  const byName = await explain('api-1');
  assert.deepEqual(byName.labels, [
    { key: 'app', value: 'payments', from: 'profile', source: 'profile payments' },
    { key: 'env', value: 'prod', from: 'profile', source: 'profile payments' },
    { key: 'role', value: 'api', from: 'mapping', source: 'label component=api, mapped by profile payments' },
    {
      key: 'loc',
      value: 'dc1',
      from: 'mapping',
      source: 'namespace label site=dc1, mapped by profile payments',
    },
  ]);
  assert.deepEqual(
    byName.refused.map(({ reason }) => reason),
    ['annotation eastwest.io/role=root: profile payments allows api, batch'],
  );
  assert.deepEqual(
    [byName.profile, byName.policy, byName.otherProfiles],
    ['payments', 1, ['everything-in-east']],
  );
  for (const word of ['payments-prod/api-1', 'east/payments-prod/api-1'])
    assert.deepEqual(await explain(word), byName);
  const byAddress = await explain('10.0.0.1');
  assert.deepEqual([byAddress.workload, byAddress.labels], [byName.workload, byName.labels]);
  assert.equal(byAddress.total, 2, 'who had the address before is named too');
});

test('of one name in one place the present one is meant, and a uid means one that is gone', async () => {
  const present = await explain('payments-prod/db-0');
  assert.deepEqual([present.workload?.uid, present.total], ['uid-new', 2]);
  assert.equal(
    present.labels.find(({ key }) => key === 'role')?.source,
    'annotation eastwest.io/role, allowed by profile payments',
  );
  const gone = await explain('uid-old');
  assert.deepEqual([gone.workload?.name, gone.workload?.current], ['db-0', false]);
});

test('a word that means several is not guessed', async () => {
  for (const word of ['web', 'payments-prod/web', '10.0.0.9']) {
    const answer = await explain(word);
    assert.equal(answer.workload, null);
    assert.deepEqual(answer.matches.map(({ uid }) => uid).sort(), ['uid-east', 'uid-west']);
  }
  assert.equal((await explain('west/payments-prod/web')).workload?.uid, 'uid-west');
  assert.deepEqual((await explain('nobody')).matches, []);
});

test('what is not managed is said', async () => {
  const answer = await explain('vm-1');
  assert.deepEqual([answer.managed, answer.profile, answer.labels], [false, 'appliances', []]);
});

test('an inventory and a policy that change are answered as they are now', async () => {
  await publish([pod('late', { labels: { component: 'api' } })]);
  assert.equal((await explain('late')).labels.find(({ key }) => key === 'role')?.value, 'api');
  await publish([pod('late', { labels: { component: 'web' } })]);
  assert.deepEqual((await explain('late')).notes, [
    'label component=web gives no role: it is not among the mapped values',
  ]);
  await bus.append(topics.inventory, [{ key: 'workload/east/pod/late', value: null }]);
  assert.equal((await explain('late')).total, 0);
});

test('eastwest labels explain prints each label with its source, and says what to ask where several are meant', async () => {
  const { stdout, code } = await run(['labels', 'explain', 'payments-prod/api-1']);
  assert.equal(code, 0);
  assert.match(stdout, /^pod east\/payments-prod\/api-1 {2}10\.0\.0\.1\n/);
  assert.match(stdout, /profile payments of policy 1; later ones that match too: everything-in-east/);
  assert.match(stdout, /role +api +label component=api, mapped by profile payments/);
  assert.match(stdout, /refused: annotation eastwest.io\/role=root/);
  const several = await run(['labels', 'explain', 'web']);
  assert.equal(several.code, 1);
  assert.match(several.stdout, /uid-west/);
  assert.match(several.stderr, /2 workloads are called web: ask again with cluster\/namespace\/name/);
  const json = await run(['labels', 'explain', 'api-1', '--json']);
  assert.deepEqual(JSON.parse(json.stdout), await explain('api-1'));
});

test('eastwest labels check fails a pipeline for what is forbidden, by a folder or by the policy in force', async () => {
  const manifest = join(folder, 'm.yaml');
  const policy = join(folder, 'p.yaml');
  const text = `kind: Deployment
metadata: { name: api, namespace: payments-prod }
spec:
  template:
    metadata:
      labels: { component: api }
      annotations: { eastwest.io/role: batch }
`;
  await writeFile(manifest, text);
  await writeFile(policy, policyText);
  const good = await run(['labels', 'check', manifest, '--policy', policy]);
  assert.equal(good.code, 0, good.stderr);
  assert.match(good.stdout, /role=batch +from annotation eastwest.io\/role, allowed by profile payments/);
  assert.match(good.stdout, /1 workloads by policy in .*: 0 errors, 1 warnings/);

  await writeFile(manifest, text.replace('role: batch', 'app: other'));
  const bad = await run(['labels', 'check', folder, '--json']);
  assert.equal(bad.code, 1);
  const answer = JSON.parse(bad.stdout);
  assert.equal(answer.ok, false);
  assert.match(
    answer.problems.find((problem: { severity: string }) => problem.severity === 'error').message,
    /assigns app=payments/,
  );
  const missing = await run(['labels', 'check', join(folder, 'none')]);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /none/);
});

test('the inventory as it is now streams as one JSON object, or event by event', async () => {
  const present = events.filter((event) => !('untilMs' in event));
  const names = (list: readonly InventoryEvent[]): string[] => list.map(inventoryKey).sort();
  const whole = (await app.inject('/api/v1/inventory')).json<{ events: InventoryEvent[] }>();
  assert.deepEqual(names(whole.events), names(present));
  const lines = await app.inject('/api/v1/inventory?format=jsonl');
  assert.match(String(lines.headers['content-type']), /^application\/x-ndjson/);
  const parsed = lines.body.trimEnd().split('\n');
  assert.deepEqual(names(parsed.map((line) => JSON.parse(line))), names(present));
});

test('an inventory over the limit is refused with the name of the limit, not broken off', async () => {
  const small = await buildApp({ maxInventoryEntities: 2 });
  try {
    const answer = await small.inject('/api/v1/inventory');
    assert.equal(answer.statusCode, 413);
    assert.match(answer.json().detail, /query\.maxInventoryEntities/);
  } finally {
    await small.close();
  }
});
