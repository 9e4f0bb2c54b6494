/**
 * One seeded run: the pipeline's own processes over a real bus and a real store, a real agent that sends what is in its
 * spool, more traffic through the door, and faults at random moments. In the end every edge and every day must add up to
 * exactly what was sent, in every table.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { Random } from '../../estate/random.ts';
import type { Bus } from '../../lib/bus/bus.ts';
import { busConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { inventoryKey } from '../../lib/inventory/events.ts';
import { publishPolicy } from '../../lib/policy/publish.ts';
import { migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import { decodeMark } from '../../services/enrich/plan.ts';
import type { TestClickHouse } from '../support/clickhouse.ts';
import type { KafkaForTests } from '../support/kafka.ts';
import { until } from '../support/until.ts';
import { fillSpool, isDelivered } from './agent-spool.ts';
import { type BreakName, breakArguments } from './breaks.ts';
import { compare } from './compare.ts';
import { type Disk, openDisk } from './disk.ts';
import { drawFaults, type Fault } from './faults.ts';
import { freePort } from './free-port.ts';
import { Keeper } from './keeper.ts';
import { type NetworkProxy, startProxy } from './proxy.ts';
import { Sender } from './sender.ts';
import { inventory, policyContent, sourceName, Traffic } from './traffic.ts';

const log = pino({ level: 'silent' });
const feedMs = 2500;
const batchCount = 200;
/** Batches in the spool of the agent, which a slow network lets it send within about the time of the feed. */
const spooledBatchCount = 50;
const agentNetworkDelayMs = 40;
/** A machine under load takes its time; a wrong sum never comes right. */
const settleMs = 150_000;
const partitionCount = 3;
const diskBytes = 48 * 1024 * 1024;
const dayMs = 86_400_000;

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
  /** Named moments at which a process died or froze, as it said itself. */
  readonly reached: readonly string[];
  readonly flowCount: number;
  readonly lateCount: number;
  readonly repeatCount: number;
  /** Empty when all is right. */
  readonly differences: readonly string[];
}

export interface RunOptions {
  /** Makes the enrichers wrong, so that the run should come out wrong too. */
  readonly break?: BreakName;
  /** Default: what the seed draws. */
  readonly faults?: readonly Fault[];
}

const names = ['ingest', 'agent', 'enrich-0', 'enrich-1'] as const;
type Name = (typeof names)[number];

/** How the run goes, all of it out of the seed. */
interface Course {
  readonly freezeMs: number;
  /** How far the watermarks are behind at first, ms: days, and flows of old days come before their inventory. */
  readonly firstLagMs: number;
  readonly lagMs: number;
  readonly secondJoinsAtOnce: boolean;
  readonly enrich: Readonly<Record<string, string>>;
}

export function drawCourse(seed: string): Course {
  const random = new Random(seed, 'run');
  const lagMs = random.below(3) * 700;
  return {
    lagMs,
    firstLagMs: random.below(4) === 0 ? 6 * dayMs : lagMs,
    freezeMs: random.between(300, 2600),
    secondJoinsAtOnce: random.next() < 0.7,
    enrich: {
      EASTWEST_ENRICH_MAX_BLOCK_ROWS: String(1024 << random.below(3)),
      EASTWEST_ENRICH_LINGER_MS: String(random.between(20, 200)),
      EASTWEST_ENRICH_HOLD_MS: String(random.between(0, 300)),
      EASTWEST_ENRICH_INVENTORY_ERROR_MS: '20',
      EASTWEST_ENRICH_REPAIR_INTERVAL_MS: '60',
      EASTWEST_ENRICH_MAX_REPAIR_ROWS: '600',
    },
  };
}

/** Everything of one run that has to be closed. */
interface Room {
  readonly seed: string;
  readonly ground: Ground;
  readonly disk: Disk;
  readonly store: Store;
  readonly bus: Bus;
  /** To the store, and from the agent to ingest. */
  readonly networks: { readonly store: NetworkProxy; readonly agent: NetworkProxy };
  readonly ingestUrl: string;
  readonly keepers: Readonly<Record<Name, Keeper>>;
  readonly spoolFolder: string;
  readonly faults: readonly Fault[];
  /** What the processes said. */
  report(): string;
  close(): Promise<void>;
}

let runNumber = 0;

