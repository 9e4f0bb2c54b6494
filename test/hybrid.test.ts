/** VMs and bare metal as people give them: put over HTTP, or in files that are edited, with processes that are killed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import type { Bus, BusMessage } from '../lib/bus/bus.ts';
import { busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import type { InventoryEvent, WorkloadEvent } from '../lib/inventory/events.ts';
import { parseAddress } from '../lib/net/address.ts';
import { topics } from '../schemas/topics.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until as untilTrue } from './support/until.ts';

const deadlineMs = 20_000;
const log = pino({ level: 'silent' });

interface Heard {
  readonly event: InventoryEvent | null;
  readonly source: string;
}

/** The topic as somebody who reads it from the begin sees it, followed. */
class Topic {
  readonly newest = new Map<string, Heard>();
  /** Events of each key, watermarks left out. */
  readonly counts = new Map<string, number>();
  bus: Bus | null = null;

  async open(dataDir: string): Promise<void> {
    const config = busConfig({});
    this.bus = await openBus(config, { dataDir, log, clientId: 'test' });
    await this.bus.ensureTopics(topicSpecs(config));
    await this.bus.tail({
      topic: topics.inventory,
      onMessages: (_, messages) => this.#take(messages),
      onCaughtUp: () => {},
      onError: (error) => assert.fail(error),
    });
  }

  async close(): Promise<void> {
    await this.bus?.close();
  }

  #take(messages: readonly BusMessage[]): void {
    for (const { key, value, headers } of messages) {
      if (key === null || key.startsWith('watermark/')) continue;
      const event = value === null ? null : JSON.parse(Buffer.from(value).toString());
      this.newest.set(key, { event, source: headers.source ?? '' });
      this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    }
  }

  vm(id: string): WorkloadEvent | undefined {
    const event = this.newest.get(`workload//vm/${id}`)?.event;
    return event?.type === 'workload' ? event : undefined;
  }

  /** `a b -c`: ids of VMs, those that have ended with a minus. */
  text(): string {
    return [...this.newest.values()]
      .flatMap(({ event }) => (event?.type === 'workload' ? [event] : []))
      .map(({ uid, untilMs }) => (untilMs === undefined ? uid : `-${uid}`))
      .sort()
      .join(' ');
  }
}

let folder: string;
let topic: Topic;
let running: ServiceProcess[] = [];

const until = (what: string, done: () => boolean | Promise<boolean>): Promise<void> =>
  untilTrue(
    what,
    deadlineMs,
    async () => done(),
    () => `${topic.text()}\n${running.map((one) => one.output()).join('\n')}`,
  );

async function startKubelink(sources: readonly object[], settings: Record<string, string> = {}) {
  const service = await startService('kubelink', {
    EASTWEST_RUNTIME_DATA_DIR: folder,
    EASTWEST_KUBELINK_SOURCES: JSON.stringify(sources),
    EASTWEST_KUBELINK_RESCAN_MS: '200',
    EASTWEST_KUBELINK_WATERMARK_INTERVAL_MS: '50',
    ...settings,
  });
  running.push(service);
  await until('kubelink is ready', async () => (await fetch(`${service.probes}/readyz`)).ok);
  return service;
}

interface Query extends ServiceProcess {
  readonly url: string;
}

/** The API, without a store: nothing here asks it. */
async function startQuery(settings: Record<string, string> = {}): Promise<Query> {
  const service = await startService('query', {
    EASTWEST_RUNTIME_DATA_DIR: folder,
    EASTWEST_QUERY_PORT: '0',
    EASTWEST_STORE_URL: 'http://127.0.0.1:1',
    ...settings,
  });
  running.push(service);
  const urlOf = (): string | undefined => /"url":"([^"]+)"/.exec(service.output())?.[1];
  await until('the API listens', () => urlOf() !== undefined);
  return { ...service, url: (urlOf() ?? '').replace('0.0.0.0', '127.0.0.1') };
}

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

async function put(query: Query, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const answer = await fetch(`${query.url}/api/v1/workloads`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: JSON.parse(await answer.text()) };
}

async function accepted(query: Query, body: object): Promise<Record<string, unknown>> {
  const answer = await put(query, { source: 'cmdb', ...body });
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return answer.body;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-hybrid-'));
  topic = new Topic();
  await topic.open(folder);
});

