import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Inventory } from '../../lib/inventory/inventory.ts';
import { emptyPolicy } from '../../lib/policy/engine.ts';
import { makeLabeller } from '../../lib/policy/profiles.ts';
import type { NativeBlock } from '../../lib/store/native.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../../lib/wire/plain-flow.ts';
import { flowsBlock, lateBlock, runsOf, type SliceContent } from './rows.ts';
import { SeenBatches } from './sequences.ts';
import { SliceBuilder } from './slice.ts';

const now = 1_760_000_000_000;
const inventory = new Inventory({ maxIntervalsPerAddress: 8, labelsOf: makeLabeller(emptyPolicy.profiles) });
const limits = { maxRows: 8192, maxBatchRows: 8192, maxBytes: 1 << 20, maxAgeMs: 1e9, maxAheadMs: 1e9 };

const batch = (sequence: number): Uint8Array =>
  encodeFlowBatch({
    ...plainBatch,
    agentId: `agent-${sequence % 3}`,
    bootId: 'b',
    sequence,
    observedFromMs: now,
    observedToMs: now,
    strings: ['', `name-${sequence % 2}`, 'uid', `name-${sequence}`],
    flows: Array.from({ length: 3 + sequence }, (_, i) => ({
      ...plainFlow,
      startMs: i,
      durationMs: sequence,
      sourceAddress: Uint8Array.of(10, 0, sequence, i),
      sourcePort: 1000 + i,
      destinationAddress: Uint8Array.of(10, 1, sequence, i),
      bytesForward: sequence * 1000 + i,
      bytesReverse: 2 ** 40 + i,
      dnsName: i % 4 === 2 ? 0 : i % 2 === 0 ? 1 : 3,
      sourceHint: i % 2 === 0 ? 2 : 0,
    })),
  });

/** The batches of these sequence numbers, in slices as the inner lists say. */
function slices(parts: readonly (readonly number[])[]): SliceContent[] {
  let offset = 0;
  return parts.map((sequences) => {
    const builder = new SliceBuilder(limits, { networkIndex: () => 0, toleranceMs: () => 255 });
    for (const sequence of sequences) {
      const message = { offset: offset++, timestampMs: now, key: 'a', value: batch(sequence), headers: {} };
      const home = { partition: 0, partitionCount: 1 };
      assert.equal(builder.take(message, home, new SeenBatches(10)), 'taken');
    }
    const { columns, batches, resolved, stored } = builder;
    return { columns, batches, resolved, stored, inventory, engines: [] };
  });
}

const bytesOf = ({ chunks }: NativeBlock): Buffer => Buffer.concat(chunks);

test('a block is the same, byte for byte, however its rows lie in slices', () => {
  const [one, several] = [[[1, 2, 3, 4, 5]], [[1, 2], [3], [4, 5]]].map((parts) =>
    flowsBlock(slices(parts).map((content) => ({ content, runs: null }))),
  );
  assert.equal(several?.rowCount, 4 + 5 + 6 + 7 + 8);
  assert.ok(one !== undefined && several !== undefined && bytesOf(one).equals(bytesOf(several)));
});

test('late rows keep their number in the block, and the others are left without them', () => {
  const isLate = (row: number): boolean => row % 3 === 1;
  const [one, several] = [[[1, 2, 3, 4]], [[1], [2, 3], [4]]].map((parts) => {
    let firstRow = 0;
    const picked = slices(parts).map((content) => {
      const from = firstRow;
      firstRow += content.columns.count;
      const runs = (isIn: (row: number) => boolean): number[] =>
        runsOf(content.columns.count, (row) => isIn(from + row));
      return { content, firstRow: from, late: runs(isLate), others: runs((row) => !isLate(row)) };
    });
    return {
      late: lateBlock(
        picked.map(({ content, firstRow, late }) => ({ content, firstRow, runs: late })),
        0,
        7,
      ),
      others: flowsBlock(picked.map(({ content, others }) => ({ content, runs: others }))),
    };
  });
  assert.ok(one !== undefined && several !== undefined);
  assert.equal(several.late.rowCount + several.others.rowCount, 4 + 5 + 6 + 7);
  assert.ok(bytesOf(one.late).equals(bytesOf(several.late)));
  assert.ok(bytesOf(one.others).equals(bytesOf(several.others)));
});
