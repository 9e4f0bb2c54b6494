/** When a policy takes effect: a flow is judged by the version in force when it began, whenever it is written. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { Default, Parse } from 'typebox/value';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { inventoryKey } from '../lib/inventory/events.ts';
import { parseWireAddress } from '../lib/net/address.ts';
import { emptyPolicy } from '../lib/policy/engine.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { encodeFlowBatch } from '../lib/wire/flow-batch.ts';
import { plainBatch, plainFlow } from '../lib/wire/plain-flow.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { PolicyDocument, Rule } from '../schemas/policy.ts';
import { topics } from '../schemas/topics.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';
import { until } from './support/until.ts';

const log = pino({ level: 'silent' });
const cluster = 'east';
const nowMs = Math.floor(Date.now() / 1000) * 1000;
const any = [{ any: true as const }];

function pod(uid: string, ip: string): InventoryEvent {
  const common = {
    v: 1,
    cluster,
    uid,
    name: uid,
    namespace: 'shop',
    labels: { app: uid },
    annotations: {},
  } as const;
  const addresses = [{ ip, network: cluster, sinceMs: 0 }];
  return { ...common, type: 'workload', kind: 'pod', node: 'n1', hostNetwork: false, addresses, sinceMs: 0 };
}

function policyOf(rules: readonly Rule[]): Omit<PolicyDocument, 'v' | 'version' | 'author' | 'appliedMs'> {
  const { v: _, version: __, author: ___, appliedMs: ____, ...empty } = emptyPolicy;
  const profile = { name: 'all', match: {}, map: [{ key: 'app', from: { label: 'app' } }] };
  return { ...empty, profiles: [profile], rulesets: [{ name: 's', rules: [...rules] }] };
}

describe('a policy takes effect', () => {
  let clickhouse: TestClickHouse;
  let store: Store;
  let bus: Bus;
  let dataDir: string;
  let enrich: ServiceProcess | undefined;
  let sequence = 0;
  const busConfig = Parse(BusConfig, Default(BusConfig, { partitionCount: 1 }));

  /** Puts a version on the topic that is in force from `appliedMs` on. */
  const inForce = async (version: number, appliedMs: number, rules: readonly Rule[]): Promise<void> => {
    const document = { ...policyOf(rules), v: 1, version, author: 'test', appliedMs };
    await bus.append(topics.policy, [
      { key: `policy/${version}/test`, value: Buffer.from(JSON.stringify(document)) },
    ]);
  };

  const send = async (
    destination: string,
    startsMs: readonly number[],
    port: number,
    dnsName = '',
  ): Promise<void> => {
    const baseMs = Math.min(...startsMs);
    const flows = startsMs.map((startMs, i) => ({
      ...plainFlow,
      startMs: startMs - baseMs,
      sourceAddress: Buffer.from(parseWireAddress('10.1.0.1') ?? []),
      sourcePort: 40_000 + i,
      destinationAddress: Buffer.from(parseWireAddress(destination) ?? []),
      destinationPort: port,
      dnsName: dnsName === '' ? 0 : 1,
    }));
    const value = encodeFlowBatch({
      ...plainBatch,
      sequence: ++sequence,
      cluster,
      node: 'n1',
      network: cluster,
      observedFromMs: baseMs,
      observedToMs: nowMs,
      strings: ['', dnsName],
      flows,
    });
    await bus.append(topics.flows, [{ key: 'agent', value }]);
  };

  /** Seconds before now, policy and rule of each flow to a port, once all are there. */
  const judged = async (port: number, count: number): Promise<string[]> => {
    let rows: { ago: string; policy: number; verdict: string; name: string }[] = [];
    await until(
      `${count} flows to port ${port}`,
      30_000,
      async () => {
        rows = await store.query(
          `SELECT toInt64({now:UInt32}) - toInt64(toUnixTimestamp(time)) AS ago, policy, verdict, any(rules.name) AS name
           FROM flows_all LEFT JOIN rules ON rules.id = flows_all.rule WHERE dst_port = {port:UInt16}
           GROUP BY time, policy, verdict, rule, src_port ORDER BY time, src_port`,
          { port, now: nowMs / 1000 },
        );
        return (
          rows.length === count && rows.every(({ verdict, name }) => verdict === 'unexplained' || name !== '')
        );
      },
      () => `${JSON.stringify(rows)}\n${enrich?.output().slice(-3000)}`,
    );
    return rows.map(({ ago, policy, verdict, name }) => `${ago} v${policy} ${verdict} ${name}`.trimEnd());
  };

  before(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'eastwest-effect-'));
    clickhouse = await startClickHouse();
    store = openStore(clickhouse.config(), { log });
    await migrate(store, { log });
    bus = await openBus(busConfig, { dataDir, log, clientId: 'test' });
    await bus.ensureTopics(topicSpecs(busConfig));
    const events: InventoryEvent[] = [
      { v: 1, type: 'cluster', cluster, podCidrs: ['10.1.0.0/16'], serviceCidrs: [] },
      pod('web', '10.1.0.1'),
      pod('db', '10.1.0.9'),
    ];
    await bus.append(
      topics.inventory,
      events.map((event) => ({ key: inventoryKey(event), value: Buffer.from(JSON.stringify(event)) })),
    );
    await inForce(1, nowMs - 900_000, [{ name: 'everything', from: any, to: any }]);
    await inForce(2, nowMs - 600_000, [
      {
        name: 'by-address',
        from: [{ cidr: '10.1.0.0/24' }],
        to: [{ cidr: ['10.1.0.8/30', '192.0.2.0/24'] }],
      },
    ]);
    await inForce(3, nowMs - 300_000, [
      { name: 'never', from: [{ cidr: '172.16.0.0/12' }], to: any },
      { name: 'by-label', from: [{ labels: { app: 'web' } }], to: [{ labels: { app: 'db' } }] },
      { name: 'soon-over', from: any, to: any, expires: new Date(nowMs - 100_000).toISOString() },
    ]);
    enrich = await startService('enrich', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_BUS_PARTITION_COUNT: '1',
      EASTWEST_STORE_URL: clickhouse.url,
      EASTWEST_ENRICH_LINGER_MS: '50',
      EASTWEST_ENRICH_HOLD_MS: '300',
      EASTWEST_ENRICH_CATALOG_FLUSH_MS: '200',
    });
  });
  after(async () => {
    await enrich?.kill();
    await bus.close();
    await store.close();
    await clickhouse.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  test('for flows that begin from then on; those of one batch are judged each by its own', async () => {
    await send(
      '10.1.0.9',
      [901, 899, 601, 600, 450, 301, 299, 200, 10].map((ago) => nowMs - ago * 1000),
      1000,
    );
    assert.deepEqual(await judged(1000, 9), [
      '901 v1 allowed everything',
      '899 v1 allowed everything',
      '601 v1 allowed everything',
      '600 v2 allowed by-address',
      '450 v2 allowed by-address',
      '301 v2 allowed by-address',
      '299 v3 allowed by-label',
      '200 v3 allowed by-label',
      '10 v3 allowed by-label',
    ]);
  });

  test('also where rules speak of addresses, and until a rule expires', async () => {
    await send(
      '192.0.2.1',
      [700, 500, 200, 101, 100, 50].map((ago) => nowMs - ago * 1000),
      1001,
    );
    assert.deepEqual(await judged(1001, 6), [
      '700 v1 allowed everything',
      '500 v2 allowed by-address',
      '200 v3 allowed soon-over',
      '101 v3 allowed soon-over',
      '100 v3 unexplained',
      '50 v3 unexplained',
    ]);
  });

  test('while the enricher runs, and the same for flows that come after it was killed', async () => {
    const document = await publishPolicy(
      bus,
      {
        ...policyOf([{ name: 'by-name', from: any, to: [{ dns: '*.acme.example' }] }]),
        boundaries: [{ name: 'nothing-to-db', from: any, to: [{ labels: { app: 'db' } }] }],
      },
      'test',
    );
    assert.equal(document.version, 4);
    const starts = [-2000, -1, 0, 2000].map((offset) => document.appliedMs + offset);
    const verdicts = (port: number) => async (): Promise<string[]> => {
      await until('flows may begin then', 10_000, async () => Date.now() > document.appliedMs + 2000);
      await send('198.51.100.7', starts, port, 'api.acme.example');
      return (await judged(port, 4)).map((text) => text.replace(/^-?\d+ /, ''));
    };
    const wanted = ['v3 unexplained', 'v3 unexplained', 'v4 allowed by-name', 'v4 allowed by-name'];
    assert.deepEqual(await verdicts(1002)(), wanted);
    await send('10.1.0.9', [document.appliedMs + 1000], 1004);
    assert.match((await judged(1004, 1)).join(), /v4 denied nothing-to-db$/);
    await enrich?.kill();
    enrich = await startService('enrich', {
      EASTWEST_RUNTIME_DATA_DIR: dataDir,
      EASTWEST_BUS_PARTITION_COUNT: '1',
      EASTWEST_STORE_URL: clickhouse.url,
      EASTWEST_ENRICH_LINGER_MS: '50',
    });
    assert.deepEqual(await verdicts(1003)(), wanted);
  });
});
