/** The parent's side of the embedded ClickHouse: start it, wait until it answers, notice its death, stop it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { type Announcement, holdMarker, type ProcessOptions } from './process.ts';

export interface EmbeddedOptions {
  /** The data folder of this Eastwest; the server keeps to `store/` in it. */
  readonly dataDir: string;
  /** 0 takes a free port. */
  readonly httpPort: number;
  readonly tcpPort: number;
  /** 0 takes the smaller of 4 GiB and 40 % of the machine. */
  readonly memoryBytes: number;
  /** The database that the user `reader` may read; `eastwest` unless told. */
  readonly database?: string;
  readonly log: Logger;
}

export interface EmbeddedServer {
  readonly url: string;
  readonly httpPort: number;
  readonly tcpPort: number;
  readonly pid: number;
  /** Resolves with a sentence when the process has ended, for whatever reason. */
  readonly exited: Promise<string>;
  /** Ends the server: in order if it can within `stopLimitMs`, by force otherwise. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

/** The server can't start; the message says why and what to do. */
export class EmbeddedStoreError extends Error {
  override readonly name = 'EmbeddedStoreError';
}

const startLimitMs = 60_000;
const stopLimitMs = 2_500;
const requestLimitMs = 1_000;
const refreshIntervalMs = 3_000;
const refreshLimitMs = 120_000;
/** Large dictionaries are loaded less often: the pause is this many times the load. */
const refreshRest = 20;
const pollMs = 25;
/** What is kept of stderr for the message about a death, in characters. */
const tailLimit = 2_000;
const defaultMemoryLimitBytes = 4 * 1024 ** 3;
const defaultMemoryShare = 0.4;

/** Path of libchdb.so; throws with advice where the optional package isn't installed. */
export function locateLibrary(platform: string = process.platform, arch: string = process.arch): string {
  const advice = 'set store.url to a ClickHouse server of your own (25.3 or newer)';
  if (platform !== 'linux' || arch !== 'x64') {
    throw new EmbeddedStoreError(
      `the embedded ClickHouse exists for linux-x64 only, this is ${platform}-${arch}; ${advice}`,
    );
  }
  try {
    const manifest = createRequire(import.meta.url).resolve('@chdb/lib-linux-x64-gnu/package.json');
    return join(dirname(manifest), 'libchdb.so');
  } catch {
    throw new EmbeddedStoreError(
      `the optional package @chdb/lib-linux-x64-gnu isn't installed; run npm ci without --omit=optional, or ${advice}`,
    );
  }
}

function defaultMemoryBytes(): number {
  return Math.floor(Math.min(defaultMemoryLimitBytes, totalmem() * defaultMemoryShare));
}

function spawnServer(options: EmbeddedOptions): ChildProcess {
  const processOptions: ProcessOptions = {
    folder: join(resolvePath(options.dataDir), 'store'),
    library: locateLibrary(),
    httpPort: options.httpPort,
    tcpPort: options.tcpPort,
    memoryBytes: options.memoryBytes > 0 ? options.memoryBytes : defaultMemoryBytes(),
    database: options.database ?? 'eastwest',
    mergeThreads: Math.max(2, Math.min(16, availableParallelism())),
  };
  const program = fileURLToPath(new URL('./process.ts', import.meta.url));
  return spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', program, JSON.stringify(processOptions)],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
      // A group of its own: Ctrl-C must reach it last, after those who write to it. It dies with its parent by stdin.
      detached: true,
      // Nothing of the environment, which may hold secrets of others, can be read from inside.
      env: { TZ: 'UTC' },
    },
  );
}

function isAnnouncement(value: unknown): value is Announcement {
  return typeof value === 'object' && value !== null && 'kind' in value;
}

async function readAnnouncement(child: ChildProcess): Promise<Announcement | null> {
  if (child.stdout === null) return null;
  for await (const line of createInterface({ input: child.stdout })) {
    const value: unknown = JSON.parse(line);
    return isAnnouncement(value) ? value : null;
  }
  return null;
}

/** Status of one request on a connection of its own (an idle one would hold up the server's end); 0 when none came. */
async function requestOnce(
  url: string,
  method: 'GET' | 'POST',
  body: string,
  limitMs = requestLimitMs,
): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const outgoing = request(url, { method, agent: false, signal: AbortSignal.timeout(limitMs) });
  outgoing.on('error', () => resolve(0));
  outgoing.on('response', (response) => {
    response.resume();
    response.on('error', () => resolve(0));
    response.on('end', () => resolve(response.statusCode ?? 0));
  });
  outgoing.end(body);
  return promise;
}

