import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseCidr } from '../net/address.ts';
import { mergeAddresses } from './addresses.ts';

test('neighbours are joined only where all of a block was seen', () => {
  const sixteen = Array.from({ length: 16 }, (_, i) => `203.0.113.${16 + i}`);
  assert.deepEqual(mergeAddresses([...sixteen, '203.0.113.33', '2001:db8::1', '2001:db8::']), [
    '203.0.113.16/28',
    '203.0.113.33',
    '2001:db8::/127',
  ]);
});

test('merged blocks hold exactly the addresses, none twice', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 255 }), { maxLength: 256 }), (last) => {
      const held = mergeAddresses(last.map((byte) => `198.51.100.${byte}`)).flatMap((text) => {
        const cidr = parseCidr(text);
        assert.ok(cidr !== null);
        return Array.from({ length: 2 ** (128 - cidr.prefix) }, (_, i) => {
          const bytes = Uint8Array.from(cidr.base);
          bytes[15] = (bytes[15] ?? 0) + i;
          return formatAddress(bytes);
        });
      });
      assert.deepEqual(held.sort(), last.map((byte) => `198.51.100.${byte}`).sort());
    }),
  );
});
