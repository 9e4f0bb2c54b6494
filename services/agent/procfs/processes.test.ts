import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ProcessNames, type SocketOwner } from './processes.ts';

const uid = '8f3c1b52-0c7e-4d1a-9a57-2f6f0b9d4e11';

test('the owner of a socket is told with its name and, where it is in one, its pod', (context) => {
  const root = mkdtempSync(join(tmpdir(), 'eastwest-proc-'));
  context.after(() => rmSync(root, { recursive: true, force: true }));
  const makeProcess = (pid: string, comm: string, inode: number, cgroup: string | null): void => {
    mkdirSync(join(root, pid, 'fd'), { recursive: true });
    writeFileSync(join(root, pid, 'comm'), `${comm}\n`);
    writeFileSync(join(root, pid, 'cmdline'), `/usr/bin/${comm}\0--quiet\0`);
    if (cgroup !== null) writeFileSync(join(root, pid, 'cgroup'), cgroup);
    symlinkSync('/dev/null', join(root, pid, 'fd', '0'));
    symlinkSync(`socket:[${inode}]`, join(root, pid, 'fd', '3'));
  };
  makeProcess('100', 'envoy', 55, `0::/kubepods/burstable/pod${uid}/4f8b1c0e\n`);
  makeProcess('200', 'sshd', 66, '0::/system.slice/sshd.service\n');
  makeProcess('300', 'curl', 77, null);
  const processes = new ProcessNames({ root, budgetMs: 10_000, nowMs: () => 0 });
  for (const inode of [55, 66, 77, 88]) processes.want(inode);
  const found = new Map<number, SocketOwner>();
  processes.search((inode, owner) => found.set(inode, owner));
  assert.deepEqual(Object.fromEntries(found), {
    55: { name: 'envoy', podUid: uid },
    66: { name: 'sshd', podUid: '' },
    77: { name: 'curl', podUid: '' },
  });
});
