import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { emptyPolicy } from '../policy/engine.ts';
import type { UnexplainedEdge } from './edges.ts';
import { type Suggestions, suggest } from './suggest.ts';
import { checkSuggestions, suggestionsYaml } from './yaml.ts';

const identities: KnownIdentity[] = [];
function identity(of: Partial<KnownIdentity> & { labels?: Record<string, string> }): KnownIdentity {
  const one: KnownIdentity = {
    id: String(identities.length + 1),
    kind: 'pod',
    cluster: 'c1',
    namespace: '',
    name: '',
    zone: 'inside',
    labels: {},
    ...of,
  };
  identities.push(one);
  return one;
}
const pod = (app: string, role: string, env: string, cluster = 'c1') =>
  identity({ cluster, labels: { app, role, env } });
const shop = {
  web: pod('shop', 'web', 'prod'),
  api: pod('shop', 'api', 'prod'),
  db: pod('shop', 'db', 'prod'),
};
const shopDev = { api: pod('shop', 'api', 'dev'), db: pod('shop', 'db', 'dev') };
const ledger = pod('ledger', 'api', 'prod');
const ledgerWeb = pod('ledger', 'web', 'prod');
const elsewhere = pod('ledger', 'db', 'prod', 'c2');
const notebook = identity({ namespace: 'sandbox' });
const nobody = identity({ kind: 'unknown', cluster: '' });
const internet = identity({ kind: 'range', cluster: '', name: 'internet', zone: 'outside' });
const partner = identity({
  kind: 'range',
  cluster: '',
  name: 'acme',
  zone: 'outside',
  labels: { app: 'acme' },
});
const office = identity({ kind: 'range', cluster: '', name: 'office' });

let moment = 0;
function edge(
  source: KnownIdentity,
  destination: KnownIdentity,
  port: number,
  more: Partial<UnexplainedEdge> = {},
): UnexplainedEdge {
  const firstS = 1_800_000_000 + moment++;
  return {
    source,
    destination,
    sourceAddress: source.kind === 'unknown' || source.kind === 'range' ? '10.9.0.1' : null,
    destinationAddress: destination.kind === 'unknown' || destination.kind === 'range' ? '203.0.113.9' : null,
    port,
    protocol: 6,
    connections: 50,
    bytes: 1000,
    firstS,
    lastS: firstS + 3000,
    minutes: 20,
    sourceWorkloads: ['1', '2', '3'].map((id) => `${source.id}-${id}`),
    destinationWorkloads: ['9'],
    dns: [],
    ...more,
  };
}

const policy: PolicyDocument = {
  ...emptyPolicy,
  ipLists: [{ name: 'saas', cidrs: ['203.0.113.0/28'] }],
  services: [
    { name: 'postgres', ports: [{ port: 5432 }] },
    { name: 'everything', ports: [{ port: '1-65535' }] },
  ],
};

function ask(edges: readonly UnexplainedEdge[], document = policy): Suggestions {
  const suggestions = suggest({ document, identities, edges, windowS: 3600, nowMs: Date.now() });
  const yaml = suggestionsYaml(suggestions, { since: 'then', before: 0.5, after: 0.9 });
  const checked = checkSuggestions(yaml, document);
  assert.ok(checked.ok, checked.ok ? '' : `${JSON.stringify(checked.problems)}\n${yaml}`);
  return suggestions;
}

test('roles of an application that talk alike are one rule, by the service that the policy has', () => {
  const { rules, rulesets, review } = ask([
    edge(shop.api, shop.db, 5432),
    edge(shopDev.api, shopDev.db, 5432),
    edge(shop.web, shop.db, 5432),
  ]);
  assert.deepEqual(
    rules.map(({ rule }) => rule),
    [
      {
        name: 'api-and-web-to-db',
        from: [{ labels: { app: 'shop', role: ['api', 'web'] } }],
        to: [{ labels: { app: 'shop', role: 'db' } }],
        services: ['postgres'],
        scope: 'intra',
      },
    ],
  );
  assert.deepEqual(rulesets[0]?.scope, [
    { app: 'shop', env: 'dev' },
    { app: 'shop', env: 'prod' },
  ]);
  assert.equal(review.length, 0);
});

