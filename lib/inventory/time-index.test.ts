import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReferenceIndex, type ReferenceInterval } from './reference-support.ts';
import { certaintyCode, forever, TimeIndex } from './time-index.ts';

const four = (address: number): Uint32Array => Uint32Array.of(0, 0, 0xffff0000, address);
const six = (address: number): Uint32Array => Uint32Array.of(0x0db80120, address, 7, 0x01000000);

interface Interval {
  readonly network: number;
  readonly address: number;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly owner: number;
}

const wordsOf = (address: number): Uint32Array => (address % 2 === 0 ? four(address) : six(address));
const placeOf = (network: number, address: number): string => `${network}|${address}`;
const referenceOf = ({ network, address, owner, ...times }: Interval): ReferenceInterval => ({
  place: placeOf(network, address),
  owner: String(owner),
  ...times,
});

/** Times in ms, some of them within one unit of the index's summaries, some units apart. */
const time = fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 12_000 }));

const intervalOf: fc.Arbitrary<Interval> = fc
  .record({
    network: fc.nat({ max: 1 }),
    address: fc.nat({ max: 3 }),
    sinceMs: time,
    length: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 40 }), time, fc.constant(forever)),
    owner: fc.nat({ max: 5 }),
  })
  .map(({ length, ...rest }) => ({ ...rest, untilMs: rest.sinceMs + length }));

type Change =
  | { readonly kind: 'add'; readonly interval: Interval }
  | { readonly kind: 'remove'; readonly at: number }
  | { readonly kind: 'evict'; readonly beforeMs: number };

const changeOf: fc.Arbitrary<Change> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('add' as const), interval: intervalOf }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('remove' as const), at: fc.nat({ max: 1000 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('evict' as const), beforeMs: time }) },
);

const questionOf = fc.record({
  network: fc.nat({ max: 2 }),
  address: fc.nat({ max: 4 }),
  timeMs: fc.oneof(time, fc.integer({ min: -50, max: 30_000 })),
  toleranceMs: fc.constantFrom(0, 1, 5, 30, 1000, 5000),
});

function assertEqual(
  index: TimeIndex,
  reference: ReferenceIndex,
  question: { network: number; address: number; timeMs: number; toleranceMs: number },
): void {
  const { network, address, timeMs, toleranceMs } = question;
  const expected = reference.find(placeOf(network, address), timeMs, toleranceMs);
  index.find(network, wordsOf(address), 0, timeMs, toleranceMs);
  assert.equal(index.foundCertainty, expected.certainty);
  if (expected.owners.size === 0) assert.equal(index.foundOwner, -1);
  else assert.ok(expected.likeliest.has(String(index.foundOwner)));
  const candidates = index.candidates(network, wordsOf(address), 0, timeMs, toleranceMs).map(String);
  assert.deepEqual(new Set(candidates), expected.owners);
  assert.equal(candidates.length, expected.owners.size);
  if (candidates[0] !== undefined) assert.ok(expected.likeliest.has(candidates[0]));
}

for (const maxIntervalsPerAddress of [1, 3, 100]) {
  test(`the index answers as a plain search through all intervals, of which an address keeps ${maxIntervalsPerAddress}`, () => {
    fc.assert(
      fc.property(
        fc.array(changeOf, { maxLength: 60 }),
        fc.array(questionOf, { minLength: 1, maxLength: 30 }),
        (changes, questions) => {
          const index = new TimeIndex({ maxIntervalsPerAddress });
          const reference = new ReferenceIndex(maxIntervalsPerAddress);
          const added: Interval[] = [];
          for (const change of changes) {
            if (change.kind === 'add') {
              const { network, address, sinceMs, untilMs, owner } = change.interval;
              index.add(network, wordsOf(address), 0, sinceMs, untilMs, owner);
              reference.add(referenceOf(change.interval));
              added.push(change.interval);
            } else if (change.kind === 'evict') {
              index.evictBefore(change.beforeMs, Number.MAX_SAFE_INTEGER);
              reference.evictBefore(change.beforeMs);
            } else if (added.length > 0) {
              const [interval] = added.splice(change.at % added.length, 1);
              const { network, address, sinceMs, untilMs, owner } = interval!;
              index.remove(network, wordsOf(address), 0, sinceMs, untilMs, owner);
              reference.remove(referenceOf(interval!));
            }
            assert.equal(index.intervalCount, reference.intervalCount);
            assert.equal(index.addressCount, reference.addressCount);
            for (const question of questions.slice(0, 2)) assertEqual(index, reference, question);
          }
          for (const question of questions) assertEqual(index, reference, question);
        },
      ),
      { numRuns: 400 },
    );
  });
}

