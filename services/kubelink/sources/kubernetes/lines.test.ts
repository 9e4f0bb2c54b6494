import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineSplitter } from './lines.ts';

test('lines are the same however the bytes are cut', () => {
  const text = '{"a":"é"}\n\n{"b":"€ and more"}\n{"c":1}\n';
  const bytes = Buffer.from(text);
  for (let size = 1; size <= bytes.length; size++) {
    const splitter = new LineSplitter(64);
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += size)
      lines.push(...splitter.push(bytes.subarray(at, at + size)));
    assert.deepEqual(
      lines,
      text.split('\n').filter((line) => line !== ''),
    );
  }
});

test('a line that is too long is an error, complete or not', () => {
  assert.throws(() => [...new LineSplitter(8).push(Buffer.from('123456789\n'))], /more than 8 bytes/);
  const splitter = new LineSplitter(8);
  assert.deepEqual([...splitter.push(Buffer.from('12345'))], []);
  assert.throws(() => [...splitter.push(Buffer.from('6789'))], /more than 8 bytes/);
});
