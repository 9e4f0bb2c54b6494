/** Losses planted into the real pipeline: API and command line show exactly these, and nothing else. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import { makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { encodeFlowBatch, type FlowBatch } from '../lib/wire/flow-batch.ts';
import { topics } from '../schemas/topics.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { post, publishEstate } from './support/estate-feed.ts';
import type { LedgerAnswer } from './support/ledger-answer.ts';
import { buildScene, runCommand } from './support/query-scene.ts';
import { startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
/** From the last batch of the silent agent to the first of the others, seconds. */
const silenceS = 3;
const day = 86_400_000;

/** What each agent of the estate is made to suffer. */
const planted = {
  silent: 'west-node-001',
  neverHeard: 'west-node-002',
  gap: 'east-node-001',
  droppedAtSource: 'east-node-002',
  dead: 'east-node-003',
  resent: 'appserver-001-agent-001',
  clockAhead: 'oracle-agent-001',
  late: 'backup-agent-001',
  sampling: 'mq-agent-001',
} as const;

interface Sent {
  /** Batches in the order in which they are sent; those of the silent agent come first. */
  readonly first: readonly FlowBatch[];
  readonly later: readonly FlowBatch[];
  /** Appended to the bus as they are: ingest would refuse them. */
  readonly unchecked: readonly { readonly key: string; readonly value: Uint8Array }[];
  readonly written: readonly FlowBatch[];
  readonly resent: readonly FlowBatch[];
  readonly refused: FlowBatch;
}

function isGap({ agentId, sequence }: FlowBatch): boolean {
  return agentId === planted.gap && (sequence === 1 || (sequence >= 5 && sequence <= 7));
}

function plant(all: readonly FlowBatch[]): Sent {
  const of = (agent: string): FlowBatch[] => all.filter(({ agentId }) => agentId === agent);
  const kept = all
    .filter((batch) => batch.agentId !== planted.neverHeard && !isGap(batch))
    .map((batch): FlowBatch => {
      const { agentId, sequence, observedFromMs, observedToMs } = batch;
      if (agentId === planted.droppedAtSource && sequence <= 2)
        return { ...batch, sourceDroppedCount: sequence * 5 };
      if (agentId === planted.sampling) return { ...batch, samplingRate: 64 };
      if (agentId !== planted.clockAhead) return batch;
      const clockOffsetMs = 600_000;
      return {
        ...batch,
        clockOffsetMs,
        clockErrorMs: 5,
        observedFromMs: observedFromMs + clockOffsetMs,
        observedToMs: observedToMs + clockOffsetMs,
      };
    });
  const [refusedWhole] = of(planted.dead).slice(-1);
  assert.ok(refusedWhole);
  const refused = {
    ...refusedWhole,
    observedFromMs: refusedWhole.observedFromMs - 30 * day,
    observedToMs: refusedWhole.observedToMs - 30 * day,
    sourceDroppedCount: 3,
  };
  const written = kept.filter(
    ({ agentId, sequence }) => agentId !== planted.dead || sequence !== refused.sequence,
  );
  // The first two of one agent again; another's third comes at the very end, as out of a spool.
  const resent = written.filter(({ agentId, sequence }) => agentId === planted.resent && sequence <= 2);
  const isLate = ({ agentId, sequence }: FlowBatch): boolean => agentId === planted.late && sequence === 3;
  const first = written.filter(({ agentId }) => agentId === planted.silent);
  const rest = written.filter((batch) => batch.agentId !== planted.silent && !isLate(batch));
  return {
    first,
    later: [...rest, ...resent, ...written.filter(isLate)],
    unchecked: [
      { key: planted.dead, value: Uint8Array.of(1, 2, 3) },
      { key: planted.dead, value: encodeFlowBatch(refused) },
    ],
    written,
    resent,
    refused,
  };
}

function flowsOf(batches: readonly FlowBatch[]): number {
  return batches.reduce((sum, { flows }) => sum + flows.length, 0);
}

async function send(bus: Bus, ingestUrl: string, sent: Sent): Promise<void> {
  for (const batch of sent.first) await post(ingestUrl, encodeFlowBatch(batch));
  const silentFromMs = Date.now();
  await until('the silent agent is silent', 60_000, async () => Date.now() > silentFromMs + silenceS * 1000);
  for (const batch of sent.later) await post(ingestUrl, encodeFlowBatch(batch));
  await bus.append(topics.flows, sent.unchecked);
}

