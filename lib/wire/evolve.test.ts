import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { deflateRawSync, zstdCompressSync } from 'node:zlib';
import avro from 'avsc';
import fc from 'fast-check';
import { ContainerTooLargeError, readContainer } from './container.ts';
import { normalise } from './evolve.ts';
import {
  decodeFlowBatch,
  encodeFlowBatch,
  type Flow,
  type FlowBatch,
  flowBatchType,
  frameOf,
} from './flow-batch.ts';

const schemaAt = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../schemas/${name}`, import.meta.url), 'utf8'));
const earlierType = avro.Type.forSchema(schemaAt('history/flow-batch-0.avsc'));

function flow(i: number): Flow {
  return {
    startMs: i,
    durationMs: 5,
    sourceAddress: Buffer.from([10, 0, 0, i & 255]),
    sourcePort: 40_000 + i,
    destinationAddress: Buffer.from([10, 0, 1, 1]),
    destinationPort: 443,
    protocol: 6,
    originalDestinationAddress: Buffer.from([10, 96, 0, 1]),
    originalDestinationPort: 8443,
    reporter: 'destination',
    bytesForward: 1234,
    bytesReverse: 2 ** 40,
    packetsForward: 3,
    packetsReverse: 4,
    connectionCount: 2,
    flags: 27,
    state: 'closed',
    action: 'forwarded',
    actionReason: 0,
    dnsName: 1,
    processName: 2,
    sourceHint: 3,
    destinationHint: 0,
  };
}

function batch(flowCount: number, sequence = 1): FlowBatch {
  return {
    agentId: 'node-7',
    bootId: 'boot',
    sequence,
    cluster: 'east',
    node: 'node-7',
    network: 'east',
    sourceKind: 'conntrack',
    observedFromMs: 1_700_000_000_000,
    observedToMs: 1_700_000_010_000,
    sourceDroppedCount: 9,
    samplingRate: 4,
    clockOffsetMs: -40,
    clockErrorMs: 7,
    strings: ['', 'db.example', 'postgres', 'uid-1'],
    flows: Array.from({ length: flowCount }, (_, i) => flow(i)),
  };
}

/** What a reader of the current schema must see of a batch that was written with the earlier one. */
function withoutAdditions(of: FlowBatch): FlowBatch {
  return {
    ...of,
    samplingRate: 1,
    clockOffsetMs: 0,
    clockErrorMs: -1,
    flows: of.flows.map((one) => ({
      ...one,
      originalDestinationAddress: Buffer.alloc(0),
      originalDestinationPort: 0,
      sourceHint: 0,
      destinationHint: 0,
    })),
  };
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const limits = { maxBatches: 10, maxBytes: 1_000_000 };

/** An object container file, written by hand so that its parts can be broken one by one. */
function containerOf(type: avro.Type, schema: unknown, blocks: unknown[][], codec = 'null'): Buffer {
  const long = avro.Type.forSchema('long');
  const meta = avro.Type.forSchema({ type: 'map', values: 'bytes' });
  const sync = Buffer.alloc(16, 7);
  const pack = (bytes: Buffer): Buffer =>
    codec === 'deflate' ? deflateRawSync(bytes) : codec === 'zstandard' ? zstdCompressSync(bytes) : bytes;
  const header = meta.toBuffer({
    'avro.schema': Buffer.from(JSON.stringify(schema)),
    'avro.codec': Buffer.from(codec),
  });
  const body = blocks.flatMap((items) => {
    const data = pack(Buffer.concat(items.map((item) => type.toBuffer(item))));
    return [long.toBuffer(items.length), long.toBuffer(data.length), data, sync];
  });
  return Buffer.concat([Buffer.from('Obj\x01', 'latin1'), header, sync, ...body]);
}

function withoutLastSync(file: Buffer): Buffer {
  return Buffer.concat([file.subarray(0, -16), Buffer.alloc(16)]);
}

/** The current schema with one more field in the batch and one in the flow, as a later version might have it. */
function laterSchema() {
  const schema = schemaAt('flow-batch.avsc');
  schema.fields.splice(2, 0, { name: 'region', type: ['null', 'string'], default: null });
  const flows = schema.fields.find((field: { name: string }) => field.name === 'flows');
  flows.type.items.fields.push({ name: 'tags', type: { type: 'map', values: 'string' }, default: {} });
  return schema;
}

describe('schema evolution', () => {
  it('passes a batch of the current schema on byte for byte', () => {
    const message = encodeFlowBatch(batch(3));
    const normal = normalise(message);
    assert.ok('ok' in normal);
    assert.equal(normal.ok, message);
  });

  it('reads a framed batch of the previous version to the same values, and the defaults of what was added', () => {
    const written = batch(50);
    const message = Buffer.concat([frameOf(earlierType), earlierType.toBuffer(written)]);
    const normal = normalise(message);
    assert.ok('ok' in normal);
    assert.deepEqual(plain(decodeFlowBatch(normal.ok)), plain(withoutAdditions(written)));
  });

  it('names the fingerprint of a schema that it does not know', () => {
    const message = encodeFlowBatch(batch(1));
    message.set([1, 2, 3, 4, 5, 6, 7, 8], 2);
    const normal = normalise(message);
    assert.ok('error' in normal);
    assert.equal(normal.error.cause, 'unknown-schema');
    assert.match(normal.error.message, /0102030405060708/);
  });

  it('refuses each truncation of a previous-version batch', () => {
    const message = Buffer.concat([frameOf(earlierType), earlierType.toBuffer(batch(2))]);
    for (let length = 0; length < message.length; length++) {
      assert.ok('error' in normalise(message.subarray(0, length)), `${length} bytes were taken`);
    }
  });

  it('costs nothing when a count promises more than there is', () => {
    const empty = earlierType.toBuffer({ ...batch(0), strings: [] });
    // The last byte ends the empty list of flows: put a block of 2^40 flows there instead.
    const count = avro.Type.forSchema('long').toBuffer(2 ** 40);
    const normal = normalise(Buffer.concat([frameOf(earlierType), empty.subarray(0, -1), count]));
    assert.ok('error' in normal);
    assert.equal(normal.error.cause, 'too-many-flows');
  });

  it('survives any change to the bytes, and what it takes can be read', () => {
    const message = Buffer.concat([frameOf(earlierType), earlierType.toBuffer(batch(4))]);
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.integer({ min: 10, max: message.length - 1 }), fc.integer({ min: 0, max: 255 })),
          {
            minLength: 1,
            maxLength: 4,
          },
        ),
        (changes) => {
          const broken = Buffer.from(message);
          for (const [at, byte] of changes) broken[at] = byte;
          const normal = normalise(broken);
          if ('ok' in normal) decodeFlowBatch(normal.ok);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('container files', () => {
  for (const codec of ['null', 'deflate', 'zstandard']) {
    it(`are read with codec ${codec}, over several blocks`, () => {
      const schema = schemaAt('flow-batch.avsc');
      const file = containerOf(flowBatchType, schema, [[batch(3, 1), batch(4, 2)], [batch(0, 3)]], codec);
      const read = readContainer(file, limits);
      assert.ok('ok' in read);
      assert.deepEqual(
        read.ok.map((message) => plain(decodeFlowBatch(message))),
        [plain(batch(3, 1)), plain(batch(4, 2)), plain(batch(0, 3))],
      );
    });
  }

  it('are read to the right values when the writer has fields that we do not know', () => {
    const schema = laterSchema();
    const type = avro.Type.forSchema(schema);
    const tagged = batch(3).flows.map((one) => ({ ...one, tags: { a: 'b', c: 'd' } }));
    const value = { ...batch(3), region: 'eu', flows: tagged };
    const read = readContainer(containerOf(type, schema, [[value]]), limits);
    assert.ok('ok' in read);
    assert.deepEqual(plain(decodeFlowBatch(read.ok[0]!)), plain(batch(3)));
  });

  it('are read when avsc itself wrote them', async () => {
    const chunks: Buffer[] = [];
    const encoder = new avro.streams.BlockEncoder(flowBatchType, { codec: 'deflate' });
    encoder.on('data', (chunk: Buffer) => chunks.push(chunk));
    const ended = new Promise((resolve) => encoder.on('end', resolve));
    encoder.end(batch(5));
    await ended;
    const read = readContainer(Buffer.concat(chunks), limits);
    assert.ok('ok' in read);
    assert.deepEqual(plain(decodeFlowBatch(read.ok[0]!)), plain(batch(5)));
  });

  it('are refused by name when the schema, the codec or a sync marker is wrong', () => {
    const schema = schemaAt('flow-batch.avsc');
    const other = { type: 'record', name: 'Other', fields: [{ name: 'a', type: 'long' }] };
    const cases = [
      [
        containerOf(avro.Type.forSchema(other as avro.Schema), other, [[{ a: 1 }]]),
        'unknown-schema',
        'avro.schema',
      ],
      [containerOf(flowBatchType, schema, [[batch(1)]], 'snappy'), 'undecodable', 'avro.codec'],
      [withoutLastSync(containerOf(flowBatchType, schema, [[batch(1)]])), 'undecodable', 'block'],
    ] as const;
    for (const [file, cause, field] of cases) {
      const read = readContainer(file, limits);
      assert.ok('error' in read);
      assert.deepEqual([read.error.cause, read.error.field], [cause, field]);
    }
  });

  it('are refused beyond the limits, also when they are small before decompression', () => {
    const schema = schemaAt('flow-batch.avsc');
    const many = containerOf(flowBatchType, schema, [Array.from({ length: 11 }, (_, i) => batch(0, i + 1))]);
    assert.throws(() => readContainer(many, limits), ContainerTooLargeError);
    const bomb = { ...batch(0), strings: ['', ...Array.from({ length: 5000 }, () => 'x'.repeat(1000))] };
    for (const codec of ['deflate', 'zstandard']) {
      const file = containerOf(flowBatchType, schema, [[bomb]], codec);
      assert.ok(file.length < 100_000);
      assert.throws(() => readContainer(file, limits), ContainerTooLargeError);
    }
  });

  it('survive any change to the bytes', () => {
    const file = containerOf(flowBatchType, schemaAt('flow-batch.avsc'), [[batch(2)]]);
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: file.length - 1 }),
        fc.integer({ min: 0, max: 255 }),
        (at, byte) => {
          const broken = Buffer.from(file);
          broken[at] = byte;
          const read = readContainer(broken, limits);
          if ('ok' in read) for (const message of read.ok) decodeFlowBatch(message);
        },
      ),
      { numRuns: 500 },
    );
  });
});
