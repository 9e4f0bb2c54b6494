/** Connections from the kernel's connection tracking, through the conntrack program. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Logger } from 'pino';
import { backoffMs } from '../deliver.ts';
import type { ConnectionEvent, FlowEvent } from '../flow-event.ts';
import { lineSplitter } from '../lines.ts';
import type { FlowSource } from '../sources/source.ts';
import type { ConntrackAbility } from './check.ts';
import { netlinkDropCount, untrackedCount } from './losses.ts';
import { conntrackEvent, parseConntrackLine } from './parse.ts';

export interface ConntrackSourceOptions {
  readonly command: string;
  readonly bufferBytes: number;
  readonly ability: ConntrackAbility;
  readonly log: Logger;
  readonly onRestart: () => void;
  readonly onUnreadable: () => void;
}

/** Pauses before the event stream is started again, ms. */
const restartMinMs = 250;
const restartMaxMs = 30_000;

/** The stream ran well when it lasted this long: the next pause is the shortest again, ms. */
const stableMs = 60_000;

/** Dumping all connections takes at most one part in this many of the time. */
const dumpRest = 10;

/** The dump is given up after this long, ms. */
const dumpTimeoutMs = 30_000;

/** How long the start waits for the event stream, ms. */
const startWaitMs = 300;

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return otherwise;
  }
}

/** Inodes of the sockets that a process has open. */
function socketInodes(pid: number): Set<string> {
  const inodes = new Set<string>();
  try {
    for (const name of readdirSync(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${name}`))?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
  } catch {
    // The process is gone, or the descriptor is: what was found so far counts.
  }
  return inodes;
}

export class ConntrackSource implements FlowSource {
  readonly kind = 'conntrack';
  readonly hasCounters: boolean;
  readonly #options: ConntrackSourceOptions;
  #onFlowEvent: (event: FlowEvent) => void = () => undefined;
  #events: ChildProcess | null = null;
  #dump: ChildProcess | null = null;
  #restartTimer: NodeJS.Timeout | null = null;
  #failureCount = 0;
  #stopped = false;
  #nextDumpMs = 0;
  /** Lost by event streams that ended, and by the present one. */
  #pastLossCount = 0;
  #presentLossCount = 0;
  #warningCount = 0;
  #untrackedBefore = 0;

  constructor(options: ConntrackSourceOptions) {
    this.#options = options;
    this.hasCounters = options.ability.accounting;
  }

  async start(onFlowEvent: (event: FlowEvent) => void): Promise<void> {
    this.#onFlowEvent = onFlowEvent;
    this.#untrackedBefore = this.#untracked();
    this.#spawnEvents();
    // The dump comes second: what begins in between is in both, what began before is in the dump.
    await new Promise((resolve) => setTimeout(resolve, startWaitMs));
    await this.refresh();
  }

  #untracked(): number {
    return untrackedCount(readOr('/proc/net/stat/nf_conntrack', ''));
  }

  #take(line: string): ConnectionEvent | null {
    const parsed = parseConntrackLine(line);
    if (parsed === null) {
      if (line.trim() !== '') this.#options.onUnreadable();
      return null;
    }
    return conntrackEvent(parsed, Date.now());
  }

  #spawnEvents(): void {
    const { command, bufferBytes, log } = this.#options;
    const startedMs = Date.now();
    const child = spawn(
      command,
      ['-E', '-o', 'extended,timestamp,id', '--buffer-size', String(bufferBytes)],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    this.#events = child;
    let lastWords = '';
    child.stdout.setEncoding('latin1').on(
      'data',
      lineSplitter((line) => {
        const event = this.#take(line);
        if (event !== null) this.#onFlowEvent(event);
      }),
    );
    child.stderr.setEncoding('utf8').on(
      'data',
      lineSplitter((line) => {
        if (line.includes('ENOBUFS')) this.#warningCount++;
        if (line.trim() !== '' && !line.startsWith('NOTICE')) lastWords = line;
      }),
    );
    const ended = (reason: string): void => {
      if (this.#events !== child) return;
      this.#events = null;
      this.#pastLossCount += Math.max(this.#presentLossCount, this.#warningCount);
      this.#presentLossCount = 0;
      this.#warningCount = 0;
      if (this.#stopped) return;
      if (Date.now() - startedMs >= stableMs) this.#failureCount = 0;
      this.#failureCount++;
      const afterMs = backoffMs(this.#failureCount, restartMinMs, restartMaxMs, Math.random());
      log.warn({ reason, said: lastWords, afterMs }, 'the conntrack event stream ended and is started again');
      this.#options.onRestart();
      this.#restartTimer = setTimeout(() => this.#spawnEvents(), afterMs);
    };
    child.on('error', (error) => ended(error.message));
    child.on('close', (code, signal) => ended(`exit ${code ?? signal}`));
  }

  /** Reads all connections once, unless the last time took so long that the machine deserves a rest. */
  async refresh(): Promise<void> {
    this.#readLosses();
    const startedMs = Date.now();
    if (this.#stopped || startedMs < this.#nextDumpMs || this.#dump !== null) return;
    this.#onFlowEvent({ kind: 'dump-begin', timeMs: startedMs });
    const complete = await this.#readDump();
    const endedMs = Date.now();
    this.#nextDumpMs = endedMs + (endedMs - startedMs) * dumpRest;
    this.#onFlowEvent({ kind: complete ? 'dump-end' : 'dump-failed', timeMs: endedMs });
  }

  #readDump(): Promise<boolean> {
    const { command, log } = this.#options;
    return new Promise((resolve) => {
      const child = spawn(command, ['-L', '-o', 'extended,id'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: dumpTimeoutMs,
      });
      this.#dump = child;
      let said = '';
      child.stdout.setEncoding('latin1').on(
        'data',
        lineSplitter((line) => {
          const event = this.#take(line);
          if (event !== null) this.#onFlowEvent(event);
        }),
      );
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said = text.trim();
      });
      const ended = (reason: string | null): void => {
        if (this.#dump !== child) return;
        this.#dump = null;
        if (reason !== null && !this.#stopped)
          log.warn({ reason, said }, 'the open connections could not be read');
        resolve(reason === null);
      };
      child.on('error', (error) => ended(error.message));
      child.on('close', (code, signal) => ended(code === 0 ? null : `exit ${code ?? signal}`));
    });
  }

  #readLosses(): void {
    const pid = this.#events?.pid;
    if (pid === undefined) return;
    const table = readOr(`/proc/${pid}/net/netlink`, '');
    if (table !== '') this.#presentLossCount = netlinkDropCount(table, socketInodes(pid));
  }

  droppedCount(): number {
    // A warning without a figure stands for one loss at least.
    const lost = this.#pastLossCount + Math.max(this.#presentLossCount, this.#warningCount);
    return lost + Math.max(0, this.#untracked() - this.#untrackedBefore);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer);
    const children = [this.#events, this.#dump].filter((child) => child !== null);
    await Promise.all(
      children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
        child.kill('SIGTERM');
        await once(child, 'close');
      }),
    );
  }
}
