/** Starts processes in the order of their needs, keeps them alive, and stops them without leaving one behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Static } from 'typebox';
import { backoffMs } from './backoff.ts';
import { exitCodes } from './exit.ts';
import { splitLines } from './lines.ts';
import { parseLogLine } from './log-line.ts';
import { residentBytes } from './memory.ts';
import { type ChildMessage, parentVariable } from './parent.ts';
import type { ProcessPhase, ProcessStatus, ProcessView } from './process-view.ts';
import { openRotatingFile, type RotatingFile } from './rotating-file.ts';
import type { SupervisorConfig } from './supervisor-config.ts';

export interface ProcessSpec {
  readonly name: string;
  /** Script and arguments, run by this Node. */
  readonly argv: readonly string[];
  /** Added to the environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A service is started again whenever it ends; a job until it once ends well. */
  readonly kind: 'service' | 'job';
  /** Started when all of these are ready (services) or done (jobs); stopped before them. */
  readonly dependsOn: readonly string[];
}

export interface SupervisorOptions {
  readonly specs: readonly ProcessSpec[];
  readonly config: Static<typeof SupervisorConfig>;
  readonly logsDir: string;
  readonly view: ProcessView;
  /** Called after every change. */
  readonly onChange?: (all: readonly ProcessStatus[]) => void;
}

export interface Supervisor {
  start(): void;
  /** Resolves when every process is ready or done. */
  readonly ready: Promise<void>;
  /** Resolves with the name and reason when a process ended in a way that no restart mends. */
  readonly failed: Promise<{ readonly name: string; readonly reason: string }>;
  status(): readonly ProcessStatus[];
  /** Ends all, dependents first; resolves when none is left, at most a moment after `killAfterMs`. */
  stop(): Promise<void>;
}

interface Managed {
  readonly spec: ProcessSpec;
  readonly file: RotatingFile;
  child: ChildProcess | undefined;
  phase: ProcessPhase;
  reason: string;
  restartCount: number;
  /** Failures in a row, for the backoff. */
  failureCount: number;
  startedAtMs: number | undefined;
  memoryBytes: number | undefined;
  probesUrl: string | undefined;
  timer: NodeJS.Timeout | undefined;
  lastError: string;
}

/** How often the memory of the processes is read. */
const memoryIntervalMs = 5_000;
/** How long the rest of a dead process' output is waited for. */
const lastWordsMs = 300;
/** A process' line that says the same as one before is shown again after this long; the log file has them all. */
const repeatAfterMs = 10_000;
/** How many different lines are remembered for that. */
const shownLimit = 1_000;
/** pino's number for warnings. */
const warnLevel = 40;

function isMessage(value: unknown): value is ChildMessage {
  return (
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    ((value.type === 'ready' && 'ready' in value && 'parts' in value) ||
      (value.type === 'http' && 'url' in value))
  );
}

/** Signals a whole process group, so that nothing a child started is left; ignores a group that is gone. */
function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) {
    return;
  }
  try {
    process.kill(-pid, signal);
  } catch {
    // Already gone.
  }
}

function checkSpecs(specs: readonly ProcessSpec[]): void {
  const seen = new Set<string>();
  for (const spec of specs) {
    const missing = spec.dependsOn.find((name) => !seen.has(name));
    if (missing !== undefined) {
      throw new Error(`process ${spec.name} depends on ${missing}, which is not named before it`);
    }
    seen.add(spec.name);
  }
}

class ProcessSupervisor implements Supervisor {
  readonly ready: Promise<void>;
  readonly failed: Promise<{ readonly name: string; readonly reason: string }>;
  readonly #options: SupervisorOptions;
  readonly #all: readonly Managed[];
  readonly #settleReady: () => void;
  readonly #settleFailed: (failure: { name: string; reason: string }) => void;
  readonly #shown = new Map<string, number>();
  #stopping = false;
  #stopped: Promise<void> | undefined;
  #memoryTimer: NodeJS.Timeout | undefined;
  #onExit: () => void = () => undefined;

