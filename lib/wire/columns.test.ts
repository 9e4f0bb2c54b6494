import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { actions, sides, states } from '../../schemas/closed-lists.ts';
import { toMapped } from '../net/address.ts';
import {
  clearFlowColumns,
  type FlowColumns,
  growFlowColumns,
  makeFlowColumns,
  readFlowBatch,
} from './columns.ts';
import {
  currentFrame,
  decodeFlowBatch,
  encodeFlowBatch,
  type Flow,
  type FlowBatch,
  fingerprint,
} from './flow-batch.ts';

const port = fc.integer({ min: 0, max: 65535 });
const counter = fc.oneof(fc.integer({ min: 0, max: 2000 }), fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 }));
const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
);

function flowOf(textCount: number): fc.Arbitrary<Flow> {
  const text = fc.integer({ min: 0, max: textCount - 1 });
  return fc.record({
    startMs: fc.integer({ min: -86400000, max: 86400000 }),
    durationMs: fc.integer({ min: 0, max: 0xffffffff }),
    sourceAddress: address,
    sourcePort: port,
    destinationAddress: address,
    destinationPort: port,
    protocol: fc.integer({ min: 0, max: 255 }),
    originalDestinationAddress: fc.oneof(fc.constant(new Uint8Array(0)), address),
    originalDestinationPort: port,
    reporter: fc.constantFrom(...sides),
    bytesForward: counter,
    bytesReverse: counter,
    packetsForward: counter,
    packetsReverse: counter,
    connectionCount: fc.integer({ min: 0, max: 0x7fffffff }),
    flags: port,
    state: fc.constantFrom(...states),
    action: fc.constantFrom(...actions),
    actionReason: text,
    dnsName: text,
    processName: text,
    sourceHint: text,
    destinationHint: text,
  });
}

const name = fc.string({ maxLength: 20 });
const batchOf: fc.Arbitrary<FlowBatch> = fc
  .array(fc.string({ unit: 'grapheme', maxLength: 12 }), { maxLength: 6 })
  .chain((texts) =>
    fc.record({
      agentId: name,
      bootId: name,
      sequence: fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 }),
      cluster: name,
      node: name,
      network: name,
      sourceKind: name,
      observedFromMs: fc.integer({ min: 0, max: 4102444800000 }),
      observedToMs: fc.integer({ min: 0, max: 4102444800000 }),
      sourceDroppedCount: fc.nat(),
      samplingRate: fc.integer({ min: 1, max: 100000 }),
      clockOffsetMs: fc.integer({ min: -2147483648, max: 2147483647 }),
      clockErrorMs: fc.integer({ min: -1, max: 2147483647 }),
      strings: fc.constant(['', ...texts]),
      flows: fc.array(flowOf(texts.length + 1), { maxLength: 12 }),
    }),
  );

/** Row `row` as avsc would give it, texts in words. */
function rowOf(columns: FlowColumns, row: number): Record<string, unknown> {
  const counterAt = (words: Uint32Array): number => words[row * 2]! + words[row * 2 + 1]! * 2 ** 32;
  return {
    startMs: columns.startMs[row],
    durationMs: columns.durationMs[row],
    source: [...columns.source.subarray(row * 16, row * 16 + 16)],
    sourcePort: columns.sourcePort[row],
    destination: [...columns.destination.subarray(row * 16, row * 16 + 16)],
    destinationPort: columns.destinationPort[row],
    protocol: columns.protocol[row],
    original: [...columns.originalDestination.subarray(row * 16, row * 16 + 16)],
    originalPort: columns.originalDestinationPort[row],
    side: sides[columns.side[row]!],
    counters: [
      columns.bytesForward,
      columns.bytesReverse,
      columns.packetsForward,
      columns.packetsReverse,
    ].map(counterAt),
    connectionCount: columns.connectionCount[row],
    flags: columns.flags[row],
    state: states[columns.state[row]!],
    action: actions[columns.action[row]!],
    texts: [
      columns.actionReason,
      columns.dnsName,
      columns.processName,
      columns.sourceHint,
      columns.destinationHint,
    ].map((column) => columns.texts.text(column[row]!)),
  };
}

