import assert from 'node:assert/strict';
import { test } from 'node:test';
import { splitStatements } from './statements.ts';

test('a semicolon ends a statement, at the end of the text it may be missing', () => {
  assert.deepEqual(splitStatements('SELECT 1; SELECT 2;\n\n SELECT 3'), ['SELECT 1', 'SELECT 2', 'SELECT 3']);
  assert.deepEqual(splitStatements(' ;; \n'), []);
});

test('semicolons inside strings and quoted names belong to them', () => {
  const statements = ["SELECT 'a;b', 'it''s;', 'back\\';slash'", 'SELECT `odd;name`, "other;name"'];
  assert.deepEqual(splitStatements(statements.join(';')), statements);
});

test('comments are left out, whatever they hold', () => {
  const sql =
    "-- it's; a comment\nSELECT 1 /* ; 'quote */ + 2 -- end;\n; SELECT '-- no comment', '/* nor this */'";
  assert.deepEqual(splitStatements(sql), ['SELECT 1   + 2', "SELECT '-- no comment', '/* nor this */'"]);
});
