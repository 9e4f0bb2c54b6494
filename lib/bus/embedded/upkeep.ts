/** Removes what has expired, in steps so short that writers hardly notice; one process at a time does it. */
import type { DatabaseSync } from 'node:sqlite';
import { offsetSpan, write } from './file.ts';

/** Most messages and bytes that one step removes. */
const stepMessages = 256;
const stepBytes = 4 * 1024 * 1024;
const lockTimeoutMs = 10_000;

export interface UpkeepOptions {
  readonly upkeepIntervalMs: number;
  readonly tombstoneRetentionMs: number;
}

/** Does all removals that are due, unless another process did within the interval. Returns how many messages went. */
export async function runUpkeep(
  database: DatabaseSync,
  options: UpkeepOptions,
  shallStop: () => boolean,
): Promise<number> {
  if (!(await claim(database, options.upkeepIntervalMs))) return 0;
  const nowMs = Date.now();
  const partitions = database
    .prepare(
      `SELECT partitions.id AS id, retention_ms FROM partitions JOIN topics ON topics.id = topic_id
       WHERE compacted = 0`,
    )
    .all();
  const steps = partitions.map((row) => {
    const partitionId = Number(row.id);
    const cutoffMs = nowMs - Number(row.retention_ms);
    return () => removeExpired(database, partitionId, cutoffMs);
  });
  steps.push(() => removeTombstones(database, nowMs - options.tombstoneRetentionMs));

  let removed = 0;
  for (const step of steps) {
    while (!shallStop()) {
      const count = await write(database, lockTimeoutMs, step);
      removed += count;
      if (count === 0) break;
    }
  }
  return removed;
}

async function claim(database: DatabaseSync, intervalMs: number): Promise<boolean> {
  const nowMs = Date.now();
  const take = database.prepare('UPDATE upkeep SET last_ms = ? WHERE last_ms <= ? OR last_ms > ?');
  const { changes } = await write(database, lockTimeoutMs, () => take.run(nowMs, nowMs - intervalMs, nowMs));
  return Number(changes) === 1;
}

/** Removes from the head of a partition; a message is never removed before one that is older by offset. */
function removeExpired(database: DatabaseSync, partitionId: number, cutoffMs: number): number {
  const base = partitionId * offsetSpan;
  const head = database
    .prepare(
      `SELECT id, timestamp_ms, coalesce(length(value), 0) AS bytes FROM messages
       WHERE id >= ? AND id < ? ORDER BY id LIMIT ?`,
    )
    .all(base, base + offsetSpan, stepMessages);
  let last: number | undefined;
  let bytes = 0;
  let count = 0;
  for (const row of head) {
    if (Number(row.timestamp_ms) >= cutoffMs || bytes > stepBytes) break;
    last = Number(row.id);
    bytes += Number(row.bytes);
    count++;
  }
  if (last === undefined) return 0;
  database.prepare('DELETE FROM messages WHERE id >= ? AND id <= ?').run(base, last);
  database.prepare('UPDATE partitions SET earliest = ? WHERE id = ?').run(last - base + 1, partitionId);
  return count;
}

function removeTombstones(database: DatabaseSync, cutoffMs: number): number {
  const due = database
    .prepare(
      `SELECT id, key FROM messages INDEXED BY tombstones WHERE value IS NULL AND timestamp_ms < ?
       AND id / ${offsetSpan} IN (SELECT partitions.id FROM partitions JOIN topics ON topics.id = topic_id WHERE compacted = 1)
       LIMIT ?`,
    )
    .all(cutoffMs, stepMessages);
  const forget = database.prepare('DELETE FROM newest WHERE partition_id = ? AND key = ? AND message_id = ?');
  const remove = database.prepare('DELETE FROM messages WHERE id = ?');
  for (const row of due) {
    const id = Number(row.id);
    if (row.key !== null) forget.run(Math.floor(id / offsetSpan), row.key ?? null, id);
    remove.run(id);
  }
  return due.length;
}
