import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { StatusError } from './errors.ts';
import { FakeApi } from './fake-api.ts';
import { Lease } from './lease.ts';

const durationMs = 200;
const stop = new Set<AbortController>();

interface Stored {
  metadata: { resourceVersion: string };
  spec: { holderIdentity: string; leaseTransitions: number };
}

/** The one lease of a cluster, with the server's rule for two writers. */
class LeaseServer {
  stored: Stored | null = null;
  isAway = false;
  #version = 0;

  readonly api = new FakeApi(({ method, body }) => {
    if (this.isAway) throw new Error('away');
    if (method === undefined) {
      if (this.stored === null) throw new StatusError(404, 'not found');
      // As if it were written in milliseconds, so that a test need not wait for seconds.
      return { ...this.stored, spec: { ...this.stored.spec, leaseDurationSeconds: durationMs / 1000 } };
    }
    const lease = body as Stored;
    const version = this.stored?.metadata.resourceVersion;
    if (version !== (method === 'POST' ? undefined : lease.metadata.resourceVersion)) {
      throw new StatusError(409, 'conflict');
    }
    this.stored = { ...lease, metadata: { resourceVersion: String(++this.#version) } };
    return this.stored;
  });
}

function contender(identity: string, server: LeaseServer) {
  const told: string[] = [];
  const lease = new Lease({
    namespace: 'eastwest',
    name: 'kubelink',
    durationMs,
    identity,
    onHeld: () => void told.push('held'),
    onLost: () => void told.push('lost'),
    onHolder: (holder) => void told.push(`holder ${holder}`),
  });
  const controller = new AbortController();
  stop.add(controller);
  const seek = async (): Promise<void> => {
    while (!controller.signal.aborted) {
      await lease.run(server.api, controller.signal).catch(() => sleep(10));
    }
  };
  void seek();
  return { lease, told, end: () => controller.abort() };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, 'not in time');
    await sleep(5);
  }
}

afterEach(() => {
  for (const controller of stop) controller.abort();
  stop.clear();
});

test('one holds it, another takes over when it is no longer renewed, and never do both', async () => {
  const server = new LeaseServer();
  const first = contender('first', server);
  await until(() => first.lease.isHeld);
  const second = contender('second', server);
  await until(() => second.told.includes('holder first'));
  const version = (): number => Number(server.stored?.metadata.resourceVersion);
  const before = version();
  // Renewals of more than its duration.
  await until(() => version() > before + 10);
  assert.ok(first.lease.isHeld && !second.lease.isHeld);
  first.end();
  await until(() => second.lease.isHeld);
  assert.ok(!first.lease.isHeld);
  assert.deepEqual(first.told, ['holder first', 'held', 'lost']);
  assert.deepEqual(second.told, ['holder first', 'holder second', 'held']);
  assert.equal(server.stored?.spec.leaseTransitions, 1);
});

test('a holder that cannot renew gives up before another can take over', async () => {
  const server = new LeaseServer();
  const { lease, told } = contender('first', server);
  await until(() => lease.isHeld);
  server.isAway = true;
  await until(() => told.includes('lost'));
  assert.ok(!lease.isHeld);
  server.isAway = false;
  await until(() => lease.isHeld);
});

test('a holder that finds another one gives up at once', async () => {
  const server = new LeaseServer();
  const { lease, told } = contender('first', server);
  await until(() => lease.isHeld);
  assert.ok(server.stored !== null);
  const spec = { ...server.stored.spec, holderIdentity: 'thief' };
  server.stored = { metadata: { resourceVersion: 'other' }, spec };
  await until(() => told.includes('lost'));
  assert.ok(told.includes('holder thief'));
});

test('a lease that is let go is taken at once', async () => {
  const server = new LeaseServer();
  const first = contender('first', server);
  await until(() => first.lease.isHeld);
  first.end();
  await first.lease.release(server.api);
  assert.equal(server.stored?.spec.holderIdentity, '');
  const second = contender('second', server);
  await until(() => second.lease.isHeld);
});
