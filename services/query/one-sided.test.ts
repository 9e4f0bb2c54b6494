import assert from 'node:assert/strict';
import { test } from 'node:test';
import { absenceOf, Counterparts, type OneSided, type PairEnd, type Reporter } from './one-sided.ts';

const limits = { slackMs: 60_000, toleranceMs: 1000, silentAfterMs: 150_000, nowMs: 1_000_000 };

function end(workload: string, more: Partial<PairEnd> = {}): PairEnd {
  return { workload, address: `10.0.0.${workload}`, cluster: 'k1', how: 'pod', sure: 'exact', ...more };
}

function pair(more: Partial<OneSided> = {}): OneSided {
  return {
    seenBy: 'source',
    source: end('1'),
    destination: end('2'),
    port: 443,
    protocol: 6,
    reportsMs: [500_000],
    pending: false,
    agents: ['here'],
    ...more,
  };
}

function reporter(more: Partial<Reporter> = {}): Reporter {
  return { agent: 'there', reachedMs: 990_000, sampling: false, hazards: [[0, 100_000]], ...more };
}

function state(one: OneSided, reporters: readonly Reporter[], others: readonly OneSided[] = []): string {
  return absenceOf(one, reporters, new Counterparts([one, ...others]), limits);
}

test('what an agent reported past, without a loss, was not seen', () => {
  assert.equal(state(pair(), [reporter()]), 'not-seen');
  assert.equal(state(pair(), []), 'no-agent');
  assert.equal(state(pair(), [reporter({ agent: 'here' })]), 'same-agent');
});

test('an agent has reported past a moment only when it has said so much more', () => {
  assert.equal(state(pair(), [reporter({ reachedMs: 559_999 })]), 'silent');
  assert.equal(state(pair({ reportsMs: [940_000] }), [reporter()]), 'waiting');
  // The newest report waits, the oldest does not.
  assert.equal(state(pair({ reportsMs: [500_000, 940_000] }), [reporter()]), 'not-seen');
});

test('a loss excuses what happened meanwhile, give or take the clocks, and nothing else', () => {
  const hazards = [[499_000, 499_500]] as const;
  assert.equal(state(pair(), [reporter({ hazards })]), 'incomplete');
  assert.equal(state(pair({ reportsMs: [501_000] }), [reporter({ hazards })]), 'not-seen');
  assert.equal(state(pair({ reportsMs: [500_000, 600_000] }), [reporter({ hazards })]), 'not-seen');
  assert.equal(state(pair({ reportsMs: [50_000] }), [reporter()]), 'incomplete');
  assert.equal(state(pair(), [reporter({ sampling: true })]), 'incomplete');
  // One of two agents there may have lost it.
  assert.equal(state(pair(), [reporter(), reporter({ agent: 'too', hazards })]), 'incomplete');
});

test('a node hides the pods of its own cluster only, on the same port of the same destination', () => {
  const node = (more: Partial<OneSided> = {}): OneSided =>
    pair({ seenBy: 'destination', source: end('9', { how: 'node' }), ...more });
  assert.equal(state(pair(), [reporter()], [node()]), 'translated');
  assert.equal(state(pair(), [reporter()], [node({ pending: true })]), 'waiting');
  assert.equal(state(pair(), [reporter()], [node({ port: 80 })]), 'not-seen');
  assert.equal(state(pair(), [reporter()], [node({ destination: end('3') })]), 'not-seen');
  const elsewhere = end('9', { how: 'node', cluster: 'k2' });
  assert.equal(state(pair(), [reporter()], [node({ source: elsewhere })]), 'not-seen');
  assert.equal(state(pair(), [reporter()], [node({ source: end('4') })]), 'not-seen');
  assert.equal(state(node(), [reporter()], [pair()]), 'translated');
});

test('a service hides its backends from the source that asked it', () => {
  const arrived = pair({ seenBy: 'destination', port: 8080 });
  const asked = pair({ destination: end('7', { how: 'service' }), port: 80 });
  assert.equal(state(arrived, [reporter()], [asked]), 'translated');
  assert.equal(state(arrived, [reporter()], [{ ...asked, source: end('5') }]), 'not-seen');
  assert.equal(state(arrived, [reporter()], [{ ...asked, protocol: 17 }]), 'not-seen');
});
