/**
 * Benches with a real ClickHouse (and bus): what the store takes at most, what the whole way from a filled bus to
 * queryable rows takes, and how many bytes a flow needs on disk.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { countBuffersAsMemory } from '../lib/runtime/collector.ts';
import { migrate } from '../lib/store/migrate.ts';
import type { NativeBlock } from '../lib/store/native.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { Catalog } from '../services/enrich/catalog.ts';
import { EnrichConfig } from '../services/enrich/config.ts';
import { startEnricher } from '../services/enrich/enricher.ts';
import { makeMetrics } from '../services/enrich/metrics.ts';
import { openWorld } from '../services/enrich/world.ts';
import { startClickHouse, type TestClickHouse } from '../test/support/clickhouse.ts';
import { startKafka } from '../test/support/kafka.ts';
import { enrichAll, quiet } from './hot-path.ts';
import { decodePlainly, enrichPlainly, plainOwners } from './plain.ts';
import { type Figure, mustEqual } from './report.ts';
import { loadWorld, type Traffic } from './traffic.ts';

/** The plain way is slow: it gets a part of the traffic. */
const plainShare = 16;
const plainRowsPerInsert = 10_000;
/** One for each core: more only make blocks smaller (docs/decisions/010). */
const partitionCount = 2;

async function withDatabase<T>(
  clickhouse: TestClickHouse,
  name: string,
  work: (store: Store) => Promise<T>,
): Promise<T> {
  const store = openStore(clickhouse.config(name), { log: quiet });
  try {
    await migrate(store, { log: quiet });
    return await work(store);
  } finally {
    await store.command(`DROP DATABASE IF EXISTS ${name} SYNC`);
    await store.close();
  }
}

async function countFlows(store: Store): Promise<number> {
  const [row] = await store.query<{ raw: string; minutes: string }>(
    'SELECT (SELECT count() FROM flows) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes',
  );
  mustEqual('flows in edges_1m', row?.minutes, row?.raw);
  return Number(row?.raw);
}

interface ReadyBlock {
  readonly block: NativeBlock;
  readonly rowCount: number;
}

function blocksOf(traffic: Traffic): ReadyBlock[] {
  const { inventory, policies } = loadWorld(traffic);
  const blocks: ReadyBlock[] = [];
  enrichAll(traffic, inventory, policies, ({ rows, rowCount }) => {
    // The builder is used again: keep a copy.
    blocks.push({ block: { ...rows, chunks: rows.chunks.map((chunk) => Uint8Array.from(chunk)) }, rowCount });
  });
  return blocks;
}

/** Seconds to insert ready-made blocks into the product's tables with all views. */
async function insertReady(clickhouse: TestClickHouse, blocks: readonly ReadyBlock[]): Promise<number> {
  return withDatabase(clickhouse, 'ready', async (store) => {
    const begin = performance.now();
    for (const [i, { block }] of blocks.entries()) await store.insertBlock('flows', block, `ready/${i}`);
    const seconds = (performance.now() - begin) / 1000;
    mustEqual(
      'flows stored',
      await countFlows(store),
      blocks.reduce((sum, { rowCount }) => sum + rowCount, 0),
    );
    return seconds;
  });
}

/** Bytes on disk of each table, and of each column of `flows`, after merging. */
async function sizes(store: Store, of: string): Promise<Figure[]> {
  await store.command('OPTIMIZE TABLE flows FINAL');
  await store.command('OPTIMIZE TABLE edges_1m FINAL');
  await store.command('OPTIMIZE TABLE edges_1h FINAL');
  const rows = await countFlows(store);
  const tables = await store.query<{ table: string; bytes: string }>(
    `SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts
     WHERE active AND database = currentDatabase() AND table IN ('flows', 'edges_1m', 'edges_1h', 'edges_seen') GROUP BY table ORDER BY table`,
  );
  const columns = await store.query<{ column: string; bytes: string }>(
    `SELECT name AS column, data_compressed_bytes AS bytes FROM system.columns
     WHERE database = currentDatabase() AND table = 'flows' ORDER BY bytes DESC LIMIT 10`,
  );
  return [
    ...tables.map(({ table, bytes }) => ({
      name: `disk, ${of}: table ${table}`,
      value: Number(bytes) / rows,
      unit: 'bytes/flow',
    })),
    ...columns.map(({ column, bytes }) => ({
      name: `disk, ${of}: flows.${column}`,
      value: Number(bytes) / rows,
      unit: 'bytes/flow',
    })),
  ];
}

async function fill(bus: Bus, traffic: Traffic): Promise<void> {
  const chunk = 200;
  for (let at = 0; at < traffic.events.length; at += 1000) {
    await bus.append(
      topics.inventory,
      traffic.events
        .slice(at, at + 1000)
        .map((event) => ({ key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)) })),
    );
  }
  await publishPolicy(bus, traffic.policy, 'bench');
  for (let at = 0; at < traffic.messages.length; at += chunk) {
    await bus.append(
      topics.flows,
      traffic.messages
        .slice(at, at + chunk)
        .map(({ agentId, message }) => ({ key: agentId, value: message })),
    );
  }
}

