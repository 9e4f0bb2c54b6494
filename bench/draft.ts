/**
 * `node bench/draft.ts [--edges 200000] [--hours 72] [--flows 100000000]`: how long a draft and suggestions take over the
 * distinct edges of a bank, and that they say what judging each stored row says. The rollups are filled directly, with
 * counts that add up to the flows; single flows are not, so nothing here asks for them.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { IdentityIndex, type KnownIdentity } from '../lib/draft/edges.ts';
import { Judge } from '../lib/draft/judge.ts';
import { emptyPolicy } from '../lib/policy/engine.ts';
import { formatTable } from '../lib/runtime/table.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { suggest } from '../lib/suggest/suggest.ts';
import { verdicts } from '../schemas/closed-lists.ts';
import type { PolicyDocument, Rule } from '../schemas/policy.ts';
import { windowFilter } from '../services/query/filters.ts';
import { type PackedRow, unpackRow } from '../services/query/sql/draft.ts';
import { type Drafting, evaluateDraft, readUnexplained } from '../services/query/sql/drafting.ts';
import { planEdges } from '../services/query/sql/plan.ts';
import { startClickHouse } from '../test/support/clickhouse.ts';
import { type Figure, mustEqual, tableRow } from './report.ts';

const { values: options } = parseArgs({
  options: {
    edges: { type: 'string', default: '200000' },
    hours: { type: 'string', default: '72' },
    flows: { type: 'string', default: '100000000' },
    json: { type: 'boolean', default: false },
  },
});
const edgeCount = Number(options.edges);
const hours = Number(options.hours);
const flowCount = Number(options.flows);
const say = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

const appCount = 600;
const roles = ['web', 'api', 'db', 'cache'] as const;
const environments = ['prod', 'uat', 'dev'] as const;
const rangeCount = 40;
const ports = [443, 8080, 5432, 6379] as const;

function makeIdentities(): KnownIdentity[] {
  const list: KnownIdentity[] = [];
  for (let app = 0; app < appCount; app++)
    for (const role of roles)
      for (const env of environments)
        list.push({
          id: String(list.length + 1),
          kind: 'pod',
          cluster: `c${app % 4}`,
          namespace: `app-${app}-${env}`,
          name: '',
          zone: 'inside',
          labels: { app: `app-${app}`, role, env },
        });
  for (let range = 0; range < rangeCount; range++)
    list.push({
      id: String(list.length + 1),
      kind: 'range',
      cluster: '',
      namespace: '',
      name: `partner-${range}`,
      zone: 'outside',
      labels: { app: `partner-${range}` },
    });
  return list;
}

/** Four rules for each application but every tenth, and ip-lists for what is outside. */
function makePolicy(): PolicyDocument {
  const rulesets = Array.from({ length: appCount }, (_, app) => ({
    name: `app-${app}`,
    scope: [{ app: `app-${app}` }],
    rules: roles.map(
      (role, i): Rule => ({
        name: `to-${role}`,
        from: [{ labels: { app: `app-${app}` } }],
        to: [{ labels: { app: `app-${app}`, role } }],
        services: [{ port: ports[i] ?? 443 }],
      }),
    ),
  })).filter((_, app) => app % 10 !== 0);
  return {
    ...emptyPolicy,
    ipLists: [{ name: 'partners', cidrs: ['198.51.100.0/25', '!198.51.100.7'] }],
    rulesets: [
      ...rulesets,
      {
        name: 'outward',
        rules: [
          {
            name: 'partners',
            from: [{ labels: { role: 'api' } }],
            to: [{ ipList: 'partners' }],
            services: [{ port: 443 }],
          },
          {
            name: 'no-dev',
            from: [{ labels: { env: 'dev' } }],
            to: [{ labels: { env: 'prod' } }],
            action: 'deny',
          },
        ],
      },
    ],
  };
}

const pods = appCount * roles.length * environments.length;

