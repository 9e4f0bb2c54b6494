import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { realFiles, type SpoolFiles } from './files.ts';
import { lockSpool } from './lock.ts';
import { type PendingBatch, Spool, type SpoolEvent, type SpoolOptions } from './spool.ts';

let folder = '';
let events: SpoolEvent[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-spool-'));
  events = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function open(bootId: string, more: Partial<SpoolOptions> = {}): Spool {
  return new Spool({
    folder,
    bootId,
    maxSpoolBytes: 1024 * 1024,
    maxUnsavedBytes: 10_000,
    onEvent: (event) => events.push(event),
    ...more,
  });
}

/** Puts a batch of one flow into the spool, as the agent does; its bytes tell what it is. */
function put(spool: Spool, length = 100): number {
  const sequence = spool.nextSequence;
  const bytes = Buffer.alloc(length, sequence);
  const spoolDropCount = spool.pendingDropCount;
  spool.append({ flowCount: 1, sourceDroppedCount: 0, spoolDropCount, observedToMs: sequence * 1000, bytes });
  return spoolDropCount;
}

function take(spool: Spool): PendingBatch {
  const batch = spool.oldest();
  assert.ok(batch !== null);
  spool.settle(batch, 'delivered');
  return batch;
}

const names = (batches: readonly PendingBatch[]): string[] =>
  batches.map(({ bootId, sequence }) => `${bootId} ${sequence}`);

function drain(spool: Spool): PendingBatch[] {
  const batches: PendingBatch[] = [];
  while (spool.batchCount > 0) batches.push(take(spool));
  return batches;
}

/** Files that can be told to be full. */
function limitedFiles(): SpoolFiles & { full: boolean } {
  const refuse = (): void => {
    if (files.full) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  };
  const files = {
    ...realFiles,
    full: false,
    writeAt(path: string, offset: number, bytes: Uint8Array) {
      refuse();
      realFiles.writeAt(path, offset, bytes);
    },
    replace(path: string, bytes: Uint8Array, durable: boolean) {
      refuse();
      realFiles.replace(path, bytes, durable);
    },
  };
  return files;
}

test('batches come out in order and unchanged, and delivered ones leave nothing behind', () => {
  const spool = open('a');
  for (let i = 0; i < 5; i++) put(spool);
  const batches = drain(spool);
  assert.deepEqual(names(batches), ['a 1', 'a 2', 'a 3', 'a 4', 'a 5']);
  assert.deepEqual(Buffer.from(batches[2]?.bytes ?? []), Buffer.alloc(100, 3));
  assert.equal(spool.diskBytes, 0);
  put(spool);
  assert.deepEqual(names(drain(open('b'))), ['a 6'], 'the emptied segment goes on');
});

test('after a restart the undelivered come first, with their old boot and sequence, byte for byte', () => {
  const first = open('a');
  for (let i = 0; i < 3; i++) put(first);
  take(first);
  const second = open('b');
  put(second);
  const batches = drain(second);
  // The first of them was delivered already: a segment is kept until all of it is.
  assert.deepEqual(names(batches), ['a 1', 'a 2', 'a 3', 'b 1']);
  assert.deepEqual(Buffer.from(batches[1]?.bytes ?? []), Buffer.alloc(100, 2));
  assert.equal(open('c').observedToMs, 3000);
});

test('a torn tail is cut off, wherever it is torn, and what is whole stays', () => {
  const spool = open('a');
  put(spool);
  put(spool);
  const name = readdirSync(folder).find((one) => one.endsWith('.segment'));
  const path = join(folder, name ?? '');
  const whole = readFileSync(path);
  for (let length = whole.length - 1; length > whole.length / 2; length -= 7) {
    writeFileSync(path, whole.subarray(0, length));
    events = [];
    assert.equal(open('b').batchCount, 1, `${length} bytes`);
    assert.equal(events[0]?.kind, 'cut');
    assert.equal(readFileSync(path).length, whole.length / 2);
  }
  writeFileSync(path, Buffer.concat([whole.subarray(0, whole.length - 3), Buffer.of(9, 9, 9)]));
  assert.equal(open('b').batchCount, 1, 'a wrong checksum');
});

test('at the limit the oldest are dropped, and each lost flow is told exactly once', () => {
  const limit = 64 * 1024;
  const first = open('a', { maxSpoolBytes: limit });
  const told: number[] = [];
  for (let i = 0; i < 400; i++) told.push(put(first, 1000));
  assert.ok(first.diskBytes <= limit);
  // Killed here; the next run takes over what was not told.
  const second = open('b', { maxSpoolBytes: limit });
  told.push(put(second, 10));
  const kept = drain(second);
  assert.deepEqual(names(kept).at(-1), 'b 1');
  const sequences = kept.slice(0, -1).map(({ sequence }) => sequence);
  assert.deepEqual(
    sequences,
    Array.from(sequences, (_, i) => 400 - sequences.length + 1 + i),
  );
  const keptTold = kept.reduce(
    (sum, batch) => sum + (told[batch.bootId === 'a' ? batch.sequence - 1 : 400] ?? 0),
    0,
  );
  assert.equal(keptTold + second.pendingDropCount + kept.length - 1, 400, 'kept and told make all');
  const counted = events.reduce((sum, event) => sum + (event.kind === 'dropped' ? event.batchCount : 0), 0);
  assert.equal(counted, 400 - sequences.length);
});

test('a batch that was dropped on its way and arrived all the same is not counted as lost', () => {
  const spool = open('a', { maxSpoolBytes: 16_000 });
  put(spool, 500);
  const onItsWay = spool.oldest();
  assert.ok(onItsWay !== null);
  while (spool.pendingDropCount === 0) {
    spool.append({
      flowCount: 1,
      sourceDroppedCount: 0,
      spoolDropCount: 0,
      observedToMs: 1,
      bytes: Buffer.alloc(500),
    });
  }
  const lost = spool.pendingDropCount;
  spool.settle(onItsWay, 'delivered');
  assert.equal(spool.pendingDropCount, lost - 1);
  spool.settle(onItsWay, 'delivered');
  assert.equal(spool.pendingDropCount, lost - 1, 'once only');
});

test('a refused batch counts as lost, for the next run too', () => {
  const spool = open('a');
  put(spool);
  const batch = spool.oldest();
  assert.ok(batch !== null);
  spool.settle(batch, 'refused');
  assert.equal(spool.pendingDropCount, 1);
  const next = open('b');
  assert.equal(next.pendingDropCount, 1);
  assert.equal(put(next), 1);
  assert.equal(next.pendingDropCount, 0);
  drain(next);
  assert.equal(open('c').pendingDropCount, 0);
});

test('on a full disk batches wait in memory, the oldest are dropped at the limit, and all is written when it can be', () => {
  const files = limitedFiles();
  const spool = open('a', { files, maxUnsavedBytes: 350 });
  put(spool);
  files.full = true;
  for (let i = 0; i < 5; i++) put(spool);
  assert.equal(spool.writable, false);
  assert.equal(events.filter(({ kind }) => kind === 'unwritable').length, 1);
  assert.equal(spool.unsavedBytes, 300);
  // Two were dropped; the batch after the first of them told of it.
  assert.equal(spool.pendingDropCount, 1);
  assert.deepEqual(names([take(spool)]), ['a 1']);
  assert.deepEqual(names([take(spool)]), ['a 4'], 'from memory');
  files.full = false;
  put(spool);
  assert.equal(spool.writable, true);
  assert.equal(spool.unsavedBytes, 0);
  assert.deepEqual(names(drain(open('b'))), ['a 5', 'a 6', 'a 7']);
});

test('a file that was taken away costs its batches, which are counted, and nothing else', () => {
  const spool = open('a', { maxSpoolBytes: 16_000 });
  for (let i = 0; i < 6; i++) put(spool, 500);
  const [oldest] = readdirSync(folder)
    .filter((name) => name.endsWith('.segment'))
    .sort();
  rmSync(join(folder, oldest ?? ''));
  const left = drain(spool);
  assert.ok(left.length > 0 && left.length < 6);
  assert.equal(spool.pendingDropCount, 6 - left.length);
});

test('a note is found again only if its batch was kept', () => {
  const spool = open('a');
  spool.writeNote(1, 'one');
  put(spool);
  spool.writeNote(2, 'two');
  assert.equal(open('b').note, 'one', 'killed between the note and its batch');
  put(spool);
  assert.equal(open('b').note, 'two');
  drain(spool);
  assert.equal(open('b').note, 'two', 'delivered batches count as kept');
});

test('a spool belongs to one living process', () => {
  const taken = lockSpool(folder);
  assert.ok('release' in taken);
  writeFileSync(
    join(folder, 'lock'),
    `1 ${readFileSync('/proc/1/stat', 'utf8').split(') ')[1]?.split(' ')[19]}\n`,
  );
  const refused = lockSpool(folder);
  assert.deepEqual(refused, { heldBy: 1 });
  writeFileSync(join(folder, 'lock'), '1 12345678901\n');
  const again = lockSpool(folder);
  assert.ok('release' in again, 'another process with the same number is no reason');
  again.release();
  assert.deepEqual(readdirSync(folder), []);
});
