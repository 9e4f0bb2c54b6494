import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { Webhook } from 'standardwebhooks';
import { type IdentityContent, identityId, workloadId } from '../lib/inventory/ids.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';

const secret = `whsec_${Buffer.from('a secret of thirty-two bytes....').toString('base64')}`;
const log = pino({ level: 'silent' });

interface Received {
  readonly path: string;
  readonly id: string;
  readonly atMs: number;
  readonly event: {
    readonly type: string;
    readonly data: Record<string, never> & { edge: string; severity: string };
  };
}

/** A receiver that verifies each signature; `answer` decides the status by path. */
class Receiver {
  readonly received: Received[] = [];
  readonly wrong: string[] = [];
  answer: (path: string) => number = () => 204;
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const path = request.url ?? '';
        const status = this.answer(path);
        try {
          const headers = request.headers as Record<string, string>;
          const event = new Webhook(secret).verify(Buffer.concat(chunks), headers) as Received['event'];
          if (status < 300)
            this.received.push({ path, id: headers['webhook-id'] ?? '', atMs: Date.now(), event });
        } catch (error) {
          this.wrong.push(String(error));
        }
        response.writeHead(status).end();
      });
    });
  }

  async open(port = 0): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  at(path: string): Received[] {
    return this.received.filter((one) => one.path === path);
  }
}

async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs = 20_000,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) assert.fail(`not within ${deadlineMs} ms: ${what}`);
    await delay(25);
  }
}

const identity = (content: Partial<IdentityContent>): IdentityContent => ({
  kind: 'pod',
  cluster: 'east',
  namespace: 'pay',
  name: '',
  zone: 'inside',
  labels: {},
  ...content,
});
const payments = identity({ labels: { app: 'payments', env: 'prod', team: 'blue' } });
const ledger = identity({ labels: { app: 'ledger', env: 'prod' } });
const remote = identity({ cluster: 'west', labels: { app: 'reports', env: 'prod' } });
const mainframe = identity({ kind: 'host', cluster: '', labels: { app: 'core', criticality: 'critical' } });
const internet = identity({ kind: 'range', cluster: '', namespace: '', name: 'internet', zone: 'outside' });

interface Planted {
  readonly from?: IdentityContent;
  readonly to?: IdentityContent;
  readonly port: number;
  readonly verdict?: 'unexplained' | 'allowed';
  readonly connections?: number;
}