async function openRoom(ground: Ground, seed: string, course: Course, options: RunOptions): Promise<Room> {
  const { clickhouse, kafka } = ground;
  const faults = options.faults ?? drawFaults(seed, kafka !== null);
  const disk = await openDisk('faults', faults.some(({ kind }) => kind === 'disk') ? diskBytes : 0);
  const database = `faults_${process.pid}_${++runNumber}`;
  const store = openStore(clickhouse.config(database), { log });
  const busSettings = busConfig({
    kind: kafka === null ? 'embedded' : 'kafka',
    ...(kafka === null ? {} : { brokers: [...kafka.brokers] }),
    partitionCount,
    sessionTimeoutMs: 1500,
    heartbeatIntervalMs: 300,
  });
  const bus = await openBus(busSettings, { dataDir: disk.path, log, clientId: 'faults' });
  const ingestPort = await freePort();
  const networks = {
    store: await startProxy(Number(new URL(clickhouse.url).port)),
    agent: await startProxy(ingestPort, agentNetworkDelayMs),
  };
  const spoolFolder = join(disk.path, 'spool');
  const ofBus: Record<string, string> = {
    EASTWEST_RUNTIME_DATA_DIR: disk.path,
    EASTWEST_BUS_KIND: busSettings.kind,
    EASTWEST_BUS_BROKERS: busSettings.brokers.join(','),
    EASTWEST_BUS_PARTITION_COUNT: String(partitionCount),
    EASTWEST_BUS_SESSION_TIMEOUT_MS: '1500',
    EASTWEST_BUS_HEARTBEAT_INTERVAL_MS: '300',
  };
  const keep = (name: Name, settings: Record<string, string>): Keeper =>
    new Keeper({
      name: name.startsWith('enrich') ? 'enrich' : name,
      settings,
      failpoints: faults
        .filter((fault) => fault.kind === 'failpoint' && fault.of === name)
        .map(({ what }) => what)
        .join(','),
      freezeMs: course.freezeMs,
      nodeArguments:
        options.break === undefined || !name.startsWith('enrich') ? [] : breakArguments(options.break),
    });
  const enrich = {
    ...ofBus,
    ...course.enrich,
    EASTWEST_STORE_URL: `http://127.0.0.1:${networks.store.port}`,
    EASTWEST_STORE_DATABASE: database,
  };
  const keepers = {
    ingest: keep('ingest', {
      ...ofBus,
      EASTWEST_INGEST_PORT: String(ingestPort),
      EASTWEST_INGEST_RETRY_AFTER_S: '1',
    }),
    agent: keep('agent', {
      EASTWEST_RUNTIME_DATA_DIR: disk.path,
      EASTWEST_AGENT_ID: `${seed}-agent`,
      EASTWEST_AGENT_SPOOL_DIR: spoolFolder,
      EASTWEST_AGENT_INGEST_URL: `http://127.0.0.1:${networks.agent.port}`,
      // What this host itself does is not its business: it sends what is in the spool.
      EASTWEST_AGENT_SOURCE: 'procfs',
      EASTWEST_AGENT_INTERVAL_MS: '600000',
      EASTWEST_AGENT_HEARTBEAT_MS: '0',
      EASTWEST_AGENT_BACKOFF_MIN_MS: '30',
      EASTWEST_AGENT_BACKOFF_MAX_MS: '300',
      EASTWEST_AGENT_DELIVERY_TIMEOUT_MS: '2000',
    }),
    'enrich-0': keep('enrich-0', enrich),
    'enrich-1': keep('enrich-1', enrich),
  };
  return {
    seed,
    ground,
    disk,
    store,
    bus,
    networks,
    ingestUrl: `http://127.0.0.1:${ingestPort}`,
    keepers,
    spoolFolder,
    faults,
    report: () =>
      `seed ${seed}: ${faults.map(({ of, what }) => `${of}: ${what}`).join('; ')}\n${names
        .map((name) => `--- ${name}\n${keepers[name].output.slice(-4000)}`)
        .join('\n')}`,
    async close() {
      disk.free();
      await Promise.all(names.map((name) => keepers[name].close(false)));
      await bus.close();
      await store.command(`DROP DATABASE IF EXISTS ${database}`).catch(() => undefined);
      await store.close();
      await Promise.all([networks.store.close(), networks.agent.close()]);
      await disk.close();
    },
  };
}

