/**
 * One seeded run: the pipeline's own processes over a real bus and a real store, traffic through the door, and faults at
 * random moments. In the end every edge must add up to exactly what was sent, in every table.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { hash32, Random } from '../../estate/random.ts';
import type { Bus } from '../../lib/bus/bus.ts';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { inventoryKey } from '../../lib/inventory/events.ts';
import { publishPolicy } from '../../lib/policy/publish.ts';
import { migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import type { TestClickHouse } from '../support/clickhouse.ts';
import type { KafkaForTests } from '../support/kafka.ts';
import { until } from '../support/until.ts';
import { drawFaults, type Fault } from './faults.ts';
import { freePort } from './free-port.ts';
import { Keeper } from './keeper.ts';
import { startProxy } from './proxy.ts';
import { edgeKey, inventory, policyContent, type SentBatch, sourceName, Traffic } from './traffic.ts';

const log = pino({ level: 'silent' });
const feedMs = 2500;
const batchCount = 240;
const lanes = 3;
const settleMs = 60_000;
const partitionCount = 3;

/** What runs share, since it takes seconds to start. */
export interface Ground {
  readonly clickhouse: TestClickHouse;
  /** Null: the embedded bus. */
  readonly kafka: KafkaForTests | null;
}

export interface RunResult {
  readonly seed: string;
  /** What was to happen, and what did. */
  readonly faults: readonly string[];
  readonly flowCount: number;
  readonly lateCount: number;
  readonly repeatCount: number;
  /** Empty when all is right. */
  readonly differences: readonly string[];
}

/** Sends batches of each agent in order, and again whatever was not acknowledged; some also when they were. */
class Sender {
  readonly #url: () => string;
  readonly #random: Random;
  readonly #queues: SentBatch[][] = Array.from({ length: lanes }, () => []);
  readonly #lanes: Promise<void>[];
  #closed = false;
  repeatCount = 0;

  constructor(seed: string, url: () => string) {
    this.#url = url;
    this.#random = new Random(seed, 'sender');
    this.#lanes = this.#queues.map((queue) => this.#run(queue));
  }

  send(batch: SentBatch): void {
    this.#queues[hash32(batch.agentId) % lanes]?.push(batch);
  }

  /** Resolves when everything is acknowledged. */
  async drained(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#lanes);
  }

  async #run(queue: SentBatch[]): Promise<void> {
    for (;;) {
      const batch = queue.shift();
      if (batch === undefined) {
        if (this.#closed) return;
        await sleep(5);
        continue;
      }
      while (!(await this.#post(batch, this.#random.next() < 0.03))) {
        this.repeatCount++;
        await sleep(30);
      }
      if (this.#random.next() < 0.04) {
        this.repeatCount++;
        await this.#post(batch, false);
      }
    }
  }

  /** Whether the batch was acknowledged; `hasty` hangs up before an answer can come. */
  async #post(batch: SentBatch, hasty: boolean): Promise<boolean> {
    try {
      const response = await fetch(`${this.#url()}/v1/flows`, {
        method: 'POST',
        headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' },
        body: new Uint8Array(batch.message),
        signal: AbortSignal.timeout(hasty ? 3 : 3000),
      });
      const text = await response.text();
      if (response.status === 202) return true;
      if (response.status < 500 && response.status !== 429)
        throw new Error(`ingest refused a batch: ${text}`);
      return false;
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('ingest refused')) throw error;
      return false;
    }
  }
}

async function compare(store: Store, traffic: Traffic): Promise<string[]> {
  const differences: string[] = [];
  const sources = {
    flows_all: 'count() AS flows, sum(connections) AS connections, sum(bytes_forward) AS bytes',
    edges_1m: 'sum(flows) AS flows, sum(connections) AS connections, sum(bytes_forward) AS bytes',
    edges_1h: 'sum(flows) AS flows, sum(connections) AS connections, sum(bytes_forward) AS bytes',
  };
  for (const [table, sums] of Object.entries(sources)) {
    const rows = await store.query<
      Record<'source' | 'destination' | 'verdict' | 'port' | 'flows' | 'connections' | 'bytes', string>
    >(
      `SELECT toString(src_identity) AS source, toString(dst_identity) AS destination, verdict, toString(dst_port) AS port, ${sums}
       FROM ${table} GROUP BY source, destination, verdict, port HAVING flows > 0`,
    );
    const left = new Map(traffic.truth);
    for (const row of rows) {
      const key = edgeKey(row.source, row.destination, Number(row.port), row.verdict);
      const wanted = left.get(key);
      left.delete(key);
      const found = `${row.flows} flows, ${row.connections} connections, ${row.bytes} bytes`;
      const right =
        wanted === undefined
          ? 'nothing'
          : `${wanted.flows} flows, ${wanted.connections} connections, ${wanted.bytes} bytes`;
      if (found !== right) differences.push(`${table} ${key}: ${found}, sent ${right}`);
    }
    for (const [key, { flows }] of left) differences.push(`${table} ${key}: nothing, sent ${flows} flows`);
  }
  const [ledger] = await store.query<{ written: string }>(
    `SELECT sum(flows_written) AS written FROM batches WHERE outcome = 'written'`,
  );
  if (Number(ledger?.written) !== traffic.flowCount)
    differences.push(`the ledger says ${ledger?.written} flows, sent ${traffic.flowCount}`);
  return differences;
}

