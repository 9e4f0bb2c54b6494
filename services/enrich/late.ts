/**
 * Rows that can't be settled in time go into `flows_late` and are repaired there. Which rows of a block these are must be
 * the same for everybody who ever writes the block, so the first insert under the block's late token decides, and
 * everybody reads it back before writing the rest to `flows` (docs/decisions/005).
 */
import type { TopicPartition } from '../../lib/bus/bus.ts';
import type { NativeBlock } from '../../lib/store/native.ts';
import type { Store } from '../../lib/store/store.ts';
import { insertToken, type Plan } from './plan.ts';
import { dateTime64 } from './time.ts';

/** Row number of a row that only says: nothing of this block is late. */
export const markerRow = 0xffff_ffff;

export const lateTable = 'flows_late';

const lateToken = (at: TopicPartition, plan: Plan): string => `${insertToken(at, plan)}#late`;

/** The rows of a block that are in `flows_late`, as they were written first or repaired. */
async function lateRowsOf(store: Store, at: TopicPartition, plan: Plan): Promise<Set<number>> {
  const rows = await store.query<{ row: number }>(
    `SELECT DISTINCT row FROM ${lateTable} WHERE bus_partition = {partition:UInt32} AND block = {block:UInt64}`,
    { partition: at.partition, block: plan.from },
  );
  return new Set(rows.map(({ row }) => row).filter((row) => row !== markerRow));
}

/** Offers `late` as the late rows of the block. Returns those that are: another try may have been first. */
export async function offerLateRows(
  store: Store,
  at: TopicPartition,
  plan: Plan,
  late: NativeBlock,
): Promise<Set<number>> {
  await store.insertBlock(lateTable, late, lateToken(at, plan));
  return lateRowsOf(store, at, plan);
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
    version: 1,
    sign: 1,
    pending: 0,
  };
  await store.insertRows(lateTable, [marker], lateToken(at, plan));
  return lateRowsOf(store, at, plan);
}
