import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { OperatorError } from './exit.ts';
import { baseUrl, explainListenError, serveProbes } from './http.ts';
import { createReadiness } from './readiness.ts';

function setup() {
  const metrics = new Registry();
  new Counter({ name: 'eastwest_test_total', help: 'counts', registers: [metrics] }).inc(3);
  const readiness = createReadiness(() => undefined);
  return {
    metrics,
    readiness,
    options: { host: '127.0.0.1', metrics, readiness: readiness.state, name: 'test' },
  };
}

test('a process is alive at once, and ready when every part is; until then the reasons are told', async (t) => {
  const { readiness, options } = setup();
  const server = await serveProbes({ ...options, port: 0 });
  t.after(() => server.close());
  const ready = async () => {
    const answer = await fetch(`${server.url}/readyz`);
    return [answer.status, await answer.json()];
  };
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200);
  assert.deepEqual(await ready(), [503, { ready: false, parts: {} }]);
  readiness.set('store', 'not reached yet');
  readiness.set('bus', true);
  assert.deepEqual(await ready(), [503, { ready: false, parts: { store: 'not reached yet', bus: true } }]);
  readiness.set('store', true);
  assert.deepEqual(await ready(), [200, { ready: true, parts: { store: true, bus: true } }]);
});

test('metrics are those of the registry', async (t) => {
  const { options } = setup();
  const server = await serveProbes({ ...options, port: 0 });
  t.after(() => server.close());
  assert.match(await (await fetch(`${server.url}/metrics`)).text(), /^eastwest_test_total 3$/m);
});

test('a port in use is named, with who needs it and the option that changes it', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await new Promise((settle) => other.once('listening', settle));
  const address = other.address();
  assert.ok(typeof address === 'object' && address !== null);
  await assert.rejects(serveProbes({ ...setup().options, port: address.port }), (error) => {
    assert.ok(error instanceof OperatorError);
    assert.match(error.message, new RegExp(`^port ${address.port} on 127\\.0\\.0\\.1 is in use; test \\(`));
    assert.match(error.message, /--set runtime\.http\.port=PORT$/);
    return true;
  });
});

test('an error that has nothing to do with ports stays what it is', () => {
  const error = new Error('other');
  const purpose = { host: 'h', port: 1, who: 'w', option: 'o' };
  assert.equal(explainListenError(error, purpose), error);
});

test('an IPv6 address stands in brackets in a URL', () => {
  assert.equal(baseUrl('::1', 80), 'http://[::1]:80');
});

test('a change of readiness is told once', () => {
  const states: boolean[] = [];
  const readiness = createReadiness(({ ready }) => states.push(ready));
  readiness.set('a', true);
  readiness.set('a', true);
  readiness.set('a', 'lost');
  assert.deepEqual(states, [true, false]);
});
