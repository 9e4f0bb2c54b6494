import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { emptyPolicy } from './engine.ts';
import { PolicyTimeline } from './timeline.ts';

function version(number: number, appliedMs: number, expires?: string): PolicyDocument {
  const rule = { name: 'r', from: [{ any: true as const }], to: [{ any: true as const }] };
  return {
    ...emptyPolicy,
    version: number,
    appliedMs,
    rulesets: [{ name: 's', rules: [expires === undefined ? rule : { ...rule, expires }] }],
  };
}

function timeline(...documents: PolicyDocument[]): PolicyTimeline {
  const made = new PolicyTimeline();
  for (const document of documents) made.add(document);
  return made;
}

const versionsAt = (of: PolicyTimeline, ...times: number[]): number[] =>
  times.map((time) => of.at(time).engine.version);

describe('the policy of a flow', () => {
  test('is empty before any was applied', () => {
    assert.deepEqual(versionsAt(new PolicyTimeline(), 0, 1e15), [0, 0]);
  });

  test('is the one in force when it began; before the first, the first', () => {
    const of = timeline(version(1, 1000), version(2, 2000), version(4, 3000));
    assert.deepEqual(versionsAt(of, 0, 999, 1000, 1999, 2000, 2999, 3000, 1e15), [1, 1, 1, 1, 2, 2, 4, 4]);
    const span = of.at(2500);
    assert.deepEqual([span.fromMs, span.untilMs], [2000, 3000]);
  });

  test('is the same in whatever order versions are heard of', () => {
    const of = timeline(version(3, 3000), version(1, 1000), version(2, 2000));
    assert.deepEqual(versionsAt(of, 500, 1500, 2500, 3500), [1, 1, 2, 3]);
    assert.equal(of.newest.version, 3);
  });

  test('stays the first that was heard where two have one number', () => {
    const of = timeline(version(1, 1000));
    assert.equal(of.add(version(1, 9000)), false);
    assert.equal(of.documents.length, 1);
    assert.equal(of.at(0).document.appliedMs, 1000);
  });

  test('never goes back to an older version when a clock did', () => {
    assert.deepEqual(versionsAt(timeline(version(1, 1000), version(2, 500)), 0, 999, 1000), [1, 1, 2]);
    assert.deepEqual(
      versionsAt(timeline(version(1, 0), version(2, 2000), version(3, 1500)), 1700, 2000),
      [1, 3],
    );
  });

  test('loses a rule at the moment it expires, for flows that begin then', () => {
    const expiry = Date.UTC(2026, 0, 2);
    const of = timeline(version(1, Date.UTC(2026, 0, 1), '2026-01-02'));
    const rules = (time: number): number => of.at(time).engine.rules.length;
    assert.deepEqual(
      [rules(0), rules(expiry - 1), rules(expiry), rules(expiry + 1e9), rules(expiry - 1)],
      [1, 1, 0, 0, 1],
    );
    assert.equal(of.at(expiry - 1).untilMs, expiry);
    assert.equal(of.at(expiry).fromMs, expiry);
    of.add(version(2, expiry + 5000));
    assert.deepEqual([rules(expiry - 1), rules(expiry), rules(expiry + 5000)], [1, 0, 1]);
  });

  test('is the oldest that is left where its own was forgotten', () => {
    const of = timeline(version(1, 1000), version(2, 2000), version(3, 3000));
    of.forgetBelow(2);
    assert.deepEqual(versionsAt(of, 0, 1500, 2500, 3500), [2, 2, 2, 3]);
  });

  test('is the same whether it is compiled at once or in steps', async () => {
    const expiry = Date.UTC(2026, 0, 2);
    const documents = [version(1, 1000), version(2, Date.UTC(2026, 0, 1), '2026-01-02'), version(3, 2e12)];
    const [once, inSteps] = [timeline(...documents), timeline(...documents)];
    for (const time of [0, expiry - 1, expiry + 5, expiry - 1, expiry, 2e12, 3e12]) {
      const { engine, ...span } = once.at(time);
      const { engine: other, ...reached } = await inSteps.reach(time);
      assert.deepEqual(reached, span);
      assert.deepEqual([other.version, other.rules], [engine.version, engine.rules]);
    }
  });

  test('is that of the version which was heard of while an earlier one was compiled', async () => {
    const of = timeline(version(1, 1000));
    const reaching = [of.reach(5000), of.reach(1500)];
    of.add(version(2, 2000));
    const reached = await Promise.all(reaching);
    assert.deepEqual(
      reached.map(({ document }) => document.version),
      [2, 1],
    );
  });

  test('is found again when more spans were asked for than stay compiled', () => {
    const of = timeline(...Array.from({ length: 20 }, (_, i) => version(i + 1, (i + 1) * 1000)));
    for (let round = 0; round < 2; round++)
      assert.deepEqual(
        versionsAt(of, ...Array.from({ length: 20 }, (_, i) => (i + 1) * 1000)),
        Array.from({ length: 20 }, (_, i) => i + 1),
      );
  });
});