test('what a rule would open beside what was seen is counted', () => {
  const { rules } = ask([edge(shop.api, shop.db, 5432), edge(shopDev.api, shopDev.db, 5432)]);
  // Within each environment, one pair each, and both were seen.
  assert.deepEqual([rules[0]?.opens.allowedPairs, rules[0]?.opens.seenPairs], [2, 2]);
  const [only] = ask([edge(shop.api, ledger, 8443), edge(shop.web, ledger, 8443)]).rules;
  assert.ok(only !== undefined && only.opens.seenPairs <= only.opens.allowedPairs);
});

test('ports without a service are written in place, and no service that is much too wide is taken', () => {
  const { rules } = ask([edge(shop.api, ledger, 8443), edge(shop.api, ledger, 8444)]);
  assert.deepEqual(rules[0]?.rule.services, [{ port: 8443 }, { port: 8444 }]);
});

test('what looks odd is under review, with its reasons, and in no rule', () => {
  const odd: [UnexplainedEdge, string][] = [
    [edge(shopDev.api, shop.db, 5432), 'cross-environment'],
    [edge(shop.api, elsewhere, 5432), 'cross-cluster'],
    [edge(shop.api, internet, 443, { destinationAddress: '192.0.2.200' }), 'leaves-estate'],
    [edge(internet, shop.web, 443), 'enters-estate'],
    [edge(shop.api, nobody, 443), 'unknown-end'],
    [edge(notebook, ledger, 8080), 'unlabelled-end'],
    [edge(shop.api, office, 8443), 'unregistered-end'],
    [edge(shop.web, ledger, 22), 'administration-port'],
    [
      edge(shop.web, identity({ kind: 'node', labels: { app: 'kubernetes', role: 'node' } }), 31_000),
      'node-port',
    ],
    [edge(shop.web, ledgerWeb, 9999, { connections: 1, minutes: 1 }), 'one-off'],
  ];
  const { rules, review } = ask(odd.map(([one]) => one));
  assert.deepEqual(rules, []);
  for (const [one, reason] of odd) {
    const item = review.find(({ edges }) => edges.includes(one));
    assert.ok(
      item?.reasons.some((each) => each === reason),
      `${reason}: ${JSON.stringify(item?.reasons)}`,
    );
  }
});

test('what other rules do already is no oddity: between environments, and out of the estate', () => {
  const rule = {
    name: 'others',
    from: [{ labels: { app: 'ledger' } }],
    to: [{ labels: { app: 'shop', role: 'db' } }, { ipList: 'saas' }],
    services: [{ port: 5432 }],
  };
  const document = { ...policy, rulesets: [{ name: 'ledger', rules: [rule] }] };
  const { rules, review } = ask(
    [edge(shopDev.api, shop.db, 5432), edge(shop.api, internet, 5432, { destinationAddress: '203.0.113.9' })],
    document,
  );
  assert.deepEqual(review, []);
  assert.deepEqual(rules.map(({ rule: { to } }) => JSON.stringify(to)).sort(), [
    '[{"ipList":"saas"}]',
    '[{"labels":{"app":"shop","role":"db"}}]',
  ]);
});

test('what several applications reach outside becomes names, or an ip-list no wider than what was seen', () => {
  const many = (source: KnownIdentity) => ['a', 'b', 'c'].map((id) => `${source.id}-${id}`);
  const to = (source: KnownIdentity, destinationAddress: string, dns: string[]) =>
    edge(source, internet, 443, { destinationAddress, dns, sourceWorkloads: many(source) });
  const { rules, ipLists } = ask([
    to(shop.api, '192.0.2.10', []),
    to(ledger, '192.0.2.10', []),
    to(shop.api, '192.0.2.20', ['api.pay.example']),
    to(ledger, '192.0.2.20', ['api.pay.example']),
  ]);
  assert.deepEqual(
    ipLists.map(({ cidrs }) => cidrs),
    [['192.0.2.10'], ['192.0.2.10']],
  );
  assert.ok(rules.some(({ rule }) => JSON.stringify(rule.to).includes('"dns":"api.pay.example"')));
});

test('a named range outside is reached by its labels', () => {
  const { rules } = ask([edge(shop.api, partner, 443), edge(ledger, partner, 443)]);
  assert.deepEqual(rules[0]?.rule.to, [{ labels: { app: 'acme' } }]);
});

test('a text from outside ends no comment', () => {
  const evil = edge(shop.api, internet, 443, {
    destinationAddress: '192.0.2.200',
    dns: ['x\n- injected: true'],
  });
  const suggestions = ask([evil, edge(shop.api, shop.db, 5432)]);
  const yaml = suggestionsYaml(suggestions, { since: 'then', before: null, after: null });
  assert.ok(!/^- injected/m.test(yaml));
});
