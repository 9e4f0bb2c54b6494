/**
 * Confines the calling thread, and the threads that it starts from then on, to a few folders, by Linux's Landlock
 * (https://docs.kernel.org/userspace-api/landlock.html; kernel 5.13 or newer, no rights needed). ClickHouse in this form
 * lets any user read any file by SQL's `file('/path')`; this leaves it none but its own.
 */
import { closeSync, constants, openSync, statSync } from 'node:fs';
import { DataType, load, open } from 'ffi-rs';

/** System calls, with the same numbers on every architecture. */
const createRuleset = 444;
const addRule = 445;
const restrictSelf = 446;
const rulePathBeneath = 1;
const createRulesetVersion = 1;
const prSetNoNewPrivs = 38;
/** O_PATH: a file descriptor that only names. */
const openPathOnly = 0x200000;

const executeFile = 1 << 0;
const writeFile = 1 << 1;
const readFile = 1 << 2;
const readDirectory = 1 << 3;
const truncateFile = 1 << 14;
const deviceControl = 1 << 15;
/** Rights that a rule on a single file may have. */
const fileRights = executeFile | writeFile | readFile | truncateFile | deviceControl;

/** Every right that a version of Landlock knows. */
function allRights(version: number): number {
  const bits = version >= 5 ? 16 : version >= 3 ? 15 : version === 2 ? 14 : 13;
  return 2 ** bits - 1;
}

/** What a server reads of the machine: its own process, memory, cores. Not the processes and files of others. */
const readable = [
  '/proc/self',
  '/proc/meminfo',
  '/proc/cpuinfo',
  '/proc/stat',
  '/proc/uptime',
  '/proc/loadavg',
  '/proc/vmstat',
  '/proc/sys',
  '/sys/devices/system',
  '/sys/fs/cgroup',
  // How host names are found: ClickHouse looks up localhost.
  '/etc/hosts',
  '/etc/host.conf',
  '/etc/nsswitch.conf',
  '/etc/resolv.conf',
  '/etc/gai.conf',
  '/dev/urandom',
  '/dev/random',
];
const writable = ['/dev/null'];

function systemCall(number: number, ...values: (number | Buffer)[]): number {
  const [first = 0, second = 0, third = 0, fourth = 0] = values;
  const typed = [first, second, third, fourth].map((value) =>
    typeof value === 'number' ? DataType.I64 : DataType.U8Array,
  );
  return load({
    library: 'libc',
    funcName: 'syscall',
    retType: DataType.I64,
    paramsType: [DataType.I64, ...typed],
    paramsValue: [number, first, second, third, fourth],
  });
}

function allow(ruleset: number, path: string, rights: number): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | openPathOnly);
  } catch {
    // A machine without this file has nothing there to be read.
    return;
  }
  try {
    const rule = Buffer.alloc(12);
    const granted = statSync(path).isDirectory() ? rights : rights & fileRights;
    rule.writeBigUInt64LE(BigInt(granted), 0);
    rule.writeInt32LE(fd, 8);
    if (systemCall(addRule, ruleset, rulePathBeneath, rule) !== 0)
      throw new Error(`Landlock refuses a rule for ${path}`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Leaves this thread only `folder`, and what a server reads of the machine. Returns whether it did: `false` where the
 * kernel has no Landlock. Throws when the kernel has it and something fails.
 */
export function confineTo(folder: string): boolean {
  open({ library: 'libc', path: 'libc.so.6' });
  const version = systemCall(createRuleset, 0, 0, createRulesetVersion);
  if (version < 1) return false;
  const rights = allRights(version);
  const handled = Buffer.alloc(8);
  handled.writeBigUInt64LE(BigInt(rights), 0);
  const ruleset = systemCall(createRuleset, handled, handled.length);
  if (ruleset < 0) return false;
  allow(ruleset, folder, rights);
  for (const path of readable) allow(ruleset, path, readFile | readDirectory);
  for (const path of writable) allow(ruleset, path, readFile | writeFile | truncateFile | deviceControl);
  const noNewRights = load({
    library: 'libc',
    funcName: 'prctl',
    retType: DataType.I32,
    paramsType: [DataType.I32, DataType.I64, DataType.I64, DataType.I64, DataType.I64],
    paramsValue: [prSetNoNewPrivs, 1, 0, 0, 0],
  });
  if (noNewRights !== 0 || systemCall(restrictSelf, ruleset, 0) !== 0) {
    throw new Error('Landlock refuses to confine the embedded ClickHouse');
  }
  closeSync(ruleset);
  return true;
}