let runNumber = 0;

/** @throws {Error} where the pipeline does not come to rest; the message has the seed and what the processes said. */
export async function runFaults(ground: Ground, seed: string): Promise<RunResult> {
  const { clickhouse, kafka } = ground;
  const random = new Random(seed, 'run');
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-faults-'));
  const database = `faults_${process.pid}_${++runNumber}`;
  const storeConfig = clickhouse.config(database);
  const store = openStore(storeConfig, { log });
  const busSettings = {
    kind: kafka === null ? ('embedded' as const) : ('kafka' as const),
    ...(kafka === null ? {} : { brokers: kafka.brokers }),
    partitionCount,
    sessionTimeoutMs: 1500,
    heartbeatIntervalMs: 300,
  };
  const busConfig = Parse(BusConfig, Default(BusConfig, busSettings));
  const proxy = await startProxy(Number(new URL(clickhouse.url).port));
  const faults = drawFaults(seed, kafka !== null);
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'faults' });
  const ingestPort = await freePort();
  const busEnvironment: Record<string, string> = {
    EASTWEST_RUNTIME_DATA_DIR: dataDir,
    EASTWEST_BUS_KIND: busSettings.kind,
    ...(kafka === null ? {} : { EASTWEST_BUS_BROKERS: kafka.brokers.join(',') }),
    EASTWEST_BUS_PARTITION_COUNT: String(partitionCount),
    EASTWEST_BUS_SESSION_TIMEOUT_MS: '1500',
    EASTWEST_BUS_HEARTBEAT_INTERVAL_MS: '300',
  };
  const settings: Record<string, Record<string, string>> = {
    ingest: { ...busEnvironment, EASTWEST_INGEST_PORT: String(ingestPort) },
    enrich: {
      ...busEnvironment,
      EASTWEST_STORE_URL: `http://127.0.0.1:${proxy.port}`,
      EASTWEST_STORE_DATABASE: database,
      EASTWEST_ENRICH_MAX_BLOCK_ROWS: String(1024 << random.below(3)),
      EASTWEST_ENRICH_LINGER_MS: String(random.between(20, 200)),
      EASTWEST_ENRICH_HOLD_MS: String(random.between(0, 300)),
      EASTWEST_ENRICH_INVENTORY_ERROR_MS: '20',
      EASTWEST_ENRICH_REPAIR_INTERVAL_MS: '60',
      EASTWEST_ENRICH_MAX_REPAIR_ROWS: '300',
    },
  };
  const freezeMs = random.between(300, 2600);
  const keep = (name: string, of: string): Keeper => {
    const failpoints = faults.filter((fault) => fault.kind === 'failpoint' && fault.of === of);
    return new Keeper({
      name,
      settings: settings[name] ?? {},
      failpoints: failpoints.map(({ what }) => what).join(','),
      freezeMs,
    });
  };
  const ingest = keep('ingest', 'ingest');
  const enrichers = [keep('enrich', 'enrich-0'), keep('enrich', 'enrich-1')];
  const watermarkLagMs = random.below(3) * 700;
  const stop = new AbortController();
  const everything = { ingest, enrichers, clickhouse, kafka, proxy };
  const traffic = new Traffic(seed);
  const report = (): string =>
    `seed ${seed}: ${faults.map(({ what }) => what).join('; ')}\n${[ingest, ...enrichers].map(({ output }) => output.slice(-4000)).join('\n---\n')}`;
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig));
    await publishPolicy(bus, policyContent(), 'faults');
    await publish(bus, inventory());
    await Promise.all([ingest.start(), enrichers[0]?.start()]);
    const watermarks = keepVouching(bus, watermarkLagMs, stop.signal);
    const sender = new Sender(seed, () => `http://127.0.0.1:${ingestPort}`);
    const beginMs = Date.now();
    const happening = faults.map((fault) => carryOut(fault, beginMs, everything));
    const second = enrichers[1];
    if (random.next() < 0.7) await Promise.all([feed(traffic, sender, beginMs), second?.start()]);
    else await feed(traffic, sender, beginMs);
    await sender.drained();
    await Promise.all(happening);
    await until(
      'everything is committed',
      settleMs,
      async () =>
        (await bus.positions(topics.flows, enrichGroup)).every(
          ({ next, earliest, committed }) =>
            next === earliest || (committed?.offset === next && committed.metadata === ''),
        ),
      report,
    );
    const late = async (): Promise<{ rows: string; pending: string } | undefined> =>
      (
        await store.query<{ rows: string; pending: string }>(
          `SELECT count() AS rows, countIf(pending = 1) AS pending FROM flows_late FINAL WHERE sign = 1`,
        )
      )[0];
    await until('nothing is pending', settleMs, async () => (await late())?.pending === '0', report);
    stop.abort();
    await watermarks;
    // Views write after their table: what a query sees in between is on its way.
    let differences: string[] = [];
    await until(
      'tables agree',
      5000,
      async () => {
        differences = await compare(store, traffic);
        return differences.length === 0;
      },
      report,
    ).catch(() => undefined);
    const died = [ingest, ...enrichers].flatMap(({ events }, i) =>
      events.map((event) => `${['ingest', 'enrich-0', 'enrich-1'][i]} ${event}`),
    );
    return {
      seed,
      faults: [...faults.map(({ what, of }) => `${of}: ${what}`), ...died],
      flowCount: traffic.flowCount,
      lateCount: Number((await late())?.rows ?? 0),
      repeatCount: sender.repeatCount,
      differences,
    };
  } finally {
    stop.abort();
    await Promise.all([ingest, ...enrichers].map((keeper) => keeper.close(false)));
    await bus.close();
    await store.command(`DROP DATABASE IF EXISTS ${database}`).catch(() => undefined);
    await store.close();
    await proxy.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function publish(bus: Bus, events: ReturnType<typeof inventory>): Promise<void> {
  await bus.append(
    topics.inventory,
    events.map((event) => ({
      key: inventoryKey(event),
      value: Buffer.from(JSON.stringify(event)),
      headers: { source: sourceName },
    })),
  );
}

/** Says twice a second and more how far the inventory is complete; always some time behind. */
async function keepVouching(bus: Bus, lagMs: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const completeToMs = Date.now() - lagMs;
    // The broker may be away: the next one says more anyway.
    await publish(bus, [{ v: 1, type: 'watermark', source: sourceName, completeToMs }]).catch(
      () => undefined,
    );
    await sleep(100, undefined, { signal }).catch(() => undefined);
  }
}

