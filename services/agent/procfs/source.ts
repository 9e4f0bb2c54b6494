/** Connections from the socket tables in /proc: needs no rights, knows the process, has no byte counts. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import type { FlowEvent } from '../flow-event.ts';
import type { FlowSource } from '../sources/source.ts';
import { parseSocketTable, parseTcpActivity, type TcpActivity } from './parse.ts';
import { ProcessNames } from './processes.ts';
import { type SocketProtocol, SocketTable } from './sockets.ts';

export interface ProcfsSourceOptions {
  /** Normally /proc. */
  readonly root: string;
  readonly pollMs: number;
  readonly processScanMs: number;
  readonly isOwn: (address: string) => boolean;
  readonly onPoll: (tookMs: number) => void;
}

const tables: readonly { file: string; protocol: SocketProtocol }[] = [
  { file: 'tcp', protocol: 'tcp' },
  { file: 'tcp6', protocol: 'tcp' },
  { file: 'udp', protocol: 'udp' },
  { file: 'udp6', protocol: 'udp' },
];

/** A poll is followed by a pause of at least this many times what it took. */
const pollRest = 30;

/**
 * The tables of TCP are read when the kernel's counters moved, else only this often, ms: to write them, the kernel
 * walks through all its buckets, which takes milliseconds for a single socket too.
 */
const maxTcpRestMs = 10_000;

const firstBufferBytes = 64 * 1024;

/** Largest table that is read, bytes (half a million sockets). */
const maxTableBytes = 128 * 1024 * 1024;

/** Reads files of /proc again and again into one buffer, which grows with the largest. */
class Reader {
  buffer = Buffer.alloc(firstBufferBytes);

  /** Length of the file; 0 where there is none (no IPv6). */
  read(path: string): number {
    let file: number;
    try {
      file = openSync(path, 'r');
    } catch {
      return 0;
    }
    try {
      let length = 0;
      for (;;) {
        if (length === this.buffer.length) {
          if (length >= maxTableBytes) return length;
          this.buffer = Buffer.concat([this.buffer], this.buffer.length * 2);
        }
        const count = readSync(file, this.buffer, length, this.buffer.length - length, null);
        if (count === 0) return length;
        length += count;
      }
    } finally {
      closeSync(file);
    }
  }
}

export class ProcfsSource implements FlowSource {
  readonly kind = 'procfs';
  readonly hasCounters = false;
  readonly #options: ProcfsSourceOptions;
  readonly #reader = new Reader();
  readonly #sockets: SocketTable;
  readonly #processes: ProcessNames;
  #onFlowEvent: (event: FlowEvent) => void = () => undefined;
  #timer: NodeJS.Timeout | null = null;
  #lastPollMs = 0;
  /** What the kernel had counted when we began. */
  #openCountAtStart: number | null = null;
  #lastActivity: TcpActivity | null = null;
  #lastTcpReadMs = 0;
  #droppedCount = 0;

  constructor(options: ProcfsSourceOptions) {
    this.#options = options;
    this.#processes = new ProcessNames({
      root: options.root,
      budgetMs: options.processScanMs,
      nowMs: () => performance.now(),
    });
    this.#sockets = new SocketTable({
      isOwn: options.isOwn,
      onSocket: (inode) => this.#processes.want(inode),
      onSocketGone: (inode) => this.#processes.forget(inode),
      isSought: (inode) => this.#processes.isWanted(inode),
    });
  }

  async start(onFlowEvent: (event: FlowEvent) => void): Promise<void> {
    this.#onFlowEvent = onFlowEvent;
    this.#onFlowEvent({ kind: 'dump-begin', timeMs: Date.now() });
    this.#openCountAtStart = this.#readActivity()?.openCount ?? null;
    this.#poll();
    this.#onFlowEvent({ kind: 'dump-end', timeMs: Date.now() });
    this.#schedule(0);
  }

  #schedule(tookMs: number): void {
    this.#timer = setTimeout(
      () => {
        const startedMs = performance.now();
        this.#poll();
        const took = performance.now() - startedMs;
        this.#options.onPoll(took);
        this.#schedule(took);
      },
      Math.max(this.#options.pollMs, tookMs * pollRest),
    );
  }

  #readActivity(): TcpActivity | null {
    try {
      return parseTcpActivity(readFileSync(`${this.#options.root}/net/snmp`, 'latin1'));
    } catch {
      return null;
    }
  }

  #poll(): void {
    const nowMs = Date.now();
    this.#lastPollMs = nowMs;
    // Read before the tables, so that what begins in between is neither overlooked nor taken for lost.
    const activity = this.#readActivity();
    const hasTcpNews =
      activity === null ||
      activity.fingerprint !== this.#lastActivity?.fingerprint ||
      nowMs - this.#lastTcpReadMs >= maxTcpRestMs;
    this.#lastActivity = activity;
    if (hasTcpNews) this.#lastTcpReadMs = nowMs;
    this.#sockets.beginPass();
    for (const { file, protocol } of tables) {
      if (protocol === 'tcp' && !hasTcpNews) {
        this.#sockets.keep(protocol);
        continue;
      }
      const length = this.#reader.read(`${this.#options.root}/net/${file}`);
      parseSocketTable(this.#reader.buffer, length, (endpoints, state, inode) =>
        this.#sockets.row(protocol, endpoints, state, inode, nowMs),
      );
    }
    this.#sockets.endPass(nowMs, this.#onFlowEvent);
    this.#processes.search((inode, owner) => this.#sockets.owned(inode, owner));
    this.#sockets.emitChanges(nowMs, this.#onFlowEvent);
    if (activity !== null && this.#openCountAtStart !== null) {
      const unseen = activity.openCount - this.#openCountAtStart - this.#sockets.openCount;
      this.#droppedCount = Math.max(this.#droppedCount, unseen);
    }
  }

  /** Looks once more before a report, unless a poll has just been. */
  async refresh(): Promise<void> {
    if (Date.now() - this.#lastPollMs >= this.#options.pollMs / 4) this.#poll();
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  droppedCount(): number {
    return this.#droppedCount;
  }
}
