/** `eastwest rules check` as people and CI run it: exit codes, lines, JSON, and the inventory of a real store. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { policyJsonSchema } from '../schemas/policy.ts';
import {
  type CommandResult,
  openQueryScene,
  pastMinute,
  type QueryScene,
  runCommand,
} from './support/query-scene.ts';

const policy = `rulesets:
  - name: core
    rules:
      - { name: known, from: [{ labels: { app: payments } }], to: [{ labels: { app: ledger } }], services: [{ port: 5432 }] }
      - { name: nobody, from: [{ labels: { app: ghost } }], to: [{ labels: { kind: vm } }], services: [{ port: 22 }] }
`;

describe('the check of a policy folder', () => {
  let folder: string;
  let scene: QueryScene;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'eastwest-check-'));
    scene = await openQueryScene([], (pastMinute() - 3600) * 1000);
    await scene.app.listen({ port: 0, host: '127.0.0.1' });
  });
  after(async () => {
    await scene.close();
    await rm(folder, { recursive: true });
  });

  async function check(text: string, ...options: readonly string[]): Promise<CommandResult> {
    await writeFile(join(folder, 'p.yaml'), text);
    return runCommand(['rules', 'check', folder, ...options], { EASTWEST_URL: scene.app.listeningOrigin });
  }

  test('says by file and line which rules match nobody of the inventory', async () => {
    const { code, stdout } = await check(policy, '--inventory');
    assert.equal(code, 0);
    const [first = '', ...others] = stdout.trim().split('\n');
    assert.match(
      first,
      /p\.yaml:5:\d+ {2}warning: .*: core\/nobody matches nobody: no workload has these labels now/,
    );
    assert.equal(others.length, 1, stdout);
    assert.match(others[0] ?? '', /^1 file in order, 1 warning: 1 rulesets with 2 rules/);
  });

  test('says that it did not look where it was not asked to, or nothing answers', async () => {
    assert.match((await check(policy)).stdout, /^not looked at: rules that match nobody \(ask the inventory/);
    const away = await check(policy, '--inventory', '--url', 'http://127.0.0.1:1');
    assert.equal(away.code, 0);
    assert.match(away.stdout, /^not looked at: rules that match nobody \(nothing answers at/);
  });

  test('ends with exit code 1 on warnings where it is strict, and 2 on errors', async () => {
    assert.equal((await check(policy, '--strict')).code, 0);
    assert.equal((await check(policy, '--strict', '--inventory')).code, 1);
    const broad = await check(policy, '--strict', '--max-ports', '0');
    assert.equal(broad.code, 1);
    assert.match(broad.stdout, /core\/known is broad: it allows 1 ports, more than maxPorts \(0\)/);
    const wrong = await check(policy.replace('services', 'service'), '--inventory');
    assert.equal(wrong.code, 2);
    assert.match(
      wrong.stdout,
      /p\.yaml:4:\d+ {2}error: .*there is no key "service" here; did you mean "services"\?/,
    );
    assert.match(wrong.stdout, /1 error, 1 warning: this policy can't be applied/);
  });

  test('answers in JSON with every problem at its place', async () => {
    const wrong = JSON.parse((await check(policy.replace('port: 22', 'port: 99999'), '--json')).stdout);
    assert.equal(wrong.ok, false);
    assert.deepEqual(
      wrong.problems.map(({ line, at, severity }: Record<string, unknown>) => ({ line, at, severity })),
      [{ line: 5, at: 'rulesets[0].rules[1].services[0].port', severity: 'error' }],
    );
    const right = JSON.parse((await check(policy, '--json', '--inventory')).stdout);
    assert.deepEqual([right.ok, right.problems, right.skipped], [true, [], null]);
    assert.equal(right.warnings.length, 1);
  });

  test('prints the schema that editors read', async () => {
    const { stdout } = await runCommand(['rules', 'schema'], {});
    assert.deepEqual(JSON.parse(stdout), policyJsonSchema());
  });
});
