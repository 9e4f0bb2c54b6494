/** The store against a real ClickHouse: schema, inserts that count once, the reader's limits, and the server's own life. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { pino } from 'pino';
import { startEmbeddedServer } from '../lib/store/embedded/server.ts';
import { type MigrateResult, type Migration, migrate, readMigrations } from '../lib/store/migrate.ts';
import { encodeNativeBlock, enum8Type, type NativeColumn } from '../lib/store/native.ts';
import { openReaderStore, openStore } from '../lib/store/open.ts';
import { type Store, StoreRefusedError, StoreUnavailableError } from '../lib/store/store.ts';
import * as lists from '../schemas/closed-lists.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';

const log = pino({ level: 'silent' });
let clickhouse: TestClickHouse;
const opened: Store[] = [];

/** A store on a database of its own. */
function open(database: string, as: typeof openStore = openStore): Store {
  const store = as(clickhouse.config(database), { log });
  opened.push(store);
  return store;
}

async function openMigrated(database: string): Promise<Store> {
  const store = open(database);
  await migrate(store, { log });
  return store;
}

async function eventually<T>(what: string, read: () => Promise<T>, until: (value: T) => boolean): Promise<T> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const value = await read();
    if (until(value)) return value;
    if (performance.now() > deadline) assert.fail(`${what}: still ${JSON.stringify(value)}`);
    await delay(50);
  }
}

before(async () => {
  clickhouse = await startClickHouse();
});

after(async () => {
  await Promise.all(opened.map((store) => store.close()));
  await clickhouse.stop();
});

describe('migrate', () => {
  const step = (number: string, sql: string): Migration => ({ name: `${number}-step`, sql });

  test('makes the database and all tables once, and finds nothing to do the second time', async () => {
    const store = open('fresh');
    const first = await migrate(store, { log });
    assert.deepEqual(
      first.applied,
      readMigrations().map((migration) => migration.name),
    );
    assert.deepEqual(await migrate(store, { log }), { applied: [], retained: [] });
  });

  test('runs in one of several processes, and the others wait for it', async () => {
    const stores = [1, 2, 3, 4].map(() => open('crowded'));
    const results = await Promise.all(stores.map((store) => migrate(store, { log })));
    assert.equal(results.filter(({ applied }) => applied.length > 0).length, 1);
    const [store] = stores;
    const rows = await store!.query<{ name: string }>('SELECT name FROM migrations FINAL ORDER BY name');
    assert.deepEqual(
      rows.map((row) => row.name),
      readMigrations().map((migration) => migration.name),
    );
  });

  test('waits for another process as long as that one lives, and no longer', async () => {
    const store = open('abandoned');
    const migrations = [step('001', 'SELECT 1')];
    await migrate(store, { log, migrations: [] });
    const lock =
      "CREATE TABLE migrating (nothing UInt8) ENGINE = MergeTree ORDER BY tuple() COMMENT 'other 0'";
    await store.command(lock);
    let isDone = false;
    const migrated = migrate(store, { log, migrations, deadAfterS: 3 }).then((result) => {
      isDone = true;
      return result;
    });
    for (let beat = 1; beat <= 6; beat++) {
      await delay(1000);
      assert.equal(isDone, false, `at beat ${beat}`);
      await store.command(`ALTER TABLE migrating MODIFY COMMENT 'other ${beat}'`);
    }
    assert.deepEqual((await migrated).applied, ['001-step']);
    assert.deepEqual(
      await store.query("SELECT name FROM system.tables WHERE name = 'migrating' AND database = 'abandoned'"),
      [],
    );
  });

  test('refuses a file that has changed since it was applied, and names it', async () => {
    const store = open('changed');
    await migrate(store, {
      log,
      migrations: [step('001', 'CREATE TABLE IF NOT EXISTS a (x Int8) ENGINE = Memory')],
    });
    const other = [step('001', 'CREATE TABLE IF NOT EXISTS a (x Int16) ENGINE = Memory')];
    await assert.rejects(
      migrate(store, { log, migrations: other }),
      /migration 001-step was applied .* another content/,
    );
  });

  test('refuses a database of a newer version', async () => {
    const store = open('newer');
    await migrate(store, { log, migrations: [step('001', 'SELECT 1'), step('002', 'SELECT 2')] });
    await assert.rejects(
      migrate(store, { log, migrations: [step('001', 'SELECT 1')] }),
      /doesn't know \(002-step\)/,
    );
  });

  test('sets the retention to the settings, and again when they change', async () => {
    const database = 'kept';
    const withDays = (rawDays: number): Promise<MigrateResult> => {
      const config = clickhouse.config(database);
      const store = openStore({ ...config, retention: { ...config.retention, rawDays } }, { log });
      opened.push(store);
      return migrate(store, { log });
    };
    await withDays(90);
    assert.deepEqual((await withDays(30)).retained, [
      'flows',
      'flows_late',
      'batches',
      'batches_15m',
      'delays_15m',
    ]);
    const [row] = await open(database).query<{ engine_full: string }>(
      "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'flows'",
    );
    assert.match(row?.engine_full ?? '', /TTL time \+ toIntervalDay\(30\)/);
  });

  test('a database that has flows keeps their order, an empty one gets the denser; both take flows', async () => {
    const before = readMigrations().filter(({ name }) => name < '009');
    const orders: string[] = [];
    const nowS = Math.floor(Date.now() / 1000);
    for (const [database, flows] of [
      ['with_flows', 1],
      ['without_flows', 0],
    ] as const) {
      const store = open(database);
      await migrate(store, { log, migrations: before });
      for (let count = 0; count < flows; count++)
        await store.insertRows('flows', [{ time: nowS, dst_port: 1 }]);
      const { applied } = await migrate(store, { log });
      assert.ok(applied.includes('009-flow-order'));
      assert.deepEqual((await migrate(store, { log })).applied, []);
      await store.insertRows('flows', [{ time: nowS, dst_port: 2 }]);
      const [row] = await store.query<{ sorting_key: string; raw: string; minutes: string; named: string }>(
        `SELECT sorting_key, (SELECT count() FROM flows) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes,
           (SELECT sum(flows) FROM naming_1m) AS named
         FROM system.tables WHERE database = currentDatabase() AND name = 'flows'`,
      );
      orders.push(row?.sorting_key ?? '');
      const all = String(flows + 1);
      assert.deepEqual([row?.raw, row?.minutes, row?.named], [all, all, all]);
    }
    assert.match(orders[0] ?? '', /dst_ip, time$/);
    assert.match(orders[1] ?? '', /dst_ip, src_port, time$/);
  });

  test('rows past their retention leave by whole days, the others stay', async () => {
    const config = clickhouse.config('expired');
    const store = openStore(
      { ...config, retention: { ...config.retention, rawDays: 2, minuteDays: 2, hourDays: 2 } },
      { log },
    );
    opened.push(store);
    await migrate(store, { log });
    const nowS = Math.floor(Date.now() / 1000);
    for (const daysAgo of [0, 10])
      await store.insertRows('flows', [flowRow({ time: nowS - daysAgo * 86_400 })]);
    await store.command('OPTIMIZE TABLE flows FINAL');
    const rows = await eventually(
      'rows left',
      () => store.query<{ time: number }>('SELECT toUnixTimestamp(time) AS time FROM flows'),
      (left) => left.length === 1,
    );
    assert.equal(rows[0]?.time, nowS);
  });
});

