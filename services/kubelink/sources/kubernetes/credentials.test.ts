import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { loadAccess } from './credentials.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-credentials-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function kubeconfig(user: object, cluster: object = {}, context: object = {}): string {
  const path = join(folder, 'config');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'c',
    clusters: [{ name: 'c', cluster: { server: 'https://api.example.org:6443/east/', ...cluster } }],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u', ...context } }],
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

test('server, path, namespace and token come from the kubeconfig', async () => {
  const path = kubeconfig({ token: 'abc' }, {}, { namespace: 'tools' });
  const access = await loadAccess({ kubeconfig: path });
  assert.equal(access.origin, 'https://api.example.org:6443');
  assert.equal(access.pathPrefix, '/east');
  assert.equal(access.namespace, 'tools');
  assert.deepEqual(await access.headers(), { authorization: 'Bearer abc' });
});

test('a token file is read beside the kubeconfig, without its line break', async () => {
  writeFileSync(join(folder, 'token'), 'from-file\n');
  const access = await loadAccess({ kubeconfig: kubeconfig({ tokenFile: 'token' }) });
  assert.deepEqual(await access.headers(), { authorization: 'Bearer from-file' });
});

test('a helper program gives the token', async () => {
  const answer = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 't' },
  };
  const exec = { apiVersion: answer.apiVersion, command: 'echo', args: [JSON.stringify(answer)] };
  const access = await loadAccess({ kubeconfig: kubeconfig({ exec }) });
  assert.deepEqual(await access.headers(), { authorization: 'Bearer t' });
  const failing = kubeconfig({ exec: { ...exec, command: 'false' } });
  await assert.rejects(loadAccess({ kubeconfig: failing }));
});

test('certificates and names of servers are handed on', async () => {
  const text = Buffer.from('pem').toString('base64');
  const access = await loadAccess({
    kubeconfig: kubeconfig(
      { 'client-certificate-data': text, 'client-key-data': text },
      { 'certificate-authority-data': text, 'tls-server-name': 'kubernetes' },
    ),
  });
  const { ca, cert, key, servername } = access.tls;
  assert.deepEqual([ca, cert, key].map(String), ['pem', 'pem', 'pem']);
  assert.equal(servername, 'kubernetes');
});

const refused: readonly [string, () => Parameters<typeof loadAccess>[0], RegExp][] = [
  ['no file', () => ({ kubeconfig: join(folder, 'none') }), /ENOENT/],
  ['no context', () => ({ kubeconfig: kubeconfig({ token: 'a' }), context: 'west' }), /no context "west"/],
  ['no HTTPS', () => ({ kubeconfig: kubeconfig({}, { server: 'http://a:8080' }) }), /only https:/],
  ['a proxy', () => ({ kubeconfig: kubeconfig({}, { 'proxy-url': 'http://p:3128' }) }), /proxy-url/],
  ['no pod', () => ({}), /KUBERNETES_SERVICE_HOST is not set\): name a kubeconfig/],
];
for (const [what, options, message] of refused) {
  test(`what cannot work is said: ${what}`, async () => {
    await assert.rejects(loadAccess(options()), message);
  });
}
