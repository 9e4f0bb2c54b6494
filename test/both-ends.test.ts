/** Both ends of a connection: merged exactly where either is complete, and one-sided ones told with the reason. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { identityId, workloadId } from '../lib/inventory/ids.ts';
import { clickhouseTime, edgeKey, makeFlows, recount } from './support/query-rows.ts';
import {
  type EdgeAnswer,
  type ListAnswer,
  openQueryScene,
  type QueryScene,
  runCommand,
} from './support/query-scene.ts';

const hour = 3600;
/** The window of connections made by hand, in seconds; what is generated lies before it. */
const sinceS = Math.floor(Date.now() / 60_000) * 60 - hour;
const untilS = sinceS + hour;
const window = `since=${sinceS}&until=${untilS}`;

/** Each connection at all its sides; then one in three reports of one side is lost, the same side for all of an edge. */
const truth = makeFlows(sinceS - hour, 5, 600, 11, 0);
const sidesOf = new Map([...recount(truth, edgeKey)].map(([key, { sides }]) => [key, sides]));
const kept = truth.filter((row, index) => {
  const sides = sidesOf.get(edgeKey(row)) ?? [];
  return sides.length < 2 || row.side !== sides[row.dst_port % 2] || index % 3 !== 0;
});

interface Place {
  readonly kind: string;
  readonly cluster: string;
  readonly node: string;
  readonly ip: string;
}

/** Who talks, and where that runs. */
const places: Readonly<Record<string, Place>> = {
  a: { kind: 'pod', cluster: 'k1', node: 'n1', ip: '10.1.0.1' },
  neighbour: { kind: 'pod', cluster: 'k1', node: 'n1', ip: '10.1.0.2' },
  b: { kind: 'pod', cluster: 'k1', node: 'n2', ip: '10.1.0.3' },
  unwatched: { kind: 'pod', cluster: 'k1', node: 'n3', ip: '10.1.0.4' },
  lossy: { kind: 'pod', cluster: 'k1', node: 'n4', ip: '10.1.0.5' },
  mute: { kind: 'pod', cluster: 'k1', node: 'n5', ip: '10.1.0.6' },
  n1: { kind: 'node', cluster: 'k1', node: 'n1', ip: '10.0.0.1' },
  web: { kind: 'service', cluster: 'k1', node: '', ip: '10.96.0.1' },
  'db-1': { kind: 'vm', cluster: '', node: '', ip: '10.20.0.1' },
  mail: { kind: 'vm', cluster: '', node: '', ip: '10.20.0.2' },
};

function identityOf(name: string): string {
  const { kind, cluster } = places[name]!;
  return String(identityId({ kind, cluster, namespace: 'x', name, zone: 'inside', labels: { app: name } }));
}

function workloadOf(name: string): string {
  const { kind, cluster } = places[name]!;
  return String(workloadId(cluster, kind, `uid-${name}`));
}

interface Report {
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly side: 'source' | 'destination' | 'middle';
  readonly atS: number;
  readonly agent: string;
  readonly more?: Readonly<Record<string, unknown>>;
}

function rowOf({ from, to, port, side, atS, agent, more = {} }: Report): Record<string, unknown> {
  const mapped = (name: string): string => `::ffff:${places[name]!.ip}`;
  const how = (name: string): string =>
    ({ vm: 'host', node: 'node', service: 'service' })[places[name]!.kind] ?? 'pod';
  return {
    time: sinceS + atS,
    src_ip: mapped(from),
    dst_ip: mapped(to),
    src_workload: workloadOf(from),
    dst_workload: workloadOf(to),
    src_identity: identityOf(from),
    dst_identity: identityOf(to),
    src_provenance: how(from),
    dst_provenance: how(to),
    src_certainty: 'exact',
    dst_certainty: 'exact',
    dst_port: port,
    protocol: 6,
    side,
    verdict: 'unexplained',
    reason: 'no-rule',
    connections: 1,
    bytes_forward: 100,
    packets_forward: 2,
    agent,
    ...more,
  };
}

/** Batches of ten seconds each, from and to so many seconds after the window began; numbers in `lost` never came. */
function batches(
  agent: string,
  cluster: string,
  node: string,
  fromS: number,
  toS: number,
  lost: readonly number[] = [],
) {
  const list: Record<string, unknown>[] = [];
  for (let sequence = 1; fromS + sequence * 10 <= toS; sequence++) {
    if (lost.includes(sequence)) continue;
    const endMs = (sinceS + fromS + sequence * 10) * 1000;
    list.push({
      agent,
      boot: 'b1',
      sequence,
      cluster,
      node,
      source_kind: 'conntrack',
      observed_from: clickhouseTime(endMs - 10_000),
      observed_to: clickhouseTime(endMs),
      received: clickhouseTime(endMs + 1000),
      written: clickhouseTime(endMs + 2000),
      flows: 1,
      flows_written: 1,
      outcome: 'written',
    });
  }
  return list;
}

