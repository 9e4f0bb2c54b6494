import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCursor, encodeCursor } from './cursor.ts';

const second = fc.integer({ min: 0, max: 4_294_967_295 });

test('a cursor holds its place and its window', () => {
  fc.assert(
    fc.property(second, fc.option(second), second, (sinceS, untilS, offset) => {
      const cursor = { window: { sinceS, untilS }, offset };
      assert.deepEqual(decodeCursor(encodeCursor(cursor)), cursor);
    }),
  );
});

test('what is no cursor is not taken for one', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const cursor = decodeCursor(text);
      assert.ok(cursor === null || Number.isInteger(cursor.offset));
    }),
  );
  for (const value of [[1, 2], [1, 2, -3], ['1', null, 0], [1, null, 1e12], {}, null]) {
    assert.equal(decodeCursor(Buffer.from(JSON.stringify(value)).toString('base64url')), null);
  }
});
