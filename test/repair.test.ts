/** Inventory that comes late: flows are written as what they are then, repaired when it is there, and counted once throughout. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { workloadId } from '../lib/inventory/ids.ts';
import { parseWireAddress } from '../lib/net/address.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { migrate } from '../lib/store/migrate.ts';
import { encodeNativeBlock } from '../lib/store/native.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { encodeFlowBatch, type Flow } from '../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../lib/wire/plain-flow.ts';
import { enrichGroup, topics } from '../schemas/topics.ts';
import { closeLateRows, offerLateRows } from '../services/enrich/late.ts';
import { decodeMark } from '../services/enrich/plan.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const source = 'kubernetes:east';
const beginMs = Math.floor(Date.now() / 1000) * 1000 - 60_000;

function pod(uid: string, app: string, ip: string, sinceMs: number, untilMs?: number): InventoryEvent {
  const until = untilMs === undefined ? {} : { untilMs };
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid,
    name: uid,
    namespace: 'shop',
    node: 'n1',
    hostNetwork: false,
    labels: { app },
    annotations: {},
    addresses: [{ ip, network: 'east', sinceMs, ...until }],
    sinceMs,
    ...until,
  };
}

const cluster: InventoryEvent = {
  v: 1,
  type: 'cluster',
  cluster: 'east',
  podCidrs: ['10.1.0.0/16'],
  serviceCidrs: ['10.96.0.0/16'],
};

const vouch = (completeToMs: number): InventoryEvent => ({ v: 1, type: 'watermark', source, completeToMs });

async function say(bus: Bus, ...events: InventoryEvent[]): Promise<void> {
  for (const event of events) {
    await bus.append(topics.inventory, [
      { key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)), headers: { source } },
    ]);
  }
}

const labelledByApp = {
  name: 'all',
  match: {},
  map: [{ key: 'app', from: { label: 'app' } }],
};

let sequence = 0;

/** One batch of flows from 10.1.0.1 to `destination`, that begin at `startMs` by the agent's clock. */
async function send(
  bus: Bus,
  destination: string,
  startsMs: readonly number[],
  header: { clockOffsetMs?: number; clockErrorMs?: number } = {},
  flowParts: Partial<Flow> = {},
  strings: string[] = [''],
  firstPort = 40_000,
): Promise<void> {
  const flows = startsMs.map((startMs, i) => ({
    ...plainFlow,
    startMs: startMs - beginMs,
    durationMs: 5,
    sourceAddress: Buffer.from(parseWireAddress('10.1.0.1') ?? []),
    sourcePort: firstPort + i,
    destinationAddress: Buffer.from(parseWireAddress(destination) ?? []),
    bytesForward: 100 + i,
    bytesReverse: 7,
    packetsForward: 2,
    ...flowParts,
  }));
  const value = encodeFlowBatch({
    ...plainBatch,
    agentId: 'agent-1',
    sequence: ++sequence,
    cluster: 'east',
    node: 'n1',
    network: 'east',
    observedFromMs: beginMs,
    observedToMs: beginMs + 60_000,
    clockErrorMs: 50,
    strings,
    flows,
    ...header,
  });
  await bus.append(topics.flows, [{ key: 'agent-1', value }]);
}

interface Row {
  readonly dst_workload: string;
  readonly dst_certainty: string;
  readonly pending: number;
  readonly n: string;
}

const rowsTo = (store: Store, ip: string): Promise<Row[]> =>
  store.query<Row>(
    `SELECT toString(dst_workload) AS dst_workload, dst_certainty, pending, count() AS n FROM flows_all
     WHERE dst_ip = toIPv6({ip:String}) GROUP BY ALL ORDER BY ALL`,
    { ip: `::ffff:${ip}` },
  );

const idOf = (uid: string): string => String(workloadId('east', 'pod', uid));

