import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDocuments } from './documents.ts';

test('documents of a YAML file are told apart, with the line each begins on', () => {
  const { documents, problems } = parseDocuments('# pods\nkind: A\n---\n---\n\nkind: B\n');
  assert.deepEqual(documents, [
    { place: 'document 1 (line 2)', value: { kind: 'A' } },
    { place: 'document 3 (line 6)', value: { kind: 'B' } },
  ]);
  assert.deepEqual(problems, []);
});

test('a document that cannot be read does not hide those before and after it', () => {
  const { documents, problems } = parseDocuments('kind: A\n---\nkind: : B\n---\nkind: C\n');
  assert.deepEqual(
    documents.map(({ value }) => value),
    [{ kind: 'A' }, { kind: 'C' }],
  );
  assert.equal(problems.length, 1);
  assert.equal(problems[0]?.place, 'document 2 (line 3)');
  assert.match(problems[0]?.message ?? '', /not valid YAML/);
});

test('JSON is read whatever the file is called, and an unfinished one is one problem', () => {
  assert.deepEqual(parseDocuments(' {"kind": "A"}').documents, [
    { place: 'document 1 (line 1)', value: { kind: 'A' } },
  ]);
  const cut = parseDocuments('{\n"kind": "List",\n"items": [{"kind":');
  assert.deepEqual(cut.documents, []);
  assert.match(cut.problems[0]?.message ?? '', /not valid JSON/);
});

test('aliases that multiply beyond reason are a problem of their document, not of the process', () => {
  const bomb = Array.from({ length: 12 }, (_, i) =>
    i === 0 ? 'a0: &a0 [x, x, x, x, x, x, x, x, x]' : `a${i}: &a${i} [${`*a${i - 1},`.repeat(9)}]`,
  ).join('\n');
  const { documents, problems } = parseDocuments(`${bomb}\n---\nkind: B\n`);
  assert.deepEqual(
    documents.map(({ value }) => value),
    [{ kind: 'B' }],
  );
  assert.match(problems[0]?.message ?? '', /alias/i);
});

test('an empty file has no documents and no problems', () => {
  assert.deepEqual(parseDocuments(''), { documents: [], problems: [] });
});