describe('alert', () => {
  let clickhouse: TestClickHouse;
  const cleanups: (() => Promise<unknown>)[] = [];

  before(async () => {
    clickhouse = await startClickHouse();
  });
  after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup();
    await clickhouse.stop();
  });

  /** A database and a data folder of its own, a receiver, and what starts the service on them. */
  async function makeScene(database: string) {
    const config = clickhouse.config(database);
    const store = openStore(config, { log });
    await migrate(store, { log });
    const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-alert-'));
    const receiver = new Receiver();
    const port = await receiver.open();
    const running = new Set<ServiceProcess>();
    cleanups.push(
      () => store.close(),
      () => rm(dataDir, { recursive: true, force: true }),
      () => receiver.close(),
      async () => {
        for (const process of running) await process.kill();
      },
    );
    const start = async (
      settings: Record<string, string> = {},
      paths = ['/hook'],
    ): Promise<ServiceProcess> => {
      const receivers = paths.map((path) => ({ name: path, url: `http://127.0.0.1:${port}${path}`, secret }));
      const process = await startService('alert', {
        EASTWEST_STORE_URL: clickhouse.url,
        EASTWEST_STORE_DATABASE: database,
        EASTWEST_RUNTIME_DATA_DIR: dataDir,
        EASTWEST_ALERT_RECEIVERS: JSON.stringify(receivers),
        EASTWEST_ALERT_POLL_INTERVAL_MS: '100',
        EASTWEST_ALERT_RETRY_BASE_MS: '100',
        EASTWEST_ALERT_MAX_RETRY_PAUSE_MS: '500',
        ...settings,
      });
      running.add(process);
      await until('the service is ready', async () => (await fetch(`${process.probes}/readyz`)).ok);
      return process;
    };
    return { store, receiver, port, start, plant: (planted: readonly Planted[]) => plant(store, planted) };
  }

  async function plant(store: Store, planted: readonly Planted[]): Promise<void> {
    const ends = planted.flatMap(({ from = payments, to = internet }) => [from, to]);
    await store.insertRows(
      'identities',
      ends.map((content) => ({
        id: identityId(content),
        kind: content.kind,
        cluster: content.cluster,
        namespace: content.namespace,
        name: content.name,
        zone: content.zone,
        app: content.labels.app ?? '',
        env: content.labels.env ?? '',
        label_keys: Object.keys(content.labels),
        label_values: Object.values(content.labels),
      })),
    );
    const pod = workloadId('east', 'pod', 'uid-1');
    await store.insertRows('workloads', [
      {
        id: pod,
        kind: 'pod',
        cluster: 'east',
        namespace: 'pay',
        name: 'payments-6f7-abcde',
        node: 'node-1',
        uid: 'uid-1',
        identity: identityId(payments),
        network: 'east',
        ip: '10.1.0.5',
        valid_from: 1,
        valid_to: 4_000_000_000,
      },
    ]);
    await store.insertRows('flows', flowRows(planted));
  }

  /** A flow of each side for each edge. */
  function flowRows(planted: readonly Planted[]): Record<string, unknown>[] {
    const pod = workloadId('east', 'pod', 'uid-1');
    return planted.flatMap(
      ({ from = payments, to = internet, port, verdict = 'unexplained', connections = 1 }) =>
        (['source', 'destination'] as const).map((side) => ({
          time: Math.floor(Date.now() / 1000) - 3,
          src_ip: '::ffff:10.1.0.5',
          src_port: 50_000,
          dst_ip: '::ffff:203.0.113.9',
          dst_port: port,
          protocol: 6,
          src_workload: pod,
          dst_workload: to === internet ? 0 : 77,
          src_identity: identityId(from),
          dst_identity: identityId(to),
          side,
          verdict,
          reason: verdict === 'allowed' ? 'rule' : 'no-rule',
          connections: side === 'source' ? connections : 1,
          bytes_forward: 1000,
          dns_name: to === internet ? 'drop.example' : '',
          process: side === 'source' ? 'curl' : '',
          agent: `agent-${side}`,
        })),
    );
  }

  /** The same as they are written while the inventory is behind, and as their repair replaces them. */
  function lateRows(planted: readonly Planted[], repaired: readonly Planted[]) {
    const where = (row: Record<string, unknown>, index: number): Record<string, unknown> => ({
      ...row,
      bus_partition: 0,
      block: '5',
      row: index,
    });
    const first: Record<string, unknown>[] = flowRows(planted).map((row, i) => ({
      ...where(row, i),
      version: 1,
      sign: 1,
      pending: 1,
    }));
    const cancelled = first.map((row) => ({ ...row, sign: -1 }));
    const second = flowRows(repaired).map((row, i) => ({
      ...where(row, i),
      time: first[i]?.time,
      version: 2,
      sign: 1,
      pending: 0,
    }));
    return { first, repair: [...cancelled, ...second] };
  }

  it('sends one signed event within 10 s for a connection planted while it runs, although it is killed in between', async () => {
    const { store, receiver, start, plant: put } = await makeScene('killed');
    // Nobody answers yet, so that the kill falls between finding and delivering.
    receiver.answer = () => 503;
    const first = await start();
    const plantedMs = Date.now();
    await put([{ port: 443, connections: 5 }]);
    await until('the event was tried', async () => (await metric(first, 'outcome="retried"')) > 0);
    await first.kill();
    receiver.answer = () => 204;
    const second = await start();
    await until('the event arrived', () => receiver.received.length > 0);
    const [got] = receiver.received;
    assert.ok(got!.atMs - plantedMs < 10_000, `it took ${got!.atMs - plantedMs} ms`);

    assert.deepEqual(receiver.wrong, []);
    const { data } = got!.event as unknown as { data: Record<string, Record<string, unknown>> };
    assert.equal(got!.event.type, 'connection.unexplained');
    assert.equal(got!.id, `msg_edge_${BigInt(got!.event.data.edge).toString(16).padStart(16, '0')}`);
    assert.equal(data.severity, 'high');
    assert.equal(data.leaves, 'estate');
    assert.deepEqual(data.source!.labels, { app: 'payments', env: 'prod', team: 'blue' });
    assert.equal(data.source!.address, '10.1.0.5');
    assert.equal((data.source!.workload as { name: string }).name, 'payments-6f7-abcde');
    assert.equal(data.source!.process, 'curl');
    assert.equal(data.destination!.name, 'internet');
    assert.equal(data.destination!.address, '203.0.113.9');
    assert.equal(data.destination!.dnsName, 'drop.example');
    assert.deepEqual([data.destination!.port, data.destination!.protocol], [443, 'tcp']);
    assert.equal(data.reason!.code, 'no-rule');
    assert.match(String(data.reason!.text), /no rule/);
    // Both ends reported; the count is that of the fuller side.
    assert.deepEqual([data.counts!.flows, data.counts!.connections], [2, 5]);

    // The same edge again, then another: only the other one is news.
    await put([{ port: 443 }, { port: 8443 }]);
    await until('the second edge arrived', () => receiver.received.length === 2);
    // A kill between the answer and its record may send the same id once more; here both are recorded.
    await until('both are recorded', async () => {
      const rows = await store.query<{ state: string }>('SELECT state FROM alerts FINAL');
      return rows.length === 2 && rows.every(({ state }) => state === 'delivered');
    });
    await second.kill();
    await start();
    await put([{ port: 443 }, { port: 9443 }]);
    await until('the third edge arrived', () => receiver.received.length === 3);
    assert.equal(new Set(receiver.received.map(({ id }) => id)).size, 3);
  });

  it('says nothing of allowed connections, of those inside a cluster, and of what was there before it came', async () => {
    const { receiver, start, plant: put } = await makeScene('quiet');
    await put([{ port: 1 }]);
    await start();
    await put([
      { port: 2, verdict: 'allowed' },
      { port: 3, to: ledger },
      { port: 4, from: internet, to: ledger },
    ]);
    await put([
      { port: 5, to: remote },
      { port: 6, to: mainframe },
    ]);
    await until('both edges arrived', () => receiver.received.length >= 2);
    const said = receiver.received.map(({ event }) => {
      const { destination, severity } = event.data as unknown as {
        destination: { port: number };
        severity: string;
      };
      return `${destination.port} ${severity}`;
    });
    assert.deepEqual(said.sort(), ['5 medium', '6 critical']);
  });

  it('keeps events for a receiver that is down, and holds up no other receiver meanwhile', async () => {
    const { receiver, start, plant: put } = await makeScene('down');
    receiver.answer = (path) => (path === '/down' ? 500 : 204);
    const process = await start({}, ['/down', '/up']);
    await put([{ port: 10 }, { port: 11 }, { port: 12 }]);
    await until('the other receiver has all', () => receiver.at('/up').length === 3);
    await until(
      'the first was tried in vain',
      async () => (await metric(process, 'receiver="/down",outcome="retried"')) > 1,
    );
    assert.equal(receiver.at('/down').length, 0);
    receiver.answer = () => 200;
    await until('the first receiver has all', () => receiver.at('/down').length === 3);
    const ids = (path: string) =>
      receiver
        .at(path)
        .map(({ id }) => id)
        .sort();
    assert.deepEqual(ids('/down'), ids('/up'));
  });

  it('puts a receiver that answers 410 Gone out of use, also after a restart', async () => {
    const { store, receiver, start, plant: put } = await makeScene('gone');
    let asked = 0;
    receiver.answer = (path) => {
      if (path !== '/gone') return 204;
      asked++;
      return 410;
    };
    const first = await start({}, ['/gone', '/there']);
    await put([{ port: 20 }]);
    await until(
      'the receiver said so',
      async () => (await metric(first, 'eastwest_alert_receiver_gone{receiver="/gone"}')) === 1,
    );
    await first.stop();
    await start({}, ['/gone', '/there']);
    await put([{ port: 21 }]);
    await until('the other receiver has both', () => receiver.at('/there').length === 2);
    await until('the other events are written off', async () => {
      const rows = await store.query<{ state: string }>(
        "SELECT state FROM alerts FINAL WHERE receiver = '/gone'",
      );
      return rows.length === 2 && rows.every(({ state }) => state === 'failed');
    });
    assert.equal(asked, 1);
  });

  it('gathers what comes too fast into a summary that counts every edge', async () => {
    const { receiver, start, plant: put } = await makeScene('flood');
    await start({ EASTWEST_ALERT_MAX_ALERTS_PER_MINUTE: '2' });
    await put(Array.from({ length: 12 }, (_, i) => ({ port: 100 + i, to: i === 7 ? mainframe : internet })));
    const counted = () =>
      receiver.received.reduce(
        (sum, { event }) =>
          sum + (event.type.endsWith('summary') ? Number((event.data as { edges?: number }).edges) : 1),
        0,
      );
    await until('every edge was told of', () => counted() === 12);
    const own = receiver.received.filter(({ event }) => event.type === 'connection.unexplained');
    assert.equal(own.length, 2);
    assert.ok(
      own.some(({ event }) => event.data.severity === 'critical'),
      'the most severe has an event of its own',
    );
  });

  const portOf = ({ event }: Received): number =>
    (event.data as unknown as { destination: { port: number } }).destination.port;
  const portsOf = (receiver: Receiver): number[] => receiver.received.map(portOf).sort((a, b) => a - b);

  it('tells of an edge that came before its inventory when it is settled, and not before', async () => {
    const { store, receiver, start, plant: put } = await makeScene('pending');
    await start({ EASTWEST_ALERT_PENDING_GRACE_MS: '600000' });
    const { first, repair } = lateRows([{ port: 50, from: ledger }], [{ port: 50 }]);
    await store.insertRows('flows_late', first);
    await put([{ port: 51 }, { port: 52, from: ledger, verdict: 'allowed' }]);
    await until('the settled edge arrived', () => receiver.received.length > 0);
    assert.deepEqual(portsOf(receiver), [51]);
    await store.insertRows('flows_late', repair);
    await until('the repaired edge arrived', () => receiver.received.length > 1);
    assert.deepEqual(portsOf(receiver), [50, 51]);
    const told = receiver.received.find((one) => portOf(one) === 50);
    const { source, counts } = told!.event.data as unknown as {
      source: { labels: { app: string } };
      counts: { flows: number };
    };
    // As it was repaired, not as it was guessed.
    assert.equal(source.labels.app, 'payments');
    assert.equal(counts.flows, 2);
  });

  it('says nothing of an edge that was repaired away', async () => {
    const { store, receiver, start, plant: put } = await makeScene('repaired');
    await start({ EASTWEST_ALERT_PENDING_GRACE_MS: '0' });
    const { first, repair } = lateRows([{ port: 60 }], [{ port: 60, verdict: 'allowed' }]);
    await store.insertRows('flows_late', [...first, ...repair]);
    for (const port of [61, 62]) {
      await put([{ port }]);
      await until('the other edge arrived', () => portsOf(receiver).includes(port));
    }
    assert.deepEqual(portsOf(receiver), [61, 62]);
  });

  it('tells of an edge that is not settled within the grace, once, and not again when it is', async () => {
    const { store, receiver, start, plant: put } = await makeScene('unsettled');
    await start({ EASTWEST_ALERT_PENDING_GRACE_MS: '100' });
    // Its ends have labels already.
    await put([{ port: 69, verdict: 'allowed' }]);
    const { first, repair } = lateRows([{ port: 70 }], [{ port: 70 }]);
    await store.insertRows('flows_late', first);
    await until('the edge arrived', () => receiver.received.length > 0);
    for (const port of [71, 72]) {
      await put([{ port }]);
      await until('another edge arrived', () => portsOf(receiver).includes(port));
      if (port === 71) await store.insertRows('flows_late', repair);
    }
    await until('all are recorded', async () => {
      const rows = await store.query<{ state: string }>('SELECT state FROM alerts FINAL');
      return rows.length === 3 && rows.every(({ state }) => state === 'delivered');
    });
    assert.deepEqual(portsOf(receiver), [70, 71, 72]);
  });

  it('goes on when the store was away', async () => {
    const { receiver, start, plant: put } = await makeScene('away');
    const process = await start();
    await clickhouse.kill();
    await until(
      'it says that it is not ready',
      async () => (await fetch(`${process.probes}/readyz`)).status === 503,
    );
    await clickhouse.start();
    await put([{ port: 30 }]);
    await until('the event arrived', () => receiver.received.length === 1, 40_000);
  });

  /** The sum of the samples whose line contains `part`. */
  async function metric(process: ServiceProcess, part: string): Promise<number> {
    const text = await (await fetch(`${process.probes}/metrics`)).text();
    return text
      .split('\n')
      .filter((line) => line.startsWith('eastwest_alert_') && line.includes(part))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }
});
