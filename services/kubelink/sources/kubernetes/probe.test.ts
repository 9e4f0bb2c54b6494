import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeApi } from './fake-api.ts';
import { type Probed, proveComplete } from './probe.ts';

const settleMs = 50;
const api = new FakeApi(() => ({ metadata: { resourceVersion: '100' }, items: [] }));

class Watched implements Probed {
  readonly resource = { kind: 'Pod', path: '/api/v1/pods' } as const;
  liveStream = 1;
  revision = 0;
  heardAt = 0;
  proven = 0;
  prove(revision: number): void {
    this.proven = revision;
  }
}

const prove = (watched: Watched): Promise<number | null> =>
  proveComplete(api, [watched], settleMs, new AbortController().signal);

test("a watch that has passed the server's revision proves the moment of the question", async () => {
  const watched = new Watched();
  watched.revision = 100;
  const before = Date.now();
  const provenMs = await prove(watched);
  assert.ok(provenMs !== null && provenMs >= before && provenMs <= Date.now());
  assert.equal(watched.proven, 100);
});

test('a watch that has not passed it has to be silent for a while', async () => {
  const watched = new Watched();
  const began = performance.now();
  // Events still come for a while, each with an older revision than the answer.
  const timer = setInterval(() => {
    watched.heardAt = performance.now();
    if (watched.heardAt - began > 3 * settleMs) clearInterval(timer);
  }, 5);
  const provenMs = await prove(watched);
  assert.ok(provenMs !== null);
  assert.ok(performance.now() - began >= 3 * settleMs);
});

test('nothing is proven while a watch is not open, or when it was opened anew meanwhile', async () => {
  const closed = new Watched();
  closed.liveStream = 0;
  assert.equal(await prove(closed), null);
  const reopened = new Watched();
  setTimeout(() => {
    reopened.liveStream = 2;
  }, 5);
  assert.equal(await prove(reopened), null);
  assert.equal(reopened.proven, 0);
});
