/**
 * The truth under hard churn: addresses reused within a second, a fifth of the pods replaced each minute, inventory up to ten
 * seconds late and out of order, clocks apart, labels that change, NAT in all its forms. Whatever is called exact is right,
 * at any time; after repair nearly everything is exact; nothing is missing, nothing is there twice.
 *
 * Time is simulated: what counts is in which order inventory, watermarks and flows stand on the bus, and that is as it
 * would be in real time. Only the enrichers' patience is real time, and short.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { type Estate, makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import type { Certainty } from '../schemas/closed-lists.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { decodeMark } from '../services/enrich/plan.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { feed, publishEstate } from './support/estate-feed.ts';
import { judgeExact, type StoredRow, TruthBook } from './support/estate-truth.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const flowCount = 100_000;
const stepMs = 500;
const inventoryDelayMs = 10_000;
const clockSkewMs = 2000;
/** Largest share of ends that have an owner and may be anything but exact in the end. */
const uncertainShareLimit = 0.01;
const log = pino({ level: 'silent' });

/** Begins in the busiest hour that has passed, so that runs at any time of day are alike. */
function makeHardEstate(): Estate {
  const dayMs = 86_400_000;
  return makeEstate({
    seed: 'hard truth',
    size: 'small',
    startMs: Math.floor((Date.now() - dayMs) / dayMs) * dayMs + 15 * 3_600_000,
    flowsPerSecond: 400,
    intervalMs: 5000,
    churnPerMinute: 0.2,
    reuseDelayMs: 1000,
    inventoryDelayMs,
    clockSkewMs,
    relabelsPerMinute: 0.1,
    indirectShare: 0.15,
  });
}

interface Pipeline {
  readonly bus: Bus;
  readonly store: Store;
  readonly ingestUrl: string;
  /** Kills one of the two enrichers, in turns, and starts another in its place. */
  replaceEnricher(): Promise<void>;
  output(): string;
}

