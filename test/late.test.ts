/** Flows that came before their inventory: written once, repaired once, and every rollup equal to the flows themselves. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import { type Migration, migrate, readMigrations } from '../lib/store/migrate.ts';
import { encodeNativeBlock } from '../lib/store/native.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { applyRepair, closeLateRows, offerLateRows, offerRepair } from '../services/enrich/late.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { type LateRow, lateRow, repairOf } from './support/late-rows.ts';

const log = pino({ level: 'silent' });
let clickhouse: TestClickHouse;
const opened: Store[] = [];

async function openMigrated(database: string, migrations?: readonly Migration[]): Promise<Store> {
  const store = openStore(clickhouse.config(database), { log });
  opened.push(store);
  await migrate(store, migrations === undefined ? { log } : { log, migrations });
  return store;
}

before(async () => {
  clickhouse = await startClickHouse();
});

after(async () => {
  await Promise.all(opened.map((store) => store.close()));
  await clickhouse.stop();
});

const sums = ['connections', 'bytes_forward', 'bytes_reverse', 'packets_forward', 'packets_reverse'];
const edge = 'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict';
const tables = ['flows', 'flows_late', 'edges_1m', 'edges_1h', 'edges_seen', 'naming_1m'];

/** A rollup as readers read it, beside the same from `flows_all`. First and last sight of what is pending are bounds only. */
function comparisons(withPendingSight: boolean): Readonly<Record<string, readonly [string, string]>> {
  const sight = (first: string, last: string): string =>
    withPendingSight
      ? `min(${first}) AS first, max(${last}) AS last`
      : `if(pending = 1, toDateTime(0), min(${first})) AS first, if(pending = 1, toDateTime(0), max(${last})) AS last`;
  const raw = `(SELECT * EXCEPT (src_ip, dst_ip), if(src_workload = 0, src_ip, toIPv6('::')) AS src_ip,
    if(dst_workload = 0, dst_ip, toIPv6('::')) AS dst_ip FROM (SELECT * FROM flows_all))`;
  const summed = sums.map((column) => `sum(${column}) AS s_${column}`).join(', ');
  const edges = (step: 'Minute' | 'Hour', table: string): readonly [string, string] => [
    `SELECT time AS slot, ${edge}, reason, rule, side, pending, sum(flows) AS n, ${summed}, ${sight('first_seen', 'last_seen')}
     FROM ${table} GROUP BY ALL HAVING n != 0 ORDER BY ALL`,
    `SELECT toStartOf${step}(time) AS slot, ${edge}, reason, rule, side, pending, count() AS n, ${summed}, ${sight('time', 'time')}
     FROM ${raw} GROUP BY ALL ORDER BY ALL`,
  ];
  return {
    edges_1m: edges('Minute', 'edges_1m'),
    edges_1h: edges('Hour', 'edges_1h'),
    edges_seen: [
      `SELECT ${edge}, pending, sum(flows) AS n, ${sight('first_seen', 'last_seen')} FROM edges_seen GROUP BY ALL HAVING n != 0 ORDER BY ALL`,
      `SELECT ${edge}, pending, count() AS n, ${sight('time', 'time')} FROM ${raw} GROUP BY ALL ORDER BY ALL`,
    ],
    naming_1m: [
      `SELECT time AS slot, pending, src_provenance, src_certainty, dst_provenance, dst_certainty, sum(flows) AS n
       FROM naming_1m GROUP BY ALL HAVING n != 0 ORDER BY ALL`,
      `SELECT toStartOfMinute(time) AS slot, pending, src_provenance, src_certainty, dst_provenance, dst_certainty, count() AS n
       FROM flows_all GROUP BY ALL ORDER BY ALL`,
    ],
  };
}

async function assertEqualToFlows(store: Store, when: string, withPendingSight = false): Promise<void> {
  for (const [table, [rolled, counted]] of Object.entries(comparisons(withPendingSight))) {
    assert.deepEqual(await store.query(rolled), await store.query(counted), `${table} ${when}`);
  }
}

