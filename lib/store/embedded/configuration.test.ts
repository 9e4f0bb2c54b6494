import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverConfig, usersConfig } from './configuration.ts';
import { locateLibrary } from './server.ts';

const options = {
  folder: '/data/a & b/<store>',
  httpPort: 1,
  tcpPort: 2,
  memoryBytes: 1_000_000_000,
  database: 'eastwest',
  mergeThreads: 2,
};

test('a folder with signs of XML in its name stays the folder', () => {
  assert.match(serverConfig(options), /<path>\/data\/a &amp; b\/&lt;store&gt;\/data<\/path>/);
});

test('the users come from this machine only, and reader has no more than it needs', () => {
  const users = usersConfig(options);
  assert.equal(users.match(/<networks><ip>::1<\/ip><ip>127\.0\.0\.1<\/ip><\/networks>/g)?.length, 2);
  assert.deepEqual(
    [...users.matchAll(/<query>(.*?)<\/query>/g)].map((match) => match[1]),
    ['GRANT SELECT ON eastwest.*', 'GRANT dictGet ON eastwest.*'],
  );
  assert.match(users, /<reader>\s*<readonly>1<\/readonly>/);
});

test('a platform without the library is told to use a server of its own', () => {
  assert.throws(
    () => locateLibrary('darwin', 'arm64'),
    /linux-x64 only, this is darwin-arm64; set store\.url/,
  );
});
