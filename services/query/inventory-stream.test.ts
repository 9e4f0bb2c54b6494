import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { writePresentEvents } from './inventory-stream.ts';

const never = new AbortController().signal;

function message(offset: number, key: string, value: object | null): BusMessage {
  const bytes = value === null ? null : Buffer.from(JSON.stringify(value));
  return { offset, timestampMs: 0, key, value: bytes, headers: {} };
}

function namespace(name: string, labels: Record<string, string> = {}) {
  return { v: 1, type: 'namespace', cluster: 'c1', name, labels, annotations: {} };
}

/** A bus with one topic of one partition; each time that it is read it holds what `read` says, as batches. */
function busOf(read: (time: number) => Iterable<readonly BusMessage[]>, onTaken = () => {}): Bus {
  let times = 0;
  const fake: Pick<Bus, 'tail'> = {
    async tail({ onMessages, onCaughtUp }) {
      const batches = read(times++);
      const run = async (): Promise<void> => {
        for (const batch of batches) {
          await onMessages(0, batch);
          onTaken();
        }
        onCaughtUp();
      };
      // Whoever reads is told of a failure by its own promise.
      run().catch(() => undefined);
      return { close: async () => undefined };
    },
  };
  return fake as Bus;
}

async function present(bus: Bus, maxEntities = 100): Promise<{ name: string; labels: object }[]> {
  const lines: string[] = [];
  const count = await writePresentEvents(bus, maxEntities, never, async (line) => {
    lines.push(line);
  });
  assert.equal(count, lines.length);
  return lines.map((line) => JSON.parse(line));
}

describe('the inventory as a stream', () => {
  test('has the newest event of each key, and nothing that is removed or no event', async () => {
    const messages = [
      message(0, 'namespace/c1/a', namespace('a', { old: 'yes' })),
      message(1, 'namespace/c1/b', namespace('b')),
      message(2, 'namespace/c1/a', namespace('a', { new: 'yes' })),
      message(3, 'namespace/c1/b', null),
      message(4, 'namespace/c1/c', { v: 1, type: 'nonsense' }),
      message(5, 'watermark/x', { v: 1, type: 'watermark', source: 'x', completeToMs: 1 }),
    ];
    const events = await present(busOf(() => messages.map((one) => [one])));
    assert.deepEqual(events, [namespace('a', { new: 'yes' })]);
  });

  test('loses nothing that changes, or is compacted, between the two times that it is read', async () => {
    const before = [
      message(0, 'namespace/c1/a', namespace('a')),
      message(1, 'namespace/c1/b', namespace('b')),
      message(2, 'namespace/c1/c', namespace('c')),
    ];
    const after = [
      message(2, 'namespace/c1/c', namespace('c')),
      message(3, 'namespace/c1/a', namespace('a', { newer: 'yes' })),
      message(4, 'namespace/c1/b', null),
      message(5, 'namespace/c1/c', namespace('c', { newer: 'yes' })),
      message(6, 'namespace/c1/d', namespace('d')),
    ];
    const events = await present(busOf((time) => [time === 0 ? before : after]));
    assert.deepEqual(events, [namespace('c'), namespace('a', { newer: 'yes' })]);
  });

  test('reads no further than its reader does', async () => {
    let made = 0;
    function* batches(): Generator<BusMessage[]> {
      for (let offset = 0; offset < 100; offset++) {
        made++;
        yield [message(offset, `namespace/c1/n${offset}`, namespace(`n${offset}`))];
      }
    }
    const bus = busOf(batches);
    const slow = Promise.withResolvers<void>();
    let written = 0;
    const reading = writePresentEvents(bus, 100, never, async () => {
      written++;
      if (written === 10) await slow.promise;
    });
    // All that can be done without the reader is done once the queue of jobs is empty.
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([written, made], [10, 110]);
    slow.resolve();
    assert.equal(await reading, 100);
  });

  test('is refused as a whole over its limit, which is named', async () => {
    const messages = ['a', 'b', 'c'].map((name, i) => message(i, `namespace/c1/${name}`, namespace(name)));
    const bus = () => busOf(() => [messages]);
    assert.equal((await present(bus(), 3)).length, 3);
    await assert.rejects(present(bus(), 2), /more than 2 entities \(query\.maxInventoryEntities\)/);
  });

  test('ends when nobody waits for it', async () => {
    const gone = new AbortController();
    const bus = busOf(() => [[message(0, 'namespace/c1/a', namespace('a'))]]);
    const reading = writePresentEvents(bus, 100, gone.signal, async () => {
      gone.abort(new Error('the client went away'));
      await new Promise((_resolve, reject) => reject(gone.signal.reason));
    });
    await assert.rejects(reading, /went away/);
  });
});
