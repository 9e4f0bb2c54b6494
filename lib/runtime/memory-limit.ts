/**
 * Watches the memory of this process. The limits of queues and blocks keep it under `runtime.maxMemoryBytes`; where they
 * were set too high for it, services hold back what they can while memory is tight, and `/readyz` says so.
 */
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import type { Readiness } from './service.ts';

export interface Memory {
  /** Whether the process is near its limit: take no more than is needed to get rid of what is held. */
  readonly isTight: () => boolean;
}

/** Share of the limit from which memory is tight. */
const tightShare = 0.9;
const lookMs = 500;

export interface MemoryWatch extends Memory {
  close(): void;
}

export function watchMemory(options: {
  readonly maxBytes: number;
  readonly metrics: Registry;
  readonly readiness: Readiness;
  readonly log: Logger;
  /** Resident bytes now. */
  readonly look?: () => number;
}): MemoryWatch {
  const { maxBytes, metrics, readiness, log, look = () => process.memoryUsage.rss() } = options;
  let isTight = false;
  const limit = new Gauge({
    name: 'eastwest_memory_limit_bytes',
    help: 'Resident memory that this process is to stay under',
    registers: [metrics],
  });
  limit.set(maxBytes);
  const tight = new Gauge({
    name: 'eastwest_memory_tight',
    help: 'Whether the process is near its memory limit (1) and holds back',
    registers: [metrics],
  });
  const timer = setInterval(() => {
    const bytes = look();
    const was = isTight;
    isTight = bytes > maxBytes * tightShare;
    if (was === isTight) return;
    tight.set(isTight ? 1 : 0);
    readiness.set('memory', isTight ? `${bytes} of ${maxBytes} bytes (runtime.maxMemoryBytes)` : true);
    if (isTight)
      log.warn({ bytes, maxBytes }, 'memory is tight (runtime.maxMemoryBytes): less is taken at a time');
    else log.info({ bytes, maxBytes }, 'memory is no longer tight');
  }, lookMs);
  timer.unref();
  return { isTight: () => isTight, close: () => clearInterval(timer) };
}