/** Rollups against the rows they are made of: the same groups with the same sums, once views have written what inserts began. */
async function assertRollupsEqualRows(store: Store): Promise<void> {
  const key = 'src_identity, dst_identity, dst_port, verdict, reason, rule, side, pending';
  const sums = (count: string): string =>
    `${count} AS n, sum(connections), sum(bytes_forward), sum(bytes_reverse), sum(packets_forward), sum(packets_reverse)`;
  const asRows = (sql: string): Promise<unknown[]> => store.query(`SELECT * FROM (${sql}) ORDER BY ALL`);
  for (const table of ['edges_1m', 'edges_1h']) {
    let rows: unknown[] = [];
    let rollups: unknown[] = [];
    await until(
      `${table} equals the rows`,
      5000,
      async () => {
        rows = await asRows(`SELECT ${key}, ${sums('count()')} FROM flows_all GROUP BY ${key}`);
        rollups = await asRows(
          `SELECT ${key}, ${sums('sum(flows)')} FROM ${table} GROUP BY ${key} HAVING n > 0`,
        );
        return isDeepStrictEqual(rollups, rows);
      },
      () => `${JSON.stringify(rollups)}\n${JSON.stringify(rows)}`,
    );
  }
}

describe('flows that come before their inventory', () => {
  let clickhouse: TestClickHouse;
  let store: Store;
  let bus: Bus;
  let dataDir: string;
  let enrich: ServiceProcess | undefined;
  const busConfig = Parse(BusConfig, Default(BusConfig, { partitionCount: 1 }));

  const startEnrich = async (more: Record<string, string> = {}): Promise<void> => {
    enrich = await startService('enrich', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_BUS_PARTITION_COUNT: '1',
      EASTWEST_STORE_URL: clickhouse.url,
      EASTWEST_ENRICH_LINGER_MS: '50',
      EASTWEST_ENRICH_HOLD_MS: '300',
      EASTWEST_ENRICH_REPAIR_INTERVAL_MS: '100',
      EASTWEST_ENRICH_INVENTORY_ERROR_MS: '50',
      ...more,
    });
  };
  const committed = (): Promise<void> =>
    until(
      'everything is committed',
      30_000,
      async () =>
        (await bus.positions(topics.flows, enrichGroup)).every(
          ({ next, committed: at }) =>
            next === 0 || (at?.offset === next && decodeMark(at.metadata).plan === null),
        ),
      () => enrich?.output() ?? '',
    );
  const becomes = async (ip: string, wanted: readonly Row[]): Promise<void> => {
    let rows: Row[] = [];
    await until(
      `flows to ${ip} are ${JSON.stringify(wanted)}`,
      20_000,
      async () => {
        rows = await rowsTo(store, ip);
        // At no time is a flow there twice, or missing.
        const total = rows.reduce((sum, { n }) => sum + Number(n), 0);
        assert.equal(
          total,
          wanted.reduce((sum, { n }) => sum + Number(n), 0),
          JSON.stringify(rows),
        );
        return JSON.stringify(rows) === JSON.stringify(wanted);
      },
      () => `${JSON.stringify(rows)}\n${enrich?.output().slice(-3000)}`,
    );
  };

  before(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'eastwest-late-'));
    clickhouse = await startClickHouse();
    store = openStore(clickhouse.config(), { log });
    await migrate(store, { log });
    bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
    await bus.ensureTopics(topicSpecs(busConfig));
    await say(bus, cluster, pod('client', 'web', '10.1.0.1', 0), pod('old', 'db', '10.1.0.9', 0));
    await say(bus, vouch(beginMs));
    await publishPolicy(
      bus,
      { profiles: [labelledByApp], rulesets: [], services: [], ipLists: [], labels: [] },
      'test',
    );
    await startEnrich();
  });
  after(async () => {
    await enrich?.kill();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  test('are exact at once where the inventory vouches for their time', async () => {
    await send(bus, '10.1.0.9', [beginMs - 5000, beginMs - 200]);
    await committed();
    await becomes('10.1.0.9', [{ dst_workload: idOf('old'), dst_certainty: 'exact', pending: 0, n: '2' }]);
  });

  test('are late with the likeliest owner, then right: an address that changed hands meanwhile', async () => {
    await say(bus, pod('first', 'db', '10.1.0.20', 0));
    await send(bus, '10.1.0.20', [beginMs + 1000, beginMs + 3000, beginMs + 5000]);
    await committed();
    await becomes('10.1.0.20', [{ dst_workload: idOf('first'), dst_certainty: 'late', pending: 1, n: '3' }]);
    await assertRollupsEqualRows(store);
    await say(
      bus,
      pod('first', 'db', '10.1.0.20', 0, beginMs + 2000),
      pod('second', 'cache', '10.1.0.20', beginMs + 2500),
      vouch(beginMs + 10_000),
    );
    const settled = [
      { dst_workload: idOf('first'), dst_certainty: 'exact', pending: 0, n: '1' },
      { dst_workload: idOf('second'), dst_certainty: 'exact', pending: 0, n: '2' },
    ].sort((a, b) => (a.dst_workload < b.dst_workload ? -1 : 1));
    await becomes('10.1.0.20', settled);
    await assertRollupsEqualRows(store);
  });

  test('are nobody until somebody says who it was, also when the enricher is killed in between', async () => {
    await send(bus, '10.1.0.30', [beginMs + 11_000]);
    await committed();
    await becomes('10.1.0.30', [{ dst_workload: '0', dst_certainty: 'none', pending: 1, n: '1' }]);
    await enrich?.kill();
    await say(bus, pod('late', 'queue', '10.1.0.30', beginMs + 10_500), vouch(beginMs + 20_000));
    await startEnrich();
    await becomes('10.1.0.30', [{ dst_workload: idOf('late'), dst_certainty: 'exact', pending: 0, n: '1' }]);
    await assertRollupsEqualRows(store);
  });

  test('have the labels of their own time when labels changed, and none for sure close to the change', async () => {
    const changedMs = beginMs + 22_000;
    const changed = pod('old', 'ledger', '10.1.0.9', 0);
    assert.ok(changed.type === 'workload');
    await send(bus, '10.1.0.9', [changedMs - 1000, changedMs + 20, changedMs + 1000], {}, {}, [''], 50_001);
    await committed();
    await say(
      bus,
      { ...changed, former: [{ untilMs: changedMs, labels: { app: 'db' }, annotations: {} }] },
      vouch(beginMs + 30_000),
    );
    await until('all are settled', 20_000, async () =>
      (await rowsTo(store, '10.1.0.9')).every(({ pending }) => pending === 0),
    );
    const rows = await store.query<{ app: string; dst_certainty: string }>(
      `SELECT app, dst_certainty FROM flows_all JOIN identities FINAL ON identities.id = dst_identity
       WHERE src_port BETWEEN 50001 AND 50003 ORDER BY src_port`,
    );
    assert.deepEqual(rows, [
      { app: 'db', dst_certainty: 'exact' },
      { app: 'ledger', dst_certainty: 'ambiguous' },
      { app: 'ledger', dst_certainty: 'exact' },
    ]);
  });

  test("are placed by the common clock, however far the agent's own is off", async () => {
    await say(
      bus,
      pod('short', 'job', '10.1.0.40', beginMs + 31_000, beginMs + 32_000),
      vouch(beginMs + 40_000),
    );
    const byAgent = (ms: number): number => beginMs + ms + 2000;
    await send(bus, '10.1.0.40', [byAgent(31_500)], { clockOffsetMs: 2000, clockErrorMs: 20 });
    await committed();
    await becomes('10.1.0.40', [{ dst_workload: idOf('short'), dst_certainty: 'exact', pending: 0, n: '1' }]);
    const [row] = await store.query<{ at: string }>(
      `SELECT toUnixTimestamp(time) AS at FROM flows_all WHERE dst_ip = toIPv6('::ffff:10.1.0.40')`,
    );
    assert.equal(Number(row?.at), Math.floor((beginMs + 31_500) / 1000));
  });

  test('go to the workload that the reporter saw, whatever the address says', async () => {
    await say(
      bus,
      pod('left', 'a', '10.1.0.50', 0, beginMs + 41_000),
      pod('right', 'b', '10.1.0.50', beginMs + 41_000),
      vouch(beginMs + 50_000),
    );
    // At the change itself only the hint can tell.
    await send(bus, '10.1.0.50', [beginMs + 41_010], {}, { destinationHint: 1 }, ['', 'left']);
    await send(bus, '10.1.0.50', [beginMs + 41_010], {}, { sourcePort: 3 });
    await committed();
    const wanted = [
      { dst_workload: idOf('left'), dst_certainty: 'exact', pending: 0, n: '1' },
      { dst_workload: idOf('right'), dst_certainty: 'ambiguous', pending: 0, n: '1' },
    ].sort((a, b) => (a.dst_workload < b.dst_workload ? -1 : 1));
    await becomes('10.1.0.50', wanted);
  });

  test('stay as they are when the inventory never comes, and say so', async () => {
    await enrich?.kill();
    await startEnrich({ EASTWEST_ENRICH_REPAIR_WINDOW_MS: '500' });
    await send(bus, '10.1.0.9', [beginMs + 55_000], {}, {}, [''], 60_001);
    await until('it is given up', 20_000, async () => {
      const rows = await store.query<{ dst_certainty: string; pending: number }>(
        'SELECT dst_certainty, pending FROM flows_all WHERE src_port = 60001',
      );
      assert.ok(rows.length <= 1);
      return rows[0]?.pending === 0 && rows[0].dst_certainty === 'late';
    });
    await assertRollupsEqualRows(store);
  });

  test('have a catalog beside them: who had an address, which ranges there are, and how far sources vouch', async () => {
    const range = {
      v: 1 as const,
      type: 'range' as const,
      network: 'default',
      zone: 'outside' as const,
      labels: {},
    };
    await say(
      bus,
      { ...range, name: 'partner', cidrs: ['203.0.113.0/24'] },
      { ...range, name: 'gone', cidrs: ['198.51.100.0/25'] },
    );
    await say(bus, {
      v: 1,
      type: 'name',
      name: 'bank-api',
      dns: ['api.bank.example'],
      zone: 'outside',
      labels: {},
      addresses: [{ ip: '203.0.113.7', network: 'default', sinceMs: beginMs }],
    });
    const ranges = (): Promise<{ name: string; last: string }[]> =>
      store.query(
        `SELECT name, toString(last) AS last FROM ranges FINAL WHERE removed = 0 AND name IN ('partner', 'gone') ORDER BY name`,
      );
    await until(
      'both ranges are stored',
      20_000,
      async () => (await ranges()).length === 2,
      () => enrich?.output() ?? '',
    );
    assert.deepEqual(await ranges(), [
      { name: 'gone', last: '::ffff:198.51.100.127' },
      { name: 'partner', last: '::ffff:203.0.113.255' },
    ]);
    // Removed while nobody looks.
    await enrich?.kill();
    await bus.append(topics.inventory, [{ key: 'range/default/gone', value: null, headers: { source } }]);
    await startEnrich();
    await until(
      'the range is gone',
      20_000,
      async () => (await ranges()).length === 1,
      () => enrich?.output() ?? '',
    );
    const owners = await store.query(
      `SELECT name, kind FROM workloads FINAL WHERE ip = toIPv6('::ffff:203.0.113.7') AND network = 'default'`,
    );
    assert.deepEqual(owners, [{ name: 'bank-api', kind: 'name' }]);
    await until('the watermark is stored', 20_000, async () => {
      const rows = await store.query<{ source: string }>('SELECT source FROM inventory_sources FINAL');
      return rows.some((row) => row.source === source);
    });
  });

  test('of one block are split between the two tables the same way by everybody who writes it', async () => {
    const at = { topic: topics.flows, partition: 77 };
    const plan = { from: 100, to: 120 };
    const lateOf = (rows: readonly number[]) =>
      encodeNativeBlock(rows.length, [
        { name: 'time', type: 'DateTime', data: new Uint32Array(rows.length).fill(beginMs / 1000) },
        { name: 'bus_partition', type: 'UInt32', data: new Uint32Array(rows.length).fill(77) },
        { name: 'block', type: 'UInt64', data: new BigUint64Array(rows.length).fill(100n) },
        { name: 'row', type: 'UInt32', data: Uint32Array.from(rows) },
        { name: 'pass', type: 'UInt32', data: new Uint32Array(rows.length).fill(1) },
        { name: 'version', type: 'UInt32', data: new Uint32Array(rows.length).fill(1) },
        { name: 'sign', type: 'Int8', data: new Int8Array(rows.length).fill(1) },
      ]);
    // The first offer counts, for the one who makes it and for whoever comes after.
    assert.deepEqual(await offerLateRows(store, at, plan, lateOf([3, 5])), new Set([3, 5]));
    assert.deepEqual(await offerLateRows(store, at, plan, lateOf([5, 6, 7])), new Set([3, 5]));
    assert.deepEqual(await closeLateRows(store, at, plan, beginMs), new Set([3, 5]));
    // Closed first: an offer that comes after is too late, and its rows go with the others.
    const next = { from: 121, to: 130 };
    assert.deepEqual(await closeLateRows(store, at, next, beginMs), new Set());
    assert.deepEqual(await offerLateRows(store, at, next, lateOf([1])), new Set());
  });
});
