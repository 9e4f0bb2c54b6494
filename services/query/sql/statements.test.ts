import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FlowFilter, windowFilter } from '../filters.ts';
import { alertsSql } from './alerts.ts';
import type { Statement } from './bindings.ts';
import { connectionsSql } from './connections.ts';
import { coverageSeriesSql, coverageSql } from './coverage.ts';
import { edgesSql } from './edges.ts';
import { mapSql } from './map.ts';
import { planEdges } from './plan.ts';
import { unknownSql } from './unknown.ts';
import { lastHitsSql, pendingHitsSql, usageSql } from './usage.ts';
import { workloadsSql } from './workloads.ts';

const evil = `'); DROP TABLE flows; --`;
const window = { sinceS: 1_770_000_000, untilS: 1_770_007_200 };
const terms = [{ key: evil, negated: false, values: [evil] }];
const filter: FlowFilter = {
  ...windowFilter(window),
  verdict: 'denied',
  reason: 'no-rule',
  source: terms,
  destination: terms,
  either: terms,
  port: 443,
  protocol: 6,
  rule: '7',
  sourceIdentity: '8',
  destinationIdentity: '9',
  direction: 'internal',
  severity: 'high',
};
const addressed: FlowFilter = { ...filter, address: { first: '::1', last: '::2' } };
const kept = { minuteDays: 30 };
const plan = planEdges(filter, 1_770_007_300_000, kept);
const flowPlan = planEdges(addressed, 1_770_007_300_000, kept);
const page = { limit: 10, offset: 20 };

const statements: Readonly<Record<string, Statement>> = {
  edges: edgesSql(filter, plan, { ...page, sort: 'bytes', order: 'asc' }),
  'edges by address': edgesSql(addressed, flowPlan, { ...page, sort: 'severity', order: 'desc' }),
  unknown: unknownSql(filter, plan, { ...page, sort: 'severity', order: 'desc' }),
  connections: connectionsSql(addressed, { ...page, sort: 'last_seen', order: 'desc' }),
  coverage: coverageSql(filter, plan, evil, ['src', 'dst'], 10),
  'coverage over time': coverageSeriesSql(filter, plan, 3600, 10),
  map: mapSql(filter, plan, ['app', evil], 10),
  workloads: workloadsSql(
    {
      address: null,
      name: evil,
      namespace: evil,
      cluster: evil,
      kind: evil,
      network: evil,
      labels: terms,
      atMs: 5,
    },
    page,
  ),
  rules: usageSql(
    filter,
    plan,
    { states: ['active'], uses: ['used'], disabledRulesets: [evil], emptyVersion: 7, nowMs: 5 },
    { ...page, sort: 'name' },
  ),
  'pending hits': pendingHitsSql(['7', '8'], window),
  'last hits': lastHitsSql(['7', '8', '9']),
  alerts: alertsSql({ window, state: evil, receiver: evil }, page),
};

for (const [name, { sql, params }] of Object.entries(statements)) {
  test(`${name}: what a request says is bound, never text of the statement`, () => {
    assert.ok(!sql.includes('DROP'));
    const used = [...sql.matchAll(/\{(p\d+):[A-Za-z0-9()]+\}/g)].map((match) => match[1]);
    assert.deepEqual([...new Set(used)].sort(), Object.keys(params).sort());
    assert.ok(Object.values(params).flat().length > 2);
  });
}
