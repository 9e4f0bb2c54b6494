/** The ledger says exactly what arrived, what is missing, who is silent and how late flows were, for any window. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { numbers } from '../bench/policy-world.ts';
import { workloadId } from '../lib/inventory/ids.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import type { LedgerAnswer } from './support/ledger-answer.ts';
import { clickhouseTime } from './support/query-rows.ts';
import { buildScene } from './support/query-scene.ts';

const hour = 3600;
const day = 24 * hour;
/** Begin of the window, an hour long, some days ago; seconds. */
const sinceS = Math.floor(Date.now() / 1000) - 4 * day;
const untilS = sinceS + hour;

/** A batch that was received so many seconds after the window began, observed in the ten seconds before. */
function batch(agent: string, sequence: number, atS: number, more: Record<string, unknown> = {}) {
  const receivedS = sinceS + atS;
  return {
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
  };
}

/** A node of the inventory that was there from and to so many seconds after the window began. */
function node(name: string, fromS: number, toS: number | null, updatedS: number) {
  return {
    id: String(workloadId('c1', 'node', name)),
    kind: 'node',
    cluster: 'c1',
    name,
    node: name,
    uid: `uid-${name}`,
    identity: '1',
    network: 'default',
    ip: '::ffff:10.0.0.1',
    valid_from: clickhouseTime((sinceS + fromS) * 1000),
    valid_to: toS === null ? '2200-01-01 00:00:00.000' : clickhouseTime((sinceS + toS) * 1000),
    updated_at: sinceS + updatedS,
  };
}

let clickhouse: TestClickHouse;
let store: Store;
let app: FastifyInstance;

async function ledger(fromS: number, toS: number | null, more = ''): Promise<LedgerAnswer> {
  const until = toS === null ? '' : `&until=${sinceS + toS}`;
  const answer = await app.inject(`/api/v1/ledger?since=${sinceS + fromS}${until}${more}`);
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json<LedgerAnswer>();
}

function gapsOf(answer: LedgerAnswer, agent: string): string[] {
  return answer.gaps
    .filter((gap) => gap.agent === agent)
    .map(
      ({ boot, firstMissing, lastMissing, missing }) =>
        `${boot}: ${firstMissing}-${lastMissing} (${missing})`,
    )
    .sort();
}

before(async () => {
  clickhouse = await startClickHouse();
  const config = clickhouse.config();
  store = openStore(config, { log: pino({ level: 'silent' }) });
  await migrate(store, { log: pino({ level: 'silent' }) });
  app = await buildScene(
    { completenessCacheMs: 0 },
    { url: clickhouse.url, database: config.database, ...config.reader },
    store,
  );
});

after(async () => {
  await app.close();
  await store.close();
  await clickhouse.stop();
});

