/** Hits of rules over the HTTP API equal a recount of raw rows, for every rule. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ruleId } from '../lib/inventory/ids.ts';
import { isoSeconds } from '../services/query/time.ts';
import { lateRow, repairOf } from './support/late-rows.ts';
import {
  arrivalOf,
  clickhouseTime,
  edgeKey,
  type FlowRow,
  identityOf,
  makeFlows,
  people,
  recount,
  rules,
  workloadOf,
} from './support/query-rows.ts';
import { openQueryScene, pastMinute, type QueryScene, runCommand } from './support/query-scene.ts';

const hour = 3600;
const endS = pastMinute();
const sinceMs = (endS - 30 * 24 * hour) * 1000;

/** Rules beside those of the small estate; `hits` is the share of its flows that one takes over. */
const more = {
  removed: { ruleset: 'old', name: 'was-there', policy: 1, definition: {} },
  disabled: { ruleset: 'core', name: 'switched-off', policy: 2, definition: { enabled: false } },
  expired: { ruleset: 'core', name: 'ran-out', policy: 2, definition: { expires: '2020-01-31' } },
  idle: { ruleset: 'core', name: 'never-needed', policy: 2, definition: {} },
  former: { ruleset: 'core', name: 'long-ago', policy: 2, definition: {} },
  gone: { ruleset: 'core', name: 'by-the-dead', policy: 2, definition: { expires: '2100-01-01' } },
} as const;

const idOf = ({ ruleset, name }: { ruleset: string; name: string }): string => String(ruleId(ruleset, name));

/** A rule that flows name, but that no policy in the store has. */
const strangerId = idOf({ ruleset: 'nowhere', name: 'stranger' });

/** The flows of the small estate, with some of the unexplained ones given to rules. */
function hitRows(): FlowRow[] {
  const rows = makeFlows(endS, 7, 2000);
  const judged = (row: FlowRow, rule: { ruleset: string; name: string }): FlowRow => ({
    ...row,
    verdict: 'allowed',
    reason: 'rule',
    rule: idOf(rule),
  });
  return rows.map((row) => {
    if (row.to === 'oracle' && row.time % 2 === 0) return judged(row, more.removed);
    if (row.from === 'analytics' && row.to === 'partner') return judged(row, more.gone);
    if (row.from === 'nobody' && row.time % 3 === 0) return judged(row, more.disabled);
    if (row.dst_port === 9100 && row.time % 5 === 0) return { ...judged(row, more.idle), rule: strangerId };
    return row;
  });
}

const rows = hitRows();
/** One flow of long ago, for a rule that has none in the window. */
const formerS = endS - 20 * 24 * hour;
const former: FlowRow = {
  ...(rows.find((row) => row.verdict === 'allowed' && row.to === 'ledger') as FlowRow),
  time: formerS - (formerS % 16),
  rule: idOf(more.former),
};

interface RuleAnswer {
  id: string;
  name: string;
  state: string;
  usage: string;
  policy: number;
  connections: number;
  bytes: number;
  edges: number;
  edgesAlive: number;
  firstHit: string | null;
  lastHit: string | null;
  lastHitEver: string | null;
  since: string;
}
interface RulesAnswer {
  items: RuleAnswer[];
  total: number;
  next: string | null;
  table: string;
  keptSince: string | null;
}

let scene: QueryScene;

