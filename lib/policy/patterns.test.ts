import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compilePattern, compilePatterns, patternInside, patternsOverlap } from './patterns.ts';

test('a pattern is a whole name, with * for any text', () => {
  const cases: [string, string, boolean][] = [
    ['pay', 'pay', true],
    ['pay', 'payments', false],
    ['pay*', 'pay', true],
    ['pay*', 'payments', true],
    ['*-prod', 'payments-prod', true],
    ['*-prod', 'payments-production', false],
    ['a*b*c', 'a-b-c', true],
    ['a*b*c', 'a-c-b', false],
    ['pay.*', 'payments', false],
    ['*', '', true],
  ];
  for (const [pattern, name, fits] of cases) assert.equal(compilePattern(pattern)(name), fits, pattern);
  assert.equal(compilePatterns([])('anything'), true);
  assert.equal(compilePatterns(['a', 'b*'])('bcd'), true);
});

const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 5 });
const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 5 });
/** Every text of up to four letters; c stands for all letters that no pattern has. */
const names = ['', 'a', 'b', 'c'].flatMap((a) =>
  ['', 'a', 'b', 'c'].flatMap((b) =>
    ['', 'a', 'b', 'c'].flatMap((c) => ['', 'a', 'b', 'c'].map((d) => a + b + c + d)),
  ),
);

test('patterns overlap where some name fits both, and one is inside another where every name that fits it fits the other', () => {
  const short = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 3 });
  fc.assert(
    fc.property(short, short, (a, b) => {
      const inA = names.filter(compilePattern(a));
      const both = inA.filter(compilePattern(b));
      assert.equal(patternsOverlap(a, b), both.length > 0);
      assert.equal(patternInside(a, b), both.length === inA.length);
    }),
    { numRuns: 2000 },
  );
});

test('a name that fits two patterns makes them overlap', () => {
  fc.assert(
    fc.property(pattern, pattern, letters, (a, b, name) => {
      if (compilePattern(a)(name) && compilePattern(b)(name)) assert.ok(patternsOverlap(a, b));
      if (patternInside(a, b) && compilePattern(a)(name)) assert.ok(compilePattern(b)(name));
    }),
  );
});
