import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeNativeBlock, enum8Type, type NativeColumn } from './native.ts';

function bytesOf(rowCount: number, columns: readonly NativeColumn[]): number[] {
  return [...Buffer.concat(encodeNativeBlock(rowCount, columns).chunks)];
}

test('a block is its counts, then each column with name, type and little-endian values', () => {
  const columns: NativeColumn[] = [
    { name: 'a', type: 'UInt16', data: Uint16Array.of(1, 0x0203) },
    { name: 's', type: 'String', data: ['', 'hé'] },
  ];
  assert.deepEqual(bytesOf(2, columns), [
    ...[2, 2],
    ...[1, 0x61, 6, ...Buffer.from('UInt16'), 1, 0, 3, 2],
    ...[1, 0x73, 6, ...Buffer.from('String'), 0, 3, 0x68, 0xc3, 0xa9],
  ]);
});

test('fixed-width columns are sent from their own memory', () => {
  const data = new BigUint64Array(1000);
  const block = encodeNativeBlock(1000, [{ name: 'id', type: 'UInt64', data }]);
  assert.ok(block.chunks.some((chunk) => chunk.buffer === data.buffer && chunk.length === 8000));
  assert.equal(
    block.byteLength,
    block.chunks.reduce((sum, chunk) => sum + chunk.length, 0),
  );
});

test('rows beyond the count stay behind, also in a column that is part of a larger array', () => {
  const whole = Uint32Array.of(9, 1, 2, 3);
  const columns = [{ name: 'n', type: 'UInt32', data: whole.subarray(1) }];
  assert.deepEqual(bytesOf(1, columns).slice(-4), [1, 0, 0, 0]);
});

test('a short column is an error that names it, not a block that shifts the others', () => {
  const short = [{ name: 'dst_ip', type: 'IPv6', data: new Uint8Array(16) }];
  assert.throws(() => encodeNativeBlock(2, short), /dst_ip: data for 1 rows, the block has 2/);
  const names = { dictionary: ['a'], indexes: new Uint32Array(1) };
  assert.throws(
    () => encodeNativeBlock(2, [{ name: 'agent', type: 'LowCardinality(String)', data: names }]),
    /agent/,
  );
});

test('an array of another width than its type is an error that names the column', () => {
  for (const [type, data] of [
    ['UInt64', new Uint32Array(4)],
    ['UInt64', new Float64Array(4)],
    ['Float64', new BigUint64Array(4)],
    ['IPv6', new Uint16Array(64)],
    ['UInt8', ['1']],
    ['Array(UInt8)', new Uint8Array(4)],
    ['String', [['a']]],
  ] as const) {
    assert.throws(
      () => encodeNativeBlock(1, [{ name: 'it', type, data }]),
      /column it: .* can't be made/,
      type,
    );
  }
});

test('codes of an enum are the positions in its list', () => {
  assert.equal(enum8Type(['none', 'pod']), "Enum8('none' = 0, 'pod' = 1)");
});

test('pieces are the same as one array, and other than whole rows are an error', () => {
  const pieces = [Uint8Array.of(1, 0), new Uint8Array(0), Uint8Array.of(2, 0, 3, 0)];
  assert.deepEqual(
    bytesOf(3, [{ name: 'port', type: 'UInt16', data: { pieces } }]),
    bytesOf(3, [{ name: 'port', type: 'UInt16', data: Uint16Array.of(1, 2, 3) }]),
  );
  const dictionary = ['', 'a', 'b', 'c'];
  assert.deepEqual(
    bytesOf(3, [
      { name: 'it', type: 'LowCardinality(String)', data: { dictionary, indexes: { width: 2, pieces } } },
    ]),
    bytesOf(3, [
      { name: 'it', type: 'LowCardinality(String)', data: { dictionary, indexes: Uint16Array.of(1, 2, 3) } },
    ]),
  );
  assert.throws(
    () => encodeNativeBlock(2, [{ name: 'port', type: 'UInt16', data: { pieces } }]),
    /port: pieces of 6 bytes together, 2 rows of UInt16 have 4/,
  );
});
