/** The data folder of `eastwest up`: one owner at a time, the agent's token, and who runs now. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import { OperatorError } from '../../lib/runtime/exit.ts';
import type { ProcessStatus } from '../../lib/runtime/process-view.ts';
import { type FolderLock, tryLock } from '../../lib/store/embedded/lock.ts';

export interface FolderPaths {
  readonly lock: string;
  readonly state: string;
  readonly tokens: string;
  readonly logs: string;
}

export function folderPaths(dataDir: string): FolderPaths {
  const root = resolve(dataDir);
  return {
    lock: join(root, 'up.lock'),
    state: join(root, 'up.json'),
    tokens: join(root, 'tokens'),
    logs: join(root, 'logs'),
  };
}

/** Who runs on a data folder. */
export interface UpState {
  readonly pid: number;
  readonly startedAt: string;
  readonly processes: readonly ProcessStatus[];
}

/** What the last owner of the folder wrote; `undefined` when there was none or it can't be read. */
export function readUpState(dataDir: string): UpState | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(folderPaths(dataDir).state, 'utf8'));
    const known =
      typeof value === 'object' &&
      value !== null &&
      'pid' in value &&
      'startedAt' in value &&
      'processes' in value;
    // The file is ours alone, written by `writeUpState`.
    return known ? (value as UpState) : undefined;
  } catch {
    return undefined;
  }
}

export function writeUpState(dataDir: string, state: UpState): void {
  const { state: path } = folderPaths(dataDir);
  writeFileSync(`${path}.new`, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function removeUpState(dataDir: string): void {
  rmSync(folderPaths(dataDir).state, { force: true });
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Creates the folder if needed and becomes its owner; the lock ends with this process, however it dies.
 * @throws {OperatorError} when the folder can't be written or another instance holds it.
 */
export function holdFolder(dataDir: string): FolderLock {
  const root = resolve(dataDir);
  let lock: FolderLock | null;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    lock = tryLock(folderPaths(dataDir).lock);
  } catch (error) {
    throw new OperatorError(
      `the data folder ${root} cannot be used: ${reasonOf(error)}. Give another one with --data-dir`,
    );
  }
  if (lock === null) {
    const owner = readUpState(dataDir);
    const who = owner === undefined ? '' : ` (process ${owner.pid}, since ${owner.startedAt})`;
    throw new OperatorError(
      `another Eastwest${who} uses the data folder ${root}. Stop it, or give another folder with --data-dir`,
    );
  }
  return lock;
}

/** The first token of a tokens file; `undefined` when there is no such file. */
export function readToken(path: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  const value: unknown = parse(text);
  const token = typeof value === 'object' && value !== null ? Object.keys(value)[0] : undefined;
  if (token === undefined) {
    throw new OperatorError(`${path} holds no token; remove the file, and a new one is made`);
  }
  return token;
}

/** The token of this machine's agents, made once and kept in a file that only this user can read. */
export function agentToken(dataDir: string): string {
  const path = folderPaths(dataDir).tokens;
  const existing = readToken(path);
  if (existing !== undefined) {
    chmodSync(path, 0o600);
    return existing;
  }
  const token = randomBytes(24).toString('base64url');
  writeFileSync(path, stringify({ [token]: { agents: '*' } }), { mode: 0o600, flag: 'wx' });
  return token;
}
