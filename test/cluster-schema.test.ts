/** The schema of a cluster, read by a real ClickHouse: its grammar alone, as the embedded server replicates nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { forCluster } from '../lib/store/cluster.ts';
import { readMigrations } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import { splitStatements } from '../lib/store/statements.ts';
import { startClickHouse } from './support/clickhouse.ts';

test('ClickHouse understands every statement of the schema of a cluster', async () => {
  const clickhouse = await startClickHouse();
  const store = openStore(clickhouse.config('default'), { log: pino({ level: 'silent' }) });
  try {
    const statements = readMigrations().flatMap(({ sql }) =>
      splitStatements(sql).flatMap((statement) =>
        forCluster(statement.replaceAll('{database}', 'db'), 'grid'),
      ),
    );
    assert.ok(statements.length > 50);
    for (const statement of statements) {
      const [row] = await store.query<{ formatted: string | null }>(
        'SELECT formatQueryOrNull({statement:String}) AS formatted',
        { statement },
      );
      const formatted = row?.formatted ?? null;
      assert.ok(formatted !== null, statement);
      assert.match(formatted, /^INSERT INTO | ON CLUSTER grid|alter_sync = 2/, statement);
    }
  } finally {
    await store.close();
    await clickhouse.stop();
  }
});
