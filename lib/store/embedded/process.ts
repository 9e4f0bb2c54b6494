/**
 * The program of the embedded server's own process: takes the folder's lock, writes the configuration, and calls
 * ClickHouse, which then keeps the main thread until the server ends. Started by server.ts only.
 * Speaks one JSON line on stdout (`Announcement`); stdin is the parent's hand: when it closes, the server dies.
 */
import { mkdirSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { arrayConstructor, DataType, load, open } from 'ffi-rs';
import { type ServerOptions, serverConfig, serverPaths, usersConfig } from './configuration.ts';
import { confineTo } from './confine.ts';
import { describeInstance, tryLock, writeInstance } from './lock.ts';

export interface ProcessOptions extends ServerOptions {
  readonly library: string;
}

/** What the process says before the server has its thread. */
export type Announcement =
  | {
      readonly kind: 'starting';
      readonly httpPort: number;
      readonly tcpPort: number;
      readonly confined: boolean;
    }
  | { readonly kind: 'refused'; readonly message: string };

/** Marks the statement that keeps the server up, so that stopping finds it. */
export const holdMarker = 'eastwest holds the server up';

function announce(announcement: Announcement): void {
  writeSync(1, `${JSON.stringify(announcement)}\n`);
}

/** The port itself, or a free one for 0; throws when it is taken. */
async function claimPort(port: number): Promise<number> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, '127.0.0.1', resolve);
  await promise;
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function claimPorts(options: ProcessOptions): Promise<ProcessOptions | string> {
  const ports: number[] = [];
  for (const [setting, port] of [
    ['httpPort', options.httpPort],
    ['tcpPort', options.tcpPort],
  ] as const) {
    try {
      ports.push(await claimPort(port));
    } catch (error) {
      const cause = error instanceof Error && 'code' in error ? error.code : error;
      const reason = cause === 'EADDRINUSE' ? 'is in use by another program' : `can't be opened (${cause})`;
      return `port ${port} of the embedded ClickHouse ${reason}; set store.embedded.${setting} to another one`;
    }
  }
  return { ...options, httpPort: ports[0] ?? 0, tcpPort: ports[1] ?? 0 };
}

/** Watches stdin from a thread of its own: when it ends the parent is gone, and nobody could stop the server any more. */
function dieWithParent(): void {
  const source = `
    const stdin = new (require('node:net').Socket)({ fd: 0 });
    stdin.on('error', () => {}).on('close', () => process.kill(process.pid, 'SIGKILL')).resume();`;
  new Worker(source, { eval: true });
}

function serve(options: ProcessOptions): void {
  const hold = [
    'SYSTEM START LISTEN HTTP',
    'SYSTEM START LISTEN TCP',
    `SELECT sleepEachRow(0.1) FROM numbers(1000000000) /* ${holdMarker} */ SETTINGS max_block_size = 1,
     function_sleep_max_microseconds_per_block = 0, max_execution_time = 0, log_queries = 0 FORMAT Null`,
  ];
  const config = serverPaths(options.folder).config;
  const args = [
    'clickhouse',
    `--config-file=${config}`,
    '--log-level=information',
    '--query',
    hold.join('; '),
  ];
  load({
    library: 'chdb',
    funcName: 'chdb_query_cmdline',
    retType: DataType.External,
    paramsType: [DataType.I32, arrayConstructor({ type: DataType.StringArray, length: args.length })],
    paramsValue: [args.length, args],
    // The server needs the stack of the main thread.
    runInNewThread: false,
  });
}

async function main(wanted: ProcessOptions): Promise<number> {
  const paths = serverPaths(wanted.folder);
  mkdirSync(wanted.folder, { recursive: true });
  const lock = tryLock(paths.lock);
  if (lock === null) {
    const message = `another Eastwest${describeInstance(paths.instance)} holds the data folder ${wanted.folder}; stop it, or choose another folder with --data-dir`;
    announce({ kind: 'refused', message });
    return 1;
  }
  const options = await claimPorts(wanted);
  if (typeof options === 'string') {
    announce({ kind: 'refused', message: options });
    return 1;
  }
  mkdirSync(paths.data, { recursive: true });
  mkdirSync(dirname(paths.log), { recursive: true });
  writeFileSync(paths.config, serverConfig(options));
  writeFileSync(paths.users, usersConfig(options));
  const { httpPort, tcpPort } = options;
  writeInstance(paths.instance, { pid: process.pid, httpPort, tcpPort, startedAt: new Date().toISOString() });
  dieWithParent();
  open({ library: 'chdb', path: options.library });
  const confined = confineTo(options.folder);
  announce({ kind: 'starting', httpPort, tcpPort, confined });
  serve(options);
  lock.release();
  return 0;
}

if (import.meta.main) {
  const options: ProcessOptions = JSON.parse(process.argv[2] ?? '{}');
  process.exit(await main(options));
}
