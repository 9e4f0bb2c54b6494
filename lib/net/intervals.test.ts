import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress, parseCidr } from './address.ts';
import {
  type AddressInterval,
  addressNumber,
  blocksWithHoles,
  cidrInterval,
  intersectIntervals,
  intervalText,
  ipv4Space,
  ipv6Space,
  mergeIntervals,
  subtractIntervals,
} from './intervals.ts';

const base = addressNumber(parseAddress('10.0.0.0')!);
const place = fc.integer({ min: 0, max: 63 });
const list = fc.array(
  fc.tuple(place, place).map(([a, b]): AddressInterval => {
    return { from: base + BigInt(Math.min(a, b)), to: base + BigInt(Math.max(a, b)) };
  }),
  { maxLength: 6 },
);
const members = (intervals: readonly AddressInterval[]): boolean[] =>
  Array.from({ length: 64 }, (_, i) => {
    const at = base + BigInt(i);
    return intervals.some(({ from, to }) => from <= at && at <= to);
  });
const isMinimal = (intervals: readonly AddressInterval[]): boolean =>
  intervals.every(({ from }, i) => i === 0 || from > (intervals[i - 1]?.to ?? 0n) + 1n);

test('merged, common and left-over intervals hold exactly the right addresses, and are as few as can be', () => {
  fc.assert(
    fc.property(list, list, (one, other) => {
      const [a, b] = [mergeIntervals(one), mergeIntervals(other)];
      assert.deepEqual(members(a), members(one));
      assert.ok(isMinimal(a));
      const [inA, inB] = [members(a), members(b)];
      assert.deepEqual(
        members(intersectIntervals(a, b)),
        inA.map((inside, i) => inside && inB[i] === true),
      );
      assert.deepEqual(
        members(subtractIntervals(a, b)),
        inA.map((inside, i) => inside && inB[i] === false),
      );
    }),
    { numRuns: 1000 },
  );
});

test('blocks with holes hold exactly the right addresses, in no more entries than blocks alone', () => {
  const held = (blocks: ReturnType<typeof blocksWithHoles>): boolean[] => {
    const inside = (cidr: string): boolean[] => members([cidrInterval(parseCidr(cidr)!)]);
    return members([]).map((_, i) =>
      blocks.some(({ cidr, except }) => inside(cidr)[i] && !except.some((hole) => inside(hole)[i])),
    );
  };
  fc.assert(
    fc.property(list, (intervals) => {
      const blocks = blocksWithHoles(intervals);
      assert.deepEqual(held(blocks), members(intervals));
      for (const { cidr, except } of blocks)
        for (const hole of except) assert.ok(members([cidrInterval(parseCidr(hole)!)]).some(Boolean), cidr);
    }),
    { numRuns: 500 },
  );
  const all = mergeIntervals([ipv4Space, ...ipv6Space]);
  assert.deepEqual(blocksWithHoles(all), [
    { cidr: '0.0.0.0/0', except: [] },
    { cidr: '::/0', except: [] },
  ]);
  const hole = [cidrInterval(parseCidr('10.0.0.0/8')!), cidrInterval(parseCidr('fd00::/8')!)];
  assert.deepEqual(blocksWithHoles(subtractIntervals(all, hole)), [
    { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] },
    { cidr: '::/0', except: ['fd00::/8'] },
  ]);
});

test('an interval is written as address, block or range', () => {
  for (const text of ['10.0.0.1', '10.0.0.0/31', '2001:db8::/33', '::/0'])
    assert.equal(intervalText(cidrInterval(parseCidr(text)!)), text);
  assert.equal(intervalText({ from: base + 1n, to: base + 4n }), '10.0.0.1-10.0.0.4');
});
