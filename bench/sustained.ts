/**
 * How long it takes from the door to a query under a steady load: batches are posted to ingest when agents would, and a
 * look at the store every 50 ms says which of them a query sees. All processes share the machine.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Default, Parse } from 'typebox/value';
import { makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { clearFlowColumns, type FlowColumns, makeFlowColumns, readFlowBatch } from '../lib/wire/columns.ts';
import { topics } from '../schemas/topics.ts';
import { EnrichConfig } from '../services/enrich/config.ts';
import { freePort } from '../test/faults/free-port.ts';
import { startClickHouse } from '../test/support/clickhouse.ts';
import { startKafka } from '../test/support/kafka.ts';
import { startService } from '../test/support/service-process.ts';
import { quiet } from './hot-path.ts';
import { type Figure, mustEqual } from './report.ts';

const intervalMs = 10_000;
/** What an agent of a busy node reports at once. */
const flowsPerBatch = 5000;
const lookEveryMs = 100;
/** How far a cluster is behind when kubelink vouches for it (`statusLagMs` and the time a proof takes), and how often it does. */
const vouchLagMs = 1210;
const vouchEveryMs = 250;
const settleMs = 60_000;
/** One for each core: more only make blocks smaller. */
const partitionCount = 2;

export interface SustainedOptions {
  readonly bus: 'embedded' | 'kafka';
  /**
   * Inventory of a `cluster`, which is behind and says how far, so that flows wait until their names are certain; or of a
   * source that vouches for nothing and is taken at its word.
   */
  readonly inventory: 'cluster' | 'word';
  readonly flowsPerSecond: number;
  readonly seconds: number;
}

interface Posted {
  readonly agentId: string;
  readonly sequence: number;
  readonly flowCount: number;
  /** When the whole batch was with ingest; NaN while it isn't. */
  sentMs: number;
  acknowledgedMs: number;
  seenMs: number;
  /** Up to when the inventory has to be complete before the names of all its flows are facts, ms since the epoch. */
  readonly neededToMs: number;
}

/** What a source of inventory said, and when (`performance`) the bus had it. */
interface Vouched {
  readonly completeToMs: number;
  readonly atMs: number;
}

function neededToMs(message: Uint8Array, columns: FlowColumns, inventoryErrorMs: number): number {
  clearFlowColumns(columns);
  const result = readFlowBatch(message, columns);
  if (!result.ok) throw new Error(`${result.field} ${result.detail}`);
  const { clockOffsetMs, clockErrorMs } = result.header;
  let newestMs = 0;
  for (let row = 0; row < columns.count; row++) newestMs = Math.max(newestMs, columns.startMs[row] ?? 0);
  return newestMs - clockOffsetMs + clockErrorMs + inventoryErrorMs;
}

/** When the names of all flows of the batch could be known for certain, at the earliest. */
function settledMs({ sentMs, neededToMs }: Posted, vouched: readonly Vouched[]): number {
  return Math.max(sentMs, vouched.find(({ completeToMs }) => completeToMs >= neededToMs)?.atMs ?? Number.NaN);
}

