import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, isMapped, parseAddress, parseCidr, parseWireAddress } from './address.ts';

test('every address survives text and back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      const text = formatAddress(bytes);
      assert.equal(isIPv6(text) || isIPv4(text), true, text);
      assert.deepEqual(parseAddress(text), bytes);
    }),
  );
  fc.assert(
    fc.property(fc.ipV4(), (text) => {
      const bytes = parseAddress(text);
      assert.ok(bytes);
      assert.equal(isMapped(bytes), true);
      assert.equal(formatAddress(bytes), text);
    }),
  );
});

test('what Node takes for an IPv6 address without zone is read, and nothing else', () => {
  fc.assert(fc.property(fc.ipV6(), (text) => parseWireAddress(text)?.length === 16));
  fc.assert(
    fc.property(fc.stringMatching(/^[0-9a-f:.]{0,24}$/), (text) => {
      assert.equal(parseWireAddress(text) !== null, isIPv4(text) || isIPv6(text), text);
    }),
  );
});

test('zeros are shortened as RFC 5952 wants it', () => {
  for (const [long, short] of [
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
  ] as const) {
    assert.equal(formatAddress(parseAddress(long)!), short);
  }
});

test('a CIDR loses its host bits, and an address alone is a block of one', () => {
  assert.deepEqual(parseCidr('10.1.2.3/8'), { base: parseAddress('10.0.0.0'), prefix: 104 });
  assert.deepEqual(parseCidr('10.1.2.3'), { base: parseAddress('10.1.2.3'), prefix: 128 });
  assert.deepEqual(parseCidr('2001:db8::1/33'), { base: parseAddress('2001:db8::'), prefix: 33 });
  for (const wrong of ['10.0.0.0/33', '10.0.0/8', '::/129', '10.0.0.0/', '10.0.0.0/-1', 'ten', '']) {
    assert.equal(parseCidr(wrong), null, wrong);
  }
});
