/**
 * What a flow costs on disk once its parts are merged: bytes of each column of `flows` and of each rollup. The traffic is
 * that of the estate with all its entropy: connections that are reported by both ends and interval by interval, with
 * random ephemeral ports, log-normal sizes and durations, by thousands of workloads.
 */
import { zstdCompressSync } from 'node:zlib';
import { makeEstate } from '../estate/index.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { encodeFlowBatch } from '../lib/wire/flow-batch.ts';
import { startClickHouse } from '../test/support/clickhouse.ts';
import { makeEnrichment, quiet } from './hot-path.ts';
import { type Figure, mustEqual } from './report.ts';
import { loadWorld, type Traffic } from './traffic.ts';

export interface StorageTraffic {
  /** What the figures are of. */
  readonly name: string;
  readonly flowCount: number;
  readonly startMs: number;
  /** Flows a second of simulated time: how far the times of neighbours are apart. */
  readonly flowsPerSecond: number;
  /** Of the connections between two agents, those that only one of them reports; the rest is reported by both. */
  readonly oneSidedShare: number;
}

const intervalMs = 10_000;
/** Flows that are generated and enriched at a time. */
const chunkFlows = 524_288;

/** Tables whose size is told; all are kept by views at insert but `flows`. */
const tables = ['flows', 'edges_1m', 'edges_1h', 'edges_seen', 'naming_1m'] as const;

/** Traffic as agents report it, in parts of about `chunkFlows`. */
function* reportedTraffic(given: StorageTraffic): Generator<Traffic> {
  const { startMs, flowsPerSecond, oneSidedShare } = given;
  const estate = makeEstate({
    seed: 'storage',
    size: 'small',
    startMs,
    flowsPerSecond,
    intervalMs,
    churnPerMinute: 0,
    relabelsPerMinute: 0,
    sourceOnlyShare: oneSidedShare / 2,
    destinationOnlyShare: oneSidedShare / 2,
    truth: false,
  });
  const events = [...estate.inventory()];
  const policy = estate.policy();
  let nowMs = startMs;
  for (let done = 0; done < given.flowCount; ) {
    const messages: { agentId: string; message: Buffer; flowCount: number }[] = [];
    const wanted = Math.min(chunkFlows, given.flowCount - done);
    let flowCount = 0;
    while (flowCount < wanted) {
      nowMs += intervalMs;
      for (const batch of estate.step(nowMs).batches) {
        messages.push({
          agentId: batch.agentId,
          message: encodeFlowBatch(batch),
          flowCount: batch.flows.length,
        });
        flowCount += batch.flows.length;
      }
    }
    done += flowCount;
    yield { events, policy, messages, flowCount, startMs };
  }
}

interface Filled {
  readonly flowCount: number;
  /** Bytes of the messages that held them, and the same compressed as a bus does, many messages at a time. */
  readonly messageBytes: number;
  readonly compressedBytes: number;
}

/** Messages that a bus compresses together, about. */
const messagesTogether = 64;

function compressedSize(messages: readonly { readonly message: Buffer }[]): number {
  let size = 0;
  for (let at = 0; at < messages.length; at += messagesTogether) {
    const together = messages.slice(at, at + messagesTogether).map(({ message }) => message);
    size += zstdCompressSync(Buffer.concat(together)).length;
  }
  return size;
}

async function fill(store: Store, given: StorageTraffic): Promise<Filled> {
  let enrich: ReturnType<typeof makeEnrichment> | undefined;
  let flowCount = 0;
  let messageBytes = 0;
  let compressedBytes = 0;
  let token = 0;
  for (const traffic of reportedTraffic(given)) {
    if (enrich === undefined) {
      const { inventory, policies } = loadWorld(traffic);
      enrich = makeEnrichment(inventory, policies);
    }
    const inserts: { rows: Parameters<Store['insertBlock']>[1]; token: string }[] = [];
    // The builder is used again: keep a copy.
    enrich(traffic, ({ rows }) => {
      const chunks = rows.chunks.map((chunk) => Uint8Array.from(chunk));
      inserts.push({ rows: { ...rows, chunks }, token: `storage/${token++}` });
    });
    for (const insert of inserts) await store.insertBlock('flows', insert.rows, insert.token);
    flowCount += traffic.flowCount;
    messageBytes += traffic.messages.reduce((sum, { message }) => sum + message.length, 0);
    compressedBytes += compressedSize(traffic.messages);
  }
  return { flowCount, messageBytes, compressedBytes };
}

