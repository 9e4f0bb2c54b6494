import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { forCluster, storedName } from './cluster.ts';
import { readMigrations } from './migrate.ts';
import { splitStatements } from './statements.ts';

const statements = readMigrations().flatMap(({ sql }) => splitStatements(sql));
const all = statements.flatMap((statement) => forCluster(statement, 'grid'));

describe('the schema of a cluster', () => {
  test('has a form of every statement, none of which makes a table on one server alone', () => {
    for (const statement of all)
      assert.ok(/^INSERT INTO |ON CLUSTER 'grid'|alter_sync = 2$/.test(statement), statement.slice(0, 100));
  });

  test('replicates every table that holds rows, and keeps tokens in Keeper', () => {
    for (const statement of all) {
      for (const [engine] of statement.matchAll(/ENGINE\s*=\s*\w+/g))
        assert.match(engine, /= (Replicated\w*MergeTree|Distributed)$/);
      assert.doesNotMatch(statement, /non_replicated_deduplication_window/);
    }
    const [local = ''] = all.filter((statement) => statement.includes('EXISTS flows_local ON'));
    assert.match(local, /ReplicatedMergeTree\('\/clickhouse\/tables\/\{uuid\}\/\{shard\}', '\{replica\}'\)/);
    assert.match(local, /replicated_deduplication_window = 10000/);
  });

  test('keeps arguments of an engine behind those of its replication', () => {
    const [whole] = forCluster(
      'CREATE TABLE IF NOT EXISTS rules (a Int8) ENGINE = ReplacingMergeTree(applied) ORDER BY a',
      'c',
    );
    assert.match(
      whole ?? '',
      /ReplicatedReplacingMergeTree\('[^']+\/all', '\{shard\}-\{replica\}', applied\)/,
    );
  });

  test('rolls up on each shard what the shard itself has', () => {
    const views = all.filter((statement) => statement.startsWith('CREATE MATERIALIZED VIEW'));
    assert.ok(views.length > 0);
    for (const view of views) {
      const target = / TO (\w+) AS\n/.exec(view)?.[1] ?? '';
      const source = /\nFROM (\w+) AS raw/.exec(view)?.[1] ?? '';
      // Of what is whole on every server the rollup is whole too.
      assert.equal(target.endsWith('_local'), source.endsWith('_local'), view);
      assert.deepEqual([storedName(source), storedName(target)], [source, target], view);
    }
    assert.ok(views.some((view) => view.includes('\nFROM flows_local AS raw')));
  });

  test('puts rows only into what is whole on every server', () => {
    const insert = 'INSERT INTO rules SELECT 1';
    assert.deepEqual(forCluster(insert, 'c'), [insert]);
    assert.throws(() => forCluster('INSERT INTO flows SELECT 1', 'c'), RangeError);
  });

  test('has the plain name, of the newest columns, on every server', () => {
    const [first, second, ...more] = forCluster('ALTER TABLE flows ADD COLUMN a Int8', 'c');
    assert.equal(first, "ALTER TABLE flows_local ON CLUSTER 'c' ADD COLUMN a Int8");
    assert.match(
      second ?? '',
      /^CREATE OR REPLACE TABLE flows ON CLUSTER 'c' AS flows_local\nENGINE = Distributed\(/,
    );
    assert.deepEqual(more, []);
    assert.equal(storedName('rules'), 'rules');
  });

  test('refuses what it does not know', () => {
    assert.throws(() => forCluster('TRUNCATE TABLE flows', 'c'), RangeError);
  });
});
