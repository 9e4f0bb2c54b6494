import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ProblemError } from '../problem.ts';
import { checkPut } from './check.ts';

const nowMs = Date.UTC(2026, 5, 1);
const check = (body: unknown, maxWorkloads = 100) => checkPut(body, { maxWorkloads }, 'p1', nowMs);
const good = { id: 'good', addresses: ['10.0.0.1'] };

function refusal(body: unknown): ProblemError {
  try {
    check(body);
  } catch (error) {
    assert.ok(error instanceof ProblemError);
    return error;
  }
  assert.fail(`taken: ${JSON.stringify(body)}`);
}

test('the request of docs/inventory.md is taken', () => {
  const page = readFileSync(new URL('../../../docs/inventory.md', import.meta.url), 'utf8');
  const json = /```json\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
  const { putCount, removedCount } = check(JSON.parse(json));
  assert.deepEqual([putCount, removedCount], [1, 1]);
});

test('a request becomes a message for each entry, with all that was left out filled in', () => {
  const { messages, ...rest } = check({
    source: 'cmdb',
    ttl: '24h',
    workloads: [
      {
        id: 'vm/1',
        kind: 'host',
        network: 'dc-west',
        addresses: ['2001:DB8::1', { ip: '::ffff:10.0.0.5', network: 'default' }],
        labels: { app: 'ledger' },
        since: '2026-01-01T00:00:00Z',
      },
      { id: 'gone', remove: true },
    ],
  });
  assert.deepEqual(rest, {
    source: 'cmdb',
    putCount: 1,
    removedCount: 1,
    isReplacing: false,
    untilMs: nowMs + 86_400_000,
  });
  assert.deepEqual(
    messages.map(({ key, value }) => [
      key,
      value === null ? null : JSON.parse(Buffer.from(value).toString()),
    ]),
    [
      [
        'cmdb/vm/1',
        {
          v: 1,
          source: 'cmdb',
          put: 'p1',
          putMs: nowMs,
          untilMs: nowMs + 86_400_000,
          id: 'vm/1',
          name: 'vm/1',
          kind: 'host',
          group: '',
          addresses: [
            { ip: '2001:db8::1', network: 'dc-west' },
            { ip: '10.0.0.5', network: 'default' },
          ],
          labels: { app: 'ledger' },
          annotations: {},
          sinceMs: Date.UTC(2026, 0, 1),
        },
      ],
      ['cmdb/gone', null],
    ],
  );
});

test('a replacing request says so last, so that one that is cut short ends nothing', () => {
  const { messages } = check({ source: 'cmdb', replace: true, workloads: [good] });
  assert.deepEqual(
    messages.map(({ key }) => key),
    ['cmdb/good', 'cmdb'],
  );
});

for (const [ttl, seconds] of [
  [60, 60],
  ['90s', 90],
  ['2h', 7200],
  ['7d', 604_800],
] as const) {
  test(`a lifetime of ${JSON.stringify(ttl)} is ${seconds} s`, () => {
    assert.equal(check({ source: 'a', workloads: [good], ttl }).untilMs, nowMs + seconds * 1000);
  });
}

const entries: readonly [unknown, string, RegExp][] = [
  [{ addresses: [] }, 'workloads[1].id', /is missing/],
  [{ id: 'x' }, 'workloads[1].addresses', /is missing/],
  [{ id: 'x', addresses: '10.0.0.1' }, 'workloads[1].addresses', /is "10\.0\.0\.1"; expected a list/],
  [{ id: 'x', addresses: ['10.0.0.1', '10.0.0.256'] }, 'workloads[1].addresses[1]', /is "10\.0\.0\.256"/],
  [{ id: 'x', addresses: [{ ip: 'nine' }] }, 'workloads[1].addresses[0].ip', /is "nine"; expected an IPv4/],
  [{ id: 'x', addresses: [7] }, 'workloads[1].addresses[0]', /is 7/],
  [{ id: 'x', adresses: [], addresses: [] }, 'workloads[1].adresses', /did you mean addresses\?/],
  [{ id: 'x', addresses: [{ ip: '10.0.0.1', netwrk: 'a' }] }, 'workloads[1].addresses[0].netwrk', /network/],
  [{ id: 'x', addresses: [], kind: 'pod' }, 'workloads[1].kind', /is "pod"; expected vm or host/],
  [{ id: 'x', addresses: [], labels: { app: 5 } }, 'workloads[1].labels.app', /is 5/],
  [{ id: 'x', addresses: [], labels: { '': 'a' } }, 'workloads[1].labels', /empty key/],
  [{ id: 'x', addresses: [], since: 'soon' }, 'workloads[1].since', /is "soon"/],
  [{ id: 'x', addresses: [], since: '2026-06-02T00:00:00Z' }, 'workloads[1].since', /yet to come/],
  [{ id: '', addresses: [] }, 'workloads[1].id', /is ""/],
  [{ id: 'x', remove: false }, 'workloads[1].remove', /expected true/],
  [{ id: 'x', remove: true, addresses: [] }, 'workloads[1].addresses', /is not a known key/],
  [{ id: 'good', addresses: [] }, 'workloads[1].id', /as in workloads\[0\]/],
  ['x', 'workloads[1]', /expected an object/],
];
for (const [entry, field, message] of entries) {
  test(`a wrong entry is refused by its field: ${JSON.stringify(entry)}`, () => {
    const error = refusal({ source: 'cmdb', workloads: [good, entry] });
    assert.equal(error.status, 400);
    assert.equal(error.extra.parameter, field);
    assert.match(error.message, message);
  });
}

const frames: readonly [unknown, string | undefined][] = [
  [{ workloads: [] }, 'source'],
  [{ source: 'a/b', workloads: [] }, 'source'],
  [{ source: 'a' }, 'workloads'],
  [{ source: 'a', workloads: {} }, 'workloads'],
  [{ source: 'a', workloads: [], replace: 'yes' }, 'replace'],
  [{ source: 'a', workloads: [], ttl: 'long' }, 'ttl'],
  [{ source: 'a', workloads: [], ttl: 0 }, 'ttl'],
  [{ source: 'a', workloads: [], ttl: '0s' }, 'ttl'],
  [{ source: 'a', workloads: [], ttl: '999999w' }, 'ttl'],
  [{ source: 'a', workloads: [], worklods: [] }, 'worklods'],
  [null, 'the body'],
  [[], 'the body'],
];
for (const [body, field] of frames) {
  test(`a wrong request is refused by its field: ${JSON.stringify(body)}`, () => {
    assert.equal(refusal(body).extra.parameter, field);
  });
}

test('more workloads than one request may have are too many', () => {
  const body = { source: 'a', workloads: [good, { id: 'b', addresses: [] }] };
  assert.throws(() => check(body, 1), /over 1 \(query\.put\.maxWorkloads\)/);
});
