/** Checks of what runs, here or elsewhere: processes, ports, ClickHouse, bus, ingest, API. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { busFileName } from '../../lib/bus/embedded/embedded-bus.ts';
import { openBus } from '../../lib/bus/open.ts';
import { storeUrl } from '../../lib/store/config.ts';
import { serverPaths } from '../../lib/store/embedded/configuration.ts';
import { tryLock } from '../../lib/store/embedded/lock.ts';
import { readMigrations } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';
import type { Store } from '../../lib/store/store.ts';
import { enrichGroup, topics } from '../../schemas/topics.ts';
import { type FolderPaths, folderPaths, readToken, type UpState } from '../up/folder.ts';
import { type AllConfig, localUrl, requiredPorts } from '../up/plan.ts';
import { portProblems } from '../up/ports.ts';
import { type Finding, fail, ok, reasonOf, warn } from './finding.ts';

/** Whether `eastwest up` runs on this data folder, and what it said of its processes. */
export type Running = UpState | undefined;

const requestTimeoutMs = 3_000;
/** Clocks further apart than this give wrong labels, and than the second are wrong. */
const skewWarnMs = 1_000;
const skewFailMs = 60_000;
/** Messages waiting for the enricher that are no longer a moment's. */
const lagWarnCount = 1_000;
const startHint = 'start it with eastwest up (npm start)';

export function checkProcesses(running: Running): Finding[] {
  if (running === undefined) {
    return [ok('up', 'does not run on this data folder')];
  }
  const bad = running.processes.filter(({ phase }) => phase !== 'ready' && phase !== 'done');
  const summary = ok('up', `runs as process ${running.pid} since ${running.startedAt}`);
  return [
    summary,
    ...bad.map(({ name, phase, reason }) =>
      (phase === 'starting' ? warn : fail)(
        `process ${name}`,
        `${phase}${reason === '' ? '' : `: ${reason}`}`,
        `see logs/${name}.log in the data folder`,
      ),
    ),
  ];
}

export async function checkPorts(config: AllConfig, running: Running): Promise<Finding[]> {
  const ports = requiredPorts(config);
  const named = ports.map(({ port }) => port).join(', ');
  if (running !== undefined) {
    return [ok('ports', `${named} are held by the running Eastwest`)];
  }
  const problems = await portProblems(ports);
  return problems.length === 0
    ? [ok('ports', `${named} are free`)]
    : problems.map((problem) => {
        const [what = '', ...mend] = problem.split('. ');
        return warn('ports', what, mend.join('. '));
      });
}

/** Whether something that isn't there is a fault: not for a machine on which nothing was started yet. */
function absent(check: string, detail: string, expected: boolean): Finding {
  return expected ? fail(check, detail, startHint) : ok(check, `${detail}; eastwest up starts it`);
}

/** Whether a process holds the folder of the embedded store; the port alone may be somebody else's. */
function embeddedStoreRuns(dataDir: string): boolean {
  const { lock: path } = serverPaths(join(resolve(dataDir), 'store'));
  if (!existsSync(path)) {
    return false;
  }
  const lock = tryLock(path);
  lock?.release();
  return lock === null;
}

async function checkMigrations(store: Store): Promise<Finding> {
  const check = 'tables';
  try {
    const rows = await store.query<{ name: string }>('SELECT DISTINCT name FROM migrations');
    const applied = new Set(rows.map(({ name }) => name));
    const missing = readMigrations().filter(({ name }) => !applied.has(name));
    return missing.length === 0
      ? ok(check, `${applied.size} migrations applied`)
      : fail(check, `not applied: ${missing.map(({ name }) => name).join(', ')}`, 'run eastwest migrate');
  } catch (error) {
    return fail(check, reasonOf(error), 'run eastwest migrate');
  }
}

function checkSkew(store: number, before: number, after: number): Finding {
  const skew = Math.round(store - (before + after) / 2);
  const detail = `${skew} ms apart from ClickHouse`;
  const mend = 'set the clocks with NTP on both machines; labels are those of the time of a flow';
  if (Math.abs(skew) > skewFailMs) {
    return fail('clock skew', detail, mend);
  }
  return Math.abs(skew) > skewWarnMs ? warn('clock skew', detail, mend) : ok('clock skew', detail);
}

