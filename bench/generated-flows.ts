/**
 * Flows that ClickHouse makes out of row numbers: 8,000 identities, 100,000 workloads and addresses, an edge for every 1,600
 * flows (62,500 at 100 M) of which a few carry most, reported by one end or the other, random ephemeral ports, log-normal
 * sizes and durations. The same number of flows is the same flows again, but for the time, which ends at the last whole
 * minute.
 */
import type { Store } from '../lib/store/store.ts';

export interface Generated {
  /** End of the flows, seconds since the epoch: a whole minute. */
  readonly endS: number;
  /** Identities that are destinations, the one of the most flows first. */
  readonly destinations: readonly string[];
}

const identityCount = 8_000;
const applicationCount = 800;
const flowsPerEdge = 1_600;
const fewestEdges = 500;
const spanS = 26 * 3600;
const rowsPerInsert = 2_000_000;
/** Inserts at a time: each works on one thread, its views included. */
const insertsAtOnce = 2;

/** Id of identity number `n`; every sixteenth is a range outside of the estate. */
const identityOf = (n: string): string => `cityHash64('identity', ${n})`;
const isRange = (n: string): string => `(${n} % 16 = 15)`;

const identitiesSql = `INSERT INTO identities
  (id, kind, cluster, namespace, name, zone, app, role, env, loc, label_keys, label_values)
SELECT ${identityOf('number')}, if(${isRange('number')}, 'range', 'pod'),
  if(${isRange('number')}, '', concat('c', toString(number % 4))), if(${isRange('number')}, '', concat('ns-', toString(number % 600))),
  if(${isRange('number')}, concat('partner-', toString(number)), ''), if(${isRange('number')}, 'outside', 'inside'),
  concat('app-', toString(number % ${applicationCount})) AS app, ['web', 'api', 'db', 'job'][number % 4 + 1] AS role,
  if(number % 3 = 0, 'dev', 'prod') AS env, '' AS loc, ['app', 'role', 'env'], [app, role, env]
FROM numbers(${identityCount})`;

/** Workloads of an identity, or addresses of a range. */
const endCount = (n: string): string => `if(${isRange(n)}, 1 + ${n} % 4, 1 + ${n} % 25)`;

/** A number below `n` out of a hash, skewed to small ones by a power. */
const below = (n: number, hash: string, power: number): string =>
  `toUInt32(least(${n - 1}, ${n} * pow(${hash} / 18446744073709551616., ${power})))`;

/** A log-normal amount out of two hashes (Box and Muller, "A note on the generation of random normal deviates", 1958). */
const logNormal = (median: string, sigma: string, one: string, other: string): string =>
  `toUInt64(least(1e12, ${median} * exp(${sigma} * sqrt(-2 * log((${one} + 1) / 18446744073709551616.)) * cos(6.283185307 * ${other} / 18446744073709551616.))))`;

interface Slice {
  /** Number of its first row. */
  readonly from: number;
  readonly count: number;
  /** When its flows begin, and in how many seconds they do. */
  readonly begin: number;
  readonly length: number;
}