describe('the schema', () => {
  test('has the codes of the closed lists in every Enum8', async () => {
    const store = await openMigrated('codes');
    const rows = await store.query<{ table: string; name: string; type: string }>(
      "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() AND type LIKE '%Enum8%' AND table NOT LIKE '%\\_view'",
    );
    const listOf: Readonly<Record<string, readonly string[]>> = {
      src_provenance: lists.provenances,
      dst_provenance: lists.provenances,
      src_certainty: lists.certainties,
      dst_certainty: lists.certainties,
      side: lists.sides,
      state: lists.states,
      action: lists.actions,
      verdict: lists.verdicts,
      reason: lists.reasons,
      outcome: lists.batchOutcomes,
      cause: lists.dropCauses,
    };
    for (const row of rows) {
      const list = listOf[row.name];
      assert.ok(list !== undefined, `${row.table}.${row.name} has no closed list`);
      assert.ok(row.type.includes(enum8Type(list)), `${row.table}.${row.name} is ${row.type}`);
    }
    assert.deepEqual([...new Set(rows.map((row) => row.name))].sort(), Object.keys(listOf).sort());
  });
});

/** A row of `flows` for insertRows; `time` in Unix seconds. */
function flowRow(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return {
    time: 1_767_261_600,
    src_ip: '::ffff:10.0.0.1',
    dst_ip: '::ffff:10.0.0.2',
    dst_port: 443,
    protocol: 6,
    src_identity: '1',
    dst_identity: '2',
    side: 'source',
    ...fields,
  };
}

