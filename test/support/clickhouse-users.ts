/** A ClickHouse server with users of one's own: to see that a users file of `deploy/` is one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { serverConfig, serverPaths } from '../../lib/store/embedded/configuration.ts';
import { locateLibrary } from '../../lib/store/embedded/server.ts';

const startTimeoutMs = 30_000;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** What the users.xml of an installed server has, which files in users.d are merged with. */
function installed(users: string): string {
  const local = '<networks><ip>::1</ip><ip>127.0.0.1</ip></networks>';
  return users
    .replace('<clickhouse>', '<clickhouse><quotas><default/></quotas>')
    .replace('<profiles>', '<profiles><default/>')
    .replace('<users>', `<users><default><password></password>${local}<profile>default</profile></default>`)
    .replaceAll(' replace="replace"', '');
}

const program = `
  import { arrayConstructor, DataType, load, open } from 'ffi-rs';
  const [library, config] = process.argv.slice(1);
  open({ library: 'chdb', path: library });
  const hold = 'SYSTEM START LISTEN HTTP; SELECT sleepEachRow(0.1) FROM numbers(1000000000) ' +
    'SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, max_execution_time = 0 FORMAT Null';
  const args = ['clickhouse', '--config-file=' + config, '--query', hold];
  load({
    library: 'chdb', funcName: 'chdb_query_cmdline', retType: DataType.External, runInNewThread: false,
    paramsType: [DataType.I32, arrayConstructor({ type: DataType.StringArray, length: args.length })],
    paramsValue: [args.length, args],
  });`;

export interface ServerWithUsers {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts a server whose users are those of `users` (the text of a file for users.d). */
export async function startWithUsers(
  users: string,
  environment: Readonly<Record<string, string>>,
): Promise<ServerWithUsers> {
  const folder = mkdtempSync(join(tmpdir(), 'eastwest-users-'));
  const paths = serverPaths(folder);
  const httpPort = await freePort();
  const tcpPort = await freePort();
  mkdirSync(paths.data, { recursive: true });
  mkdirSync(dirname(paths.log), { recursive: true });
  const limits = { memoryBytes: 1024 ** 3, database: 'eastwest', mergeThreads: 1 };
  writeFileSync(paths.config, serverConfig({ folder, httpPort, tcpPort, ...limits }));
  writeFileSync(paths.users, installed(users));
  const args = ['--input-type=module', '--eval', program, locateLibrary(), paths.config];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${httpPort}`;
  const deadline = performance.now() + startTimeoutMs;
  while (
    !(await fetch(`${url}/ping`)
      .then((answer) => answer.ok)
      .catch(() => false))
  ) {
    if (performance.now() > deadline || child.exitCode !== null) {
      await stop();
      throw new Error(`ClickHouse did not start: ${errors}`);
    }
    await delay(50);
  }
  return { url, stop };
}
