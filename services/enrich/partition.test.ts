import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import { type BusMessage, type Committed, FencedError } from '../../lib/bus/bus.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../../lib/wire/plain-flow.ts';
import { PartitionWorker } from './partition.ts';
import { decodeMark, insertToken, type Plan } from './plan.ts';
import { SeenBatches } from './sequences.ts';
import type { BlockLimits } from './slice.ts';

const at = { topic: 'flows', partition: 0 };
const now = 1_760_000_000_000;
const limits: BlockLimits = {
  maxRows: 8192,
  maxBatchRows: 8192,
  maxBytes: 1 << 20,
  maxAgeMs: 86_400_000,
  maxAheadMs: 60_000,
};

function message(offset: number, sequence: number, flowCount: number, startMs = 0, text = ''): BusMessage {
  const flow = {
    ...plainFlow,
    startMs,
    sourcePort: sequence,
    bytesReverse: 2,
  };
  const value = encodeFlowBatch({
    ...plainBatch,
    agentId: 'a',
    bootId: 'b',
    sequence,
    observedFromMs: now,
    observedToMs: now,
    clockErrorMs: -1,
    strings: text === '' ? [''] : ['', text],
    flows: Array(flowCount).fill(flow),
  });
  return { offset, timestampMs: now, key: 'a', value, headers: {} };
}

/** A bus and a store in memory, with the store's promise: one token counts once. */
class Outside {
  committed: Committed = { offset: 0, metadata: '' };
  readonly store = new Map<string, number[]>();
  /** Set to die before (or after) the n-th step of the outside world. */
  stepsLeft = Number.POSITIVE_INFINITY;
  owner = 0;

  #step(): void {
    if (this.stepsLeft-- <= 0) throw new Error('killed');
  }

  worker(owner: number, onFailure: (error: Error) => void = () => {}, lingerMs = 0): PartitionWorker {
    this.owner = owner;
    const { plan } = decodeMark(this.committed.metadata);
    const worker = new PartitionWorker(
      at,
      {
        limits,
        lingerMs,
        scheme: { networkIndex: () => 0, toleranceMs: () => 0 },
        log: pino({ level: 'silent' }),
        onFailure,
        commit: async (_, committed) => {
          await null;
          if (this.owner !== owner) throw new FencedError('not yours');
          this.#step();
          this.committed = committed;
        },
        name: async (slice) => {
          for (let turns = slice.columns.count % 3; turns > 0; turns--) await null;
        },
        write: async (_, range, slices) => {
          await null;
          this.#step();
          const token = insertToken(at, range);
          if (!this.store.has(token))
            this.store.set(
              token,
              sequencesOf(
                slices.flatMap(({ ledger }) => ledger),
                range,
              ),
            );
          this.#step();
        },
      },
      {
        offset: this.committed.offset,
        partitionCount: 1,
        seen: this.#seenBefore(this.committed.offset),
        replay: plan,
      },
    );
    void worker.replayed.then(() => worker.begin(this.#seenBefore(worker.committedTo)));
    return worker;
  }

  /** As the ledger has it. */
  #seenBefore(offset: number): SeenBatches {
    const seen = new SeenBatches(10);
    for (const [token, sequences] of this.store) {
      const from = Number(token.split('/')[2]?.split('-')[0]);
      if (from < offset) for (const sequence of sequences) seen.add('a', 'b', sequence);
    }
    return seen;
  }

  get sequences(): number[] {
    return [...this.store.values()].flat().sort((a, b) => a - b);
  }
}

function sequencesOf(
  ledger: readonly { message: BusMessage; outcome: string; header: { sequence: number } | null }[],
  range: Plan,
): number[] {
  for (const { message } of ledger) assert.ok(message.offset >= range.from && message.offset <= range.to);
  return ledger.filter(({ outcome }) => outcome === 'written').map(({ header }) => header?.sequence ?? -1);
}

