/** What is away comes back, and nothing is lost or doubled meanwhile: ClickHouse and the bus, at start and in the middle. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import { encodeFlowBatch, type FlowBatch } from '../lib/wire/flow-batch.ts';
import { topics } from '../schemas/topics.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { publishEstate } from './support/estate-feed.ts';
import { startKafka } from './support/kafka.ts';
import { startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const avro = { 'content-type': 'application/vnd.eastwest.flow-batch+avro' };

/** Some batches of the estate, and how many flows they hold. */
function someBatches(): { batches: FlowBatch[]; estate: ReturnType<typeof makeEstate> } {
  const estate = makeEstate({
    seed: 'outage',
    size: 'tiny',
    startMs: Date.now() - 600_000,
    flowsPerSecond: 200,
    intervalMs: 5000,
  });
  const { batches } = estate.step(estate.nowMs + 30_000);
  return { batches, estate };
}

async function append(bus: Bus, batches: readonly FlowBatch[]): Promise<number> {
  await bus.append(
    topics.flows,
    batches.map((batch) => ({ key: batch.agentId, value: encodeFlowBatch(batch) })),
  );
  return batches.reduce((sum, { flows }) => sum + flows.length, 0);
}

test('flows wait on the bus while ClickHouse is away, at start and in the middle, and a repeated batch counts once', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-outage-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const busConfig = Parse(BusConfig, Default(BusConfig, {}));
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
  const stored = async (): Promise<number> =>
    Number((await store.query<{ n: string }>('SELECT count() AS n FROM flows'))[0]?.n);
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig));
    const { batches, estate } = someBatches();
    await publishEstate(bus, estate);
    const third = Math.ceil(batches.length / 3);

    await clickhouse.kill();
    const enrich = await startService('enrich', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_STORE_URL: clickhouse.url,
    });
    try {
      let flowCount = await append(bus, batches.slice(0, third));
      const readiness = await fetch(`${enrich.probes}/readyz`);
      assert.equal(readiness.status, 503);
      assert.match(await readiness.text(), /store/);
      await clickhouse.start();
      await until(
        'the first flows are stored',
        30_000,
        async () => (await stored()) === flowCount,
        enrich.output,
      );

      await clickhouse.kill();
      flowCount += await append(bus, batches.slice(third, 2 * third));
      await until(
        'the enricher has noticed',
        20_000,
        async () => /failed, tried again/.test(enrich.output()),
        enrich.output,
      );
      await clickhouse.start();
      flowCount += await append(bus, batches.slice(2 * third));
      await append(bus, batches.slice(0, third));
      await until('all flows are stored', 30_000, async () => (await stored()) === flowCount, enrich.output);
      await until(
        'the repeats are in the ledger',
        10_000,
        async () => {
          const [row] = await store.query<{ n: string }>(
            "SELECT count() AS n FROM batches WHERE outcome = 'resent'",
          );
          return Number(row?.n) === third;
        },
        enrich.output,
      );
      assert.equal(await stored(), flowCount);
    } finally {
      await enrich.kill();
    }
  } finally {
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});

test('while Kafka is away ingest says so and keeps nothing; flows go through when it is there, at start and in the middle', async (context) => {
  const kafka = await startKafka();
  if ('skip' in kafka) {
    context.skip(kafka.skip);
    return;
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-outage-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const busSettings = {
    EASTWEST_RUNTIME_DATA_DIR: dataDir,
    EASTWEST_BUS_KIND: 'kafka',
    EASTWEST_BUS_BROKERS: kafka.brokers.join(','),
  };
  const stored = async (): Promise<number> =>
    Number((await store.query<{ n: string }>('SELECT count() AS n FROM flows'))[0]?.n);
  try {
    await migrate(store, { log });
    await kafka.kill();
    const ingest = await startService('ingest', { ...busSettings, EASTWEST_INGEST_PORT: '0' });
    const enrich = await startService('enrich', { ...busSettings, EASTWEST_STORE_URL: clickhouse.url });
    const output = (): string => `${ingest.output()}\n${enrich.output()}`;
    try {
      assert.equal((await fetch(`${ingest.probes}/readyz`)).status, 503);
      assert.equal((await fetch(`${enrich.probes}/readyz`)).status, 503);
      await until(
        'ingest says where it listens',
        20_000,
        async () => /"url":"[^"]+"/.test(ingest.output()),
        output,
      );
      const url = /"url":"([^"]+)"/.exec(ingest.output())?.[1] ?? '';
      const { batches } = someBatches();
      let flowCount = 0;
      /** Sends as an agent does: again until it is taken. Returns the refusals on the way. */
      const send = async (batch: FlowBatch): Promise<number[]> => {
        const refusals: number[] = [];
        await until(
          'ingest takes the batch',
          90_000,
          async () => {
            const response = await fetch(`${url}/v1/flows`, {
              method: 'POST',
              headers: avro,
              body: Uint8Array.from(encodeFlowBatch(batch)),
            });
            await response.arrayBuffer();
            if (response.status === 202) return true;
            refusals.push(response.status);
            assert.ok(response.headers.has('retry-after'), `no Retry-After with ${response.status}`);
            return false;
          },
          output,
        );
        flowCount += batch.flows.length;
        return refusals;
      };

      const first = send(batches[0]!);
      await kafka.start();
      for (const status of await first) assert.ok(status === 503 || status === 429, `status ${status}`);
      for (const batch of batches.slice(1, 20)) await send(batch);
      await until('flows are stored', 60_000, async () => (await stored()) === flowCount, output);

      await kafka.kill();
      const inTheMiddle = send(batches[20]!);
      await kafka.start();
      await inTheMiddle;
      for (const batch of batches.slice(21, 40)) await send(batch);
      await until('all flows are stored', 90_000, async () => (await stored()) >= flowCount, output);
      assert.equal(await stored(), flowCount);
    } finally {
      await ingest.kill();
      await enrich.kill();
    }
  } finally {
    await store.close();
    await clickhouse.stop();
    await kafka.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});
