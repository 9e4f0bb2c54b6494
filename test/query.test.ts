import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { Ajv } from 'ajv';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import type { SqlServer } from '../services/query/people/sql.ts';
import { isoSeconds } from '../services/query/time.ts';
import {
  clickhouseTime,
  edgeKey,
  type FlowRow,
  identityOf,
  makeFlows,
  recount,
  type Sums,
  workloadOf,
} from './support/query-rows.ts';
import {
  buildScene,
  type CommandResult,
  type EdgeAnswer,
  type EndAnswer,
  type ListAnswer,
  openQueryScene,
  pastMinute,
  type QueryScene,
  runCommand,
} from './support/query-scene.ts';

const log = pino({ level: 'silent' });
const hour = 3600;
/** The end of all rows. */
const endS = pastMinute();
const rows = makeFlows(endS, 7, 1500);

let scene: QueryScene;
let store: Store;
let app: FastifyInstance;
let sqlServer: SqlServer;

async function ask<T>(url: string): Promise<T> {
  const answer = await app.inject(url);
  assert.equal(answer.statusCode, 200, `${url}: ${answer.body}`);
  return answer.json<T>();
}

async function sql(query: string, more: Record<string, unknown> = {}, to: FastifyInstance = app) {
  const answer = await to.inject({ method: 'POST', url: '/api/v1/sql', payload: { query, ...more } });
  return { status: answer.statusCode, body: answer.body, json: () => JSON.parse(answer.body), answer };
}

function build(
  config: Record<string, unknown>,
  server: SqlServer = sqlServer,
  from: Store = store,
): Promise<FastifyInstance> {
  return buildScene(config, server, from);
}

/** The answer's edges by the key of the recount, with the fields that both have. */
function byKey(items: readonly EdgeAnswer[]): Map<string, Omit<Sums, 'firstS' | 'lastS'>> {
  return new Map(
    items.map(
      ({
        source,
        destination,
        port,
        verdict,
        reason,
        flows,
        connections,
        bytesForward,
        bytesReverse,
        sides,
      }) => [
        [
          source.identity,
          source.address ?? '',
          destination.identity,
          destination.address ?? '',
          port,
          verdict,
          reason,
        ].join(' '),
        { flows, connections, bytesForward, bytesReverse, sides },
      ],
    ),
  );
}

function withoutTimes(sums: ReadonlyMap<string, Sums>): Map<string, Omit<Sums, 'firstS' | 'lastS'>> {
  return new Map([...sums].map(([key, { firstS: _first, lastS: _last, ...rest }]) => [key, rest]));
}

