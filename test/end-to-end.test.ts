/** The whole way of a flow over both buses: every stored row against the truth, with the enricher killed in the middle. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { makeEstate, type Truth } from '../estate/index.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { identityId, ruleId } from '../lib/inventory/ids.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { feed, publishEstate } from './support/estate-feed.ts';
import { startKafka } from './support/kafka.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const flowCount = 200_000;
const log = pino({ level: 'silent' });

interface StoredRow {
  readonly key: string;
  readonly src_workload: string;
  readonly dst_workload: string;
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly how: string;
  readonly verdict: string;
  readonly reason: string;
  readonly rule: string;
}

function zoneOf(
  kind: string,
  name: string,
  zones: ReadonlyMap<string, 'inside' | 'outside'>,
): 'inside' | 'outside' {
  return kind === 'range' ? (zones.get(name) ?? 'inside') : 'inside';
}

/** What the row of a flow must be, in the words of the store. */
function expectedRow(truth: Truth, zones: ReadonlyMap<string, 'inside' | 'outside'>): StoredRow {
  const identity = (
    kind: string,
    cluster: string,
    namespace: string,
    name: string,
    labels: Readonly<Record<string, string>>,
  ): string =>
    String(identityId({ kind, cluster, namespace, name, zone: zoneOf(kind, name, zones), labels }));
  const { src, dst } = {
    src: identity(truth.srcKind, truth.srcCluster, truth.srcNamespace, truth.srcName, truth.srcLabels),
    dst: identity(truth.dstKind, truth.dstCluster, truth.dstNamespace, truth.dstName, truth.dstLabels),
  };
  return {
    key: [
      truth.agent,
      truth.srcIp,
      truth.srcPort,
      truth.dstIp,
      truth.dstPort,
      truth.protocol,
      truth.side,
      truth.startSecond,
    ].join(' '),
    src_workload: String(truth.srcWorkload),
    dst_workload: String(truth.dstWorkload),
    src_identity: src,
    dst_identity: dst,
    how: [truth.srcProvenance, truth.srcCertainty, truth.dstProvenance, truth.dstCertainty].join(' '),
    verdict: truth.verdict,
    reason: truth.reason,
    rule: truth.rule === '' ? '0' : String(ruleId(truth.ruleset, truth.rule)),
  };
}

const plainIp = (column: string): string => `replaceOne(IPv6NumToString(${column}), '::ffff:', '')`;

async function readRows(store: Store, modulo: number, part: number): Promise<StoredRow[]> {
  return store.query<StoredRow>(
    `SELECT concatWithSeparator(' ', agent, ${plainIp('src_ip')}, src_port, ${plainIp('dst_ip')}, dst_port, protocol, side, toUnixTimestamp(time)) AS key,
       toString(src_workload) AS src_workload, toString(dst_workload) AS dst_workload,
       toString(src_identity) AS src_identity, toString(dst_identity) AS dst_identity,
       concatWithSeparator(' ', src_provenance, src_certainty, dst_provenance, dst_certainty) AS how,
       verdict, reason, toString(rule) AS rule
     FROM flows WHERE src_port % {modulo:UInt16} = {part:UInt16}`,
    { modulo, part },
  );
}

/**
 * Whether a row says no less than the truth. The truth knows who had the address next; where that owner came after the row
 * was written, the row may call exact what is ambiguous in hindsight. Who it names must be right all the same.
 */
function agrees(row: StoredRow, wanted: StoredRow, hindsight: { count: number }): boolean {
  const [srcHow, srcSure, dstHow, dstSure] = row.how.split(' ');
  const [srcWantedHow, srcWantedSure, dstWantedHow, dstWantedSure] = wanted.how.split(' ');
  const sure = (stored: string | undefined, truth: string | undefined): boolean => {
    if (stored === truth) return true;
    if (stored !== 'exact' || truth !== 'ambiguous') return false;
    hindsight.count++;
    return true;
  };
  return (
    isDeepStrictEqual({ ...row, how: '' }, { ...wanted, how: '' }) &&
    srcHow === srcWantedHow &&
    dstHow === dstWantedHow &&
    sure(srcSure, srcWantedSure) &&
    sure(dstSure, dstWantedSure)
  );
}

/** Compares every row with the truth; returns the differences. */
async function compare(
  store: Store,
  truths: readonly Truth[],
  zones: ReadonlyMap<string, 'inside' | 'outside'>,
): Promise<string[]> {
  const expected = new Map<string, StoredRow>();
  for (const truth of truths) {
    const row = expectedRow(truth, zones);
    assert.equal(expected.has(row.key), false, `the estate gave one key twice: ${row.key}`);
    expected.set(row.key, row);
  }
  const differences: string[] = [];
  const hindsight = { count: 0 };
  const parts = 8;
  for (let part = 0; part < parts; part++) {
    for (const row of await readRows(store, parts, part)) {
      const wanted = expected.get(row.key);
      if (wanted === undefined) differences.push(`not expected, or twice: ${JSON.stringify(row)}`);
      else if (!agrees(row, wanted, hindsight)) {
        differences.push(`stored ${JSON.stringify(row)}\n  wanted ${JSON.stringify(wanted)}`);
      }
      expected.delete(row.key);
    }
  }
  for (const key of expected.keys()) differences.push(`missing: ${key}`);
  assert.ok(
    hindsight.count < truths.length / 1000,
    `${hindsight.count} ends are ambiguous in hindsight only: too many to be chance`,
  );
  return differences;
}

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
    const zones = new Map<string, 'inside' | 'outside'>([['internet', 'outside']]);
    for (const event of estate.inventory()) if (event.type === 'range') zones.set(event.name, event.zone);
    await publishEstate(bus, estate);

    let kills = 0;
    const truths = await feed({
      estate,
      bus,
      ingestUrl,
      flowCount,
      stepMs: 5000,
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
            next === earliest || (committed?.offset === next && committed.metadata === ''),
        ),
      enrich.output,
    );
    const differences = await compare(store, truths, zones);
    assert.equal(
      differences.length,
      0,
      `${differences.length} differences among ${truths.length} flows:\n${differences.slice(0, 5).join('\n')}`,
    );

    const [sums] = await store.query<Record<string, string>>(
      `SELECT (SELECT count() FROM flows) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes, (SELECT sum(flows) FROM edges_1h) AS hours,
         (SELECT sum(flows_written) FROM batches) AS ledger,
         (SELECT sum(bytes_forward) FROM flows) = (SELECT sum(bytes_forward) FROM edges_1h) AS same_bytes`,
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
