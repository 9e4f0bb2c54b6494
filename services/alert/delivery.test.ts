import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Allowance } from './allowance.ts';
import { receiverFingerprint, receiverName, retryPauseMs } from './delivery.ts';
import { retryAfterMs } from './send.ts';

describe('deliveries', () => {
  it('pause twice as long after each failure, up to the limit', () => {
    const limits = { retryBaseMs: 1000, maxRetryPauseMs: 10_000 };
    const pauses = [1, 2, 3, 4, 5, 500].map((failures) => retryPauseMs(failures, limits, 0.5));
    assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    assert.ok(retryPauseMs(1, limits, 0) < 1000 && retryPauseMs(1, limits, 1) > 1000);
  });

  it('hold to the Retry-After of a receiver, in seconds or as a date', () => {
    const nowMs = Date.parse('2026-01-31T12:00:00Z');
    assert.equal(retryAfterMs('30', nowMs), 30_000);
    assert.equal(retryAfterMs('Sat, 31 Jan 2026 12:01:00 GMT', nowMs), 60_000);
    assert.equal(retryAfterMs('Sat, 31 Jan 2026 11:00:00 GMT', nowMs), 0);
    assert.equal(retryAfterMs('soon', nowMs), 0);
    assert.equal(retryAfterMs(null, nowMs), 0);
  });

  it('call a receiver without a name by its host, and never show the path that may be a secret', () => {
    const name = receiverName({ name: '', url: 'https://hooks.example/services/very-secret' });
    assert.match(name, /^hooks\.example\/[0-9a-f]{8}$/);
    assert.equal(receiverName({ name: 'soc', url: 'https://hooks.example/' }), 'soc');
  });

  it('take a receiver with another URL or secret for another one', () => {
    const one = receiverFingerprint({ url: 'https://a.example', secret: 'whsec_1' });
    assert.notEqual(one, receiverFingerprint({ url: 'https://b.example', secret: 'whsec_1' }));
    assert.notEqual(one, receiverFingerprint({ url: 'https://a.example', secret: 'whsec_2' }));
  });
});

describe('the allowance of events', () => {
  it("is a minute's worth at most, less what was spent before a restart, and fills evenly", () => {
    let nowMs = 0;
    const allowance = new Allowance(60, 50, () => nowMs);
    assert.equal(allowance.left, 10);
    allowance.spend(10);
    assert.equal(allowance.left, 0);
    nowMs = 5000;
    assert.equal(allowance.left, 5);
    nowMs = 600_000;
    assert.equal(allowance.left, 60);
  });
});
