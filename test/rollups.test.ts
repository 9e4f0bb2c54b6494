/** The same questions asked of rollups and of single flows: whatever is asked, the answers are one. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { type FlowFilter, windowFilter } from '../services/query/filters.ts';
import type { Statement } from '../services/query/sql/bindings.ts';
import { coverageSeriesSql, coverageSql } from '../services/query/sql/coverage.ts';
import { edgesSql } from '../services/query/sql/edges.ts';
import { mapSql } from '../services/query/sql/map.ts';
import { type EdgePlan, type EdgeTable, planEdges, planSeries } from '../services/query/sql/plan.ts';
import { unknownSql } from '../services/query/sql/unknown.ts';
import { identityOf, makeFlows } from './support/query-rows.ts';
import { openQueryScene, pastMinute, type QueryScene } from './support/query-scene.ts';

const endS = pastMinute();
const hours = 9;
const rows = makeFlows(endS, hours, 600);
const kept = { minuteDays: 30 };
const page = { limit: 1000, offset: 0 };
let scene: QueryScene;

before(async () => {
  scene = await openQueryScene(rows, endS - 86_400);
});

after(async () => {
  await scene.close();
});

type Ask = (filter: FlowFilter, plan: EdgePlan) => Statement;

/** Every statement that is planned on edges. */
const statements: Readonly<Record<string, Ask>> = {
  edges: (filter, plan) => edgesSql(filter, plan, { ...page, sort: 'connections', order: 'desc' }),
  unknown: (filter, plan) => unknownSql(filter, plan, { ...page, sort: 'severity', order: 'desc' }),
  map: (filter, plan) => mapSql(filter, plan, ['app', 'env'], 1000),
  'coverage by destination': (filter, plan) => coverageSql(filter, plan, 'app', ['dst'], 1000),
  'coverage in all': (filter, plan) => coverageSql(filter, plan, null, ['src'], 1),
};

/** The window of a plan, answered from one table. */
function from(table: EdgeTable, plan: EdgePlan): EdgePlan {
  const { sinceS, untilS } = plan.window;
  return { window: plan.window, parts: [{ table, fromS: sinceS, toS: untilS }], table };
}

async function answer({ sql, params }: Statement): Promise<Record<string, unknown>[]> {
  return scene.store.query(sql, params);
}

const terms = fc.constantFrom(
  [],
  [{ key: 'env', negated: false, values: ['prod'] }],
  [{ key: 'app', negated: true, values: ['ledger', 'oracle'] }],
  [{ key: 'team', negated: false, values: ['red', 'blue'] }],
);

const filters: fc.Arbitrary<FlowFilter> = fc
  .record({
    beginS: fc.integer({ min: 0, max: hours * 3600 - 60 }),
    lengthS: fc.option(fc.integer({ min: 1, max: hours * 3600 })),
    verdict: fc.constantFrom(null, null, 'unexplained' as const, 'allowed' as const, 'denied' as const),
    source: terms,
    destination: terms,
    port: fc.constantFrom(null, null, 5432, 443),
    destinationIdentity: fc.constantFrom(null, null, identityOf('ledger')),
    direction: fc.constantFrom(null, null, 'leaves-estate' as const, 'internal' as const),
  })
  .map(({ beginS, lengthS, ...more }) => {
    const sinceS = endS - hours * 3600 + beginS;
    return { ...windowFilter({ sinceS, untilS: lengthS === null ? null : sinceS + lengthS }), ...more };
  });

describe('an answer from rollups', () => {
  for (const [name, ask] of Object.entries(statements)) {
    test(`is that from single flows: ${name}`, async () => {
      const seen = new Set<string>();
      let found = 0;
      await fc.assert(
        fc.asyncProperty(filters, async (filter) => {
          const plan = planEdges(filter, endS * 1000, kept);
          assert.equal(
            plan.parts.some(({ table }) => table === 'flows'),
            false,
          );
          const rolled = await answer(ask(filter, plan));
          assert.deepEqual(rolled, await answer(ask(filter, from('flows', plan))));
          seen.add(plan.table);
          found += rolled.length;
        }),
        {
          numRuns: 10,
          seed: 5,
          examples: [[windowFilter({ sinceS: endS - 6 * 3600, untilS: endS - 3 * 3600 })]],
        },
      );
      // Or nothing was compared.
      assert.ok(found > 0);
      assert.ok(seen.size >= 2, [...seen].join());
    });
  }

  test('is that from single flows: coverage in steps of a minute, of an hour', async () => {
    for (const stepS of [300, 3600]) {
      const filter = windowFilter({ sinceS: endS - 7 * 3600 - 1234, untilS: null });
      const plan = planSeries(filter, stepS, endS * 1000, kept);
      const rolled = await answer(coverageSeriesSql(filter, plan, stepS, 1000));
      assert.ok(rolled.length > 5);
      assert.deepEqual(rolled, await answer(coverageSeriesSql(filter, from('flows', plan), stepS, 1000)));
    }
  });

  test('says which tables it is from, the smallest that suffice', async () => {
    const ask = async (query: string): Promise<string> =>
      (await scene.ask<{ table: string }>(`/api/v1/edges?${query}`)).table;
    const since = new Date((endS - 8 * 3600) * 1000).toISOString();
    assert.match(await ask(`since=${since}`), /^edges_1h(\+edges_1m)?$/);
    assert.equal(await ask(`since=${new Date((endS - 1800) * 1000).toISOString()}`), 'edges_1m');
    assert.equal(await ask(`since=${since}&ip=198.51.100.9`), 'flows');
  });
});