async function withPipeline(work: (pipeline: Pipeline) => Promise<void>): Promise<void> {
  const busConfig = Parse(BusConfig, Default(BusConfig, {}));
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-truth-'));
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
  const running: ServiceProcess[] = [];
  const enrichers: ServiceProcess[] = [];
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig));
    const ingest = await startService('ingest', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_INGEST_PORT: '0',
    });
    running.push(ingest);
    await until(
      'ingest is ready',
      20_000,
      async () => (await fetch(`${ingest.probes}/readyz`)).ok,
      ingest.output,
    );
    const ingestUrl = /"url":"([^"]+)"/.exec(ingest.output())?.[1];
    assert.ok(ingestUrl, `ingest did not say where it listens:\n${ingest.output()}`);
    const startEnricher = async (): Promise<void> => {
      enrichers.push(
        await startService('enrich', {
          EASTWEST_RUNTIME_DATA_DIR: dataDir,
          EASTWEST_STORE_URL: clickhouse.url,
          EASTWEST_ENRICH_LINGER_MS: '100',
          EASTWEST_ENRICH_HOLD_MS: '200',
          EASTWEST_ENRICH_REPAIR_INTERVAL_MS: '200',
          EASTWEST_ENRICH_CLOCK_TOLERANCE_MS: String(clockSkewMs),
        }),
      );
    };
    await startEnricher();
    await startEnricher();
    await work({
      bus,
      store,
      ingestUrl,
      async replaceEnricher() {
        await enrichers.shift()?.kill();
        await startEnricher();
      },
      output: () => enrichers.map((enricher) => enricher.output()).join('\n'),
    });
  } finally {
    for (const process of [...enrichers, ...running]) await process.kill();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function settled({ bus, store, output }: Pipeline): Promise<void> {
  await until(
    'everything is committed',
    120_000,
    async () =>
      (await bus.positions(topics.flows, enrichGroup)).every(
        ({ next, earliest, committed }) =>
          next === earliest || (committed?.offset === next && decodeMark(committed.metadata).plan === null),
      ),
    output,
  );
  await until(
    'no flow waits for its inventory',
    120_000,
    async () => {
      const [left] = await store.query<{ n: string }>(
        'SELECT count() AS n FROM flows_late FINAL WHERE pending = 1 AND sign = 1',
      );
      return left?.n === '0';
    },
    output,
  );
}

/** Each rollup against the rows: the same edges with the same sums, and no group that is left over from a repair. */
async function assertRollupsEqualRows(store: Store): Promise<void> {
  const key =
    'src_identity, dst_identity, src_end, dst_end, dst_port, protocol, verdict, reason, rule, side, pending';
  const ends = (src: string, dst: string): string => `${src} AS src_end, ${dst} AS dst_end`;
  const sums =
    'sum(connections) AS c, sum(bytes_forward) AS bf, sum(bytes_reverse) AS br, sum(packets_forward) AS pf, sum(packets_reverse) AS pr';
  const digest = async (from: string): Promise<unknown> => {
    const [row] = await store.query(
      `SELECT count() AS edges, sum(n) AS flows, sum(c) AS connections, sum(bf) AS bytes,
         groupBitXor(cityHash64(${key}, n, c, bf, br, pf, pr)) AS digest FROM (${from})`,
    );
    return row;
  };
  const rows = await digest(
    `SELECT ${key}, count() AS n, ${sums} FROM (SELECT *, ${ends(
      "if(src_workload = 0, src_ip, toIPv6('::'))",
      "if(dst_workload = 0, dst_ip, toIPv6('::'))",
    )} FROM flows_all) GROUP BY ${key}`,
  );
  for (const table of ['edges_1m', 'edges_1h']) {
    const edges = await digest(
      `SELECT ${key}, sum(flows) AS n, ${sums} FROM (SELECT *, ${ends('src_ip', 'dst_ip')} FROM ${table}) GROUP BY ${key} HAVING n != 0`,
    );
    assert.deepEqual(edges, rows, table);
  }
}

/** How sure the rows are in the end, of ends that somebody truly has. */
class Certainties {
  readonly #counts = new Map<string, Map<Certainty, number>>();
  total = 0;
  uncertain = 0;
  late = 0;

  note(kind: string, { certainty }: StoredRow['src']): void {
    if (kind === 'unknown') return;
    const counts = this.#counts.get(kind) ?? new Map<Certainty, number>();
    counts.set(certainty as Certainty, (counts.get(certainty as Certainty) ?? 0) + 1);
    this.#counts.set(kind, counts);
    // A range owns nothing: it is what is left when nobody has the address.
    if (kind === 'range') return;
    this.total++;
    if (certainty !== 'exact') this.uncertain++;
    if (certainty === 'late') this.late++;
  }

  report(context: TestContext): void {
    for (const [kind, counts] of this.#counts)
      context.diagnostic(
        `${kind}: ${[...counts].map(([certainty, count]) => `${count} ${certainty}`).join(', ')}`,
      );
    const percent = ((100 * this.uncertain) / this.total).toFixed(3);
    context.diagnostic(`${percent} % of ${this.total} ends with an owner are not exact in the end`);
  }
}

test('what is called exact is right in every case, at any time, and nearly everything is in the end', async (context) => {
  await withPipeline(async (pipeline) => {
    const { bus, store, ingestUrl } = pipeline;
    const estate = makeHardEstate();
    await publishEstate(bus, estate);
    const book = new TruthBook();
    const sampleParts = 32;
    let steps = 0;
    let sampled = 0;
    let sampledPending = 0;
    let replaced = 0;
    const truths = await feed({
      estate,
      bus,
      ingestUrl,
      flowCount,
      stepMs,
      // Whatever is on its way at the end is published, and beyond the farthest clock.
      settleMs: inventoryDelayMs + 4 * clockSkewMs,
      beforeSending: (list) => book.add(list),
      async afterStep(sent) {
        if (sent >= (flowCount * (replaced + 1)) / 3 && replaced < 2) {
          replaced++;
          await pipeline.replaceEnricher();
        }
        if (++steps % 10 !== 0) return;
        const problems = await book.comparePart(
          store,
          sampleParts,
          (steps / 10) % sampleParts,
          (row, wanted) => {
            sampled++;
            sampledPending += row.pending;
            return judgeExact(row, wanted);
          },
        );
        assert.deepEqual(problems.slice(0, 3), [], `${problems.length} problems after ${sent} flows`);
      },
    });
    context.diagnostic(
      `${truths.length} flows in ${steps} steps; ${sampled} rows looked at meanwhile, ${sampledPending} of them pending`,
    );
    assert.ok(replaced === 2 && sampledPending > 100, 'nothing was late: this test says nothing');

    await settled(pipeline);
    const certainties = new Certainties();
    const problems = await book.compare(store, (row, wanted, truth) => {
      certainties.note(truth.srcKind, row.src);
      certainties.note(truth.dstKind, row.dst);
      return row.pending === 0 ? judgeExact(row, wanted) : 'still pending';
    });
    certainties.report(context);
    assert.deepEqual(problems.slice(0, 3), [], `${problems.length} problems among ${truths.length} flows`);
    assert.equal(certainties.late, 0, 'the inventory has caught up, so nothing is late any more');
    assert.ok(certainties.uncertain < certainties.total * uncertainShareLimit);

    await assertRollupsEqualRows(store);
    const [late] = await store.query<{ repaired: string; ledger: string }>(
      `SELECT (SELECT count() FROM flows_late FINAL WHERE sign = 1 AND version > 1) AS repaired,
         (SELECT sum(flows_written) FROM batches) AS ledger`,
    );
    context.diagnostic(`${late?.repaired} flows were late and are repaired`);
    assert.equal(late?.ledger, String(truths.length));
  });
});