/** Edges by number, in SQL: most within an application, some between two, some to addresses outside. */
const edgeSql = (n: string): string => `
  cityHash64(${n}, 1) % ${pods} AS a, cityHash64(${n}, 2) % 100 AS kind,
  toUInt64(1 + a) AS src_identity,
  multiIf(kind < 70, 1 + intDiv(a, 12) * 12 + cityHash64(${n}, 3) % 12, kind < 95, 1 + cityHash64(${n}, 3) % ${pods},
    1 + ${pods} + cityHash64(${n}, 3) % ${rangeCount}) AS dst_identity,
  if(kind < 95, toIPv6('::'), toIPv6(concat('::ffff:198.51.100.', toString(cityHash64(${n}, 4) % 250)))) AS dst_ip,
  multiIf(kind >= 95, 443, kind < 60, [443, 8080, 5432, 6379][1 + intDiv((dst_identity - 1) % 12, 3)], 1024 + cityHash64(${n}, 5) % 400) AS dst_port`;

/** Hours that one insert fills. */
const hoursPerInsert = 6;

async function fill(store: Store, identities: readonly KnownIdentity[], endS: number): Promise<void> {
  await store.insertRows(
    'identities',
    identities.map(({ labels, ...identity }) => ({
      ...identity,
      app: labels.app ?? '',
      role: labels.role ?? '',
      env: labels.env ?? '',
      loc: '',
      label_keys: Object.keys(labels),
      label_values: Object.values(labels),
    })),
  );
  const perRow = Math.max(1, Math.round(flowCount / edgeCount / hours / 1.5));
  // Some hours at a time: an insert of everything would be sorted in memory.
  for (let hour = 0; hour < hours; hour += hoursPerInsert) {
    const count = Math.min(hoursPerInsert, hours - hour);
    await store.command(`INSERT INTO edges_1h
      SELECT toDateTime(${endS} - 3600 * (1 + ${hour} + toUInt32(n % ${count})), 'UTC') AS time, src_identity, dst_identity, toIPv6('::') AS src_ip, dst_ip,
        toUInt16(dst_port), 6 AS protocol, 'unexplained' AS verdict, 'no-rule' AS reason, 0 AS rule, side, 0 AS pending,
        ${perRow} AS flows, ${perRow} AS connections, ${perRow} * 1400 AS bytes_forward, ${perRow} * 7000 AS bytes_reverse,
        ${perRow} * 9 AS packets_forward, ${perRow} * 8 AS packets_reverse, time + 7 AS first_seen, time + 3500 AS last_seen
      FROM (SELECT number AS n, intDiv(n, ${count}) AS e, ${edgeSql('e')} FROM numbers(${edgeCount * count}))
      ARRAY JOIN if(e % 2 = 0, ['source', 'destination'], ['source']) AS side
      SETTINGS max_insert_threads = 1, max_threads = 2, min_insert_block_size_rows = 1048576`);
    say(`  ${hour + count} of ${hours} hours are filled`);
  }
}

/** The totals of a few destinations, from every stored row judged on its own. */
async function recount(store: Store, judge: Judge, destination: string): Promise<Record<string, number>> {
  const rows = await store.query<PackedRow>(
    `SELECT toString(src_identity) AS s, toString(dst_identity) AS d, toString(src_ip) AS i, toString(dst_ip) AS j, dst_port AS p,
       protocol AS t, 0 AS v, 0 AS r, '0' AS u, CAST(side, 'Int8') AS e, toFloat64(flows) AS n, toFloat64(connections) AS c,
       toFloat64(bytes_forward) AS f, toFloat64(bytes_reverse) AS g, 0 AS a, 0 AS z
     FROM edges_1h WHERE dst_identity = ${BigInt(destination)}`,
  );
  const bySide = new Map<string, [number, number]>();
  for (const row of rows.map(unpackRow)) {
    const { verdict } = judge.judge(row);
    const key = `${verdicts[verdict]} ${row.source} ${row.destinationIp} ${row.port}`;
    const sums = bySide.get(key) ?? [0, 0];
    sums[row.side === 0 ? 0 : 1] += row.connections;
    bySide.set(key, sums);
  }
  const totals: Record<string, number> = { allowed: 0, denied: 0, unexplained: 0 };
  for (const [key, sums] of bySide) {
    const verdict = key.split(' ')[0] ?? '';
    totals[verdict] = (totals[verdict] ?? 0) + Math.max(...sums);
  }
  return totals;
}

