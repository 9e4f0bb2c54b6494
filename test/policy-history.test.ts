/** Policies over time: each version is kept, one at a time wins a number, and a wrong one changes nothing. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { applyLeadMs, currentPolicy, policyHistory, publishPolicy } from '../lib/policy/publish.ts';
import { StoreConfig } from '../lib/store/config.ts';
import { openStore } from '../lib/store/open.ts';
import { topics } from '../schemas/topics.ts';
import { buildQueryApp } from '../services/query/app.ts';
import { QueryConfig } from '../services/query/config.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const config = Parse(BusConfig, Default(BusConfig, {}));
const command = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));
const run = promisify(execFile);
const opened: Bus[] = [];
let folder: string;

async function openTestBus(name: string): Promise<Bus> {
  const bus = await openBus(config, { dataDir: join(folder, name), log, clientId: 'test' });
  await bus.ensureTopics(topicSpecs(config));
  opened.push(bus);
  return bus;
}

const content = (...names: readonly string[]) => ({
  labels: [],
  profiles: [],
  ipLists: [],
  services: [],
  rulesets: [
    {
      name: 'shop',
      rules: names.map((name) => ({ name, from: [{ any: true as const }], to: [{ any: true as const }] })),
    },
  ],
});

interface Ran {
  readonly code: number;
  readonly out: string;
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'eastwest-policy-'));
});

after(async () => {
  for (const bus of opened) await bus.close();
  await rm(folder, { recursive: true, force: true });
});

describe('a policy', () => {
  test('has a version of its own, takes effect a moment later, and the ones before stay', async () => {
    const bus = await openTestBus('kept');
    assert.equal(await currentPolicy(bus), null);
    for (const names of [['a'], ['a', 'b'], ['b']]) {
      const beforeMs = Date.now();
      const { appliedMs } = await publishPolicy(bus, content(...names), 'test');
      assert.ok(appliedMs >= beforeMs + applyLeadMs && appliedMs <= Date.now() + applyLeadMs);
    }
    const history = await policyHistory(bus);
    assert.deepEqual(
      history.map(({ version, rulesets }) => [version, rulesets[0]?.rules.map(({ name }) => name)]),
      [
        [1, ['a']],
        [2, ['a', 'b']],
        [3, ['b']],
      ],
    );
    assert.equal((await currentPolicy(bus))?.version, 3);
  });

  test('of several that are applied at the same moment gets a number that no other has', async () => {
    const bus = await openTestBus('contest');
    const second = await openBus(config, { dataDir: join(folder, 'contest'), log, clientId: 'second' });
    opened.push(second);
    const published = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        publishPolicy(i % 2 === 0 ? bus : second, content(`rule-${i}`), `author-${i}`),
      ),
    );
    const history = await policyHistory(bus);
    assert.deepEqual(
      history.map(({ version }) => version),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    for (const { version, author } of published)
      assert.equal(history.find((one) => one.version === version)?.author, author);
  });

  test('is forgotten when there are too many newer ones', async () => {
    const bus = await openTestBus('many');
    await bus.append(
      topics.policy,
      Array.from({ length: 100 }, (_, i) => ({
        key: `policy/${i + 1}/made`,
        value: Buffer.from(
          JSON.stringify({ ...content('a'), v: 1, version: i + 1, author: 'x', appliedMs: i }),
        ),
      })),
    );
    for (const name of ['b', 'c', 'd']) await publishPolicy(bus, content(name), 'test');
    const versions = (await policyHistory(bus)).map(({ version }) => version);
    assert.deepEqual([versions.length, versions[0], versions.at(-1)], [101, 3, 103]);
  });
});

describe('the API', () => {
  test('applies a policy, tells of the versions, and goes back; what is wrong is named and changes nothing', async () => {
    const store = openStore(Parse(StoreConfig, Default(StoreConfig, {})), { log });
    const bus = await openTestBus('api');
    const app = await buildQueryApp({
      config: Parse(QueryConfig, Default(QueryConfig, {})),
      store,
      sqlServer: { url: 'http://127.0.0.1:1', database: 'x', username: 'x', password: '' },
      minuteDays: 30,
      registry: new Registry(),
      log,
      withBus: (work) => work(bus),
    });
    const put = (files: Record<string, string>, more: object = {}) =>
      app.inject({ method: 'PUT', url: '/api/v1/policy', payload: { author: 'ann', files, ...more } });
    try {
      assert.deepEqual((await app.inject('/api/v1/policy')).json(), {
        version: 0,
        author: '',
        from: null,
        policy: {},
      });
      const good = {
        'a.yaml': 'ipLists: [{ name: acme, cidrs: [192.0.2.0/24] }]',
        'b.yaml': 'services: [{ name: web, ports: [{ port: 443 }] }]',
      };
      const first = (await put(good)).json();
      assert.deepEqual([first.applied, first.version, first.changes.length], [true, 1, 2]);
      assert.equal((await put(good)).json().applied, false);
      const wrong = await put({
        'a.yaml': 'ipLists:\n  - { name: acme, cidrs: [192.0.2.0/99] }\n',
        'b.yaml': 'servces: []',
      });
      assert.equal(wrong.statusCode, 400);
      assert.match(wrong.json().detail, /^nothing was applied: /);
      assert.deepEqual(
        wrong
          .json()
          .problems.map(({ file, line }: { file: string; line: number }) => `${file}:${line}`)
          .sort(),
        ['a.yaml:2', 'b.yaml:1'],
      );
      assert.equal((await put({ 'b.yaml': good['b.yaml'] }, { dryRun: true })).json().changes.length, 1);
      assert.equal((await app.inject('/api/v1/policy')).json().version, 1);
      await put({ 'b.yaml': good['b.yaml'] });
      const { versions } = (await app.inject('/api/v1/policy/versions')).json();
      assert.deepEqual(
        versions.map(
          ({ version, changes }: { version: number; changes: { name: string; change: string }[] }) => [
            version,
            changes.map(({ change, name }) => `${change} ${name}`),
          ],
        ),
        [
          [2, ['removed acme']],
          [1, []],
        ],
      );
      const back = await app.inject({
        method: 'POST',
        url: '/api/v1/policy/rollback',
        payload: { author: 'bob', version: 1 },
      });
      assert.equal(back.json().version, 3);
      assert.deepEqual(
        (await app.inject('/api/v1/policy')).json().policy,
        (await app.inject('/api/v1/policy?version=1')).json().policy,
      );
      const missing = await app.inject('/api/v1/policy?version=9');
      assert.equal(missing.statusCode, 404);
      assert.match(missing.json().detail, /no version 9 of the policy; kept: 1 to 3/);
      const stranger = await app.inject({
        method: 'PUT',
        url: '/api/v1/policy',
        remoteAddress: '192.0.2.9',
        payload: { author: 'x', files: good },
      });
      assert.equal(stranger.statusCode, 403);
    } finally {
      await app.close();
      await store.close();
    }
  });
});

describe('eastwest rules', () => {
  const dataDir = (): string => join(folder, 'cli');
  const environment = () => ({ ...process.env, EASTWEST_RUNTIME_DATA_DIR: dataDir(), NO_COLOR: '1' });
  const rules = async (...words: readonly string[]): Promise<Ran> => {
    try {
      const { stdout } = await run(process.execPath, [command, 'rules', ...words], { env: environment() });
      return { code: 0, out: stdout };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, out: stdout + stderr };
    }
  };
  const policy = (...names: readonly string[]): string =>
    `rulesets:\n  - name: shop\n    rules:\n${names.map((name) => `      - { name: ${name}, from: [{ any: true }], to: [{ cidr: 10.0.0.0/8 }] }`).join('\n')}\n`;

  test('applies what is in order, shows what it changes, and goes back', async () => {
    const rulesFolder = join(folder, 'rules');
    await mkdir(rulesFolder, { recursive: true });
    const write = (text: string): Promise<void> => writeFile(join(rulesFolder, 'shop.yaml'), text);
    await write(policy('a', 'b'));
    assert.match(
      (await rules('apply', rulesFolder, '--author', 'ann')).out,
      /version 1 is in force for flows that begin at /,
    );
    assert.match((await rules('apply', rulesFolder)).out, /says the same: nothing was applied/);
    await write(policy('b', 'c'));
    const dry = await rules('apply', rulesFolder, '--dry-run');
    assert.match(dry.out, /-\s+rule\s+shop\/a[\s\S]*\+\s+rule\s+shop\/c[\s\S]*nothing was applied/);
    await rules('apply', rulesFolder, '--author', 'bob');
    await write('rulesets: [{ name: shop, rulez: [] }]');
    const wrong = await rules('apply', rulesFolder);
    assert.equal(wrong.code, 2);
    assert.match(wrong.out, /shop\.yaml:1:\d+[\s\S]*nothing was applied/);
    const [newest, first] = JSON.parse((await rules('history', '--json')).out);
    assert.deepEqual([newest.version, newest.author, first.version, first.author], [2, 'bob', 1, 'ann']);
    assert.deepEqual(
      newest.changes.map(({ change, name }: { change: string; name: string }) => `${change} ${name}`),
      ['removed shop/a', 'added shop/c'],
    );
    assert.match((await rules('show', '1')).out, /# version 1 by ann[\s\S]*name: a/);
    assert.match((await rules('rollback', '1', '--author', 'cid')).out, /version 3 is in force/);
    assert.deepEqual(
      JSON.parse((await rules('show', '--json')).out).rulesets,
      JSON.parse((await rules('show', '1', '--json')).out).rulesets,
    );
    const missing = await rules('rollback', '9');
    assert.equal(missing.code, 2);
    assert.match(missing.out, /there is no version 9: kept are 1 to 3/);
  });

  test('follows a git folder, names the author of the commit, and stays with what is in force when it is wrong', async () => {
    const clone = join(folder, 'clone');
    await mkdir(clone, { recursive: true });
    const git = (...words: readonly string[]) => run('git', ['-C', clone, ...words]);
    await git('init', '-q');
    const commit = async (text: string, author: string): Promise<void> => {
      await writeFile(join(clone, 'shop.yaml'), text);
      await git('add', '.');
      await git(
        '-c',
        `user.name=${author}`,
        '-c',
        'user.email=a@example.com',
        'commit',
        '-qm',
        'Change rules',
      );
    };
    await commit(policy('first'), 'Dora');
    const env = { ...environment(), EASTWEST_RUNTIME_DATA_DIR: join(folder, 'watched') };
    const watching = spawn(process.execPath, [command, 'rules', 'watch', clone, '--interval', '1'], { env });
    let said = '';
    watching.stdout.on('data', (chunk) => {
      said += String(chunk);
    });
    try {
      await until(
        'the first is applied',
        20_000,
        async () => /version 1 is in force.*by Dora \([0-9a-f]+\)/s.test(said),
        () => said,
      );
      await commit('rulesets: 7', 'Eve');
      await until(
        'the wrong one is told of',
        20_000,
        async () => /stays until this is put right/.test(said),
        () => said,
      );
      await commit(policy('first', 'second'), 'Fay');
      await until(
        'the next is applied',
        20_000,
        async () => /version 2 is in force.*by Fay/s.test(said),
        () => said,
      );
    } finally {
      watching.kill('SIGKILL');
    }
  });
});
