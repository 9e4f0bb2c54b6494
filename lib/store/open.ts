/** A `Store` on a ClickHouse server: reads through @clickhouse/client, inserts over HTTP of our own. */
import { type ClickHouseSettings, createClient } from '@clickhouse/client';
import type { Logger } from 'pino';
import { type StoreConfig, storeUrl } from './config.ts';
import { storeError } from './errors.ts';
import { type HttpTarget, keepAliveAgent, sendInsert, sendInsertSelect, sendStatement } from './http.ts';
import { type QueryOptions, type Store, StoreUnavailableError } from './store.ts';

export interface StoreOptions {
  readonly log: Logger;
}

/** Most rows that one `insertRows` takes; more are a mistake of the caller, who wants `insertBlock`. */
const rowsLimit = 1_000_000;

function quoteName(name: string): string {
  return name
    .split('.')
    .map((part) => `\`${part.replace(/[\\`]/g, '\\$&')}\``)
    .join('.');
}

function insertStatement(table: string, columnNames: readonly string[], format: string): string {
  return `INSERT INTO ${quoteName(table)} (${columnNames.map(quoteName).join(', ')}) FORMAT ${format}`;
}

function encodeRows(rows: readonly Readonly<Record<string, unknown>>[]): Uint8Array {
  const lines = rows.map((row) =>
    JSON.stringify(row, (_key, value) => (typeof value === 'bigint' ? String(value) : value)),
  );
  return Buffer.from(lines.join('\n'));
}

function columnNamesOf(rows: readonly Readonly<Record<string, unknown>>[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row)) names.add(name);
  return [...names];
}

/** A query can't write by mistake, and the server drops it when nobody waits for it any more. */
const ownSettings: ClickHouseSettings = {
  output_format_json_quote_64bit_integers: 1,
  readonly: '2',
  cancel_http_readonly_queries_on_client_close: 1,
};

function makeStore(config: StoreConfig, querySettings: ClickHouseSettings, options: StoreOptions): Store {
  const url = storeUrl(config);
  const client = createClient({
    url,
    database: config.database,
    username: config.username,
    password: config.password,
    application: 'eastwest',
    request_timeout: config.queryTimeoutMs,
    max_open_connections: config.maxOpenConnections,
    log: { level: 127 },
  });
  const target: HttpTarget = {
    url,
    database: config.database,
    username: config.username,
    password: config.password,
    timeoutMs: config.insertTimeoutMs,
    agent: keepAliveAgent(url, config.maxOpenConnections),
  };
  const { log } = options;

  return {
    config,

    async query<T>(
      sql: string,
      params: Readonly<Record<string, unknown>> = {},
      options: QueryOptions = {},
    ): Promise<T[]> {
      const { settings = {}, signal } = options;
      const clickhouse_settings: ClickHouseSettings = { ...querySettings, ...settings };
      const ask = async (): Promise<T[]> => {
        try {
          const result = await client.query({
            query: sql,
            format: 'JSONEachRow',
            query_params: { ...params },
            clickhouse_settings,
            ...(signal === undefined ? {} : { abort_signal: signal }),
          });
          return await result.json<T>();
        } catch (error) {
          signal?.throwIfAborted();
          throw storeError(error, 'query', url);
        }
      };
      // The server closes idle connections, and a process that was busy may not have seen it yet: a question may be
      // asked again, since it changes nothing.
      return ask().catch((error: unknown) => {
        if (error instanceof StoreUnavailableError && error.code === 'ECONNRESET') return ask();
        throw error;
      });
    },

    async command(sql, { database = config.database } = {}) {
      await sendStatement({ ...target, database, timeoutMs: config.queryTimeoutMs }, sql);
    },

    async insertBlock(table, block, token) {
      if (block.rowCount === 0) return;
      const started = performance.now();
      await sendInsert(
        target,
        insertStatement(table, block.columnNames, 'Native'),
        block.chunks,
        block.rowCount,
        token,
      );
      log.debug(
        { table, rows: block.rowCount, bytes: block.byteLength, ms: performance.now() - started },
        'block written',
      );
    },

    async insertRows(table, rows, token) {
      if (rows.length === 0) return;
      if (rows.length > rowsLimit)
        throw new RangeError(`insertRows takes at most ${rowsLimit} rows, got ${rows.length}`);
      const statement = insertStatement(table, columnNamesOf(rows), 'JSONEachRow');
      await sendInsert(target, statement, [encodeRows(rows)], rows.length, token);
    },

    async insertSelect(table, select, params, token) {
      const statement = `INSERT INTO ${quoteName(table)} ${select} ORDER BY ALL`;
      await sendInsertSelect(target, statement, params, token);
    },

    async ping() {
      const result = await client.ping();
      return result.success;
    },

    async close() {
      target.agent.destroy();
      await client.close();
    },
  };
}

/** Opens nothing yet: connections are made by the first call, so a server that is away is an error of that call. */
export function openStore(config: StoreConfig, options: StoreOptions): Store {
  return makeStore(config, ownSettings, options);
}

/**
 * The same server as the user whom it only lets read. That user may not change settings: its profile has
 * `output_format_json_quote_64bit_integers` and `cancel_http_readonly_queries_on_client_close`.
 */
export function openReaderStore(config: StoreConfig, options: StoreOptions): Store {
  const { username, password } = config.reader;
  return makeStore({ ...config, username, password }, {}, options);
}
