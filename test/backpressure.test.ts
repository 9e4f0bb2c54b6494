/** A store that takes nothing slows everything before it down to the agents' spools, within everybody's limits. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import { topics } from '../schemas/topics.ts';
import { fillSpool, isDelivered } from './faults/agent-spool.ts';
import { compare } from './faults/compare.ts';
import { freePort } from './faults/free-port.ts';
import { startProxy } from './faults/proxy.ts';
import { inventory, policyContent, Traffic } from './faults/traffic.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const mebi = 1024 * 1024;
/** About a thousand flows each: far more than the enricher may hold at a time. */
const batchCount = 500;
const maxBacklogBatches = 200;
const maxFlows = 2000;
/** How long the store takes nothing once everything before it stands still, ms. */
const standMs = 1500;
const maxMemoryBytes = { agent: 200 * mebi, ingest: 260 * mebi, enrich: 360 * mebi };

/** The most resident memory a process ever had, bytes. */
function peakBytes({ pid }: ServiceProcess): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** Sum over all label values of a metric. */
async function metric({ probes }: ServiceProcess, name: string): Promise<number> {
  const text = await (await fetch(`${probes}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (.+)$`, 'gm'))].reduce(
    (sum, [, value]) => sum + Number(value),
    0,
  );
}

test('while the store takes nothing the bus keeps what it may, ingest says 429, the agent spools; then all of it arrives once', async (context) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-backpressure-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const config = busConfig({ partitionCount: 2 });
  const bus = await openBus(config, { dataDir, log, clientId: 'test' });
  const toStore = await startProxy(Number(new URL(clickhouse.url).port));
  const ingestPort = await freePort();
  const ingestUrl = `http://127.0.0.1:${ingestPort}`;
  const spoolFolder = join(dataDir, 'spool');
  const processes: Partial<Record<keyof typeof maxMemoryBytes, ServiceProcess>> = {};
  const start = async (
    name: keyof typeof maxMemoryBytes,
    settings: Record<string, string>,
  ): Promise<ServiceProcess> => {
    const started = await startService(name, {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_BUS_PARTITION_COUNT: '2',
      EASTWEST_RUNTIME_MAX_MEMORY_BYTES: String(maxMemoryBytes[name]),
      ...settings,
    });
    processes[name] = started;
    return started;
  };
  const output = (): string =>
    Object.entries(processes)
      .map(([name, one]) => `--- ${name}\n${one.output().slice(-3000)}`)
      .join('\n');
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(config));
    await publishPolicy(bus, policyContent(), 'test');
    await bus.append(
      topics.inventory,
      inventory().map((event) => ({
        key: inventoryKey(event),
        value: Buffer.from(JSON.stringify(event)),
      })),
    );
    const traffic = new Traffic('backpressure');
    fillSpool(spoolFolder, traffic, {
      agentId: 'agent-1',
      batchCount,
      maxFlows,
      spoolBytes: 256 * mebi,
    });
    const enrich = await start('enrich', {
      EASTWEST_STORE_URL: `http://127.0.0.1:${toStore.port}`,
      EASTWEST_ENRICH_MAX_HELD_BYTES: String(32 * mebi),
      EASTWEST_ENRICH_HOLD_MS: '0',
    });
    await until(
      'the enricher reads flows',
      20_000,
      async () => (await fetch(`${enrich.probes}/readyz`)).status === 200,
      output,
    );
    toStore.hold();
    const ingest = await start('ingest', {
      EASTWEST_INGEST_PORT: String(ingestPort),
      EASTWEST_INGEST_MAX_BACKLOG_BATCHES: String(maxBacklogBatches),
      EASTWEST_INGEST_RETRY_AFTER_S: '1',
    });
    const agent = await start('agent', {
      EASTWEST_AGENT_ID: 'agent-1',
      EASTWEST_AGENT_SPOOL_DIR: spoolFolder,
      EASTWEST_AGENT_INGEST_URL: ingestUrl,
      EASTWEST_AGENT_SOURCE: 'procfs',
      EASTWEST_AGENT_INTERVAL_MS: '600000',
      EASTWEST_AGENT_HEARTBEAT_MS: '0',
      EASTWEST_AGENT_BACKOFF_MAX_MS: '500',
    });
    await until(
      'ingest refuses for the backlog',
      30_000,
      async () => /backlog-full|wait on the bus/.test(agent.output()),
      output,
    );
    const refused = await fetch(`${ingestUrl}/v1/flows`, {
      method: 'POST',
      headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' },
      body: new Uint8Array(8),
    });
    assert.equal(refused.status, 429, await refused.text());
    assert.equal(refused.headers.get('retry-after'), '1');
    const standingSince = performance.now();
    await until(
      'everything stands still for a while',
      standMs + 20_000,
      async () => performance.now() - standingSince > standMs,
    );
    assert.equal(await metric(ingest, 'eastwest_ingest_backlog_batches'), maxBacklogBatches);
    assert.equal(await metric(ingest, 'eastwest_ingest_batches_total'), maxBacklogBatches);
    assert.equal(await metric(agent, 'eastwest_agent_spool_batches'), batchCount - maxBacklogBatches);
    assert.equal(await metric(enrich, 'eastwest_enrich_blocks_total'), 0);

    toStore.mend();
    await until('the agent has delivered all', 60_000, async () => isDelivered(spoolFolder), output);
    let differences: string[] = [];
    await until(
      'all flows are stored once',
      60_000,
      async () => {
        differences = await compare(store, traffic);
        return differences.length === 0;
      },
      () => `${differences.slice(0, 5).join('\n')}\n${output()}`,
    );
    const [ledger] = await store.query<{ delay_ms: string; batches: string }>(
      `SELECT max(dateDiff('millisecond', received, written)) AS delay_ms, countIf(outcome = 'written') AS batches FROM batches`,
    );
    assert.equal(Number(ledger?.batches), batchCount);
    assert.ok(Number(ledger?.delay_ms) >= standMs, `the ledger tells of a delay of ${ledger?.delay_ms} ms`);
    assert.equal(await metric(agent, 'eastwest_agent_dropped_flows_total'), 0);
    for (const [name, one] of Object.entries({ agent, ingest, enrich })) {
      const limit = await metric(one, 'eastwest_memory_limit_bytes');
      const peak = peakBytes(one);
      context.diagnostic(`${name}: at most ${Math.round(peak / mebi)} of ${Math.round(limit / mebi)} MiB`);
      assert.ok(peak < limit, `${name} had ${peak} bytes, its limit is ${limit}`);
    }
    context.diagnostic(`${traffic.flowCount} flows, the longest way took ${ledger?.delay_ms} ms`);
  } finally {
    toStore.mend();
    await Promise.all(Object.values(processes).map((one) => one.kill()));
    await bus.close();
    await store.close();
    await toStore.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});
