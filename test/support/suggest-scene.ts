/** The demo bank through the pipeline, for questions about policies: every stored edge, and the truth about each. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { type Estate, makeEstate, type PlantedConnection, type Truth } from '../../estate/index.ts';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { edgeKeyOf } from '../../lib/draft/edges.ts';
import { emptyPolicy } from '../../lib/policy/engine.ts';
import { migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import { windowFilter } from '../../services/query/filters.ts';
import { type Drafting, evaluateDraft } from '../../services/query/sql/drafting.ts';
import { planEdges } from '../../services/query/sql/plan.ts';
import { startClickHouse, type TestClickHouse } from './clickhouse.ts';
import { feed, publishEstate } from './estate-feed.ts';
import { expectedRow } from './estate-truth.ts';
import { type ServiceProcess, startService } from './service-process.ts';
import { until } from './until.ts';

const log = pino({ level: 'silent' });

export interface TrueEdge {
  readonly key: string;
  readonly truth: Truth;
  /** The planted connection that it is, or null. */
  readonly planted: PlantedConnection | null;
  /** As stored: the larger of the sides. */
  readonly connections: number;
}

export interface SuggestScene {
  readonly estate: Estate;
  readonly store: Store;
  readonly clickhouse: TestClickHouse;
  readonly edges: readonly TrueEdge[];
  readonly asked: Drafting;
  /** Keys of the stored edges that a policy leaves unexplained. */
  unexplainedBy(document: PolicyDocument): Promise<ReadonlySet<string>>;
  close(): Promise<void>;
}

function isPlanted({ source, destination, port }: PlantedConnection, truth: Truth): boolean {
  return (
    truth.dstPort === port &&
    truth.dstIp === destination.address &&
    truth.srcKind === source.kind &&
    truth.srcCluster === source.cluster &&
    truth.srcNamespace === source.namespace
  );
}

const mapped = (ip: string): string => (ip.includes(':') ? ip : `::ffff:${ip}`);

/** The key of the stored edge that a flow belongs to. */
function keyOf(truth: Truth): string {
  const { src, dst } = expectedRow(truth);
  const ip = (workload: bigint, address: string): string => (workload === 0n ? mapped(address) : '::');
  return `${src.identity} ${dst.identity} ${ip(truth.srcWorkload, truth.srcIp)} ${ip(truth.dstWorkload, truth.dstIp)} ${truth.dstPort} ${truth.protocol}`;
}

async function fill(
  estate: Estate,
  clickhouse: TestClickHouse,
  store: Store,
  flowCount: number,
): Promise<Truth[]> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-suggest-'));
  const busConfig = Parse(BusConfig, Default(BusConfig, {}));
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
  const running: ServiceProcess[] = [];
  const output = (): string => running.map((one) => one.output()).join('\n');
  try {
    await bus.ensureTopics(topicSpecs(busConfig));
    const common = { EASTWEST_RUNTIME_DATA_DIR: dataDir };
    const ingest = await startService('ingest', { ...common, EASTWEST_INGEST_PORT: '0' });
    running.push(ingest);
    await until('ingest is ready', 20_000, async () => (await fetch(`${ingest.probes}/readyz`)).ok, output);
    const ingestUrl = /"url":"([^"]+)"/.exec(ingest.output())?.[1];
    assert.ok(ingestUrl, output());
    running.push(
      await startService('enrich', {
        ...common,
        EASTWEST_STORE_URL: clickhouse.url,
        EASTWEST_ENRICH_LINGER_MS: '100',
      }),
    );
    await publishEstate(bus, estate);
    const truths = await feed({ estate, bus, ingestUrl, flowCount, stepMs: 10_000, settleMs: 10_000 });
    await until(
      'everything is committed',
      60_000,
      async () =>
        (await bus.positions(topics.flows, enrichGroup)).every(
          ({ next, earliest, committed }) => next === earliest || committed?.offset === next,
        ),
      output,
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
      output,
    );
    return truths;
  } finally {
    for (const process of running) await process.kill();
    await bus.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

export async function openSuggestScene(flowCount: number, seed = 'suggest'): Promise<SuggestScene> {
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config(), { log });
  const close = async (): Promise<void> => {
    await store.close();
    await clickhouse.stop();
  };
  try {
    await migrate(store, { log });
    const startMs = Date.now() - 30 * 60_000;
    const estate = makeEstate({ seed, size: 'small', startMs, flowsPerSecond: 200 });
    const truths = await fill(estate, clickhouse, store, flowCount);
    const nowMs = Date.now();
    const filter = windowFilter({ sinceS: Math.floor(startMs / 1000) - 60, untilS: null });
    const asked: Drafting = {
      context: { ask: (statement, signal) => store.query(statement.sql, statement.params, { signal }) },
      filter,
      plan: planEdges(filter, nowMs, { minuteDays: 30 }),
      nowMs,
      signal: new AbortController().signal,
    };
    const connections = new Map<string, number>();
    await evaluateDraft(asked, {
      draft: emptyPolicy,
      against: null,
      limit: 0,
      onUnexplained: (edge, sums) => connections.set(edgeKeyOf(edge), sums.connections),
    });
    const byKey = new Map(truths.map((truth) => [keyOf(truth), truth]));
    const edges = [...byKey].map(([key, truth]) => ({
      key,
      truth,
      planted: estate.planted.find((planted) => isPlanted(planted, truth)) ?? null,
      connections: connections.get(key) ?? Number.NaN,
    }));
    assert.deepEqual(
      new Set(connections.keys()),
      new Set(byKey.keys()),
      'stored edges are not those of the truth',
    );
    return {
      estate,
      store,
      clickhouse,
      edges,
      asked,
      async unexplainedBy(document) {
        const keys = new Set<string>();
        await evaluateDraft(asked, {
          draft: document,
          against: null,
          limit: 0,
          onUnexplained: (edge) => keys.add(edgeKeyOf(edge)),
        });
        return keys;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
