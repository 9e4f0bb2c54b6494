/** `eastwest relabel` on a real store: afterwards every row is what a fresh enrichment gives, whatever died meanwhile. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { workloadId } from '../lib/inventory/ids.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { relabel as relabelInProcess } from '../lib/relabel/relabel.ts';
import { openRun } from '../lib/relabel/runs.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { encodeFlowBatch, type FlowBatch } from '../lib/wire/flow-batch.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const program = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));
const busConfig = Parse(BusConfig, Default(BusConfig, {}));

/** Midnight (UTC) lies between the flows, so that two days are relabelled. Always the same, as the estate's life depends on it. */
const midnightMs = Date.UTC(2026, 1, 2);
const since = new Date(midnightMs - 15_000).toISOString();

const estate = makeEstate({
  seed: 'relabel',
  size: 'tiny',
  startMs: midnightMs - 30_000,
  flowsPerSecond: 400,
  intervalMs: 5000,
  churnPerMinute: 0.3,
  relabelsPerMinute: 0.3,
  indirectShare: 0.1,
});

/** The estate's life, known beforehand: the newest event of each entity, and the flows, in two portions. */
const life = (() => {
  const events = new Map<string, InventoryEvent>();
  const portions: FlowBatch[][] = [[], []];
  const keep = (event: InventoryEvent) => events.set(inventoryKey(event), event);
  for (const event of estate.inventory()) keep(event);
  for (let step = 0; step < 12; step++) {
    const { inventoryEvents, batches } = estate.step(estate.nowMs + 5000);
    for (const { event } of inventoryEvents) keep(event);
    portions[step < 10 ? 0 : 1]?.push(...batches);
  }
  return { events: [...events.values()], portions };
})();

function flowCountOf(batches: readonly FlowBatch[]): number {
  return batches.reduce((sum, { flows }) => sum + flows.length, 0);
}

/** The estate's policy, and one whose profiles and rules say something else about most of it. */
const first = estate.policy();
const second: PolicyDocument = {
  ...first,
  profiles: first.profiles.map((profile, i) => {
    const app = profile.assign?.app;
    return {
      ...profile,
      assign: {
        ...profile.assign,
        ...(app !== undefined && i % 2 === 0 ? { app: `${app}-renamed` } : {}),
        ...(i % 3 === 0 ? { wave: 'second' } : {}),
      },
    };
  }),
  rulesets: [
    ...first.rulesets.slice(0, -1),
    {
      name: 'by-address',
      rules: [
        {
          name: 'wave',
          from: [{ labels: { wave: 'second' } }],
          to: [{ cidr: '10.0.0.0/9' }],
          action: 'override-deny',
        },
      ],
    },
  ],
};

interface Pipeline {
  readonly folder: string;
  readonly bus: Bus;
  readonly store: Store;
  readonly enrich: ServiceProcess;
}

let clickhouse: TestClickHouse;
const pipelines: Pipeline[] = [];

async function append(bus: Bus, batches: readonly FlowBatch[]): Promise<void> {
  for (const batch of batches)
    await bus.append(topics.flows, [{ key: batch.agentId, value: encodeFlowBatch(batch) }]);
}

/** A pipeline with a database of its own, that knows the inventory and has always had the last of these policies in force. */
async function openPipeline(database: string, policies: readonly PolicyDocument[]): Promise<Pipeline> {
  const folder = await mkdtemp(join(tmpdir(), 'eastwest-relabel-'));
  const bus = await openBus(busConfig, { dataDir: folder, log, clientId: 'test' });
  const store = openStore(clickhouse.config(database), { log });
  await migrate(store, { log });
  await bus.ensureTopics(topicSpecs(busConfig));
  const inForce = {
    ...policies.at(-1),
    v: 1,
    version: policies.length,
    author: 'test',
    appliedMs: Date.now(),
  };
  await bus.append(topics.policy, [{ key: 'policy/made', value: Buffer.from(JSON.stringify(inForce)) }]);
  await bus.append(
    topics.inventory,
    life.events.map((event) => ({ key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)) })),
  );
  const enrich = await startService('enrich', {
    EASTWEST_RUNTIME_DATA_DIR: folder,
    EASTWEST_STORE_URL: clickhouse.url,
    EASTWEST_STORE_DATABASE: database,
    EASTWEST_ENRICH_LINGER_MS: '50',
    EASTWEST_ENRICH_MAX_BLOCK_ROWS: '1024',
    EASTWEST_ENRICH_MAX_AGE_MS: String(1000 * 86_400_000 * 100),
  });
  const pipeline = { folder, bus, store, enrich };
  pipelines.push(pipeline);
  return pipeline;
}

async function count(store: Store, table: string): Promise<number> {
  const [row] = await store.query<{ n: string }>(`SELECT count() AS n FROM ${table}`);
  return Number(row?.n);
}

