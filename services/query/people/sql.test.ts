import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sqlParameter } from './parameters.ts';
import { readException } from './sql.ts';

test('the words of ClickHouse come without its codes and version', () => {
  assert.deepEqual(
    readException(
      "Code: 60. DB::Exception: Unknown table 'x'. Maybe y? (UNKNOWN_TABLE) (version 26.7.2.1)\n",
    ),
    { message: "Unknown table 'x'. Maybe y?", code: 'UNKNOWN_TABLE' },
  );
  assert.deepEqual(
    readException(
      '\r\n__exception__\r\nabc\r\nCode: 395. DB::Exception: too far. (FUNCTION_THROW_IF) (version 26.7.2.1)\r\n275 abc\r\n__exception__',
    ),
    { message: 'too far.', code: 'FUNCTION_THROW_IF' },
  );
  assert.deepEqual(readException('what?'), { message: 'what?', code: 'UNKNOWN' });
});

test('parameters are escaped as the HTTP interface reads them', () => {
  assert.equal(sqlParameter("a\tb\\'"), "a\\tb\\\\'");
  assert.equal(sqlParameter(null), '\\N');
  assert.equal(sqlParameter(7), '7');
  assert.equal(sqlParameter(["it's", 1, null]), "['it\\'s',1,NULL]");
});
