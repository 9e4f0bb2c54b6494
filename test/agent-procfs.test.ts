/** The agent as a process on this very host: its sockets from /proc, its spool, its delivery. Loopback only. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import pino from 'pino';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { loadConfig } from '../lib/runtime/config.ts';
import { decodeFlowBatch } from '../lib/wire/flow-batch.ts';
import { readRecords } from '../services/agent/spool/record.ts';
import {
  type AgentProcess,
  type ReceivedFlow,
  type Receiver,
  startAgent,
  startReceiver,
  temporaryFolder,
  until,
} from './support/agent.ts';

/** Batches in the bytes of a spool segment. */
function batchesIn(segment: Buffer): Buffer[] {
  return readRecords(segment).records.map((record) =>
    segment.subarray(record.batchOffset, record.offset + record.length),
  );
}

/** Why no file system can be mounted here; in CI that is a failure of the test itself. */
function mountObstacle(): string | false {
  return process.getuid?.() === 0 || process.env.CI === 'true'
    ? false
    : 'mounting a small file system needs root';
}

const noProc = process.platform === 'linux' ? false : 'sockets are read from /proc, which Linux has';

describe('the agent on this host', { skip: noProc, timeout: 120_000 }, () => {
  const folder = temporaryFolder();
  let receiver: Receiver;
  let agent: AgentProcess | null = null;
  let server: Server;
  const served = new Set<Socket>();
  let port = 0;
  let testNumber = 0;
  let dataDir = '';

  const launch = async (more: Record<string, string | number> = {}): Promise<AgentProcess> => {
    agent = startAgent({
      dataDir,
      settings: {
        ID: 'laptop',
        SOURCE: 'procfs',
        INTERVAL_MS: 300,
        POLL_MS: 100,
        PROCESS_SCAN_MS: 200,
        BACKOFF_MIN_MS: 50,
        BACKOFF_MAX_MS: 200,
        INGEST_URL: receiver.url,
        ...more,
      },
    });
    await agent.watching();
    return agent;
  };
  const told = (localPort: number): ReceivedFlow[] =>
    receiver.flows().filter((flow) => flow.sourcePort === localPort && flow.destinationPort === port);
  const open = async (): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  };
  const close = async (socket: Socket): Promise<void> => {
    socket.end();
    socket.resume();
    await once(socket, 'close');
  };

  before(async () => {
    server = createServer((socket) => {
      served.add(socket);
      socket.on('close', () => served.delete(socket));
      socket.on('error', () => undefined).pipe(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  });
  beforeEach(async () => {
    await agent?.kill();
    await receiver?.stop();
    receiver = await startReceiver();
    dataDir = `${folder.path}/${++testNumber}`;
  });
  after(async () => {
    await agent?.kill();
    await receiver?.stop();
    for (const socket of served) socket.destroy();
    server.close();
    folder.remove();
  });

  test('a loopback connection is one flow of its source, begun once, with the process that opened it', async () => {
    await launch();
    const socket = await open();
    const localPort = socket.localPort!;
    const flow = await until('the open connection', 10_000, () => told(localPort).at(-1));
    assert.equal(flow.process, 'node');
    assert.equal(flow.reporter, 'source');
    assert.equal(flow.state, 'open');
    assert.equal(`${flow.source} ${flow.destination} ${flow.protocol}`, '127.0.0.1 127.0.0.1 6');
    await close(socket);
    await until('its end', 10_000, () => told(localPort).find(({ state }) => state === 'closed'));
    assert.equal(
      told(localPort).reduce((sum, { connectionCount }) => sum + connectionCount, 0),
      1,
    );
    assert.deepEqual(
      receiver.flows().filter(({ destinationPort }) => destinationPort === localPort),
      [],
    );
  });

  test('a connection that came and went between two polls is found by its TIME_WAIT', async () => {
    await launch({ POLL_MS: 1000, INTERVAL_MS: 1000 });
    const socket = await open();
    const localPort = socket.localPort!;
    await close(socket);
    const flow = await until('the short connection', 10_000, () => told(localPort).at(-1));
    assert.equal(flow.state, 'closed');
    assert.equal(flow.connectionCount, 1);
  });

  test('connections that leave no trace between two polls are counted as dropped', async () => {
    await launch({ POLL_MS: 500 });
    await until('a first batch', 10_000, () => receiver.batches.at(0));
    for (let i = 0; i < 5; i++) {
      // Nobody listens on port 1: refused before anyone can look.
      const socket = connect(1, '127.0.0.1');
      await once(socket, 'close').catch(() => undefined);
    }
    await until('five lost ones', 10_000, () =>
      receiver.batches.reduce((sum, { sourceDroppedCount }) => sum + sourceDroppedCount, 0) >= 5
        ? true
        : null,
    );
  });

  test('where conntrack is not to be had, the agent says once what to grant and reads sockets instead', async () => {
    const running = await launch({ SOURCE: 'auto', CONNTRACK_COMMAND: 'conntrack-that-is-not-there' });
    const socket = await open();
    await until('the connection', 10_000, () => told(socket.localPort!).at(-1));
    assert.equal(receiver.batches.at(-1)?.sourceKind, 'procfs');
    const advice = running.log.filter((line) =>
      String(line.toGrant).includes('install the package conntrack'),
    );
    assert.equal(advice.length, 1);
    await close(socket);
  });

  test('batches that were not delivered outlive kill -9 and are sent again unchanged, with their boot and sequence', async () => {
    receiver.answer(503);
    const first = await launch();
    const sockets: Socket[] = [];
    for (let batch = 1; batch <= 3; batch++) {
      sockets.push(await open());
      await until(`${batch} batches in the spool`, 10_000, () => (spooledFlows() >= batch ? true : null));
    }
    const bootId = String(first.log.find((line) => line.msg === 'watching connections')?.boot);
    await first.kill();
    const spool = `${dataDir}/agent-spool`;
    const segment = `${spool}/${readdirSync(spool).find((name) => name.endsWith('.segment'))}`;
    const kept = readFileSync(segment);
    // As if the last write had been torn.
    writeFileSync(segment, Buffer.concat([kept, kept.subarray(0, 37)]));
    receiver.answer(202);
    const second = await launch();
    const ports = sockets.map((socket) => socket.localPort!);
    await until('the flows of the first run', 10_000, () =>
      ports.every((localPort) => told(localPort).some(({ connectionCount }) => connectionCount === 1))
        ? true
        : null,
    );
    const resent = receiver.batches.filter((batch) => batch.bootId === bootId);
    assert.ok(resent.length >= 1);
    assert.deepEqual(
      resent.map(({ sequence }) => sequence),
      resent.map((_, index) => index + 1),
    );
    assert.ok(second.log.some((line) => String(line.msg).includes('cut off the spool')));
    const digests = batchesIn(kept).map((batch) => createHash('sha256').update(batch).digest('hex'));
    for (const { digest } of resent)
      assert.ok(digests.includes(digest), 'byte for byte what was in the spool');
    for (const localPort of ports) {
      assert.equal(
        told(localPort).reduce((sum, { connectionCount }) => sum + connectionCount, 0),
        1,
      );
    }
    for (const socket of sockets) await close(socket);

    function spooledFlows(): number {
      const path = `${dataDir}/agent-spool`;
      const name = readdirSync(path).find((one) => one.endsWith('.segment'));
      if (name === undefined) return 0;
      const flows = batchesIn(readFileSync(`${path}/${name}`)).flatMap(
        (batch) => decodeFlowBatch(batch).flows,
      );
      return flows.filter((flow) => flow.destinationPort === port && flow.connectionCount === 1).length;
    }
  });

  test('a wrong batch is dropped with what the server said, a wrong token is retried', async () => {
    receiver.answer(401);
    const running = await launch();
    const socket = await open();
    const warning = await until('a warning', 10_000, () =>
      running.log.find((line) => line.cause === 'unauthorized'),
    );
    assert.match(String(warning.detail), /401 told so by the test/);
    receiver.answer(202);
    await until('the batch after all', 10_000, () => told(socket.localPort!).at(-1));
    receiver.answer(422);
    await close(socket);
    const refusal = await until('a refusal', 10_000, () =>
      running.log.find((line) => String(line.msg).includes('refused for good')),
    );
    assert.match(String(refusal.detail), /422 told so by the test/);
    receiver.answer(202);
    await until('the next batch tells of the loss', 10_000, () =>
      receiver.batches.find((batch) => batch.sourceDroppedCount > 0),
    );
  });

  test('a full disk costs nothing but the disk: batches are delivered from memory, the reason is logged', {
    skip: mountObstacle(),
  }, async () => {
    mkdirSync(`${dataDir}/agent-spool`, { recursive: true });
    const spool = `${dataDir}/agent-spool`;
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', spool]).status, 0);
    try {
      writeFileSync(`${spool}/filler`, Buffer.alloc(64 * 1024 - 4096 * 2));
      assert.throws(() => writeFileSync(`${spool}/filler2`, Buffer.alloc(64 * 1024)), /ENOSPC/);
      receiver.answer(503);
      const running = await launch();
      const error = await until('the reason', 10_000, () =>
        running.log.find((line) => String(line.msg).includes('spool cannot be written')),
      );
      assert.match(JSON.stringify(error), /ENOSPC/);
      const socket = await open();
      receiver.answer(202);
      await until('the flow from memory', 10_000, () => told(socket.localPort!).at(-1));
      await close(socket);
      assert.equal(await running.stop(), 0);
    } finally {
      await agent?.kill();
      spawnSync('umount', [spool]);
    }
  });

  test("batches say how far this host's clock is from that of ingest, as it was when they were made", async () => {
    await receiver.stop();
    receiver = await startReceiver({ skewMs: 5000 });
    receiver.answer(503);
    await launch();
    const socket = await open();
    await close(socket);
    receiver.answer(202);
    const batch = await until('a measured batch', 10_000, () =>
      receiver.batches.find(({ clockErrorMs }) => clockErrorMs >= 0),
    );
    assert.ok(Math.abs(batch.clockOffsetMs + 5000) <= batch.clockErrorMs, JSON.stringify(batch));
    assert.ok(batch.clockErrorMs < 500, `${batch.clockErrorMs} ms`);
  });

  test('two agents cannot share a spool', async () => {
    await launch();
    const second = startAgent({ dataDir, settings: { SOURCE: 'procfs', INGEST_URL: receiver.url } });
    const failure = await until('the refusal', 10_000, () =>
      second.log.find((line) => Number(line.level) >= 50),
    );
    assert.match(JSON.stringify(failure), /uses the spool/);
    await second.kill();
  });

  test('delivery straight to the bus puts the same batches on the topic flows', async () => {
    const inputs = { cwd: folder.path, environment: {}, flags: [] };
    const config = loadConfig({ bus: BusConfig }, inputs).values.bus;
    const bus = await openBus(config, { dataDir, log: pino({ level: 'silent' }), clientId: 'test' });
    await bus.ensureTopics(topicSpecs(config));
    const flows: { localPort: number; key: string | null }[] = [];
    const tail = await bus.tail({
      topic: 'flows',
      onMessages: (_partition, messages) => {
        for (const { key, value } of messages) {
          for (const flow of decodeFlowBatch(value!).flows) flows.push({ localPort: flow.sourcePort, key });
        }
      },
      onCaughtUp: () => undefined,
      onError: () => undefined,
    });
    try {
      await launch({ DELIVERY: 'bus' });
      const socket = await open();
      const found = await until('the flow on the bus', 10_000, () =>
        flows.find(({ localPort }) => localPort === socket.localPort),
      );
      assert.equal(found.key, 'laptop');
      await close(socket);
    } finally {
      await agent?.kill();
      await tail.close();
      await bus.close();
    }
  });
});