function post(url: string, agent: Agent, message: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const sent = request(
    `${url}/v1/flows`,
    { method: 'POST', agent, headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' } },
    (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
    },
  );
  sent.on('error', reject);
  sent.end(message);
  return promise;
}

/** Marks the batches that a query sees by now. Their flows are in the store before the ledger says so. */
async function look(store: Store, waiting: Map<string, Posted>): Promise<void> {
  const beganMs = performance.now();
  const rows = await store.query<{ agent: string; sequence: string }>(
    `SELECT agent, sequence FROM batches WHERE outcome = 'written' AND received > now64(3) - INTERVAL 90 SECOND`,
  );
  for (const { agent, sequence } of rows) {
    const batch = waiting.get(`${agent} ${sequence}`);
    if (batch === undefined) continue;
    batch.seenMs = performance.now();
    waiting.delete(`${agent} ${sequence}`);
  }
  await sleep(Math.max(0, lookEveryMs - (performance.now() - beganMs)));
}

async function keepVouching(
  bus: Bus,
  source: string,
  vouched: Vouched[],
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const completeToMs = Date.now() - vouchLagMs;
    const event = { v: 1, type: 'watermark', source, completeToMs } as const;
    const value = Buffer.from(JSON.stringify(event));
    await bus.append(topics.inventory, [{ key: inventoryKey(event), value, headers: { source } }]);
    vouched.push({ completeToMs, atMs: performance.now() });
    await sleep(vouchEveryMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Delay that this share of the flows does not exceed, ms. */
function quantile(batches: readonly Posted[], of: (batch: Posted) => number, share: number): number {
  const sorted = batches
    .map((batch) => ({ delay: of(batch), flows: batch.flowCount }))
    .sort((a, b) => a.delay - b.delay);
  let left = share * sorted.reduce((sum, { flows }) => sum + flows, 0);
  for (const { delay, flows } of sorted) {
    left -= flows;
    if (left <= 0) return delay;
  }
  return Number.NaN;
}

export async function benchSustained(
  { bus: kind, inventory, flowsPerSecond, seconds }: SustainedOptions,
  say: (text: string) => void,
): Promise<Figure[]> {
  const isBehind = inventory === 'cluster';
  const name = `${kind === 'kafka' ? 'Kafka' : 'embedded'} bus, ${isBehind ? '' : 'inventory taken at its word, '}${flowsPerSecond.toLocaleString('en')} flows/s for ${seconds} s`;
  const kafka = kind === 'kafka' ? await startKafka() : null;
  if (kafka !== null && 'skip' in kafka)
    return [{ name: `${name}: skipped, ${kafka.skip}`, value: 0, unit: 'ms' }];
  const clickhouse = await startClickHouse();
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-bench-'));
  const settings = { kind, partitionCount, ...(kafka === null ? {} : { brokers: kafka.brokers }) };
  const busConfig = Parse(BusConfig, Default(BusConfig, settings));
  const bus = await openBus(busConfig, { dataDir, log: quiet, clientId: 'bench' });
  const store = openStore(clickhouse.config(), { log: quiet });
  const environment: Record<string, string> = {
    EASTWEST_RUNTIME_DATA_DIR: dataDir,
    EASTWEST_BUS_KIND: kind,
    EASTWEST_BUS_PARTITION_COUNT: String(partitionCount),
    ...(kafka === null ? {} : { EASTWEST_BUS_BROKERS: kafka.brokers.join(',') }),
  };
  const stop = new AbortController();
  const running: { stop(): Promise<unknown> }[] = [];
  try {
    await migrate(store, { log: quiet });
    await bus.ensureTopics(topicSpecs(busConfig));
    const count = flowsPerSecond * seconds;
    say(`generating ${count.toLocaleString('en')} flows ...`);
    // Sent when their interval is over, which is when everything is ready.
    const leadMs = 20_000 + (count / 1_000_000) * 5000;
    const startMs = Date.now() + leadMs - intervalMs;
    // Agents have measured their clocks, as real ones do.
    const estate = makeEstate({
      seed: 'sustained',
      size: 'bank',
      startMs,
      clockSkewMs: 20,
      unmeasuredClockShare: 0,
    });
    const batches = [...estate.flowBatches({ count, flowsPerBatch, flowsPerSecond })];
    const events = [...estate.inventory()];
    for (let at = 0; at < events.length; at += 1000)
      await bus.append(
        topics.inventory,
        events.slice(at, at + 1000).map((event) => ({
          key: inventoryKey(event),
          value: Buffer.from(JSON.stringify(event)),
          headers: { source: 'bench' },
        })),
      );
    await publishPolicy(bus, estate.policy(), 'bench');
    const vouched: Vouched[] = [];
    if (isBehind) void keepVouching(bus, 'bench', vouched, stop.signal);
    const port = await freePort();
    running.push(await startService('enrich', { ...environment, EASTWEST_STORE_URL: clickhouse.url }));
    running.push(await startService('ingest', { ...environment, EASTWEST_INGEST_PORT: String(port) }));
    const url = `http://127.0.0.1:${port}`;
    if (Date.now() > startMs + intervalMs)
      throw new Error('getting ready took too long for the times of the flows');
    say(`sending for ${seconds} s ...`);
    const columns = makeFlowColumns(flowsPerBatch);
    const { inventoryErrorMs } = Parse(EnrichConfig, Default(EnrichConfig, {}));
    const posted = batches.map(
      ({ agentId, sequence, flowCount, message }): Posted => ({
        agentId,
        sequence,
        flowCount,
        sentMs: Number.NaN,
        acknowledgedMs: Number.NaN,
        seenMs: Number.NaN,
        neededToMs: neededToMs(message, columns, inventoryErrorMs),
      }),
    );
    const waiting = new Map(posted.map((batch) => [`${batch.agentId} ${batch.sequence}`, batch]));
    const agent = new Agent({ keepAlive: true, maxSockets: 32 });
    let sentAll = false;
    const looking = (async (): Promise<void> => {
      const deadline = Date.now() + leadMs + seconds * 1000 + settleMs;
      while (waiting.size > 0 && Date.now() < deadline) {
        await look(store, waiting);
        if (sentAll && waiting.size === 0) return;
      }
    })();
    const sending: Promise<void>[] = [];
    let done = 0;
    for (const [i, { message, flowCount }] of batches.entries()) {
      const dueMs = startMs + intervalMs + ((done + flowCount) / flowsPerSecond) * 1000;
      if (dueMs > Date.now()) await sleep(dueMs - Date.now());
      done += flowCount;
      const batch = posted[i];
      if (batch === undefined) continue;
      batch.sentMs = performance.now();
      sending.push(
        (async () => {
          for (;;) {
            const status = await post(url, agent, message).catch(() => 0);
            if (status === 202) break;
            if (status !== 429 && status !== 503 && status !== 0)
              throw new Error(`ingest answered ${status}`);
            await sleep(50);
          }
          batch.acknowledgedMs = performance.now();
        })(),
      );
    }
    await Promise.all(sending);
    sentAll = true;
    const tookS = (performance.now() - (posted[0]?.sentMs ?? 0)) / 1000;
    await looking;
    agent.destroy();
    const [stored] = await store.query<{ rows: string; minutes: string }>(
      'SELECT (SELECT count() FROM flows_all) AS rows, (SELECT sum(flows) FROM edges_1m) AS minutes',
    );
    mustEqual('flows stored', Number(stored?.rows), count);
    mustEqual('flows in edges_1m', Number(stored?.minutes), count);
    mustEqual('batches that never showed', waiting.size, 0);
    const figure = (what: string, value: number, unit = 'ms'): Figure => ({
      name: `${name}: ${what}`,
      value,
      unit,
    });
    const settled = (share: number): number =>
      quantile(posted, (batch) => settledMs(batch, vouched) - batch.sentMs, share);
    const written = (share: number): number =>
      quantile(posted, (batch) => batch.seenMs - settledMs(batch, vouched), share);
    const shown = (share: number): number => quantile(posted, (batch) => batch.seenMs - batch.sentMs, share);
    return [
      figure('sent', count / tookS, 'flows/s'),
      figure('ingest to queryable, p50', shown(0.5)),
      figure('ingest to queryable, p99', shown(0.99)),
      figure('ingest to queryable, longest', shown(1)),
      ...(isBehind
        ? [
            figure('of these until names can be certain, p50', settled(0.5)),
            figure('of these until names can be certain, p99', settled(0.99)),
            figure('from there to queryable, p50', written(0.5)),
            figure('from there to queryable, p99', written(0.99)),
          ]
        : []),
      figure(
        'ingest to acknowledged, p99',
        quantile(posted, (batch) => batch.acknowledgedMs - batch.sentMs, 0.99),
      ),
    ];
  } finally {
    stop.abort();
    for (const process of running) await process.stop();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await kafka?.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}
