import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type ChildMessage, parentVariable } from './parent.ts';

/** Bodies of `run` for the service that stands for a real one. */
const bodies = {
  orderly: `readiness.set('all', true);
    await new Promise((end) => signal.addEventListener('abort', end, { once: true }));
    log.info('finished what it held');`,
  abortable: `readiness.set('all', true); await delay(1e8, undefined, { signal });`,
  hanging: `readiness.set('all', true); await delay(1e8);`,
  rejecting: `readiness.set('all', true); void Promise.reject(new Error('nobody caught this')); await delay(1e8);`,
  failing: `throw new Error('broken inside');`,
  hopeless: `throw new OperatorError('the disk is full; make room');`,
  ending: ``,
};

interface Run {
  readonly child: ChildProcess;
  readonly messages: ChildMessage[];
  output(): string;
  ended(): Promise<number | null>;
}

describe('a service that runs as a process', () => {
  let folder = '';
  const children: ChildProcess[] = [];
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'eastwest-run-'));
    const module = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
    for (const [name, body] of Object.entries(bodies)) {
      writeFileSync(
        join(folder, `${name}.mjs`),
        `import { setTimeout as delay } from 'node:timers/promises';
         const { runService } = await import(${module('./run.ts')});
         const { OperatorError } = await import(${module('./exit.ts')});
         const service = { name: 'sample', description: '', sections: {},
           async run({ log, readiness, signal }) { ${body} } };
         process.exit(await runService(service));`,
      );
    }
  });
  after(() => {
    for (const child of children) {
      child.kill('SIGKILL');
    }
    rmSync(folder, { recursive: true });
  });

  function start(name: keyof typeof bodies, environment: Record<string, string> = {}): Run {
    const child = spawn(process.execPath, [join(folder, `${name}.mjs`)], {
      cwd: folder,
      env: {
        PATH: process.env.PATH,
        EASTWEST_RUNTIME_HTTP_PORT: '0',
        [parentVariable]: 'supervisor',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    children.push(child);
    let text = '';
    const messages: ChildMessage[] = [];
    child.stdout?.on('data', (chunk) => {
      text += String(chunk);
    });
    child.stderr?.on('data', (chunk) => {
      text += String(chunk);
    });
    child.on('message', (message) => messages.push(message as ChildMessage));
    const exited = once(child, 'exit');
    const outputs = [child.stdout, child.stderr].map((stream) => stream && once(stream, 'end'));
    const ended = async (): Promise<number | null> => {
      const tooLate = setTimeout(() => child.kill('SIGKILL'), 15_000);
      await Promise.all(outputs);
      const [code] = await exited;
      clearTimeout(tooLate);
      return code;
    };
    return { child, messages, output: () => text, ended };
  }
  async function untilReady(run: Run): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (!run.messages.some((message) => message.type === 'ready' && message.ready)) {
      assert.ok(performance.now() < deadline, `ready in time; it said: ${run.output()}`);
      await delay(5);
    }
  }

  test('it tells its supervisor where its probes are and when it is ready', async () => {
    const run = start('orderly');
    await untilReady(run);
    const http = run.messages.find((message) => message.type === 'http');
    assert.equal((await fetch(`${http!.url}/readyz`)).status, 200);
    run.child.kill('SIGTERM');
    assert.equal(await run.ended(), 0);
  });

  test('told to stop, it finishes what it holds and ends with 0', async () => {
    const run = start('orderly');
    await untilReady(run);
    run.child.kill('SIGTERM');
    assert.equal(await run.ended(), 0);
    assert.match(run.output(), /finished what it held/);
  });

  test('work that is broken off by the stop signal is no failure', async () => {
    const run = start('abortable');
    await untilReady(run);
    run.child.kill('SIGTERM');
    assert.equal(await run.ended(), 0);
  });

  test('one that does not end in time is ended anyway, with 1', async () => {
    const run = start('hanging', { EASTWEST_RUNTIME_STOP_TIMEOUT_MS: '150' });
    await untilReady(run);
    run.child.kill('SIGTERM');
    assert.equal(await run.ended(), 1);
    assert.match(run.output(), /did not finish in time/);
  });

  test('it ends when its supervisor lets go of it', async () => {
    const run = start('orderly');
    await untilReady(run);
    run.child.disconnect();
    assert.equal(await run.ended(), 0);
    assert.match(run.output(), /supervisor is gone/);
  });

  test("under a supervisor Ctrl-C is the supervisor's to handle", async () => {
    const run = start('orderly');
    await untilReady(run);
    run.child.kill('SIGINT');
    run.child.kill('SIGTERM');
    assert.equal(await run.ended(), 0);
    assert.doesNotMatch(run.output(), /SIGINT/);
  });

  test('alone, Ctrl-C stops it in order', async () => {
    const run = start('orderly', { [parentVariable]: 'launcher' });
    const deadline = performance.now() + 60_000;
    while (!run.output().includes('started')) {
      assert.ok(performance.now() < deadline, 'started in time');
      await delay(5);
    }
    run.child.kill('SIGINT');
    assert.equal(await run.ended(), 0);
    assert.match(run.output(), /finished what it held/);
  });

  test('an unhandled rejection is logged and ends it with 1', async () => {
    const run = start('rejecting');
    assert.equal(await run.ended(), 1);
    assert.match(run.output(), /"level":60.*nobody caught this/);
  });

  test('a failure is logged with its stack and ends it with 1', async () => {
    const run = start('failing');
    assert.equal(await run.ended(), 1);
    assert.match(run.output(), /broken inside.*\\n +at /);
  });

  test('a state that the operator can mend is told without a stack', async () => {
    const run = start('hopeless');
    assert.equal(await run.ended(), 1);
    assert.match(run.output(), /the disk is full; make room/);
    assert.doesNotMatch(run.output(), /\\n +at /);
  });

  test('one that has nothing more to do ends with 0', async () => {
    assert.equal(await start('ending').ended(), 0);
  });

  test('wrong configuration ends it with 2 before anything else happens', async () => {
    const run = start('orderly', { EASTWEST_RUNTIME_HTTP_PROT: '1' });
    assert.equal(await run.ended(), 2);
    assert.match(
      run.output(),
      /EASTWEST_RUNTIME_HTTP_PROT: no such setting; the nearest is EASTWEST_RUNTIME_HTTP_PORT/,
    );
    assert.deepEqual(run.messages, []);
  });
});
