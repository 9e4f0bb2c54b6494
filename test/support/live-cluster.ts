/**
 * A real API server, kubelink, ingest, enricher and ClickHouse at work together, and an agent whose flows go to pods of that
 * cluster; what a flow must be called is known to whoever sends it.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { publishPolicy } from '../../lib/policy/publish.ts';
import { migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../../lib/wire/plain-flow.ts';
import { startClickHouse } from './clickhouse.ts';
import { InventoryTopic } from './inventory-topic.ts';
import { type KubeForTests, startKube } from './kube.ts';
import type { KubeClient } from './kube-client.ts';
import { type ServiceProcess, startService } from './service-process.ts';
import { until } from './until.ts';

export const clusterName = 'east';
const log = pino({ level: 'silent' });
const readyMs = 30_000;

/** A flow to a pod; the port is its name. */
export interface SentFlow {
  readonly sourcePort: number;
  readonly startMs: number;
}

export interface LiveCluster {
  readonly client: KubeClient;
  readonly kube: KubeForTests;
  readonly store: Store;
  /** Sends one batch with a flow to each address, all begun now. Returns the source port of each. */
  send(addresses: readonly string[]): Promise<readonly SentFlow[]>;
  killKubelink(): Promise<void>;
  startKubelink(): Promise<void>;
  /** What the inventory says of an address, for people. */
  history(address: string): string;
  output(): string;
  close(): Promise<void>;
}

export async function startLiveCluster(): Promise<LiveCluster | { skip: string }> {
  const kube = await startKube();
  if ('skip' in kube) return kube;
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-live-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const config = Parse(BusConfig, Default(BusConfig, { partitionCount: 2 }));
  const bus = await openBus(config, { dataDir, log, clientId: 'test' });
  const running = new Map<string, ServiceProcess>();
  const common = { EASTWEST_RUNTIME_DATA_DIR: dataDir, EASTWEST_BUS_PARTITION_COUNT: '2' };
  const start = async (name: string, settings: Record<string, string>): Promise<ServiceProcess> => {
    const process = await startService(name, { ...common, ...settings });
    running.set(name, process);
    await until(
      `${name} is ready`,
      readyMs,
      async () => (await fetch(`${process.probes}/readyz`)).ok,
      process.output,
    );
    return process;
  };
  const close = async (): Promise<void> => {
    await Promise.all([...running.values()].map((process) => process.kill()));
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await kube.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(config));
    const byVersion = { name: 'all', match: {}, map: [{ key: 'app', from: { label: 'version' } }] };
    await publishPolicy(
      bus,
      { labels: [], profiles: [byVersion], ipLists: [], services: [], rulesets: [] },
      'test',
    );
    const hosts = join(dataDir, 'hosts.json');
    await writeFile(hosts, JSON.stringify({ hosts: [{ name: 'caller', addresses: ['172.16.9.9'] }] }));
    await kube.client.createNode('node-0', '192.168.7.10', '10.1.0.0/16');
    const kubeconfig = await kube.kubeconfig('admin', { token: 'admin-token' });
    const sources = JSON.stringify([
      { kind: 'kubernetes', cluster: clusterName, kubeconfig, lease: false, podCidrs: ['10.1.0.0/16'] },
      { kind: 'hosts', path: hosts },
    ]);
    const startKubelink = async (): Promise<void> => {
      await start('kubelink', {
        EASTWEST_KUBELINK_SOURCES: sources,
        EASTWEST_KUBELINK_MAX_RETRY_DELAY_MS: '1000',
      });
    };
    await startKubelink();
    await start('enrich', { EASTWEST_STORE_URL: clickhouse.url });
    const ingest = await start('ingest', { EASTWEST_INGEST_PORT: '0' });
    const url = /"url":"([^"]+)"/.exec(ingest.output())?.[1] ?? '';
    const topic = await InventoryTopic.open(dataDir, { partitionCount: 2 });
    let sequence = 0;
    let nextPort = 1024;
    return {
      client: kube.client,
      kube,
      store,
      startKubelink,
      killKubelink: async () => running.get('kubelink')?.kill(),
      output: () => [...running.values()].map((process) => process.output().slice(-5000)).join('\n---\n'),
      close: async () => {
        await topic.close();
        await close();
      },
      history: (address) =>
        [...topic.newest.values()]
          .filter((event) => event.type === 'workload' && event.addresses.some(({ ip }) => ip === address))
          .map((event) => JSON.stringify(event))
          .join('\n'),
      async send(addresses) {
        const startMs = Date.now();
        const sent = addresses.map(() => ({ sourcePort: nextPort++, startMs }));
        const message = encodeFlowBatch({
          ...plainBatch,
          agentId: 'caller',
          sequence: ++sequence,
          cluster: clusterName,
          node: 'node-0',
          network: clusterName,
          observedFromMs: startMs,
          observedToMs: startMs,
          flows: addresses.map((address, i) => ({
            ...plainFlow,
            durationMs: 0,
            sourceAddress: Buffer.from([172, 16, 9, 9]),
            sourcePort: sent[i]?.sourcePort ?? 0,
            destinationAddress: Buffer.from(address.split('.').map(Number)),
          })),
        });
        const response = await fetch(`${url}/v1/flows`, {
          method: 'POST',
          headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' },
          body: new Uint8Array(message),
        });
        if (response.status !== 202)
          throw new Error(`ingest answered ${response.status}: ${await response.text()}`);
        return sent;
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Changes the label of a pod again and again while flows go to it. Returns for each change how long it took, ms, from the API
 * server's answer until a flow that began after it could be queried with the new label.
 */
export async function labelDelays(live: LiveCluster, changes: number): Promise<number[]> {
  const namespace = 'delays';
  const address = '10.1.250.1';
  await live.client.createNamespace(namespace);
  await live.client.createPod(namespace, 'pod', { ip: address, labels: { version: 'v0' } });
  let isOver = false;
  const sending = (async () => {
    while (!isOver) {
      await live.send([address]);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  const delays: number[] = [];
  try {
    for (let change = 1; change <= changes; change++) {
      await live.client.relabelPod(namespace, 'pod', { version: `v${change}` });
      const changedMs = Date.now();
      for (;;) {
        const [row] = await live.store.query<{ n: string }>(
          `SELECT count() AS n FROM flows_all JOIN identities ON identities.id = dst_identity
           WHERE app = {app:String} AND dst_ip = toIPv6({ip:String})`,
          { app: `v${change}`, ip: `::ffff:${address}` },
        );
        if (Number(row?.n) > 0) break;
        if (Date.now() - changedMs > readyMs)
          throw new Error(`no flow has label v${change}\n${live.output()}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      delays.push(Date.now() - changedMs);
    }
  } finally {
    isOver = true;
    await sending;
  }
  return delays.sort((a, b) => a - b);
}
