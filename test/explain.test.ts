/** Explanations over the HTTP API and on the command line, from rows and a policy made by hand. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Ajv } from 'ajv';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { readPolicy } from '../lib/policy/load.ts';
import { PolicyTimeline } from '../lib/policy/timeline.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';
import { buildQueryApp } from '../services/query/app.ts';
import { QueryConfig } from '../services/query/config.ts';
import { followPolicies } from '../services/query/policies.ts';
import { isoSeconds } from '../services/query/time.ts';
import { identityOf, makeFlows } from './support/query-rows.ts';
import { openQueryScene, pastMinute, type QueryScene, runCommand } from './support/query-scene.ts';
import { until } from './support/until.ts';

const hour = 3600;
const endS = pastMinute();
const sinceMs = (endS - 8 * hour) * 1000;
const rows = makeFlows(endS, 7, 600);

const yaml = `
services:
  - { name: postgres, ports: [{ port: 5432 }] }
ipLists:
  - { name: lab, cidrs: [192.0.2.0/24, '!192.0.2.9'] }
rulesets:
  - name: core
    scope: [{ app: ledger }]
    owner: team-ledger
    rules:
      - { name: payments-to-ledger, from: [{ labels: { app: billing } }, { labels: { app: payments, role: api } }], to: [{ labels: { app: ledger } }], services: [postgres], ticket: NET-1 }
      - { name: no-dev-to-prod, from: [{ labels: { env: dev } }], to: [{ labels: { env: prod } }], action: deny, services: [postgres] }
      - { name: metrics, from: [{ labels: { app: payments, env: uat } }], to: [{ labels: { app: ledger } }], services: [{ port: 9100 }] }
  - name: oracle
    rules:
      - { name: old, from: [{ labels: { app: payments } }], to: [{ labels: { app: oracle } }], services: [{ port: 1521 }], expires: 2020-01-31 }
      - { name: off, from: [{ labels: { app: payments } }], to: [{ labels: { app: oracle } }], services: [{ port: 1521 }], enabled: false }
      - { name: partner, from: [{ labels: { app: analytics } }], to: [{ dns: api.acme.example }], services: [{ port: 8443 }] }
      - { name: lab, from: [{ labels: { app: payments } }], to: [{ ipList: lab }], services: [{ port: 443 }] }
`;

function documentOf(text: string, version: number, appliedMs: number): PolicyDocument {
  const read = readPolicy(new Map([['policy.yaml', text]]));
  assert.ok(read.ok, JSON.stringify(read));
  return { v: 1, version, author: 'test', appliedMs, ...read.policy };
}

/** Version 1 had one rule more; version 2 is in force since three hours. */
const changedMs = (endS - 3 * hour) * 1000;
const timeline = new PolicyTimeline();
timeline.add(documentOf(yaml.replace(', enabled: false', ''), 1, sinceMs));
timeline.add(documentOf(yaml, 2, changedMs));

interface Entry {
  index: number;
  text: string;
}
interface Explained {
  at: string;
  source: {
    meant: string;
    candidates: {
      workload: string | null;
      labels: Record<string, string>;
      kind: string;
      address: string | null;
      there: boolean;
    }[];
    notes: string[];
    total: number;
  };
  destination: Explained['source'];
  port: number;
  protocol: string;
  policy: { version: number };
  verdict: string;
  reason: string;
  rule: {
    ruleset: string;
    rule: string;
    scope: Entry[] | null;
    from: Entry;
    to: Entry;
    service: string | null;
    ports: string;
    ticket: string;
  } | null;
  also: { rule: string }[];
  near: { ruleset: string; rule: string; gaps: { kind: string; text: string }[]; distance: number }[];
  hint: { text: string; yaml: string | null } | null;
  outcomes: { verdict: string; pairs: number }[];
}

let scene: QueryScene;
let app: FastifyInstance;
let url: string;

