/** Copies of batches that cannot be read go to `flows.dead`: bounded in size and rate, never in the sender's way. */
import type { Logger } from 'pino';
import type { Bus } from '../../lib/bus/bus.ts';
import { topics } from '../../schemas/topics.ts';
import type { IngestMetrics } from './metrics.ts';
import type { RefusedError } from './refusal.ts';

export interface DeadLetterLimits {
  readonly maxDeadLetterBytes: number;
  readonly maxDeadLettersPerMinute: number;
}

/** Where a dead letter came from; becomes its headers. */
export interface DeadLetterOrigin {
  readonly contentType: string;
  readonly remoteAddress: string;
}

/** Longest text in a header. */
const maxHeaderLength = 500;
const minuteMs = 60_000;

export class DeadLetters {
  readonly #limits: DeadLetterLimits;
  readonly #metrics: IngestMetrics;
  readonly #log: Logger;
  #minute = 0;
  #countInMinute = 0;

  constructor(limits: DeadLetterLimits, metrics: IngestMetrics, log: Logger) {
    this.#limits = limits;
    this.#metrics = metrics;
    this.#log = log;
  }

  /** Keeps a copy, where the limits allow it. Returns at once. */
  keep(bus: Bus, body: Buffer, error: RefusedError, origin: DeadLetterOrigin, nowMs: number): void {
    const minute = Math.floor(nowMs / minuteMs);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#countInMinute = 0;
    }
    if (this.#countInMinute >= this.#limits.maxDeadLettersPerMinute) {
      this.#metrics.deadLetters.inc({ outcome: 'limited' });
      return;
    }
    this.#countInMinute++;
    const value = Uint8Array.from(body.subarray(0, this.#limits.maxDeadLetterBytes));
    const headers = {
      reason: error.refusal,
      detail: error.message.slice(0, maxHeaderLength),
      'content-type': origin.contentType.slice(0, maxHeaderLength),
      'remote-address': origin.remoteAddress,
      'body-bytes': String(body.length),
    };
    bus.append(topics.dead, [{ key: null, value, headers }]).then(
      () => this.#metrics.deadLetters.inc({ outcome: 'kept' }),
      (failure: Error) => {
        this.#metrics.deadLetters.inc({ outcome: 'failed' });
        this.#log.debug({ err: failure }, 'a dead letter was not kept');
      },
    );
  }
}