describe('gaps', () => {
  const series = (agent: string, list: readonly (readonly [sequence: number, atS: number])[], more = {}) =>
    list.map(([sequence, atS]) => batch(agent, sequence, atS, more));

  before(async () => {
    await store.insertRows('batches', [
      // 5 came in the window, after 6; 8 never.
      ...series('filled-in-it', [
        [1, -50],
        [2, -40],
        [3, -30],
        [4, -20],
        [6, -10],
        [5, 10],
        [7, 20],
        [9, 30],
      ]),
      // Lost before and after the window, not in it.
      ...series('lost-elsewhere', [
        [1, -60],
        [4, -40],
        [5, 10],
        [6, 20],
        [7, hour + 10],
        [9, hour + 20],
      ]),
      // Lost for all of the window: its neighbours are outside.
      ...series('lost-around', [
        [1, -20],
        [2, -10],
        [40, hour + 10],
        [41, hour + 20],
      ]),
      // Came from a spool after the window.
      ...series('came-later', [
        [1, 10],
        [4, 40],
        [2, 2 * hour],
        [3, 2 * hour],
      ]),
      // Said nothing for longer than the ledger looks back, then went on, without 101 and 102.
      ...series('long-away', [
        [99, -3 * day],
        [100, -3 * day + 10],
        [103, 10],
        [104, 20],
      ]),
      // Began anew within the window; the first batch of the second boot is lost.
      ...series('restarted', [
        [1, 10],
        [2, 20],
        [4, 30],
      ]),
      ...series(
        'restarted',
        [
          [2, 40],
          [3, 50],
        ],
        { boot: 'b2' },
      ),
      // Its first copy came before the window, or long before the ledger looks; nothing is missing.
      ...series('sent-again', [
        [1, -20],
        [2, -10],
        [3, 20],
      ]),
      ...series('sent-again', [[2, 10]], { outcome: 'resent', flows_written: 0, source_dropped: 5 }),
      // A batch that came but could not be used is dead, not missing; what has no number is no gap.
      ...series('unusable', [
        [1, 10],
        [3, 30],
      ]),
      ...series('unusable', [[2, 20]], {
        outcome: 'dead',
        cause: 'time-out-of-range',
        flows_written: 0,
        flows_refused: 10,
      }),
      ...series('unusable', [[0, 25]], {
        outcome: 'dead',
        cause: 'undecodable',
        boot: '',
        node: '',
        cluster: '',
        flows: 0,
        flows_written: 0,
      }),
      // As many copies as numbers are missing: sums alone would not tell.
      ...series('both', [
        [1, 10],
        [2, 20],
        [5, 50],
      ]),
      ...series(
        'both',
        [
          [1, 30],
          [2, 40],
        ],
        { outcome: 'resent', flows_written: 0 },
      ),
    ]);
  });

  const inWindow: Readonly<Record<string, readonly string[]>> = {
    'filled-in-it': ['b1: 8-8 (1)'],
    'lost-elsewhere': [],
    'lost-around': ['b1: 3-39 (37)'],
    'came-later': [],
    'long-away': ['b1: 101-102 (2)'],
    restarted: ['b1: 3-3 (1)', 'b2: 1-1 (1)'],
    'sent-again': [],
    unusable: [],
    both: ['b1: 3-4 (2)'],
  };

  test('are the numbers between batches that enclose or touch the window, and that never came', async () => {
    const answer = await ledger(0, hour);
    for (const [agent, gaps] of Object.entries(inWindow))
      assert.deepEqual(gapsOf(answer, agent), gaps, agent);
    const missing = 1 + 37 + 2 + 1 + 1 + 2;
    assert.equal(answer.totals.batchesMissing, missing);
    assert.equal(answer.completeness.batchesMissing, missing);
    const byAgent = new Map(answer.agents.map((agent) => [agent.agent, agent.batchesMissing]));
    assert.equal(byAgent.get('restarted'), 2);
    assert.equal(byAgent.get('both'), 2);
    assert.equal(byAgent.get('sent-again'), 0);
    // No batch of it came in the window: it is known from before, and misses what lies around the window.
    assert.equal(byAgent.get('lost-around'), 37);
  });

  test('belong to the windows that they touch, and to no other', async () => {
    const [before, after, open] = await Promise.all([
      ledger(-hour, 0),
      ledger(hour, 2 * hour),
      ledger(-hour, null),
    ]);
    assert.deepEqual(gapsOf(before, 'lost-elsewhere'), ['b1: 2-3 (2)']);
    assert.deepEqual(gapsOf(after, 'lost-elsewhere'), ['b1: 8-8 (1)']);
    assert.deepEqual(gapsOf(open, 'lost-elsewhere'), ['b1: 2-3 (2)', 'b1: 8-8 (1)']);
    assert.deepEqual(gapsOf(open, 'lost-around'), ['b1: 3-39 (37)']);
    assert.deepEqual(gapsOf(open, 'came-later'), []);
  });

  test('say between which times flows are not known', async () => {
    const { gaps } = await ledger(0, hour);
    const around = gaps.find(({ agent }) => agent === 'lost-around');
    const iso = (atS: number): string => new Date((sinceS + atS) * 1000).toISOString();
    assert.deepEqual([around?.from, around?.to, around?.noticed], [iso(-11), iso(hour - 1), iso(hour + 10)]);
    assert.equal(gaps.find(({ boot }) => boot === 'b2')?.from, null);
  });

  test('do not hide what was resent, dead or refused', async () => {
    const { totals, causes, agents } = await ledger(0, hour);
    assert.equal(totals.batchesResent, 3);
    assert.equal(totals.flowsResent, 30);
    assert.equal(totals.batchesDead, 2);
    assert.equal(totals.flowsRefused, 10);
    assert.equal(totals.flowsDroppedAtSource, 0);
    assert.deepEqual(causes, [
      { cause: 'time-out-of-range', batches: 1, flows: 10 },
      { cause: 'undecodable', batches: 1, flows: 0 },
    ]);
    const unusable = agents.find(({ agent }) => agent === 'unusable');
    assert.equal(unusable?.node, 'node-of-unusable');
    assert.equal(agents.find(({ agent }) => agent === 'restarted')?.boots, 2);
  });
});

