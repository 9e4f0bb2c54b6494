import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { closingLines, failingSkips, selectFiles } from './test.ts';

describe('the test runner', () => {
  const skips = [{ file: 'test/bus.test.ts', name: 'order', reason: 'no java' }];

  test('the last line has the totals, and every skip stands above with its reason', () => {
    const lines = closingLines({ passed: 3, failed: 1, skips }, false);
    assert.equal(lines.at(-1), '3 passed, 1 failed, 1 skipped');
    assert.ok(lines.includes('  test/bus.test.ts: order (no java)'));
    assert.ok(lines.includes('# tests 5'));
  });

  test('in CI a skip is counted as a failure', () => {
    assert.equal(closingLines({ passed: 3, failed: 1, skips }, true).at(-1), '3 passed, 2 failed, 0 skipped');
  });

  test('an optional skip is a skip in CI too', () => {
    const optional = [{ file: 'test/deploy.test.ts', name: 'compose', reason: 'optional: no docker' }];
    const totals = { passed: 3, failed: 0, skips: [...skips, ...optional] };
    assert.equal(closingLines(totals, true).at(-1), '3 passed, 1 failed, 1 skipped');
    assert.deepEqual(failingSkips(totals.skips), skips);
  });

  test('words on the command line select files by path', () => {
    const files = ['lib/store/b.test.ts', 'lib/bus/a.test.ts'];
    assert.deepEqual(selectFiles(files, ['./lib/bus']), ['lib/bus/a.test.ts']);
    assert.deepEqual(selectFiles(files, []), ['lib/bus/a.test.ts', 'lib/store/b.test.ts']);
  });
});
