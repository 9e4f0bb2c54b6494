import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { isGone, processName } from './liveness.ts';

test('a process that lives is not gone, one that has ended is, and what cannot be told is not', async (t) => {
  const name = processName();
  if (name === '') return t.skip('this system has no /proc');
  assert.equal(isGone(name), false);
  const [boot, namespace, , started] = name.split(' ');
  const child = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => child.once('exit', resolve));
  assert.equal(isGone(`${boot} ${namespace} ${child.pid} 1`), true);
  assert.equal(
    isGone(`${boot} ${namespace} ${process.pid} ${Number(started) - 1}`),
    true,
    'the number was used again',
  );
  assert.equal(isGone(`${boot} pid:[1] ${child.pid} 1`), false, 'another namespace');
  assert.equal(isGone(`other ${namespace} ${child.pid} 1`), false, 'another boot');
  assert.equal(isGone(''), false);
});
