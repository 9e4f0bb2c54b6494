import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { drain, encodingOf, readBody } from './body.ts';
import { Pressure } from './pressure.ts';
import { RefusedError } from './refusal.ts';

const limits = { maxBodyBytes: 10_000, maxBatchBytes: 20_000 };
const ignore = (): void => undefined;

function read(chunks: readonly Buffer[], encoding: string, maxInFlightBytes = 1_000_000): Promise<Buffer> {
  const account = new Pressure({ maxInFlightBytes, maxAppendWaitMs: 1000, maxBacklogBatches: 10 }).open();
  return readBody(
    Readable.from(chunks, { objectMode: false }),
    encodingOf(encoding),
    limits,
    account,
    ignore,
  );
}

const refusedAs = (cause: string) => (error: unknown) =>
  error instanceof RefusedError && error.refusal === cause;

describe('a request body', () => {
  const text = Buffer.from('from east to west, '.repeat(100));

  it('is the same in each encoding, however it is cut', async () => {
    for (const [encoding, body] of [
      ['identity', text],
      ['gzip', gzipSync(text)],
      ['zstd', zstdCompressSync(text)],
    ] as const) {
      const cuts = Array.from({ length: body.length }, (_, i) => body.subarray(i, i + 1));
      assert.deepEqual(await read([body], encoding), text);
      assert.deepEqual(await read(cuts, encoding), text);
    }
  });

  it('may be several gzip members, but never has bytes that nobody reads', async () => {
    assert.deepEqual(await read([gzipSync(text), gzipSync(text)], 'gzip'), Buffer.concat([text, text]));
    const more = Buffer.from('more');
    await assert.rejects(read([gzipSync(text), more], 'gzip'), refusedAs('bad-encoding'));
    await assert.rejects(read([zstdCompressSync(text), more], 'zstd'), refusedAs('bad-encoding'));
    const twoFrames = Buffer.concat([zstdCompressSync(text), zstdCompressSync(text)]);
    await assert.rejects(read([twoFrames], 'zstd'), refusedAs('bad-encoding'));
  });

  it('is refused at its limits: as it arrives, after decompression, and of all requests together', async () => {
    await assert.rejects(read([Buffer.alloc(10_001)], 'identity'), refusedAs('body-too-large'));
    await assert.rejects(read([gzipSync(Buffer.alloc(20_001))], 'gzip'), refusedAs('body-too-large'));
    await assert.rejects(read([zstdCompressSync(Buffer.alloc(20_001))], 'zstd'), refusedAs('body-too-large'));
    await assert.rejects(read([text], 'identity', text.length - 1), refusedAs('too-busy'));
  });

  it('is refused when it ends in the middle', async () => {
    await assert.rejects(read([gzipSync(text).subarray(0, -9)], 'gzip'), refusedAs('bad-encoding'));
    await assert.rejects(read([zstdCompressSync(text).subarray(0, -3)], 'zstd'), refusedAs('bad-encoding'));
  });

  it('is thrown away up to a limit when it was refused', async () => {
    const chunks = (count: number) => Readable.from(Array.from({ length: count }, () => Buffer.alloc(1000)));
    assert.equal(await drain(chunks(5), 10_000, 5000), true);
    assert.equal(await drain(chunks(50), 10_000, 5000), false);
  });
});

describe('what is in flight', () => {
  it('is given back once, however often a request is closed', () => {
    const pressure = new Pressure({ maxInFlightBytes: 100, maxAppendWaitMs: 1000, maxBacklogBatches: 10 });
    const account = pressure.open();
    account.take(80);
    assert.throws(() => pressure.open().take(30), refusedAs('too-busy'));
    account.close();
    account.close();
    assert.equal(pressure.inFlightBytes, 0);
    pressure.open().take(100);
  });

  it('makes the bus count as away while the oldest append waits too long', async () => {
    let nowMs = 0;
    let release = ignore;
    const pressure = new Pressure(
      { maxInFlightBytes: 100, maxAppendWaitMs: 1000, maxBacklogBatches: 10 },
      () => false,
      () => nowMs,
    );
    const append = pressure.watchAppend(
      () =>
        new Promise<void>((resolve) => {
          release = resolve;
        }),
    );
    nowMs = 1000;
    pressure.checkBus();
    nowMs = 1001;
    assert.throws(() => pressure.checkBus(), refusedAs('bus-away'));
    release();
    await append;
    pressure.checkBus();
  });

  it('is refused near the memory limit, except for one request at a time', () => {
    let isTight = false;
    const limits = { maxInFlightBytes: 100, maxAppendWaitMs: 1000, maxBacklogBatches: 10 };
    const pressure = new Pressure(limits, () => isTight);
    isTight = true;
    const account = pressure.open();
    account.take(10);
    assert.throws(() => pressure.open().take(10), refusedAs('too-busy'));
    isTight = false;
    pressure.open().take(10);
  });

  it('is refused while the enrichers are too far behind, counted by what was put on the bus since', () => {
    const pressure = new Pressure({ maxInFlightBytes: 100, maxAppendWaitMs: 1000, maxBacklogBatches: 10 });
    pressure.seeBacklog(8);
    pressure.addToBacklog(1);
    pressure.checkBacklog();
    pressure.addToBacklog(1);
    assert.throws(() => pressure.checkBacklog(), refusedAs('backlog-full'));
    pressure.seeBacklog(3);
    pressure.checkBacklog();
  });
});