describe('insertBlock', () => {
  const table = `CREATE TABLE every_type (
    n UInt32, u8 UInt8, u16 UInt16, u64 UInt64, i64 Int64, f Float64, t DateTime('UTC'), ms DateTime64(3, 'UTC'),
    e Enum8('none' = 0, 'pod' = 1, 'host' = 2), ip IPv6, s String, words LowCardinality(String), list Array(String)
  ) ENGINE = MergeTree ORDER BY n`;
  const enums = ['none', 'pod', 'host'];
  const arbitraryRow = fc.record({
    u8: fc.nat(255),
    u16: fc.nat(65_535),
    u64: fc.bigInt(0n, 2n ** 64n - 1n),
    i64: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    // JSON knows no -0.
    f: fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
    t: fc.nat(4_000_000_000),
    ms: fc.nat(4_000_000_000_000),
    e: fc.nat(2),
    ip: fc.uint8Array({ minLength: 16, maxLength: 16 }),
    s: fc.string({ unit: 'grapheme', maxLength: 200 }),
    word: fc.constantFrom('', 'a', 'agent-1', 'größer'),
    list: fc.array(fc.string({ unit: 'grapheme', maxLength: 20 }), { maxLength: 4 }),
  });
  type Row = typeof arbitraryRow extends fc.Arbitrary<infer T> ? T : never;

  function ipText(bytes: Uint8Array): string {
    return Buffer.from(bytes).toString('hex').match(/.{4}/g)!.join(':');
  }

  function asColumns(rows: readonly Row[]): NativeColumn[] {
    const dictionary = [...new Set(rows.map((row) => row.word))];
    const strings = rows.map((row) => Buffer.from(row.s));
    const offsets = new Uint32Array(rows.length + 1);
    strings.forEach((bytes, i) => {
      offsets[i + 1] = offsets[i]! + bytes.length;
    });
    return [
      { name: 'n', type: 'UInt32', data: Uint32Array.from(rows.keys()) },
      { name: 'u8', type: 'UInt8', data: Uint8Array.from(rows, (row) => row.u8) },
      { name: 'u16', type: 'UInt16', data: Uint16Array.from(rows, (row) => row.u16) },
      { name: 'u64', type: 'UInt64', data: BigUint64Array.from(rows, (row) => row.u64) },
      { name: 'i64', type: 'Int64', data: BigInt64Array.from(rows, (row) => row.i64) },
      { name: 'f', type: 'Float64', data: Float64Array.from(rows, (row) => row.f) },
      { name: 't', type: 'DateTime', data: Uint32Array.from(rows, (row) => row.t) },
      { name: 'ms', type: 'DateTime64(3)', data: Float64Array.from(rows, (row) => row.ms) },
      { name: 'e', type: enum8Type(enums), data: Uint8Array.from(rows, (row) => row.e) },
      { name: 'ip', type: 'IPv6', data: new Uint8Array(Buffer.concat(rows.map((row) => row.ip))) },
      // One of the two ways to give strings, by chance.
      rows.length % 2 === 0
        ? { name: 's', type: 'String', data: rows.map((row) => row.s) }
        : { name: 's', type: 'String', data: { bytes: Buffer.concat(strings), offsets } },
      {
        name: 'words',
        type: 'LowCardinality(String)',
        data: { dictionary, indexes: Uint16Array.from(rows, (row) => dictionary.indexOf(row.word)) },
      },
      { name: 'list', type: 'Array(String)', data: rows.map((row) => row.list) },
    ];
  }

  function asObjects(rows: readonly Row[]): Record<string, unknown>[] {
    return rows.map((row, n) => ({
      ...{
        n,
        u8: row.u8,
        u16: row.u16,
        u64: row.u64,
        i64: row.i64,
        f: row.f,
        t: row.t,
        s: row.s,
        list: row.list,
      },
      ms: new Date(row.ms).toISOString().slice(0, -1),
      e: enums[row.e],
      ip: ipText(row.ip),
      words: row.word,
    }));
  }

  test('a block of typed arrays stores what the same rows as JSON store', async () => {
    const store = await openMigrated('blocks');
    await store.command(table);
    await fc.assert(
      fc.asyncProperty(fc.array(arbitraryRow, { minLength: 1, maxLength: 80 }), async (rows) => {
        const stored: unknown[][] = [];
        for (const insert of [
          () => store.insertBlock('every_type', encodeNativeBlock(rows.length, asColumns(rows)), 'token'),
          () => store.insertRows('every_type', asObjects(rows)),
        ]) {
          await store.command('TRUNCATE TABLE every_type');
          await insert();
          stored.push(await store.query('SELECT * FROM every_type ORDER BY n'));
        }
        assert.equal(stored[0]?.length, rows.length);
        assert.deepEqual(stored[0], stored[1]);
      }),
      { numRuns: 15 },
    );
  });

  test('columns that a block leaves out get their defaults', async () => {
    const store = await openMigrated('defaults');
    const columns = [{ name: 'time', type: 'DateTime', data: Uint32Array.of(1_767_261_600) }];
    await store.insertBlock('flows', encodeNativeBlock(1, columns), 'a');
    assert.deepEqual(await store.query('SELECT time, dst_port, agent FROM flows'), [
      { time: '2026-01-01 10:00:00', dst_port: 0, agent: '' },
    ]);
  });

  test('what the server refuses is told apart from a server that is away', async () => {
    const store = await openMigrated('refusals');
    const one = encodeNativeBlock(1, [{ name: 'nothing', type: 'UInt8', data: Uint8Array.of(1) }]);
    await assert.rejects(store.insertBlock('flows', one, 'a'), (error) => {
      assert.ok(error instanceof StoreRefusedError);
      assert.match(error.message, /INSERT INTO `flows`: .*nothing/);
      return true;
    });
    await assert.rejects(store.insertBlock('no_table', one, 'a'), {
      name: 'StoreRefusedError',
      code: 'UNKNOWN_TABLE',
    });
    const away = openStore({ ...clickhouse.config(), url: 'http://127.0.0.1:1' }, { log });
    opened.push(away);
    for (const call of [
      () => away.insertBlock('flows', one, 'a'),
      () => away.insertRows('flows', [{ dst_port: 1 }]),
      () => away.query('SELECT 1'),
      () => away.command('SELECT 1'),
    ]) {
      await assert.rejects(call, { name: 'StoreUnavailableError', code: 'ECONNREFUSED' });
    }
    assert.equal(await away.ping(), false);
    const impatient = openStore({ ...clickhouse.config('refusals'), queryTimeoutMs: 300 }, { log });
    opened.push(impatient);
    await assert.rejects(impatient.query('SELECT sleep(3)'), StoreUnavailableError);
  });

  test('an aborted query ends at once, also on the server', async () => {
    const store = await openMigrated('aborted');
    const abort = new AbortController();
    const query = store.query(
      "SELECT count(), 'aborted one' FROM numbers(1e13)",
      {},
      { signal: abort.signal },
    );
    const running = () =>
      store.query(
        "SELECT query FROM system.processes WHERE query LIKE '%aborted one%' AND query NOT LIKE '%processes%'",
      );
    await eventually('the query runs', running, (rows) => rows.length === 1);
    abort.abort(new Error('enough'));
    await assert.rejects(query, /enough/);
    await eventually('the query has ended', running, (rows) => rows.length === 0);
  });

  test('a question on a connection that the server has just closed is asked again', async () => {
    const { hostname, port } = new URL(clickhouse.url);
    let closedCount = 0;
    // Closes each connection when a second question comes on it.
    const proxy = createServer((client) => {
      const server = connect(Number(port), hostname);
      let answered = false;
      server.on('data', (chunk) => {
        answered = true;
        client.write(chunk);
      });
      client.on('data', (chunk) => {
        if (!answered) server.write(chunk);
        else {
          closedCount++;
          client.destroy();
          server.destroy();
        }
      });
      for (const socket of [client, server]) socket.on('error', () => socket.destroy());
    });
    await once(proxy.listen(0, '127.0.0.1'), 'listening');
    const at = proxy.address();
    assert.ok(at !== null && typeof at === 'object');
    const store = openStore({ ...clickhouse.config('default'), url: `http://127.0.0.1:${at.port}` }, { log });
    try {
      for (let i = 0; i < 6; i++)
        assert.deepEqual(await store.query(`SELECT toUInt8(${i}) AS x`), [{ x: i }]);
      assert.ok(closedCount > 0);
    } finally {
      await store.close();
      proxy.close();
    }
  });

  test('values are bound to placeholders, and 64-bit integers arrive whole', async () => {
    const store = await openMigrated('bound');
    const rows = await store.query('SELECT {a:String} AS a, {b:UInt64} AS b, {c:Array(String)} AS c', {
      a: "it's; --",
      b: '18446744073709551615',
      c: ["x'"],
    });
    assert.deepEqual(rows, [{ a: "it's; --", b: '18446744073709551615', c: ["x'"] }]);
  });
});