interface OneSidedAnswer extends ListAnswer {
  items: (EdgeAnswer & {
    seenBy: string;
    state: string;
    missing: string[];
    timedOut: number;
    absent: { side: string; agent: boolean }[];
  })[];
  states: Record<string, number>;
  truncated: boolean;
}

let scene: QueryScene;

/** `seenBy from->to:port state`, sorted. */
function described({ items }: OneSidedAnswer): string[] {
  return items
    .map(
      ({ seenBy, source, destination, port, state }) =>
        `${seenBy} ${source.workload ?? source.address}->${destination.workload ?? destination.address}:${port} ${state}`,
    )
    .sort();
}

async function oneSided(query: string): Promise<OneSidedAnswer> {
  return scene.ask<OneSidedAnswer>(`/api/v1/one-sided?${window}&${query}`);
}

before(async () => {
  scene = await openQueryScene(kept, sinceS - 30 * hour);
  const { store } = scene;
  const names = Object.keys(places);
  await store.insertRows(
    'identities',
    names.map((name) => ({
      id: identityOf(name),
      kind: places[name]!.kind,
      cluster: places[name]!.cluster,
      namespace: 'x',
      name: places[name]!.kind === 'service' ? name : '',
      zone: 'inside',
      app: name,
    })),
  );
  await store.insertRows(
    'workloads',
    names.map((name) => ({
      id: workloadOf(name),
      ...places[name],
      ip: `::ffff:${places[name]!.ip}`,
      name,
      uid: `uid-${name}`,
      identity: identityOf(name),
      network: 'default',
      valid_from: clickhouseTime((sinceS - 30 * hour) * 1000),
      valid_to: '2200-01-01 00:00:00.000',
    })),
  );
});

after(async () => {
  await scene.close();
});

describe('both ends', () => {
  test('are exact together where either of them is complete: settled, pending and repaired, raw and rolled up', async () => {
    const wanted = recount(truth, edgeKey);
    const from = sinceS - 7 * hour;
    for (const [path, what] of [
      [`edges?since=${from}&until=${sinceS}&limit=1000`, 'rolled up'],
      // An address makes it ask single flows.
      [`edges?since=${from}&until=${sinceS}&limit=1000&ip=::/0`, 'raw'],
    ] as const) {
      const { items, total } = await scene.ask<ListAnswer>(`/api/v1/${path}`);
      assert.equal(total, wanted.size, what);
      const sum = (list: readonly { connections: number; bytesForward: number; bytesReverse: number }[]) =>
        list.reduce(
          (all, one) => [all[0]! + one.connections, all[1]! + one.bytesForward, all[2]! + one.bytesReverse],
          [0, 0, 0],
        );
      assert.deepEqual(sum(items), sum([...wanted.values()]), what);
    }
  });

  test('say which side is absent, and whether an agent reports there', async () => {
    await scene.store.insertRows('batches', [
      ...batches('agent-1', 'k1', 'n1', -120, hour + 120),
      ...batches('agent-2', 'k1', 'n2', -120, hour - 20),
      ...batches('agent-4', 'k1', 'n4', -120, hour + 120, [60]),
      ...batches('agent-5', 'k1', 'n5', -2 * hour, -600),
      ...batches('agent-db', '', 'db-1', -120, hour + 120),
      ...batches('agent-farm', '', 'farm', -120, hour + 120),
    ]);
    await scene.store.insertRows('flows', everyCase.map(rowOf));
    const { items } = await scene.ask<{ items: OneSidedAnswer['items'] }>(
      `/api/v1/connections?${window}&src_app=a&limit=1000`,
    );
    const absent = (to: string, port: number) =>
      items.find(({ destination, port: at }) => destination.workload === to && at === port)?.absent;
    assert.deepEqual(absent('b', 443), []);
    assert.deepEqual(absent('b', 5432), [{ side: 'destination', agent: true }]);
    assert.deepEqual(absent('unwatched', 80), [{ side: 'destination', agent: false }]);
    const edges = await scene.ask<{ items: OneSidedAnswer['items'] }>(`/api/v1/edges?${window}&limit=1000`);
    const edge = (to: string, port: number) =>
      edges.items.find(({ destination, port: at }) => destination.labels.app === to && at === port)?.absent;
    assert.deepEqual(edge('b', 443), []);
    assert.deepEqual(edge('b', 5432), [{ side: 'destination', agent: true }]);
    assert.deepEqual(edge('unwatched', 80), [{ side: 'destination', agent: false }]);
    assert.deepEqual(edge('b', 7000), [
      { side: 'source', agent: true },
      { side: 'destination', agent: true },
    ]);
  });
});