function expectedRow(batch: FlowBatch, flow: Flow): Record<string, unknown> {
  const original = flow.originalDestinationAddress;
  return {
    startMs: batch.observedFromMs + flow.startMs,
    durationMs: flow.durationMs,
    source: [...toMapped(flow.sourceAddress)],
    sourcePort: flow.sourcePort,
    destination: [...toMapped(flow.destinationAddress)],
    destinationPort: flow.destinationPort,
    protocol: flow.protocol,
    original: original.length === 0 ? new Array(16).fill(0) : [...toMapped(original)],
    originalPort: flow.originalDestinationPort,
    side: flow.reporter,
    counters: [flow.bytesForward, flow.bytesReverse, flow.packetsForward, flow.packetsReverse],
    connectionCount: flow.connectionCount,
    flags: flow.flags,
    state: flow.state,
    action: flow.action,
    texts: [flow.actionReason, flow.dnsName, flow.processName, flow.sourceHint, flow.destinationHint].map(
      (i) => batch.strings[i],
    ),
  };
}

test('the columnar reader gives what avsc gives, batch after batch in one block', () => {
  const columns = makeFlowColumns(64);
  fc.assert(
    fc.property(fc.array(batchOf, { minLength: 1, maxLength: 4 }), (batches) => {
      clearFlowColumns(columns);
      for (const batch of batches) {
        const message = encodeFlowBatch(batch);
        const decoded = decodeFlowBatch(message);
        const result = readFlowBatch(message, columns);
        assert.equal(result.ok, true, JSON.stringify(result));
        if (!result.ok) return;
        const { flows, strings, ...header } = decoded;
        assert.deepEqual(result.header, header);
        assert.equal(result.rowCount, flows.length);
        flows.forEach((flow, i) => {
          assert.deepEqual(rowOf(columns, result.firstRow + i), expectedRow({ ...decoded, strings }, flow));
        });
      }
    }),
  );
});

test('a message cut anywhere, or with any bit turned over, is refused whole or read as avsc reads it', () => {
  const columns = makeFlowColumns(64);
  fc.assert(
    fc.property(batchOf, fc.nat(), fc.nat({ max: 7 }), fc.boolean(), (batch, at, bit, cut) => {
      const good = encodeFlowBatch(batch);
      const message = Buffer.from(cut ? good.subarray(0, at % good.length) : good);
      if (!cut) message[at % message.length]! ^= 1 << bit;
      clearFlowColumns(columns);
      const result = readFlowBatch(message, columns);
      if (!result.ok) {
        assert.equal(columns.count, 0);
        assert.equal(columns.texts.count, 1);
        return;
      }
      assert.equal(cut, false, 'a cut message was read');
      const decoded = decodeFlowBatch(message);
      assert.equal(result.rowCount, decoded.flows.length);
      decoded.flows.forEach((flow, i) => {
        assert.deepEqual(rowOf(columns, i), expectedRow(decoded, flow));
      });
    }),
    { numRuns: 1000 },
  );
});

const flow: Flow = {
  startMs: 0,
  durationMs: 1,
  sourceAddress: Uint8Array.of(10, 0, 0, 1),
  sourcePort: 40000,
  destinationAddress: Uint8Array.of(10, 0, 0, 2),
  destinationPort: 443,
  protocol: 6,
  originalDestinationAddress: new Uint8Array(0),
  originalDestinationPort: 0,
  reporter: 'source',
  bytesForward: 1,
  bytesReverse: 2,
  packetsForward: 1,
  packetsReverse: 1,
  connectionCount: 1,
  flags: 0,
  state: 'closed',
  action: 'forwarded',
  actionReason: 0,
  dnsName: 0,
  processName: 0,
  sourceHint: 0,
  destinationHint: 0,
};
const batch: FlowBatch = {
  agentId: 'a',
  bootId: 'b',
  sequence: 1,
  cluster: 'c',
  node: 'n',
  network: 'c',
  sourceKind: 'test',
  observedFromMs: 1,
  observedToMs: 2,
  sourceDroppedCount: 0,
  samplingRate: 1,
  clockOffsetMs: 0,
  clockErrorMs: -1,
  strings: [''],
  flows: [flow],
};

