/** The one SQLite file of the embedded bus: its tables, how it is opened, and how a transaction is made on it. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import { BusFullError } from '../bus.ts';

/** Rows of a partition share the upper bits of their id; 2^40 offsets each, and all ids are exact in a double. */
export const offsetSpan = 2 ** 40;

/** Version of the tables below; a file of a later one is refused. */
const schemaVersion = 1;
/** Large pages: a flow batch then fills a few pages instead of a long chain. */
const pageBytes = 16_384;
/** How long SQLite itself waits for another writer; it blocks the process, so it is short and we wait the rest. */
const busyWaitMs = 10;
const openBusyWaitMs = 10_000;
/** The write-ahead log is cut back to this after a checkpoint, bytes. */
const journalLimitBytes = 64 * 1024 * 1024;

const tables = `
CREATE TABLE topics (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, compacted INTEGER NOT NULL,
  retention_ms INTEGER NOT NULL, max_message_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE partitions (
  id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL REFERENCES topics (id), partition INTEGER NOT NULL,
  earliest INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, UNIQUE (topic_id, partition)
) STRICT;
CREATE TABLE messages (
  id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, key TEXT, value BLOB, headers TEXT
) STRICT;
CREATE INDEX tombstones ON messages (timestamp_ms) WHERE value IS NULL;
CREATE TABLE newest (
  partition_id INTEGER NOT NULL, key TEXT NOT NULL, message_id INTEGER NOT NULL, PRIMARY KEY (partition_id, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE members (
  group_name TEXT NOT NULL, id TEXT NOT NULL, topics TEXT NOT NULL, process TEXT NOT NULL,
  session_timeout_ms INTEGER NOT NULL, beat INTEGER NOT NULL, PRIMARY KEY (group_name, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE assignments (
  group_name TEXT NOT NULL, partition_id INTEGER NOT NULL, member TEXT NOT NULL, since INTEGER NOT NULL,
  PRIMARY KEY (group_name, partition_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE offsets (
  group_name TEXT NOT NULL, partition_id INTEGER NOT NULL, next INTEGER NOT NULL, metadata TEXT NOT NULL,
  PRIMARY KEY (group_name, partition_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE upkeep (id INTEGER PRIMARY KEY CHECK (id = 0), last_ms INTEGER NOT NULL) STRICT;
INSERT INTO upkeep VALUES (0, 0);
`;

export interface ConnectionOptions {
  /** `full`: a commit is on the disk when it returns. `normal`: it survives the process, not a loss of power. */
  readonly durability: 'full' | 'normal';
  /** Largest size the file may reach through this connection, bytes. */
  readonly maxFileBytes?: number;
}

/** Opens (and, the first time, makes) the file. @throws {Error} saying what is wrong with it. */
export function openFile(path: string, options: ConnectionOptions): DatabaseSync {
  mkdirSync(dirname(path), { recursive: true });
  let database: DatabaseSync;
  try {
    database = new DatabaseSync(path, { timeout: openBusyWaitMs });
  } catch (error) {
    throw new Error(`cannot open the bus file ${path}: ${messageOf(error)}`, { cause: error });
  }
  try {
    database.exec(`PRAGMA page_size=${pageBytes}`);
    database.exec('PRAGMA journal_mode=WAL');
    makeTables(database, path);
    database.exec(`PRAGMA synchronous=${options.durability}`);
    database.exec(`PRAGMA journal_size_limit=${journalLimitBytes}`);
    if (options.maxFileBytes !== undefined) {
      database.exec(`PRAGMA max_page_count=${Math.max(64, Math.floor(options.maxFileBytes / pageBytes))}`);
    }
    database.exec(`PRAGMA busy_timeout=${busyWaitMs}`);
    return database;
  } catch (error) {
    database.close();
    throw new Error(`cannot use the bus file ${path}: ${messageOf(error)}`, { cause: error });
  }
}

function makeTables(database: DatabaseSync, path: string): void {
  const version = (): number => Number(database.prepare('PRAGMA user_version').get()?.user_version ?? 0);
  if (version() === 0) {
    database.exec('BEGIN IMMEDIATE');
    // Another process may have made them while this one waited for the lock.
    if (version() === 0) {
      database.exec(tables);
      database.exec(`PRAGMA user_version=${schemaVersion}`);
    }
    database.exec('COMMIT');
  }
  if (version() !== schemaVersion) {
    throw new Error(
      `${path} was made by another version of Eastwest (format ${version()}, here ${schemaVersion})`,
    );
  }
}

/**
 * Runs `body` in one write transaction and returns its result. Waits for other writers without blocking the process.
 * @throws {Error} what `body` throws (then nothing was written), or a text that says what to do when the disk is full
 *   or the lock was not to be had within `timeoutMs`.
 */
export async function write<T>(database: DatabaseSync, timeoutMs: number, body: () => T): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return transact(database, body);
    } catch (error) {
      if (!isBusy(error)) throw explained(error);
      if (performance.now() > deadline) {
        throw new Error(`the bus file was locked by another process for over ${timeoutMs} ms`, {
          cause: error,
        });
      }
    }
    await delay(1 + Math.random() * 4);
  }
}

function transact<T>(database: DatabaseSync, body: () => T): T {
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = body();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite rolls back by itself on some errors (disk full).
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

const sqliteBusy = 5;
const sqliteLocked = 6;
const sqliteIo = 10;
const sqliteFull = 13;

function codeOf(error: unknown): number {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return 0;
  // The low byte is the primary code.
  return error.errcode & 0xff;
}

export function isBusy(error: unknown): boolean {
  return codeOf(error) === sqliteBusy || codeOf(error) === sqliteLocked;
}

function explained(error: unknown): unknown {
  switch (codeOf(error)) {
    case sqliteFull:
      return new BusFullError(
        'the bus file is full: free space on its disk, raise bus.maxFileBytes, or shorten bus.flowsRetentionMs',
        { cause: error },
      );
    case sqliteIo:
      return new Error(`the bus file cannot be written (${messageOf(error)}): look at its disk`, {
        cause: error,
      });
    default:
      return error;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