before(async () => {
  scene = await openQueryScene(rows, sinceMs);
  app = await buildQueryApp({
    config: Parse(QueryConfig, Default(QueryConfig, {})),
    store: scene.store,
    sqlServer: scene.sqlServer,
    minuteDays: 30,
    registry: new Registry(),
    log: pino({ level: 'silent' }),
    policies: { at: async (timeMs) => timeline.at(timeMs), close: async () => {} },
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  url = app.listeningOrigin;
});
after(async () => {
  await app?.close();
  await scene?.close();
});

async function explain(source: string, destination: string, port: string, more = ''): Promise<Explained> {
  const query = new URLSearchParams({ source, destination, port });
  const answer = await app.inject(`/api/v1/explain?${query}${more}`);
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json<Explained>();
}
const gapsOf = ({ near }: Explained): string[] =>
  near.map(({ ruleset, rule, gaps }) => `${ruleset}/${rule}: ${gaps.map(({ text }) => text).join('; ')}`);

describe('an allowed connection', () => {
  test('is explained by its rule and the way through it, whatever its ends are called by', async () => {
    for (const [source, destination] of [
      ['payments-api-1', 'ledger-db-0'],
      ['payments-prod/payments-api-1', 'c1/ledger-prod/ledger-db-0'],
      ['uid-payments-api-2', '10.244.1.20'],
      ['app=payments,role=api', 'app=ledger'],
      [`identity=${identityOf('payments')}`, `identity=${identityOf('ledger')}`],
    ] as const) {
      const answer = await explain(source, destination, '5432');
      assert.deepEqual([answer.verdict, answer.reason], ['allowed', 'rule'], source);
      const { ruleset, rule, scope, from, to, service, ports, ticket } = answer.rule ?? assert.fail();
      assert.deepEqual(
        { ruleset, rule, scope, from, to, service, ports, ticket },
        {
          ruleset: 'core',
          rule: 'payments-to-ledger',
          scope: [{ index: 0, text: 'app=ledger' }],
          from: { index: 1, text: 'app=payments,role=api' },
          to: { index: 0, text: 'app=ledger' },
          service: 'postgres',
          ports: '5432/tcp',
          ticket: 'NET-1',
        },
      );
      assert.deepEqual([answer.near, answer.hint], [[], null]);
    }
  });
});

describe('an unexplained connection', () => {
  test('names the rule that covers another port', async () => {
    const answer = await explain('payments-api-1', 'ledger-db-0', '5433');
    assert.deepEqual([answer.verdict, answer.reason], ['unexplained', 'port-not-covered']);
    assert.equal(gapsOf(answer)[0], 'core/payments-to-ledger: covers 5432/tcp, not 5433/tcp');
    assert.match(
      answer.hint?.text ?? '',
      /core\/payments-to-ledger \(owner: team-ledger\) comes nearest: add 5433\/tcp/,
    );
  });
  test('names the rule whose labels differ in one value', async () => {
    const answer = await explain('payments-api-1', 'ledger-db-0', '9100/tcp');
    assert.ok(
      gapsOf(answer).includes('core/metrics: source: right app, but env=uat only (source has env=prod)'),
      gapsOf(answer).join('\n'),
    );
  });
  test('names rules that expired or are disabled first', async () => {
    const answer = await explain('payments-api-1', 'ora-7', '1521');
    assert.deepEqual(gapsOf(answer).slice(0, 2), ['oracle/off: disabled', 'oracle/old: expired 2020-01-31']);
  });
  test('says what a rule would need, as YAML that the check takes', async () => {
    const answer = await explain('analytics-worker-1', 'payments-api-1', '8080');
    assert.equal(answer.reason, 'no-rule');
    const read = readPolicy(new Map([['hint.yaml', answer.hint?.yaml ?? '']]));
    assert.ok(read.ok, JSON.stringify(read));
    assert.deepEqual(read.policy.rulesets[0]?.rules[0]?.services, [{ port: 8080 }]);
  });
});

test('the policy is that of the moment', async () => {
  const before = await explain('payments-api-1', 'ora-7', '1521', `&at=${isoSeconds(endS - 4 * hour)}`);
  assert.deepEqual([before.policy.version, before.verdict, before.rule?.rule], [1, 'allowed', 'off']);
  const now = await explain('payments-api-1', 'ora-7', '1521');
  assert.deepEqual([now.policy.version, now.verdict], [2, 'unexplained']);
});

test('an address that two clusters have is explained for both', async () => {
  const answer = await explain('10.244.0.11', 'ledger-db-0', '5432');
  assert.deepEqual(answer.source.candidates.map((one) => one.workload).sort(), [
    'analytics-worker-1',
    'payments-api-1',
  ]);
  assert.deepEqual(new Set(answer.outcomes.map(({ verdict }) => verdict)), new Set(['allowed', 'denied']));
});

test('a DNS name is who the policy lists, or who flows to it reached', async () => {
  const listed = await explain('analytics-worker-1', 'api.acme.example', '443');
  assert.equal(listed.destination.candidates[0]?.kind, 'name');
  assert.deepEqual(gapsOf(listed)[0], 'oracle/partner: covers 8443/tcp, not 443/tcp');
  const allowed = await explain('analytics-worker-1', 'API.acme.example.', '8443');
  assert.deepEqual([allowed.verdict, allowed.rule?.to.text], ['allowed', 'api.acme.example']);
});

test('an address that nobody had is judged as what lists and ranges say of it', async () => {
  const held = await explain('payments-api-1', '192.0.2.7', '443');
  assert.deepEqual([held.verdict, held.rule?.to.text], ['allowed', 'ip-list lab']);
  const leftOut = await explain('payments-api-1', '192.0.2.9', '443');
  assert.deepEqual([leftOut.verdict, leftOut.reason], ['unexplained', 'unknown-destination']);
  assert.ok(
    gapsOf(leftOut).includes('oracle/lab: ip-list lab only (destination is 192.0.2.9)'),
    gapsOf(leftOut).join(),
  );
});

test('labels that nobody has yet are judged as they are, and misspelt ones are pointed out', async () => {
  const answer = await explain('app=paymnts,role=api', 'app=ledger', '5432');
  assert.equal(answer.verdict, 'unexplained');
  assert.ok(
    answer.source.notes.some((note) => note.includes('app=payments')),
    answer.source.notes.join(),
  );
  const planned = await explain('app=payments,role=api,env=uat', 'app=ledger', '9100');
  assert.deepEqual([planned.verdict, planned.rule?.rule], ['allowed', 'metrics']);
});

describe('every unexplained row', () => {
  for (const path of ['connections', 'edges', 'unknown', 'coverage']) {
    test(`of ${path} has a link to its explanation`, async () => {
      const answer = await app.inject(`/api/v1/${path}?since=7h${path === 'coverage' ? '' : '&limit=12'}`);
      const body = answer.json<{ items?: Row[]; uncovered?: Row[] }>();
      type Row = { verdict: string; explain: string | null; source: { labels: Record<string, string> } };
      const items = body.items ?? body.uncovered ?? [];
      assert.ok(items.some(({ verdict }) => verdict === 'unexplained'));
      for (const { verdict, explain: link, source } of items) {
        assert.equal(link === null, verdict !== 'unexplained');
        if (link === null) continue;
        const explained = await app.inject(link);
        assert.equal(explained.statusCode, 200, `${link}: ${explained.body}`);
        assert.deepEqual(explained.json<Explained>().source.candidates[0]?.labels, source.labels, link);
      }
    });
  }
});

test('answers fit their description', async () => {
  const { paths } = (await app.inject('/openapi.json')).json<{
    paths: Record<
      string,
      { get: { responses: Record<string, { content: Record<string, { schema: object }> }> } }
    >;
  }>();
  const schema = paths['/api/v1/explain']?.get.responses['200']?.content['application/json']?.schema;
  const closed = JSON.parse(JSON.stringify(schema), (_key, value) =>
    typeof value === 'object' && value !== null && value.type === 'object' && 'properties' in value
      ? { ...value, additionalProperties: false }
      : value,
  );
  const check = new Ajv({ strict: false }).compile(closed);
  for (const [source, destination, port] of [
    ['payments-api-1', 'ledger-db-0', '5432'],
    ['10.244.0.11', 'ledger-db-0', '5433'],
    ['payments-api-1', '203.0.113.1', 'icmp:8:0'],
    ['analytics-worker-1', 'api.acme.example', '443/udp'],
  ] as const)
    assert.ok(check(await explain(source, destination, port)), JSON.stringify(check.errors));
});

describe('a question that makes no sense', () => {
  for (const [query, parameter, detail] of [
    [
      'source=payments-api-9&destination=ledger-db-0&port=5432',
      'source',
      /no workload ever had this name.*payments-prod\/payments-api-1/,
    ],
    [
      'source=payments-api-1&destination=nowhere.example&port=443',
      'destination',
      /no flow of that week asked for it/,
    ],
    ['source=payments-api-1&destination=ledger-db-0&port=99999', 'port', /99999.*5432, 53\/udp/],
    ['source=payments-api-1&destination=ledger-db-0&port=tcp', 'port', /expected a port/],
    ['source=payments-api-1&destination=ledger-db-0&port=5432&at=yesterday', 'at', /ISO 8601/],
    ['source=identity=x&destination=ledger-db-0&port=5432', 'source', /identity=1234567/],
    ['source=payments-api-1&port=5432', 'destination', /missing/],
    ['source=payments-api-1&destination=ledger-db-0&port=5432&prot=tcp', 'prot', /there is no parameter/],
  ] as const) {
    test(`is refused by name: ${query}`, async () => {
      const answer = await app.inject(`/api/v1/explain?${query}`);
      assert.equal(answer.statusCode, 400, answer.body);
      const problem = answer.json<{ type: string; parameter: string; detail: string }>();
      assert.deepEqual([problem.type, problem.parameter], ['urn:eastwest:problem:bad-parameter', parameter]);
      assert.match(problem.detail, detail);
    });
  }
});

describe('the commands', () => {
  const run = (...args: string[]) => runCommand(args, { EASTWEST_URL: url, NO_COLOR: '1' });

  test('explain a connection, and fail a pipeline when asked to', async () => {
    const shown = await run('explain', 'payments-api-1', 'ledger-db-0', '5433', '--fail-on', 'unexplained');
    assert.equal(shown.code, 3, shown.stderr);
    assert.match(shown.stdout, /5433\/tcp is unexplained: port-not-covered/);
    assert.match(
      shown.stdout,
      /core\/payments-to-ledger +allow +covers 5432\/tcp, not 5433\/tcp +team-ledger/,
    );
    const allowed = await run(
      'explain',
      'payments-api-1',
      'ledger-db-0',
      '5432',
      '--fail-on',
      'unexplained,denied',
    );
    assert.equal(allowed.code, 0, allowed.stderr);
    assert.match(allowed.stdout, /from +app=payments,role=api \(entry 2\)/);
  });
  test('print the command that explains the first unexplained row, and it works', async () => {
    const { stderr } = await run('unknown', '--since', '7h');
    const [, command = ''] = /what a rule would need: npx eastwest (.*)/.exec(stderr) ?? assert.fail(stderr);
    const explained = await run(...command.split(' '));
    assert.equal(explained.code, 0, explained.stderr);
    assert.match(explained.stdout, /is unexplained/);
  });
  test('say what was looked for and what is near', async () => {
    const { code, stderr } = await run('explain', 'payment-api-1', 'ledger-db-0', '5432');
    assert.equal(code, 2);
    assert.match(
      stderr,
      /source is "payment-api-1": no workload ever had this name or uid; near it: payments-prod\/payments-api-1/,
    );
  });
});

describe('the policy at a moment', () => {
  const config = busConfig({});
  const never = new AbortController().signal;
  let folder: string;

  const open = async (): Promise<Bus> => {
    const bus = await openBus(config, { dataDir: folder, log: pino({ level: 'silent' }), clientId: 'test' });
    await bus.ensureTopics(topicSpecs(config));
    return bus;
  };
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'eastwest-explain-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  test('is read from the topic once and followed: one key for all, or one for each version', async () => {
    const bus = await open();
    let openCount = 0;
    const errors: Error[] = [];
    const policies = followPolicies({
      open: async () => {
        openCount++;
        return open();
      },
      onError: (error) => errors.push(error),
    });
    try {
      const put = (key: string, document: object): Promise<void> =>
        bus.append(topics.policy, [{ key, value: Buffer.from(JSON.stringify(document)) }]);
      const versionAt = async (timeMs: number): Promise<number> =>
        (await policies.at(timeMs, never)).document.version;
      assert.equal(await versionAt(5000), 0);
      await put('policy/1', documentOf(yaml, 1, 1000));
      await put('policy', documentOf(yaml, 2, 2000));
      await put('policy/3', documentOf(yaml, 3, 3000));
      await put('policy/4', { v: 99 });
      await until('all versions are read', 10_000, async () => (await versionAt(5000)) === 3);
      assert.deepEqual(await Promise.all([1500, 2000, 2999, 3000].map(versionAt)), [1, 2, 2, 3]);
      // Before the oldest that is kept, that one.
      assert.equal(await versionAt(1), 1);
      await until('what is no policy is told', 10_000, () => Promise.resolve(errors.length > 0));
      assert.match(errors[0]?.message ?? '', /format 99/);
      assert.equal(openCount, 1);
    } finally {
      await policies.close();
      await bus.close();
    }
  });

  test('is a problem, not a wait without end, while the bus is away', async () => {
    const policies = followPolicies({
      open: () => Promise.reject(new Error('no broker')),
      onError: () => {},
    });
    await assert.rejects(policies.at(0, never), { kind: 'bus-unavailable', message: /no broker/ });
    const silent = followPolicies({ open: () => new Promise(() => {}), onError: () => {} });
    await assert.rejects(silent.at(0, AbortSignal.timeout(20)), { kind: 'bus-unavailable' });
  });
});