describe('flows that came before their inventory', () => {
  const day = 86_400;
  const begin = 1_767_225_600;
  const arbitraryRow = fc.record({
    // Two days, few minutes and hours, so that rows meet in groups.
    time: fc
      .tuple(fc.nat(1), fc.nat(1), fc.nat(1), fc.nat(59))
      .map(([days, hours, minutes, seconds]) => begin + days * day + hours * 3600 + minutes * 60 + seconds),
    source: fc.nat(2),
    workload: fc.nat(1),
    side: fc.constantFrom('source', 'destination'),
    verdict: fc.constantFrom('unexplained', 'allowed'),
    bytes: fc.nat(100_000),
    certainty: fc.constantFrom('late', 'none'),
    late: fc.boolean(),
    /** What the repair finds. */
    found: fc.nat(2),
    judged: fc.constantFrom('unexplained', 'denied'),
    sure: fc.constantFrom('exact', 'ambiguous', 'none'),
    /** In which of two repairs. */
    second: fc.boolean(),
  });

  test('are in every rollup what they are in flows_all: before, between and after repairs, merged or not', async () => {
    const store = await openMigrated('repairs');
    await fc.assert(
      fc.asyncProperty(
        fc.array(arbitraryRow, { minLength: 1, maxLength: 60 }),
        fc.boolean(),
        async (rows, merged) => {
          for (const table of tables) await store.command(`TRUNCATE TABLE ${table}`);
          const merge = async (): Promise<void> => {
            if (merged) for (const table of tables) await store.command(`OPTIMIZE TABLE ${table} FINAL`);
          };
          const all = rows.map((row, index) => ({ row, stored: lateRow(row, index) }));
          const settled = all.filter(({ row }) => !row.late).map(({ stored }) => stored);
          const late = all.filter(({ row }) => row.late);
          // Each insert twice: the token makes it one.
          const insertTwice = async (
            table: string,
            some: readonly LateRow[],
            token: string,
          ): Promise<void> => {
            if (some.length === 0) return;
            for (let i = 0; i < 2; i++) await store.insertRows(table, some, token);
          };
          const columns = (row: LateRow): LateRow => {
            const {
              start_ms: _s,
              tolerance_ms: _t,
              network: _n,
              bus_partition: _p,
              block: _b,
              row: _r,
              pass: _a,
              version: _v,
              sign: _g,
              pending: _w,
              ...flow
            } = row;
            return flow;
          };
          await insertTwice('flows', settled.map(columns), 'settled');
          await insertTwice(
            'flows_late',
            late.map(({ stored }) => stored),
            'late',
          );
          assert.deepEqual(await store.query('SELECT count() AS n, sum(pending) AS open FROM flows_all'), [
            { n: String(rows.length), open: String(late.length) },
          ]);
          await assertEqualToFlows(store, 'before the repair', true);
          await merge();
          for (const second of [false, true]) {
            const due = late.filter(({ row }) => row.second === second);
            await insertTwice(
              'flows_late',
              due.flatMap(({ row, stored }) => repairOf(stored, row)),
              `repair-${second}`,
            );
            await assertEqualToFlows(store, second ? 'after the repair' : 'between repairs', second);
            await merge();
            await assertEqualToFlows(store, 'after a merge', second);
          }
          assert.deepEqual(await store.query('SELECT count() AS n, sum(pending) AS open FROM flows_all'), [
            { n: String(rows.length), open: '0' },
          ]);
        },
      ),
      { numRuns: 12 },
    );
  });

  test('are repaired once, by one of two enrichers that do it differently at the same moment', async () => {
    const store = await openMigrated('contests');
    const rounds = 40;
    const base = {
      time: begin,
      workload: 1,
      side: 'source',
      verdict: 'unexplained',
      bytes: 10,
      certainty: 'late',
    };
    const rows = Array.from({ length: rounds * 20 }, (_, index) => lateRow({ ...base, source: 0 }, index));
    await store.insertRows('flows_late', rows, 'first');
    for (let round = 0; round < rounds; round++) {
      const pass = round + 2;
      const due = rows.slice(round * 20, round * 20 + 20);
      const repair = (found: number, count: number): Promise<void> => {
        const changes = due
          .slice(0, count)
          .flatMap((row) => repairOf(row, { found, judged: 'denied', sure: 'exact' }));
        return offerRepair(
          store,
          0,
          pass,
          changes.map((row) => ({ ...row, pass })),
        );
      };
      await Promise.all([repair(1, 20), repair(2, 13)]);
    }
    await assertEqualToFlows(store, 'after contests', true);
    const [counts] = await store.query<{ n: string; open: string }>(
      'SELECT count() AS n, sum(pending) AS open FROM flows_all',
    );
    assert.equal(counts?.n, String(rows.length));
    assert.equal(Number(counts?.open) % 7, 0);
    // Whoever comes when it is all over finds it done.
    await applyRepair(store, 0, 2);
    await offerRepair(store, 0, 3, [{ ...rows[0], pass: 3 }]);
    await assertEqualToFlows(store, 'after the contests are over', true);
  });

  test('are late for everybody or for nobody, whoever says it first', async () => {
    const store = await openMigrated('splits');
    for (let block = 0; block < 40; block++) {
      const at = { topic: 'flows', partition: 0 };
      const plan = { from: block, to: block };
      const count = 20;
      const late = encodeNativeBlock(count, [
        { name: 'time', type: 'DateTime', data: new Uint32Array(count).fill(begin) },
        { name: 'bus_partition', type: 'UInt32', data: new Uint32Array(count) },
        { name: 'block', type: 'UInt64', data: new BigUint64Array(count).fill(BigInt(block)) },
        { name: 'row', type: 'UInt32', data: Uint32Array.from({ length: count }, (_, row) => row) },
        { name: 'pass', type: 'UInt32', data: new Uint32Array(count).fill(1) },
        { name: 'version', type: 'UInt32', data: new Uint32Array(count).fill(1) },
        { name: 'sign', type: 'Int8', data: new Int8Array(count).fill(1) },
        { name: 'pending', type: 'UInt8', data: new Uint8Array(count).fill(1) },
      ]);
      const [offered, closed] = await Promise.all([
        offerLateRows(store, at, plan, late),
        closeLateRows(store, at, plan, begin * 1000),
      ]);
      assert.deepEqual(offered, closed);
    }
    await assertEqualToFlows(store, 'after all', true);
  });

  test('are in the views under their newest name only, and nothing that was cancelled is left', async () => {
    const store = await openMigrated('views');
    await store.insertRows('identities', [
      { id: '1', kind: 'unknown' },
      { id: '2', kind: 'pod', app: 'pay', zone: 'inside' },
      { id: '9', kind: 'pod', app: 'ledger', zone: 'inside' },
    ]);
    const base = {
      time: begin,
      workload: 1,
      side: 'source',
      verdict: 'unexplained',
      bytes: 10,
      certainty: 'late',
    };
    const row = lateRow({ ...base, source: 0 }, 0);
    await store.insertRows('flows_late', [row], 'a');
    const count = async (view: string): Promise<unknown> =>
      (await store.query(`SELECT src_identity, pending FROM ${view}`)).sort();
    for (const view of ['flows_labeled', 'edges_labeled', 'unknown_connections']) {
      assert.deepEqual(await count(view), [{ src_identity: row.src_identity, pending: 1 }], view);
    }
    await store.insertRows(
      'flows_late',
      repairOf(row, { found: 1, judged: 'unexplained', sure: 'exact' }),
      'b',
    );
    for (const view of ['flows_labeled', 'edges_labeled', 'unknown_connections']) {
      assert.deepEqual(await count(view), [{ src_identity: '2', pending: 0 }], view);
    }
    // Settled rows leave as well when history gets other labels: what is taken from a rollup is in no view.
    await store.command(
      `INSERT INTO edges_1m (time, src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side, pending, flows)
       SELECT time, src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side, pending, toUInt64(-toInt64(sum(flows)))
       FROM edges_1m GROUP BY ALL`,
    );
    assert.deepEqual(await count('edges_labeled'), []);
  });

  test('the columns of flows are all in flows_late, of the same types and in the same order', async () => {
    const store = await openMigrated('columns');
    const columns = (table: string): Promise<{ name: string; type: string }[]> =>
      store.query(
        'SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} ORDER BY position',
        { table },
      );
    const flows = await columns('flows');
    assert.deepEqual((await columns('flows_late')).slice(0, flows.length), flows);
    assert.deepEqual(await columns('flows_all'), [...flows, { name: 'pending', type: 'UInt8' }]);
  });

  test('a question narrows both branches of flows_all, and merges versions of the late ones alone', async () => {
    const store = await openMigrated('pushed');
    const row = lateRow(
      {
        time: begin,
        source: 0,
        workload: 1,
        side: 'source',
        verdict: 'allowed',
        bytes: 1,
        certainty: 'late',
      },
      0,
    );
    await store.insertRows('flows_late', [row], 'a');
    await store.insertRows('flows', [{ time: begin, dst_identity: '5' }], 'a');
    const plan = await store.query<{ explain: string }>(
      `EXPLAIN actions = 1, indexes = 1 SELECT count() FROM flows_labeled WHERE dst_identity = 5 AND time >= toDateTime(${begin})`,
    );
    const text = plan.map((line) => line.explain).join('\n');
    const [settled = '', late = ''] = text.split(/(?=ReadFromMergeTree \(\w+\.flows_late\))/);
    assert.match(settled, /ReadFromMergeTree \(\w+\.flows\)/);
    assert.match(settled, /PrimaryKey[\s\S]*Condition: .*dst_identity in \[5, 5\]/);
    assert.doesNotMatch(settled, /FINAL/i);
    assert.match(late, /Partition[\s\S]*Condition: .*toYYYYMMDD\(time\)/);
  });
});

