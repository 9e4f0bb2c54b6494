/**
 * Brings a database to the schema of this version: schemas/clickhouse/NNN-name.sql in order, each once; then
 * views*.sql, again whenever their text changed; then the retention.
 */
import { hash, randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { forCluster, storedName } from './cluster.ts';
import type { StoreConfig } from './config.ts';
import { splitStatements } from './statements.ts';
import { type Store, StoreRefusedError } from './store.ts';

export interface Migration {
  /** `001-tables`, or `views`, which is applied again whenever its text changed. */
  readonly name: string;
  readonly sql: string;
}

export interface MigrateOptions {
  readonly log: Logger;
  /** The files of this version unless told. */
  readonly migrations?: readonly Migration[];
  /** Whoever migrates without saying so for this long is dead, and is taken over from; s. */
  readonly deadAfterS?: number;
}

export interface MigrateResult {
  /** Names of the files that were applied now, in order. */
  readonly applied: readonly string[];
  /** Tables whose retention was changed. */
  readonly retained: readonly string[];
}

/** The database doesn't fit this version of the program; the message says what to do. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
}

const numberedName = /^\d{3}-[a-z0-9-]+$/;
const repeatableName = /^views[a-z0-9-]*$/;
/** Files of earlier versions whose work others have taken over; databases may have them recorded. */
const formerMigrations = new Set(['003-views']);
/** Tries of a statement that something else got in the way of. */
const tryLimit = 20;
/** Longest pause before the next try, ms; a part of it by chance, so that two processes get out of step. */
const maxPauseMs = 200;
/** Errors that statements give when others work on the same thing. */
const collisions = new Set(['DATABASE_ALREADY_EXISTS', 'DEADLOCK_AVOIDED', 'CANNOT_ASSIGN_ALTER']);
/** The table that is there while somebody migrates; its comment names who, and changes every few seconds. */
const lockTable = 'migrating';
const heartbeatMs = 3_000;
/** What its creation is refused with while somebody has it, on this server or on another. */
const isTaken = new Set(['TABLE_ALREADY_EXISTS', 'REPLICA_ALREADY_EXISTS']);
/** {@link MigrateOptions.deadAfterS} unless told. */
const usualDeadAfterS = 30;

/** The files in the folder `schemas/clickhouse`, in order: those with a number, then the views. */
export function readMigrations(): Migration[] {
  const folder = new URL('../../schemas/clickhouse/', import.meta.url);
  const names = readdirSync(fileURLToPath(folder))
    .filter((file) => file.endsWith('.sql'))
    .map((file) => file.slice(0, -'.sql'.length));
  const wrong = names.find((name) => !numberedName.test(name) && !repeatableName.test(name));
  if (wrong !== undefined)
    throw new MigrationError(
      `schemas/clickhouse/${wrong}.sql: the name must be like 001-name.sql or views-name.sql`,
    );
  return names.sort().map((name) => ({
    name,
    sql: readFileSync(new URL(`${name}.sql`, folder), 'utf8'),
  }));
}

function quoteText(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`;
}

/** Puts in what a file leaves to the installation: the database, and the account with which dictionaries read it. */
function renderStatement(statement: string, config: StoreConfig): string {
  return statement
    .replaceAll('{database}', config.database)
    .replaceAll("'{username}'", quoteText(config.username))
    .replaceAll("'{password}'", quoteText(config.password));
}

/** What the installation makes of a statement: one, or several on a cluster. */
function statementsFor(statement: string, config: StoreConfig): string[] {
  const rendered = renderStatement(statement, config);
  return config.cluster === '' ? [rendered] : forCluster(rendered, config.cluster);
}

/** Where a statement is to be done on every server. */
function onCluster({ cluster }: StoreConfig): string {
  return cluster === '' ? '' : ` ON CLUSTER '${cluster}'`;
}

/** The table's own name on a server. */
function ownName(table: string, { cluster }: StoreConfig): string {
  return cluster === '' ? table : storedName(table);
}

function digest(text: string): string {
  return hash('sha256', text, 'hex').slice(0, 32);
}

/** Does `work` again when something else got in its way. */
async function despiteOthers(work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      const collided = error instanceof StoreRefusedError && collisions.has(error.code);
      if (!collided || tries >= tryLimit) throw error;
      await delay(Math.random() * maxPauseMs);
    }
  }
}

/** Waits until nobody else migrates the database; resolves with what lets the others on. */
async function lockMigration(store: Store, log: Logger, deadAfterS: number): Promise<() => Promise<void>> {
  const me = randomUUID();
  const comment = (beat: number): string => quoteText(`${me} ${beat}`);
  const { config } = store;
  const { cluster, database } = config;
  // On a cluster the lock is a replica in Keeper that only one server can have.
  const engine =
    cluster === '' ? 'MergeTree' : `ReplicatedMergeTree('/eastwest/${database}/${lockTable}', 'migrator')`;
  const tables = cluster === '' ? 'system.tables' : `clusterAllReplicas('${cluster}', system.tables)`;
  for (;;) {
    try {
      await store.command(
        `CREATE TABLE ${lockTable} (nothing UInt8) ENGINE = ${engine} ORDER BY tuple() COMMENT ${comment(0)}`,
      );
      break;
    } catch (error) {
      if (!(error instanceof StoreRefusedError && isTaken.has(error.code))) throw error;
    }
    const [other] = await store.query<{ silent_s: number }>(
      `SELECT toInt32(now() - metadata_modification_time) AS silent_s FROM ${tables}
       WHERE database = {database:String} AND name = '${lockTable}'`,
      { database },
    );
    if (other !== undefined && other.silent_s > deadAfterS) {
      log.warn({ silent: other.silent_s }, 'whoever began to migrate does not go on, taken over');
      await store.command(`DROP TABLE IF EXISTS ${lockTable}${onCluster(config)} SYNC`);
    } else await delay(Math.random() * maxPauseMs);
  }
  let beat = 0;
  let beating: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    beating = store
      .command(`ALTER TABLE ${lockTable} MODIFY COMMENT ${comment(++beat)}`)
      .catch((error: unknown) => log.warn({ err: error }, 'could not say that the migration goes on'));
  }, heartbeatMs);
  return async () => {
    clearInterval(timer);
    await beating;
    const mine = await store.query(
      `SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = '${lockTable}' AND startsWith(comment, {me:String})`,
      { me },
    );
    if (mine.length > 0) await store.command(`DROP TABLE IF EXISTS ${lockTable} SYNC`);
  };
}

interface Applied {
  readonly name: string;
  readonly checksum: string;
  readonly rendered: string;
}

async function readApplied(store: Store): Promise<Map<string, Applied>> {
  const rows = await store.query<Applied>(
    'SELECT name, checksum, rendered FROM migrations FINAL ORDER BY name',
  );
  return new Map(rows.map((row) => [row.name, row]));
}

/** A file that begins so is applied only while these tables have no rows, and is done with otherwise. */
const whileEmpty = /^-- only while empty: ([a-z0-9_, ]+)\n/;

/** Whether a table that the file is not to touch with rows has any. */
async function hasRows(store: Store, migration: Migration): Promise<boolean> {
  const tables = (whileEmpty.exec(migration.sql)?.[1]?.split(', ') ?? []).map((table) =>
    ownName(table, store.config),
  );
  if (tables.length === 0) return false;
  const [row] = await store.query<{ rows: string }>(
    `SELECT sum(total_rows) AS rows FROM system.tables
     WHERE database = currentDatabase() AND name IN {tables:Array(String)}`,
    { tables },
  );
  return Number(row?.rows ?? 0) > 0;
}

async function applyOne(store: Store, migration: Migration, known: Applied | undefined): Promise<boolean> {
  const checksum = digest(migration.sql);
  if (known !== undefined && known.checksum !== checksum && !repeatableName.test(migration.name)) {
    throw new MigrationError(
      `migration ${migration.name} was applied to database ${store.config.database} with another content ` +
        `(checksum ${known.checksum}, the file has ${checksum}); restore the file and put the change into a new one, ` +
        'or start with an empty database',
    );
  }
  const statements = splitStatements(migration.sql).flatMap((statement) =>
    statementsFor(statement, store.config),
  );
  const rendered = digest(statements.join(';'));
  if (known?.rendered === rendered) return false;
  const isDone = known !== undefined && whileEmpty.test(migration.sql);
  if (!isDone && !(await hasRows(store, migration)))
    for (const statement of statements) await despiteOthers(() => store.command(statement));
  await store.insertRows('migrations', [{ name: migration.name, checksum, rendered }]);
  return true;
}

/** What ends when: the table, the setting that rules it, the time that counts, and how what is older is compressed. */
const retained: readonly {
  readonly table: string;
  readonly setting: 'rawDays' | 'minuteDays' | 'hourDays';
  readonly time: string;
  readonly dense?: string;
}[] = [
  { table: 'flows', setting: 'rawDays', time: 'time', dense: 'ZSTD(9)' },
  { table: 'flows_late', setting: 'rawDays', time: 'time' },
  { table: 'batches', setting: 'rawDays', time: 'toDateTime(received)' },
  { table: 'batches_15m', setting: 'rawDays', time: 'slot' },
  { table: 'delays_15m', setting: 'rawDays', time: 'slot' },
  { table: 'edges_1m', setting: 'minuteDays', time: 'time' },
  { table: 'naming_1m', setting: 'minuteDays', time: 'time' },
  { table: 'edges_1h', setting: 'hourDays', time: 'time' },
  { table: 'edges_seen', setting: 'hourDays', time: 'last_seen' },
];

async function applyRetention(store: Store): Promise<string[]> {
  const tables = await store.query<{ name: string; engine_full: string }>(
    'SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()',
  );
  const engines = new Map(tables.map((row) => [row.name, row.engine_full]));
  const changed: string[] = [];
  const { retention } = store.config;
  for (const { table, setting, time, dense } of retained) {
    const own = ownName(table, store.config);
    const engine = engines.get(own);
    const end = `${time} + toIntervalDay(${retention[setting]})`;
    const expression =
      dense === undefined
        ? end
        : `${end}, ${time} + toIntervalHour(${retention.denseHours}) RECOMPRESS CODEC(${dense})`;
    if (engine === undefined || engine.includes(`TTL ${expression} SETTINGS`)) continue;
    await despiteOthers(() =>
      store.command(`ALTER TABLE ${own}${onCluster(store.config)} MODIFY TTL ${expression}`),
    );
    changed.push(table);
  }
  return changed;
}

/**
 * Creates the database if it is missing, applies what is new, and sets the retention of `store.config`.
 * May run any number of times, and in several processes: one waits for the other. What an earlier run left half done is
 * done from the file's beginning, so every statement must allow that (IF NOT EXISTS, OR REPLACE). Throws
 * `MigrationError` when an applied file has changed or the database is newer than the program, and as `Store` does.
 */
export async function migrate(store: Store, options: MigrateOptions): Promise<MigrateResult> {
  const { log } = options;
  const { database } = store.config;
  await despiteOthers(() =>
    store.command(`CREATE DATABASE IF NOT EXISTS ${database}${onCluster(store.config)}`, {
      database: 'default',
    }),
  );
  const unlock = await lockMigration(store, log, options.deadAfterS ?? usualDeadAfterS);
  try {
    return await migrateAlone(store, options.migrations ?? readMigrations(), log);
  } finally {
    await unlock();
  }
}

async function migrateAlone(
  store: Store,
  migrations: readonly Migration[],
  log: Logger,
): Promise<MigrateResult> {
  const { database } = store.config;
  const bookkeeping = `CREATE TABLE IF NOT EXISTS migrations
     (name String, checksum String, rendered String, applied DateTime64(3, 'UTC') DEFAULT now64(3))
     ENGINE = ReplacingMergeTree(applied) ORDER BY name`;
  for (const statement of statementsFor(bookkeeping, store.config)) await store.command(statement);
  const known = await readApplied(store);
  const names = new Set(migrations.map((migration) => migration.name));
  const unknown = [...known.keys()].filter((name) => !names.has(name) && !formerMigrations.has(name));
  if (unknown.length > 0) {
    throw new MigrationError(
      `database ${database} has migrations that this version doesn't know (${unknown.join(', ')}); run the version that made it`,
    );
  }
  const applied: string[] = [];
  for (const migration of migrations) {
    if (!(await applyOne(store, migration, known.get(migration.name)))) continue;
    applied.push(migration.name);
    log.info({ database, migration: migration.name }, 'migration applied');
  }
  const changed = await applyRetention(store);
  if (changed.length > 0) log.info({ database, tables: changed, ...store.config.retention }, 'retention set');
  return { applied, retained: changed };
}