test('a refusal names the field and what is wrong with it', () => {
  const columns = makeFlowColumns(8);
  for (const [change, field] of [
    [{ destinationPort: 70000 }, 'flows[1].destinationPort'],
    [{ sourceAddress: Uint8Array.of(1, 2, 3) }, 'flows[1].sourceAddress'],
    [{ protocol: -1 }, 'flows[1].protocol'],
    [{ durationMs: -5 }, 'flows[1].durationMs'],
    [{ bytesReverse: -1 }, 'flows[1].bytesReverse'],
    [{ dnsName: 9 }, 'flows[1].dnsName'],
  ] as const) {
    const result = readFlowBatch(
      encodeFlowBatch({ ...batch, flows: [flow, { ...flow, ...change }] }),
      columns,
    );
    assert.equal(result.ok, false);
    if (!result.ok) {
      assert.equal(result.field, field);
      assert.equal(result.cause, 'bad-value');
    }
    assert.equal(columns.count, 0);
  }
});

test('another schema is told from rubbish', () => {
  const columns = makeFlowColumns(8);
  const message = encodeFlowBatch(batch);
  const other = Buffer.from(message);
  other[5]! ^= 1;
  assert.partialDeepStrictEqual(readFlowBatch(other, columns), { ok: false, cause: 'unknown-schema' });
  assert.partialDeepStrictEqual(readFlowBatch(Buffer.from('{"flows":[]}'), columns), {
    ok: false,
    cause: 'undecodable',
  });
});

test('a batch that promises a million flows it does not have costs nothing', () => {
  const columns = makeFlowColumns(8);
  const empty = encodeFlowBatch({ ...batch, flows: [] });
  // The last byte ends the array; put a block of 1,000,000 items in its place.
  const message = Buffer.concat([empty.subarray(0, -1), Buffer.from([0x80, 0x89, 0x7a])]);
  assert.partialDeepStrictEqual(readFlowBatch(message, columns), {
    ok: false,
    cause: 'undecodable',
    field: 'flows',
  });
});

test('more flows than fit are refused, and the columns stay as they were', () => {
  const columns = makeFlowColumns(8);
  assert.equal(readFlowBatch(encodeFlowBatch({ ...batch, flows: Array(5).fill(flow) }), columns).ok, true);
  assert.partialDeepStrictEqual(
    readFlowBatch(encodeFlowBatch({ ...batch, flows: Array(4).fill(flow) }), columns),
    {
      ok: false,
      cause: 'too-many-flows',
    },
  );
  assert.equal(columns.count, 5);
});

test('columns that grow keep every column and every text', () => {
  fc.assert(
    fc.property(batchOf, batchOf, (first, second) => {
      const small = makeFlowColumns(16);
      assert.equal(readFlowBatch(encodeFlowBatch(first), small).ok, true);
      const large = growFlowColumns(small, 64);
      assert.equal(readFlowBatch(encodeFlowBatch(second), large).ok, true);
      const expected = [first, second].flatMap((batch) =>
        batch.flows.map((flow) => expectedRow(batch, flow)),
      );
      assert.deepEqual(
        expected.map((_, row) => rowOf(large, row)),
        expected,
      );
    }),
    { numRuns: 50 },
  );
});

test('the frame carries the CRC-64-AVRO fingerprint of the schema', () => {
  // Test vector of the Avro specification's reference implementations: the schema "null".
  assert.equal(Buffer.from(fingerprint('"null"')).readBigUInt64LE().toString(16), '63dd24e7cc258f8a');
  assert.equal(currentFrame.length, 10);
});
