import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forbiddenUse, withoutPrefix } from './guard.ts';

test('a call of file is seen wherever it stands in the parsed query', () => {
  assert.match(
    forbiddenUse('', ['SelectWithUnionQuery (children 1)', '    Function file (alias x) (children 1)']) ?? '',
    /file/,
  );
  assert.match(forbiddenUse('', ['SelectWithUnionQuery', '  Identifier FILE']) ?? '', /FILE/);
  assert.match(
    forbiddenUse('', ['SelectWithUnionQuery', '  Function catboostEvaluate (children 2)']) ?? '',
    /catboost/,
  );
});

test('a text or a column that only contains the word is no call', () => {
  const lines = [
    'SelectWithUnionQuery',
    `  Literal 'file'`,
    '  Identifier t.file',
    '  Function filesystemName',
    '  Identifier files',
  ];
  assert.equal(forbiddenUse(`select 'file'`, lines), null);
});

test('what the parsed query hides is refused', () => {
  assert.match(forbiddenUse('', ['SelectWithUnionQuery', '      ColumnsApplyTransformer']) ?? '', /APPLY/);
  assert.match(forbiddenUse('SHOW TABLES WHERE f(1)', ['ShowTables']) ?? '', /SHOW/);
  assert.match(forbiddenUse('SYSTEM X (1)', ['SYSTEM query']) ?? '', /only SELECT/);
  assert.equal(forbiddenUse('SHOW TABLES', ['ShowTables']), null);
});

test('messages point into the query as it was written', () => {
  assert.equal(
    withoutPrefix('Syntax error: failed at position 26 (x) (line 2, col 14): x.'),
    'Syntax error: failed at position 14 (x) (line 1, col 14): x.',
  );
});
