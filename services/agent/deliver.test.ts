import assert from 'node:assert/strict';
import { test } from 'node:test';
import pino from 'pino';
import { backoffMs, type DeliveryQueue, deliver, type SendOutcome } from './deliver.ts';
import { outcomeOf, problemDetail, retryAfterMs } from './deliver-http.ts';
import type { PendingBatch } from './spool/spool.ts';

const log = pino({ level: 'silent' });

/** Delivers batches 1..count while `answers` last; what happened, in order. */
async function run(count: number, answers: readonly SendOutcome[]): Promise<string[]> {
  const done: string[] = [];
  const batches: PendingBatch[] = Array.from({ length: count }, (_, i) => ({
    bootId: 'a',
    sequence: i + 1,
    flowCount: 1,
    bytes: Buffer.of(i),
  }));
  const ended = new AbortController();
  const queue: DeliveryQueue = {
    oldest: () => batches[0] ?? null,
    settle: (batch, outcome) => {
      batches.shift();
      done.push(`${outcome} ${batch.sequence}`);
    },
    waitForBatch: async () => {
      if (batches.length === 0) ended.abort();
    },
  };
  const left = [...answers];
  await deliver(
    {
      queue,
      sender: {
        send: async ({ sequence }) => {
          done.push(`send ${sequence}`);
          const outcome = left.shift();
          if (left.length === 0 && outcome?.kind === 'retry') ended.abort();
          return outcome ?? { kind: 'delivered' };
        },
        close: async () => undefined,
      },
      backoffMinMs: 100,
      backoffMaxMs: 1000,
      log,
      random: () => 1,
      sleep: async (ms) => {
        done.push(`sleep ${ms}`);
      },
      onOutcome: () => undefined,
    },
    ended.signal,
  );
  return done;
}

const busy = (afterMs?: number): SendOutcome => ({
  kind: 'retry',
  cause: 'busy',
  detail: '503',
  ...(afterMs === undefined ? {} : { afterMs }),
});

test('batches go one after the other', async () => {
  assert.deepEqual(await run(2, []), ['send 1', 'delivered 1', 'send 2', 'delivered 2']);
});

test('a batch is tried again with growing pauses, and none overtakes it', async () => {
  const delivered: SendOutcome = { kind: 'delivered' };
  assert.deepEqual(await run(2, [busy(), busy(), busy(), delivered, delivered]), [
    'send 1',
    'sleep 100',
    'send 1',
    'sleep 200',
    'send 1',
    'sleep 400',
    'send 1',
    'delivered 1',
    'send 2',
    'delivered 2',
  ]);
});

test('the pause is as long as the other end asks for', async () => {
  assert.deepEqual((await run(1, [busy(5000)])).slice(0, 1), ['send 1']);
  assert.deepEqual(await run(1, [busy(5000), { kind: 'delivered' }]), [
    'send 1',
    'sleep 5000',
    'send 1',
    'delivered 1',
  ]);
});

test('a refused batch makes way for the next', async () => {
  assert.deepEqual(await run(2, [{ kind: 'refused', detail: '422' }]), [
    'send 1',
    'refused 1',
    'send 2',
    'delivered 2',
  ]);
});

test('pauses double up to their limit and are spread', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5, 99].map((n) => backoffMs(n, 200, 3000, 1)),
    [200, 400, 800, 1600, 3000, 3000],
  );
  assert.equal(backoffMs(3, 200, 3000, 0), 400);
});

test('only faults of the batch itself drop it', () => {
  const kinds = (statuses: readonly number[]) =>
    statuses.map((status) => outcomeOf(status, undefined, '', 0).kind);
  assert.deepEqual(kinds([200, 202]), ['delivered', 'delivered']);
  assert.deepEqual(kinds([400, 413, 415, 422]), ['refused', 'refused', 'refused', 'refused']);
  assert.ok(kinds([301, 401, 403, 404, 408, 429, 500, 502, 503, 504]).every((kind) => kind === 'retry'));
  const outcome = outcomeOf(429, '7', '{"title":"busy","detail":"the bus is behind"}', 0);
  assert.deepEqual(outcome, { kind: 'retry', cause: 'busy', detail: '429 the bus is behind', afterMs: 7000 });
});

test('an answer says when to come back and what was wrong', () => {
  const nowMs = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(retryAfterMs('3', nowMs), 3000);
  assert.equal(retryAfterMs('Thu, 01 Jan 2026 00:00:10 GMT', nowMs), 10_000);
  assert.equal(retryAfterMs('soon', nowMs), undefined);
  assert.equal(
    problemDetail('{"title":"no","detail":"flows[3].protocol is 900"}'),
    'flows[3].protocol is 900',
  );
  assert.equal(problemDetail('<html>'), '<html>');
});
