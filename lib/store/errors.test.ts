import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverError, storeError } from './errors.ts';
import { StoreRefusedError, StoreUnavailableError } from './store.ts';

test('what passes is told from what never will, by the number that the server gives', () => {
  const memory = serverError(
    'Code: 241. DB::Exception: (total) memory limit exceeded: would use 5 GiB. (MEMORY_LIMIT_EXCEEDED) (version 26.7.2.1)',
    500,
    'INSERT INTO flows',
  );
  assert.ok(memory instanceof StoreUnavailableError);
  assert.equal(memory.code, 'MEMORY_LIMIT_EXCEEDED');
  const table = serverError(
    "Code: 60. DB::Exception: Table x.y doesn't exist. (UNKNOWN_TABLE) (version 26.7.2.1)\n",
    404,
    'query',
  );
  assert.ok(table instanceof StoreRefusedError);
  assert.equal(table.message, "query: Table x.y doesn't exist. (UNKNOWN_TABLE)");
});

test('a word in brackets inside the message is not taken for the name of the error', () => {
  const error = serverError(
    'Code: 62. DB::Exception: failed at position 86 (COMMENT): x. (SYNTAX_ERROR) (version 1)',
    400,
    'query',
  );
  assert.equal(error.code, 'SYNTAX_ERROR');
});

test('an answer that is not of ClickHouse is judged by its status', () => {
  assert.ok(serverError('<html>bad gateway</html>', 502, 'query') instanceof StoreUnavailableError);
  assert.ok(serverError('slow down', 429, 'query') instanceof StoreUnavailableError);
  assert.ok(serverError('no', 403, 'query') instanceof StoreRefusedError);
});

test('a long message is cut', () => {
  assert.ok(
    serverError(`Code: 1. DB::Exception: ${'x '.repeat(5000)} (BAD) (version 1)`, 400, 'query').message
      .length < 600,
  );
});

test('a socket that fails is a store that is away, with its address', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' });
  const error = storeError(refused, 'query', 'http://127.0.0.1:1');
  assert.ok(error instanceof StoreUnavailableError);
  assert.match(error.message, /ClickHouse at http:\/\/127\.0\.0\.1:1 can't be reached/);
  assert.ok(storeError(new Error('Timeout error.'), 'query', '') instanceof StoreUnavailableError);
});
