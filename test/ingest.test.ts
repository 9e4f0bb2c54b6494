import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import avro from 'avsc';
import fc from 'fast-check';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import type { Bus, BusMessage } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { decodeFlowBatch, encodeFlowBatch, type FlowBatch, flowBatchType } from '../lib/wire/flow-batch.ts';
import { topics } from '../schemas/topics.ts';
import { Clock } from '../services/agent/clock.ts';
import { createHttpSender } from '../services/agent/deliver-http.ts';
import { buildIngest } from '../services/ingest/app.ts';
import { framedType } from '../services/ingest/batches.ts';
import { IngestConfig } from '../services/ingest/config.ts';
import { makeIngestMetrics } from '../services/ingest/metrics.ts';
import { Pressure } from '../services/ingest/pressure.ts';
import { makeTokenBook } from '../services/ingest/tokens.ts';
import { startService } from './support/service-process.ts';

const nowMs = Date.UTC(2026, 0, 31, 12);
const token = 'a-token-of-enough-length';
const log = pino({ level: 'silent' });

function makeBatch(flowCount: number, changes: Partial<FlowBatch> = {}): FlowBatch {
  return {
    agentId: 'node-1',
    bootId: 'boot-1',
    sequence: 1,
    cluster: 'east',
    node: 'node-1',
    network: 'east',
    sourceKind: 'conntrack',
    observedFromMs: nowMs - 10_000,
    observedToMs: nowMs,
    sourceDroppedCount: 0,
    samplingRate: 1,
    clockOffsetMs: 0,
    clockErrorMs: -1,
    strings: ['', 'db.example'],
    flows: Array.from({ length: flowCount }, (_, i) => ({
      startMs: i % 10_000,
      durationMs: 20,
      sourceAddress: Buffer.from([10, 0, i >> 8, i & 255]),
      sourcePort: 1024 + (i % 60_000),
      destinationAddress: Buffer.from([10, 1, 0, 1]),
      destinationPort: 5432,
      protocol: 6,
      originalDestinationAddress: Buffer.alloc(0),
      originalDestinationPort: 0,
      reporter: 'source',
      bytesForward: 100 + i,
      bytesReverse: 2000,
      packetsForward: 3,
      packetsReverse: 4,
      connectionCount: 1,
      flags: 27,
      state: 'closed',
      action: 'forwarded',
      actionReason: 0,
      dnsName: 1,
      processName: 0,
      sourceHint: 0,
      destinationHint: 0,
    })),
    ...changes,
  };
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

interface Problem {
  readonly status: number;
  readonly type: string;
  readonly detail: string;
  readonly errors?: readonly { readonly path: string; readonly message: string }[];
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > end) assert.fail(`not in time: ${what}`);
    await delay(10);
  }
}

