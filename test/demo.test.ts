/** The demo service over a real embedded bus, against a door that is busy at first. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import { DemoConfig } from '../estate/config.ts';
import { makeEstate } from '../estate/index.ts';
import { service } from '../estate/main.ts';
import { readTopic } from '../estate/memory.ts';
import { NaiveInventory } from '../estate/naive.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { formatAddress, toMapped } from '../lib/net/address.ts';
import { RuntimeConfig } from '../lib/runtime/config.ts';
import { shapeOf, withDefaults } from '../lib/runtime/config-shape.ts';
import { decodeFlowBatch, type FlowBatch } from '../lib/wire/flow-batch.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';

const log = pino({ level: 'silent' });
const token = 'token-of-the-demo-agents';

interface Door {
  readonly url: string;
  readonly batches: FlowBatch[];
  refusals: number;
  close(): Promise<void>;
}

/** Answers 503 a few times, refuses a wrong token, and takes batches after that. */
async function openDoor(): Promise<Door> {
  const batches: FlowBatch[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      if (request.headers.authorization !== `Bearer ${token}`) response.statusCode = 401;
      else if (door.refusals++ < 3) response.writeHead(503, { 'retry-after': '0' });
      else {
        assert.equal(request.url, '/v1/flows');
        assert.equal(request.headers['content-type'], 'application/vnd.eastwest.flow-batch+avro');
        batches.push(decodeFlowBatch(Buffer.concat(chunks)));
        response.statusCode = 202;
      }
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const door: Door = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    batches,
    refusals: 0,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return door;
}

/** Runs the demo until `enough`; resolves with how long it took to stop, ms. */
async function runDemo(dataDir: string, door: Door, seed: string, enough: () => boolean): Promise<number> {
  const stop = new AbortController();
  const demo = Parse(DemoConfig, {
    ...(Default(DemoConfig, {}) as object),
    size: 'tiny',
    seed,
    flowsPerSecond: 300,
    intervalMs: 2000,
    churnPerMinute: 1,
    ingestUrl: door.url,
    ingestToken: token,
  });
  const running = service.run({
    config: {
      runtime: Parse(RuntimeConfig, withDefaults(shapeOf(RuntimeConfig), { dataDir })),
      bus: Parse(BusConfig, Default(BusConfig, {})),
      demo,
    },
    log,
    metrics: new Registry(),
    readiness: { set: () => undefined },
    memory: { isTight: () => false },
    signal: stop.signal,
  });
  const failed = running.then(() => assert.ok(stop.signal.aborted, 'the demo ended by itself'));
  const deadlineMs = performance.now() + 30_000;
  while (!enough()) {
    assert.ok(performance.now() < deadlineMs, 'not enough came within 30 s');
    await Promise.race([sleep(50), failed]);
  }
  const stoppedMs = performance.now();
  stop.abort(new Error('enough'));
  await running;
  return performance.now() - stoppedMs;
}

async function readAll(dataDir: string): Promise<{ events: InventoryEvent[]; policies: PolicyDocument[] }> {
  const bus = await openBus(Parse(BusConfig, Default(BusConfig, {})), { dataDir, log, clientId: 'test' });
  const newest = new Map<string | null, InventoryEvent>();
  const policies: PolicyDocument[] = [];
  await readTopic(bus, topics.inventory, ({ key, value }) => {
    if (value === null) newest.delete(key);
    else newest.set(key, JSON.parse(Buffer.from(value).toString('utf8')) as InventoryEvent);
  });
  await readTopic(bus, topics.policy, ({ value }) => {
    if (value !== null) policies.push(JSON.parse(Buffer.from(value).toString('utf8')) as PolicyDocument);
  });
  await bus.close();
  return { events: [...newest.values()], policies };
}

test('the demo streams planted connections at once, through a busy door, and goes on after a restart', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-demo-'));
  const door = await openDoor();
  const { planted } = makeEstate({ seed: 'x', size: 'tiny', startMs: Date.now() });
  const came = (batches: readonly FlowBatch[], port: number, address: string): boolean =>
    batches.some(({ flows }) =>
      flows.some(
        (flow) =>
          flow.destinationPort === port && formatAddress(toMapped(flow.destinationAddress)) === address,
      ),
    );
  try {
    for (const life of [1, 2]) {
      door.batches.length = 0;
      door.refusals = 0;
      const tookMs = await runDemo(dataDir, door, 'x', () => {
        const flowCount = door.batches.reduce((sum, { flows }) => sum + flows.length, 0);
        const all = planted.every(({ port, destination }) => came(door.batches, port, destination.address));
        return all && flowCount > 1500;
      });
      assert.ok(tookMs < 3000, `stopped within ${tookMs} ms`);
      assert.ok(door.refusals > 3, 'the door was busy first');
      const { events, policies } = await readAll(dataDir);
      assert.equal(policies.length, 1);
      assert.equal(policies[0]?.version, 1);
      const inventory = new NaiveInventory();
      for (const event of events) inventory.add(event);
      const profiles = policies[0]?.profiles ?? [];
      // Every address in the pods' range belongs to exactly one pod at the flow's time, also across lives.
      let pods = 0;
      for (const { flows, network, observedFromMs } of door.batches) {
        for (const flow of flows) {
          const ip = formatAddress(toMapped(flow.sourceAddress));
          if (!ip.startsWith('10.244.')) continue;
          assert.equal(
            inventory.name(network, ip, observedFromMs + flow.startMs, profiles).kind,
            'pod',
            `life ${life}`,
          );
          pods++;
        }
      }
      assert.ok(pods > 500, `${pods} flows of pods in life ${life}`);
    }
  } finally {
    await door.close();
    await rm(dataDir, { recursive: true, force: true });
  }
});
