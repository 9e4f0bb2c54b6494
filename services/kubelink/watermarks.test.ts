import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Source } from './sources/source.ts';
import type { Publication } from './state.ts';
import { Watermarks } from './watermarks.ts';

/** A bus that takes what it is given when the test says so, and a source whose word the test sets. */
function setUp() {
  const published: Publication[] = [];
  let taken = Promise.withResolvers<void>();
  let completeToMs = 0;
  const source: Source = {
    name: 'a',
    start: () => {},
    stop: async () => {},
    completeToMs: () => completeToMs,
  };
  const silent: Source = { name: 'b', start: () => {}, stop: async () => {} };
  const watermarks = new Watermarks({
    sources: [source, silent],
    intervalMs: 1_000_000,
    flushed: () => taken.promise,
    put: (publications) => published.push(...publications),
    onPublished: () => {},
  });
  return {
    watermarks,
    say: (ms: number) => {
      completeToMs = ms;
    },
    take: () => {
      taken.resolve();
      taken = Promise.withResolvers();
    },
    marks: () =>
      published.map(({ key, event, source: owner }) => {
        assert.equal(key, `watermark/${owner}`);
        assert.equal(event?.type, 'watermark');
        return event?.type === 'watermark' ? event.completeToMs : null;
      }),
  };
}

test('a watermark is published when the bus has all that was told before it was asked for, not sooner', async () => {
  const { watermarks, say, take, marks } = setUp();
  say(1000.7);
  const looked = watermarks.look();
  // What the source vouches for while the bus has not answered is not covered by that answer.
  say(2000);
  await Promise.resolve();
  assert.deepEqual(marks(), []);
  take();
  await looked;
  assert.deepEqual(marks(), [1000]);
});

test('a watermark is published only when it has risen, and never for a source that vouches for nothing', async () => {
  const { watermarks, say, take, marks } = setUp();
  for (const ms of [0, 1000, 1000, 900, Number.NaN, 1001]) {
    say(ms);
    const looked = watermarks.look();
    take();
    await looked;
  }
  assert.deepEqual(marks(), [1000, 1001]);
});

test('while the bus is away one watermark waits, and it is the oldest', async () => {
  const { watermarks, say, take, marks } = setUp();
  say(1000);
  const first = watermarks.look();
  say(2000);
  await watermarks.look();
  take();
  await first;
  assert.deepEqual(marks(), [1000]);
});

test('nothing is vouched for after the stop, nor when what was told has been dropped', async () => {
  const dropped = setUp();
  dropped.say(1000);
  const before = dropped.watermarks.look();
  dropped.watermarks.void('a');
  dropped.take();
  await before;
  assert.deepEqual(dropped.marks(), []);
  const after = dropped.watermarks.look();
  dropped.take();
  await after;
  assert.deepEqual(dropped.marks(), [1000]);

  const stopped = setUp();
  stopped.say(1000);
  const asked = stopped.watermarks.look();
  stopped.watermarks.stop();
  stopped.take();
  await asked;
  assert.deepEqual(stopped.marks(), []);
});
