/** A real ClickHouse server for a test: embedded, on free ports, in a folder that `stop` removes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { StoreConfig } from '../../lib/store/config.ts';
import { type EmbeddedServer, startEmbeddedServer } from '../../lib/store/embedded/server.ts';

export interface TestClickHouse {
  readonly url: string;
  readonly dataDir: string;
  readonly pid: number;
  /** Section `store` for this server; each name is a database of its own. */
  config(database?: string): StoreConfig;
  /** Ends the server and removes its folder. */
  stop(): Promise<void>;
  /** SIGKILL; the data stays for `start`. */
  kill(): Promise<void>;
  /** Starts again on the same ports and data after `kill`. */
  start(): Promise<void>;
}

/** Memory limit of a server in tests; several may run at once. */
const memoryBytes = 1536 * 1024 ** 2;

/** Rows of tests are made up, their times may be long ago. */
const keepAll = { rawDays: 10_000, minuteDays: 10_000, hourDays: 10_000 };

export async function startClickHouse(): Promise<TestClickHouse> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-clickhouse-'));
  const log = pino({ level: 'silent' });
  let server: EmbeddedServer;
  try {
    server = await startEmbeddedServer({ dataDir, httpPort: 0, tcpPort: 0, memoryBytes, log });
  } catch (error) {
    await rm(dataDir, { recursive: true, force: true });
    throw error;
  }
  const { url, httpPort, tcpPort } = server;
  return {
    url,
    dataDir,
    get pid() {
      return server.pid;
    },
    config: (database = 'eastwest') =>
      Parse(StoreConfig, Default(StoreConfig, { url, database, retention: keepAll })),
    async stop() {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
    kill: () => server.kill(),
    async start() {
      server = await startEmbeddedServer({ dataDir, httpPort, tcpPort, memoryBytes, log });
    },
  };
}