/** Begins everything, lets the faults happen, and resolves with the sender when all is sent and nothing happens any more. */
async function live(room: Room, course: Course, traffic: Traffic): Promise<Sender> {
  const { keepers, seed } = room;
  fillSpool(room.spoolFolder, traffic, { agentId: `${seed}-agent`, batchCount: spooledBatchCount });
  await Promise.all([keepers.ingest.start(), keepers['enrich-0'].start()]);
  const sender = new Sender(seed, () => room.ingestUrl);
  const beginMs = Date.now();
  const happening = Promise.all(room.faults.map((fault) => carryOut(fault, beginMs, room)));
  // Told below, once the rest is done.
  happening.catch(() => undefined);
  const second = keepers['enrich-1'];
  const parts = [feed(traffic, sender, beginMs), keepers.agent.start()];
  if (course.secondJoinsAtOnce) parts.push(second.start());
  await Promise.all(parts);
  await sender.drained();
  await happening;
  return sender;
}

async function rest(room: Room): Promise<void> {
  const { bus, store, report } = room;
  await until(
    'the agent has delivered its spool',
    settleMs,
    async () => isDelivered(room.spoolFolder),
    report,
  );
  await until(
    'everything is committed',
    settleMs,
    async () =>
      (await bus.positions(topics.flows, enrichGroup)).every(
        ({ next, earliest, committed }) =>
          next === earliest || (committed?.offset === next && decodeMark(committed.metadata).plan === null),
      ),
    report,
  );
  await until('nothing is pending', settleMs, async () => (await late(store)).pending === '0', report);
}

async function late(store: Store): Promise<{ rows: string; pending: string }> {
  const [counts] = await store.query<{ rows: string; pending: string }>(
    `SELECT count() AS rows, countIf(pending = 1) AS pending FROM flows_late FINAL WHERE sign = 1`,
  );
  return counts ?? { rows: '0', pending: '0' };
}

/** @throws {Error} where the pipeline does not come to rest; the message has the seed and what the processes said. */
export async function runFaults(ground: Ground, seed: string, options: RunOptions = {}): Promise<RunResult> {
  const course = drawCourse(seed);
  const traffic = new Traffic(seed);
  const room = await openRoom(ground, seed, course, options);
  const { store, bus, keepers } = room;
  const stop = new AbortController();
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig({ partitionCount })));
    await publishPolicy(bus, policyContent(), 'faults');
    await publish(bus, inventory());
    const watermarks = keepVouching(bus, course, stop.signal);
    const sender = await live(room, course, traffic);
    await rest(room);
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
      room.report,
    ).catch(() => undefined);
    return {
      seed,
      faults: [
        ...room.faults.map(({ what, of }) => `${of}: ${what}`),
        ...names.flatMap((name) => keepers[name].events.map((event) => `${name} ${event}`)),
      ],
      reached: names.flatMap((name) =>
        [...keepers[name].output.matchAll(/^failpoint (\S+) SIG/gm)].map(([, moment]) => `${name} ${moment}`),
      ),
      flowCount: traffic.flowCount,
      lateCount: Number((await late(store)).rows),
      repeatCount: sender.repeatCount,
      differences,
    };
  } finally {
    stop.abort();
    await room.close();
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
async function keepVouching(bus: Bus, { firstLagMs, lagMs }: Course, signal: AbortSignal): Promise<void> {
  const beginMs = Date.now();
  while (!signal.aborted) {
    const completeToMs = Date.now() - (Date.now() - beginMs < feedMs ? firstLagMs : lagMs);
    // The bus may be away or full: the next one says more anyway.
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

/** Does what the fault says when its time comes; failpoints do it themselves. */
async function carryOut(fault: Fault, beginMs: number, room: Room): Promise<void> {
  if (fault.kind === 'failpoint') return;
  const { networks, disk, ground } = room;
  const lasts = async (begin: () => unknown, end: () => unknown, forMs: number): Promise<void> => {
    await begin();
    await sleep(forMs);
    await end();
  };
  await sleep(Math.max(0, beginMs + fault.atMs - Date.now()));
  switch (fault.kind) {
    case 'kill':
    case 'freeze': {
      const name = names.find((one) => one === fault.of);
      if (name !== undefined) room.keepers[name].signal(fault.kind === 'kill' ? 'SIGKILL' : 'SIGSTOP');
      return;
    }
    case 'cut':
      return lasts(networks.store.cut, networks.store.mend, fault.forMs);
    case 'deaf':
      return lasts(networks.agent.deafen, networks.agent.mend, fault.forMs);
    case 'disk':
      return lasts(disk.fill, disk.free, fault.forMs);
    case 'store':
      return lasts(ground.clickhouse.kill, ground.clickhouse.start, fault.forMs);
    case 'broker':
      return lasts(
        async () => ground.kafka?.kill(),
        async () => ground.kafka?.start(),
        fault.forMs,
      );
  }
}
