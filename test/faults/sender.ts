/** Sends traffic to ingest as agents do: each agent's batches in order, and again whatever was not acknowledged. */
import { setTimeout as sleep } from 'node:timers/promises';
import { hash32, Random } from '../../estate/random.ts';
import type { SentBatch } from './traffic.ts';

const lanes = 3;

/** Sends batches of each agent in order, and again whatever was not acknowledged; some also when they were. */
export class Sender {
  readonly #url: () => string;
  readonly #random: Random;
  readonly #queues: SentBatch[][] = Array.from({ length: lanes }, () => []);
  readonly #lanes: Promise<void>[];
  #closed = false;
  repeatCount = 0;

  constructor(seed: string, url: () => string) {
    this.#url = url;
    this.#random = new Random(seed, 'sender');
    this.#lanes = this.#queues.map((queue) => this.#run(queue));
  }

  send(batch: SentBatch): void {
    this.#queues[hash32(batch.agentId) % lanes]?.push(batch);
  }

  /** Resolves when everything is acknowledged. */
  async drained(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#lanes);
  }

  async #run(queue: SentBatch[]): Promise<void> {
    for (;;) {
      const batch = queue.shift();
      if (batch === undefined) {
        if (this.#closed) return;
        await sleep(5);
        continue;
      }
      while (!(await this.#post(batch, this.#random.next() < 0.03))) {
        this.repeatCount++;
        await sleep(30);
      }
      if (this.#random.next() < 0.04) {
        this.repeatCount++;
        await this.#post(batch, false);
      }
    }
  }

  /** Whether the batch was acknowledged; `hasty` hangs up before an answer can come. */
  async #post(batch: SentBatch, hasty: boolean): Promise<boolean> {
    try {
      const response = await fetch(`${this.#url()}/v1/flows`, {
        method: 'POST',
        headers: { 'content-type': 'application/vnd.eastwest.flow-batch+avro' },
        body: new Uint8Array(batch.message),
        signal: AbortSignal.timeout(hasty ? 3 : 3000),
      });
      const text = await response.text();
      if (response.status === 202) return true;
      if (response.status < 500 && response.status !== 429)
        throw new Error(`ingest refused a batch: ${text}`);
      return false;
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('ingest refused')) throw error;
      return false;
    }
  }
}
