import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxBlockRows } from './block-size.ts';

const config = { maxBlockRows: 500_000, maxHeldBytes: 900_000_000 };

test('partitions share the memory for blocks, and blocks are smallest while memory is tight', () => {
  assert.equal(maxBlockRows(config, 1, false), 500_000);
  assert.equal(maxBlockRows(config, 10, false), 100_000);
  assert.equal(maxBlockRows(config, 10_000, false), 8192);
  assert.equal(maxBlockRows(config, 1, true), 8192);
  assert.equal(maxBlockRows({ ...config, maxBlockRows: 1024 }, 10_000, true), 1024);
});