async function allWritten({ store, enrich }: Pipeline, flows: number): Promise<void> {
  await until(
    'all flows are written',
    60_000,
    async () => (await count(store, 'flows_all')) >= flows,
    enrich.output,
  );
  assert.equal(await count(store, 'flows_all'), flows);
}

async function apply({ bus, enrich }: Pipeline, policy: PolicyDocument): Promise<number> {
  const { version } = await publishPolicy(bus, policy, 'test');
  await until(
    'the enricher has the policy',
    20_000,
    async () =>
      (await (await fetch(`${enrich.probes}/metrics`)).text()).includes(`policy_version ${version}\n`),
    enrich.output,
  );
  return version;
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command; `onStderr` may end it. */
function relabel(
  { folder, store }: Pipeline,
  more: readonly string[],
  failpoints = '',
  onStderr: (text: string, child: ChildProcess) => void = () => undefined,
): Promise<Ended> {
  const { promise, resolve } = Promise.withResolvers<Ended>();
  const env = {
    ...process.env,
    EASTWEST_STORE_URL: clickhouse.url,
    EASTWEST_STORE_DATABASE: store.config.database,
    EASTWEST_STORE_RETENTION_MINUTE_DAYS: String(store.config.retention.minuteDays),
    EASTWEST_STORE_RETENTION_HOUR_DAYS: String(store.config.retention.hourDays),
    ...(failpoints === '' ? {} : { EASTWEST_FAILPOINTS: failpoints }),
  };
  const args = ['--data-dir', folder, 'relabel', '--since', since, ...more];
  const child = execFile(process.execPath, [program, ...args], { env }, (error, stdout, stderr) => {
    const code = error === null ? 0 : typeof error.code === 'number' ? error.code : null;
    resolve({ code, stdout, stderr });
  });
  child.stderr?.on('data', (text) => onStderr(String(text), child));
  return promise;
}

const sums = ['connections', 'bytes_forward', 'bytes_reverse', 'packets_forward', 'packets_reverse'];

/** A rollup as readers read it, and the same from the rows themselves. */
function rollupQueries(table: 'edges_1m' | 'edges_1h'): readonly [rolled: string, counted: string] {
  const key = 'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule, side';
  const summed = sums.map((column) => `sum(${column}) AS s_${column}`).join(', ');
  const slot = table === 'edges_1m' ? 'toStartOfMinute(time)' : 'toStartOfHour(time)';
  return [
    `SELECT time AS slot, ${key}, sum(flows) AS n, ${summed} FROM ${table} GROUP BY ALL HAVING n != 0 ORDER BY ALL`,
    `SELECT ${slot} AS slot, ${key}, count() AS n, ${summed} FROM (
       SELECT * EXCEPT (src_ip, dst_ip), if(src_workload = 0, src_ip, toIPv6('::')) AS src_ip,
         if(dst_workload = 0, dst_ip, toIPv6('::')) AS dst_ip FROM (SELECT * FROM flows_all)
     ) GROUP BY ALL ORDER BY ALL`,
  ];
}

async function checkRollups(store: Store): Promise<void> {
  for (const table of ['edges_1m', 'edges_1h'] as const) {
    const [rolled, counted] = rollupQueries(table);
    assert.deepEqual(await store.query(rolled), await store.query(counted), table);
  }
  const key = 'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict';
  assert.deepEqual(
    await store.query(
      `SELECT ${key}, sum(flows) AS n FROM edges_seen GROUP BY ALL HAVING n != 0 ORDER BY ALL`,
    ),
    await store.query(`SELECT ${key}, sum(flows) AS n FROM edges_1h GROUP BY ALL HAVING n != 0 ORDER BY ALL`),
    'edges_seen',
  );
}

const rowColumns = `time, duration_ms, src_ip, src_port, dst_ip, dst_port, protocol, original_dst_ip, original_dst_port, src_workload,
  dst_workload, src_identity, dst_identity, src_provenance, src_certainty, dst_provenance, dst_certainty, side, state, action,
  flags, verdict, reason, rule, policy, bytes_forward, bytes_reverse, packets_forward, packets_reverse, connections, dns_name, agent`;

/** Rows from `since` on that one database has and the other has not. */
async function differences(a: Store, b: Store, columns = rowColumns): Promise<Record<string, unknown>[]> {
  const rows = (database: string, sign: number) =>
    `SELECT ${columns}, ${sign} AS s FROM ${database}.flows_all WHERE time >= parseDateTimeBestEffort('${since}')`;
  return a.query(
    `SELECT ${columns}, sum(s) AS n FROM (${rows(a.config.database, 1)} UNION ALL ${rows(b.config.database, -1)})
     GROUP BY ALL HAVING n != 0 ORDER BY src_port, dst_port, time LIMIT 20`,
  );
}

before(async () => {
  clickhouse = await startClickHouse();
});

after(async () => {
  for (const { folder, bus, store, enrich } of pipelines) {
    await enrich.stop();
    await bus.close();
    await store.close();
    await rm(folder, { recursive: true, force: true });
  }
  await clickhouse.stop();
});

test('every row is what a fresh enrichment gives, and rollups are what the rows are', async () => {
  const [early = [], late = []] = life.portions;
  const total = flowCountOf(early) + flowCountOf(late);
  const one = await openPipeline('one', [first]);
  await append(one.bus, early);
  await allWritten(one, flowCountOf(early));
  const version = await apply(one, second);

  const dry = await relabel(one, ['--dry-run', '--json']);
  assert.equal(dry.code, 0, dry.stderr);
  const planned = JSON.parse(dry.stdout);
  assert.equal(await count(one.store, `flows_all WHERE policy = ${version}`), 0, 'a dry run changed rows');

  // Flows go on arriving while it works.
  const [ended] = await Promise.all([relabel(one, ['--json']), append(one.bus, late)]);
  assert.equal(ended.code, 0, ended.stderr);
  const result = JSON.parse(ended.stdout);
  assert.equal(result.policy, version);
  assert.ok(
    planned.changed > 1000 && result.changed >= planned.changed,
    `${planned.changed} ${result.changed}`,
  );
  await allWritten(one, total);
  if (result.left > 0) assert.equal((await relabel(one, [])).code, 0);

  const fresh = await openPipeline('fresh', [first, second]);
  await append(fresh.bus, [...early, ...late]);
  await allWritten(fresh, total);
  assert.deepEqual(await differences(one.store, fresh.store), []);
  assert.equal(
    await count(one.store, `flows_all WHERE time < parseDateTimeBestEffort('${since}') AND policy = 1`),
    await count(fresh.store, `flows_all WHERE time < parseDateTimeBestEffort('${since}')`),
    'rows from before are as they were',
  );
  await checkRollups(one.store);
});

/** Each list is one change of policy: runs that die there, one after the other, before one is left alone. */
const deaths = [
  ['relabel.taken', 'relabel.built'],
  ['relabel.building', 'relabel.edges_1m'],
  ['relabel.replaced', 'relabel.edges_seen'],
  ['relabel.edges_1h', 'relabel.rolled'],
  ['relabel.returned'],
];

test('nothing is lost or doubled when it is killed, wherever, and the next run finishes it', async () => {
  const [one, fresh] = pipelines;
  assert.ok(one !== undefined && fresh !== undefined, 'the pipelines of the first test are there');
  const total = await count(fresh.store, 'flows_all');
  for (const [i, failpoints] of deaths.entries()) {
    const version = await apply(one, i % 2 === 0 ? first : second);
    for (const failpoint of failpoints) {
      const killed = await relabel(one, [], `${failpoint}=kill@1`);
      assert.equal(killed.code, null, `${failpoint} was not reached: ${killed.stderr}`);
      assert.equal(
        await count(one.store, 'flows_all'),
        total,
        `flows are there while it is down (${failpoint})`,
      );
    }
    const ended = await relabel(one, ['--json']);
    assert.equal(ended.code, 0, ended.stderr);
    assert.equal(JSON.parse(ended.stdout).left, 0);
    assert.equal(
      await count(
        one.store,
        `flows_all WHERE policy = ${version} AND time >= parseDateTimeBestEffort('${since}')`,
      ),
      await count(fresh.store, `flows_all WHERE time >= parseDateTimeBestEffort('${since}')`),
    );
    await checkRollups(one.store);
  }
  // In the middle of a statement, too: what it was doing may still be running when the next one begins.
  const version = await apply(one, second);
  const killed = await relabel(one, [], '', (text, child) => {
    if (text.includes('day 1 of 2')) child.kill('SIGKILL');
  });
  assert.equal(killed.code, null);
  assert.equal((await relabel(one, [])).code, 0);
  assert.equal((await count(one.store, `flows_all WHERE policy = ${version}`)) > 0, true);
  assert.deepEqual(await differences(one.store, fresh.store, rowColumns.replace('policy, ', '')), []);
  await checkRollups(one.store);
});

/** Workloads whose labels never changed, neither their own nor those of their namespace. */
function steadyWorkloads(): string[] {
  const moved = new Set(
    life.events.flatMap((event) =>
      event.type === 'namespace' && event.former !== undefined ? [`${event.cluster}/${event.name}`] : [],
    ),
  );
  return life.events.flatMap((event) =>
    event.type === 'workload' &&
    event.former === undefined &&
    !moved.has(`${event.cluster}/${event.namespace}`)
      ? [String(workloadId(event.cluster, event.kind, event.uid))]
      : [],
  );
}

test('flows that came before their inventory are relabelled where they are, those that wait for repair are not', async () => {
  const [one] = pipelines;
  assert.ok(one !== undefined, 'the pipeline of the first test is there');
  const steady = steadyWorkloads().join(', ');
  const columns = rowColumns.replace('agent', 'action_reason, process');
  const copy = (block: number, pending: number) =>
    one.store.command(
      `INSERT INTO flows_late (${columns}, agent, start_ms, tolerance_ms, network, bus_partition, block, row, version, sign, pending)
       SELECT ${columns}, 'late', toDateTime64(time, 3), 0, 'default', 7, ${block}, rowNumberInAllBlocks(), 1, 1, ${pending}
       FROM (SELECT * FROM flows WHERE src_workload IN (${steady}) AND dst_workload IN (${steady})
         AND time >= parseDateTimeBestEffort('${since}') ORDER BY ALL LIMIT 300)`,
    );
  await copy(1, 0);
  await copy(2, 1);
  const before = await count(one.store, 'flows_all');
  const version = await apply(one, first);
  const ended = await relabel(one, ['--json']);
  assert.equal(ended.code, 0, ended.stderr);
  const result = JSON.parse(ended.stdout);
  assert.equal(result.late.flows, 300);
  assert.ok(result.late.changed > 30, `${result.late.changed} late flows changed`);
  assert.equal(await count(one.store, 'flows_all'), before);
  const key = rowColumns.replace('policy, ', '').replace(', agent', '');
  assert.deepEqual(
    await one.store.query(
      `SELECT ${key} FROM flows_late FINAL WHERE block = 1 AND (${key}) NOT IN (SELECT ${key} FROM flows) LIMIT 3`,
    ),
    [],
    'a late row is called otherwise than its like in flows',
  );
  assert.equal(
    await count(one.store, `flows_late FINAL WHERE block = 1 AND policy = ${version} AND version = 2`),
    300,
  );
  assert.equal(
    await count(one.store, 'flows_late FINAL WHERE block = 2 AND version = 1 AND pending = 1'),
    300,
  );
  await checkRollups(one.store);
});

/** The second policy without anything that speaks of addresses. */
const third: PolicyDocument = {
  ...second,
  rulesets: second.rulesets.map((ruleset) => ({
    ...ruleset,
    rules: ruleset.rules.filter((rule) =>
      [...rule.from, ...rule.to].every((actor) => !('ipList' in actor) && !('cidr' in actor)),
    ),
  })),
};

test('a day whose sums would not stay the same is given back as it was', async () => {
  const [one] = pipelines;
  assert.ok(one !== undefined, 'the pipeline of the first test is there');
  const version = await apply(one, third);
  const before = await count(one.store, 'flows_all');
  const spoiling: Store = {
    ...one.store,
    async command(sql, options) {
      await one.store.command(sql, options);
      if (sql.startsWith('INSERT INTO flows_relabel_new'))
        await one.store.command(
          'INSERT INTO flows_relabel_new SELECT * FROM flows_relabel_new LIMIT 1 SETTINGS insert_deduplicate = 0',
        );
    },
  };
  const spoiled = relabelInProcess({
    bus: one.bus,
    store: spoiling,
    since: Date.parse(since) / 1000,
    dryRun: false,
    onProgress: () => undefined,
  });
  await assert.rejects(spoiled, /flows was \d+, would be \d+/);
  assert.equal(await count(one.store, 'flows_all'), before);
  assert.equal(await count(one.store, 'flows_relabel'), 0);
  assert.equal(await count(one.store, `flows WHERE policy = ${version}`), 0);
  await checkRollups(one.store);
});

test('rules that speak of no address give the same verdicts as a fresh enrichment, too', async () => {
  const [one] = pipelines;
  assert.ok(one !== undefined, 'the pipeline of the first test is there');
  assert.equal((await relabel(one, [])).code, 0);
  const plain = await openPipeline('plain', [third]);
  const flows = life.portions.flat();
  await append(plain.bus, flows);
  await allWritten(plain, flowCountOf(flows));
  await one.store.command("ALTER TABLE flows_late DELETE WHERE agent = 'late' SETTINGS mutations_sync = 2");
  assert.deepEqual(await differences(one.store, plain.store, rowColumns.replace('policy, ', '')), []);
});

test('one run works at a time', async () => {
  const [one] = pipelines;
  assert.ok(one !== undefined, 'the pipeline of the first test is there');
  const { run } = await openRun(one.store, 0, 1, () => undefined);
  const refused = await relabel(one, []);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /another `eastwest relabel` is at work: wait until it is done/);
  await run.close('done');
  assert.equal((await relabel(one, ['--dry-run'])).code, 0);
});
