/** Shows what a supervisor does: a table that stays at the bottom of a terminal, or plain lines elsewhere. */
import { formatLogEntry, parseLogLine } from './log-line.ts';
import { formatTable } from './table.ts';

export type ProcessPhase =
  | 'waiting'
  | 'starting'
  | 'ready'
  | 'restarting'
  | 'stopping'
  | 'stopped'
  | 'done'
  | 'failed';

export interface ProcessStatus {
  readonly name: string;
  readonly pid: number | undefined;
  readonly phase: ProcessPhase;
  /** Why it isn't ready, or why it ended; empty when there is nothing to say. */
  readonly reason: string;
  readonly restartCount: number;
  readonly startedAtMs: number | undefined;
  readonly memoryBytes: number | undefined;
  /** Where its probes are served, once known. */
  readonly probesUrl: string | undefined;
}

export interface ProcessView {
  /** A process changed. */
  update(all: readonly ProcessStatus[], changed: ProcessStatus | undefined): void;
  /** A line of a process' output that a person should see. */
  output(name: string, line: string): void;
  /** A line of our own. */
  say(line: string): void;
  close(): void;
}

/** At least this long between two drawings of the table. */
const redrawIntervalMs = 2_000;

/** A process that starts for this long says why. */
const slowStartMs = 5_000;

function uptime(startedAtMs: number | undefined, nowMs: number): string {
  if (startedAtMs === undefined) {
    return '';
  }
  const minutes = Math.floor((nowMs - startedAtMs) / 60_000);
  if (minutes < 1) {
    return '<1m';
  }
  return minutes < 120 ? `${minutes}m` : `${Math.floor(minutes / 60)}h`;
}

function memory(bytes: number | undefined): string {
  // Tens of MB, so that the table is still while nothing of note happens.
  return bytes === undefined ? '' : `${Math.max(10, Math.round(bytes / 1e7) * 10)} MB`;
}

/** The table as lines. */
export function processTable(all: readonly ProcessStatus[], nowMs: number): string[] {
  return formatTable(
    [
      { title: 'PROCESS' },
      { title: 'PID', align: 'right' },
      { title: 'STATE' },
      { title: 'RESTARTS', align: 'right' },
      { title: 'UP', align: 'right' },
      { title: 'MEMORY', align: 'right' },
      { title: '' },
    ],
    all.map((process) => [
      process.name,
      process.pid === undefined ? '' : String(process.pid),
      process.phase,
      String(process.restartCount),
      uptime(process.startedAtMs, nowMs),
      memory(process.memoryBytes),
      process.phase === 'ready' ? '' : process.reason,
    ]),
  );
}

function clock(nowMs: number): string {
  const now = new Date(nowMs);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`;
}

function statusLine(status: ProcessStatus): string {
  const pid = status.pid === undefined ? '' : ` (pid ${status.pid})`;
  return `${status.name.padEnd(9)} ${status.phase}${pid}${status.reason === '' ? '' : `: ${status.reason}`}`;
}

export interface ViewOptions {
  readonly stream: NodeJS.WriteStream;
  readonly now?: () => number;
}

/** Readable form of a child's log line; text that is no log line stays as it is. */
function readable(line: string, colour: boolean): string {
  const entry = parseLogLine(line);
  return entry === undefined ? line : formatLogEntry(entry, colour);
}

function plainView(options: ViewOptions, now: () => number): ProcessView {
  const write = (text: string): void => void options.stream.write(`${text}\n`);
  const shown = new Map<
    string,
    { phase: ProcessPhase; pid: number | undefined; atMs: number; line: string }
  >();
  return {
    update(_all, changed) {
      if (changed === undefined) {
        return;
      }
      const { name, phase, pid } = changed;
      const last = shown.get(name);
      const line = statusLine(changed);
      const same = last !== undefined && last.phase === phase && last.pid === pid;
      // What a starting process waits for changes quickly; it is worth a line once it takes long.
      if (!same || (last.line !== line && now() - last.atMs >= slowStartMs)) {
        write(`${clock(now())} ${line}`);
        shown.set(name, { phase, pid, atMs: now(), line });
      }
    },
    output: (name, line) => write(`${clock(now())} ${name.padEnd(9)} ${readable(line, false)}`),
    say: write,
    close: () => undefined,
  };
}

function terminalView(options: ViewOptions, now: () => number): ProcessView {
  const { stream } = options;
  let drawn: string[] = [];
  let wanted: readonly ProcessStatus[] = [];
  let drawnAtMs = 0;
  let timer: NodeJS.Timeout | undefined;
  const erase = (): string => (drawn.length === 0 ? '' : `\u001b[${drawn.length}A\u001b[0J`);
  const fit = (line: string): string => [...line].slice(0, Math.max(20, (stream.columns ?? 80) - 1)).join('');
  const draw = (): void => {
    timer = undefined;
    const lines = ['', ...processTable(wanted, now()).map(fit)];
    if (lines.join('\n') !== drawn.join('\n')) {
      stream.write(`${erase()}${lines.join('\n')}\n`);
      drawn = lines;
      drawnAtMs = now();
    }
  };
  const above = (text: string): void => {
    stream.write(`${erase()}${text}\n${drawn.map((line) => `${line}\n`).join('')}`);
  };
  return {
    update(all) {
      wanted = all;
      timer ??= setTimeout(draw, Math.max(0, drawnAtMs + redrawIntervalMs - now()));
    },
    output: (name, line) =>
      above(`\u001b[2m${clock(now())}\u001b[0m ${name.padEnd(9)} ${readable(line, true)}`),
    say: above,
    close() {
      clearTimeout(timer);
      draw();
    },
  };
}

/** A table on a terminal, plain lines elsewhere. */
export function createProcessView(options: ViewOptions): ProcessView {
  const now = options.now ?? Date.now;
  return options.stream.isTTY === true ? terminalView(options, now) : plainView(options, now);
}