describe('ingest', () => {
  let dataDir: string;
  let bus: Bus;
  let reached: Bus | string;
  let app: FastifyInstance;
  let url: string;
  let metrics: Registry;
  const messages: Record<string, BusMessage[]> = { [topics.flows]: [], [topics.dead]: [] };

  async function open(
    changes: Partial<IngestConfig> = {},
    now: () => number = () => nowMs,
  ): Promise<{ app: FastifyInstance; url: string }> {
    const tokens = makeTokenBook({
      [token]: { agents: 'node-*', networks: ['east', 'default'], clusters: [] },
    });
    const config = { ...Parse(IngestConfig, Default(IngestConfig, {})), ...changes };
    metrics = new Registry();
    const built = buildIngest({
      config,
      bus: () => reached,
      onAppendError: () => undefined,
      tokens: () => tokens,
      pressure: new Pressure(config),
      metrics: makeIngestMetrics(metrics),
      log,
      now,
    });
    return { app: built, url: `${await built.listen({ host: '127.0.0.1', port: 0 })}/v1/flows` };
  }

  before(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'eastwest-ingest-'));
    const config = Parse(BusConfig, Default(BusConfig, {}));
    bus = await openBus(config, { dataDir, log, clientId: 'test' });
    await bus.ensureTopics(topicSpecs(config));
    reached = bus;
    for (const topic of [topics.flows, topics.dead]) {
      await bus.tail({
        topic,
        onMessages: (_, more) => void messages[topic]?.push(...more),
        onCaughtUp: () => undefined,
        onError: (error) => assert.fail(error),
      });
    }
    ({ app, url } = await open());
  });
  after(async () => {
    await app.close();
    await bus.close();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function post(body: Uint8Array | string, headers: Record<string, string> = {}, to = url) {
    const response = await fetch(to, {
      method: 'POST',
      body,
      headers: {
        'content-type': typeof body === 'string' ? 'application/json' : framedType,
        authorization: `Bearer ${token}`,
        ...headers,
      },
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: JSON.parse(text) as Problem & { accepted?: object },
    };
  }

  /** What is on the bus of an agent, decoded; waits until there are so many. */
  async function onBus(agentId: string, count: number): Promise<FlowBatch[]> {
    const of = () => messages[topics.flows]!.filter(({ key }) => key === agentId);
    await until(`${count} messages of ${agentId}`, () => of().length >= count);
    return of().map(({ value }) => decodeFlowBatch(value!));
  }

  it('takes a framed batch byte for byte, plain, gzip and zstd, and answers once the bus has it', async () => {
    const message = encodeFlowBatch(makeBatch(500, { agentId: 'node-framed' }));
    for (const [encoding, body] of [
      ['identity', message],
      ['gzip', gzipSync(message)],
      ['zstd', zstdCompressSync(message)],
    ] as const) {
      const { status, body: answer } = await post(body, { 'content-encoding': encoding });
      assert.equal(status, 202, JSON.stringify(answer));
      assert.deepEqual(answer.accepted, { batches: 1, flows: 500 });
    }
    // The same batch three times: dropping repeats is the enricher's, who knows what was written.
    await onBus('node-framed', 3);
    for (const { value } of messages[topics.flows]!.filter(({ key }) => key === 'node-framed')) {
      assert.deepEqual(Buffer.from(value!), message);
    }
  });

  it("takes JSON in people's words and puts the same on the bus as an agent would", async () => {
    const { status } = await post(
      JSON.stringify({
        agentId: 'node-json',
        cluster: 'east',
        flows: [
          {
            start: '2026-01-31T13:59:50+02:00',
            end: nowMs - 5000,
            sourceAddress: '10.0.0.1',
            sourcePort: 40_000,
            destinationAddress: '2001:db8::1',
            destinationPort: 443,
            protocol: 'tcp',
            dnsName: 'api.example',
            state: 'closed',
          },
        ],
      }),
    );
    assert.equal(status, 202);
    const [batch] = await onBus('node-json', 1);
    const [flow] = batch!.flows;
    assert.equal(batch!.network, 'east');
    assert.equal(batch!.observedFromMs + flow!.startMs, nowMs - 10_000);
    assert.equal(flow!.durationMs, 5000);
    assert.equal(flow!.destinationAddress.length, 16);
    assert.equal(batch!.strings[flow!.dnsName], 'api.example');
    assert.deepEqual([flow!.protocol, flow!.state, flow!.connectionCount], [6, 'closed', 1]);
  });

  it('gives the same JSON document the same boot and sequence, so that it counts once', async () => {
    const flow = { start: nowMs, sourceAddress: '10.0.0.1', destinationAddress: '10.0.0.2', protocol: 17 };
    const twice = JSON.stringify({ agentId: 'node-twice', flows: [flow] });
    const other = JSON.stringify({ agentId: 'node-twice', flows: [{ ...flow, sourcePort: 7 }] });
    for (const body of [twice, twice, other]) assert.equal((await post(body)).status, 202);
    const boots = (await onBus('node-twice', 3)).map(({ bootId, sequence }) => `${bootId}/${sequence}`);
    assert.equal(new Set(boots).size, 2);
  });

  it('names each wrong value of a JSON document by its path', async () => {
    const good = { start: nowMs, sourceAddress: '10.0.0.1', destinationAddress: '10.0.0.2', protocol: 'tcp' };
    const cases = [
      [{ ...good, destinationPort: 70_000 }, 'flows[1].destinationPort', /is 70000.*65535/],
      [{ ...good, sourceAddress: '10.0.0.256' }, 'flows[1].sourceAddress', /10\.0\.0\.256.*IPv4/],
      [{ ...good, protocol: 'tpc' }, 'flows[1].protocol', /tpc.*tcp/],
      [{ ...good, dstPort: 5 }, 'flows[1].dstPort', /is no field/],
      [{ ...good, start: undefined }, 'flows[1].start', /is missing/],
      [{ ...good, start: '2026-01-31 12:00' }, 'flows[1].start', /ISO 8601/],
      [{ ...good, end: nowMs - 1 }, 'flows[1].end', /before start/],
      [{ ...good, bytesForward: -1 }, 'flows[1].bytesForward', /is -1/],
    ] as const;
    for (const [flow, path, message] of cases) {
      const { status, body, headers } = await post(
        JSON.stringify({ agentId: 'node-1', flows: [good, flow] }),
      );
      assert.equal(status, 422, path);
      assert.match(headers.get('content-type') ?? '', /^application\/problem\+json/);
      const error = body.errors?.find((one) => one.path === path);
      assert.match(error?.message ?? JSON.stringify(body), message);
    }
  });

  it('names the wrong value of an Avro batch by its path', async () => {
    const batch = makeBatch(20);
    batch.flows[17] = { ...batch.flows[17]!, destinationPort: 70_000 };
    const { status, body } = await post(encodeFlowBatch(batch));
    assert.equal(status, 422);
    assert.equal(body.errors?.[0]?.path, 'flows[17].destinationPort');
    assert.match(body.detail, /flows\[17\]\.destinationPort.*70000.*65535/);
  });

  it('takes all batches of a list or none', async () => {
    const flow = { start: nowMs, sourceAddress: '10.0.0.1', destinationAddress: '10.0.0.2', protocol: 'tcp' };
    const good = { agentId: 'node-list', flows: [flow] };
    const far = { agentId: 'node-list', flows: [{ ...flow, start: 5 }] };
    const refused = await post(JSON.stringify([good, far]));
    assert.equal(refused.status, 422);
    assert.match(refused.body.errors?.[0]?.path ?? '', /^\[1\]\./);
    const taken = await post(JSON.stringify([good, { ...good, node: 'x' }]));
    assert.deepEqual(taken.body.accepted, { batches: 2, flows: 2 });
    assert.equal((await onBus('node-list', 2)).length, 2);
  });

  it('asks for a token, and holds its bearer to agents and networks', async () => {
    const message = encodeFlowBatch(makeBatch(1));
    const none = await post(message, { authorization: '' });
    assert.equal(none.status, 401);
    assert.match(none.headers.get('www-authenticate') ?? '', /Bearer/);
    assert.equal((await post(message, { authorization: 'Bearer another-token-of-length' })).status, 401);
    assert.equal((await post(encodeFlowBatch(makeBatch(1, { agentId: 'other' })))).status, 403);
    assert.equal((await post(encodeFlowBatch(makeBatch(1, { network: 'west' })))).status, 403);
    assert.equal((await post(message)).status, 202);
  });

  it('refuses times far in the past and the future, of the batch and of a flow', async () => {
    const dayMs = 86_400_000;
    const cases: [Partial<FlowBatch>, string][] = [
      [{ observedFromMs: nowMs - 8 * dayMs }, 'observedFromMs'],
      [{ observedToMs: nowMs + dayMs }, 'observedToMs'],
      [{ flows: [{ ...makeBatch(1).flows[0]!, startMs: -8 * dayMs }] }, 'flows[0].startMs'],
      [{ flows: [{ ...makeBatch(1).flows[0]!, startMs: dayMs }] }, 'flows[0].startMs'],
    ];
    for (const [changes, path] of cases) {
      const { status, body } = await post(encodeFlowBatch(makeBatch(1, changes)));
      assert.equal(status, 422, path);
      assert.equal(body.type, 'urn:eastwest:problem:time-out-of-range');
      assert.equal(body.errors?.[0]?.path, path);
    }
  });

  it('takes times that only a measured clock makes right, and refuses those that it makes wrong', async () => {
    const hourMs = 3_600_000;
    const ahead = { observedFromMs: nowMs + hourMs - 10_000, observedToMs: nowMs + hourMs };
    const measured = { clockOffsetMs: hourMs, clockErrorMs: 2 };
    const send = async (changes: Partial<FlowBatch>) => post(encodeFlowBatch(makeBatch(1, changes)));
    assert.equal((await send({ ...ahead, ...measured })).status, 202);
    assert.equal((await send(ahead)).status, 422);
    const wrong = await send({ clockOffsetMs: -hourMs, clockErrorMs: 2 });
    assert.equal(wrong.status, 422);
    assert.match(
      wrong.body.detail,
      /observedFromMs is .* by a clock that is -3600000 ms ahead .*in the future/,
    );
    const nonsense = await send({ clockErrorMs: -2 });
    assert.deepEqual([nonsense.status, nonsense.body.errors?.[0]?.path], [422, 'clockErrorMs']);
    const unmeasured = await send({ ...ahead, clockOffsetMs: hourMs, clockErrorMs: -1 });
    assert.deepEqual([unmeasured.status, unmeasured.body.errors?.[0]?.path], [422, 'clockOffsetMs']);
  });

  it('takes what a JSON sender knows of its clock, both figures or none', async () => {
    const flow = { start: nowMs, sourceAddress: '10.0.0.1', destinationAddress: '10.0.0.2', protocol: 'tcp' };
    const send = async (more: object) =>
      post(JSON.stringify({ agentId: 'node-clock', flows: [flow], ...more }));
    assert.equal((await send({ clockOffsetMs: -70, clockErrorMs: 4 })).status, 202);
    assert.equal((await send({})).status, 202);
    const [first, second] = await onBus('node-clock', 2);
    assert.deepEqual([first?.clockOffsetMs, first?.clockErrorMs], [-70, 4]);
    assert.deepEqual([second?.clockOffsetMs, second?.clockErrorMs], [0, -1]);
    const half = await send({ clockOffsetMs: -70 });
    assert.deepEqual([half.status, half.body.errors?.[0]?.path], [422, 'clockErrorMs']);
    const text = await send({ clockOffsetMs: '1s', clockErrorMs: 1 });
    assert.match(text.body.errors?.[0]?.message ?? '', /"1s".*ahead of that of ingest/);
  });

  it('tells its time with every answer, so that an agent can measure how far its own clock is off', async () => {
    for (const [status, body] of [
      [202, encodeFlowBatch(makeBatch(1))],
      [400, Buffer.from('hello')],
    ] as const) {
      const answer = await post(body);
      assert.equal(answer.status, status);
      assert.equal(answer.headers.get('eastwest-time-ms'), String(nowMs));
    }
    const unnamed = await fetch(url.replace('/v1/flows', '/v1/time'));
    assert.deepEqual([unnamed.status, await unnamed.json()], [200, { timeMs: nowMs }]);
    assert.equal(unnamed.headers.get('cache-control'), 'no-store');

    const skewMs = -87_654.5;
    const ownMetrics = metrics;
    const skewed = await open({}, () => Date.now() + skewMs);
    const clock = new Clock({
      wallMs: Date.now,
      monotonicMs: () => performance.now(),
      onJump: (byMs) => assert.fail(`this machine's clock jumped by ${byMs} ms in the test`),
    });
    const sender = createHttpSender({
      ingestUrl: skewed.url.replace('/v1/flows', ''),
      token,
      compression: 'none',
      timeoutMs: 10_000,
      onTime: (reading) => clock.add(reading),
    });
    try {
      const { signal } = new AbortController();
      const beganMs = performance.now();
      assert.equal(clock.measure(beganMs).errorMs, -1);
      const message = encodeFlowBatch(makeBatch(1, { observedFromMs: Date.now(), observedToMs: Date.now() }));
      const sent = await sender.send({ bootId: 'b', sequence: 1, flowCount: 1, bytes: message }, signal);
      assert.equal(sent.kind, 'delivered', JSON.stringify(sent));
      const ofDelivery = clock.measure(beganMs);
      assert.ok(Math.abs(ofDelivery.offsetMs + skewMs) <= ofDelivery.errorMs, JSON.stringify(ofDelivery));
      assert.equal(await sender.askTime(signal), 'again');
      const ofProbe = clock.measure(beganMs);
      assert.ok(Math.abs(ofProbe.offsetMs + skewMs) <= ofProbe.errorMs, JSON.stringify(ofProbe));
      assert.ok(ofProbe.errorMs >= 0 && ofProbe.errorMs <= ofDelivery.errorMs);
    } finally {
      metrics = ownMetrics;
      await sender.close();
      await skewed.app.close();
    }
  });

  it('refuses bombs, huge bodies and a million flows without holding them', async () => {
    const bomb = Buffer.alloc(64 * 1024 * 1024);
    const heldBefore = process.memoryUsage().arrayBuffers;
    for (const [encoding, body] of [
      ['gzip', gzipSync(bomb)],
      ['zstd', zstdCompressSync(bomb)],
    ] as const) {
      assert.ok(body.length < 100_000);
      assert.equal((await post(body, { 'content-encoding': encoding })).status, 413);
    }
    assert.ok(process.memoryUsage().arrayBuffers - heldBefore < 32 * 1024 * 1024);
    assert.equal((await post(Buffer.alloc(5 * 1024 * 1024))).status, 413);

    // The bytes of one flow a million times over, between the head of a batch and the end of its list.
    const head = encodeFlowBatch(makeBatch(0)).subarray(0, -1);
    const flow = encodeFlowBatch(makeBatch(1)).subarray(head.length + 1, -1);
    const count = avro.Type.forSchema('long').toBuffer(1_000_000);
    const many = Buffer.concat([head, count, Buffer.alloc(flow.length * 1_000_000, flow), Buffer.alloc(1)]);
    assert.equal((await post(gzipSync(many), { 'content-encoding': 'gzip' })).status, 413);
    const over = await post(gzipSync(encodeFlowBatch(makeBatch(20_001))), { 'content-encoding': 'gzip' });
    assert.deepEqual([over.status, over.body.type], [413, 'urn:eastwest:problem:too-many-flows']);
    const json = JSON.stringify({ agentId: 'node-1', flows: new Array(20_001).fill({}) });
    assert.equal((await post(json)).body.type, 'urn:eastwest:problem:too-many-flows');
  });

  it('says what it cannot read, and keeps a copy with the reason on the dead letter topic', async () => {
    const message = encodeFlowBatch(makeBatch(1));
    const unknown = Buffer.from(message);
    unknown.fill(9, 2, 10);
    const cases = [
      [unknown, {}, 415, 'unknown-schema'],
      [message.subarray(0, 40), {}, 400, 'undecodable'],
      [Buffer.from('hello'), {}, 400, 'undecodable'],
      ['{"agentId":', {}, 400, 'undecodable'],
      [message, { 'content-type': 'text/plain' }, 415, 'unsupported-type'],
      [message, { 'content-encoding': 'br' }, 415, 'unsupported-encoding'],
      [message, { 'content-encoding': 'gzip' }, 400, 'bad-encoding'],
      [gzipSync(message).subarray(0, 50), { 'content-encoding': 'gzip' }, 400, 'bad-encoding'],
    ] as const;
    for (const [body, headers, status, cause] of cases) {
      const answer = await post(body, headers as Record<string, string>);
      assert.deepEqual([answer.status, answer.body.type], [status, `urn:eastwest:problem:${cause}`]);
      assert.ok(answer.body.detail.length > 10);
    }
    const dead = () => messages[topics.dead]!.find(({ headers }) => headers.reason === 'unknown-schema');
    await until('the dead letter is there', () => dead() !== undefined);
    assert.deepEqual(Buffer.from(dead()!.value!), unknown);
    assert.match(dead()!.headers.detail ?? '', /0909090909090909/);
    const text = await metrics.metrics();
    assert.match(text, /eastwest_ingest_refused_total\{cause="unknown-schema"\} [1-9]/);
  });

  it('never fails on broken bytes, and puts nothing on the bus that avsc would read otherwise', async () => {
    const message = encodeFlowBatch(makeBatch(3, { agentId: 'node-fuzz' }));
    const byte = fc.integer({ min: 0, max: 255 });
    const broken = fc.oneof(
      fc.integer({ min: 0, max: message.length - 1 }).map((length) => message.subarray(0, length)),
      fc
        .array(fc.tuple(fc.integer({ min: 10, max: message.length - 1 }), byte), {
          minLength: 1,
          maxLength: 5,
        })
        .map((changes) => {
          const copy = Buffer.from(message);
          for (const [at, value] of changes) copy[at] = value;
          return copy;
        }),
    );
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(broken, async (body) => {
        const { statusCode, payload } = await app.inject({
          method: 'POST',
          url: '/v1/flows',
          headers: { 'content-type': framedType, authorization: `Bearer ${token}` },
          payload: body,
        });
        assert.ok(statusCode === 202 || (statusCode >= 400 && statusCode < 500), `${statusCode} ${payload}`);
        if (statusCode !== 202) return;
        taken++;
        const batch = decodeFlowBatch(body);
        const again = flowBatchType.fromBuffer(flowBatchType.toBuffer(batch));
        assert.deepEqual(plain(again), plain(batch));
        for (const flow of batch.flows) {
          assert.ok(flow.destinationPort >= 0 && flow.destinationPort <= 65_535);
          assert.ok([4, 16].includes(flow.sourceAddress.length));
        }
      }),
      { numRuns: 400 },
    );
    assert.ok(taken > 0, 'some changes leave a batch that is fine');
  });

  it('answers 503 while the bus is away, and 429 while too much is in flight; both say when to come again', async () => {
    const message = encodeFlowBatch(makeBatch(100));
    reached = 'connection refused';
    try {
      const away = await post(message);
      assert.equal(away.status, 503);
      assert.equal(away.headers.get('retry-after'), '2');
      assert.match(away.body.detail, /connection refused/);
    } finally {
      reached = bus;
    }

    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const slow: Bus = { ...bus, kind: bus.kind, append: () => held };
    reached = slow;
    const narrow = await open({ maxInFlightBytes: message.length + 100, maxAppendWaitMs: 300 });
    try {
      const first = post(message, {}, narrow.url);
      await until('the first is held', async () => (await post(message, {}, narrow.url)).status === 429);
      await until('the bus counts as away', async () => (await post(message, {}, narrow.url)).status === 503);
      release();
      assert.equal((await first).status, 202);
      assert.equal((await post(message, {}, narrow.url)).status, 202);
    } finally {
      release();
      reached = bus;
      await narrow.app.close();
    }
  });

  it('runs as a process, without tokens for this machine only, and stops within its time', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'eastwest-ingest-'));
    const service = await startService('ingest', {
      EASTWEST_RUNTIME_DATA_DIR: folder,
      EASTWEST_INGEST_PORT: '0',
    });
    try {
      await until('it is ready', async () => (await fetch(`${service.probes}/readyz`)).ok);
      const at = /"url":"([^"]+)"/.exec(service.output())?.[1] ?? '';
      const flow = {
        start: Date.now(),
        sourceAddress: '10.0.0.1',
        destinationAddress: '10.0.0.2',
        protocol: 'tcp',
      };
      const body = JSON.stringify({ agentId: 'laptop', flows: [flow] });
      assert.equal((await post(body, { authorization: '' }, `${at}/v1/flows`)).status, 202);
      const proxied = await post(
        body,
        { authorization: '', 'x-forwarded-for': '192.0.2.1' },
        `${at}/v1/flows`,
      );
      assert.equal(proxied.status, 401);
      assert.equal(await service.stop(), 0);
    } finally {
      await service.kill();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
