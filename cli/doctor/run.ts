/** Runs every check of `eastwest doctor`; one that hangs or breaks is a finding, not the end. */
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { tryLock } from '../../lib/store/embedded/lock.ts';
import { folderPaths, readUpState } from '../up/folder.ts';
import type { AllConfig } from '../up/plan.ts';
import { type Finding, fail, reasonOf } from './finding.ts';
import {
  checkCapture,
  checkClock,
  checkFolder,
  checkLibrary,
  checkMemory,
  checkNode,
  checkOpenFiles,
} from './machine.ts';
import {
  checkApi,
  checkBus,
  checkIngest,
  checkPorts,
  checkProcesses,
  checkStore,
  type Running,
} from './services.ts';

/** Longest time of one check. */
const checkTimeoutMs = 10_000;

async function bounded(name: string, check: () => Promise<Finding[]>): Promise<Finding[]> {
  const late = new AbortController();
  const timeout = delay(checkTimeoutMs, undefined, { signal: late.signal }).then(() => [
    fail(
      name,
      `no answer within ${checkTimeoutMs / 1000} s`,
      'see that its address is right and nothing blocks the way',
    ),
  ]);
  try {
    return await Promise.race([check(), timeout]);
  } catch (error) {
    return [fail(name, reasonOf(error), 'see the message')];
  } finally {
    late.abort();
    timeout.catch(() => undefined);
  }
}

/** What `up` wrote about itself, if it still holds the folder. */
function findRunning(dataDir: string): Running {
  const paths = folderPaths(dataDir);
  if (!existsSync(paths.lock)) {
    return undefined;
  }
  const lock = tryLock(paths.lock);
  lock?.release();
  return lock === null ? readUpState(dataDir) : undefined;
}

/** All findings, in the order in which a person would mend them. */
export async function examine(config: AllConfig): Promise<Finding[]> {
  const log = pino({ level: 'silent' });
  const running = findRunning(config.runtime.dataDir);
  const checks: [string, () => Finding[] | Promise<Finding[]>][] = [
    ['node', () => [checkNode()]],
    ['embedded store', async () => [await checkLibrary(config)]],
    ['data folder', () => [checkFolder(config.runtime.dataDir)]],
    ['memory', () => [checkMemory()]],
    ['open files', () => [checkOpenFiles()]],
    ['clock', () => [checkClock()]],
    ['up', () => checkProcesses(running)],
    ['ports', () => checkPorts(config, running)],
    ['clickhouse', () => checkStore(config, running, log)],
    ['bus', () => checkBus(config, log)],
    ['ingest', async () => [await checkIngest(config, running)]],
    ['api', async () => [await checkApi(config, running)]],
    ['conntrack', async () => [await checkCapture(config)]],
  ];
  const findings = await Promise.all(checks.map(([name, check]) => bounded(name, async () => check())));
  return findings.flat();
}
