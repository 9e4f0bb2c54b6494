import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ProcessStatus, ProcessView } from './process-view.ts';
import { createSupervisor, type ProcessSpec, type Supervisor } from './supervisor.ts';

const config = {
  restartInitialMs: 20,
  restartMaxMs: 200,
  goodAfterMs: 60_000,
  stopEveryoneAfterMs: 1_000,
  killAfterMs: 1_500,
  logFileBytes: 10_000,
  logFileCount: 2,
};

const report = `process.send({ type: 'ready', ready: true, parts: { all: true } }, () => {});`;
const endWithParent = `process.on('disconnect', () => process.exit(0));`;
/** Small programs that stand for services. */
const programs = {
  good: `${endWithParent} process.on('SIGTERM', () => process.exit(0)); ${report} setInterval(() => {}, 1000);`,
  stubborn: `process.on('SIGTERM', () => {}); process.on('disconnect', () => {}); ${report} setInterval(() => {}, 1000);`,
  dying: `process.exit(1);`,
  wrong: `console.error('eastwest.yaml:1:1: unknown section'); process.exitCode = 2;`,
  job: `process.exit(0);`,
  slow: `${endWithParent} process.on('SIGTERM', () => setTimeout(() => process.exit(0), 200)); ${report} setInterval(() => {}, 1000);`,
  loud: `${endWithParent} console.log(JSON.stringify({ level: 30, msg: 'quiet' })); for (const n of [1, 2]) console.log(JSON.stringify({ level: 40, n, msg: 'mind this' })); ${report} setInterval(() => {}, 1000);`,
  parent: `${endWithParent} const c = require('node:child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']); require('node:fs').writeFileSync(process.argv[2], String(c.pid)); ${report} setInterval(() => {}, 1000);`,
};

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `in time: ${what}`);
    await delay(5);
  }
}