describe('a database of an earlier version', () => {
  /** What 003 was, as far as it matters: it is recorded, and its views stand in the way of nothing. */
  const former: Migration = {
    name: '003-views',
    sql: 'CREATE OR REPLACE VIEW flows_labeled AS SELECT time, dst_port FROM flows; CREATE OR REPLACE VIEW unknown_connections AS SELECT * FROM edges_seen',
  };
  const earlier = [...readMigrations().filter(({ name }) => name < '003'), former];
  const row = { time: 1_767_261_600, dst_identity: '5', connections: 2, verdict: 'unexplained' };

  test('goes on: its rows are in every answer, and a block it has already is still taken once, after a restart too', async () => {
    const own = await startClickHouse();
    const store = openStore(own.config('old'), { log });
    try {
      await migrate(store, { log, migrations: earlier });
      await store.insertRows('flows', [row], 'block');
      const { applied } = await migrate(store, { log });
      assert.deepEqual(
        applied,
        readMigrations()
          .map(({ name }) => name)
          .filter((name) => name > '003'),
      );
      assert.deepEqual(await migrate(store, { log }), { applied: [], retained: [] });
      const counts = (): Promise<unknown[]> =>
        store.query(`SELECT (SELECT count() FROM flows_all) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes,
          (SELECT sum(flows) FROM edges_1h) AS hours, (SELECT sum(flows) FROM edges_seen) AS seen,
          (SELECT sum(connections) FROM unknown_connections) AS connections`);
      const once = [{ raw: '1', minutes: '1', hours: '1', seen: '1', connections: '2' }];
      assert.deepEqual(await counts(), once);
      await store.insertRows('flows', [row], 'block');
      assert.deepEqual(await counts(), once);
      await store.insertRows('flows', [row], 'next');
      const twice = [{ raw: '2', minutes: '2', hours: '2', seen: '2', connections: '4' }];
      assert.deepEqual(await counts(), twice);
      await own.kill();
      await own.start();
      for (const token of ['block', 'next']) await store.insertRows('flows', [row], token);
      assert.deepEqual(await counts(), twice);
    } finally {
      await store.close();
      await own.stop();
    }
  });

  test('takes up what others left half done', async () => {
    const store = await openMigrated('halfway', earlier);
    const [, late] = readMigrations().filter(({ name }) => name >= '002');
    const cut = late?.sql.indexOf('RENAME TABLE edges_1h_view_renamed TO') ?? -1;
    assert.ok(cut > 0);
    const { splitStatements } = await import('../lib/store/statements.ts');
    for (const statement of splitStatements(late?.sql.slice(0, cut) ?? '')) await store.command(statement);
    await migrate(store, { log });
    await store.insertRows('flows', [row], 'block');
    assert.deepEqual(await store.query('SELECT sum(flows) AS n FROM edges_1h'), [{ n: '1' }]);
  });

  test('gets its views again when their text changed, and only then', async () => {
    const views = (sql: string): Migration[] => [
      { name: '001-a', sql: 'CREATE TABLE IF NOT EXISTS a (x Int8) ENGINE = Memory' },
      { name: 'views', sql },
    ];
    const first = views('CREATE OR REPLACE VIEW v AS SELECT 1 AS x');
    const store = await openMigrated('viewed', first);
    assert.deepEqual((await migrate(store, { log, migrations: first })).applied, []);
    const second = views('CREATE OR REPLACE VIEW v AS SELECT 2 AS x');
    assert.deepEqual((await migrate(store, { log, migrations: second })).applied, ['views']);
    assert.deepEqual(await store.query('SELECT x FROM v'), [{ x: 2 }]);
  });
});