describe('nodes and agents', () => {
  before(async () => {
    await store.insertRows('workloads', [
      node('node-of-here', -day, null, -day),
      node('node-of-quiet', -day, null, -day),
      node('never', -day, null, -day),
      // Reported once, before the ledger looks.
      node('node-of-ancient', -30 * day, null, -30 * day),
      // Its interval ended in the window: written open first, closed in the same second.
      node('node-of-ended', -day, null, 100),
      node('node-of-ended', -day, 100, 100),
      // Ended, and never had an agent.
      node('ended-unheard', -day, 100, 100),
      node('just-there', hour - 20, null, hour),
      node('from-tomorrow', day, null, day),
    ]);
    await store.insertRows('batches', [
      batch('here', 1, hour - 30, { sampling_rate: 100 }),
      batch('quiet', 1, 30),
      batch('ended', 1, 60),
      batch('ancient', 1, -20 * day),
      batch('vm-agent', 1, hour - 10, { cluster: '', node: 'db-1' }),
    ]);
  });

  test('are silent when they should report and do not, and gone when the inventory says so', async () => {
    const { nodes, agents, completeness } = await ledger(0, hour);
    const stateOf = new Map(nodes.map((one) => [one.node, `${one.state} ${one.inInventory}`]));
    const found = (names: readonly string[]) => names.map((name) => stateOf.get(name));
    assert.deepEqual(
      found([
        'node-of-here',
        'node-of-quiet',
        'never',
        'node-of-ancient',
        'node-of-ended',
        'ended-unheard',
        'db-1',
      ]),
      [
        'reporting true',
        'silent true',
        'never-reported true',
        'silent true',
        'gone true',
        'gone true',
        'reporting false',
      ],
    );
    assert.deepEqual(found(['just-there', 'from-tomorrow']), [undefined, undefined]);
    assert.equal(
      nodes.find(({ node: name }) => name === 'node-of-ancient')?.lastReceived,
      new Date((sinceS - 20 * day) * 1000).toISOString(),
    );
    const agentStates = new Map(agents.map(({ agent, state }) => [agent, state]));
    assert.deepEqual(
      ['here', 'quiet', 'ended', 'vm-agent', 'ancient'].map((agent) => agentStates.get(agent)),
      ['reporting', 'silent', 'gone', 'reporting', undefined],
    );
    // Counted again from the lists.
    const count = <T>(list: readonly T[], is: (one: T) => boolean): number => list.filter(is).length;
    assert.equal(
      completeness.agentsSilent,
      count(agents, ({ state }) => state === 'silent'),
    );
    assert.equal(
      completeness.agentsReporting,
      count(agents, ({ state }) => state === 'reporting'),
    );
    assert.equal(
      completeness.nodesReporting,
      count(nodes, ({ state }) => state === 'reporting'),
    );
    assert.equal(
      completeness.nodesSilent,
      count(nodes, ({ state }) => state === 'silent' || state === 'never-reported'),
    );
  });

  test('are what they were at the end of an earlier window', async () => {
    const { nodes, agents } = await ledger(0, 90);
    assert.equal(nodes.find(({ node: name }) => name === 'node-of-ended')?.state, 'reporting');
    assert.equal(agents.find(({ agent }) => agent === 'quiet')?.state, 'reporting');
    assert.equal(
      agents.find(({ agent }) => agent === 'here'),
      undefined,
    );
  });

  test('say that they look at some flows only', async () => {
    const { agents, completeness } = await ledger(0, hour);
    assert.equal(agents.find(({ agent }) => agent === 'here')?.samplingRate, 100);
    assert.equal(agents.find(({ agent }) => agent === 'quiet')?.samplingRate, 1);
    assert.equal(completeness.agentsSampling, 1);
  });
});