describe('a token', () => {
  const day = 86_400;
  const begin = 1_767_225_600;

  /** Two flows on each of two days, of one edge; `bytes` tells one data from another. */
  function block(bytes: bigint) {
    const times = [begin + 10, begin + 50, begin + day + 10, begin + day + 3_700];
    const count = times.length;
    const ip = new Uint8Array(Buffer.from('00000000000000000000ffff0a000001'.repeat(count), 'hex'));
    return encodeNativeBlock(count, [
      { name: 'time', type: 'DateTime', data: Uint32Array.from(times) },
      { name: 'src_ip', type: 'IPv6', data: ip },
      { name: 'dst_ip', type: 'IPv6', data: ip },
      { name: 'src_workload', type: 'UInt64', data: new BigUint64Array(count).fill(7n) },
      { name: 'dst_identity', type: 'UInt64', data: new BigUint64Array(count).fill(5n) },
      { name: 'connections', type: 'UInt32', data: new Uint32Array(count).fill(1) },
      { name: 'bytes_forward', type: 'UInt64', data: new BigUint64Array(count).fill(bytes) },
    ]);
  }

  const counted = `SELECT
    (SELECT count() FROM flows) AS flows,
    (SELECT sum(flows) FROM edges_1m) AS minute_flows, (SELECT sum(bytes_forward) FROM edges_1m) AS minute_bytes,
    (SELECT sum(flows) FROM edges_1h) AS hour_flows, (SELECT sum(bytes_forward) FROM edges_1h) AS hour_bytes`;
  const sums = (flows: number, bytes: number) => [
    {
      flows: String(flows),
      minute_flows: String(flows),
      minute_bytes: String(bytes),
      hour_flows: String(flows),
      hour_bytes: String(bytes),
    },
  ];

  test('counts once in flows and in every rollup, over two days, though the data of the repeat differs', async () => {
    const store = await openMigrated('tokens');
    await store.insertBlock('flows', block(100n), 'flows-0-1-9');
    assert.deepEqual(await store.query(counted), sums(4, 400));
    await store.insertBlock('flows', block(100n), 'flows-0-1-9');
    await store.insertBlock('flows', block(777n), 'flows-0-1-9');
    assert.deepEqual(await store.query(counted), sums(4, 400));
    await store.insertBlock('flows', block(100n), 'flows-0-10-19');
    assert.deepEqual(await store.query(counted), sums(8, 800));
  });

  test('rollups hold the minute and the hour, the address only where no workload is known', async () => {
    const store = await openMigrated('rollups');
    await store.insertBlock('flows', block(1n), 'a');
    const select = (table: string) =>
      store.query(`SELECT time, toString(src_ip) AS src_ip, toString(dst_ip) AS dst_ip, sum(flows) AS flows
        FROM ${table} GROUP BY ALL ORDER BY time`);
    const ends = { src_ip: '::', dst_ip: '::ffff:10.0.0.1' };
    assert.deepEqual(await select('edges_1m'), [
      { time: '2026-01-01 00:00:00', ...ends, flows: '2' },
      { time: '2026-01-02 00:00:00', ...ends, flows: '1' },
      { time: '2026-01-02 01:01:00', ...ends, flows: '1' },
    ]);
    assert.deepEqual(await select('edges_1h'), [
      { time: '2026-01-01 00:00:00', ...ends, flows: '2' },
      { time: '2026-01-02 00:00:00', ...ends, flows: '1' },
      { time: '2026-01-02 01:00:00', ...ends, flows: '1' },
    ]);
    assert.deepEqual(
      await store.query('SELECT min(first_seen) AS first_seen, max(last_seen) AS last_seen FROM edges_seen'),
      [{ first_seen: '2026-01-01 00:00:10', last_seen: '2026-01-02 01:01:40' }],
    );
  });

  test('a first sight keeps its moment when its block is repeated', async () => {
    const store = await openMigrated('seen');
    const seen = () =>
      store.query<{ rows: string; written: string }>(
        'SELECT count() AS rows, toString(min(first_written)) AS written FROM edges_seen',
      );
    await store.insertBlock('flows', block(1n), 'a');
    const first = await seen();
    await store.insertBlock('flows', block(1n), 'a');
    assert.deepEqual(await seen(), first);
  });

  test('rows without a token are added each time, though equal', async () => {
    const store = await openMigrated('untold');
    for (let i = 0; i < 2; i++) await store.insertRows('flows', [flowRow({})]);
    for (let i = 0; i < 2; i++) await store.insertRows('flows', [flowRow({})], 'told');
    assert.deepEqual(await store.query('SELECT count() AS n FROM flows'), [{ n: '3' }]);
  });
});