/** Seconds from starting to read a filled topic to everything committed and queryable. */
async function runEnricher(store: Store, bus: Bus, traffic: Traffic): Promise<number> {
  const metrics = makeMetrics(new Registry());
  const world = await openWorld({
    bus,
    maxIntervalsPerAddress: 64,
    log: quiet,
    metrics,
  });
  const catalog = new Catalog(store, world.inventory);
  const config = Parse(EnrichConfig, Default(EnrichConfig, { maxAgeMs: 1e12, holdMs: 0 }));
  let failure: Error | undefined;
  const begin = performance.now();
  const enricher = await startEnricher({
    config,
    bus,
    store,
    world,
    catalog,
    metrics,
    log: quiet,
    isMemoryTight: () => false,
    onFailure: (error) => {
      failure = error;
    },
  });
  try {
    for (;;) {
      if (failure !== undefined) throw failure;
      const positions = await bus.positions(topics.flows, enrichGroup);
      if (positions.every(({ earliest, next, committed }) => next === earliest || committed?.offset === next))
        break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const seconds = (performance.now() - begin) / 1000;
    mustEqual('flows stored', await countFlows(store), traffic.flowCount);
    return seconds;
  } finally {
    await enricher.close();
    await world.close();
  }
}

async function openTestBus(
  kind: 'embedded' | 'kafka',
  dataDir: string,
  brokers: readonly string[],
): Promise<Bus> {
  const settings = { kind, partitionCount, ...(kind === 'kafka' ? { brokers } : {}) };
  const config = Parse(BusConfig, Default(BusConfig, settings));
  const bus = await openBus(config, { dataDir, log: quiet, clientId: 'bench' });
  await bus.ensureTopics(topicSpecs(config));
  return bus;
}

/** The same traffic the plain way: objects, Maps of text, JSONEachRow. Seconds for `1 / plainShare` of it. */
async function runPlainly(
  clickhouse: TestClickHouse,
  traffic: Traffic,
): Promise<{ seconds: number; flowCount: number }> {
  const { inventory, policies } = loadWorld(traffic);
  const { engine } = policies.at(Date.now());
  const world = { inventory, engine, owners: plainOwners(inventory), ranges: new Map(), verdicts: new Map() };
  const part = traffic.messages.slice(0, Math.ceil(traffic.messages.length / plainShare));
  return withDatabase(clickhouse, 'plain', async (store) => {
    const begin = performance.now();
    let rows: Record<string, unknown>[] = [];
    for (const { message } of part) {
      rows.push(...enrichPlainly(world, decodePlainly(message)));
      if (rows.length >= plainRowsPerInsert) {
        await store.insertRows('flows', rows);
        rows = [];
      }
    }
    if (rows.length > 0) await store.insertRows('flows', rows);
    const seconds = (performance.now() - begin) / 1000;
    const flowCount = part.reduce((sum, { flowCount }) => sum + flowCount, 0);
    mustEqual('flows stored', await countFlows(store), flowCount);
    return { seconds, flowCount };
  });
}

async function benchBusToQueryable(
  kind: 'embedded' | 'kafka',
  brokers: readonly string[],
  clickhouse: TestClickHouse,
  traffic: Traffic,
): Promise<number> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-bench-'));
  const bus = await openTestBus(kind, dataDir, brokers);
  try {
    await fill(bus, traffic);
    return await withDatabase(clickhouse, `way_${kind}`, (store) => runEnricher(store, bus, traffic));
  } finally {
    await bus.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function benchSizes(
  clickhouse: TestClickHouse,
  blocks: readonly ReadyBlock[],
  of: string,
): Promise<Figure[]> {
  return withDatabase(clickhouse, 'sizes', async (store) => {
    for (const [i, { block }] of blocks.entries()) await store.insertBlock('flows', block, `sizes/${i}`);
    return sizes(store, of);
  });
}

export async function benchPipeline(
  traffic: Traffic,
  onFigures: (figures: readonly Figure[]) => void,
): Promise<void> {
  // As the enricher does.
  countBuffersAsMemory();
  const clickhouse = await startClickHouse();
  try {
    const blocks = blocksOf(traffic);
    const plain = await runPlainly(clickhouse, traffic);
    const plainRate = plain.flowCount / plain.seconds;
    await insertReady(clickhouse, blocks.slice(0, 2));
    const limit = traffic.flowCount / (await insertReady(clickhouse, blocks));
    onFigures([
      {
        name: 'insert of ready-made blocks, all views',
        value: limit,
        unit: 'flows/s',
        baseline: plainRate,
        against: 'the plain way, end to end',
      },
    ]);
    const report = (name: string, seconds: number): void => {
      const value = traffic.flowCount / seconds;
      onFigures([
        {
          name: `${name} bus to queryable`,
          value,
          unit: 'flows/s',
          baseline: limit,
          against: "the store's own limit",
        },
        {
          name: `${name} bus to queryable`,
          value,
          unit: 'flows/s',
          baseline: plainRate,
          against: 'the plain way, without a bus',
        },
      ]);
    };
    report('embedded', await benchBusToQueryable('embedded', [], clickhouse, traffic));
    const kafka = await startKafka();
    if ('skip' in kafka)
      onFigures([{ name: `Kafka bus to queryable: skipped, ${kafka.skip}`, value: 0, unit: 'flows/s' }]);
    else {
      try {
        report('Kafka', await benchBusToQueryable('kafka', kafka.brokers, clickhouse, traffic));
      } finally {
        await kafka.stop();
      }
    }
    // The worst case: each flow is a connection of its own, with an ephemeral port, time and sizes of its own.
    onFigures(await benchSizes(clickhouse, blocks, '100,000 workloads, no two reports of one connection'));
  } finally {
    await clickhouse.stop();
  }
}