/** What was reported in the window, each with what is to be found out. */
const everyCase: readonly Report[] = [
  // Both, with different counts.
  { from: 'a', to: 'b', port: 443, side: 'source', atS: 300, agent: 'agent-1' },
  { from: 'a', to: 'b', port: 443, side: 'source', atS: 900, agent: 'agent-1' },
  { from: 'a', to: 'b', port: 443, side: 'destination', atS: 301, agent: 'agent-2' },
  // Both, but the policy changed between them.
  { from: 'a', to: 'b', port: 444, side: 'source', atS: 300, agent: 'agent-1' },
  {
    from: 'a',
    to: 'b',
    port: 444,
    side: 'destination',
    atS: 301,
    agent: 'agent-2',
    more: { verdict: 'allowed', reason: 'rule', rule: '5' },
  },
  // Never arrived; something in the middle saw it too.
  {
    from: 'a',
    to: 'b',
    port: 5432,
    side: 'source',
    atS: 300,
    agent: 'agent-1',
    more: { state: 'timed_out' },
  },
  { from: 'a', to: 'b', port: 5432, side: 'middle', atS: 300, agent: 'router' },
  { from: 'a', to: 'b', port: 7000, side: 'middle', atS: 300, agent: 'router' },
  // Was never sent, as the source's agent says.
  { from: 'b', to: 'a', port: 22, side: 'destination', atS: 310, agent: 'agent-1' },
  // Nobody could have seen it.
  { from: 'a', to: 'unwatched', port: 80, side: 'source', atS: 320, agent: 'agent-1' },
  // Batch 60 of the other side, of 470 to 480, never came: what was at that time it may have seen.
  { from: 'a', to: 'lossy', port: 80, side: 'source', atS: 475, agent: 'agent-1' },
  { from: 'a', to: 'lossy', port: 81, side: 'source', atS: 475, agent: 'agent-1' },
  { from: 'a', to: 'lossy', port: 81, side: 'source', atS: 600, agent: 'agent-1' },
  { from: 'a', to: 'mute', port: 80, side: 'source', atS: 300, agent: 'agent-1' },
  // The other side has not reported that far.
  { from: 'a', to: 'b', port: 9000, side: 'source', atS: hour - 40, agent: 'agent-1' },
  // The pod is masqueraded as its node.
  { from: 'a', to: 'db-1', port: 1521, side: 'source', atS: 400, agent: 'agent-1' },
  { from: 'n1', to: 'db-1', port: 1521, side: 'destination', atS: 400, agent: 'agent-db' },
  // The source asks a service and does not see which pod answers.
  { from: 'a', to: 'web', port: 80, side: 'source', atS: 500, agent: 'agent-1' },
  { from: 'a', to: 'b', port: 8080, side: 'destination', atS: 500, agent: 'agent-2' },
  // Each side is on its side of the border of the window.
  { from: 'a', to: 'b', port: 4000, side: 'source', atS: 2, agent: 'agent-1' },
  { from: 'a', to: 'b', port: 4000, side: 'destination', atS: -5, agent: 'agent-2' },
  // One agent sees both ends.
  { from: 'a', to: 'neighbour', port: 80, side: 'source', atS: 300, agent: 'agent-1' },
  // A machine whose agent runs elsewhere: it spoke for it before.
  { from: 'a', to: 'mail', port: 25, side: 'source', atS: 300, agent: 'agent-1' },
  { from: 'b', to: 'mail', port: 143, side: 'source', atS: 300, agent: 'agent-2' },
  { from: 'b', to: 'mail', port: 143, side: 'destination', atS: 300, agent: 'agent-farm' },
];