describe('the views', () => {
  let store: Store;
  let reader: Store;

  before(async () => {
    // The reader may read the database that the server was started for.
    store = await openMigrated('eastwest');
    reader = open('eastwest', openReaderStore);
    const labels = { label_keys: ['criticality', 'team'], label_values: ['Critical', 'core'] };
    const pod = {
      kind: 'pod',
      cluster: 'north',
      namespace: 'shop',
      zone: 'inside',
      app: 'shop',
      env: 'prod',
      role: 'web',
    };
    await store.insertRows('identities', [
      { id: '1', ...pod },
      { id: '2', ...pod, cluster: 'south', app: 'pay' },
      { id: '3', kind: 'vm', zone: 'inside', app: 'mainframe', loc: 'dc1', ...labels },
      { id: '4', kind: 'range', name: 'internet', zone: 'outside' },
      { id: '5', kind: 'host', zone: 'inside', app: 'backup' },
    ]);
    const interval = { node: 'n1', network: 'north', valid_from: '2026-01-01 00:00:00' };
    await store.insertRows('workloads', [
      {
        id: '11',
        name: 'shop-1',
        identity: '1',
        ip: '::ffff:10.0.0.1',
        valid_to: '2100-01-01 00:00:00',
        ...interval,
      },
      {
        id: '12',
        name: 'gone',
        identity: '1',
        ip: '::ffff:10.0.0.9',
        valid_to: '2026-01-02 00:00:00',
        ...interval,
      },
    ]);
    await store.insertRows('rules', [
      { id: '21', policy: 3, ruleset: 'base', name: 'web', applied: '2026-01-01 00:00:00' },
    ]);
    const from = { src_workload: '11', src_identity: '1', verdict: 'unexplained', reason: 'no-rule' };
    await store.insertRows('flows', [
      flowRow({
        ...from,
        dst_port: 1,
        dst_identity: '1',
        verdict: 'allowed',
        reason: 'rule',
        rule: '21',
        policy: 3,
      }),
      flowRow({ ...from, dst_port: 2, dst_identity: '2' }),
      flowRow({ ...from, dst_port: 3, dst_identity: '3' }),
      flowRow({
        ...from,
        dst_port: 4,
        dst_identity: '4',
        dst_ip: '2001:db8::1',
        connections: 3,
        bytes_forward: 10,
      }),
      flowRow({
        ...from,
        dst_port: 4,
        dst_identity: '4',
        dst_ip: '2001:db8::1',
        connections: 2,
        side: 'destination',
        time: 1_767_261_670,
      }),
      flowRow({ ...from, dst_port: 5, dst_identity: '5', protocol: 17 }),
      flowRow({ ...from, dst_port: 6, src_workload: '0', src_identity: '4', dst_identity: '5' }),
      flowRow({
        ...from,
        dst_port: 7,
        dst_identity: '1',
        original_dst_ip: '::ffff:172.20.0.10',
        original_dst_port: 80,
      }),
    ]);
    await eventually(
      'the dictionaries have the labels',
      () =>
        reader.query<{ src_name: string; src_app: string; rule: string }>(
          'SELECT * FROM flows_labeled WHERE dst_port = 1',
        ),
      ([row]) => row?.src_name === 'shop-1' && row.src_app === 'shop' && row.rule === 'base/web',
    );
  });

  test('flows_labeled names both ends, the rule, and addresses as people write them', async () => {
    const [row] = await reader.query(
      `SELECT time, src_ip, dst_ip, protocol, src_name, src_kind, src_role, src_env, src_namespace, src_cluster, dst_name,
        rule, policy, verdict, reason, original_dst_ip, severity FROM flows_labeled WHERE dst_port = 1`,
    );
    assert.deepEqual(row, {
      ...{
        time: '2026-01-01 10:00:00',
        src_ip: '10.0.0.1',
        dst_ip: '10.0.0.2',
        protocol: 'tcp',
        src_name: 'shop-1',
      },
      ...{ src_kind: 'pod', src_role: 'web', src_env: 'prod', src_namespace: 'shop', src_cluster: 'north' },
      ...{
        dst_name: '',
        rule: 'base/web',
        policy: 3,
        verdict: 'allowed',
        reason: 'rule',
        original_dst_ip: '',
        severity: '',
      },
    });
    assert.deepEqual(
      await reader.query(
        'SELECT dst_ip, dst_name, original_dst_ip, original_dst_port, rule FROM flows_labeled WHERE dst_port IN (4, 7) AND side = {side:String} ORDER BY dst_port',
        { side: 'source' },
      ),
      [
        { dst_ip: '2001:db8::1', dst_name: 'internet', original_dst_ip: '', original_dst_port: 0, rule: '' },
        { dst_ip: '10.0.0.2', dst_name: '', original_dst_ip: '172.20.0.10', original_dst_port: 80, rule: '' },
      ],
    );
    assert.deepEqual(await reader.query('SELECT dst_labels FROM flows_labeled WHERE dst_port = 3'), [
      { dst_labels: { criticality: 'Critical', team: 'core' } },
    ]);
  });

  test('direction and severity say what is crossed and how bad it is', async () => {
    const expected = [
      [1, 'internal', ''],
      [2, 'cross-cluster', 'medium'],
      [3, 'datacentre', 'critical'],
      [4, 'leaves-estate', 'high'],
      [5, 'datacentre', 'medium'],
      [6, 'enters-estate', 'medium'],
      [7, 'internal', 'low'],
    ];
    for (const view of ['flows_labeled', 'edges_labeled']) {
      const rows = await reader.query<{ dst_port: number; direction: string; severity: string }>(
        `SELECT DISTINCT dst_port, direction, severity FROM ${view} ORDER BY dst_port`,
      );
      assert.deepEqual(
        rows.map((row) => [row.dst_port, row.direction, row.severity]),
        expected,
        view,
      );
    }
  });

  test('unknown_connections merges the sides by the larger sum, with first and last sight', async () => {
    const rows = await reader.query<{ dst_port: number }>(
      'SELECT * FROM unknown_connections ORDER BY dst_port',
    );
    assert.deepEqual(
      rows.map((row) => row.dst_port),
      [2, 3, 4, 5, 6, 7],
    );
    const [row] = await reader.query(
      `SELECT first_seen, last_seen, src_app, src_ip, dst_ip, dst_name, reason, severity, sides, connections, bytes
       FROM unknown_connections WHERE dst_port = 4`,
    );
    assert.deepEqual(row, {
      ...{ first_seen: '2026-01-01 10:00:00', last_seen: '2026-01-01 10:01:10', src_app: 'shop', src_ip: '' },
      ...{ dst_ip: '2001:db8::1', dst_name: 'internet', reason: 'no-rule', severity: 'high' },
      ...{ sides: ['destination', 'source'], connections: '3', bytes: '10' },
    });
  });

  test('workloads_current has who is there now', async () => {
    assert.deepEqual(await reader.query('SELECT name, ip FROM workloads_current'), [
      { name: 'shop-1', ip: '10.0.0.1' },
    ]);
    assert.deepEqual(await reader.query('SELECT count() AS n FROM identities_current'), [{ n: '5' }]);
  });

  test('a query looks up only what it uses', async () => {
    const lookups = async (sql: string) =>
      (await store.query<{ explain: string }>(`EXPLAIN actions = 1 ${sql}`)).filter((row) =>
        /dictGet/.test(row.explain),
      );
    assert.deepEqual(await lookups('SELECT dst_port, sum(bytes) FROM flows_labeled GROUP BY dst_port'), []);
    const used = await lookups('SELECT dst_app, count() FROM flows_labeled GROUP BY dst_app');
    assert.ok(used.length > 0);
    assert.ok(used.every((row) => row.explain.includes("'app'") && !row.explain.includes('src_identity')));
  });

  test('a label that is new is seen without a restart', async () => {
    await store.insertRows('identities', [{ id: '6', kind: 'vm', zone: 'inside', app: 'newcomer' }]);
    await store.insertRows('flows', [flowRow({ dst_port: 8, dst_identity: '6', verdict: 'allowed' })]);
    await eventually(
      'the new label',
      () => reader.query<{ dst_app: string }>('SELECT dst_app FROM flows_labeled WHERE dst_port = 8'),
      ([row]) => row?.dst_app === 'newcomer',
    );
  });

  const forbidden = [
    'INSERT INTO flows (dst_port) VALUES (1)',
    'DROP TABLE flows',
    'TRUNCATE TABLE flows',
    'ALTER TABLE flows DELETE WHERE 1',
    'CREATE TABLE mine (a Int8) ENGINE = Memory',
    'CREATE TEMPORARY TABLE mine (a Int8)',
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT file('/etc/passwd')",
    "SELECT file('/proc/1/environ')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT 1 INTO OUTFILE 'x.csv'",
    'SELECT 1 SETTINGS max_memory_usage = 0',
    'SET readonly = 0',
    'SYSTEM SHUTDOWN',
    'SYSTEM RELOAD DICTIONARIES',
    'KILL QUERY WHERE 1',
    'SELECT * FROM system.users',
    'SELECT * FROM system.query_log',
    'SELECT count() FROM numbers(100000000000)',
  ];
  for (const sql of forbidden) {
    test(`the reader is refused: ${sql}`, async () => {
      // The log is a table only once something was written to it.
      if (sql.includes('query_log')) {
        await fetch(`${clickhouse.url}/`, { method: 'POST', body: 'SYSTEM FLUSH LOGS' });
      }
      // Without the client, which would add a FORMAT and be refused for that.
      const response = await fetch(`${clickhouse.url}/?user=reader&database=eastwest`, {
        method: 'POST',
        body: sql,
      });
      const answer = await response.text();
      assert.notEqual(response.status, 200, answer);
      assert.match(answer, /ACCESS_DENIED|READONLY|INTO_OUTFILE_NOT_ALLOWED|Permission denied|TOO_MANY_ROWS/);
    });
  }
});