describe('the supervisor', () => {
  let folder = '';
  let supervisor: Supervisor | undefined;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'eastwest-supervisor-'));
    for (const [name, source] of Object.entries(programs)) {
      writeFileSync(join(folder, `${name}.cjs`), source);
    }
  });
  afterEach(() => supervisor?.stop());
  after(() => rmSync(folder, { recursive: true }));

  const spec = (
    name: keyof typeof programs,
    dependsOn: string[] = [],
    more: Partial<ProcessSpec> & { argument?: string } = {},
  ): ProcessSpec => ({
    name,
    argv: [join(folder, `${name}.cjs`), ...(more.argument === undefined ? [] : [more.argument])],
    kind: name === 'job' ? 'job' : 'service',
    dependsOn,
    ...more,
  });

  interface Seen {
    readonly changes: ProcessStatus[];
    readonly output: string[];
  }
  function start(specs: ProcessSpec[], own: Partial<typeof config> = {}): Seen {
    const seen: Seen = { changes: [], output: [] };
    const view: ProcessView = {
      update: (_all, changed) => changed !== undefined && seen.changes.push(changed),
      output: (name, line) => seen.output.push(`${name}: ${line}`),
      say: () => undefined,
      close: () => undefined,
    };
    supervisor = createSupervisor({
      specs,
      config: { ...config, ...own },
      logsDir: join(folder, 'logs'),
      view,
    });
    supervisor.start();
    return seen;
  }
  const state = (name: string): ProcessStatus => supervisor!.status().find((status) => status.name === name)!;

  test('a process starts only when what it needs is ready or done', async () => {
    const seen = start([spec('job'), spec('good', ['job']), spec('slow', ['good'])]);
    await supervisor!.ready;
    assert.deepEqual(
      seen.changes.map(({ name, phase }) => `${name} ${phase}`),
      ['job starting', 'job done', 'good starting', 'good ready', 'slow starting', 'slow ready'],
    );
  });

  test('a process that is killed comes back as another one, and the restart is counted', async () => {
    start([spec('good')]);
    await supervisor!.ready;
    const first = state('good').pid!;
    process.kill(first, 'SIGKILL');
    await until(() => state('good').phase === 'ready' && state('good').pid !== first, 'ready again');
    assert.equal(state('good').restartCount, 1);
  });

  test('a process that dies again and again is started ever more slowly', async () => {
    const seen = start([spec('dying')]);
    await until(() => state('dying').restartCount >= 5, 'five restarts');
    const waits = seen.changes
      .filter(({ phase }) => phase === 'restarting')
      .map(({ reason }) => Number(/again in ([\d.]+) s/.exec(reason)![1]));
    assert.match(seen.changes.find(({ phase }) => phase === 'restarting')!.reason, /ended with code 1/);
    assert.ok(waits.at(-1)! > waits[0]!, `waits grow: ${waits}`);
    assert.ok(
      waits.every((wait) => wait <= 0.2),
      'and are bounded',
    );
  });

  test('a process that ran well for long starts quickly again', async () => {
    const seen = start([spec('good')], { goodAfterMs: 1 });
    await supervisor!.ready;
    for (let round = 1; round <= 4; round++) {
      const { pid } = state('good');
      process.kill(pid!, 'SIGKILL');
      await until(() => state('good').phase === 'ready' && state('good').pid !== pid, 'ready again');
    }
    const waits = seen.changes
      .filter(({ phase }) => phase === 'restarting')
      .map(({ reason }) => Number(/again in ([\d.]+) s/.exec(reason)![1]));
    assert.equal(waits.length, 4);
    assert.ok(
      waits.every((wait) => wait <= 0.02),
      `no wait grows: ${waits}`,
    );
  });

  test('a process with wrong configuration is not tried again; its words are the reason', async () => {
    start([spec('wrong')]);
    const failure = await supervisor!.failed;
    assert.deepEqual(failure, { name: 'wrong', reason: 'eastwest.yaml:1:1: unknown section' });
    assert.equal(state('wrong').phase, 'failed');
  });

  test('dependents are stopped before what they need', async () => {
    const seen = start([spec('good'), spec('slow', ['good'])]);
    await supervisor!.ready;
    await supervisor!.stop();
    const ends = seen.changes.map(({ name, phase }) => `${name} ${phase}`).slice(-4);
    assert.deepEqual(ends, ['slow stopping', 'slow stopped', 'good stopping', 'good stopped']);
  });

  test('a process that ignores the request to stop is killed in bounded time', async () => {
    start([spec('good'), spec('stubborn', ['good'])]);
    await supervisor!.ready;
    const pids = ['good', 'stubborn'].map((name) => state(name).pid!);
    const began = performance.now();
    await supervisor!.stop();
    assert.ok(performance.now() - began < 3_000);
    assert.ok(pids.every((pid) => !alive(pid)));
  });

  test('what a dead process had started goes with it', async () => {
    const file = join(folder, 'grandchild');
    start([spec('parent', [], { argument: file })]);
    await supervisor!.ready;
    const grandchild = Number(readFileSync(file, 'utf8'));
    assert.ok(alive(grandchild));
    process.kill(state('parent').pid!, 'SIGKILL');
    await until(() => !alive(grandchild), 'the grandchild is gone');
  });

  test('a warning reaches the terminal once, everything reaches the log file', async () => {
    const seen = start([spec('loud')]);
    await supervisor!.ready;
    await until(() => seen.output.length > 0, 'a warning');
    assert.deepEqual(seen.output, [`loud: ${JSON.stringify({ level: 40, n: 1, msg: 'mind this' })}`]);
    await supervisor!.stop();
    assert.match(
      readFileSync(join(folder, 'logs', 'loud.log'), 'utf8'),
      /quiet.*\n.*mind this.*\n.*mind this/,
    );
  });

  test('a process that needs one not named before it is a mistake', () => {
    assert.throws(() => start([spec('good', ['job'])]), /good depends on job/);
    supervisor = undefined;
  });

  test('no process outlives a supervisor that is killed', async () => {
    const pidFile = join(folder, 'pids.json');
    const script = join(folder, 'host.mjs');
    const supervisorUrl = new URL('./supervisor.ts', import.meta.url).href;
    const specs = [spec('good'), spec('slow', ['good'])];
    writeFileSync(
      script,
      `import { createSupervisor } from ${JSON.stringify(supervisorUrl)};
       import { writeFileSync } from 'node:fs';
       const none = () => {};
       const s = createSupervisor({ specs: ${JSON.stringify(specs)}, config: ${JSON.stringify(config)},
         logsDir: ${JSON.stringify(join(folder, 'logs'))},
         view: { update: none, output: none, say: none, close: none } });
       s.start(); await s.ready;
       writeFileSync(${JSON.stringify(pidFile)}, JSON.stringify(s.status().map((p) => p.pid)));`,
    );
    const host: ChildProcess = spawn(process.execPath, [script], { stdio: 'ignore' });
    try {
      await until(() => existsSync(pidFile) && readFileSync(pidFile, 'utf8').endsWith(']'), 'all started');
      const pids: number[] = JSON.parse(readFileSync(pidFile, 'utf8'));
      assert.equal(pids.filter(alive).length, 2);
      host.kill('SIGKILL');
      await until(() => !pids.some(alive), 'none is left');
    } finally {
      host.kill('SIGKILL');
    }
  });
});