/** Delays of all flows from their end until their batch's line in the ledger, exact, sorted. */
async function exactDelays(store: Store, written: readonly FlowBatch[]): Promise<number[]> {
  const rows = await store.query<{ agent: string; sequence: string; written_ms: string }>(
    "SELECT agent, sequence, toUnixTimestamp64Milli(written) AS written_ms FROM batches WHERE outcome = 'written'",
  );
  const writtenMs = new Map(rows.map((row) => [`${row.agent} ${row.sequence}`, Number(row.written_ms)]));
  return written
    .flatMap(({ agentId, sequence, observedFromMs, clockOffsetMs, flows }) =>
      flows.map(
        ({ startMs, durationMs }) =>
          (writtenMs.get(`${agentId} ${sequence}`) ?? Number.NaN) -
          (observedFromMs - clockOffsetMs + startMs + durationMs),
      ),
    )
    .sort((a, b) => a - b);
}

function check(answer: LedgerAnswer, sent: Sent, all: readonly FlowBatch[]): void {
  const written = sent.written.length;
  const { delayMsP50: _, delayMsP99: __, ...totals } = answer.totals;
  const flows = flowsOf(sent.written);
  assert.deepEqual(totals, {
    batches: written + sent.resent.length + 2,
    batchesWritten: written,
    batchesResent: sent.resent.length,
    batchesDead: 2,
    batchesMissing: 4,
    flowsReceived: flows,
    flowsWritten: flows,
    flowsResent: flowsOf(sent.resent),
    flowsRefused: sent.refused.flows.length,
    flowsDroppedAtSource: 5 + 10 + 3,
  });
  assert.deepEqual(answer.causes, [
    { cause: 'time-out-of-range', batches: 1, flows: sent.refused.flows.length },
    { cause: 'undecodable', batches: 1, flows: 0 },
  ]);
  const { bootId } = all.find(({ agentId }) => agentId === planted.gap)!;
  assert.deepEqual(
    answer.gaps
      .map(({ agent, boot, firstMissing, lastMissing, missing }) => [
        agent,
        boot,
        firstMissing,
        lastMissing,
        missing,
      ])
      .sort(),
    [
      [planted.gap, bootId, '1', '1', 1],
      [planted.gap, bootId, '5', '7', 3],
    ],
  );
  const expected = [...new Set(sent.written.map(({ agentId }) => agentId))].sort().map((agent) => {
    const own = sent.written.filter(({ agentId }) => agentId === agent);
    return {
      agent,
      state: agent === planted.silent ? 'silent' : 'reporting',
      samplingRate: agent === planted.sampling ? 64 : 1,
      batches: own.length,
      flows: flowsOf(own),
      batchesResent: agent === planted.resent ? 2 : 0,
      batchesMissing: agent === planted.gap ? 4 : 0,
      flowsDropped: agent === planted.droppedAtSource ? 15 : agent === planted.dead ? 3 : 0,
      flowsRefused: agent === planted.dead ? sent.refused.flows.length : 0,
    };
  });
  assert.deepEqual(
    answer.agents
      .map(
        ({
          agent,
          state,
          samplingRate,
          batches,
          flows: count,
          batchesResent,
          batchesMissing,
          flowsDropped,
          flowsRefused,
        }) => ({
          agent,
          state,
          samplingRate,
          batches,
          flows: count,
          batchesResent,
          batchesMissing,
          flowsDropped,
          flowsRefused,
        }),
      )
      .sort((a, b) => (a.agent < b.agent ? -1 : 1)),
    expected,
  );
  assert.deepEqual(
    answer.nodes.filter(({ state }) => state !== 'reporting').map(({ node, state }) => [node, state]),
    [
      [planted.neverHeard, 'never-reported'],
      [planted.silent, 'silent'],
    ],
  );
  const { completeness } = answer;
  assert.deepEqual(
    [
      completeness.agentsReporting,
      completeness.agentsSilent,
      completeness.agentsSampling,
      completeness.nodesSilent,
      completeness.batchesMissing,
      completeness.flowsDropped,
    ],
    [expected.length - 1, 1, 1, 2, 4, 18 + sent.refused.flows.length],
  );
  // The clock of one agent is ten minutes ahead: freshness is by the common one.
  const newestMs = Math.max(
    ...sent.written.map(({ observedToMs, clockOffsetMs }) => observedToMs - clockOffsetMs),
  );
  assert.equal(completeness.freshestTo, new Date(newestMs).toISOString());
}

