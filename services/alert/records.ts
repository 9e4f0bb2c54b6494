/**
 * The table `alerts` as an outbox: a row for each event and receiver, written before the first try and after each one.
 * The newest row of (id, receiver) counts. Times are ms since the epoch.
 */
import type { Store } from '../../lib/store/store.ts';

/**
 * pending: to be tried (again). delivered: answered with 2xx. failed: given up. recorded: nobody is configured to be
 * told. summarised: told as a part of a summary.
 */
export const alertStates = ['pending', 'delivered', 'failed', 'recorded', 'summarised'] as const;
export type AlertState = (typeof alertStates)[number];

export interface AlertRecord {
  readonly id: string;
  /** Hash of the edge, decimal; 0 for a summary. */
  readonly edge: string;
  readonly createdMs: number;
  readonly state: AlertState;
  readonly attempts: number;
  readonly lastError: string;
  /** Empty where no receiver is meant. */
  readonly receiver: string;
  readonly payload: string;
  readonly updatedMs: number;
}

interface Row {
  readonly alert_id: string;
  readonly edge_id: string;
  readonly created_ms: string;
  readonly attempts: number;
  readonly last_error: string;
  readonly payload: string;
  readonly updated_ms: string;
}

const maxErrorLength = 500;

/** DateTime64(3) as ClickHouse reads it from JSON: seconds with three decimals, in a string. */
function storeTime(ms: number): string {
  return (ms / 1000).toFixed(3);
}

/** Writes all rows at once: either all are there or none. */
export async function writeRecords(store: Store, records: readonly AlertRecord[]): Promise<void> {
  await store.insertRows(
    'alerts',
    records.map((record) => ({
      id: record.id,
      edge: record.edge,
      created: storeTime(record.createdMs),
      state: record.state,
      attempts: record.attempts,
      last_error: record.lastError.slice(0, maxErrorLength),
      receiver: record.receiver,
      payload: record.payload,
      updated_at: storeTime(record.updatedMs),
    })),
  );
}

/** The oldest events that a receiver has yet to get. */
export async function readPending(store: Store, receiver: string, limit: number): Promise<AlertRecord[]> {
  const rows = await store.query<Row>(
    `SELECT id AS alert_id, toString(edge) AS edge_id, toUnixTimestamp64Milli(created) AS created_ms, attempts, last_error,
    payload, toUnixTimestamp64Milli(updated_at) AS updated_ms
FROM alerts FINAL
WHERE receiver = {receiver:String} AND state = 'pending'
ORDER BY created, alert_id
LIMIT {limit:UInt32}`,
    { receiver, limit },
  );
  return rows.map((row) => ({
    id: row.alert_id,
    edge: row.edge_id,
    createdMs: Number(row.created_ms),
    state: 'pending',
    attempts: row.attempts,
    lastError: row.last_error,
    receiver,
    payload: row.payload,
    updatedMs: Number(row.updated_ms),
  }));
}

/** Receivers that have pending events. */
export async function readPendingReceivers(store: Store): Promise<string[]> {
  const rows = await store.query<{ name: string }>(
    "SELECT DISTINCT toString(receiver) AS name FROM alerts FINAL WHERE state = 'pending'",
  );
  return rows.map(({ name }) => name);
}

/** The store's clock, when the newest alert was made (0: never), and how many edges got one in the last minute. */
export async function readStanding(
  store: Store,
): Promise<{ readonly nowMs: number; readonly newestMs: number; readonly recentCount: number }> {
  const [row] = await store.query<{ now_ms: string; newest_ms: string; recent: string }>(
    `SELECT toUnixTimestamp64Milli(now64(3)) AS now_ms, toUnixTimestamp64Milli(max(created)) AS newest_ms,
    uniqExactIf(id, edge != 0 AND state != 'summarised' AND created > now64(3) - toIntervalMinute(1)) AS recent
FROM alerts`,
  );
  return {
    nowMs: Number(row?.now_ms ?? 0),
    newestMs: Number(row?.newest_ms ?? 0),
    recentCount: Number(row?.recent ?? 0),
  };
}
