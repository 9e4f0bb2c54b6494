/** The HTTP API over rows made by hand, in a ClickHouse of its own. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import { migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { buildQueryApp } from '../../services/query/app.ts';
import { QueryConfig } from '../../services/query/config.ts';
import type { SqlServer } from '../../services/query/people/sql.ts';
import { startClickHouse, type TestClickHouse } from './clickhouse.ts';
import { type FlowRow, writeFlows, writeInventory } from './query-rows.ts';

const log = pino({ level: 'silent' });
const program = fileURLToPath(new URL('../../cli/eastwest.mjs', import.meta.url));

export interface EndAnswer {
  identity: string;
  name: string;
  workload: string | null;
  address: string | null;
  labels: Record<string, string>;
  cluster: string;
  provenance: string | null;
  certainty: string | null;
}
export interface EdgeAnswer {
  source: EndAnswer;
  destination: EndAnswer;
  port: number;
  verdict: string;
  reason: string;
  rule: { name: string } | null;
  direction: string;
  severity: string;
  flows: number;
  connections: number;
  bytesForward: number;
  bytesReverse: number;
  sides: string[];
  firstSeen: string;
  lastSeen: string;
  dns: string | null;
  process: string | null;
  pending: number;
  ambiguous: number;
  late: number;
  unnamed: number;
}
export interface ListAnswer {
  items: EdgeAnswer[];
  total: number;
  next: string | null;
  table: string;
  completeness: Record<string, number | string | null>;
}

/** A whole minute in the past, never a whole hour, in seconds since the epoch. */
export function pastMinute(): number {
  const minute = Math.floor(Date.now() / 60_000) * 60 - 120;
  return minute % 3600 === 0 ? minute - 60 : minute;
}

/** The application as it is configured, over a store. */
export function buildScene(
  config: Record<string, unknown>,
  sqlServer: SqlServer,
  store: Store,
): Promise<FastifyInstance> {
  return buildQueryApp({
    config: Parse(QueryConfig, Default(QueryConfig, config)),
    store,
    sqlServer,
    minuteDays: 30,
    registry: new Registry(),
    log,
  });
}

export interface QueryScene {
  readonly clickhouse: TestClickHouse;
  readonly store: Store;
  readonly app: FastifyInstance;
  readonly sqlServer: SqlServer;
  /** The answer to a request that must be good. */
  ask<T>(url: string): Promise<T>;
  close(): Promise<void>;
}

/** The small estate with `rows`; its addresses are valid since `sinceMs`. */
export async function openQueryScene(rows: readonly FlowRow[], sinceMs: number): Promise<QueryScene> {
  const clickhouse = await startClickHouse();
  const config = clickhouse.config();
  const store = openStore(config, { log });
  const sqlServer = { url: clickhouse.url, database: config.database, ...config.reader };
  const app = await buildScene({}, sqlServer, store);
  const close = async (): Promise<void> => {
    await app.close();
    await store.close();
    await clickhouse.stop();
  };
  try {
    await migrate(store, { log });
    await writeInventory(store, sinceMs);
    // Two inserts: what was not merged yet must add up all the same.
    const half = Math.floor(rows.length / 2);
    await writeFlows(store, rows.slice(0, half));
    await writeFlows(store, rows.slice(half));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    clickhouse,
    store,
    app,
    sqlServer,
    async ask<T>(url: string): Promise<T> {
      const answer = await app.inject(url);
      assert.equal(answer.statusCode, 200, `${url}: ${answer.body}`);
      return answer.json<T>();
    },
    close,
  };
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command of `eastwest` to its end. */
export function runCommand(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<CommandResult> {
  const { promise, resolve } = Promise.withResolvers<CommandResult>();
  const env = { ...process.env, ...environment };
  execFile(process.execPath, [program, ...args], { env }, (error, stdout, stderr) => {
    resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
  });
  return promise;
}
