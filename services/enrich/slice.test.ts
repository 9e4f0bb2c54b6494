import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BusMessage } from '../../lib/bus/bus.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../../lib/wire/plain-flow.ts';
import { SeenBatches } from './sequences.ts';
import { SliceBuilder, type TakeResult } from './slice.ts';

const now = 1_760_000_000_000;
const rowLimit = 524_288;
const limits = {
  maxRows: rowLimit,
  maxBatchRows: rowLimit,
  maxBytes: 1 << 28,
  maxAgeMs: 1e9,
  maxAheadMs: 1e9,
};

function message(sequence: number, flowCount: number): BusMessage {
  const flow = {
    ...plainFlow,
    sourcePort: 1000,
  };
  const value = encodeFlowBatch({
    ...plainBatch,
    agentId: 'a',
    bootId: 'b',
    sequence,
    observedFromMs: now,
    observedToMs: now,
    flows: Array.from({ length: flowCount }, () => flow),
  });
  return { offset: sequence, timestampMs: now, key: 'a', value, headers: {} };
}

function setUp(): { builder: SliceBuilder; take: (sequence: number, flowCount: number) => TakeResult } {
  const builder = new SliceBuilder(limits, { networkIndex: () => 0, toleranceMs: () => 255 });
  const seen = new SeenBatches(10);
  const home = { partition: 0, partitionCount: 1 };
  return { builder, take: (sequence, flowCount) => builder.take(message(sequence, flowCount), home, seen) };
}

test('a slice is full long before a block is, and what did not go in goes into the next', () => {
  const { builder, take } = setUp();
  assert.deepEqual(
    [1, 2, 3, 4].map((sequence) => take(sequence, 10_000)),
    ['taken', 'taken', 'taken', 'full'],
  );
  assert.deepEqual([builder.columns.count, builder.range?.to], [30_000, 3]);
  builder.clear();
  assert.equal(take(4, 10_000), 'taken');
});

test('a single batch goes in whole, however large, and the slice does not keep its memory', () => {
  const { builder, take } = setUp();
  assert.equal(take(1, 70_000), 'taken');
  assert.equal(builder.columns.count, 70_000);
  assert.equal(builder.stored.agent.length, builder.columns.capacity);
  assert.equal(builder.isFull, true);
  builder.clear();
  assert.ok(builder.columns.capacity <= 32_768);
  assert.equal(take(2, 1), 'taken');
});
