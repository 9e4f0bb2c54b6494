/** Checks of this machine: Node, libraries, folder, memory, files, clock, conntrack. */
import { accessSync, constants, readFileSync, statfsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { EmbeddedStoreError, locateLibrary } from '../../lib/store/embedded/server.ts';
import { checkConntrack } from '../../services/agent/conntrack/check.ts';
import type { AllConfig } from '../up/plan.ts';
import { type Finding, fail, ok, reasonOf, warn } from './finding.ts';

const gib = 1024 ** 3;
const neededNodeMajor = 24;
/** Free space below this will soon be a problem, and below the second is one, bytes. */
const littleSpaceBytes = 5 * gib;
const noSpaceBytes = gib / 2;
const littleMemoryBytes = 2 * gib;
/** ClickHouse keeps a file open for each column of each part it reads. */
const fewFiles = 4_096;
const tooFewFiles = 512;
/** A clock before the day this was written is wrong. */
const earliestYear = 2026;

function gigabytes(bytes: number): string {
  return `${(bytes / gib).toFixed(1)} GiB`;
}

export function checkNode(version: string = process.versions.node): Finding {
  if (Number.parseInt(version, 10) >= neededNodeMajor) {
    return ok('node', `${version} on ${process.platform}-${process.arch}`);
  }
  return fail('node', `${version}`, `install Node ${neededNodeMajor} or newer, or run npm ci on Linux`);
}

export async function checkLibrary(config: AllConfig): Promise<Finding> {
  const check = 'embedded store';
  if (config.store.url !== '') {
    return ok(check, 'not used: store.url names a server');
  }
  try {
    const path = locateLibrary();
    await import('ffi-rs');
    return ok(check, `libchdb is installed (${path})`);
  } catch (error) {
    const mend =
      error instanceof EmbeddedStoreError
        ? 'npm ci installs it on Linux x64; elsewhere set store.url'
        : 'the library ffi-rs cannot be loaded: run npm ci again on this machine, or set store.url';
    return fail(check, reasonOf(error), mend);
  }
}

/** The folder itself, or the closest one above that exists. */
function existingFolder(path: string): string {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      accessSync(folder, constants.F_OK);
      return folder;
    } catch {
      if (folder === dirname(folder)) {
        return folder;
      }
    }
  }
}

export function checkFolder(dataDir: string): Finding {
  const check = 'data folder';
  const folder = existingFolder(dataDir);
  try {
    accessSync(folder, constants.W_OK);
  } catch {
    return fail(check, `${folder} cannot be written by this user`, 'give another folder with --data-dir');
  }
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  const detail = `${resolve(dataDir)}, ${gigabytes(free)} free`;
  const mend = 'make room on that disk, or give a folder on another one with --data-dir';
  if (free < noSpaceBytes) {
    return fail(check, detail, mend);
  }
  return free < littleSpaceBytes ? warn(check, detail, mend) : ok(check, detail);
}

export function checkMemory(bytes: number = totalmem()): Finding {
  const detail = `${gigabytes(bytes)} in all`;
  return bytes < littleMemoryBytes
    ? warn(
        'memory',
        detail,
        'everything on one machine wants 2 GiB or more; run services on several machines',
      )
    : ok('memory', detail);
}

/** The soft limit of open files in the text of /proc/self/limits; `undefined` when it isn't there. */
export function openFileLimit(limits: string): number | undefined {
  const found = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  if (found === undefined) {
    return undefined;
  }
  return found === 'unlimited' ? Number.POSITIVE_INFINITY : Number(found);
}

export function checkOpenFiles(
  readLimits: () => string = () => readFileSync('/proc/self/limits', 'utf8'),
): Finding {
  const check = 'open files';
  let limit: number | undefined;
  try {
    limit = openFileLimit(readLimits());
  } catch {
    // No procfs here.
  }
  const mend = 'raise it with ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit';
  if (limit === undefined) {
    return warn(check, 'the limit is not known on this system', 'see that it is 4096 or more (ulimit -n)');
  }
  const detail = `at most ${limit}`;
  if (limit < tooFewFiles) {
    return fail(check, detail, mend);
  }
  return limit < fewFiles ? warn(check, detail, mend) : ok(check, detail);
}

export function checkClock(nowMs: number = Date.now()): Finding {
  const now = new Date(nowMs);
  return now.getUTCFullYear() < earliestYear
    ? fail('clock', now.toISOString(), 'the clock is wrong: set it, and keep it right with NTP (chrony)')
    : ok('clock', now.toISOString());
}

export async function checkCapture(config: AllConfig): Promise<Finding> {
  const check = 'conntrack';
  const { source, conntrackCommand } = config.agent;
  if (source === 'procfs') {
    return ok(check, 'not used: agent.source is procfs');
  }
  const ability = await checkConntrack(conntrackCommand);
  if ('message' in ability) {
    const report = source === 'conntrack' ? fail : warn;
    const without =
      source === 'conntrack' ? '' : '; until then sockets are read from /proc, without byte counts';
    return report(check, ability.reason, `${ability.message}${without}`);
  }
  const missing = [
    ...(ability.accounting ? [] : ['net.netfilter.nf_conntrack_acct=1']),
    ...(ability.timestamps ? [] : ['net.netfilter.nf_conntrack_timestamp=1']),
  ];
  return missing.length === 0
    ? ok(check, 'events can be read, with counters and times')
    : warn(
        check,
        'events can be read, but not all that the kernel could tell',
        `sysctl -w ${missing.join(' ')}`,
      );
}