  constructor(options: SupervisorOptions) {
    checkSpecs(options.specs);
    this.#options = options;
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.#settleReady = ready.resolve;
    const failed = Promise.withResolvers<{ name: string; reason: string }>();
    this.failed = failed.promise;
    this.#settleFailed = failed.resolve;
    mkdirSync(options.logsDir, { recursive: true });
    this.#all = options.specs.map((spec) => ({
      spec,
      file: openRotatingFile(join(options.logsDir, `${spec.name}.log`), {
        maxBytes: options.config.logFileBytes,
        keptCount: options.config.logFileCount,
      }),
      child: undefined,
      phase: 'waiting',
      reason: spec.dependsOn.length === 0 ? '' : `for ${spec.dependsOn.join(', ')}`,
      restartCount: 0,
      failureCount: 0,
      startedAtMs: undefined,
      memoryBytes: undefined,
      probesUrl: undefined,
      timer: undefined,
      lastError: '',
    }));
  }

  start(): void {
    this.#memoryTimer = setInterval(() => this.#readMemory(), memoryIntervalMs);
    this.#startWaiting();
  }

  status(): readonly ProcessStatus[] {
    return this.#all.map((managed) => this.#statusOf(managed));
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  #statusOf(managed: Managed): ProcessStatus {
    const { spec, child, phase, reason, restartCount, startedAtMs, memoryBytes, probesUrl } = managed;
    return {
      name: spec.name,
      pid: child?.pid,
      phase,
      reason,
      restartCount,
      startedAtMs,
      memoryBytes,
      probesUrl,
    };
  }

  #change(managed: Managed, phase: ProcessPhase, reason = ''): void {
    if (managed.phase === phase && managed.reason === reason) {
      return;
    }
    managed.phase = phase;
    managed.reason = reason;
    const all = this.status();
    this.#options.view.update(all, this.#statusOf(managed));
    this.#options.onChange?.(all);
    if (phase === 'ready' || phase === 'done') {
      this.#startWaiting();
      if (this.#all.every((other) => other.phase === 'ready' || other.phase === 'done')) {
        this.#settleReady();
      }
    }
  }

  #startWaiting(): void {
    if (this.#stopping) {
      return;
    }
    const able = new Set(
      this.#all.filter(({ phase }) => phase === 'ready' || phase === 'done').map(({ spec }) => spec.name),
    );
    for (const managed of this.#all) {
      if (managed.phase === 'waiting' && managed.spec.dependsOn.every((name) => able.has(name))) {
        this.#spawn(managed);
      }
    }
  }

  #spawn(managed: Managed): void {
    const { spec } = managed;
    const child = spawn(process.execPath, [...spec.argv], {
      env: { ...process.env, ...spec.environment, [parentVariable]: 'supervisor' },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // A group of its own: a terminal's Ctrl-C comes to us alone, and the group can be ended as one.
      detached: true,
    });
    managed.child = child;
    managed.startedAtMs = Date.now();
    managed.probesUrl = undefined;
    managed.lastError = '';
    this.#collect(managed, child);
    child.on('message', (message) => {
      if (managed.child === child && isMessage(message)) {
        this.#onMessage(managed, message);
      }
    });
    child.once('error', (error) => {
      if (child.pid === undefined) {
        this.#ended(managed, child, `could not be started: ${error.message}`, exitCodes.failure);
      }
    });
    child.once('exit', (code, signal) => {
      signalGroup(child.pid, 'SIGKILL');
      const how = signal === null ? `ended with code ${code}` : `ended by ${signal}`;
      const end = (): void => {
        clearTimeout(timer);
        this.#ended(managed, child, how, code);
      };
      // Its last words may still be in the pipe; a stranger that holds the pipe open must not hold us up.
      const timer = setTimeout(end, lastWordsMs);
      child.once('close', end);
    });
    this.#change(managed, 'starting');
  }

  #collect(managed: Managed, child: ChildProcess): void {
    const { name } = managed.spec;
    const onLine = (line: string): void => {
      managed.file.write(`${line}\n`);
      const entry = parseLogLine(line);
      if (entry !== undefined && entry.level >= warnLevel) {
        managed.lastError = entry.message;
        this.#show(name, line, entry.message);
      }
    };
    const onErrorLine = (line: string): void => {
      managed.file.write(`${line}\n`);
      const text = line.trim();
      // Of a stack trace the terminal gets the message; where it happened is in the log file.
      if (text !== '' && !text.startsWith('at ')) {
        managed.lastError = text;
        this.#show(name, line, text);
      }
    };
    for (const [stream, handle] of [
      [child.stdout, onLine],
      [child.stderr, onErrorLine],
    ] as const) {
      const splitter = splitLines(handle);
      stream?.on('data', (chunk: Uint8Array) => splitter.push(chunk));
      stream?.on('end', () => splitter.end());
    }
  }

  /** Shows a line, but not one that says the same again soon, nor what processes say when everything is stopped. */
  #show(name: string, line: string, message: string): void {
    const key = `${name} ${message}`;
    const now = performance.now();
    const shownAt = this.#shown.get(key);
    if (this.#stopping || (shownAt !== undefined && now - shownAt < repeatAfterMs)) {
      return;
    }
    if (this.#shown.size >= shownLimit) {
      this.#shown.clear();
    }
    this.#shown.set(key, now);
    this.#options.view.output(name, line);
  }

  #onMessage(managed: Managed, message: ChildMessage): void {
    if (message.type === 'http') {
      managed.probesUrl = message.url;
      this.#options.onChange?.(this.status());
      return;
    }
    if (this.#stopping || managed.spec.kind === 'job') {
      return;
    }
    const missing = Object.entries(message.parts).filter(([, state]) => state !== true);
    const reason = missing.map(([part, state]) => `${part}: ${state}`).join('; ');
    this.#change(managed, message.ready ? 'ready' : 'starting', reason);
  }

  #ended(managed: Managed, child: ChildProcess, how: string, code: number | null): void {
    if (managed.child !== child) {
      return;
    }
    managed.child = undefined;
    managed.probesUrl = undefined;
    managed.memoryBytes = undefined;
    const ranMs = Date.now() - (managed.startedAtMs ?? Date.now());
    managed.startedAtMs = undefined;
    if (this.#stopping) {
      this.#change(managed, 'stopped', code === exitCodes.ok ? '' : how);
    } else if (managed.spec.kind === 'job' && code === exitCodes.ok) {
      this.#change(managed, 'done');
    } else if (code === exitCodes.usage) {
      const reason = managed.lastError === '' ? how : managed.lastError;
      this.#change(managed, 'failed', reason);
      this.#settleFailed({ name: managed.spec.name, reason });
    } else {
      this.#restartLater(managed, ranMs, how);
    }
    this.#onExit();
  }

  #restartLater(managed: Managed, ranMs: number, how: string): void {
    const { config } = this.#options;
    managed.failureCount = ranMs >= config.goodAfterMs ? 1 : managed.failureCount + 1;
    managed.restartCount++;
    const limits = { initialMs: config.restartInitialMs, maxMs: config.restartMaxMs };
    const waitMs = backoffMs(managed.failureCount, limits);
    managed.timer = setTimeout(() => {
      managed.timer = undefined;
      this.#spawn(managed);
    }, waitMs);
    this.#change(managed, 'restarting', `${how}, again in ${(waitMs / 1000).toFixed(1)} s`);
  }

  #readMemory(): void {
    for (const managed of this.#all) {
      managed.memoryBytes = managed.child?.pid === undefined ? undefined : residentBytes(managed.child.pid);
    }
    this.#options.view.update(this.status(), undefined);
  }

  async #stopAll(): Promise<void> {
    const { config } = this.#options;
    this.#stopping = true;
    clearInterval(this.#memoryTimer);
    for (const managed of this.#all) {
      clearTimeout(managed.timer);
      if (managed.child === undefined && managed.phase !== 'done' && managed.phase !== 'failed') {
        this.#change(managed, 'stopped');
      }
    }
    const everyone = setTimeout(() => this.#terminate(() => true), config.stopEveryoneAfterMs);
    const kill = setTimeout(() => this.#killAll(), config.killAfterMs);
    await new Promise<void>((settle) => {
      this.#onExit = () => {
        if (this.#all.every(({ child }) => child === undefined)) {
          settle();
          return;
        }
        this.#terminate((managed) => this.#nobodyNeeds(managed.spec.name));
      };
      this.#onExit();
    });
    clearTimeout(everyone);
    clearTimeout(kill);
    for (const managed of this.#all) {
      managed.file.close();
    }
  }

  #nobodyNeeds(name: string): boolean {
    return this.#all.every(({ spec, child }) => child === undefined || !spec.dependsOn.includes(name));
  }

  #terminate(which: (managed: Managed) => boolean): void {
    for (const managed of this.#all) {
      if (managed.child !== undefined && managed.phase !== 'stopping' && which(managed)) {
        // To the process alone: what it started, it ends itself.
        managed.child.kill('SIGTERM');
        this.#change(managed, 'stopping');
      }
    }
  }

  #killAll(): void {
    for (const { child } of this.#all) {
      signalGroup(child?.pid, 'SIGKILL');
      child?.kill('SIGKILL');
    }
  }
}

/**
 * A supervisor over `specs`, in an order in which each stands after what it depends on.
 * @throws {Error} when a spec depends on one that doesn't stand before it.
 */
export function createSupervisor(options: SupervisorOptions): Supervisor {
  return new ProcessSupervisor(options);
}
