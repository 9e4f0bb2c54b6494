/** The whole way of a flow over both buses: every stored row against the truth, with the enricher killed in the middle. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { makeEstate } from '../estate/index.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { decodeMark } from '../services/enrich/plan.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { feed, publishEstate } from './support/estate-feed.ts';
import { TruthBook } from './support/estate-truth.ts';
import { startKafka } from './support/kafka.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const flowCount = 200_000;
const log = pino({ level: 'silent' });

async function run(busSettings: Record<string, string>, busConfig: BusConfig): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-end-to-end-'));
  const clickhouse = await startClickHouse();
  const storeConfig = clickhouse.config();
  const store = openStore(storeConfig, { log });
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
  const settings = { EASTWEST_RUNTIME_DATA_DIR: dataDir, ...busSettings };
  const processes = new Set<ServiceProcess>();
  const start = async (name: string, more: Record<string, string> = {}): Promise<ServiceProcess> => {
    const started = await startService(name, { ...settings, ...more });
    processes.add(started);
    return started;
  };
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig));
    const ingest = await start('ingest', { EASTWEST_INGEST_PORT: '0' });
    await until(
      'ingest is ready',
      20_000,
      async () => (await fetch(`${ingest.probes}/readyz`)).ok,
      ingest.output,
    );
    const ingestUrl = /"url":"([^"]+)"/.exec(ingest.output())?.[1];
    assert.ok(ingestUrl, `ingest did not say where it listens:\n${ingest.output()}`);
    const enrichSettings = {
      EASTWEST_STORE_URL: clickhouse.url,
      EASTWEST_ENRICH_MAX_BLOCK_ROWS: '16384',
      EASTWEST_ENRICH_LINGER_MS: '200',
    };
    let enrich = await start('enrich', enrichSettings);

    const estate = makeEstate({
      seed: 'end to end',
      size: 'small',
      startMs: Date.now() - 10 * 60_000,
      flowsPerSecond: 4000,
      churnPerMinute: 0.2,
      reuseDelayMs: 1000,
      intervalMs: 5000,
    });
    await publishEstate(bus, estate);

    let kills = 0;
    const book = new TruthBook();
    const truths = await feed({
      estate,
      bus,
      ingestUrl,
      flowCount,
      stepMs: 5000,
      settleMs: 5000,
      beforeSending: (list) => book.add(list),
      async afterStep(sent) {
        if (sent < (flowCount * (kills + 1)) / 4 || kills === 2) return;
        kills++;
        await enrich.kill();
        processes.delete(enrich);
        enrich = await start('enrich', enrichSettings);
      },
    });
    assert.ok(kills === 2 && truths.length >= flowCount);
    // A kill while blocks are on their way, with nothing more to come.
    await enrich.kill();
    processes.delete(enrich);
    enrich = await start('enrich', enrichSettings);

    await until(
      'everything is committed',
      120_000,
      async () =>
        (await bus.positions(topics.flows, enrichGroup)).every(
          ({ next, earliest, committed }) =>
            next === earliest || (committed?.offset === next && decodeMark(committed.metadata).plan === null),
        ),
      enrich.output,
    );
    await until(
      'no flow waits for its inventory',
      60_000,
      async () => {
        const [left] = await store.query<{ n: string }>(
          'SELECT count() AS n FROM flows_all WHERE pending = 1',
        );
        return left?.n === '0';
      },
      enrich.output,
    );
    const differences = await book.compare(store, (row, wanted) =>
      isDeepStrictEqual(row, wanted) ? null : 'different',
    );
    assert.equal(
      differences.length,
      0,
      `${differences.length} differences among ${truths.length} flows:\n${differences.slice(0, 5).join('\n')}`,
    );

    const [sums] = await store.query<Record<string, string>>(
      `SELECT (SELECT count() FROM flows_all) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes, (SELECT sum(flows) FROM edges_1h) AS hours,
         (SELECT sum(flows_written) FROM batches) AS ledger,
         (SELECT sum(bytes_forward) FROM flows_all) = (SELECT sum(bytes_forward) FROM edges_1h) AS same_bytes`,
    );
    assert.deepEqual(sums, {
      raw: String(truths.length),
      minutes: String(truths.length),
      hours: String(truths.length),
      ledger: String(truths.length),
      same_bytes: 1,
    });
  } finally {
    for (const running of processes) await running.kill();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

test('every flow is stored once, with the labels, rule and reason of its own time: embedded bus', async () => {
  await run({}, Parse(BusConfig, Default(BusConfig, {})));
});

test('every flow is stored once, with the labels, rule and reason of its own time: Kafka', async (context) => {
  const kafka = await startKafka();
  if ('skip' in kafka) {
    context.skip(kafka.skip);
    return;
  }
  try {
    const brokers = kafka.brokers.join(',');
    await run(
      { EASTWEST_BUS_KIND: 'kafka', EASTWEST_BUS_BROKERS: brokers },
      Parse(BusConfig, Default(BusConfig, { kind: 'kafka', brokers: kafka.brokers })),
    );
  } finally {
    await kafka.stop();
  }
});
