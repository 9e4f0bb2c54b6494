import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, loadConfig } from '../../../lib/runtime/config.ts';
import { QueryConfig } from '../config.ts';
import { ProblemError } from '../problem.ts';
import { makeWriteAccess, type WriteRequest } from './access.ts';

const here: WriteRequest = { remoteAddress: '127.0.0.1', headers: { host: '127.0.0.1:8080' } };

function status(config: { host?: string; writeTokens?: string[] }, request: WriteRequest): number {
  try {
    makeWriteAccess({ host: '127.0.0.1', writeTokens: [], ...config })(request);
    return 200;
  } catch (error) {
    assert.ok(error instanceof ProblemError);
    return error.status;
  }
}

test('without tokens this machine alone may write, by its own names', () => {
  assert.equal(status({}, here), 200);
  assert.equal(status({}, { remoteAddress: '::ffff:127.0.0.1', headers: { host: 'localhost:8080' } }), 200);
  assert.equal(status({ host: '::1' }, { remoteAddress: '::1', headers: { host: '[::1]:8080' } }), 200);
  assert.equal(status({}, { remoteAddress: '10.0.0.9', headers: { host: 'localhost' } }), 403);
});

test('without tokens nobody may write where the API listens for others', () => {
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'eastwest.example'])
    assert.equal(status({ host }, here), 403);
});

test('without tokens neither a proxy on this machine nor a page from elsewhere lends its place to others', () => {
  const { headers } = here;
  const refused = [
    { ...headers, 'x-forwarded-for': '10.0.0.9' },
    { ...headers, forwarded: 'for=10.0.0.9' },
    { host: 'rebound.example:8080' },
    { ...headers, origin: 'https://elsewhere.example' },
    {},
  ];
  for (const one of refused) assert.equal(status({}, { ...here, headers: one }), 403, JSON.stringify(one));
  assert.equal(status({}, { ...here, headers: { ...headers, origin: 'http://localhost:8080' } }), 200);
});

test('with tokens a known one is needed and enough, wherever it comes from', () => {
  const config = { host: '0.0.0.0', writeTokens: ['a-token-of-16-chars', 'another-token-of-16'] };
  const from = (authorization?: string): WriteRequest => ({
    remoteAddress: '10.0.0.9',
    headers: authorization === undefined ? {} : { authorization },
  });
  assert.equal(status(config, from('Bearer a-token-of-16-chars')), 200);
  assert.equal(status(config, from('bearer another-token-of-16')), 200);
  assert.equal(status(config, from('Bearer a-token-of-16-charz')), 401);
  assert.equal(status(config, from('Basic a-token-of-16-chars')), 401);
  assert.equal(status(config, from()), 401);
  assert.equal(status(config, here), 401);
});

test('a token that is too short is refused without being shown', () => {
  const environment = { EASTWEST_QUERY_WRITE_TOKENS: '["too-short"]' };
  assert.throws(
    () => loadConfig({ query: QueryConfig }, { cwd: '/', environment, flags: [] }),
    (error) =>
      error instanceof ConfigError &&
      /query\.writeTokens/.test(error.message) &&
      !/too-short/.test(error.message),
  );
});
