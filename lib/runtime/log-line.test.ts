import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatLogEntry, parseLogLine } from './log-line.ts';

const line = (fields: object) =>
  JSON.stringify({ level: 40, time: 1, pid: 2, hostname: 'h', name: 'n', ...fields });
const shown = (fields: object) => formatLogEntry(parseLogLine(line(fields))!, false);

test('a log line is shown in one line, with its fields and without what every line has', () => {
  assert.equal(shown({ msg: 'slow', waitMs: 5, why: 'two words' }), 'warn  slow waitMs=5 why="two words"');
});

test('an error is shown by its message, once, without its stack', () => {
  const err = { type: 'Error', message: 'no such table', stack: 'Error: no such table\n at x' };
  assert.equal(shown({ err, msg: 'a request failed' }), 'warn  a request failed err=no such table');
  assert.equal(shown({ err, msg: 'no such table' }), 'warn  no such table');
});

test('what is no log line is left alone', () => {
  for (const text of ['plain', '{broken', '[1]', '{"a":1}']) {
    assert.equal(parseLogLine(text), undefined);
  }
});
