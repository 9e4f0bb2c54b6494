/**
 * Questions people ask, answered from rollups and from single flows: the same statements of the API, planned on either, over
 * flows that ClickHouse makes itself (26 hours of them, sorted into blocks by time, all views on).
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Default, Parse } from 'typebox/value';
import { StoreConfig } from '../lib/store/config.ts';
import { startEmbeddedServer } from '../lib/store/embedded/server.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { type FlowFilter, windowFilter } from '../services/query/filters.ts';
import type { Statement } from '../services/query/sql/bindings.ts';
import { coverageSql } from '../services/query/sql/coverage.ts';
import { edgesSql } from '../services/query/sql/edges.ts';
import { mapSql } from '../services/query/sql/map.ts';
import { type EdgePlan, planEdges } from '../services/query/sql/plan.ts';
import { fillWithFlows, type Generated } from './generated-flows.ts';
import { quiet } from './hot-path.ts';
import { type Figure, mustEqual } from './report.ts';

const rollupRuns = 50;
/** Single flows take seconds to answer from: so many runs tell. */
const rawRuns = 5;
const groupLimit = 1_000;

interface Question {
  readonly name: string;
  readonly filter: FlowFilter;
  readonly statement: (filter: FlowFilter, plan: EdgePlan) => Statement;
}

function questions(generated: Generated): Question[] {
  const lastDay = windowFilter({ sinceS: generated.endS - 86_400, untilS: null });
  return [
    {
      name: 'unknown connections of the last 24 h by application',
      filter: { ...lastDay, verdict: 'unexplained' },
      statement: (filter, plan) => mapSql(filter, plan, ['app'], groupLimit),
    },
    {
      name: 'coverage of the last 24 h by application',
      filter: lastDay,
      statement: (filter, plan) => coverageSql(filter, plan, 'app', ['dst'], groupLimit),
    },
    ...[0, 20].map((rank) => ({
      name: `everything about the destination with the ${rank === 0 ? 'most flows' : `${rank + 1}st most`}`,
      filter: { ...lastDay, destinationIdentity: generated.destinations[rank] ?? null },
      statement: (filter: FlowFilter, plan: EdgePlan) =>
        edgesSql(filter, plan, { limit: groupLimit, offset: 0, sort: 'connections', order: 'desc' }),
    })),
  ];
}

/** The same window, from single flows. */
function onFlows(plan: EdgePlan): EdgePlan {
  const { sinceS, untilS } = plan.window;
  return { window: plan.window, parts: [{ table: 'flows', fromS: sinceS, toS: untilS }], table: 'flows' };
}

/** Seconds at a share of the runs. */
function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

interface Timed {
  readonly rows: readonly unknown[];
  readonly median: number;
  readonly p95: number;
}

async function time(store: Store, { sql, params }: Statement, runs: number): Promise<Timed> {
  let rows: unknown[] = [];
  const seconds: number[] = [];
  for (let run = 0; run < runs; run++) {
    const begin = performance.now();
    rows = await store.query<unknown>(sql, params);
    seconds.push((performance.now() - begin) / 1000);
  }
  seconds.sort((a, b) => a - b);
  return { rows, median: quantile(seconds, 0.5), p95: quantile(seconds, 0.95) };
}

async function ask(store: Store, question: Question, nowMs: number): Promise<Figure[]> {
  const { name, filter, statement } = question;
  const plan = planEdges(filter, nowMs, { minuteDays: 30 });
  const rolled = await time(store, statement(filter, plan), rollupRuns);
  const raw = await time(store, statement(filter, onFlows(plan)), rawRuns);
  if (rolled.rows.length === 0) throw new Error(`${name}: nothing was found`);
  mustEqual(name, rolled.rows, raw.rows);
  const figure = (what: string, value: number, baseline: number, runs: string): Figure => ({
    name: `${name}, ${plan.table}: ${what}`,
    value: value * 1000,
    unit: 'ms',
    baseline: baseline * 1000,
    against: `the same from flows, ${runs}`,
  });
  return [
    figure('median', rolled.median, raw.median, `median of ${rawRuns} runs`),
    figure(`p95 of ${rollupRuns} runs`, rolled.p95, raw.p95, `the slowest of ${rawRuns} runs`),
    { name: `${name}: faster from rollups (medians)`, value: raw.median / rolled.median, unit: 'times' },
  ];
}

/** Background work of the store takes from what is measured: waits until none is left. */
async function untilMerged(store: Store): Promise<void> {
  for (;;) {
    const [row] = await store.query<{ merges: string }>('SELECT count() AS merges FROM system.merges');
    if (row?.merges === '0') return;
    await delay(500);
  }
}

export async function benchBigQueries(
  flowCount: number,
  say: (text: string) => void,
  report: (figures: readonly Figure[]) => void,
): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-big-'));
  const server = await startEmbeddedServer({ dataDir, httpPort: 0, tcpPort: 0, memoryBytes: 0, log: quiet });
  const config = Default(StoreConfig, {
    url: server.url,
    queryTimeoutMs: 600_000,
    insertTimeoutMs: 600_000,
    // Flows of yesterday are not compressed anew while they are read.
    retention: { denseHours: 240 },
  });
  const store = openStore(Parse(StoreConfig, config), { log: quiet });
  try {
    await migrate(store, { log: quiet });
    const begin = performance.now();
    const generated = await fillWithFlows(store, flowCount, say);
    const seconds = (performance.now() - begin) / 1000;
    report([{ name: 'flows made and stored with all views', value: flowCount / seconds, unit: 'flows/s' }]);
    await untilMerged(store);
    const tables = await store.query<{ name: string; row_count: string; byte_count: string }>(
      `SELECT table AS name, sum(parts.rows) AS row_count, sum(bytes_on_disk) AS byte_count FROM system.parts WHERE active AND database = currentDatabase()
       AND table IN ('flows', 'edges_1m', 'edges_1h', 'edges_seen') GROUP BY table ORDER BY row_count DESC`,
    );
    report(
      tables.flatMap(({ name, row_count, byte_count }) => [
        { name: `rows of ${name}`, value: Number(row_count), unit: 'rows' },
        { name: `disk of ${name}`, value: Number(byte_count) / flowCount, unit: 'bytes/flow' },
      ]),
    );
    for (const question of questions(generated)) {
      say(`${question.name} ...`);
      report(await ask(store, question, generated.endS * 1000));
    }
  } finally {
    await store.close();
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}