function flowsSql(edgeCount: number, { from, count, begin, length }: Slice): string {
  const address = (workload: string): string =>
    `toIPv6(IPv4NumToString(toUInt32(167772160 + ${workload} % 16777216)))`;
  return `INSERT INTO flows
  (time, duration_ms, src_ip, src_port, dst_ip, dst_port, protocol, src_workload, dst_workload, src_identity, dst_identity,
   src_provenance, src_certainty, dst_provenance, dst_certainty, side, state, action, flags, verdict, reason, rule, policy,
   bytes_forward, bytes_reverse, packets_forward, packets_reverse, connections, agent)
SELECT
  toDateTime(${begin} + random % ${length}) AS begun, least(duration, 10000), src_address, 32768 + random_2 % 28232,
  dst_address, [443, 5432, 6379, 8080, 53, 1521, 9092, 9102][edge % 8 + 1] AS port, if(port = 53, 17, 6), src_load, dst_load,
  ${identityOf('src')}, ${identityOf('dst')}, if(src_load = 0, 'range', 'pod'), 'exact', if(dst_load = 0, 'range', 'pod'), 'exact',
  if(random_3 % 10 < 6, 'source', 'destination'), 'closed', 'forwarded', 27, outcome, if(outcome = 'unexplained', 'no-rule', 'rule'),
  if(outcome = 'unexplained', 0, edge % 3000 + 1), 1, forward, reverse, 3 + intDiv(forward, 1000), 3 + intDiv(reverse, 1000), 1,
  concat('node-', toString(src_load % 600))
FROM (
  SELECT number, cityHash64(number, 1) AS random, cityHash64(number, 2) AS random_2, cityHash64(number, 3) AS random_3,
    ${below(edgeCount, 'cityHash64(number, 4)', 3)} AS edge, ${below(identityCount, "cityHash64('from', edge)", 1.5)} AS src,
    ${below(identityCount, "cityHash64('to', edge)", 3)} AS dst,
    cityHash64(src, random_2 % ${endCount('src')}) AS src_load_any, cityHash64(dst, random_3 % ${endCount('dst')}) AS dst_load_any,
    if(${isRange('src')}, 0, src_load_any) AS src_load, if(${isRange('dst')}, 0, dst_load_any) AS dst_load,
    ${address('src_load_any')} AS src_address, ${address('dst_load_any')} AS dst_address,
    multiIf(edge % 100 < 86, 'allowed', edge % 100 < 88, 'denied', 'unexplained') AS outcome,
    ${logNormal('(300 + edge % 5000)', '1.4', 'random_2', 'random_3')} AS forward,
    ${logNormal('(800 + edge % 20000)', '1.5', 'random_3', 'random')} AS reverse,
    ${logNormal('(3 + edge % 400)', '1.2', 'random', 'random_2')} AS duration
  FROM numbers(${from}, ${count})
)
SETTINGS max_insert_threads = 1, max_threads = 1, max_block_size = ${rowsPerInsert}, min_insert_block_size_rows = ${rowsPerInsert},
  min_insert_block_size_bytes = 0, optimize_on_insert = 0`;
}

/** Fills an empty database: identities, and flows of the last 26 hours with all that follows from them. */
export async function fillWithFlows(
  store: Store,
  flowCount: number,
  say: (text: string) => void,
): Promise<Generated> {
  const endS = Math.floor(Date.now() / 60_000) * 60;
  await store.command(identitiesSql);
  const edgeCount = Math.max(fewestEdges, Math.round(flowCount / flowsPerEdge));
  const inserts = Math.ceil(flowCount / rowsPerInsert);
  const boundary = (index: number): number => endS - spanS + Math.floor((spanS * index) / inserts);
  const begin = performance.now();
  let [next, done] = [0, 0];
  const insertInTurn = async (): Promise<void> => {
    for (let index = next++; index < inserts; index = next++) {
      const from = index * rowsPerInsert;
      const count = Math.min(rowsPerInsert, flowCount - from);
      const length = Math.max(1, boundary(index + 1) - boundary(index));
      await store.command(flowsSql(edgeCount, { begin: boundary(index), length, from, count }));
      done += count;
      const rate = done / ((performance.now() - begin) / 1000);
      say(`${(done / 1e6).toFixed(0)} of ${flowCount / 1e6} M flows, ${(rate / 1e6).toFixed(2)} M/s`);
    }
  };
  await Promise.all(Array.from({ length: insertsAtOnce }, insertInTurn));
  const rows = await store.query<{ id: string }>(
    `SELECT dst_identity AS id FROM edges_1h GROUP BY id ORDER BY sum(flows) DESC, id`,
  );
  return { endS, destinations: rows.map(({ id }) => id) };
}
