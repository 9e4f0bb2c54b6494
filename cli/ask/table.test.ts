import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { styleFor } from './style.ts';
import { displayWidth, ellipsis, formatTable, printable } from './table.ts';

const plain = { paint: (_tone: string, text: string): string => text };

test('columns are aligned, numbers to the right', () => {
  const lines = formatTable(
    [{ title: 'WHO' }, { title: 'COUNT', align: 'right' }],
    [
      ['payments', '7'],
      ['x', '1,234'],
    ],
    {
      width: Number.POSITIVE_INFINITY,
      style: plain,
    },
  );
  assert.deepEqual(lines, ['WHO       COUNT', 'payments      7', 'x         1,234']);
});

test('a table fits the terminal while it may cut, and never cuts an address', () => {
  const address = '2001:db8:85a3:1234:5678:8a2e:370:7334';
  fc.assert(
    fc.property(
      fc.string({ minLength: 0, maxLength: 80 }),
      fc.integer({ min: 60, max: 200 }),
      (name, width) => {
        const columns = [{ title: 'NAME', min: 10 }, { title: 'ADDRESS' }];
        const lines = formatTable(columns, [[name, address]], { width, style: plain });
        for (const line of lines) assert.ok(displayWidth(line) <= width, line);
        assert.ok(lines[1]?.includes(address));
      },
    ),
  );
});

test('what is optional is left out before names are cut hard', () => {
  const columns = [
    { title: 'NAME', min: 8 },
    { title: 'PLACE', min: 8, optional: true as const },
    { title: 'COUNT' },
  ];
  const rows = [['n'.repeat(30), 'p'.repeat(30), '1']];
  const [wide] = formatTable(columns, rows, { width: 70, style: plain });
  const [narrow, row] = formatTable(columns, rows, { width: 45, style: plain });
  assert.match(wide ?? '', /PLACE/);
  assert.doesNotMatch(narrow ?? '', /PLACE/);
  assert.ok(row?.startsWith('n'.repeat(30)));
});

test('a cut name keeps its begin and its end', () => {
  assert.equal(ellipsis('payments-api-7d9f8c6b5-x2x4z', 16), 'payments-a…x2x4z');
  assert.equal(ellipsis('short', 16), 'short');
  assert.equal(displayWidth('日本'), 4);
});

test('text from outside can not steer the terminal', () => {
  assert.equal(printable('a\u001b[31mb\nc\u009b2J'), 'a [31mb c 2J');
});

test('colour is for terminals that want it', () => {
  const terminal = { isTTY: true } as NodeJS.WriteStream;
  const pipe = { isTTY: false } as NodeJS.WriteStream;
  assert.equal(styleFor(terminal, {}).paint('bad', 'x'), '\u001b[31mx\u001b[39m');
  assert.equal(styleFor(terminal, { NO_COLOR: '1' }).paint('bad', 'x'), 'x');
  assert.equal(styleFor(terminal, { TERM: 'dumb' }).paint('bad', 'x'), 'x');
  assert.equal(styleFor(pipe, {}).paint('bad', 'x'), 'x');
  assert.equal(styleFor(pipe, { FORCE_COLOR: '1' }).paint('bad', 'x'), '\u001b[31mx\u001b[39m');
});
