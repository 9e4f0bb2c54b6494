/** More enrichers, more partitions, fewer enrichers, all of it under load: no row is lost or doubled on the way. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { partitionOf } from '../lib/bus/partitioner.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { decodeMark } from '../services/enrich/plan.ts';
import { compare } from './faults/compare.ts';
import { freePort } from './faults/free-port.ts';
import { Sender } from './faults/sender.ts';
import { inventory, policyContent, type SentBatch, Traffic } from './faults/traffic.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { startKafka } from './support/kafka.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const fewPartitions = 3;
const morePartitions = 6;
const settleMs = 90_000;

async function rehearse(
  brokers: readonly string[] | null,
  diagnostic: (text: string) => void,
): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-scaling-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const ofBus = brokers === null ? {} : { kind: 'kafka' as const, brokers: [...brokers] };
  const few = busConfig({ ...ofBus, partitionCount: fewPartitions });
  const bus = await openBus(few, { dataDir, log, clientId: 'test' });
  const busSettings = {
    EASTWEST_RUNTIME_DATA_DIR: dataDir,
    EASTWEST_BUS_KIND: few.kind,
    EASTWEST_BUS_BROKERS: few.brokers.join(','),
    EASTWEST_BUS_PARTITION_COUNT: String(fewPartitions),
    EASTWEST_BUS_SESSION_TIMEOUT_MS: '2000',
    EASTWEST_BUS_HEARTBEAT_INTERVAL_MS: '300',
  };
  const ingestPort = await freePort();
  const processes: ServiceProcess[] = [];
  const startEnricher = async (): Promise<ServiceProcess> => {
    const started = await startService('enrich', {
      ...busSettings,
      EASTWEST_STORE_URL: clickhouse.url,
      EASTWEST_ENRICH_LINGER_MS: '100',
      EASTWEST_ENRICH_HOLD_MS: '0',
      EASTWEST_ENRICH_MAX_BLOCK_ROWS: '4096',
    });
    processes.push(started);
    return started;
  };
  const output = (): string => processes.map((one) => one.output().slice(-3000)).join('\n---\n');
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(few));
    await publishPolicy(bus, policyContent(), 'test');
    await bus.append(
      topics.inventory,
      inventory().map((event) => ({
        key: inventoryKey(event),
        value: Buffer.from(JSON.stringify(event)),
      })),
    );
    processes.push(
      await startService('ingest', { ...busSettings, EASTWEST_INGEST_PORT: String(ingestPort) }),
    );
    const first = await startEnricher();
    const traffic = new Traffic('scaling');
    const sender = new Sender('scaling', () => `http://127.0.0.1:${ingestPort}`);
    const sent: SentBatch[] = [];
    let isFed = true;
    const feeding = (async () => {
      while (isFed) {
        const batch = traffic.batch(Date.now());
        sent.push(batch);
        sender.send(batch);
        await sleep(10);
      }
    })();
    const written = async (): Promise<number> =>
      Number((await store.query<{ n: string }>('SELECT count() AS n FROM flows_all'))[0]?.n);
    /** Something more is stored: the others have taken over what was moved to them. */
    const goesOn = async (what: string): Promise<void> => {
      const before = await written();
      await until(what, settleMs, async () => (await written()) > before + 500, output);
    };

    await goesOn('flows are stored by one enricher');
    const more = await Promise.all([startEnricher(), startEnricher()]);
    await goesOn('flows are stored by three enrichers');

    const before = sent.slice(0, -20);
    await bus.ensureTopics(topicSpecs({ ...few, partitionCount: morePartitions }));
    const raisedMs = performance.now();
    await until(
      'all partitions reckon with the new number',
      settleMs,
      async () => {
        const positions = await bus.positions(topics.flows, enrichGroup);
        return (
          positions.length === morePartitions &&
          positions.every(
            ({ committed }) => decodeMark(committed?.metadata ?? '').partitionCount === morePartitions,
          )
        );
      },
      output,
    );
    diagnostic(`partitions were added within ${Math.round(performance.now() - raisedMs)} ms`);
    await goesOn('flows are stored in more partitions');
    // What agents sent before comes again by the new number of partitions, and by the old one from a sender who has not
    // heard of it, who also has batches that nobody has seen.
    const repeats = before.filter((_, i) => i % 5 === 0);
    const late = Array.from({ length: 20 }, () => traffic.batch(Date.now()));
    const placed = (batches: readonly SentBatch[], count: number) =>
      batches.map(({ agentId, message }) => ({
        key: agentId,
        value: message,
        partition: partitionOf(agentId, count),
      }));
    await bus.append(topics.flows, placed(repeats, morePartitions));
    await bus.append(topics.flows, placed([...repeats, ...late], fewPartitions));
    await bus.append(topics.flows, placed(late, morePartitions));

    for (const enricher of more) assert.equal(await enricher.stop(), 0, enricher.output());
    await goesOn('flows are stored by one enricher again');
    isFed = false;
    await feeding;
    await sender.drained();
    await until(
      'everything is committed',
      settleMs,
      async () =>
        (await bus.positions(topics.flows, enrichGroup)).every(
          ({ next, committed }) => committed?.offset === next && decodeMark(committed.metadata).plan === null,
        ),
      output,
    );
    await until(
      'tables agree',
      10_000,
      async () => (await compare(store, traffic)).length === 0,
      output,
    ).catch(() => undefined);
    const doubled = await store.query(
      `SELECT agent, sequence, groupArray((bus_partition, bus_offset, outcome, received, written)) AS copies FROM batches
       WHERE outcome = 'written' GROUP BY agent, boot, sequence HAVING count() > 1 ORDER BY agent, sequence LIMIT 20`,
    );
    assert.deepEqual(doubled, []);
    assert.deepEqual(await compare(store, traffic), []);
    const [ledger] = await store.query<{ resent: string; partitions: string }>(
      `SELECT countIf(outcome = 'resent') AS resent, uniqExactIf(bus_partition, outcome = 'written') AS partitions FROM batches`,
    );
    assert.ok(Number(ledger?.resent) >= 2 * repeats.length + late.length, `resent ${ledger?.resent}`);
    const homes = sent.flatMap(({ agentId }) =>
      [fewPartitions, morePartitions].map((count) => partitionOf(agentId, count)),
    );
    assert.equal(Number(ledger?.partitions), new Set(homes).size);
    assert.match(first.output(), /started/);
    diagnostic(`${traffic.flowCount} flows, ${ledger?.resent} batches came again`);
  } finally {
    await Promise.all(processes.map((one) => one.kill()));
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

describe('one enricher, three, twice the partitions, and one again, under load, lose and double nothing', () => {
  test('on the embedded bus', (context) => rehearse(null, (text) => context.diagnostic(text)));

  test('on Kafka', async (context) => {
    const kafka = await startKafka();
    if ('skip' in kafka) {
      context.skip(kafka.skip);
      return;
    }
    try {
      await rehearse(kafka.brokers, (text) => context.diagnostic(text));
    } finally {
      await kafka.stop();
    }
  });
});