export async function checkStore(config: AllConfig, running: Running, log: Logger): Promise<Finding[]> {
  const check = 'clickhouse';
  const url = storeUrl(config.store);
  const embedded = config.store.url === '';
  const store = openStore(config.store, { log });
  try {
    if (embedded && !embeddedStoreRuns(config.runtime.dataDir)) {
      return [absent(check, 'the embedded one does not run', running !== undefined)];
    }
    if (!(await store.ping())) {
      const mend = embedded ? 'see logs/store.log in the data folder' : 'start it, or correct store.url';
      return [fail(check, `${url} does not answer`, mend)];
    }
    const before = Date.now();
    const [row] = await store.query<{ version: string; now: string }>(
      'SELECT version() AS version, toString(toUnixTimestamp64Milli(now64(3))) AS now',
    );
    const skew = checkSkew(Number(row?.now), before, Date.now());
    return [ok(check, `${row?.version} at ${url}`), skew, await checkMigrations(store)];
  } catch (error) {
    return [fail(check, `${url}: ${reasonOf(error)}`, 'check store.url, store.username and store.password')];
  } finally {
    await store.close();
  }
}

export async function checkBus(config: AllConfig, log: Logger): Promise<Finding[]> {
  const check = 'bus';
  const { kind, brokers } = config.bus;
  const where =
    kind === 'kafka' ? `kafka at ${brokers.join(', ')}` : `embedded log in ${config.runtime.dataDir}`;
  const mend =
    kind === 'kafka'
      ? 'check bus.brokers, bus.ssl and bus.sasl, and that this machine reaches the brokers'
      : 'check that the data folder can be written and is not full';
  const { dataDir } = config.runtime;
  if (kind === 'embedded' && !existsSync(join(resolve(dataDir), busFileName))) {
    return [ok(check, `${where}: made at the first start`)];
  }
  let bus: Awaited<ReturnType<typeof openBus>> | undefined;
  try {
    bus = await openBus(config.bus, { dataDir, log, clientId: 'eastwest-doctor' });
    const positions = await bus.positions(topics.flows, enrichGroup);
    const lag = positions.reduce(
      (sum, { next, earliest, committed }) => sum + Math.max(0, next - (committed?.offset ?? earliest)),
      0,
    );
    const detail = `${positions.length} partitions of ${topics.flows}, ${lag} batches wait for the enricher`;
    return [
      ok(check, where),
      lag > lagWarnCount
        ? warn(
            'bus lag',
            detail,
            'see that eastwest enrich runs; start more of them, up to one for each partition',
          )
        : ok('bus lag', detail),
    ];
  } catch (error) {
    return [fail(check, `${where}: ${reasonOf(error)}`, mend)];
  } finally {
    await bus?.close().catch(() => undefined);
  }
}

async function request(url: string, init: RequestInit = {}): Promise<Response | string> {
  try {
    return await fetch(url, { ...init, signal: AbortSignal.timeout(requestTimeoutMs) });
  } catch (error) {
    return reasonOf(error);
  }
}

/** The token that agents of this machine send. */
function tokenOf(config: AllConfig, paths: FolderPaths): string | undefined {
  return config.agent.token === '' ? readToken(paths.tokens) : config.agent.token;
}

export async function checkIngest(config: AllConfig, running: Running): Promise<Finding> {
  const check = 'ingest';
  if (config.agent.delivery === 'bus') {
    return ok(check, 'not used: agent.delivery is bus');
  }
  const url = running === undefined ? config.agent.ingestUrl : localUrl(config.ingest);
  const token = tokenOf(config, folderPaths(config.runtime.dataDir));
  // A body of no known type is refused after the token was looked at, and leaves no trace.
  const answer = await request(`${url}/v1/flows`, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-eastwest-doctor',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
  });
  if (typeof answer === 'string') {
    return absent(check, `${url} does not answer (${answer})`, running !== undefined);
  }
  await answer.body?.cancel();
  switch (answer.status) {
    case 401:
    case 403: {
      const mend = 'give the agent a token that ingest knows (agent.token, ingest.tokens, ingest.tokensFile)';
      return fail(check, `${url} answers and does not accept the token`, mend);
    }
    case 415:
      return ok(
        check,
        `${url} answers and accepts ${token === undefined ? 'requests without a token' : 'the token'}`,
      );
    case 429:
    case 503:
      return warn(
        check,
        `${url} answers ${answer.status}: it is under pressure`,
        'see its log, and the bus above',
      );
    default:
      return warn(
        check,
        `${url} answers ${answer.status}`,
        'see that agent.ingestUrl is the address of ingest',
      );
  }
}

export async function checkApi(config: AllConfig, running: Running): Promise<Finding> {
  const check = 'api';
  const url = localUrl(config.query);
  const answer = await request(`${url}/readyz`);
  if (typeof answer === 'string') {
    return absent(check, `${url} does not answer (${answer})`, running !== undefined);
  }
  const text = await answer.text();
  return answer.ok
    ? ok(check, `${url} is ready`)
    : fail(check, `${url} is not ready: ${text.slice(0, 200)}`, 'see logs/query.log in the data folder');
}
