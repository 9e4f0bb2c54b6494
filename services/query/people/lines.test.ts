import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { linesWithin } from './lines.ts';

async function* inPieces(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    if (at >= bytes.length) return;
    yield bytes.subarray(at, at + size);
    at += size;
  }
  if (at < bytes.length) yield bytes.subarray(at);
}

async function read(
  text: string,
  sizes: readonly number[],
  left: number,
): Promise<{ lines: string[]; left: number }> {
  const budget = { left };
  const lines: string[] = [];
  for await (const batch of linesWithin(inPieces(Buffer.from(text), sizes), budget)) lines.push(...batch);
  return { lines, left: budget.left };
}

test('lines are whole however the bytes are cut', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'grapheme' }).map((line) => line.replaceAll('\n', ''))),
      fc.array(fc.integer({ min: 1, max: 5 })),
      async (expected, sizes) => {
        const text = expected.map((line) => `${line}\n`).join('');
        assert.deepEqual((await read(text, sizes, 1_000_000)).lines, expected);
      },
    ),
  );
});

test('the line that the limit cuts is left out, and the budget says so', async () => {
  const { lines, left } = await read('one\ntwo\nthree\n', [14], 9);
  assert.deepEqual(lines, ['one', 'two']);
  assert.ok(left < 0);
  assert.equal((await read('one\n', [4], 4)).left, 0);
});
