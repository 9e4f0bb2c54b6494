import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { migrate } from '../lib/store/migrate.ts';
import { openReaderStore, openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { clickhouseTime, makeFlows, writeFlows, writeInventory } from './support/query-rows.ts';

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly datasource?: { readonly type: string; readonly uid: string };
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly {
    readonly rawSql: string;
    readonly queryType: string;
    readonly datasource: { readonly uid: string };
  }[];
}
interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string; readonly query: string }[];
  };
}

const folder = new URL('../deploy/grafana/dashboards/', import.meta.url);
const files = readdirSync(folder).filter((file) => file.endsWith('.json'));
const dashboards = files.map((file): Dashboard => JSON.parse(readFileSync(new URL(file, folder), 'utf8')));

// biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana's own notation
const [datasourceVariable, appsVariable] = ['${datasource}', '${app:sqlstring}'] as const;

/** The macros of grafana-clickhouse-datasource 4, as its pkg/macros expands them, and Grafana's own variables. */
function expand(
  sql: string,
  range: { fromS: number; toS: number; intervalS: number },
  apps: readonly string[] | 'all',
): string {
  const { fromS, toS, intervalS } = range;
  const quoted = apps === 'all' ? `''` : apps.map((app) => `'${app}'`).join(',');
  return sql
    .replaceAll(/\$__timeFilter\(([^()]+)\)/g, `($1 >= toDateTime(${fromS}) AND $1 <= toDateTime(${toS}))`)
    .replaceAll(
      /\$__timeInterval\(([^()]+)\)/g,
      `toStartOfInterval(toDateTime($1), INTERVAL ${intervalS} second)`,
    )
    .replaceAll('$__interval_s', String(intervalS))
    .replaceAll(/\$__conditionalAll\((.*?\)), \$app\)/g, apps === 'all' ? '1=1' : '$1')
    .replaceAll(appsVariable, quoted);
}

const log = pino({ level: 'silent' });
const endS = Math.floor(Date.now() / 1000);
const range = { fromS: endS - 6 * 3600, toS: endS, intervalS: 300 };
const flows = makeFlows(endS, 5, 600);
let clickhouse: TestClickHouse;
let store: Store;
let reader: Store;

before(async () => {
  clickhouse = await startClickHouse();
  store = openStore(clickhouse.config(), { log });
  reader = openReaderStore(clickhouse.config(), { log });
  await migrate(store, { log });
  await writeInventory(store, (endS - 8 * 3600) * 1000);
  await writeFlows(store, flows);
  await store.insertRows(
    'batches',
    [1, 2, 4].map((sequence) => ({
      agent: 'agent-1',
      boot: 'b',
      sequence,
      cluster: 'c1',
      node: 'n1',
      source_kind: 'conntrack',
      observed_from: clickhouseTime((endS - 60 * sequence - 10) * 1000),
      observed_to: clickhouseTime((endS - 60 * sequence) * 1000),
      received: clickhouseTime((endS - 60 * sequence + 1) * 1000),
      written: clickhouseTime((endS - 60 * sequence + 2) * 1000),
      flows: 5,
      flows_written: 5,
      outcome: 'written',
      cause: 'none',
    })),
  );
  await store.insertRows('inventory_sources', [
    {
      source: 'hosts:dc',
      complete_to: clickhouseTime((endS - 61) * 1000),
      updated_at: clickhouseTime((endS - 60) * 1000),
    },
  ]);
  await store.command('SYSTEM RELOAD DICTIONARIES');
});
after(async () => {
  await reader?.close();
  await store?.close();
  await clickhouse?.stop();
});

test('there is a dashboard', () => {
  assert.ok(dashboards.length > 0);
});

for (const dashboard of dashboards) {
  describe(dashboard.title, () => {
    const asking = dashboard.panels.filter((panel) => panel.type !== 'row');

    test('has panels that ask, none over another', () => {
      assert.ok(asking.length > 0);
      assert.equal(new Set(dashboard.panels.map((panel) => panel.id)).size, dashboard.panels.length);
      const taken = new Set<string>();
      for (const { gridPos, title } of dashboard.panels) {
        assert.ok(gridPos.x + gridPos.w <= 24, title);
        for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
          for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
            assert.ok(!taken.has(`${x} ${y}`), `${title} lies over another panel`);
            taken.add(`${x} ${y}`);
          }
        }
      }
    });

    for (const panel of asking) {
      test(`panel "${panel.title}" answers with rows, for all applications and for one, to a user who may only read`, async () => {
        assert.ok(panel.targets !== undefined && panel.targets.length > 0);
        for (const { rawSql, queryType, datasource } of panel.targets) {
          assert.equal(datasource.uid, datasourceVariable);
          assert.match(rawSql, /\$__timeFilter\(/, 'it must keep to the chosen time');
          for (const apps of ['all', ['payments', 'analytics']] as const) {
            const sql = expand(rawSql, range, apps);
            assert.doesNotMatch(sql, /\$/, 'every macro must be one that this test knows');
            const rows = await reader.query<Record<string, unknown>>(sql);
            assert.ok(rows.length > 0, sql);
            const [first] = rows;
            assert.ok(
              first !== undefined && Object.values(first).every((value) => value !== null),
              JSON.stringify(first),
            );
            if (queryType === 'timeseries') assert.ok('time' in first, 'a series needs its time');
          }
        }
      });
    }

    test('panels answer nothing from another time', async () => {
      const earlier = { fromS: endS - 90 * 86_400, toS: endS - 80 * 86_400, intervalS: 300 };
      for (const panel of asking.filter((each) => each.type !== 'stat')) {
        for (const { rawSql } of panel.targets ?? []) {
          assert.deepEqual(await reader.query(expand(rawSql, earlier, 'all')), [], panel.title);
        }
      }
    });

    test('variables answer with values', async () => {
      for (const variable of dashboard.templating.list.filter(({ type }) => type === 'query')) {
        assert.ok((await reader.query(variable.query)).length > 0, variable.name);
      }
    });
  });
}

test('missing batches are those of the gap', async () => {
  const panel = dashboards
    .flatMap((dashboard) => dashboard.panels)
    .find(({ title }) => title === 'Batches missing');
  const rows = await reader.query<{ missing: string }>(
    expand(panel?.targets?.[0]?.rawSql ?? '', range, 'all'),
  );
  assert.equal(Number(rows[0]?.missing), 1);
});

test('what was repaired is counted once, under its last name', async () => {
  const panels = dashboards.flatMap((dashboard) => dashboard.panels);
  const ask = async (title: string): Promise<Record<string, string>[]> => {
    const panel = panels.find((each) => each.title === title);
    return reader.query(expand(panel?.targets?.[0]?.rawSql ?? '', range, 'all'));
  };
  const named = (await ask('How sure the names of flows are')).reduce(
    (sum, row) => sum + Number(row.flows),
    0,
  );
  assert.equal(named, flows.length);
  const sources = (await ask('How ends were named')).filter((row) => row.end === 'source');
  const unnamed = sources
    .filter((row) => row.provenance === 'none')
    .reduce((sum, row) => sum + Number(row.flows), 0);
  assert.equal(unnamed, flows.filter(({ from }) => from === 'nobody').length);
});
