/** Coverage over the HTTP API and on the command line: groups add up to the total, and what is left is listed. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { isoSeconds } from '../services/query/time.ts';
import { edgeKey, type FlowRow, makeFlows, people, recount } from './support/query-rows.ts';
import {
  type EdgeAnswer,
  openQueryScene,
  pastMinute,
  type QueryScene,
  runCommand,
} from './support/query-scene.ts';

const hour = 3600;
const endS = pastMinute();
const rows = makeFlows(endS, 7, 1500, 11);
const fromS = endS - 6 * hour - 600;

interface Sums {
  connections: number;
  bytes: number;
  edges: number;
}
interface Covered {
  coverage: Record<keyof Sums, number | null>;
  allowed: Sums;
  denied: Sums;
  unexplained: Sums;
}
interface Grouped {
  groupBy: string | null;
  groups: (Covered & { value: string })[];
  others: (Covered & { groups: number }) | null;
}
interface Answer extends Grouped {
  total: Covered;
  reasons: (Sums & { reason: string })[];
  ingress: Grouped | null;
  series: (Covered & { time: string })[];
  uncovered: (EdgeAnswer & { explain: string | null })[];
  window: { since: string; until: string | null };
  table: string;
  seriesTable: string | null;
}

const verdicts = ['allowed', 'denied', 'unexplained'] as const;
const measures = ['connections', 'bytes', 'edges'] as const;

let scene: QueryScene;

before(async () => {
  scene = await openQueryScene(rows, (endS - 8 * hour) * 1000);
});
after(() => scene?.close());

const ask = (query: string): Promise<Answer> =>
  scene.ask<Answer>(`/api/v1/coverage?since=${isoSeconds(fromS)}${query}`);

/** Raw rows as the API counts them: the larger side of each edge. */
function sumsOf(of: readonly FlowRow[]): Sums {
  const edges = [...recount(of, edgeKey).values()];
  return {
    connections: edges.reduce((sum, one) => sum + one.connections, 0),
    bytes: edges.reduce((sum, one) => sum + one.bytesForward + one.bytesReverse, 0),
    edges: edges.length,
  };
}

function truth(of: readonly FlowRow[]): Pick<Covered, (typeof verdicts)[number]> {
  const by = (verdict: string): Sums => sumsOf(of.filter((row) => row.verdict === verdict));
  return { allowed: by('allowed'), denied: by('denied'), unexplained: by('unexplained') };
}

const bare = ({ allowed, denied, unexplained }: Covered) => ({ allowed, denied, unexplained });

/** The sum of all groups, and of the rest. */
function added({ groups, others }: Grouped): Pick<Covered, (typeof verdicts)[number]> {
  const all = [...groups, ...(others === null ? [] : [others])];
  const sum = (verdict: (typeof verdicts)[number]): Sums =>
    Object.fromEntries(
      measures.map((what) => [what, all.reduce((total, group) => total + group[verdict][what], 0)]),
    ) as unknown as Sums;
  return { allowed: sum('allowed'), denied: sum('denied'), unexplained: sum('unexplained') };
}

const labelOf = (person: FlowRow['from'], key: string): string => {
  const one = people[person];
  if (key === 'namespace' || key === 'cluster') return one[key];
  return (one.labels as Readonly<Record<string, string>>)[key] ?? '';
};

const window = rows.filter((row) => row.time >= Math.floor(fromS / 60) * 60);