describe('the embedded server', () => {
  async function inFolder(work: (dataDir: string) => Promise<void>): Promise<void> {
    const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-store-'));
    try {
      await work(dataDir);
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  }
  const memoryBytes = 1024 ** 3;

  test('has every acknowledged row, and knows every token, after kill -9', async () => {
    const own = await startClickHouse();
    const store = openStore(own.config(), { log });
    try {
      await migrate(store, { log });
      const block = encodeNativeBlock(2, [
        { name: 'time', type: 'DateTime', data: Uint32Array.of(1_767_261_600, 1_767_361_600) },
      ]);
      await store.insertBlock('flows', block, 'a');
      await own.kill();
      await assert.rejects(store.query('SELECT 1'), StoreUnavailableError);
      await assert.rejects(store.insertBlock('flows', block, 'b'), StoreUnavailableError);
      await own.start();
      await store.insertBlock('flows', block, 'a');
      const counts = () =>
        store.query(
          'SELECT (SELECT count() FROM flows) AS flows, (SELECT sum(flows) FROM edges_1h) AS hour_flows',
        );
      assert.deepEqual(await counts(), [{ flows: '2', hour_flows: '2' }]);
      await store.insertBlock('flows', block, 'b');
      assert.deepEqual(await counts(), [{ flows: '4', hour_flows: '4' }]);
    } finally {
      await store.close();
      await own.stop();
    }
  });

  test('a second one on the same folder is refused, naming the folder and the first', async () => {
    const options = { dataDir: clickhouse.dataDir, httpPort: 0, tcpPort: 0, memoryBytes, log };
    await assert.rejects(startEmbeddedServer(options), (error: Error) => {
      assert.match(
        error.message,
        new RegExp(`another Eastwest \\(process ${clickhouse.pid}, since .*\\) holds the data folder`),
      );
      assert.ok(error.message.includes(clickhouse.dataDir));
      return true;
    });
  });

  test('a port in use is said, with the setting that changes it', async () => {
    const occupant = createServer();
    occupant.listen(0, '127.0.0.1');
    await once(occupant, 'listening');
    const address = occupant.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    try {
      await inFolder(async (dataDir) => {
        const start = (ports: { httpPort: number; tcpPort: number }) =>
          startEmbeddedServer({ dataDir, ...ports, memoryBytes, log });
        await assert.rejects(
          start({ httpPort: port, tcpPort: 0 }),
          new RegExp(`port ${port} .*store\\.embedded\\.httpPort`),
        );
        await assert.rejects(
          start({ httpPort: 0, tcpPort: port }),
          new RegExp(`port ${port} .*store\\.embedded\\.tcpPort`),
        );
      });
    } finally {
      occupant.close();
    }
  });

  test('ends when the process that started it is killed, and leaves the folder free', async () => {
    await inFolder(async (dataDir) => {
      const program = `
        import { startEmbeddedServer } from '${new URL('../lib/store/embedded/server.ts', import.meta.url).href}';
        const log = { info() {}, warn() {} };
        const server = await startEmbeddedServer({ dataDir: ${JSON.stringify(dataDir)}, httpPort: 0, tcpPort: 0, memoryBytes: ${memoryBytes}, log });
        console.log(server.pid);
        setInterval(() => {}, 1000);`;
      const parent = spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [line] = await once(parent.stdout, 'data');
      const pid = Number(String(line));
      assert.ok(pid > 0);
      parent.kill('SIGKILL');
      const isThere = async (): Promise<boolean> => {
        try {
          return process.kill(pid, 0);
        } catch {
          return false;
        }
      };
      await eventually('the server is gone', isThere, (there) => !there);
      const next = await startEmbeddedServer({ dataDir, httpPort: 0, tcpPort: 0, memoryBytes, log });
      await next.stop();
      assert.match(await next.exited, /exit code 0/);
    });
  });
});
