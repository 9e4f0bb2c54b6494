import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Cidr, parseAddress, parseCidr } from './address.ts';
import { findStack, makeCidrMap, stackOfBlock } from './cidr-map.ts';

/** Obviously right: compares bit by bit. */
function holds(cidr: Cidr, address: Uint8Array): boolean {
  for (let bit = 0; bit < cidr.prefix; bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((cidr.base[bit >> 3]! & mask) !== (address[bit >> 3]! & mask)) return false;
  }
  return true;
}

// Few distinct bits, so that blocks nest and addresses hit them.
const crowded = fc
  .tuple(
    fc.constantFrom(10, 11, 0, 255),
    fc.constantFrom(0, 1, 128, 255),
    fc.constantFrom(0, 7),
    fc.constantFrom(0, 1, 255),
  )
  .map((parts) => parts.join('.'));
const crowded6 = fc
  .tuple(fc.constantFrom('0', '1', 'ffff'), fc.constantFrom('0', '8000'))
  .map(([a, b]) => `2001:${a}::${b}`);
const cidrText = fc.oneof(
  fc.tuple(crowded, fc.integer({ min: 0, max: 32 })).map(([address, length]) => `${address}/${length}`),
  fc.tuple(crowded6, fc.integer({ min: 0, max: 128 })).map(([address, length]) => `${address}/${length}`),
);

test('the blocks around an address are found, outermost first', () => {
  fc.assert(
    fc.property(
      fc.array(cidrText, { maxLength: 20 }),
      fc.array(fc.oneof(crowded, crowded6), { minLength: 1 }),
      (texts, addresses) => {
        const cidrs = texts.map((text) => parseCidr(text)!);
        const map = makeCidrMap(cidrs);
        for (const text of addresses) {
          const address = parseAddress(text)!;
          const expected = cidrs
            .map((cidr, entry) => ({ cidr, entry }))
            .filter(({ cidr }) => holds(cidr, address))
            .sort((a, b) => a.cidr.prefix - b.cidr.prefix || a.entry - b.entry)
            .map(({ entry }) => entry);
          assert.deepEqual(map.stacks[findStack(map, address)], expected, text);
        }
      },
    ),
    { numRuns: 500 },
  );
});

test('a block has a stack where all of its addresses have the same', () => {
  fc.assert(
    fc.property(
      fc.array(cidrText, { maxLength: 10 }),
      crowded,
      fc.integer({ min: 22, max: 32 }),
      (texts, ip, length) => {
        const map = makeCidrMap(texts.map((text) => parseCidr(text)!));
        const block = parseCidr(`${ip}/${length}`)!;
        const stacks = new Set<number>();
        const address = Uint8Array.from(block.base);
        for (let i = 0; i < 2 ** (32 - length); i++) {
          address[14] = block.base[14]! | (i >> 8);
          address[15] = block.base[15]! | (i & 255);
          stacks.add(findStack(map, address));
        }
        const stack = stackOfBlock(map, block);
        if (stack >= 0) assert.deepEqual([...stacks], [stack]);
        else assert.ok(texts.length > 0);
      },
    ),
    { numRuns: 300 },
  );
  const map = makeCidrMap([parseCidr('10.0.0.0/8')!, parseCidr('10.7.0.0/24')!]);
  assert.deepEqual(map.stacks[stackOfBlock(map, parseCidr('10.8.0.0/16')!)], [0]);
  assert.equal(stackOfBlock(map, parseCidr('10.7.0.0/16')!), -1);
});

test('the whole address space and its last address are blocks like any other', () => {
  const map = makeCidrMap([parseCidr('::/0')!, parseCidr('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')!]);
  assert.deepEqual(map.stacks[findStack(map, parseAddress('1.2.3.4')!)], [0]);
  assert.deepEqual(map.stacks[findStack(map, new Uint8Array(16).fill(255))], [0, 1]);
});