describe('coverage', () => {
  for (const key of ['app', 'env', 'namespace', 'cluster', 'team']) {
    test(`by ${key} is that of raw rows, egress and ingress, and adds up to the total`, async () => {
      const answer = await ask(`&group_by=${key}`);
      assert.deepEqual(bare(answer.total), truth(window));
      assert.ok(answer.ingress !== null);
      for (const [grouped, end] of [
        [answer, 'from'],
        [answer.ingress, 'to'],
      ] as const) {
        assert.equal(grouped.groupBy, `${end === 'from' ? 'src' : 'dst'}_${key}`);
        assert.equal(grouped.others, null);
        assert.deepEqual(added(grouped), bare(answer.total));
        const values = new Set(window.map((row) => labelOf(row[end], key)));
        assert.deepEqual(new Set(grouped.groups.map(({ value }) => value)), values);
        for (const group of grouped.groups)
          assert.deepEqual(
            bare(group),
            truth(window.filter((row) => labelOf(row[end], key) === group.value)),
            `${end} ${group.value}`,
          );
      }
    });
  }

  test('adds up to the total where not all groups are listed, those without the label first', async () => {
    const answer = await ask('&group_by=app&limit=2');
    assert.deepEqual(answer.groups.map(({ value }) => value).slice(0, 1), ['']);
    assert.deepEqual([answer.groups.length, answer.others?.groups], [2, 1]);
    assert.deepEqual(added(answer), bare(answer.total));
    assert.deepEqual(added(answer.ingress ?? assert.fail()), bare(answer.total));
  });

  test('counts what is unexplained by its reason', async () => {
    const { reasons, total } = await ask('');
    const wanted = Map.groupBy(
      window.filter((row) => row.verdict === 'unexplained'),
      (row) => row.reason,
    );
    assert.deepEqual(
      new Map(reasons.map(({ reason, ...sums }) => [reason, sums])),
      new Map([...wanted].map(([reason, of]) => [reason, sumsOf(of)])),
    );
    for (const what of measures)
      assert.equal(
        reasons.reduce((sum, one) => sum + one[what], 0),
        total.unexplained[what],
      );
  });

  test('lists the uncovered rest, the largest first, each with its reason and explanation', async () => {
    for (const [sort, size] of [
      ['connections', (edge: EdgeAnswer) => edge.connections],
      ['bytes', (edge: EdgeAnswer) => edge.bytesForward + edge.bytesReverse],
    ] as const) {
      const { uncovered, total } = await ask(`&top=1000&sort=${sort}`);
      assert.equal(uncovered.length, total.unexplained.edges);
      const sizes = uncovered.map(size);
      assert.deepEqual(
        sizes,
        sizes.toSorted((a, b) => b - a),
      );
      for (const edge of uncovered) {
        assert.notEqual(edge.reason, 'rule');
        assert.match(edge.explain ?? '', /^\/api\/v1\/explain\?source=.*destination=.*port=.*at=/);
      }
    }
  });

  test('over time is that of each step, from the table that has it', async () => {
    for (const [step, table] of [
      ['15m', 'edges_1m'],
      ['1h', 'edges_1h+edges_1m'],
    ] as const) {
      const seconds = step === '1h' ? hour : 900;
      const answer = await ask(`&step=${step}`);
      assert.deepEqual([answer.table, answer.seriesTable], ['edges_1h+edges_1m', table]);
      assert.ok(answer.series.length > 5);
      for (const point of answer.series)
        assert.deepEqual(
          bare(point),
          truth(
            window.filter(
              (row) => Math.floor(row.time / seconds) * seconds === Date.parse(point.time) / 1000,
            ),
          ),
          point.time,
        );
    }
  });

  test('of a filter is that of what the filter keeps', async () => {
    const answer = await ask('&group_by=env&dst=app=ledger');
    assert.deepEqual(bare(answer.total), truth(window.filter((row) => row.to === 'ledger')));
    assert.deepEqual(added(answer), bare(answer.total));
  });

  test('is printed for egress and ingress beside each other, with the command that explains the rest', async () => {
    await scene.app.listen({ host: '127.0.0.1', port: 0 });
    const environment = { EASTWEST_URL: scene.app.listeningOrigin, NO_COLOR: '1' };
    const { code, stdout, stderr } = await runCommand(
      ['coverage', '--since', '6h', '--group-by', 'app', '--step', '1h'],
      environment,
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^APP +EGRESS/);
    assert.match(stdout, /^\(not set\) +.*%/m);
    assert.match(stdout, /^payments +.*%/m);
    assert.match(stdout, /^UNEXPLAINED BY REASON/m);
    assert.match(stderr, /npx eastwest explain /);
  });
});