interface Size {
  readonly name: string;
  readonly bytes: string;
}

/** Bytes of each table and of each column of `flows`, the largest first, after merging everything. */
async function measure(store: Store): Promise<{ mergeSeconds: number; tables: Size[]; columns: Size[] }> {
  const begin = performance.now();
  await store.command('OPTIMIZE TABLE flows FINAL');
  const mergeSeconds = (performance.now() - begin) / 1000;
  for (const table of tables) await store.command(`OPTIMIZE TABLE ${table} FINAL`);
  const names = tables.map((name) => `'${name}'`).join(', ');
  return {
    mergeSeconds,
    tables: await store.query<Size>(
      `SELECT table AS name, sum(bytes_on_disk) AS bytes FROM system.parts
       WHERE active AND database = currentDatabase() AND table IN (${names}) GROUP BY name ORDER BY sum(bytes_on_disk) DESC`,
    ),
    columns: await store.query<Size>(
      `SELECT name, data_compressed_bytes AS bytes FROM system.columns
       WHERE database = currentDatabase() AND table = 'flows' ORDER BY data_compressed_bytes DESC`,
    ),
  };
}

async function benchTraffic(given: StorageTraffic, store: Store): Promise<Figure[]> {
  await migrate(store, { log: quiet });
  const { flowCount, messageBytes, compressedBytes } = await fill(store, given);
  const [counted] = await store.query<{ raw: string; minutes: string; hours: string }>(
    'SELECT (SELECT count() FROM flows) AS raw, (SELECT sum(flows) FROM edges_1m) AS minutes, (SELECT sum(flows) FROM edges_1h) AS hours',
  );
  const expected = String(flowCount);
  mustEqual('flows stored and rolled up', counted, { raw: expected, minutes: expected, hours: expected });
  const sizes = await measure(store);
  const figure = (name: string, bytes: string | number): Figure => ({
    name: `disk, ${given.name}: ${name}`,
    value: Number(bytes) / flowCount,
    unit: 'bytes/flow',
  });
  return [
    figure('messages on the bus', messageBytes),
    figure('messages on the bus, zstd', compressedBytes),
    {
      name: `disk, ${given.name}: merged into one part with ZSTD(9)`,
      value: flowCount / sizes.mergeSeconds,
      unit: 'flows/s',
    },
    ...sizes.tables.map(({ name, bytes }) => figure(`table ${name}`, bytes)),
    ...sizes.columns.map(({ name, bytes }) => figure(`flows.${name}`, bytes)),
  ];
}

export async function benchStorage(
  traffics: readonly StorageTraffic[],
  say: (text: string) => void,
  report: (figures: readonly Figure[]) => void,
): Promise<void> {
  const clickhouse = await startClickHouse();
  try {
    for (const [index, traffic] of traffics.entries()) {
      say(`what ${traffic.flowCount.toLocaleString('en')} flows take on disk, ${traffic.name} ...`);
      const store = openStore(clickhouse.config(`storage_${index}`), { log: quiet });
      try {
        report(await benchTraffic(traffic, store));
      } finally {
        await store.command(`DROP DATABASE IF EXISTS storage_${index} SYNC`);
        await store.close();
      }
    }
  } finally {
    await clickhouse.stop();
  }
}

/** The traffics that are told: agents on every machine, and on some only. */
export function storageTraffics(flowCount: number, startMs: number): StorageTraffic[] {
  const common = { flowCount, startMs, flowsPerSecond: 1_500 };
  return [
    { ...common, name: '2,000 workloads, agents at both ends', oneSidedShare: 0.1 },
    { ...common, name: '2,000 workloads, 60 % reported by one end', oneSidedShare: 0.6 },
  ];
}
