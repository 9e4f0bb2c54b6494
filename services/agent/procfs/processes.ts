/**
 * Finds which process has a socket, through /proc/<pid>/fd. Only new sockets are looked for, the likeliest processes
 * first, within a budget of time for each call; what was not found goes on being looked for a few rounds.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { podUidOf } from './pod-uid.ts';

/** Whose a socket is. */
export interface SocketOwner {
  /** Name of the process. */
  readonly name: string;
  /** Uid of its pod, or empty. */
  readonly podUid: string;
}

export interface ProcessNamesOptions {
  /** Folder of the process files. */
  readonly root: string;
  /** Most time that one `search` takes, ms. */
  readonly budgetMs: number;
  readonly nowMs: () => number;
}

/** Whole rounds over all processes before a socket is given up (another user's, or gone). */
const maxRounds = 2;

/** Sockets that are looked for at the same time, at most. */
const maxWanted = 4096;

/** Processes that are remembered as likely owners of new sockets. */
const maxRecentOwners = 32;

function readOr(read: () => string, otherwise: string): string {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The name people know a process by: its own, unless that is the name of its main thread. */
export function processName(comm: string, exe: string, argument0: string): string {
  const program = basename(exe.replace(/ \(deleted\)$/, ''));
  const isProgram = [program, basename(argument0)].some((name) => name !== '' && name.startsWith(comm));
  return comm !== '' && (isProgram || program === '') ? comm : program;
}

export class ProcessNames {
  readonly #options: ProcessNamesOptions;
  /** Inode of a wanted socket -> rounds that were begun since it is wanted. */
  readonly #wanted = new Map<number, number>();
  #recentOwners: string[] = [];
  #queue: string[] = [];

  constructor(options: ProcessNamesOptions) {
    this.#options = options;
  }

  isWanted(inode: number): boolean {
    return this.#wanted.has(inode);
  }

  want(inode: number): void {
    if (this.#options.budgetMs > 0 && this.#wanted.size < maxWanted) this.#wanted.set(inode, 0);
  }

  forget(inode: number): void {
    this.#wanted.delete(inode);
  }

  /** Looks for the wanted sockets; calls `onFound` for each one found now. */
  search(onFound: (inode: number, owner: SocketOwner) => void): void {
    if (this.#wanted.size === 0) return;
    const { nowMs, budgetMs } = this.#options;
    const untilMs = nowMs() + budgetMs;
    const recent = [...this.#recentOwners];
    for (const pid of recent) {
      this.#searchProcess(pid, onFound);
      if (this.#wanted.size === 0 || nowMs() >= untilMs) return;
    }
    if (this.#queue.length === 0) this.#beginRound();
    for (let pid = this.#queue.pop(); pid !== undefined; pid = this.#queue.pop()) {
      if (!recent.includes(pid)) this.#searchProcess(pid, onFound);
      if (this.#wanted.size === 0 || nowMs() >= untilMs) return;
    }
  }

  #beginRound(): void {
    for (const [inode, rounds] of this.#wanted) {
      if (rounds >= maxRounds) this.#wanted.delete(inode);
      else this.#wanted.set(inode, rounds + 1);
    }
    if (this.#wanted.size === 0) return;
    // The list is taken from its end: the youngest processes first.
    this.#queue = list(this.#options.root).filter((name) => /^\d+$/.test(name));
  }

  #searchProcess(pid: string, onFound: (inode: number, owner: SocketOwner) => void): void {
    const folder = `${this.#options.root}/${pid}/fd`;
    let owner: SocketOwner | null = null;
    for (const descriptor of list(folder)) {
      const target = readOr(() => readlinkSync(`${folder}/${descriptor}`), '');
      if (!target.startsWith('socket:[')) continue;
      const inode = Number(target.slice(8, -1));
      if (!this.#wanted.delete(inode)) continue;
      owner ??= this.#ownerOf(pid);
      onFound(inode, owner);
      if (this.#wanted.size === 0) break;
    }
    if (owner !== null) {
      this.#recentOwners = [pid, ...this.#recentOwners.filter((other) => other !== pid)].slice(
        0,
        maxRecentOwners,
      );
    }
  }

  #ownerOf(pid: string): SocketOwner {
    const folder = `${this.#options.root}/${pid}`;
    const comm = readOr(() => readFileSync(`${folder}/comm`, 'utf8'), '').trim();
    const exe = readOr(() => readlinkSync(`${folder}/exe`), '');
    const argument0 = readOr(() => readFileSync(`${folder}/cmdline`, 'utf8'), '').split('\0')[0] ?? '';
    const cgroup = readOr(() => readFileSync(`${folder}/cgroup`, 'utf8'), '');
    return { name: processName(comm, exe, argument0), podUid: podUidOf(cgroup) };
  }
}
