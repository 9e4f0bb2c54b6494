/**
 * Rows that can't be settled in time go into `flows_late` and are repaired there. What is written must be the same for
 * everybody who ever tries: the first insert under a token into `late_changes` decides, and only what is there goes on to
 * `flows_late` and its views, within the server (docs/decisions/005).
 */
import type { TopicPartition } from '../../lib/bus/bus.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import type { NativeBlock } from '../../lib/store/native.ts';
import type { Store } from '../../lib/store/store.ts';
import { topics } from '../../schemas/topics.ts';
import { insertToken, type Plan } from './plan.ts';
import { dateTime64 } from './time.ts';

/** Row number of a decision that only says: nothing of this block is late. */
const markerRow = 0xffff_ffff;

export const lateTable = 'flows_late';
const decisions = 'late_changes';

/** What first writes have as their pass, and as their version; repairs have higher ones. */
export const firstPass = 1;

const lateToken = (at: TopicPartition, plan: Plan): string => `${insertToken(at, plan)}#late`;
const repairToken = (partition: number, pass: number): string =>
  `${topics.flows}/${partition}#repair/${pass}`;

/** The rows of a block that are late, for good, now also in `flows_late`. */
async function applyLateRows(store: Store, at: TopicPartition, plan: Plan): Promise<Set<number>> {
  const params = { partition: at.partition, block: plan.from };
  const where = `bus_partition = {partition:UInt32} AND pass = ${firstPass} AND block = {block:UInt64}`;
  const rows = await store.query<{ row: number }>(`SELECT row FROM ${decisions} WHERE ${where}`, params);
  const late = new Set(rows.map(({ row }) => row).filter((row) => row !== markerRow));
  if (late.size > 0)
    await store.insertSelect(
      lateTable,
      `SELECT * FROM ${decisions} WHERE ${where}`,
      params,
      lateToken(at, plan),
    );
  return late;
}

/** Offers `late` as the late rows of the block. Returns those that are: another try may have been first. */
export async function offerLateRows(
  store: Store,
  at: TopicPartition,
  plan: Plan,
  late: NativeBlock,
): Promise<Set<number>> {
  await store.insertBlock(decisions, late, lateToken(at, plan));
  failpoint('enrich.late-decided');
  return applyLateRows(store, at, plan);
}

/** Says that the block has no late rows, unless an earlier try wrote some. Returns those that are. */
export async function closeLateRows(
  store: Store,
  at: TopicPartition,
  plan: Plan,
  receivedMs: number,
): Promise<Set<number>> {
  const marker = {
    time: Math.floor(receivedMs / 1000),
    start_ms: dateTime64(receivedMs),
    bus_partition: at.partition,
    block: plan.from,
    row: markerRow,
    pass: firstPass,
    version: firstPass,
    sign: 1,
    pending: 0,
  };
  await store.insertRows(decisions, [marker], lateToken(at, plan));
  return applyLateRows(store, at, plan);
}

/** Offers a repair: rows that cancel and rows that follow them. Another enricher's may have been first under this number. */
export async function offerRepair(
  store: Store,
  partition: number,
  pass: number,
  rows: readonly Readonly<Record<string, unknown>>[],
): Promise<void> {
  await store.insertRows(decisions, rows, repairToken(partition, pass));
  failpoint('enrich.repair-decided');
  await applyRepair(store, partition, pass);
}

/** Writes the repair that was decided under this number, if it isn't there yet. */
export async function applyRepair(store: Store, partition: number, pass: number): Promise<void> {
  await store.insertSelect(
    lateTable,
    `SELECT * FROM ${decisions} WHERE bus_partition = {partition:UInt32} AND pass = {pass:UInt32}`,
    { partition, pass },
    repairToken(partition, pass),
  );
}

/** Number of the last repair that was decided in a partition, or {@link firstPass}. */
export async function lastPassOf(store: Store, partition: number): Promise<number> {
  const [last] = await store.query<{ pass: number }>(
    `SELECT max(pass) AS pass FROM (
       SELECT max(pass) AS pass FROM ${decisions} WHERE bus_partition = {partition:UInt32}
       UNION ALL SELECT max(version) AS pass FROM ${lateTable} WHERE bus_partition = {partition:UInt32})`,
    { partition },
  );
  return Math.max(firstPass, last?.pass ?? 0);
}