function sorted<V>(map: ReadonlyMap<string, V>): [string, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

function between(fromS: number, toS: number): FlowRow[] {
  return rows.filter((row) => row.time >= fromS && row.time < toS);
}

before(async () => {
  scene = await openQueryScene(rows, (endS - 8 * hour) * 1000);
  ({ store, app, sqlServer } = scene);
});
after(() => scene?.close());

describe('edges', () => {
  const windows = [
    ['hours and the minutes around them', endS - 6 * hour - 17 * 60, endS - 5 * 60, 'edges_1h+edges_1m'],
    ['minutes alone', endS - 50 * 60, endS - 3 * 60, 'edges_1m'],
    [
      'whole hours alone',
      Math.floor(endS / hour) * hour - 5 * hour,
      Math.floor(endS / hour) * hour - hour,
      'edges_1h',
    ],
  ] as const;
  for (const [what, fromS, toS, table] of windows) {
    test(`add up to the recount of raw flows from ${what}`, async () => {
      const url = `/api/v1/edges?limit=1000&since=${isoSeconds(fromS)}&until=${isoSeconds(toS)}`;
      const answer = await ask<ListAnswer>(url);
      assert.equal(answer.table, table);
      const truth = withoutTimes(recount(between(fromS, toS), edgeKey));
      assert.ok(truth.size > 5);
      assert.deepEqual(sorted(byKey(answer.items)), sorted(truth));
      assert.equal(answer.total, truth.size);
    });
  }

  test('come from raw flows when an address is asked for, with the same sums', async () => {
    const fromS = endS - 3 * hour - 31;
    const answer = await ask<ListAnswer>(
      `/api/v1/edges?limit=1000&ip=10.20.0.0/16&since=${isoSeconds(fromS)}`,
    );
    assert.equal(answer.table, 'flows');
    const truth = recount(
      between(fromS, endS).filter((row) => row.dst_ip.startsWith('10.20.')),
      edgeKey,
    );
    assert.ok(truth.size > 0);
    assert.deepEqual(sorted(byKey(answer.items)), sorted(withoutTimes(truth)));
  });

  test('carry labels, the rule by name, direction and severity', async () => {
    const answer = await ask<ListAnswer>('/api/v1/edges?limit=1000');
    const find = (app: string, to: string, port: number) =>
      answer.items.find(
        (edge) => edge.source.labels.app === app && edge.destination.labels.app === to && edge.port === port,
      );
    assert.equal(find('payments', 'ledger', 5432)?.rule?.name, 'payments-to-ledger');
    assert.equal(find('payments', 'ledger', 5432)?.severity, 'none');
    assert.equal(find('payments', 'ledger', 9100)?.direction, 'internal');
    assert.equal(find('payments', 'ledger', 9100)?.severity, 'low');
    assert.equal(find('payments', 'oracle', 1521)?.direction, 'datacentre');
    assert.equal(find('payments', 'oracle', 1521)?.severity, 'critical');
    assert.equal(find('analytics', 'partner-acme', 443)?.direction, 'leaves-estate');
    assert.equal(find('analytics', 'payments', 8080)?.direction, 'cross-cluster');
    assert.equal(find('payments', 'ledger', 5432)?.source.labels.team, 'red');
  });

  test('have the direction and severity that the SQL view gives them', async () => {
    const answer = await ask<ListAnswer>('/api/v1/edges?limit=1000');
    await store.command('SYSTEM RELOAD DICTIONARIES');
    const view = await store.query<{ key: string; direction: string; severity: string }>(
      `SELECT DISTINCT concat(toString(src_identity), ' ', toString(dst_identity), ' ', toString(dst_port)) AS key, direction, severity FROM edges_labeled`,
    );
    const expected = new Map(
      view.map(({ key, direction, severity }) => [
        key,
        `${direction} ${severity === '' ? 'none' : severity}`,
      ]),
    );
    assert.ok(expected.size > 5);
    for (const edge of answer.items) {
      const key = `${edge.source.identity} ${edge.destination.identity} ${edge.port}`;
      assert.equal(`${edge.direction} ${edge.severity}`, expected.get(key), key);
    }
  });

  const filters: readonly (readonly [string, (row: FlowRow) => boolean])[] = [
    ['src=app=payments,env=prod', (row) => row.from === 'payments'],
    ['src=app=payments|analytics,env!=prod', (row) => row.from === 'analytics'],
    ['src_team=red', (row) => row.from === 'payments'],
    ['dst_app=ledger&port=5432', (row) => row.to === 'ledger' && row.dst_port === 5432],
    ['app=payments', (row) => row.from === 'payments' || row.to === 'payments'],
    ['cluster=c2', (row) => row.from === 'analytics' || row.to === 'analytics'],
    ['namespace=ledger-prod', (row) => row.to === 'ledger'],
    ['protocol=udp', (row) => row.protocol === 17],
    ['verdict=denied', (row) => row.verdict === 'denied'],
    ['reason=port-not-covered', (row) => row.reason === 'port-not-covered'],
    ['severity=high', (row) => row.to === 'oracle' || row.to === 'partner'],
    [
      'direction=cross-cluster',
      (row) => row.from === 'analytics' && (row.to === 'payments' || row.to === 'ledger'),
    ],
    [`src_identity=${identityOf('nobody')}`, (row) => row.from === 'nobody'],
    ['src_ip=2001:db8::/32', (row) => row.src_ip === '2001:db8::5'],
  ];
  for (const [query, keep] of filters) {
    test(`filtered by ${query} are those of the filtered raw flows`, async () => {
      const answer = await ask<ListAnswer>(
        `/api/v1/edges?limit=1000&since=${isoSeconds(endS - 7 * hour)}&${query}`,
      );
      const truth = withoutTimes(recount(rows.filter(keep), edgeKey));
      assert.ok(truth.size > 0, 'the filter must keep something');
      assert.ok(truth.size < recount(rows, edgeKey).size, 'and leave something out');
      assert.deepEqual(sorted(byKey(answer.items)), sorted(truth));
    });
  }

  test('are paged without a gap or an overlap', async () => {
    const whole = await ask<ListAnswer>('/api/v1/edges?limit=1000');
    const seen: EdgeAnswer[] = [];
    let next: string | null = null;
    do {
      const cursor: string = next === null ? '' : `&cursor=${next}`;
      const page: ListAnswer = await ask<ListAnswer>(`/api/v1/edges?limit=3${cursor}`);
      assert.equal(page.total, whole.total);
      seen.push(...page.items);
      next = page.next;
    } while (next !== null && seen.length <= whole.total);
    assert.deepEqual(seen, whole.items);
  });
});

describe('connections', () => {
  const connectionKey = (row: FlowRow): string =>
    [row.src_workload, row.src_ip, row.dst_workload, row.dst_ip, row.dst_port, row.verdict].join(' ');

  test('add up to the recount per workload and address, to the second', async () => {
    const fromS = endS - 5 * hour - 1234;
    const toS = endS - 777;
    const answer = await ask<ListAnswer>(
      `/api/v1/connections?limit=1000&since=${isoSeconds(fromS)}&until=${isoSeconds(toS)}`,
    );
    const truth = recount(between(fromS, toS), connectionKey);
    const names = new Map(
      (['payments', 'ledger', 'analytics', 'oracle'] as const).flatMap((person) =>
        ['payments-api-1', 'payments-api-2', 'ledger-db-0', 'analytics-worker-1', 'ora-7'].map((name) => [
          `${identityOf(person)} ${name}`,
          workloadOf(person, name),
        ]),
      ),
    );
    const idOf = (end: EndAnswer): string =>
      end.workload === null ? '0' : (names.get(`${end.identity} ${end.workload}`) ?? '?');
    const found = new Map(
      answer.items.map((item) => [
        [
          idOf(item.source),
          item.source.address,
          idOf(item.destination),
          item.destination.address,
          item.port,
          item.verdict,
        ].join(' '),
        {
          flows: item.flows,
          connections: item.connections,
          bytesForward: item.bytesForward,
          bytesReverse: item.bytesReverse,
          sides: item.sides,
          firstS: Date.parse(item.firstSeen) / 1000,
          lastS: Date.parse(item.lastSeen) / 1000,
        },
      ]),
    );
    assert.deepEqual(sorted(found), sorted(truth));
  });

  test('of one address leave out the pod of another cluster that has the same one, when the cluster is named', async () => {
    const answer = await ask<ListAnswer>('/api/v1/connections?limit=1000&src_ip=10.244.0.11&src=cluster=c2');
    assert.ok(answer.items.length > 0);
    assert.deepEqual([...new Set(answer.items.map((item) => item.source.workload))], ['analytics-worker-1']);
  });
});

describe('unknown', () => {
  test('lists every unexplained edge once, with exact first and last sight, the most severe and then the newest first', async () => {
    const answer = await ask<ListAnswer>(`/api/v1/unknown?limit=1000&since=${isoSeconds(endS - 7 * hour)}`);
    const unexplained = rows.filter((row) => row.verdict === 'unexplained');
    const truth = recount(unexplained, edgeKey);
    assert.equal(answer.items.length, truth.size);
    const rank = ['none', 'low', 'medium', 'high', 'critical'];
    const order = answer.items.map(
      (item) => [rank.indexOf(item.severity), Date.parse(item.firstSeen)] as const,
    );
    for (let at = 1; at < order.length; at++) {
      const [before, now] = [order[at - 1]!, order[at]!];
      assert.ok(
        before[0] > now[0] || (before[0] === now[0] && before[1] >= now[1]),
        `item ${at} is out of order`,
      );
    }
    assert.equal(answer.items[0]?.severity, 'critical');
    for (const item of answer.items) {
      const known = item.source.workload === null ? (item.source.address ?? '') : '';
      const to = item.destination.workload === null ? (item.destination.address ?? '') : '';
      const key = [
        item.source.identity,
        known,
        item.destination.identity,
        to,
        item.port,
        item.verdict,
        item.reason,
      ].join(' ');
      const sums = truth.get(key);
      assert.ok(sums !== undefined, key);
      assert.equal(item.connections, sums.connections);
      assert.equal(item.bytesForward, sums.bytesForward);
      assert.equal(item.bytesReverse, sums.bytesReverse);
      assert.equal(item.firstSeen, isoSeconds(sums.firstS));
      assert.equal(item.lastSeen, isoSeconds(sums.lastS));
    }
  });

  test('names the destination and a workload of the source, with the name that was asked for and the process', async () => {
    const answer = await ask<ListAnswer>('/api/v1/unknown?limit=1000');
    const oracle = answer.items.find((item) => item.destination.labels.app === 'oracle');
    assert.equal(oracle?.destination.name, 'ora-7');
    assert.equal(oracle?.destination.address, '10.20.0.7');
    assert.match(oracle?.source.workload ?? '', /^payments-api-/);
    const partner = answer.items.find((item) => item.destination.name === 'partner-acme');
    assert.equal(partner?.dns, 'api.acme.example');
    assert.equal(partner?.process, 'java');
    assert.match(partner?.destination.address ?? '', /^198\.51\.100\./);
  });

  test('keeps the first sight of an edge that began before the window', async () => {
    const answer = await ask<ListAnswer>(`/api/v1/unknown?limit=1000&since=${isoSeconds(endS - hour)}`);
    const truth = recount(
      rows.filter((row) => row.to === 'oracle'),
      edgeKey,
    );
    const [sums] = [...truth.values()];
    const oracle = answer.items.find((item) => item.destination.labels.app === 'oracle');
    assert.ok(sums !== undefined && sums.firstS < endS - hour);
    assert.equal(oracle?.firstSeen, isoSeconds(sums.firstS));
  });
});

interface Shares {
  connections: number;
  bytes: number;
  edges: number;
}
interface CoveredAnswer {
  coverage: Shares;
  allowed: Shares;
  denied: Shares;
  unexplained: Shares;
}

describe('coverage', () => {
  const fromS = endS - 6 * hour;
  const sumsOf = (of: readonly FlowRow[], verdict: string): Shares => {
    const sums = [
      ...recount(
        of.filter((row) => row.verdict === verdict),
        edgeKey,
      ).values(),
    ];
    const add = (value: (one: Sums) => number): number => sums.reduce((sum, one) => sum + value(one), 0);
    return {
      connections: add((one) => one.connections),
      bytes: add((one) => one.bytesForward + one.bytesReverse),
      edges: sums.length,
    };
  };
  const check = (found: CoveredAnswer, of: readonly FlowRow[]): void => {
    const [allowed, denied, unexplained] = ['allowed', 'denied', 'unexplained'].map((verdict) =>
      sumsOf(of, verdict),
    );
    assert.deepEqual([found.allowed, found.denied, found.unexplained], [allowed, denied, unexplained]);
    for (const what of ['connections', 'bytes', 'edges'] as const) {
      const explained = allowed![what] + denied![what];
      const all = explained + unexplained![what];
      assert.equal(found.coverage[what], all === 0 ? null : explained / all);
    }
  };

  test('is the share of merged connections, bytes and edges that rules explain', async () => {
    const answer = await ask<{ total: CoveredAnswer; uncovered: EdgeAnswer[] }>(
      `/api/v1/coverage?since=${isoSeconds(fromS)}`,
    );
    check(answer.total, between(fromS, endS));
    assert.ok(answer.total.coverage.connections > 0 && answer.total.coverage.connections < 1);
    const most = answer.uncovered.map((edge) => edge.connections);
    assert.deepEqual(
      most,
      most.toSorted((a, b) => b - a),
    );
    assert.ok(answer.uncovered.every((edge) => edge.verdict === 'unexplained'));
  });

  for (const [key, of] of [
    [
      'app',
      (row: FlowRow) =>
        ({
          payments: 'payments',
          analytics: 'analytics',
          nobody: '',
          ledger: 'ledger',
          oracle: 'oracle',
          partner: 'partner-acme',
        })[row.from],
    ],
    [
      'dst_cluster',
      (row: FlowRow) =>
        ({ payments: 'c1', ledger: 'c1', analytics: 'c2', oracle: '', partner: '', nobody: '' })[row.to],
    ],
    [
      'src_team',
      (row: FlowRow) =>
        ({ payments: 'red', ledger: 'blue', analytics: '', oracle: '', partner: '', nobody: '' })[row.from],
    ],
  ] as const) {
    test(`by ${key} is that of each group`, async () => {
      const answer = await ask<{ groups: (CoveredAnswer & { value: string })[] }>(
        `/api/v1/coverage?since=${isoSeconds(fromS)}&group_by=${key}`,
      );
      const window = between(fromS, endS);
      assert.deepEqual(answer.groups.map((group) => group.value).sort(), [...new Set(window.map(of))].sort());
      for (const group of answer.groups)
        check(
          group,
          window.filter((row) => of(row) === group.value),
        );
    });
  }

  for (const step of [hour, 15 * 60]) {
    test(`over time in steps of ${step} s is that of each step`, async () => {
      const answer = await ask<{ series: (CoveredAnswer & { time: string })[] }>(
        `/api/v1/coverage?since=${isoSeconds(fromS)}&step=${step / 60}m`,
      );
      const window = between(fromS, endS);
      const steps = [...new Set(window.map((row) => Math.floor(row.time / step) * step))].sort(
        (a, b) => a - b,
      );
      assert.deepEqual(
        answer.series.map((point) => point.time),
        steps.map(isoSeconds),
      );
      for (const point of answer.series) {
        check(
          point,
          window.filter((row) => Math.floor(row.time / step) * step === Date.parse(point.time) / 1000),
        );
      }
    });
  }
});

test('the map adds edges up by the chosen labels', async () => {
  interface MapAnswer {
    nodes: { id: string; labels: Record<string, string>; name: string; zone: string }[];
    edges: { source: string; destination: string; verdict: string; connections: number; edges: number }[];
  }
  const answer = await ask<MapAnswer>(`/api/v1/map?by=app&since=${isoSeconds(endS - 7 * hour)}`);
  const ids = new Map(answer.nodes.map((node) => [node.id, node]));
  const nameOf = (id: string): string => ids.get(id)?.labels.app ?? ids.get(id)?.name ?? '?';
  const allowed = answer.edges.filter((edge) => edge.verdict === 'allowed');
  assert.deepEqual(
    allowed.map((edge) => [nameOf(edge.source), nameOf(edge.destination)]),
    [['payments', 'ledger']],
  );
  const all = [...recount(rows, edgeKey).values()];
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  assert.equal(sum(answer.edges.map((edge) => edge.connections)), sum(all.map((one) => one.connections)));
  assert.equal(sum(answer.edges.map((edge) => edge.edges)), all.length);
  assert.deepEqual(
    answer.nodes.filter((node) => node.zone === 'outside').map((node) => node.labels.app),
    ['partner-acme'],
  );
  assert.ok(answer.nodes.some((node) => node.name === 'unknown'));
});

test('rules say what they spoke of', async () => {
  const answer = await ask<{
    items: { name: string; connections: number; edges: number; definition: unknown }[];
  }>(`/api/v1/rules?since=${isoSeconds(endS - 7 * hour)}`);
  const truth = [
    ...recount(
      rows.filter((row) => row.verdict === 'allowed'),
      edgeKey,
    ).values(),
  ];
  const rule = answer.items.find((item) => item.name === 'payments-to-ledger');
  assert.equal(rule?.connections, truth[0]?.connections);
  assert.deepEqual(rule?.definition, { name: 'payments-to-ledger', action: 'allow' });
  assert.equal(answer.items.length, 2);
});

describe('workloads', () => {
  interface WorkloadsAnswer {
    items: {
      name: string;
      cluster: string;
      address: string;
      current: boolean;
      to: string | null;
      labels: Record<string, string>;
    }[];
    total: number;
  }

  test('names both pods that have one address in two clusters', async () => {
    const answer = await ask<WorkloadsAnswer>('/api/v1/workloads?ip=10.244.0.11');
    assert.deepEqual(answer.items.map((item) => [item.cluster, item.name]).sort(), [
      ['c1', 'payments-api-1'],
      ['c2', 'analytics-worker-1'],
    ]);
  });

  test('names who had an address at a time, not who has it now', async () => {
    const interval = (name: string, from: number, to: string | number) => ({
      id: workloadOf('ledger', name),
      kind: 'pod',
      cluster: 'c1',
      namespace: 'ledger-prod',
      name,
      uid: name,
      identity: identityOf('ledger'),
      network: 'c1',
      ip: '::ffff:10.244.9.9',
      valid_from: clickhouseTime(from * 1000),
      valid_to: typeof to === 'string' ? to : clickhouseTime(to * 1000),
    });
    await store.insertRows('workloads', [
      interval('early', endS - 5 * hour, endS - 4 * hour),
      interval('late', endS - 4 * hour, '2200-01-01 00:00:00.000'),
    ]);
    const at = async (seconds: number): Promise<string[]> =>
      (await ask<WorkloadsAnswer>(`/api/v1/workloads?ip=10.244.9.9&at=${isoSeconds(seconds)}`)).items.map(
        (item) => item.name,
      );
    assert.deepEqual(await at(endS - 5 * hour - 1), []);
    assert.deepEqual(await at(endS - 5 * hour), ['early']);
    assert.deepEqual(await at(endS - 4 * hour - 1), ['early']);
    assert.deepEqual(await at(endS - 4 * hour), ['late']);
    const all = await ask<WorkloadsAnswer>('/api/v1/workloads?ip=10.244.9.9');
    assert.deepEqual(
      all.items.map((item) => [item.name, item.current]),
      [
        ['late', true],
        ['early', false],
      ],
    );
    assert.equal(all.items[0]?.to, null);
  });

  test('are found by name, place and labels', async () => {
    const names = async (query: string): Promise<string[]> =>
      (await ask<WorkloadsAnswer>(`/api/v1/workloads?${query}`)).items.map((item) => item.name).sort();
    assert.deepEqual(await names('name=PAYMENTS'), ['payments-api-1', 'payments-api-2']);
    assert.deepEqual(await names('kind=vm'), ['ora-7']);
    assert.deepEqual(await names('label=env=prod,team=red'), ['payments-api-1', 'payments-api-2']);
    assert.deepEqual(await names('cluster=c2'), ['analytics-worker-1']);
  });
});

describe('the ledger', () => {
  const nowS = Math.floor(Date.now() / 1000);
  const batch = (agent: string, sequence: number, receivedS: number, more: Record<string, unknown> = {}) => ({
    agent,
    boot: 'b1',
    sequence,
    cluster: 'c1',
    node: `node-of-${agent}`,
    source_kind: 'conntrack',
    observed_from: clickhouseTime((receivedS - 11) * 1000),
    observed_to: clickhouseTime((receivedS - 1) * 1000),
    received: clickhouseTime(receivedS * 1000),
    written: clickhouseTime((receivedS + 1) * 1000),
    flows: 10,
    flows_written: 10,
    outcome: 'written',
    cause: 'none',
    ...more,
  });
  interface LedgerAnswer {
    totals: Record<string, number>;
    causes: { cause: string; batches: number; flows: number }[];
    agents: {
      agent: string;
      state: string;
      batchesMissing: number;
      flowsDropped: number;
      batchesResent: number;
      batches: number;
    }[];
    gaps: { agent: string; firstMissing: string; lastMissing: string; missing: number }[];
    completeness: Record<string, number | string | null>;
  }
  let answer: LedgerAnswer;

  before(async () => {
    await store.insertRows('batches', [
      // Reports all the time; 4, 5 and 6 never came; dropped 3 at the source.
      batch('steady', 1, nowS - 3000),
      batch('steady', 2, nowS - 1200),
      batch('steady', 3, nowS - 1190, { source_dropped: 3 }),
      batch('steady', 7, nowS - 10),
      // Came again: neither it nor what it says was dropped counts twice.
      batch('steady', 3, nowS - 1180, { outcome: 'resent', flows_written: 0, source_dropped: 3 }),
      // Silent for 20 minutes; its first batch of this boot never came.
      batch('gone', 2, nowS - 1201),
      batch('gone', 3, nowS - 1200),
      // Before the window: known, and silent.
      batch('older', 1, nowS - 3000),
      // Could not be read.
      batch('', 0, nowS - 100, { outcome: 'dead', cause: 'undecodable', flows: 0, flows_written: 0 }),
      batch('steady', 8, nowS - 5, {
        outcome: 'dead',
        cause: 'time-out-of-range',
        flows_written: 0,
        flows_refused: 10,
      }),
    ]);
    answer = await ask<LedgerAnswer>(`/api/v1/ledger?since=${isoSeconds(nowS - 1800)}`);
  });

  test('says exactly which sequences are missing', () => {
    assert.deepEqual(
      answer.gaps.map((gap) => [gap.agent, gap.firstMissing, gap.lastMissing, gap.missing]).sort(),
      [
        ['gone', '1', '1', 1],
        ['steady', '4', '6', 3],
      ],
    );
    assert.equal(answer.completeness.batchesMissing, 4);
    assert.equal(answer.totals.batchesMissing, 4);
  });

  test('counts what was lost once, and a second copy not at all', () => {
    assert.equal(answer.totals.batchesWritten, 5);
    assert.equal(answer.totals.batchesResent, 1);
    assert.equal(answer.totals.batchesDead, 2);
    assert.equal(answer.totals.flowsWritten, 50);
    assert.equal(answer.totals.flowsDroppedAtSource, 3);
    assert.equal(answer.totals.flowsRefused, 10);
    assert.equal(answer.completeness.flowsDropped, 13);
    assert.deepEqual(answer.causes, [
      { cause: 'time-out-of-range', batches: 1, flows: 10 },
      { cause: 'undecodable', batches: 1, flows: 0 },
    ]);
  });

  test('tells who reports and who is silent', () => {
    assert.deepEqual(answer.agents.map((agent) => [agent.agent, agent.state]).sort(), [
      ['gone', 'silent'],
      ['older', 'silent'],
      ['steady', 'reporting'],
    ]);
    assert.equal(answer.completeness.agentsReporting, 1);
    assert.equal(answer.completeness.agentsSilent, 2);
    assert.equal(answer.agents.find((agent) => agent.agent === 'steady')?.batchesMissing, 3);
  });

  test('says how late rows were queryable, and how fresh they are', () => {
    assert.equal(answer.totals.delayMsP50, 2000);
    assert.equal(answer.totals.delayMsP99, 2000);
    assert.equal(answer.completeness.freshestTo, new Date((nowS - 11) * 1000).toISOString());
  });

  test('stands in every aggregate answer', async () => {
    for (const path of ['unknown', 'edges', 'connections', 'coverage', 'map', 'rules']) {
      const other = await ask<ListAnswer>(`/api/v1/${path}?since=${isoSeconds(nowS - 1800)}`);
      assert.equal(other.completeness.agentsSilent, 2, path);
      assert.equal(other.completeness.batchesMissing, 4, path);
    }
  });
});

test('alerts show the newest state of each message', async () => {
  const alert = (state: string, updated: number) => ({
    id: 'msg_1',
    edge: '5',
    created: clickhouseTime(endS * 1000),
    state,
    attempts: 2,
    last_error: state === 'pending' ? 'connection refused' : '',
    receiver: 'soc',
    payload: '{"type":"unexplained"}',
    updated_at: clickhouseTime(updated * 1000),
  });
  await store.insertRows('alerts', [alert('pending', endS + 1), alert('delivered', endS + 2)]);
  const answer = await ask<{ items: { state: string; payload: unknown; lastError: string | null }[] }>(
    '/api/v1/alerts',
  );
  assert.deepEqual(
    answer.items.map((item) => [item.state, item.payload, item.lastError]),
    [['delivered', { type: 'unexplained' }, null]],
  );
});

describe('SQL of people', () => {
  test('answers with columns, rows and bound parameters', async () => {
    const { json } = await sql('SELECT {a:UInt32} + 1 AS n, {b:String} AS s, {c:Array(String)} AS l', {
      params: { a: 41, b: `it's\t"5"\n\\`, c: [`x'y`, 'z'] },
    });
    const { columns, rows, rowCount, truncated } = json();
    assert.deepEqual(columns, [
      { name: 'n', type: 'UInt64' },
      { name: 's', type: 'String' },
      { name: 'l', type: 'Array(String)' },
    ]);
    assert.deepEqual(rows, [['42', `it's\t"5"\n\\`, [`x'y`, 'z']]]);
    assert.equal(rowCount, 1);
    assert.equal(truncated, false);
  });

  test('sees the views with plain names', async () => {
    const { json } = await sql(`SELECT count() FROM flows_labeled WHERE verdict = 'denied'`);
    assert.equal(Number(json().rows[0][0]), rows.filter((row) => row.verdict === 'denied').length);
  });

  test('gives CSV, TSV and JSON lines', async () => {
    const query = `SELECT 1 AS a, 'x,"y"' AS b`;
    assert.equal((await sql(query, { format: 'csv' })).body, 'a,b\r\n1,"x,""y"""\r\n');
    assert.equal((await sql(query, { format: 'tsv' })).body, 'a\tb\n1\tx,"y"\n');
    assert.equal((await sql(query, { format: 'jsonl' })).body, '{"a":1,"b":"x,\\"y\\""}\n');
  });

  test('carries the completeness of the time that it is about, or says that this is not known', async () => {
    const since = isoSeconds(endS - hour);
    const told = (await sql('SELECT 1', { since })).json();
    const edges = await ask<ListAnswer>(`/api/v1/edges?since=${since}`);
    assert.equal(told.completeness.batchesMissing, edges.completeness.batchesMissing);
    assert.deepEqual([told.window, told.windowAssumed], [{ since, until: null }, false]);
    const untold = (await sql('SELECT 1')).json();
    assert.equal(untold.windowAssumed, true);
    const assumedMs = Date.now() - Date.parse(untold.window.since);
    assert.ok(assumedMs >= 86_400_000 && assumedMs < 86_460_000, 'the usual window of other questions');
    const csv = await sql('SELECT 1', { format: 'csv', since });
    const trailer = JSON.parse(csv.answer.trailers['eastwest-completeness'] ?? '');
    assert.deepEqual(Object.keys(trailer), ['window', 'windowAssumed', 'completeness']);
    assert.deepEqual(trailer.window, told.window);
    assert.deepEqual(Object.keys(trailer.completeness), Object.keys(edges.completeness));
    assert.equal((await sql('SELECT 1', { since: 'yesterday' })).json().parameter, 'since');
  });

  const forbidden = [
    'INSERT INTO rules (id) VALUES (1)',
    'ALTER TABLE flows DELETE WHERE 1',
    'DROP TABLE flows',
    'TRUNCATE TABLE flows',
    'CREATE TABLE mine (a Int8) ENGINE = Memory',
    'CREATE TEMPORARY TABLE mine (a Int8)',
    'OPTIMIZE TABLE flows FINAL',
    `SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')`,
    `SELECT * FROM file('/etc/passwd', 'LineAsString')`,
    `SELECT * FROM remote('127.0.0.1:9000', system.one)`,
    `SELECT * FROM executable('id', 'TSV', 'a String')`,
    `SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV')`,
    `SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')`,
    `SELECT file('/etc/passwd')`,
    `SELECT FILE('/etc/passwd')`,
    `SELECT arrayMap(file, ['/etc/passwd'])`,
    "SELECT arrayMap(`\\x66ile`, ['/etc/passwd'])",
    `SELECT * APPLY(file) FROM (SELECT '/etc/passwd' AS a)`,
    `SELECT * REPLACE(file('/etc/passwd') AS a) FROM (SELECT 1 AS a)`,
    `EXPLAIN PLAN SELECT file('/etc/passwd')`,
    `WITH (SELECT file('/etc/passwd')) AS x SELECT x`,
    `SHOW TABLES WHERE file('/etc/passwd') != ''`,
    `SELECT * FROM view(SELECT file('/etc/passwd'))`,
    `DESCRIBE TABLE file('/etc/passwd')`,
    `SELECT sum(number) OVER (ORDER BY number ROWS BETWEEN length(file('/etc/passwd')) PRECEDING AND CURRENT ROW) FROM numbers(1)`,
    `SELECT 1 INTO OUTFILE 'x.csv'`,
    'SET max_execution_time = 100000',
    'SELECT 1 SETTINGS max_result_rows = 100000000',
    'SYSTEM SHUTDOWN',
    `KILL QUERY WHERE 1`,
    'SELECT * FROM system.users',
    'SELECT 1; DROP TABLE flows',
  ];
  for (const query of forbidden) {
    test(`is refused: ${query}`, async () => {
      const { status, json } = await sql(query);
      assert.equal(status, 400, JSON.stringify(json()));
      assert.match(json().type, /^urn:eastwest:problem:bad-query$/);
      assert.ok(json().detail.length > 10);
      assert.doesNotMatch(json().detail, /\(version /);
      // Whether the server could read files or not, this service refuses first.
      if (/file\b.*passwd/i.test(query)) assert.match(json().detail, /not allowed here/, json().detail);
    });
  }

  test('is refused when a parameter names the function', async () => {
    const { status, body } = await sql(`SELECT arrayMap({f:Identifier}, ['/etc/passwd'])`, {
      params: { f: 'file' },
    });
    assert.equal(status, 400, body.slice(0, 200));
  });

  const allowed = [
    `SELECT 'file' AS word, count() FROM flows WHERE process = 'file'`,
    'SHOW TABLES',
    'DESCRIBE TABLE flows_labeled',
    'EXPLAIN SELECT count() FROM flows',
    'EXISTS TABLE flows',
    'WITH x AS (SELECT 1 AS a) SELECT a FROM x UNION ALL SELECT 2',
    '(SELECT 1)',
    "SELECT dictGet('identities_dict', 'app', dst_identity), count() FROM edges_1h GROUP BY 1",
  ];
  for (const query of allowed) {
    test(`is answered: ${query}`, async () => {
      const { status, body } = await sql(query);
      assert.equal(status, 200, body.slice(0, 300));
    });
  }

  test('leaves nothing changed after all that', async () => {
    const [count] = await store.query<{ n: string }>('SELECT count() AS n FROM flows_all');
    assert.equal(Number(count?.n), rows.length);
    assert.ok(!(await readdir('.')).includes('x.csv'));
  });

  test('gives the words of ClickHouse for a mistake', async () => {
    const { status, json } = await sql('SELECT nothing FROM flows');
    assert.equal(status, 400);
    assert.equal(json().code, 'UNKNOWN_IDENTIFIER');
    assert.match(json().detail, /nothing/);
  });

  test('asks to leave FORMAT out', async () => {
    const { status, json } = await sql('SELECT 1 FORMAT CSV');
    assert.equal(status, 400);
    assert.match(json().detail, /leave FORMAT CSV out/);
  });

  test('cuts an answer at the limit of rows and says so', async () => {
    const small = await build({ sql: { maxRows: 5 } });
    try {
      const { json } = await sql('SELECT number FROM numbers(1000000)', {}, small);
      assert.equal(json().rows.length, 5);
      assert.deepEqual([json().truncated, json().truncatedBy], [true, 'rows']);
      const exact = await sql('SELECT number FROM numbers(5)', {}, small);
      assert.equal(exact.json().truncated, false);
      const csv = await sql('SELECT number FROM numbers(6)', { format: 'csv' }, small);
      assert.equal(csv.answer.trailers['eastwest-truncated'], 'rows');
    } finally {
      await small.close();
    }
  });

  test('cuts an answer at the limit of bytes and says so', async () => {
    const small = await build({ sql: { maxBytes: 1024 } });
    try {
      const { json, body } = await sql(`SELECT repeat('x', 100) FROM numbers(1000)`, {}, small);
      assert.deepEqual([json().truncated, json().truncatedBy], [true, 'bytes']);
      assert.ok(json().rows.length > 0 && body.length < 2048);
      const huge = await sql(`SELECT repeat('x', 100000)`, {}, small);
      assert.deepEqual([huge.json().rows.length, huge.json().truncatedBy], [0, 'bytes']);
    } finally {
      await small.close();
    }
  });

  test('ends a query that takes too long', async () => {
    const small = await build({ sql: { maxSeconds: 1 } });
    try {
      const { status, json } = await sql('SELECT sleepEachRow(0.1) FROM numbers(25)', {}, small);
      assert.equal(status, 400);
      assert.match(json().detail, /longer than 1 s/);
    } finally {
      await small.close();
    }
  });

  test('says what went wrong after the first rows', async () => {
    const large = await build({ sql: { maxRows: 1_000_000 } });
    try {
      const { status, json } = await sql(
        `SELECT number, throwIf(number = 900000, 'too far') FROM numbers(950000)`,
        {},
        large,
      );
      assert.equal(status, 200);
      const { error, truncated, rows: some, rowCount } = json();
      assert.match(error, /too far/);
      assert.equal(truncated, true);
      assert.ok(some.length > 0 && some.length === rowCount);
    } finally {
      await large.close();
    }
  });

  test('points at the place of a mistake in the query as it was written', async () => {
    const { json } = await sql('SELECT 1\nFRM x y');
    assert.match(json().detail, /line 2, col 5/);
  });

  test('answers 429 when too many run at once', async () => {
    const small = await build({ sql: { maxConcurrent: 1 } });
    try {
      const first = sql('SELECT sleep(1)', {}, small);
      const others = await Promise.all([sql('SELECT 1', {}, small), sql('SELECT 1', {}, small)]);
      assert.ok(others.some((other) => other.status === 429));
      assert.equal((await first).status, 200);
      assert.equal((await sql('SELECT 1', {}, small)).status, 200);
    } finally {
      await small.close();
    }
  });

  test('is not offered with a user that could change data', async () => {
    const careless = await build({}, { ...sqlServer, username: 'default', password: '' });
    try {
      const { status, json } = await sql('SELECT 1', {}, careless);
      assert.equal(status, 503);
      assert.match(json().detail, /readonly=1/);
    } finally {
      await careless.close();
    }
  });

  test('is not offered with a user that does not exist', async () => {
    const wrong = await build({}, { ...sqlServer, username: 'nobody-here' });
    try {
      const { status, json } = await sql('SELECT 1', {}, wrong);
      assert.equal(status, 503);
      assert.match(json().detail, /store\.reader\.username/);
    } finally {
      await wrong.close();
    }
  });
});

describe('a wrong parameter', () => {
  const wrong: readonly (readonly [string, string, RegExp])[] = [
    ['/api/v1/unknown?sinse=5m', 'sinse', /did you mean "since"/],
    ['/api/v1/unknown?since=yesterday', 'since', /24h/],
    ['/api/v1/unknown?since=1h&until=2h', 'until', /after since/],
    ['/api/v1/edges?verdict=alowed', 'verdict', /did you mean "allowed"/],
    ['/api/v1/edges?port=http', 'port', /0 to 65535/],
    ['/api/v1/edges?port=65536', 'port', /0 to 65535/],
    ['/api/v1/edges?protocol=tpc', 'protocol', /tcp/],
    ['/api/v1/edges?ip=10.0.0.300', 'ip', /10\.0\.0\.0\/8/],
    ['/api/v1/edges?src=app', 'src', /key=value/],
    ['/api/v1/edges?limit=0', 'limit', /1/],
    ['/api/v1/edges?limit=99999', 'limit', /query\.maxLimit/],
    ['/api/v1/edges?cursor=abc', 'cursor', /next/],
    ['/api/v1/edges?sort=color', 'sort', /connections/],
    ['/api/v1/coverage?step=7s', 'step', /minutes/],
    ['/api/v1/map?by=a,b,c,d,e,f', 'by', /1 to 5/],
    ['/api/v1/workloads?at=then', 'at', /ISO 8601/],
    ['/api/v1/unknown?verdict=allowed', 'verdict', /no parameter/],
  ];
  for (const [url, parameter, words] of wrong) {
    test(`is named with what is right: ${url}`, async () => {
      const answer = await app.inject(url);
      assert.equal(answer.statusCode, 400, answer.body);
      assert.match(answer.headers['content-type'] as string, /^application\/problem\+json/);
      const problem = answer.json();
      assert.equal(problem.parameter, parameter);
      assert.match(problem.detail, words);
      assert.equal(problem.status, 400);
      assert.equal(problem.type, 'urn:eastwest:problem:bad-parameter');
      assert.equal(problem.instance, url.split('?')[0]);
    });
  }

  test('in a body is named too', async () => {
    const post = (payload: object | string) =>
      app.inject({
        method: 'POST',
        url: '/api/v1/sql',
        payload,
        headers: { 'content-type': 'application/json' },
      });
    assert.match((await post({})).json().detail, /"query" is missing/);
    assert.match((await post({ query: 'SELECT 1', formt: 'csv' })).json().detail, /did you mean "format"/);
    assert.equal((await post('{')).statusCode, 400);
  });

  test('is a body over the limit of its route, which is named', async () => {
    const small = await build({
      maxPolicyBytes: 1024,
      put: { maxBodyBytes: 1024 },
      sql: { maxQueryBytes: 1024 },
    });
    try {
      for (const [method, path, setting] of [
        ['POST', 'sql', 'query.sql.maxQueryBytes'],
        ['POST', 'drafts', 'query.maxPolicyBytes'],
        ['POST', 'suggestions', 'query.maxPolicyBytes'],
        ['PUT', 'policy', 'query.maxPolicyBytes'],
        ['PUT', 'workloads', 'query.put.maxBodyBytes'],
        ['POST', 'policy/rollback', 'a fixed limit'],
      ] as const) {
        const payload = { query: 'x'.repeat(setting === 'a fixed limit' ? 2 ** 20 : 1024) };
        const answer = await small.inject({ method, url: `/api/v1/${path}`, payload });
        assert.equal(answer.statusCode, 413, path);
        const bytes = setting === 'a fixed limit' ? 1_048_576 : 1024;
        assert.equal(answer.json().detail, `the body is over ${bytes} bytes (${setting})`);
      }
    } finally {
      await small.close();
    }
  });

  test('and a wrong path get the problem document', async () => {
    const answer = await app.inject('/api/v1/nothing');
    assert.equal(answer.statusCode, 404);
    assert.match(answer.headers['content-type'] as string, /^application\/problem\+json/);
  });
});

test('no value of a request becomes SQL', async () => {
  const evil = `x') OR 1=1 -- \\' {p0:String}`;
  const answer = await ask<ListAnswer>(
    `/api/v1/edges?app=${encodeURIComponent(evil)}&src_team=${encodeURIComponent(evil)}`,
  );
  assert.equal(answer.total, 0);
  const grouped = await ask<{ groups: unknown[] }>(
    `/api/v1/coverage?group_by=${encodeURIComponent('a.b-c/d')}`,
  );
  assert.equal(grouped.groups.length, 1);
});

describe('ready', () => {
  test('when ClickHouse answers and the tables are there', async () => {
    const answer = await app.inject('/readyz');
    assert.equal(answer.statusCode, 200);
    assert.equal((await app.inject('/healthz')).statusCode, 200);
    assert.match((await app.inject('/metrics')).body, /eastwest_query_request_seconds_count/);
  });

  test('not before the tables are there, and it says what to do', async () => {
    const empty = openStore(scene.clickhouse.config('elsewhere'), { log });
    await store.command('CREATE DATABASE IF NOT EXISTS elsewhere');
    const other = await build({}, sqlServer, empty);
    try {
      const answer = await other.inject('/readyz');
      assert.equal(answer.statusCode, 503);
      assert.match(answer.body, /eastwest migrate/);
      const question = await other.inject('/api/v1/unknown');
      assert.match(question.json().detail, /eastwest migrate/);
    } finally {
      await other.close();
      await empty.close();
    }
  });

  test('not while ClickHouse is away, and questions get 503 with Retry-After', async () => {
    const away = openStore({ ...scene.clickhouse.config(), url: 'http://127.0.0.1:1' }, { log });
    const other = await build({}, { ...sqlServer, url: 'http://127.0.0.1:1' }, away);
    try {
      assert.equal((await other.inject('/readyz')).statusCode, 503);
      const question = await other.inject('/api/v1/unknown');
      assert.equal(question.statusCode, 503);
      assert.equal(question.headers['retry-after'], '2');
      assert.equal((await sql('SELECT 1', {}, other)).status, 503);
    } finally {
      await other.close();
      await away.close();
    }
  });
});

describe('the description of the API', () => {
  interface OpenApi {
    paths: Record<
      string,
      {
        get?: {
          parameters?: { required?: boolean }[];
          responses: Record<string, { content?: Record<string, { schema: object }> }>;
        };
      }
    >;
  }

  test('fits every answer', async () => {
    const { paths } = await ask<OpenApi>('/openapi.json');
    const ajv = new Ajv({ strict: false });
    const described = Object.entries(paths).filter(
      // What has to be told something is tested on its own.
      ([path, { get }]) =>
        path.startsWith('/api/') &&
        get !== undefined &&
        get.parameters?.some(({ required }) => required === true) !== true,
    );
    let checked = 0;
    for (const [path, { get }] of described) {
      const schema = get?.responses['200']?.content?.['application/json']?.schema;
      assert.ok(schema !== undefined, path);
      const check = ajv.compile(closed(schema));
      const more = path === '/api/v1/coverage' ? '?group_by=app&step=1h' : '';
      const answer = await app.inject(path + more);
      // What is read from the bus, which is not here.
      if (answer.statusCode === 503 && answer.body.includes('this process has no bus')) continue;
      assert.equal(answer.statusCode, 200, `${path}: ${answer.body}`);
      assert.ok(check(answer.json()), `${path}: ${ajv.errorsText(check.errors)}`);
      checked++;
    }
    assert.ok(checked >= 9);
  });
});

/** The schema with every object closed, so that what an answer has beside it is seen. */
function closed(schema: unknown): object {
  return JSON.parse(JSON.stringify(schema), (_key, value) =>
    typeof value === 'object' && value !== null && value.type === 'object' && 'properties' in value
      ? { ...value, additionalProperties: false }
      : value,
  );
}

describe('the commands that ask', () => {
  let url: string;

  before(async () => {
    await app.listen({ host: '127.0.0.1', port: 0 });
    url = app.listeningOrigin;
  });

  const run = (args: readonly string[], environment: Record<string, string> = {}): Promise<CommandResult> =>
    runCommand(args, { EASTWEST_URL: url, ...environment });

  test('say the same as the API, and fail a pipeline when asked to', async () => {
    const json = await run(['unknown', '--json', '--limit', '1000', '--fail-on-findings']);
    assert.equal(json.code, 3);
    assert.deepEqual(
      JSON.parse(json.stdout).items,
      (await ask<ListAnswer>('/api/v1/unknown?limit=1000')).items,
    );
    const none = await run(['unknown', '--app', 'nothing', '--fail-on-findings']);
    assert.equal(none.code, 0);
    assert.equal(none.stdout, '');
  });

  test('print aligned tables without colour into a pipe, remarks beside', async () => {
    const { stdout, stderr, code } = await run(['unknown']);
    assert.equal(code, 0);
    const [head, first] = stdout.split('\n');
    assert.equal(first?.indexOf('payments'), head?.indexOf('SOURCE'));
    assert.match(first ?? '', /^critical .*oracle.* 1521\/tcp/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes begin with the escape character
    assert.doesNotMatch(stdout, /\u001b/);
    assert.match(stderr, /unexplained since/);
    assert.match(stderr, /batches missing/);
  });

  test('answer each question', async () => {
    for (const args of [
      ['coverage', '--group-by', 'app', '--step', '1h'],
      ['ledger'],
      ['workloads', '--kind', 'vm'],
      ['who', '10.20.0.7', '--at', 'now'],
      ['connections', '--limit', '5'],
      ['edges', '--verdict', 'denied'],
      ['alerts', '--since', '7d'],
      ['sql', 'SELECT {n:UInt8} AS n', '--param', 'n=7'],
      ['sql', 'SELECT 1 AS one', '--format', 'csv'],
    ]) {
      const { code, stdout, stderr } = await run(args);
      assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
      assert.ok(stdout.split('\n').length >= 2, args.join(' '));
    }
  });

  test('say how to start what does not answer, and what was wrong with a question', async () => {
    const away = await run(['unknown'], { EASTWEST_URL: 'http://127.0.0.1:1' });
    assert.equal(away.code, 1);
    assert.match(away.stderr, /npx eastwest up/);
    const wrong = await run(['unknown', '--since', 'yesterday']);
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /since is "yesterday"; expected a time/);
    const sqlWrong = await run(['sql', 'SELECT nothing']);
    assert.equal(sqlWrong.code, 2);
    assert.match(sqlWrong.stderr, /nothing/);
  });
});
