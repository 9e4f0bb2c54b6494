import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { parseFailpoints } from './failpoint.ts';

const module = JSON.stringify(new URL('./failpoint.ts', import.meta.url).href);

function run(failpoints: string | undefined): { signal: string | null; output: string } {
  const program = `import { failpoint } from ${module}; for (let i = 1; i < 5; i++) { failpoint('here'); console.log(i); }`;
  const env = failpoints === undefined ? {} : { EASTWEST_FAILPOINTS: failpoints };
  const result = spawnSync(process.execPath, ['--input-type=module', '--eval', program], { env });
  return { signal: result.signal, output: result.stdout.toString() };
}

test('a process dies where and when it was told to, and goes on where it was not', () => {
  assert.deepEqual(run('here=kill@3'), { signal: 'SIGKILL', output: '1\n2\n' });
  assert.equal(run('elsewhere=kill@1').signal, null);
  assert.equal(run(undefined).output, '1\n2\n3\n4\n');
});

test('a failpoint that is not understood is named', () => {
  assert.throws(() => parseFailpoints('a=kill@1,b=explode@2'), /"b=explode@2"/);
});