afterEach(async () => {
  await Promise.all(running.map((service) => service.kill()));
  running = [];
  await topic.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('workloads that are put over HTTP', () => {
  test('are events of the inventory; the same put again is none, others stay, and what is removed ends', async () => {
    await startKubelink([{ kind: 'api' }]);
    const query = await startQuery();
    const beganMs = Date.now();
    const workloads = [
      {
        id: 'vm-1',
        name: 'core-db-1',
        group: 'core-banking',
        addresses: ['10.20.0.5', { ip: '2001:DB8::5', network: 'dc-west' }],
        labels: { app: 'ledger' },
        annotations: { 'eastwest.io/env': 'prod' },
      },
      { id: 'vm-2', addresses: ['10.20.0.6'] },
    ];
    const answer = await accepted(query, { workloads });
    assert.deepEqual([answer.put, answer.removed, answer.until], [2, 0, null]);
    await until('both workloads', () => topic.text() === 'vm-1 vm-2');
    const one = topic.vm('vm-1');
    assert.ok(one !== undefined && one.sinceMs >= beganMs && one.sinceMs <= Date.now());
    const { sinceMs } = one;
    assert.deepEqual(one, {
      v: 1,
      type: 'workload',
      kind: 'vm',
      cluster: '',
      uid: 'vm-1',
      name: 'core-db-1',
      namespace: 'core-banking',
      node: '',
      hostNetwork: false,
      labels: { app: 'ledger' },
      annotations: { 'eastwest.io/env': 'prod' },
      addresses: [
        { ip: '10.20.0.5', network: 'default', sinceMs },
        { ip: '2001:db8::5', network: 'dc-west', sinceMs },
      ],
      sinceMs,
    });
    assert.equal(topic.newest.get('workload//vm/vm-1')?.source, 'api');

    await accepted(query, { workloads });
    await accepted(query, { workloads: [{ id: 'vm-3', addresses: ['10.20.0.7'] }] });
    await until('the third', () => topic.text() === 'vm-1 vm-2 vm-3');
    assert.equal(topic.counts.get('workload//vm/vm-1'), 1);
    assert.equal(topic.counts.get('workload//vm/vm-2'), 1);

    await accepted(query, { workloads: [{ id: 'vm-2', remove: true }] });
    await until('the second has ended', () => topic.text() === '-vm-2 vm-1 vm-3');
    assert.ok(topic.vm('vm-2')?.addresses.every(({ untilMs }) => untilMs !== undefined));
  });

  test('replace all that their source put, and nothing of others', async () => {
    await startKubelink([{ kind: 'api' }]);
    const query = await startQuery();
    await accepted(query, {
      workloads: ['a', 'b', 'c'].map((id, i) => ({ id, addresses: [`10.0.0.${i}`] })),
    });
    await accepted(query, { source: 'cloud', workloads: [{ id: 'd', addresses: ['10.0.0.9'] }] });
    await until('all of them', () => topic.text() === 'a b c d');
    await accepted(query, { replace: true, workloads: [{ id: 'b', addresses: ['10.0.0.1'] }] });
    await until('those that were not named have ended', () => topic.text() === '-a -c b d');
    assert.equal(topic.counts.get('workload//vm/b'), 1);
  });

  test('end when their lifetime passes, also while kubelink is down, and live on when they are put again', async () => {
    const first = await startKubelink([{ kind: 'api' }]);
    const query = await startQuery();
    await accepted(query, { ttl: 1, workloads: [{ id: 'short', addresses: ['10.0.0.1'] }] });
    await accepted(query, { ttl: '1h', workloads: [{ id: 'kept', addresses: ['10.0.0.3'] }] });
    await until('the short one has ended', () => topic.text() === '-short kept');
    const { until: plannedEnd } = await accepted(query, {
      ttl: '5s',
      workloads: [{ id: 'later', addresses: ['10.0.0.2'] }],
    });
    await until('the second is there', () => topic.text() === '-short kept later');
    await first.kill();
    await accepted(query, { ttl: '2h', workloads: [{ id: 'kept', addresses: ['10.0.0.3'] }] });
    const endMs = Date.parse(String(plannedEnd));
    await until('the lifetime of the second passes', () => Date.now() > endMs);
    await startKubelink([{ kind: 'api' }]);
    await until('the second has ended', () => topic.text() === '-later -short kept');
    assert.equal(topic.vm('later')?.untilMs, endMs);
    assert.equal(topic.counts.get('workload//vm/kept'), 1);
  });

  test('are not lost when kubelink is killed and put, replaced and removed meanwhile', async () => {
    const first = await startKubelink([{ kind: 'api' }]);
    const query = await startQuery();
    await accepted(query, {
      workloads: ['a', 'b', 'c'].map((id, i) => ({ id, addresses: [`10.0.0.${i}`] })),
    });
    await until('all of them', () => topic.text() === 'a b c');
    await first.kill();
    await accepted(query, { workloads: [{ id: 'a', remove: true }] });
    const fromMs = Date.now();
    await accepted(query, { workloads: [{ id: 'd', addresses: ['10.0.0.7'] }] });
    await accepted(query, {
      replace: true,
      workloads: [
        { id: 'b', addresses: ['10.0.0.8'] },
        { id: 'd', addresses: ['10.0.0.7'] },
      ],
    });
    const toMs = Date.now();
    await startKubelink([{ kind: 'api' }]);
    await until('what happened meanwhile', () => topic.text() === '-a -c b d');
    const since = topic.vm('d')?.sinceMs ?? 0;
    assert.ok(since >= fromMs && since <= toMs, 'it begins when it was put, not when kubelink came back');
    const ended = topic.vm('c')?.untilMs ?? 0;
    assert.ok(ended >= fromMs && ended <= toMs, 'it ended when it was replaced, not when kubelink came back');
    assert.deepEqual(
      topic.vm('b')?.addresses.map(({ ip, untilMs }) => [ip, untilMs === undefined]),
      [
        ['10.0.0.1', false],
        ['10.0.0.8', true],
      ],
    );
  });

  test('that claim one address are a conflict that names both', async () => {
    const hosts = join(folder, 'hosts.yaml');
    writeFileSync(hosts, 'hosts: [{ name: core-db-1, addresses: [10.20.0.5] }]');
    const kubelink = await startKubelink([{ kind: 'api' }, { kind: 'hosts', path: hosts, name: 'files' }]);
    const query = await startQuery();
    await accepted(query, { workloads: [{ id: 'vm-9', name: 'intruder', addresses: ['10.20.0.5'] }] });
    await until('the log says so', () => /claim one address/.test(kubelink.output()));
    assert.match(kubelink.output(), /core-db-1/);
    assert.match(kubelink.output(), /intruder/);
    assert.equal(topic.text(), 'core-db-1 vm-9');
    const metrics = await (await fetch(`${kubelink.probes}/metrics`)).text();
    assert.match(metrics, /eastwest_kubelink_address_conflicts 1/);
  });
});

describe('eastwest workloads put', () => {
  const program = fileURLToPath(new URL('../cli/eastwest.mjs', import.meta.url));

  async function run(args: readonly string[], environment: Record<string, string>) {
    const child = spawn(process.execPath, [program, 'workloads', 'put', ...args], {
      env: { PATH: process.env.PATH ?? '', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => (output += String(chunk)));
    const [code] = await once(child, 'close');
    return { code, output };
  }

  test('puts the hosts of a file with a token, and says what was wrong', async () => {
    const token = 'a-token-of-16-chars';
    await startKubelink([{ kind: 'api' }]);
    const { url } = await startQuery({ EASTWEST_QUERY_WRITE_TOKENS: JSON.stringify([token]) });
    const file = join(folder, 'cmdb.csv');
    writeFileSync(file, 'name,address,label.app\nweb,10.0.0.1,shop\ndb,10.0.0.2,shop\n');
    const environment = { EASTWEST_TOKEN: token };
    const first = await run([file, '--source', 'cmdb', '--ttl', '24h', '--url', url], environment);
    assert.equal(first.code, 0, first.output);
    assert.match(first.output, /^cmdb: 2 put; they end at 2.*Z unless they are put again/);
    await until('both', () => topic.text() === 'db web');
    writeFileSync(file, 'name,address\nweb,10.0.0.1\n');
    const second = await run([file, '--source', 'cmdb', '--replace', '--json', '--url', url], environment);
    assert.equal(JSON.parse(second.output).replace, true);
    await until('the other has ended', () => topic.text() === '-db web');
    writeFileSync(file, 'name,address\nweb,10.0.0.256\n');
    const wrong = await run([file, '--source', 'cmdb', '--url', url], environment);
    assert.equal(wrong.code, 2);
    assert.match(wrong.output, /workloads\[0\]\.addresses\[0\] is "10\.0\.0\.256"/);
    const refused = await run([file, '--source', 'cmdb', '--url', url], {});
    assert.equal(refused.code, 1);
    assert.match(refused.output, /401.*query\.writeTokens/);
  });
});

describe('access and wrong requests', () => {
  test('a wrong entry refuses the whole request, names its field, and loses nothing else', async () => {
    await startKubelink([{ kind: 'api' }]);
    const query = await startQuery();
    await accepted(query, { workloads: [{ id: 'before', addresses: ['10.0.0.1'] }] });
    const refused = await put(query, {
      source: 'cmdb',
      replace: true,
      workloads: [
        { id: 'good', addresses: ['10.0.0.2'] },
        { id: 'bad', addresses: ['10.0.0.3', '10.0.0.256'] },
      ],
    });
    assert.equal(refused.status, 400);
    assert.equal(refused.body.type, 'urn:eastwest:problem:bad-body');
    assert.equal(refused.body.parameter, 'workloads[1].addresses[1]');
    await accepted(query, { workloads: [{ id: 'after', addresses: ['10.0.0.4'] }] });
    await until('what came after', () => topic.text() === 'after before');
  });

  test('too many, too large, and no JSON are refused by the name of the limit', async () => {
    const query = await startQuery({
      EASTWEST_QUERY_PUT_MAX_WORKLOADS: '1',
      EASTWEST_QUERY_PUT_MAX_BODY_BYTES: '1024',
    });
    const entry = { id: 'a', addresses: [] };
    const many = await put(query, { source: 'cmdb', workloads: [entry, { ...entry, id: 'b' }] });
    assert.deepEqual([many.status, /query\.put\.maxWorkloads/.test(String(many.body.detail))], [413, true]);
    const large = await put(query, { source: 'cmdb', workloads: [{ ...entry, group: 'x'.repeat(2000) }] });
    assert.deepEqual([large.status, /query\.put\.maxBodyBytes/.test(String(large.body.detail))], [413, true]);
    const text = await fetch(`${query.url}/api/v1/workloads`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: '{"source":',
    });
    assert.equal(text.status, 400);
  });

  test('a token opens the door, and where there is none only this machine has a key, if it is at home', async () => {
    const token = 'a-token-of-16-chars';
    const entry = { source: 'cmdb', workloads: [{ id: 'a', addresses: [] }] };
    const guarded = await startQuery({ EASTWEST_QUERY_WRITE_TOKENS: JSON.stringify([token]) });
    assert.equal((await put(guarded, entry)).status, 401);
    assert.equal((await put(guarded, entry, { authorization: 'Bearer wrong' })).status, 401);
    assert.equal((await put(guarded, entry, { authorization: `Bearer ${token}` })).status, 202);
    assert.doesNotMatch(guarded.output(), new RegExp(token));
    const open = await startQuery({ EASTWEST_QUERY_HOST: '0.0.0.0' });
    const refused = await put(open, entry);
    assert.equal(refused.status, 403);
    assert.match(String(refused.body.detail), /query\.writeTokens/);
  });

  test('what the bus does not take is not accepted, and taken when it is put again', async () => {
    const query = await startQuery({ EASTWEST_BUS_MAX_FILE_BYTES: String(1024 * 1024) });
    const workloads = Array.from({ length: 4000 }, (_, i) => ({
      id: `vm-${i}`,
      addresses: ['10.0.0.1'],
      labels: { filler: 'x'.repeat(400) },
    }));
    const refused = await put(query, { source: 'cmdb', workloads });
    assert.equal(refused.status, 503);
    assert.equal(refused.body.type, 'urn:eastwest:problem:bus-unavailable');
    const again = await startQuery();
    await accepted(again, { workloads });
    await startKubelink([{ kind: 'api' }]);
    await until('all of them', () => topic.newest.size === workloads.length);
  });
});

describe('hosts in files', () => {
  const startOn = (path: string) => startKubelink([{ kind: 'hosts', path, name: 'files' }]);
  const place = (name: string, text: string): void => {
    writeFileSync(join(folder, '.draft'), text);
    renameSync(join(folder, '.draft'), join(folder, 'hosts', name));
  };

  beforeEach(() => mkdirSync(join(folder, 'hosts')));

  test('a CSV file that is edited counts within seconds; a wrong line keeps what it said before', async () => {
    const head = 'name,id,address,label.app,labels\n';
    place('a.csv', `${head}db,vm-1,10.0.0.1,ledger,env=prod\nweb,vm-2,10.0.0.2 10.0.0.3,,\n`);
    place('b.json', JSON.stringify({ hosts: [{ name: 'c', addresses: ['10.0.0.9'] }] }));
    const kubelink = await startOn(join(folder, 'hosts'));
    await until('all files', () => topic.text() === 'c vm-1 vm-2');
    assert.deepEqual(topic.vm('vm-1')?.labels, { app: 'ledger', env: 'prod' });
    place('a.csv', `${head}db,vm-1,10.0.0.256,ledger,\nnew,vm-3,10.0.0.4,,\n`);
    await until('the edit', () => topic.text() === '-vm-2 c vm-1 vm-3');
    assert.match(kubelink.output(), /a\.csv: line 2 \(vm-1\): column address: \\"10\.0\.0\.256\\"/);
    assert.equal(topic.counts.get('workload//vm/vm-1'), 1);
    place('a.csv', `nme,address\nx,10.0.0.1\n`);
    await until('the wrong header is said', () => /column nme is not known/.test(kubelink.output()));
    assert.equal(topic.text(), '-vm-2 c vm-1 vm-3');
    rmSync(join(folder, 'hosts', 'a.csv'));
    await until('the file is gone', () => topic.text() === '-vm-1 -vm-2 -vm-3 c');
  });

  test('listed names have the addresses that a DNS server gives, keep them while it fails, and across SIGKILL', async () => {
    const dns = await DnsServer.open();
    try {
      dns.addresses = ['203.0.113.7', '2001:db8::7'];
      place('names.yaml', 'names: [{ name: provider, dns: [pay.example.com], resolve: true }]');
      const settings = {
        EASTWEST_KUBELINK_NAMES_SERVERS: JSON.stringify([dns.address]),
        EASTWEST_KUBELINK_NAMES_INTERVAL_MS: '100',
        EASTWEST_KUBELINK_NAMES_KEEP_MS: '0',
        EASTWEST_KUBELINK_NAMES_TIMEOUT_MS: '200',
      };
      const source = { kind: 'hosts', path: join(folder, 'hosts'), name: 'files' };
      const first = await startKubelink([source], settings);
      const open = (): string => {
        const event = topic.newest.get('name/provider')?.event;
        const addresses = event?.type === 'name' ? event.addresses : [];
        return addresses.flatMap(({ ip, untilMs }) => (untilMs === undefined ? [ip] : [`-${ip}`])).join(' ');
      };
      await until('both addresses', () => open() === '203.0.113.7 2001:db8::7');
      dns.addresses = ['203.0.113.8', '2001:db8::7'];
      await until('one has changed', () => open() === '-203.0.113.7 2001:db8::7 203.0.113.8');
      dns.isFailing = true;
      await until('the failure is said', () => /pay\.example\.com: cannot be looked up/.test(first.output()));
      await first.kill();
      const second = await startKubelink([source], settings);
      await until('it fails still', () => /pay\.example\.com: cannot be looked up/.test(second.output()));
      assert.equal(open(), '-203.0.113.7 2001:db8::7 203.0.113.8');
      assert.equal(second.output().split('cannot be looked up').length, 2, 'said once');
      dns.isFailing = false;
      dns.addresses = ['2001:db8::7'];
      await until(
        'what was found before the restart ends',
        () => open() === '-203.0.113.7 2001:db8::7 -203.0.113.8',
      );
    } finally {
      dns.close();
    }
  });
});

/** A DNS server for one name, as small as can be (RFC 1035): answers A and AAAA, or SERVFAIL. */
class DnsServer {
  addresses: readonly string[] = [];
  isFailing = false;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (query, { port, address }) => socket.send(this.#answer(query), port, address));
  }

  static async open(): Promise<DnsServer> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new DnsServer(socket);
  }

  get address(): string {
    return `127.0.0.1:${this.#socket.address().port}`;
  }

  close(): void {
    this.#socket.close();
  }

  #answer(query: Buffer): Buffer {
    let end = 12;
    while (query[end] !== 0) end += (query[end] ?? 0) + 1;
    const isIpv6 = query.readUInt16BE(end + 1) === 28;
    const question = query.subarray(12, end + 5);
    const found = this.isFailing ? [] : this.addresses.filter((ip) => ip.includes(':') === isIpv6);
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(this.isFailing ? 0x8182 : 0x8180, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(found.length, 6);
    const records = found.map((ip) => {
      const bytes = parseAddress(ip) ?? new Uint8Array(16);
      const data = isIpv6 ? bytes : bytes.subarray(12);
      const record = Buffer.alloc(12);
      record.writeUInt16BE(0xc00c, 0);
      record.writeUInt16BE(isIpv6 ? 28 : 1, 2);
      record.writeUInt16BE(1, 4);
      record.writeUInt32BE(1, 6);
      record.writeUInt16BE(data.length, 10);
      return Buffer.concat([record, data]);
    });
    return Buffer.concat([head, question, ...records]);
  }
}