test('every batch counts once, whatever moment the enricher dies at, and repeats count nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat({ max: 12 }), fc.integer({ min: 0, max: 4000 })), {
        minLength: 1,
        maxLength: 12,
      }),
      fc.array(fc.integer({ min: 1, max: 14 }), { maxLength: 6 }),
      fc.integer({ min: 1, max: 5 }),
      async (batches, deaths, chunk) => {
        const log = batches.map(([sequence, flowCount], offset) => message(offset, sequence, flowCount));
        const outside = new Outside();
        for (const steps of [...deaths, Number.POSITIVE_INFINITY]) {
          outside.stepsLeft = steps;
          const worker = outside.worker(steps);
          for (let i = outside.committed.offset; i < log.length; i += chunk)
            await worker.messages(log.slice(i, i + chunk));
          await worker.drain();
          worker.stop();
        }
        assert.equal(outside.committed.offset, log.length);
        assert.deepEqual(
          outside.sequences,
          [...new Set(batches.map(([sequence]) => sequence))].sort((a, b) => a - b),
        );
      },
    ),
    { numRuns: 150 },
  );
});

test('a planned range is built again exactly, though more has come since', async () => {
  const outside = new Outside();
  outside.stepsLeft = 2;
  const first = outside.worker(1);
  await first.messages([message(0, 1, 1), message(1, 2, 1)]);
  await first.drain();
  assert.deepEqual([...outside.store.keys()], ['flows/0/0-1']);
  assert.equal(outside.committed.metadata, '{"plan":[0,1],"of":1}');
  outside.stepsLeft = Number.POSITIVE_INFINITY;
  const second = outside.worker(2);
  await second.messages([0, 1, 2, 3].map((i) => message(i, i + 1, 1)));
  await second.drain();
  assert.deepEqual([...outside.store.keys()], ['flows/0/0-1', 'flows/0/2-3']);
  assert.deepEqual(outside.sequences, [1, 2, 3, 4]);
});

test('an enricher that lost its partition stops without a failure, and the next one goes on', async () => {
  const outside = new Outside();
  const failures: Error[] = [];
  const slow = outside.worker(1, (error) => failures.push(error));
  await slow.messages([message(0, 1, 1)]);
  const next = outside.worker(2);
  await slow.drain();
  await next.messages([message(0, 1, 1), message(1, 2, 1)]);
  await next.drain();
  assert.deepEqual(failures, []);
  assert.deepEqual(outside.sequences, [1, 2]);
});

test("a failure that is nobody's fault ends the process: it is told", async () => {
  const outside = new Outside();
  outside.stepsLeft = 0;
  const failures: Error[] = [];
  const worker = outside.worker(1, (error) => failures.push(error));
  await worker.messages([message(0, 1, 1)]);
  await worker.drain();
  assert.equal(failures[0]?.message, 'killed');
});

test('a block is cut at the limit of rows, and the rest goes into the next', async () => {
  const outside = new Outside();
  const worker = outside.worker(1, undefined, 60_000);
  await worker.messages([1, 2, 3, 4, 5].map((i) => message(i - 1, i, 3000)));
  await worker.drain();
  assert.deepEqual([...outside.store.keys()], ['flows/0/0-1', 'flows/0/2-3', 'flows/0/4-4']);
});

test('a block is cut at the limit of bytes, whatever slices are ready', async () => {
  const outside = new Outside();
  const worker = outside.worker(1, undefined, 60_000);
  const text = 'x'.repeat(400_000);
  await worker.messages([1, 2, 3, 4, 5].map((i) => message(i - 1, i, 1, 0, text)));
  await worker.drain();
  assert.deepEqual([...outside.store.keys()], ['flows/0/0-1', 'flows/0/2-3', 'flows/0/4-4']);
});

test('a batch that can never fit, or is not of its time, is dead; its neighbours are written', async () => {
  const outside = new Outside();
  const worker = outside.worker(1);
  await worker.messages([
    message(0, 1, 1),
    message(1, 2, 9000),
    message(2, 3, 1, -100 * 86_400_000),
    message(3, 4, 1, 3_600_000),
    { ...message(4, 5, 1), value: Buffer.from('rubbish') },
    { ...message(5, 6, 1), value: null },
    message(6, 7, 1),
  ]);
  await worker.drain();
  assert.deepEqual(outside.sequences, [1, 7]);
  assert.equal(outside.committed.offset, 7);
});