/** Seconds of processor time that this process and the server have used. */
function processorSeconds(serverPid: number): number {
  const { user, system } = process.cpuUsage();
  const fields = readFileSync(`/proc/${serverPid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  // utime and stime (proc(5)), in hundredths of a second.
  return (user + system) / 1e6 + (Number(fields[11]) + Number(fields[12])) / 100;
}

/** What work gives, how long it takes, and the processor time it costs here and in the server: on a busy machine that tells more. */
async function seconds<T>(work: () => Promise<T>): Promise<readonly [T, number, number]> {
  const begin = performance.now();
  const used = processorSeconds(clickhouse.pid);
  const result = await work();
  return [result, (performance.now() - begin) / 1000, processorSeconds(clickhouse.pid) - used];
}

const log = pino({ level: 'silent' });
const clickhouse = await startClickHouse();
const store = openStore({ ...clickhouse.config(), queryTimeoutMs: 600_000 }, { log });
try {
  await migrate(store, { log });
  const identities = makeIdentities();
  const endS = Math.floor(Date.now() / 3_600_000) * 3600;
  say(`filling ${edgeCount.toLocaleString('en')} edges x ${hours} hours ...`);
  await fill(store, identities, endS);
  const [filled] = await store.query<{ n: string; flows: string }>(
    'SELECT count() AS n, sum(flows) AS flows FROM edges_1h',
  );
  say(
    `${Number(filled?.n).toLocaleString('en')} rows for ${Number(filled?.flows).toLocaleString('en')} flows`,
  );
  const filter = windowFilter({ sinceS: endS - hours * 3600, untilS: null });
  const nowMs = Date.now();
  const plan = planEdges(filter, nowMs, { minuteDays: 10_000 });
  const asked: Drafting = {
    context: { ask: (statement, signal) => store.query(statement.sql, statement.params, { signal }) },
    filter,
    plan,
    nowMs,
    signal: new AbortController().signal,
  };
  const policy = makePolicy();
  const ruleCount = policy.rulesets.reduce((sum, { rules }) => sum + rules.length, 0);
  const [drafted, draftS, draftProcessorS] = await seconds(() =>
    evaluateDraft(asked, { draft: policy, against: null, limit: 100 }),
  );
  const judge = new Judge(policy, new IdentityIndex(identities), nowMs);
  const sample = ['17', '4001', String(pods + 3)];
  for (const destination of sample) {
    const some = { ...asked, filter: { ...filter, destinationIdentity: destination } };
    const { result } = await evaluateDraft(some, { draft: policy, against: null, limit: 0 });
    const { allowed, denied, unexplained } = result.after;
    mustEqual(
      `destination ${destination}`,
      { allowed: allowed.connections, denied: denied.connections, unexplained: unexplained.connections },
      await recount(store, judge, destination),
    );
  }
  const judged = (['allowed', 'denied', 'unexplained', 'undecided'] as const).reduce(
    (sum, verdict) => sum + drafted.result.after[verdict].edges,
    0,
  );
  const [read, readS] = await seconds(() => readUnexplained(asked, policy));
  const [suggested, suggestS, suggestProcessorS] = await seconds(async () =>
    suggest({ document: policy, identities, edges: read.edges, windowS: hours * 3600, nowMs }),
  );
  const figures: Figure[] = [
    { name: 'stored rows', value: Number(filled?.n), unit: 'rows' },
    { name: `distinct edges, judged by ${ruleCount} rules`, value: judged, unit: 'edges' },
    { name: 'draft', value: draftS, unit: 's' },
    { name: 'draft, processor time', value: draftProcessorS, unit: 's' },
    { name: `unexplained edges (${read.edges.length}) with evidence`, value: readS, unit: 's' },
    {
      name: `suggestions (${suggested.rules.length} rules, ${suggested.review.length} under review)`,
      value: suggestS,
      unit: 's',
    },
    { name: 'suggestions, processor time', value: suggestProcessorS, unit: 's' },
  ];
  if (options.json) process.stdout.write(`${JSON.stringify(figures)}\n`);
  else
    process.stdout.write(
      `${formatTable(
        [{ title: 'WHAT' }, { title: 'FIGURE', align: 'right' }],
        figures.map((figure) => tableRow(figure).slice(0, 2)),
      ).join('\n')}\n`,
    );
} finally {
  await store.close();
  await clickhouse.stop();
}