before(async () => {
  scene = await openQueryScene([former, ...rows], sinceMs);
  const { store } = scene;
  await store.insertRows(
    'rules',
    [
      ...Object.values(more),
      ...Object.values(rules).map((rule) => ({ ...rule, policy: 2, definition: {} })),
      { ...more.former, policy: 1 },
    ].map(({ ruleset, name, policy, definition }) => ({
      id: idOf({ ruleset, name }),
      policy,
      ruleset,
      name,
      action: name === rules.deny.name ? 'deny' : 'allow',
      owner: 'platform',
      ticket: '',
      definition: JSON.stringify({ name, ...definition }),
      applied: clickhouseTime(sinceMs + policy * hour * 1000),
      author: 'test',
    })),
  );
  // What was first thought to be a hit, and was repaired since: on an edge that has hits, and for a rule that has none.
  const guesses = [rules.ledger, more.idle].flatMap((rule, of) =>
    [60, 1000, 5000].map((secondsAgo, index) => ({
      ...lateRow(
        {
          time: endS - secondsAgo,
          source: 1,
          workload: 1,
          side: 'source',
          verdict: 'allowed',
          bytes: 7,
          certainty: 'late',
        },
        of * 10 + index,
      ),
      src_identity: identityOf('payments'),
      dst_identity: identityOf('ledger'),
      dst_port: 5432,
      rule: idOf(rule),
    })),
  );
  await store.insertRows('flows_late', guesses);
  await store.insertRows(
    'flows_late',
    guesses.flatMap((row) =>
      repairOf(row, { found: 1, judged: 'unexplained', sure: 'exact' }).map((one) =>
        one.pending === 0 ? { ...one, rule: '0' } : one,
      ),
    ),
  );
  // The only workload of analytics is no more.
  const [[name, ip]] = people.analytics.workloads as unknown as [[string, string]];
  await store.insertRows('workloads', [
    {
      id: workloadOf('analytics', name),
      kind: 'pod',
      cluster: people.analytics.cluster,
      namespace: people.analytics.namespace,
      name,
      node: 'node-1',
      uid: `uid-${name}`,
      identity: identityOf('analytics'),
      network: people.analytics.cluster,
      ip: `::ffff:${ip}`,
      valid_from: clickhouseTime(sinceMs),
      valid_to: clickhouseTime((endS - 60) * 1000),
      updated_at: Math.floor(Date.now() / 1000) + 10,
    },
  ]);
});
after(() => scene?.close());

const ask = (query: string): Promise<RulesAnswer> => scene.ask<RulesAnswer>(`/api/v1/rules${query}`);
const isGone = (row: FlowRow): boolean => row.from === 'analytics' || row.to === 'analytics';

/** What raw rows say of each rule. */
function truth(of: readonly FlowRow[]): Map<string, object> {
  const byRule = Map.groupBy(
    of.filter((row) => row.rule !== '0'),
    (row) => row.rule,
  );
  return new Map(
    [...byRule].map(([rule, hits]) => {
      const edges = [...recount(hits, edgeKey).values()];
      const sum = (value: (one: (typeof edges)[number]) => number): number =>
        edges.reduce((total, one) => total + value(one), 0);
      const alive = recount(
        hits.filter((row) => !isGone(row)),
        edgeKey,
      ).size;
      const times = hits.map((row) => row.time);
      return [
        rule,
        {
          usage: alive === 0 ? 'gone' : 'used',
          connections: sum((one) => one.connections),
          bytes: sum((one) => one.bytesForward + one.bytesReverse),
          edges: edges.length,
          edgesAlive: alive,
          firstHit: isoSeconds(Math.min(...times)),
          lastHit: isoSeconds(Math.max(...times)),
        },
      ];
    }),
  );
}

const counted = ({
  usage,
  connections,
  bytes,
  edges,
  edgesAlive,
  firstHit,
  lastHit,
}: RuleAnswer): object => ({
  usage,
  connections,
  bytes,
  edges,
  edgesAlive,
  firstHit,
  lastHit,
});

describe('hits of rules', () => {
  for (const [name, fromS, toS, table] of [
    ['seven hours', endS - 7 * hour, null, 'edges_1h+edges_1m'],
    ['forty minutes in the past', endS - 100 * 60, endS - 60 * 60, 'edges_1m'],
    ['25 days', endS - 25 * 24 * hour, null, 'edges_1h+edges_1m'],
    ['more days than minutes are kept', endS - 40 * 24 * hour, null, 'edges_1h'],
  ] as const) {
    test(`over ${name} are those of the raw rows, rule by rule`, async () => {
      const until = toS === null ? '' : `&until=${isoSeconds(toS)}`;
      const answer = await ask(`?since=${isoSeconds(fromS)}${until}`);
      const window = [former, ...rows].filter((row) => row.time >= fromS && row.time < (toS ?? endS));
      assert.equal(answer.table, table);
      const wanted = truth(window);
      assert.ok(wanted.size >= 5);
      assert.ok(
        window.some((row) => arrivalOf(row) === 'repaired') && window.some((row) => row.side !== 'source'),
      );
      const found = new Map(
        answer.items.filter((item) => item.edges > 0).map((item) => [item.id, counted(item)]),
      );
      assert.deepEqual(found, wanted);
      for (const item of answer.items.filter(({ id }) => !wanted.has(id)))
        assert.deepEqual([item.usage, item.connections, item.firstHit], ['unused', 0, null], item.name);
    });
  }
});