describe('one-sided connections', () => {
  test('are findings only where the other side should have seen them', async () => {
    const findings = await oneSided('limit=100');
    assert.deepEqual(described(findings), [
      'destination b->a:22 not-seen',
      'source a->b:5432 not-seen',
      'source a->lossy:81 not-seen',
      'source a->mail:25 not-seen',
    ]);
    const never = findings.items.find(({ port }) => port === 5432);
    assert.deepEqual([never?.missing, never?.timedOut, never?.sides], [['agent-2'], 1, ['source']]);
    assert.equal(findings.truncated, false);
    assert.equal(typeof findings.completeness.batchesMissing, 'number');
  });

  test('have one reason each, and are counted by it', async () => {
    const all = await oneSided('state=any&limit=100');
    assert.deepEqual(described(all), [
      'destination a->b:8080 translated',
      'destination b->a:22 not-seen',
      'destination n1->db-1:1521 translated',
      'source a->b:5432 not-seen',
      'source a->b:9000 waiting',
      'source a->db-1:1521 translated',
      'source a->lossy:80 incomplete',
      'source a->lossy:81 not-seen',
      'source a->mail:25 not-seen',
      'source a->mute:80 silent',
      'source a->neighbour:80 same-agent',
      'source a->unwatched:80 no-agent',
      'source a->web:80 no-agent',
    ]);
    assert.deepEqual(all.states, {
      'not-seen': 4,
      waiting: 1,
      incomplete: 1,
      silent: 1,
      translated: 3,
      'same-agent': 1,
      'no-agent': 2,
    });
  });

  test('are asked for by side, by labels and page by page', async () => {
    assert.deepEqual(described(await oneSided('seen_by=destination')), ['destination b->a:22 not-seen']);
    assert.deepEqual(described(await oneSided('dst_app=lossy')), ['source a->lossy:81 not-seen']);
    // The other side says otherwise of the rule, but it did see it.
    assert.deepEqual(described(await oneSided('state=any&port=444&verdict=unexplained')), []);
    const first = await oneSided('limit=3');
    assert.deepEqual([first.items.length, first.total], [3, 4]);
    const second = await oneSided(`limit=3&cursor=${first.next}`);
    assert.equal(second.next, null);
    assert.equal(new Set([...described(first), ...described(second)]).size, 4);
  });

  test('wait until the agent there has reported past them, and are gone when it did see them', async () => {
    const of = async (port: number): Promise<string[]> => described(await oneSided(`state=any&port=${port}`));
    await scene.store.insertRows('batches', batches('agent-2', 'k1', 'n2', -120, hour + 120).slice(-14));
    assert.deepEqual(await of(9000), ['source a->b:9000 not-seen']);
    await scene.store.insertRows('flows', [
      rowOf({ from: 'a', to: 'b', port: 9000, side: 'destination', atS: hour - 39, agent: 'agent-2' }),
    ]);
    assert.deepEqual(await of(9000), []);
  });

  test('wait while the name at the other side may still change, and are gone when it is repaired', async () => {
    const seen = rowOf({ from: 'a', to: 'b', port: 6000, side: 'destination', atS: 700, agent: 'agent-2' });
    const late = { bus_partition: 0, block: '1', row: 0, start_ms: sinceS + 700 };
    const first = {
      ...seen,
      ...late,
      src_workload: '0',
      src_identity: '0',
      src_provenance: 'none',
      src_certainty: 'late',
      version: 1,
      sign: 1,
      pending: 1,
    };
    const { store } = scene;
    await store.insertRows('flows', [
      rowOf({ from: 'a', to: 'b', port: 6000, side: 'source', atS: 700, agent: 'agent-1' }),
    ]);
    assert.deepEqual(described(await oneSided('state=any&port=6000')), ['source a->b:6000 not-seen']);
    await store.insertRows('flows_late', [first]);
    assert.deepEqual(described(await oneSided('state=waiting&port=6000')), ['source a->b:6000 waiting']);
    await store.insertRows('flows_late', [
      { ...first, sign: -1 },
      { ...seen, ...late, version: 2, sign: 1, pending: 0 },
    ]);
    assert.deepEqual(described(await oneSided('state=any&port=6000')), []);
  });

  test('fail a pipeline when asked to, and read well', async () => {
    await scene.app.listen({ host: '127.0.0.1', port: 0 });
    const environment = { EASTWEST_URL: scene.app.listeningOrigin };
    const asked = ['one-sided', '--since', String(sinceS), '--until', String(untilS)];
    const found = await runCommand([...asked, '--seen-by', 'source', '--fail-on-findings'], environment);
    assert.equal(found.code, 3, found.stderr);
    assert.match(found.stdout, /source +a +.* b +.*:5432 .* never arrived/);
    assert.match(found.stderr, /agent there/);
    const none = await runCommand([...asked, '--port', '443', '--fail-on-findings'], environment);
    assert.equal(none.code, 0, none.stderr);
    const json = await runCommand([...asked, '--state', 'any', '--json'], environment);
    assert.deepEqual(JSON.parse(json.stdout).states, (await oneSided('state=any')).states);
  });
});
