import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isoSeconds, parseDurationSeconds, parseTime } from './time.ts';

const nowMs = Date.parse('2026-02-01T12:00:00Z');
const at = (text: string): string | null => {
  const seconds = parseTime(text, nowMs);
  return seconds === null ? null : isoSeconds(seconds);
};

test('times are read as people write them', () => {
  assert.equal(at('90s'), '2026-02-01T11:58:30Z');
  assert.equal(at('5m'), '2026-02-01T11:55:00Z');
  assert.equal(at('24h'), '2026-01-31T12:00:00Z');
  assert.equal(at('2w'), '2026-01-18T12:00:00Z');
  assert.equal(at('now'), '2026-02-01T12:00:00Z');
  assert.equal(at('2026-01-02'), '2026-01-02T00:00:00Z');
  assert.equal(at('2026-01-02T03:04:05+02:00'), '2026-01-02T01:04:05Z');
  assert.equal(at('1767322800'), '2026-01-02T03:00:00Z');
});

test('a time without a zone is UTC, wherever the server runs', () => {
  assert.equal(at('2026-01-02 03:04'), '2026-01-02T03:04:00Z');
  assert.equal(at('2026-01-02T03:04:05'), '2026-01-02T03:04:05Z');
});

test('what is no time is not guessed at', () => {
  for (const text of [
    '',
    'yesterday',
    '5',
    '-5m',
    '5 m',
    '5y',
    '2026-13-01',
    '01/02/2026',
    'NaN',
    '2026-01-02T25:00:00Z',
  ]) {
    assert.equal(at(text), null, text);
  }
});

test('times that DateTime does not hold are moved to its ends', () => {
  assert.equal(parseTime('99999999w', nowMs), 0);
  assert.equal(parseTime('9999-01-01', nowMs), 4_294_967_295);
  assert.equal(parseDurationSeconds('2h'), 7200);
});
