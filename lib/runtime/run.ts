/** Runs one service as a process: configuration, log, metrics, probes, signals, orderly end. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { collectDefaultMetrics, Registry } from 'prom-client';
import {
  ConfigError,
  type ConfigInputs,
  loadConfig,
  printConfigError,
  processInputs,
  RuntimeConfig,
} from './config.ts';
import { exitCodes, OperatorError } from './exit.ts';
import { serveProbes } from './http.ts';
import { createLogger } from './log.ts';
import { watchMemory } from './memory-limit.ts';
import { type ParentLink, parentLink } from './parent.ts';
import { createReadiness } from './readiness.ts';
import type { ConfigOf, Sections, ServiceDefinition } from './service.ts';

export interface RunOptions {
  /** Default: `eastwest.yaml` and the environment of this process, no flags. */
  readonly inputs?: ConfigInputs;
  /** All sections the file and the environment may speak of; default: those of the service. */
  readonly known?: Sections;
  /** Serve /healthz, /readyz and /metrics (default); a job that ends by itself has nobody to ask it. */
  readonly probes?: boolean;
}

/** A second interrupt within this time belongs to the first: a terminal signals every process of its group. */
const sameInterruptMs = 1_000;

interface StopRequest {
  readonly signal: AbortSignal;
  /** Takes the listeners away again. */
  release(): void;
}

/** Aborts on SIGTERM, SIGINT and the parent's end; a later second interrupt ends the process at once. */
function listenForStop(parent: ParentLink, log: Logger): StopRequest {
  const controller = new AbortController();
  let stoppedAt: number | undefined;
  const stop = (why: string): void => {
    if (stoppedAt === undefined) {
      stoppedAt = performance.now();
      log.info({ why }, 'stopping');
      controller.abort(new Error(why));
    } else if (performance.now() - stoppedAt > sameInterruptMs) {
      log.warn({ why }, 'stopping at once');
      process.exit(exitCodes.failure);
    }
  };
  const onTerminate = (): void => stop('SIGTERM');
  // A terminal's Ctrl-C reaches children too; under a supervisor it alone decides on the order.
  const onInterrupt = (): void => (parent.kind === 'supervisor' ? undefined : stop('SIGINT'));
  process.on('SIGTERM', onTerminate);
  process.on('SIGINT', onInterrupt);
  parent.onGone(() => stop(`${parent.kind} is gone`));
  return {
    signal: controller.signal,
    release() {
      process.off('SIGTERM', onTerminate);
      process.off('SIGINT', onInterrupt);
    },
  };
}

function dieOnUnexpected(log: Logger): void {
  process.on('uncaughtException', (error, origin) => {
    log.fatal({ err: error, origin }, 'unexpected error, the process ends');
    process.exit(exitCodes.failure);
  });
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError');
}

function logFailure(log: Logger, error: unknown): number {
  if (error instanceof OperatorError) {
    log.fatal(error.message);
    return error.exitCode;
  }
  log.fatal({ err: error }, error instanceof Error ? error.message : String(error));
  return exitCodes.failure;
}

/** Waits for the service to end; once it was told to stop, no longer than `stopTimeoutMs`. */
async function waitForEnd(
  running: Promise<void>,
  signal: AbortSignal,
  stopTimeoutMs: number,
  log: Logger,
): Promise<number> {
  const timer = new AbortController();
  const aborted = new Promise<void>((settle) => {
    signal.addEventListener('abort', () => settle(), { once: true });
  });
  const tooLate = aborted
    .then(() => delay(stopTimeoutMs, undefined, { signal: timer.signal }))
    .then(
      () => 'late' as const,
      () => 'ended' as const,
    );
  try {
    const outcome = await Promise.race([running.then(() => 'ended' as const), tooLate]);
    if (outcome === 'late') {
      log.error({ stopTimeoutMs }, 'did not finish in time (runtime.stopTimeoutMs), ending anyway');
      return exitCodes.failure;
    }
    return exitCodes.ok;
  } catch (error) {
    return signal.aborted && (isAbort(error) || error === signal.reason)
      ? exitCodes.ok
      : logFailure(log, error);
  } finally {
    timer.abort();
  }
}

/**
 * Runs a service until it ends by itself, by SIGTERM or SIGINT, or because its parent died. Resolves with the exit
 * code, which the caller gives to `process.exit`. Never rejects.
 */
export async function runService<S extends Sections>(
  definition: ServiceDefinition<S>,
  options: RunOptions = {},
): Promise<number> {
  const parent = parentLink();
  const inputs = options.inputs ?? processInputs();
  const known: Sections = { ...options.known, ...definition.sections, runtime: RuntimeConfig };
  let config: ConfigOf<S>;
  let runtime: ConfigOf<{ runtime: typeof RuntimeConfig }>['runtime'];
  try {
    config = loadConfig(definition.sections, inputs, known).values;
    runtime = loadConfig({ runtime: RuntimeConfig }, inputs, known).values.runtime;
  } catch (error) {
    if (error instanceof ConfigError) {
      printConfigError(error);
      return exitCodes.usage;
    }
    throw error;
  }
  const log = createLogger({
    name: definition.name,
    level: runtime.logLevel,
    format: runtime.logFormat,
    supervised: parent.kind === 'supervisor',
  });
  dieOnUnexpected(log);
  const stop = listenForStop(parent, log);
  const metrics = new Registry();
  collectDefaultMetrics({ register: metrics });
  const readiness = createReadiness((state) => parent.send({ type: 'ready', ...state }));
  const memory = watchMemory({ maxBytes: runtime.maxMemoryBytes, metrics, readiness, log });
  try {
    const probes =
      options.probes === false
        ? undefined
        : await serveProbes({ ...runtime.http, metrics, readiness: readiness.state, name: definition.name });
    if (probes !== undefined) {
      parent.send({ type: 'http', url: probes.url });
    }
    log.info({ probes: probes?.url }, 'started');
    const context = { config, log, metrics, readiness, memory, signal: stop.signal };
    const code = await waitForEnd(definition.run(context), stop.signal, runtime.stopTimeoutMs, log);
    await probes?.close();
    log.info({ code }, 'stopped');
    return code;
  } catch (error) {
    return logFailure(log, error);
  } finally {
    memory.close();
    stop.release();
  }
}