describe('delays', () => {
  /** A window of its own. */
  const fromS = -2 * day;

  test('are those of flows, from the end of each until its block was queryable', async () => {
    const empty = await ledger(fromS, fromS + hour);
    assert.equal(empty.totals.delayMsP50, null);
    assert.equal(empty.completeness.delayMsP99, null);
    await store.insertRows('batches', [
      // Queryable 2 s after the interval; 60 flows ended with it, 38 four seconds before, 2 nine seconds before.
      batch('d', 1, fromS + 100, {
        flows: 100,
        flows_written: 100,
        end_ages: [0, 4000, 9000],
        end_flows: [60, 38, 2],
      }),
      // A batch without flows, however late, is no delay of a flow; nor is a second copy.
      batch('d', 2, fromS + 110, {
        flows: 0,
        flows_written: 0,
        written: clickhouseTime((sinceS + fromS + 900) * 1000),
      }),
      batch('d', 2, fromS + 120, {
        outcome: 'resent',
        flows_written: 0,
        end_ages: [],
        written: clickhouseTime((sinceS + fromS + 900) * 1000),
      }),
    ]);
    const { totals } = await ledger(fromS, fromS + hour);
    assert.deepEqual([totals.delayMsP50, totals.delayMsP99], [2000, 11_000]);
  });
});

describe('the rollup of batches', () => {
  /** Three hours of their own; every boot is lossy in its own way. */
  const fromS = -60 * hour;
  interface Sent {
    readonly agent: string;
    readonly sequence: number;
    readonly atS: number;
    readonly outcome: 'written' | 'resent' | 'dead';
  }
  const sent: Sent[] = [];

  before(async () => {
    const below = numbers(5);
    for (let agent = 0; agent < 24; agent++) {
      const batchCount = 40 + below(400);
      for (let sequence = 1; sequence <= batchCount; sequence++) {
        // Some lose nothing, some now and then, some runs of numbers, some their first.
        const isLost =
          (agent % 4 === 1 && below(60) === 0) ||
          (agent % 4 === 2 && Math.floor(sequence / 25) % 7 === 3) ||
          (agent % 4 === 3 && (sequence < 3 || below(15) === 0));
        if (isLost) continue;
        // Out of a spool: up to an hour late, and out of order.
        const lateS = below(20) === 0 ? below(hour) : below(9);
        const atS = fromS + sequence * 10 + lateS;
        const outcome = below(40) === 0 ? 'dead' : 'written';
        sent.push({ agent: `rolled-${agent}`, sequence, atS, outcome });
        if (below(30) === 0)
          sent.push({ agent: `rolled-${agent}`, sequence, atS: atS + 1 + below(hour), outcome: 'resent' });
      }
    }
    await store.insertRows(
      'batches',
      sent.map(({ agent, sequence, atS, outcome }) =>
        batch(agent, sequence, atS, {
          outcome,
          source_dropped: sequence % 3,
          sampling_rate: 1 + (sequence % 50),
        }),
      ),
    );
  });

  /** The gaps that touch a window, number by number. */
  function gapsWithin(beginS: number, endS: number): string[] {
    const found: string[] = [];
    for (const [agent, own] of Map.groupBy(sent, (one) => one.agent)) {
      const firstS = new Map<number, number>();
      for (const { sequence, atS } of own)
        firstS.set(sequence, Math.min(firstS.get(sequence) ?? Number.POSITIVE_INFINITY, atS));
      let previous = 0;
      for (const sequence of [...firstS.keys()].sort((a, b) => a - b)) {
        const noticedS = firstS.get(sequence) ?? 0;
        const previousS = firstS.get(previous) ?? noticedS;
        if (
          sequence > previous + 1 &&
          Math.max(noticedS, previousS) >= beginS &&
          Math.min(noticedS, previousS) < endS
        )
          found.push(`${agent} ${previous + 1}-${sequence - 1} noticed ${noticedS}`);
        previous = sequence;
      }
    }
    return found.sort();
  }

  const windows: readonly (readonly [fromS: number, toS: number])[] = [
    [fromS, fromS + 3 * hour],
    [fromS + 777, fromS + 4321],
    [fromS + 1801, fromS + 1802],
    [fromS + 5000, fromS + 5400],
  ];

  test('says the same of gaps as all numbers one by one', async () => {
    for (const [beginS, endS] of windows) {
      const answer = await ledger(beginS, endS);
      const found = answer.gaps
        .filter(({ agent }) => agent.startsWith('rolled-'))
        .map(({ agent, firstMissing, lastMissing, noticed }) => {
          const noticedS = Date.parse(noticed ?? '') / 1000 - sinceS;
          return `${agent} ${firstMissing}-${lastMissing} noticed ${noticedS}`;
        });
      assert.deepEqual(found.sort(), gapsWithin(beginS, endS));
      assert.equal(answer.totals.batches, sent.filter(({ atS }) => atS >= beginS && atS < endS).length);
    }
    assert.ok(gapsWithin(...windows[0]!).length > 50);
  });

  test('gives the answers that single batches give, as before it was there', async () => {
    const rolled = [];
    for (const [beginS, endS] of windows) rolled.push(await ledger(beginS, endS));
    await store.command("INSERT INTO batches_15m_from VALUES (toDateTime('2100-01-01 00:00:00'))");
    try {
      for (const [i, [beginS, endS]] of windows.entries())
        assert.deepEqual(await ledger(beginS, endS), rolled[i]);
    } finally {
      await store.command('TRUNCATE TABLE batches_15m_from');
    }
  });

  test('tells delays of long windows in classes, off by a hundredth at most', async () => {
    // As much as a window of 200,000 batches holds, in few rows of the store.
    const longS = -80 * hour;
    const at = `fromUnixTimestamp64Milli(toInt64(${(sinceS + longS) * 1000} + number * 5))`;
    await store.command(`INSERT INTO batches (agent, boot, sequence, node, observed_to, received, written, flows, flows_written, outcome, end_ages, end_flows)
      SELECT 'long', 'b1', number + 1, 'n', ${at} AS seen, seen, seen + toIntervalMillisecond(1000 + number % 9000), 10, 10, 'written', [0], [10]
      FROM numbers(200000)`);
    const { totals } = await ledger(longS - 10, longS + hour);
    assert.equal(totals.batchesWritten, 200_000);
    for (const [told, exact] of [
      [totals.delayMsP50, 5500],
      [totals.delayMsP99, 9910],
    ] as const)
      assert.ok(Math.abs(Number(told) - exact) <= exact / 100, `${told}, exactly ${exact}`);
  });
});

