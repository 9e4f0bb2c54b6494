import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Registry } from 'prom-client';
import { StatusError } from './errors.ts';
import { FakeApi } from './fake-api.ts';
import { makeKubernetesMetrics } from './metrics.ts';
import { Reflector } from './reflector.ts';

const pod = (name: string, resourceVersion: number) => ({
  metadata: { name, namespace: 'shop', uid: `uid-${name}`, resourceVersion: String(resourceVersion) },
});
const list = (names: readonly string[], resourceVersion: number, next = '') => ({
  metadata: { resourceVersion: String(resourceVersion), continue: next },
  items: names.map((name) => pod(name, 1)),
});
const event = (type: string, name: string, resourceVersion: number) => ({
  type,
  object: pod(name, resourceVersion),
});
const initialEnd = (resourceVersion: number) => ({
  type: 'BOOKMARK',
  object: {
    metadata: {
      resourceVersion: String(resourceVersion),
      annotations: { 'k8s.io/initial-events-end': 'true' },
    },
  },
});
const expired = { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } };

let heard: string[];
let reasons: string[];
let stop: AbortController;
let reflector: Reflector<string>;
const running: Promise<unknown>[] = [];

beforeEach(() => {
  heard = [];
  reasons = [];
  stop = new AbortController();
  reflector = new Reflector<string>(
    {
      resource: { kind: 'Pod', path: '/api/v1/pods' },
      pageSize: 2,
      maxRetryDelayMs: 10,
      metrics: makeKubernetesMetrics(new Registry()),
      source: 'test',
    },
    {
      convert: (object) => String((object.metadata as { name: string }).name),
      replace: (objects) => void heard.push(`all: ${objects.join(' ')}`),
      apply: (object, isGone) => void heard.push(`${isGone ? '-' : '+'}${object}`),
      failing: (reason) => void reasons.push(reason),
    },
  );
});
afterEach(async () => {
  stop.abort();
  await Promise.allSettled(running.splice(0));
});

function run(api: FakeApi, useStream: boolean): Promise<unknown> {
  const ended = reflector.run(api, useStream, stop.signal);
  ended.catch(() => undefined);
  running.push(ended);
  return ended;
}

test('the first state comes as a stream, with what changes within it, and the watch goes on in it', async () => {
  const api = new FakeApi(() => assert.fail('nothing is listed'));
  run(api, true);
  const stream = await api.stream();
  assert.equal(stream.query.get('sendInitialEvents'), 'true');
  for (const name of ['a', 'b', 'c']) stream.line(event('ADDED', name, 5));
  stream.line(event('DELETED', 'b', 6));
  assert.equal(reflector.liveStream, 0);
  stream.line(initialEnd(7));
  assert.deepEqual(heard, ['all: a c']);
  assert.ok(reflector.liveStream > 0);
  stream.line(event('MODIFIED', 'a', 8));
  stream.line(event('DELETED', 'c', 9));
  assert.deepEqual(heard.slice(1), ['+a', '-c']);
  assert.equal(reflector.revision, 9);
  stream.end();
  const next = await api.stream();
  assert.equal(next.query.get('resourceVersion'), '9');
  assert.deepEqual(heard.length, 3);
});

test('a server without watch lists is read in pages', async () => {
  const asked: (string | null)[] = [];
  const api = new FakeApi((_, query) => {
    asked.push(query.get('continue'));
    return query.get('continue') === null ? list(['a', 'b'], 5, 'more') : list(['c'], 5);
  });
  run(api, true);
  (await api.stream()).fail(new StatusError(422, 'sendInitialEvents is forbidden'));
  const watch = await api.stream();
  assert.equal(watch.query.get('sendInitialEvents'), null);
  assert.equal(watch.query.get('resourceVersion'), '5');
  assert.deepEqual(asked, [null, 'more']);
  assert.deepEqual(heard, ['all: a b c']);
});

test('a first state that the server does not get through is read in pages instead', async () => {
  const api = new FakeApi(() => list(['a', 'b'], 5));
  run(api, true);
  const stream = await api.stream();
  stream.line(event('ADDED', 'a', 4));
  stream.end();
  await api.stream();
  assert.deepEqual(heard, ['all: a b']);
});

test('a list that expires between two pages is begun anew, and nothing of its first pages counts', async () => {
  let listCount = 0;
  const api = new FakeApi((_, query) => {
    if (query.get('continue') === null) return list(listCount++ === 0 ? ['a', 'old'] : ['a', 'b'], 5, 'more');
    if (listCount === 1) throw new StatusError(410, 'the provided continue parameter is too old');
    return list(['c'], 6);
  });
  run(api, false);
  await api.stream();
  assert.deepEqual(heard, ['all: a b c']);
});

test('a list that always expires between two pages is asked for at once', async () => {
  const api = new FakeApi((_, query) => {
    if (query.get('limit') === null) return list(['a', 'b', 'c'], 9);
    if (query.get('continue') === null) return list(['a', 'b'], 5, 'more');
    throw new StatusError(410, 'too old');
  });
  run(api, false);
  await api.stream();
  assert.deepEqual(heard, ['all: a b c']);
});

test('a list that fails in the middle tells nothing, and is said to fail', async () => {
  let isWell = false;
  const api = new FakeApi((_, query) => {
    if (query.get('continue') === null) return list(['a', 'b'], 5, 'more');
    if (isWell) return list(['c'], 5);
    throw new StatusError(403, 'pods is forbidden: cannot list resource "pods"');
  });
  run(api, false);
  while (reasons.length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(heard, []);
  assert.match(reasons[0] ?? '', /cannot list resource "pods"/);
  isWell = true;
  await api.stream();
  assert.deepEqual(heard, ['all: a b c']);
});

test('a watch whose place is no longer known reads all anew; one that failed otherwise goes on where it was', async () => {
  let names = ['a', 'b'];
  const api = new FakeApi(() => list(names, 5));
  run(api, false);
  const first = await api.stream();
  first.line(event('ADDED', 'c', 6));
  first.fail(new Error('reset'));
  const second = await api.stream();
  assert.equal(second.query.get('resourceVersion'), '6');
  names = ['a', 'd'];
  second.line(expired);
  await api.stream();
  assert.deepEqual(heard, ['all: a b', '+c', 'all: a d']);
  assert.deepEqual(reasons, ['reset']);
});

test('bookmarks move the place from where it goes on', async () => {
  const api = new FakeApi(() => list(['a'], 5));
  run(api, false);
  const first = await api.stream();
  first.line({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '77' } } });
  assert.equal(reflector.revision, 77);
  first.end();
  assert.equal((await api.stream()).query.get('resourceVersion'), '77');
});

test('an event of a time that was proven is counted as late', async () => {
  const api = new FakeApi(() => list([], 5));
  run(api, false);
  const stream = await api.stream();
  reflector.prove(10);
  stream.line(event('ADDED', 'a', 11));
  assert.equal(reflector.lateCount, 0);
  stream.line(event('ADDED', 'b', 10));
  assert.equal(reflector.lateCount, 1);
});

test('refused credentials and the end of the connection end it', async () => {
  const refused = new FakeApi(() => {
    throw new StatusError(401, 'Unauthorized');
  });
  await assert.rejects(run(refused, false), /Unauthorized/);
  const api = new FakeApi(() => list([], 5));
  const ended = run(api, false);
  await api.stream();
  api.close();
  await assert.rejects(ended, /closed/);
});
