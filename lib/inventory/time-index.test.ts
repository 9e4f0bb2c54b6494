import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { certaintyCode, forever, TimeIndex } from './time-index.ts';

interface Interval {
  readonly network: number;
  readonly address: number;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly owner: number;
}

/** Obviously right: looks at every interval. */
function reference(
  intervals: readonly Interval[],
  toleranceMs: number,
  network: number,
  address: number,
  timeMs: number,
) {
  const near = intervals.filter(
    (interval) =>
      interval.network === network &&
      interval.address === address &&
      interval.sinceMs <= timeMs + toleranceMs &&
      interval.untilMs > timeMs - toleranceMs,
  );
  const distance = ({ sinceMs, untilMs }: Interval): number =>
    timeMs < sinceMs ? sinceMs - timeMs : timeMs >= untilMs ? timeMs - untilMs + 1 : 0;
  const owners = new Set(near.map(({ owner }) => owner));
  const nearest = Math.min(...near.map(distance));
  const candidates = new Set(
    near.filter((interval) => distance(interval) === nearest).map(({ owner }) => owner),
  );
  const certainty =
    owners.size === 0
      ? certaintyCode.none
      : owners.size > 1
        ? certaintyCode.ambiguous
        : nearest === 0
          ? certaintyCode.exact
          : certaintyCode.grace;
  return { candidates, certainty };
}

const words = (address: number): Uint32Array => Uint32Array.of(0, 0, 0xffff0000, address);

const intervalOf: fc.Arbitrary<Interval> = fc
  .record({
    network: fc.integer({ min: 0, max: 1 }),
    address: fc.integer({ min: 0, max: 3 }),
    sinceMs: fc.integer({ min: 0, max: 100 }),
    length: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.constant(forever)),
    owner: fc.integer({ min: 0, max: 5 }),
  })
  .map(({ length, ...rest }) => ({ ...rest, untilMs: rest.sinceMs + length }));

test('whoever had the address at the time is found, as sure as the inventory allows', () => {
  const toleranceMs = 5;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(intervalOf, fc.boolean()), { maxLength: 40 }),
      fc.array(fc.tuple(fc.nat({ max: 1 }), fc.nat({ max: 4 }), fc.integer({ min: -10, max: 150 })), {
        minLength: 1,
        maxLength: 30,
      }),
      (changes, questions) => {
        const index = new TimeIndex({ maxIntervalsPerAddress: 100 });
        let model: Interval[] = [];
        for (const [interval, removedAgain] of changes) {
          const { network, address, sinceMs, untilMs, owner } = interval;
          index.add(network, words(address), 0, sinceMs, untilMs, owner);
          model.push(interval);
          if (!removedAgain) continue;
          const same = (other: Interval): boolean =>
            other.network === network &&
            other.address === address &&
            other.owner === owner &&
            other.sinceMs === sinceMs;
          assert.equal(index.remove(network, words(address), 0, sinceMs, untilMs, owner), true);
          model = model.filter((other) => !same(other));
        }
        assert.equal(index.intervalCount, model.length);
        for (const [network, address, timeMs] of questions) {
          const expected = reference(model, toleranceMs, network, address, timeMs);
          index.find(network, words(address), 0, timeMs, toleranceMs);
          assert.equal(index.foundCertainty, expected.certainty);
          if (expected.certainty === certaintyCode.none) assert.equal(index.foundOwner, -1);
          else assert.ok(expected.candidates.has(index.foundOwner));
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('an address that is reused a second later never inherits the name before it', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 8 });
  index.add(1, words(7), 0, 0, 10_000, 1);
  index.add(1, words(7), 0, 11_000, forever, 2);
  for (const [timeMs, owner, certainty] of [
    [5_000, 1, certaintyCode.exact],
    [10_050, 1, certaintyCode.grace],
    [10_500, -1, certaintyCode.none],
    [10_950, 2, certaintyCode.grace],
    [11_000, 2, certaintyCode.exact],
  ] as const) {
    index.find(1, words(7), 0, timeMs, 100);
    assert.deepEqual([index.foundOwner, index.foundCertainty], [owner, certainty], String(timeMs));
  }
});

test('equal addresses of two networks are two addresses', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 8 });
  index.add(1, words(7), 0, 0, forever, 1);
  index.add(2, words(7), 0, 0, forever, 2);
  index.find(1, words(7), 0, 1, 0);
  assert.equal(index.foundOwner, 1);
  index.find(2, words(7), 0, 1, 0);
  assert.equal(index.foundOwner, 2);
});

test('the history of one address is bounded: the oldest owners go, and are counted', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  for (let i = 0; i < 100; i++) index.add(0, words(1), 0, i * 10, i * 10 + 10, i);
  assert.equal(index.intervalCount, 4);
  assert.equal(index.evictedCount, 96);
  index.find(0, words(1), 0, 985, 0);
  assert.equal(index.foundOwner, 98);
  index.find(0, words(1), 0, 5, 0);
  assert.equal(index.foundOwner, -1);
});

test('a hundred thousand addresses are all found again after the table grew', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  const count = 100_000;
  for (let i = 0; i < count; i++) index.add(i & 3, words(Math.imul(i, 2654435761) >>> 0), 0, i, i + 10, i);
  assert.equal(index.addressCount, count);
  for (let i = 0; i < count; i++) {
    index.find(i & 3, words(Math.imul(i, 2654435761) >>> 0), 0, i + 5, 0);
    if (index.foundOwner !== i) assert.fail(`address ${i} gave ${index.foundOwner}`);
  }
});