describe('rules', () => {
  test('say whether they can speak, and since when nothing needed them', async () => {
    const { items, keptSince } = await ask(`?since=${isoSeconds(endS - 7 * hour)}`);
    const of = (name: string): RuleAnswer => items.find((item) => item.name === name) ?? assert.fail(name);
    assert.deepEqual(Object.fromEntries(items.map(({ name, state }) => [name, state])), {
      'payments-to-ledger': 'active',
      'no-dev-to-prod': 'active',
      'was-there': 'removed',
      'switched-off': 'disabled',
      'ran-out': 'expired',
      'never-needed': 'active',
      'long-ago': 'active',
      'by-the-dead': 'active',
      // Hits count, whether a policy is known that has the rule or not.
      '': 'removed',
    });
    assert.deepEqual([of('was-there').policy, of('never-needed').lastHitEver], [1, null]);
    assert.deepEqual([of('long-ago').lastHit, of('long-ago').lastHitEver], [null, isoSeconds(former.time)]);
    assert.equal(Date.parse(of('long-ago').since), sinceMs + hour * 1000);
    assert.ok(keptSince !== null && Date.parse(keptSince) <= former.time * 1000);
  });

  test('that nothing alive used are found by their usage', async () => {
    const since = isoSeconds(endS - 7 * hour);
    const { items, total } = await ask(`?since=${since}&usage=unused|gone&state=active`);
    assert.deepEqual(
      items.map(({ name, usage }) => [name, usage]),
      [
        ['by-the-dead', 'gone'],
        ['long-ago', 'unused'],
        ['never-needed', 'unused'],
        ['no-dev-to-prod', 'gone'],
      ],
    );
    assert.equal(total, items.length);
  });

  test('are paged and sorted by their hits', async () => {
    const since = isoSeconds(endS - 7 * hour);
    const all = await ask(`?since=${since}&sort=connections`);
    const counts = all.items.map(({ connections }) => connections);
    assert.deepEqual(
      counts,
      counts.toSorted((a, b) => b - a),
    );
    const found: string[] = [];
    let next: string | null = '';
    while (next !== null) {
      const page: RulesAnswer = await ask(
        `?since=${since}&sort=connections&limit=3${next && `&cursor=${next}`}`,
      );
      found.push(...page.items.map(({ id }) => id));
      next = page.next;
    }
    assert.deepEqual(
      found,
      all.items.map(({ id }) => id),
    );
  });

  test('of a wrong kind are refused by name', async () => {
    for (const [query, parameter] of [
      ['usage=dead', 'usage'],
      ['state=on', 'state'],
      ['sort=hits', 'sort'],
    ] as const) {
      const answer = await scene.app.inject(`/api/v1/rules?${query}`);
      assert.equal(answer.statusCode, 400);
      assert.equal(answer.json<{ parameter: string }>().parameter, parameter);
    }
  });

  test('are listed on the command line, and fail a pipeline when asked to', async () => {
    await scene.app.listen({ host: '127.0.0.1', port: 0 });
    const environment = { EASTWEST_URL: scene.app.listeningOrigin, NO_COLOR: '1' };
    const list = await runCommand(['rules', 'list', '--since', '8h'], environment);
    assert.equal(list.code, 0, list.stderr);
    assert.match(list.stdout, /core\/payments-to-ledger +allow +active +used/);
    const unused = await runCommand(['rules', 'unused', '--fail-on-findings'], environment);
    assert.equal(unused.code, 3, unused.stderr);
    assert.match(unused.stdout, /core\/never-needed +allow +active +never since/);
    assert.match(unused.stdout, /core\/by-the-dead +allow +active +only workloads that are no more used it/);
    assert.doesNotMatch(unused.stdout, /long-ago/);
  });
});