async function feed(traffic: Traffic, sender: Sender, beginMs: number): Promise<void> {
  for (let sent = 0; sent < batchCount; sent++) {
    sender.send(traffic.batch(Date.now()));
    const dueMs = beginMs + ((sent + 1) * feedMs) / batchCount;
    if (dueMs > Date.now()) await sleep(dueMs - Date.now());
  }
}

interface Everything {
  readonly ingest: Keeper;
  readonly enrichers: readonly Keeper[];
  readonly clickhouse: TestClickHouse;
  readonly kafka: KafkaForTests | null;
  readonly proxy: { cut(): void; mend(): void };
}

/** Does what the fault says when its time comes; failpoints do it themselves. */
async function carryOut(fault: Fault, beginMs: number, on: Everything): Promise<void> {
  if (fault.kind === 'failpoint') return;
  await sleep(Math.max(0, beginMs + fault.atMs - Date.now()));
  const keeper = fault.of === 'ingest' ? on.ingest : on.enrichers[fault.of === 'enrich-1' ? 1 : 0];
  switch (fault.kind) {
    case 'kill':
      keeper?.signal('SIGKILL');
      return;
    case 'freeze':
      keeper?.signal('SIGSTOP');
      return;
    case 'cut':
      on.proxy.cut();
      await sleep(fault.forMs);
      on.proxy.mend();
      return;
    case 'store':
      await on.clickhouse.kill();
      await sleep(fault.forMs);
      await on.clickhouse.start();
      return;
    case 'broker':
      await on.kafka?.kill();
      await sleep(fault.forMs);
      await on.kafka?.start();
  }
}