test('an address that is reused a second later never inherits the name before it', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 8 });
  index.add(1, four(7), 0, 0, 10_000, 1);
  index.add(1, four(7), 0, 11_000, forever, 2);
  for (const [timeMs, owner, certainty] of [
    [5_000, 1, certaintyCode.exact],
    [10_050, 1, certaintyCode.grace],
    [10_500, -1, certaintyCode.none],
    [10_950, 2, certaintyCode.grace],
    [11_000, 2, certaintyCode.exact],
  ] as const) {
    index.find(1, four(7), 0, timeMs, 100);
    assert.deepEqual([index.foundOwner, index.foundCertainty], [owner, certainty], String(timeMs));
  }
});

test('an address that is reused within the same second is ambiguous where the clocks can not tell', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 8 });
  index.add(1, four(7), 0, 0, 10_200, 1);
  index.add(1, four(7), 0, 10_400, 10_600, 2);
  index.add(1, four(7), 0, 10_600, forever, 3);
  const ask = (timeMs: number, toleranceMs: number): [number, number] => {
    index.find(1, four(7), 0, timeMs, toleranceMs);
    return [index.foundOwner, index.foundCertainty];
  };
  assert.deepEqual(ask(10_500, 50), [2, certaintyCode.exact]);
  assert.deepEqual(ask(10_500, 500), [2, certaintyCode.ambiguous]);
  assert.deepEqual(ask(10_599, 0), [2, certaintyCode.exact]);
  assert.deepEqual(ask(10_600, 0), [3, certaintyCode.exact]);
  assert.deepEqual(index.candidates(1, four(7), 0, 10_590, 500), [2, 3, 1]);
});

test('equal addresses of two networks are two addresses', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 8 });
  index.add(1, four(7), 0, 0, forever, 1);
  index.add(2, four(7), 0, 0, forever, 2);
  index.find(1, four(7), 0, 1, 0);
  assert.equal(index.foundOwner, 1);
  index.find(2, four(7), 0, 1, 0);
  assert.equal(index.foundOwner, 2);
});

test('the history of one address is bounded: who left first goes first, and is counted', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  for (let i = 0; i < 100; i++) index.add(0, four(1), 0, i * 10, i * 10 + 10, i);
  assert.equal(index.intervalCount, 4);
  assert.equal(index.evictedCount, 96);
  index.find(0, four(1), 0, 985, 0);
  assert.equal(index.foundOwner, 98);
  index.find(0, four(1), 0, 5, 0);
  assert.equal(index.foundOwner, -1);
});

test('where owners were forgotten, nobody is named for sure', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 2 });
  const certaintyAt = (timeMs: number): number => {
    index.find(0, four(1), 0, timeMs, 0);
    return index.foundCertainty;
  };
  index.add(0, four(1), 0, 0, 20_000, 1);
  index.add(0, four(1), 0, 5_000, 6_000, 2);
  index.add(0, four(1), 0, 30_000, forever, 3);
  assert.equal(certaintyAt(5_500), certaintyCode.ambiguous);
  assert.equal(certaintyAt(10_000), certaintyCode.exact);
});

test('a long-lived owner is not pushed out by others that come and go', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  index.add(0, four(1), 0, 0, forever, 7);
  for (let i = 0; i < 100; i++) index.add(0, four(1), 0, 10_000 + i * 10, 10_005 + i * 10, i + 100);
  index.find(0, four(1), 0, 50_000, 1000);
  assert.deepEqual([index.foundOwner, index.foundCertainty], [7, certaintyCode.exact]);
});

test('memory follows the addresses that are left, however many there were', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  const churn = (from: number): void => {
    for (let i = from; i < from + 20_000; i++) index.add(0, six(i), 0, i, i + 10, i);
    assert.equal(index.evictBefore(from + 20_010, Number.MAX_SAFE_INTEGER), true);
    assert.equal(index.addressCount, 0);
    assert.equal(index.intervalCount, 0);
  };
  churn(0);
  const bytes = index.byteLength;
  for (let round = 1; round < 20; round++) churn(round * 20_000);
  assert.ok(index.byteLength < bytes * 1.5, `${index.byteLength} bytes, after the first round ${bytes}`);
});

test('a hundred thousand addresses are all found again after the tables grew', () => {
  const index = new TimeIndex({ maxIntervalsPerAddress: 4 });
  const count = 100_000;
  for (let i = 0; i < count; i++) index.add(i & 3, four(Math.imul(i, 2654435761) >>> 0), 0, i, i + 10, i);
  assert.equal(index.addressCount, count);
  for (let i = 0; i < count; i++) {
    index.find(i & 3, four(Math.imul(i, 2654435761) >>> 0), 0, i + 5, 0);
    if (index.foundOwner !== i) assert.fail(`address ${i} gave ${index.foundOwner}`);
  }
});

test('a bound that the index can not keep is refused', () => {
  for (const maxIntervalsPerAddress of [0, 1.5, 5000])
    assert.throws(() => new TimeIndex({ maxIntervalsPerAddress }), RangeError);
});