test('a batch of the last moment of a window is in it', async () => {
  const fromS = -2 * day - 2 * hour;
  const lastMs = (sinceS + fromS + hour) * 1000 - 1;
  await store.insertRows('batches', [
    batch('at-the-end', 1, fromS, { received: clickhouseTime(lastMs), written: clickhouseTime(lastMs) }),
  ]);
  const [inside, after] = await Promise.all([
    ledger(fromS, fromS + hour),
    ledger(fromS + hour, fromS + 2 * hour),
  ]);
  assert.deepEqual([inside.totals.batches, after.totals.batches], [1, 0]);
  assert.equal(inside.agents.find(({ agent }) => agent === 'at-the-end')?.batches, 1);
});

interface OpenApi {
  paths: Record<
    string,
    {
      get?: {
        responses: Record<
          string,
          { content?: Record<string, { schema: { properties?: Record<string, unknown> } }> }
        >;
      };
    }
  >;
}

test('every answer of the API about a window carries completeness', async () => {
  const document = (await app.inject('/openapi.json')).json<OpenApi>();
  const aggregates: string[] = [];
  for (const [path, { get }] of Object.entries(document.paths)) {
    const properties = get?.responses['200']?.content?.['application/json']?.schema.properties ?? {};
    // Alerts are a list of messages: nothing is summed up.
    if (!('window' in properties) || path === '/api/v1/alerts') continue;
    aggregates.push(path);
    assert.ok('completeness' in properties, `${path} does not document it`);
    if (path.includes('{')) continue;
    const answer = await app.inject(`${path}?since=${sinceS}&until=${untilS}`);
    assert.equal(answer.statusCode, 200, `${path}: ${answer.body}`);
    assert.equal(typeof answer.json().completeness.batchesMissing, 'number', path);
  }
  for (const name of ['connections', 'edges', 'unknown', 'coverage', 'map', 'rules', 'ledger'])
    assert.ok(aggregates.includes(`/api/v1/${name}`), name);
});
