import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadConfig } from '../../lib/runtime/config.ts';
import { parseSetFlag } from '../../lib/runtime/config-sources.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { sections } from '../sections.ts';
import { agentToken, folderPaths, holdFolder, readUpState, removeUpState, writeUpState } from './folder.ts';
import { greeting } from './greeting.ts';
import { planUp, requiredPorts } from './plan.ts';
import { portProblems } from './ports.ts';

const configOf = (...sets: string[]) =>
  loadConfig(sections, { cwd: tmpdir(), environment: {}, flags: sets.map((text) => parseSetFlag(text)!) })
    .values;
const planOf = (sets: string[] = [], demoWanted = true) =>
  planUp({
    config: configOf(...sets),
    script: 'eastwest.mjs',
    globalArgv: ['--set', 'a.b=c'],
    demoWanted,
    token: 'T',
  });
const namesOf = (plan: ReturnType<typeof planOf>) => plan.processes.map(({ name }) => name);

describe('what up runs', () => {
  test('everything, with its own store and the generated bank, when nothing is configured', () => {
    assert.deepEqual(namesOf(planOf()), [
      'store',
      'migrate',
      'ingest',
      'kubelink',
      'enrich',
      'query',
      'alert',
      'agent',
      'demo',
    ]);
  });

  test('the store is stopped after those that use it', () => {
    for (const { name, dependsOn } of planOf().processes) {
      assert.equal(dependsOn.includes('store'), ['enrich', 'query', 'alert'].includes(name), name);
    }
  });

  test('no generated bank beside sources of the operator, or when it is not wanted', () => {
    assert.ok(!namesOf(planOf(['kubelink.sources=[{kind: hosts, path: hosts.yaml}]'])).includes('demo'));
    assert.ok(!namesOf(planOf([], false)).includes('demo'));
  });

  test('no store of its own where the operator names one', () => {
    const plan = planOf(['store.url=http://db:8123']);
    assert.ok(!namesOf(plan).includes('store'));
    assert.ok(plan.ports.every(({ option }) => !option.startsWith('store.')));
  });

  test('this host and what is put over HTTP are in the inventory, beside what is configured, once', () => {
    const sourcesOf = (sets: string[]) => {
      const argv = planOf(sets).processes.find(({ name }) => name === 'kubelink')!.argv;
      const text = argv.find((argument) => argument.startsWith('kubelink.sources='))!;
      return JSON.parse(text.slice('kubelink.sources='.length)).map(({ kind }: { kind: string }) => kind);
    };
    assert.deepEqual(sourcesOf([]), ['local-host', 'api']);
    assert.deepEqual(sourcesOf(['kubelink.sources=[{kind: hosts, path: h}]']), [
      'hosts',
      'local-host',
      'api',
    ]);
    const own = '[{kind: local-host, network: n}, {kind: api, maxWorkloadCount: 7}]';
    assert.deepEqual(sourcesOf([`kubelink.sources=${own}`]), ['local-host', 'api']);
  });

  test('the token goes to the agents by their environment, never by arguments that everybody can see', () => {
    const { processes } = planOf();
    assert.equal(processes.find(({ name }) => name === 'agent')?.environment?.EASTWEST_AGENT_TOKEN, 'T');
    assert.ok(processes.every(({ argv }) => !argv.some((argument) => /token=T/i.test(argument))));
  });

  test('the global options of up are those of its processes', () => {
    const { processes } = planOf();
    assert.ok(processes.every(({ argv }) => argv.includes('a.b=c')));
  });

  test('the settings that up gives its processes are settings that exist', () => {
    for (const { argv, environment } of planOf().processes) {
      const flags = argv
        .filter((_, index) => argv[index - 1] === '--set')
        .filter((text) => text !== 'a.b=c')
        .map((text) => parseSetFlag(text)!);
      assert.doesNotThrow(() =>
        loadConfig(sections, { cwd: tmpdir(), environment: environment ?? {}, flags }),
      );
    }
  });

  test('what it says at the end names the addresses and three commands', () => {
    const lines = greeting(configOf('query.port=8181'), { demo: true, logsDir: 'logs' }).join('\n');
    assert.match(lines, /http:\/\/127\.0\.0\.1:8181\n/);
    assert.equal(lines.match(/npx eastwest (unknown|sql|ledger)/g)?.length, 3);
  });
});

describe('the data folder', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'eastwest-up-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  test('a second instance is refused and told who holds it, and may have it afterwards', () => {
    const dataDir = join(folder, 'held');
    const lock = holdFolder(dataDir);
    writeUpState(dataDir, { pid: 4711, startedAt: '2026-01-02T03:04:05Z', processes: [] });
    assert.throws(
      () => holdFolder(dataDir),
      (error) =>
        error instanceof OperatorError &&
        /another Eastwest \(process 4711, since 2026-01-02T03:04:05Z\)/.test(error.message) &&
        error.message.includes(dataDir) &&
        error.message.includes('--data-dir'),
    );
    removeUpState(dataDir);
    lock.release();
    holdFolder(dataDir).release();
  });

  test('a folder that cannot be made is named', () => {
    writeFileSync(join(folder, 'file'), '');
    assert.throws(
      () => holdFolder(join(folder, 'file', 'sub')),
      /data folder .*file\/sub cannot be used: .*--data-dir/,
    );
  });

  test('what runs can be read by others, and a broken file is like none', () => {
    const dataDir = join(folder, 'state');
    holdFolder(dataDir).release();
    writeUpState(dataDir, { pid: 1, startedAt: 'now', processes: [] });
    assert.equal(readUpState(dataDir)?.pid, 1);
    writeFileSync(folderPaths(dataDir).state, '{');
    assert.equal(readUpState(dataDir), undefined);
  });

  test('the token is made once, is long, and only its owner can read it', () => {
    const dataDir = join(folder, 'tokens');
    holdFolder(dataDir).release();
    const token = agentToken(dataDir);
    assert.ok(token.length >= 32);
    assert.equal(agentToken(dataDir), token);
    const path = folderPaths(dataDir).tokens;
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.match(readFileSync(path, 'utf8'), /agents: "\*"/);
  });

  test('a tokens file without a token is named', () => {
    const dataDir = join(folder, 'empty');
    holdFolder(dataDir).release();
    writeFileSync(folderPaths(dataDir).tokens, '');
    assert.throws(() => agentToken(dataDir), /tokens holds no token; remove the file/);
  });
});

describe('the ports of up', () => {
  test('each port in use is named, with who needs it and the option that changes it', async (t) => {
    const other = createServer().listen(0, '127.0.0.1');
    t.after(() => other.close());
    await new Promise((settle) => other.once('listening', settle));
    const address = other.address();
    assert.ok(typeof address === 'object' && address !== null);
    const ports = requiredPorts(
      configOf(`query.port=${address.port}`, 'ingest.port=0', 'store.url=http://db'),
    );
    const problems = await portProblems(ports);
    assert.equal(problems.length, 1);
    assert.match(
      problems[0] ?? '',
      new RegExp(`^port ${address.port} on 127\\.0\\.0\\.1 is in use; query \\(.*--set query\\.port=PORT$`),
    );
  });
});