/** Cancels the statement that keeps the server up, which makes it shut down in order. */
async function askToStop(url: string): Promise<void> {
  const sql = `KILL QUERY WHERE query LIKE '%${holdMarker}%' AND query NOT LIKE 'KILL QUERY%' ASYNC`;
  await requestOnce(url, 'POST', sql);
}

/** Loads what is new into the dictionaries, which this form of ClickHouse doesn't do by itself; until the server has ended. */
async function refreshDictionaries(url: string, exited: Promise<string>): Promise<void> {
  let isUp = true;
  const wait = new AbortController();
  void exited.then(() => {
    isUp = false;
    wait.abort();
  });
  while (isUp) {
    const started = performance.now();
    await requestOnce(url, 'POST', 'SYSTEM RELOAD DICTIONARIES', refreshLimitMs);
    const pauseMs = Math.max(refreshIntervalMs, (performance.now() - started) * refreshRest);
    await delay(pauseMs, undefined, { ref: false, signal: wait.signal }).catch(() => undefined);
  }
}

function watchExit(child: ChildProcess): { exited: Promise<string>; hasExited: () => boolean } {
  let tail = '';
  let ended = false;
  child.stderr?.on('data', (chunk) => {
    tail = (tail + String(chunk)).slice(-tailLimit);
  });
  child.stdin?.on('error', () => undefined);
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => {
      ended = true;
      resolve(`the embedded ClickHouse can't be started: ${error.message}`);
    });
    child.once('close', (code, signal) => {
      ended = true;
      const words = tail.trim();
      const how = signal === null ? `with exit code ${code}` : `by ${signal}`;
      resolve(`the embedded ClickHouse ended ${how}${words === '' ? '' : `: ${words}`}`);
    });
  });
  return { exited, hasExited: () => ended };
}

/**
 * Starts the server and resolves when it answers. Throws `EmbeddedStoreError` when another instance holds the folder,
 * a port is taken, the library is missing, or it doesn't answer within a minute.
 */
export async function startEmbeddedServer(options: EmbeddedOptions): Promise<EmbeddedServer> {
  const child = spawnServer(options);
  const { exited, hasExited } = watchExit(child);
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  const announcement = await readAnnouncement(child);
  if (announcement?.kind !== 'starting') {
    await kill();
    throw new EmbeddedStoreError(announcement === null ? await exited : announcement.message);
  }
  const { httpPort, tcpPort, confined } = announcement;
  const { log } = options;
  if (!confined) {
    log.warn(
      'this kernel has no Landlock: SQL of people can read files that this user can, by the function file()',
    );
  }
  const url = `http://127.0.0.1:${httpPort}`;
  const deadline = performance.now() + startLimitMs;
  while ((await requestOnce(`${url}/ping`, 'GET', '')) !== 200) {
    if (hasExited()) throw new EmbeddedStoreError(await exited);
    if (performance.now() > deadline) {
      await kill();
      throw new EmbeddedStoreError(
        `the embedded ClickHouse doesn't answer after ${startLimitMs / 1000} s; see store/log`,
      );
    }
    await delay(pollMs);
  }
  log.info({ url, tcpPort, pid: child.pid }, 'the embedded ClickHouse answers');
  void refreshDictionaries(url, exited);
  return {
    url,
    httpPort,
    tcpPort,
    pid: child.pid ?? 0,
    exited,
    kill,
    async stop() {
      if (hasExited()) return;
      await askToStop(url);
      const late = new AbortController();
      const inTime = await Promise.race([
        exited.then(() => true),
        delay(stopLimitMs, false, { signal: late.signal }).catch(() => false),
      ]);
      late.abort();
      if (!inTime) {
        log.warn({ limitMs: stopLimitMs }, 'the embedded ClickHouse is ended by force');
        await kill();
      }
    },
  };
}

/**
 * Runs the embedded server until `signal` is aborted. Rejects with `EmbeddedStoreError` when it can't start or dies.
 * `onReady` is called once it answers, with its address.
 */
export async function runEmbeddedStore(
  options: EmbeddedOptions & {
    readonly signal: AbortSignal;
    readonly onReady?: (server: EmbeddedServer) => void;
  },
): Promise<void> {
  const { signal } = options;
  if (signal.aborted) return;
  const server = await startEmbeddedServer(options);
  options.onReady?.(server);
  const aborted = new Promise<'aborted'>((resolve) => {
    if (signal.aborted) resolve('aborted');
    signal.addEventListener('abort', () => resolve('aborted'), { once: true });
  });
  const outcome = await Promise.race([aborted, server.exited]);
  if (outcome !== 'aborted') throw new EmbeddedStoreError(outcome);
  await server.stop();
}