test('planted losses are what the ledger shows, and all it shows', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-ledger-'));
  const clickhouse = await startClickHouse();
  const storeConfig = clickhouse.config();
  const store = openStore(storeConfig, { log });
  const busConfig = Parse(BusConfig, Default(BusConfig, {}));
  const bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
  const settings = { EASTWEST_RUNTIME_DATA_DIR: dataDir, EASTWEST_STORE_URL: clickhouse.url };
  const ending: (() => Promise<unknown>)[] = [];
  try {
    await migrate(store, { log });
    await bus.ensureTopics(topicSpecs(busConfig));
    const estate = makeEstate({
      seed: 'ledger',
      size: 'tiny',
      startMs: Date.now() - 120_000,
      flowsPerSecond: 50,
      intervalMs: 5000,
    });
    await publishEstate(bus, estate);
    const step = estate.step(estate.nowMs + 60_000);
    const sent = plant(step.batches);
    const ingest = await startService('ingest', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_INGEST_PORT: '0',
    });
    ending.push(() => ingest.kill());
    const enrich = await startService('enrich', { ...settings, EASTWEST_ENRICH_LINGER_MS: '100' });
    ending.push(() => enrich.kill());
    const ingestUrl = /"url":"([^"]+)"/.exec(ingest.output())?.[1];
    assert.ok(ingestUrl, ingest.output());
    await send(bus, ingestUrl, sent);
    const lines = sent.written.length + sent.resent.length + 2;
    await until(
      'every batch is in the ledger, and the nodes in the inventory',
      30_000,
      async () => {
        const [row] = await store.query<{ lines: string; nodes: string }>(
          "SELECT (SELECT count() FROM batches) AS lines, (SELECT uniqExact(name) FROM workloads WHERE kind = 'node') AS nodes",
        );
        return Number(row?.lines) >= lines && row?.nodes === '5';
      },
      enrich.output,
    );
    const [times] = await store.query<{ silent_s: number; end_s: number }>(
      'SELECT toUnixTimestamp(maxIf(received, agent = {silent:String})) AS silent_s, toUnixTimestamp(max(received)) + 1 AS end_s FROM batches',
      { silent: planted.silent },
    );
    assert.ok(times);
    // However long sending took: who sent nothing since the silence began is silent.
    const app = await buildScene(
      { silentAfterSeconds: times.end_s - times.silent_s - 1, completenessCacheMs: 0 },
      { url: clickhouse.url, database: storeConfig.database, ...storeConfig.reader },
      store,
    );
    ending.push(() => app.close());
    await app.listen({ host: '127.0.0.1', port: 0 });
    const window = ['--since', '1h', '--until', String(times.end_s)];
    const asked = await runCommand(['ledger', ...window, '--json'], {
      EASTWEST_URL: app.listeningOrigin,
    });
    assert.equal(asked.code, 0, asked.stderr);
    check(JSON.parse(asked.stdout), sent, step.batches);
    const answer = (await app.inject(`/api/v1/ledger?since=1h&until=${times.end_s}`)).json<LedgerAnswer>();
    check(answer, sent, step.batches);

    const delays = await exactDelays(store, sent.written);
    for (const [told, share] of [
      [answer.totals.delayMsP50, 0.5],
      [answer.totals.delayMsP99, 0.99],
    ] as const) {
      const exact = delays[Math.ceil(delays.length * share) - 1]!;
      // Ages within an interval of 5 s are told within a sixteenth.
      assert.ok(Math.abs(Number(told) - exact) <= 5000 / 16 + 2, `${share}: ${told}, exactly ${exact}`);
    }

    const shown = await runCommand(['ledger', ...window], { EASTWEST_URL: app.listeningOrigin });
    assert.match(shown.stdout, /batches missing +4\n/);
    assert.match(shown.stdout, /batches dead +2\n/);
    assert.match(shown.stdout, /flows dropped at the source +18\n/);
    assert.match(shown.stdout, /east-node-001 .* 5 to 7 +3 /);
    assert.match(shown.stdout, /west-node-002 +west +never reported/);
    assert.match(shown.stderr, /1 silent, 2 of \d+ nodes silent, 1 sampling, 4 batches missing/);
  } finally {
    for (const end of ending.reverse()) await end();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});
