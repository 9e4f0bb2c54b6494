/** Kubelink as a process against a real Kubernetes API server, with the rights that deploy/ gives it and no more. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { parseAllDocuments } from 'yaml';
import { busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import type { ClusterEvent, ServiceEvent } from '../lib/inventory/events.ts';
import { topics } from '../schemas/topics.ts';
import { toMessage } from '../services/kubelink/messages.ts';
import { InventoryTopic } from './support/inventory-topic.ts';
import { type KubeForTests, startKube } from './support/kube.ts';
import { Churn } from './support/kube-churn.ts';
import { inParallel, type KubeObject } from './support/kube-client.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const deadlineMs = 30_000;
const namespaceCount = 600;
const podCount = 5_000;
const leaseDurationMs = 2_000;
const manifest = fileURLToPath(new URL('../deploy/kubernetes/kubelink.yaml', import.meta.url));
const account = 'eastwest-kubelink';

const kube = await startKube();

if ('skip' in kube) test('kubelink against a real API server', { skip: kube.skip }, () => undefined);
else describe('kubelink against a real API server', () => suite(kube));

function objectsOfDeploy(): KubeObject[] {
  const objects = parseAllDocuments(readFileSync(manifest, 'utf8')).map(
    (document): KubeObject => document.toJS(),
  );
  return objects.filter(({ kind }) => kind !== 'Deployment');
}

function suite(cluster: KubeForTests): void {
  const { client } = cluster;
  let folder: string;
  let topic: InventoryTopic;
  let kubeconfig: string;
  const running: ServiceProcess[] = [];

  const start = async (settings: object = {}): Promise<ServiceProcess> => {
    const source = {
      kind: 'kubernetes',
      cluster: 'east',
      kubeconfig,
      leaseNamespace: 'eastwest',
      leaseDurationMs,
    };
    const process = await startService('kubelink', {
      EASTWEST_RUNTIME_DATA_DIR: folder,
      EASTWEST_BUS_KIND: 'embedded',
      EASTWEST_KUBELINK_MAX_RETRY_DELAY_MS: '1000',
      EASTWEST_KUBELINK_SOURCES: JSON.stringify([{ ...source, ...settings }]),
    });
    running.push(process);
    return process;
  };
  const ready = (process: ServiceProcess): Promise<void> =>
    until(
      'kubelink is ready',
      deadlineMs,
      async () => (await fetch(`${process.probes}/readyz`)).ok,
      process.output,
    );
  const metric = async (process: ServiceProcess, name: string): Promise<number> => {
    const text = await (await fetch(`${process.probes}/metrics`)).text();
    const values = text
      .split('\n')
      .filter((line) => line.startsWith(name) && /^(\{|\s)/.test(line.slice(name.length)));
    return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };
  /** Differences between the server's pods and namespaces and the inventory's; empty when they are equal. */
  const differences = async (): Promise<string[]> => {
    const found: string[] = [];
    const live = new Map(topic.live('pod').map((event) => [event.uid, event]));
    for (const { metadata, status } of await client.list('/api/v1/pods')) {
      const name = `${metadata.namespace}/${metadata.name}`;
      const event = live.get(metadata.uid ?? '');
      live.delete(metadata.uid ?? '');
      const ips = event?.addresses.filter(({ untilMs }) => untilMs === undefined).map(({ ip }) => ip) ?? [];
      if (event === undefined) found.push(`missing: ${name}`);
      else if (ips.join() !== (status?.podIP ?? '')) found.push(`${name}: ${ips} for ${status?.podIP}`);
      else if (JSON.stringify(event.labels) !== JSON.stringify(metadata.labels ?? {}))
        found.push(`${name}: labels`);
    }
    for (const { namespace, name } of live.values()) found.push(`not gone: ${namespace}/${name}`);
    const namespaces = topic.namespaces();
    for (const { metadata } of await client.list('/api/v1/namespaces')) {
      if (!namespaces.delete(metadata.name)) found.push(`missing namespace: ${metadata.name}`);
    }
    for (const name of namespaces) found.push(`namespace not gone: ${name}`);
    return found;
  };
  const equal = async (process: ServiceProcess): Promise<void> => {
    let found: string[] = [];
    await until(
      'the inventory equals the server',
      deadlineMs,
      async () => {
        found = await differences();
        return found.length === 0;
      },
      () => `${found.slice(0, 10).join('\n')}\n${process.output()}`,
    );
  };
  /** What was vouched for last is later than this. */
  const vouched = (sinceMs: number, process: ServiceProcess): Promise<void> =>
    until(
      'the watermark passes the moment',
      deadlineMs,
      async () => (topic.watermarks.at(-1)?.completeToMs ?? 0) > sinceMs,
      () => `${JSON.stringify(topic.watermarks.at(-1))} ${sinceMs}\n${process.output()}`,
    );

  before(async () => {
    await client.apply(objectsOfDeploy());
    await client.createNode('node-0', '192.168.7.10', '10.1.0.0/16');
    await client.createNamespace('shop');
  });
  after(() => cluster.stop());
  beforeEach(async () => {
    const token = await client.serviceAccountToken('eastwest', account);
    kubeconfig = await cluster.kubeconfig('kubelink', { token });
    folder = mkdtempSync(join(tmpdir(), 'eastwest-kubernetes-'));
    topic = await InventoryTopic.open(folder);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((process) => process.kill()));
    await topic.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('every kind of object becomes what the inventory holds of it', async () => {
    const services = '/api/v1/namespaces/shop/services';
    const port = { port: 80, protocol: 'TCP' };
    await client.create(services, {
      metadata: { name: 'front' },
      spec: {
        type: 'LoadBalancer',
        externalIPs: ['198.51.100.9'],
        ports: [port],
        selector: { app: 'front' },
      },
    });
    await client.mergePatch(`${services}/front/status`, {
      status: { loadBalancer: { ingress: [{ ip: '203.0.113.4' }] } },
    });
    await client.create(services, {
      metadata: { name: 'quiet' },
      spec: { clusterIP: 'None', ports: [port] },
    });
    await client.create(services, {
      metadata: { name: 'pay' },
      spec: { type: 'ExternalName', externalName: 'pay.example.org' },
    });
    await client.create(services, { metadata: { name: 'legacy' }, spec: { ports: [port] } });
    await client.create('/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies', {
      metadata: { name: 'deny' },
      spec: { podSelector: {} },
    });
    await client.createPod('shop', 'plain', { ip: '10.1.200.1', labels: { app: 'front' } });
    await client.createPod('shop', 'host', { ip: '192.168.7.10', spec: { hostNetwork: true } });
    await client.createPod('shop', 'pending');
    const process = await start();
    await ready(process);
    const slice = { addressType: 'IPv4', ports: [{ port: 80 }] };
    const slices = '/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices';
    await client.create(slices, {
      metadata: { name: 'legacy-1', labels: { 'kubernetes.io/service-name': 'legacy' } },
      endpoints: [{ addresses: ['172.16.0.5'] }, { addresses: ['192.168.7.10'] }],
      ...slice,
    });
    const service = (name: string): ServiceEvent | undefined =>
      [...topic.newest.values()].find(
        (event): event is ServiceEvent => event.type === 'service' && event.name === name,
      );
    const open = (name: string): string =>
      (service(name)?.addresses ?? [])
        .filter(({ untilMs }) => untilMs === undefined)
        .map(({ network, ip }) => `${network} ${ip.replace(/^10\.96\..*/, 'cluster')}`)
        .join(', ');
    await until(
      'slices count',
      deadlineMs,
      async () => open('legacy').endsWith('172.16.0.5'),
      process.output,
    );
    assert.equal(open('legacy'), 'east cluster, default 172.16.0.5');
    assert.equal(open('front'), 'east cluster, default 198.51.100.9, default 203.0.113.4');
    assert.ok((service('front')?.ports[0]?.nodePort ?? 0) >= 30_000);
    assert.equal(open('quiet'), '');
    const name = topic.newest.get('name/east/shop/pay');
    assert.ok(name?.type === 'name');
    assert.deepEqual(name.dns, ['pay.example.org']);
    const policy = [...topic.newest.values()].find((event) => event.type === 'network-policy');
    assert.ok(policy?.type === 'network-policy');
    assert.deepEqual(policy.spec, { podSelector: {}, policyTypes: ['Ingress'] });
    assert.deepEqual(
      topic.live('node').map(({ addresses }) => addresses.map(({ ip, network }) => `${network} ${ip}`)),
      [['default 192.168.7.10']],
    );
    assert.equal(topic.pod('shop', 'host')?.hostNetwork, true);
    assert.deepEqual(topic.pod('shop', 'host')?.addresses, []);
    assert.deepEqual(topic.pod('shop', 'pending')?.addresses, []);
    const { uid } = (await client.request('GET', '/api/v1/namespaces/kube-system')) as {
      uid?: string;
    } & KubeObject;
    void uid;
    const own = topic.newest.get('cluster/east');
    assert.ok(own?.type === 'cluster');
    assert.deepEqual(own.podCidrs, ['10.1.0.0/16']);
    const system = (await client.list('/api/v1/namespaces')).find(
      ({ metadata }) => metadata.name === 'kube-system',
    );
    assert.equal(own.uid, system?.metadata.uid);

    await client.request('DELETE', `${slices}/legacy-1`);
    await client.request('DELETE', `${services}/pay`);
    await client.request('DELETE', '/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/deny');
    await until('deletions count', deadlineMs, async () => open('legacy') === 'east cluster', process.output);
    await until('the name is gone', deadlineMs, async () => !topic.newest.has('name/east/shop/pay'));
    await until('the policy ends', deadlineMs, async () => {
      const now = [...topic.newest.values()].find((event) => event.type === 'network-policy');
      return now?.type === 'network-policy' && now.untilMs !== undefined;
    });
    for (const pod of ['plain', 'host', 'pending']) await client.deletePod('shop', pod);
    assert.equal(await process.stop(), 0);
  });

  test('lists come in pages, and namespaces can be left out', async () => {
    await inParallel(
      Array.from({ length: 45 }, (_, i) => i),
      (i) => client.createPod('shop', `page-${i}`),
    );
    await client.createNamespace('secret-a');
    await client.createPod('secret-a', 'hidden', { ip: '10.1.200.2' });
    const process = await start({
      watchList: false,
      pageSize: 10,
      excludedNamespaces: ['secret-*', 'kube-*'],
    });
    await until('all pods come', deadlineMs, async () => topic.live('pod').length === 45, process.output);
    assert.ok(!topic.namespaces().has('secret-a'));
    assert.ok(!topic.namespaces().has('kube-system'));
    await client.createPod('secret-a', 'hidden-too', { ip: '10.1.200.3' });
    await client.createPod('shop', 'seen', { ip: '10.1.200.4' });
    await until(
      'a pod comes',
      deadlineMs,
      async () => topic.pod('shop', 'seen') !== undefined,
      process.output,
    );
    assert.equal(topic.pod('secret-a', 'hidden-too'), undefined);
    await inParallel(
      Array.from({ length: 45 }, (_, i) => i),
      (i) => client.deletePod('shop', `page-${i}`),
    );
    for (const [namespace, name] of [
      ['shop', 'seen'],
      ['secret-a', 'hidden'],
      ['secret-a', 'hidden-too'],
    ] as const) {
      await client.deletePod(namespace, name);
    }
    await until('deletions come', deadlineMs, async () => topic.live('pod').length === 0, process.output);
    assert.equal(await process.stop(), 0);
  });

  test('a token that is refused is read anew, and nothing is lost', async () => {
    const tokenFile = join(cluster.dir, 'token');
    writeFileSync(tokenFile, `${await client.serviceAccountToken('eastwest', account)}\n`);
    const path = await cluster.kubeconfig('expiring', { tokenFile });
    const process = await start({ kubeconfig: path });
    await ready(process);
    // A new account of the same name: tokens of the old one are refused from now on.
    await client.request('DELETE', `/api/v1/namespaces/eastwest/serviceaccounts/${account}`);
    const fresh = await client.serviceAccountToken('eastwest', account);
    await until(
      'the old token is refused',
      deadlineMs,
      async () => / 401 /.test(process.output()),
      process.output,
    );
    await client.createPod('shop', 'meanwhile', { ip: '10.1.200.5' });
    const stalled = topic.watermarks.at(-1)?.completeToMs ?? 0;
    assert.equal(topic.pod('shop', 'meanwhile'), undefined);
    writeFileSync(tokenFile, fresh);
    await until(
      'the pod is told',
      deadlineMs,
      async () => topic.pod('shop', 'meanwhile') !== undefined,
      process.output,
    );
    await vouched(Math.max(stalled, Date.now()), process);
    await client.deletePod('shop', 'meanwhile');
    assert.equal(await process.stop(), 0);
  });

  test('what it may not do is said with verb and resource, and done once it may', async () => {
    const token = await client.serviceAccountToken('shop', 'poor');
    const path = await cluster.kubeconfig('poor', { token });
    const process = await start({ kubeconfig: path });
    const says = (what: RegExp): Promise<void> =>
      until(String(what), deadlineMs, async () => what.test(process.output()), process.output);
    await says(/cannot get resource \\"namespaces\\".* in the namespace \\"kube-system\\"/);
    const subjects = [{ kind: 'ServiceAccount', name: 'poor', namespace: 'shop' }];
    const apiGroup = 'rbac.authorization.k8s.io';
    const apiVersion = `${apiGroup}/v1`;
    const full = objectsOfDeploy().find(({ kind }) => kind === 'ClusterRole') as KubeObject & {
      rules: object[];
    };
    const part = { ...full, metadata: { name: 'poor' }, rules: full.rules.slice(1) };
    const roleRef = { apiGroup, kind: 'ClusterRole', name: 'poor' };
    const binding = { apiVersion, kind: 'ClusterRoleBinding', metadata: { name: 'poor' }, roleRef, subjects };
    await client.apply([part, binding]);
    await says(/cannot (?:list|watch) resource \\"pods\\" in API group/);
    await says(/no lease, so nothing is published: .*cannot get resource \\"leases\\".*kubelink\.yaml/);
    assert.equal((await fetch(`${process.probes}/readyz`)).status, 503);
    await client.mergePatch(`/apis/${apiVersion}/clusterroles/poor`, { rules: full.rules });
    const role = { apiGroup, kind: 'Role', name: account };
    const metadata = { name: 'poor', namespace: 'eastwest' };
    await client.apply([{ apiVersion, kind: 'RoleBinding', metadata, ...{ roleRef: role, subjects } }]);
    await ready(process);
    assert.equal(await process.stop(), 0);
  });

  test('a cluster with another id under a known name is refused, both are named, and taken when told so', async () => {
    const bus = await openBus(busConfig({}), {
      dataDir: folder,
      log: pino({ level: 'silent' }),
      clientId: 'before',
    });
    await bus.ensureTopics(topicSpecs(busConfig({})));
    const event: ClusterEvent = {
      v: 1,
      type: 'cluster',
      cluster: 'east',
      podCidrs: [],
      serviceCidrs: [],
      uid: 'old-uid',
    };
    const message = toMessage({ key: 'cluster/east', event, source: 'kubernetes:east', endedMs: null });
    assert.ok(message.ok);
    await bus.append(topics.inventory, [message.value]);
    await bus.close();
    const system = (await client.list('/api/v1/namespaces')).find(
      ({ metadata }) => metadata.name === 'kube-system',
    );
    const uid = system?.metadata.uid ?? '';
    const refused = await start();
    await until(
      'it says why',
      deadlineMs,
      async () => refused.output().includes(`has the uid ${uid}, what was published is of old-uid`),
      refused.output,
    );
    assert.equal((await fetch(`${refused.probes}/readyz`)).status, 503);
    assert.equal(topic.newest.size, 1);
    assert.equal(await refused.stop(), 0);
    const accepted = await start({ acceptUid: uid });
    await ready(accepted);
    await until('the new id is told', deadlineMs, async () => {
      const own = topic.newest.get('cluster/east');
      return own?.type === 'cluster' && own.uid === uid;
    });
    assert.equal(await accepted.stop(), 0);
  });

  test('one writes at a time: another takes over when the lease expires, and one that comes back late keeps silent', async () => {
    const first = await start();
    await ready(first);
    const second = await start();
    await ready(second);
    assert.match(second.output(), /standing by/);
    assert.equal(await metric(first, 'eastwest_kubelink_kubernetes_leader'), 1);
    assert.equal(await metric(second, 'eastwest_kubelink_kubernetes_leader'), 0);
    assert.equal(await metric(second, 'eastwest_kubelink_events_published_total'), 0);
    process.kill(first.pid, 'SIGSTOP');
    const began = performance.now();
    await client.createPod('shop', 'handed', { ip: '10.1.200.6' });
    await until(
      'the second one tells it',
      deadlineMs,
      async () => topic.pod('shop', 'handed') !== undefined,
      second.output,
    );
    const tookMs = performance.now() - began;
    assert.ok(tookMs < 3 * leaseDurationMs, `took over after ${Math.round(tookMs)} ms`);
    process.kill(first.pid, 'SIGCONT');
    await until(
      'the first one gives up',
      deadlineMs,
      async () => /no longer publishes/.test(first.output()),
      first.output,
    );
    const published = await metric(first, 'eastwest_kubelink_events_published_total');
    await client.deletePod('shop', 'handed');
    await until(
      'the second one tells of the end',
      deadlineMs,
      async () => topic.pod('shop', 'handed')?.untilMs !== undefined,
      second.output,
    );
    assert.equal(await metric(first, 'eastwest_kubelink_events_published_total'), published);
    // An orderly end lets go of the lease.
    assert.equal(await second.stop(), 0);
    await until(
      'the first one publishes again',
      deadlineMs,
      async () => (await metric(first, 'eastwest_kubelink_kubernetes_leader')) === 1,
      first.output,
    );
    await vouched(Date.now(), first);
    assert.equal(await first.stop(), 0);
  });

  test('a server that no longer answers is noticed, and nothing is vouched for meanwhile', async () => {
    const process = await start({ frozenTimeoutMs: 1_000 });
    await ready(process);
    await vouched(0, process);
    cluster.freeze();
    const frozenMs = Date.now();
    try {
      await until(
        'it notices',
        deadlineMs,
        async () => /has not answered a ping for 1000 ms/.test(process.output()),
        process.output,
      );
      assert.ok((topic.watermarks.at(-1)?.completeToMs ?? 0) <= frozenMs);
    } finally {
      cluster.thaw();
    }
    await vouched(Date.now(), process);
    assert.equal(await process.stop(), 0);
  });

  test('600 namespaces and 5,000 pods, churn, a forced watch restart, SIGKILL of the server and of kubelink: the inventory ends equal, and never names anybody else for certain', async (t) => {
    const namespaces = Array.from({ length: namespaceCount }, (_, i) => `team-${i}`);
    await inParallel(namespaces, (name) => client.createNamespace(name));
    const churn = new Churn(client, namespaces);
    t.after(() => churn.abort());
    await churn.fill(podCount);
    let process = await start();
    await ready(process);
    await equal(process);
    assert.ok(topic.live('pod').length >= podCount);
    await vouched(Date.now(), process);

    churn.start();
    await churn.steps(400);
    const phases: string[] = [`watched ${Date.now()}`];
    // What changed is forgotten and the server starts anew: every watch has to begin again.
    await cluster.compact();
    await cluster.kill();
    await cluster.start();
    await until(
      'a watch had to begin anew',
      deadlineMs,
      async () => (await metric(process, 'eastwest_kubelink_kubernetes_expired_total')) > 0,
      process.output,
    );
    await churn.steps(400);
    const lateCount = await metric(process, 'eastwest_kubelink_kubernetes_late_events_total');
    phases.push(`server back, ${lateCount} late ${Date.now()}`);
    await process.kill();
    await churn.steps(400);
    await client.request('DELETE', '/api/v1/namespaces/secret-a').catch(() => undefined);
    process = await start();
    await ready(process);
    phases.push(`kubelink back ${Date.now()}`);
    await churn.steps(400);
    await churn.stop();
    await equal(process);
    await vouched(Date.now(), process);
    assert.equal(await process.stop(), 0);

    const { wrong, exactShare, checkCount } = churn.judge([...topic.newest.values()]);
    assert.deepEqual(wrong.slice(0, 5), [], `${wrong.length} of ${checkCount}; ${phases.join(', ')}`);
    assert.ok(checkCount > podCount, `${checkCount} checks`);
    t.diagnostic(`${checkCount} checks, ${exactShare.toFixed(3)} known for certain`);
    // What changed while nobody watched is not certain, and is said so.
    assert.ok(exactShare > 0.85, `only ${exactShare} were known for certain`);
  });
}
