/** `eastwest up` as a user meets it: one command, everything there, nothing left behind. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { readUpState } from '../cli/up/folder.ts';
import { until } from './support/until.ts';

const script = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));
const run = promisify(execFile);

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  return servers.map((server) => {
    const address = server.address();
    server.close();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
}

/** Processes whose arguments name the folder, those that have ended but were not yet collected left out. */
function processesOf(folder: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(folder);
      } catch {
        return false;
      }
    })
    .map(Number)
    .filter((pid) => pid !== process.pid);
}

describe('eastwest up', () => {
  let folder = '';
  let url = '';
  let options: string[] = [];
  const started: ChildProcess[] = [];

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'eastwest-up-'));
    const [query = 0, ingest = 0, http = 0, tcp = 0] = await freePorts(4);
    url = `http://127.0.0.1:${query}`;
    const settings = {
      'query.port': query,
      'ingest.port': ingest,
      'store.embedded.httpPort': http,
      'store.embedded.tcpPort': tcp,
      'demo.size': 'tiny',
      'demo.intervalMs': 1000,
      'demo.flowsPerSecond': 200,
    };
    options = [
      '--data-dir',
      folder,
      ...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]),
    ];
  });
  after(async () => {
    for (const child of started) child.kill('SIGKILL');
    await until('all processes are gone', 10_000, async () => processesOf(folder).length === 0);
    rmSync(folder, { recursive: true });
  });

  function start(): { child: ChildProcess; output: () => string; exited: Promise<unknown[]> } {
    const child = spawn(process.execPath, [script, 'up', ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
    started.push(child);
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk) => {
        text += String(chunk);
      });
    }
    return { child, output: () => text, exited: once(child, 'exit') };
  }
  const ready = (limitMs: number) =>
    until('the API is ready', limitMs, async () => {
      const answer = await fetch(`${url}/readyz`).catch(() => undefined);
      await answer?.body?.cancel();
      return answer?.status === 200;
    });
  async function ask(...argv: string[]): Promise<string> {
    return (await run(process.execPath, [script, ...argv, '--url', url])).stdout;
  }
  async function countFlows(): Promise<number> {
    const text = await ask('sql', 'SELECT toUInt32(count()) AS n FROM flows', '--format', 'jsonl');
    return Number(JSON.parse(text).n);
  }

  test('is ready in 30 s, shows unexplained connections, survives its processes, keeps its data, leaves nothing', async (t) => {
    const first = start();
    await ready(30_000);
    await until('it says that all is ready', 60_000, async () =>
      first.output().includes('Eastwest is ready'),
    );

    await t.test('connections that no rule explains are listed within a minute', async () => {
      await until('unexplained connections', 60_000, async () => {
        const answer = JSON.parse(await ask('unknown', '--since', '5m', '--json'));
        return answer.items.length > 0;
      });
    });

    await t.test('a connection of this host is there within 15 s', async () => {
      const server = createServer((socket) => socket.end()).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
      await until('the connection', 15_000, async () => {
        const sql = `SELECT dst_port FROM flows WHERE dst_port = ${port} LIMIT 1`;
        return (await ask('sql', sql, '--format', 'jsonl')).includes(String(port));
      });
      server.close();
    });

    await t.test('the doctor finds nothing that must be mended', async () => {
      const { stdout } = await run(process.execPath, [script, 'doctor', '--json', ...options]);
      const failed = JSON.parse(stdout).filter(({ status }: { status: string }) => status === 'fail');
      assert.deepEqual(failed, []);
    });

    await t.test('a second instance is refused and told who holds the folder', async () => {
      await assert.rejects(
        run(process.execPath, [script, 'up', ...options]),
        (error: { code: number; stderr: string }) => {
          assert.equal(error.code, 1);
          assert.match(
            error.stderr,
            /another Eastwest \(process \d+, since .*\) uses the data folder .*--data-dir/,
          );
          return true;
        },
      );
    });

    await t.test('with a port in use it says which, who needs it and what to set', async () => {
      const other = [...options, '--data-dir', join(folder, 'other')];
      await assert.rejects(
        run(process.execPath, [script, 'up', ...other]),
        (error: { code: number; stderr: string }) => {
          assert.equal(error.code, 1);
          assert.match(error.stderr, /port \d+ on 127\.0\.0\.1 is in use; query \(.*--set query\.port=PORT/);
          return true;
        },
      );
    });

    await t.test('a process that is killed comes back', async () => {
      const pidOf = (name: string) =>
        readUpState(folder)?.processes.find((process) => process.name === name)?.pid;
      const before = pidOf('query');
      assert.ok(before);
      process.kill(before, 'SIGKILL');
      await until('another query process', 30_000, async () => {
        const now = pidOf('query');
        return now !== undefined && now !== before;
      });
      await ready(30_000);
    });

    const flows = await countFlows();
    const began = performance.now();
    first.child.kill('SIGINT');
    assert.deepEqual(await first.exited, [0, null], first.output());
    assert.ok(performance.now() - began < 5_000, 'stopped within 5 s');
    assert.deepEqual(processesOf(folder), []);

    await t.test('started again, the data is still there; killed, nothing is left running', async () => {
      const second = start();
      await ready(30_000);
      assert.ok((await countFlows()) >= flows);
      second.child.kill('SIGKILL');
      await until('all processes are gone', 10_000, async () => processesOf(folder).length === 0);
    });
  });
});
