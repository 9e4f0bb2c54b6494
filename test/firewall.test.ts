/** The audit of static firewall rules, against a real store and a recount of every flow against every rule. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Ajv } from 'ajv';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import type { AuditAnswer, AuditedRule } from '../cli/firewall/answer.ts';
import { firewallCsv, makeFirewallRules } from '../estate/firewall.ts';
import { addressTexts, parseAddresses } from '../lib/firewall/addresses.ts';
import { firewallVerdicts } from '../lib/firewall/audit.ts';
import { seenServices } from '../lib/firewall/narrow.ts';
import { serviceTexts } from '../lib/firewall/services.ts';
import { identityId, workloadId } from '../lib/inventory/ids.ts';
import { migrate } from '../lib/store/migrate.ts';
import { openStore } from '../lib/store/open.ts';
import type { Store } from '../lib/store/store.ts';
import { isoSeconds } from '../services/query/time.ts';
import { startClickHouse, type TestClickHouse } from './support/clickhouse.ts';
import {
  type PlainRule,
  type RawFlow,
  type Recounted,
  recountRules,
  writeEstate,
  writeRaw,
} from './support/firewall-scene.ts';
import { clickhouseTime, type FlowRow, makeFlows, writeFlows, writeInventory } from './support/query-rows.ts';
import { buildScene, pastMinute, runCommand } from './support/query-scene.ts';

const log = pino({ level: 'silent' });
const endS = pastMinute();
const hour = 3600;

let clickhouse: TestClickHouse;
const opened: { readonly store: Store; readonly app: FastifyInstance }[] = [];
let folder: string;

/** A database of its own with the tables, and the API over it. */
async function openDatabase(name: string): Promise<{ store: Store; app: FastifyInstance }> {
  const config = clickhouse.config(name);
  const store = openStore(config, { log });
  await migrate(store, { log });
  const app = await buildScene(
    {},
    { url: clickhouse.url, database: config.database, ...config.reader },
    store,
  );
  const scene = { store, app };
  opened.push(scene);
  return scene;
}

async function audit(app: FastifyInstance, body: Record<string, unknown>): Promise<AuditAnswer> {
  const answer = await app.inject({ method: 'POST', url: '/api/v1/firewall/audit', payload: body });
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json<AuditAnswer>();
}

function csvOf(rules: readonly PlainRule[]): string {
  const lines = rules.map(({ source, destination, port, action }) =>
    [source, destination, port, action].join(','),
  );
  return ['source,destination,port,action', ...lines].join('\n');
}

before(async () => {
  clickhouse = await startClickHouse();
  folder = await mkdtemp(join(tmpdir(), 'eastwest-firewall-'));
});
after(async () => {
  for (const { store, app } of opened) {
    await app.close();
    await store.close();
  }
  await clickhouse?.stop();
  await rm(folder, { recursive: true, force: true });
});

function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 4_294_967_296) * below);
  };
}

/** What a rule of the answer says, in the terms of the recount. */
function counted(rule: AuditedRule): Record<string, unknown> {
  return {
    ...rule.hits,
    first: rule.firstSeen,
    last: rule.lastSeen,
    narrowest: rule.narrowest,
  };
}

function expected(rule: PlainRule, count: Recounted): Record<string, unknown> {
  const { flows, connections, bytesForward, bytesReverse, firstS, lastS } = count;
  const addresses = (list: Set<string>): string[] => {
    const set = parseAddresses([...list].join(';'));
    assert.ok(typeof set !== 'string');
    return addressTexts(set);
  };
  const isDetailed = flows > 0 && rule.action === 'allow';
  const ports = [...count.services].map((text) => {
    const [port, protocol] = text.split('/');
    return `${protocol === 'tcp' ? 6 : 17} ${port}`;
  });
  return {
    flows,
    connections,
    bytesForward,
    bytesReverse,
    first: firstS === null ? null : isoSeconds(firstS),
    last: lastS === null ? null : isoSeconds(lastS),
    narrowest: isDetailed
      ? {
          source: addresses(count.sources),
          destination: addresses(count.destinations),
          port: serviceTexts(seenServices(ports)),
        }
      : null,
  };
}

describe('hits', () => {
  /** Flows of the small estate, some of which went to a load balancer first. */
  const flows: (FlowRow & Pick<RawFlow, 'original_dst_ip' | 'original_dst_port'>)[] = makeFlows(
    endS,
    7,
    900,
  ).map((row, i) =>
    i % 7 === 0 && row.to === 'ledger'
      ? { ...row, original_dst_ip: '10.60.0.5', original_dst_port: 15432 }
      : row,
  );
  const random = randomFrom(11);
  const pick = (list: readonly string[]): string => list[random(list.length)] ?? 'any';
  const width = (rule: PlainRule): number => Object.values(rule).filter((text) => text === 'any').length;
  const around = (ip: string): string => {
    const wider = ip.includes(':')
      ? ['2001:db8::/32']
      : [`${ip.split('.').slice(0, 2).join('.')}.0.0/16`, '10.0.0.0/8;198.51.100.8/31'];
    return pick(['any', ip, ip, ip, `${ip};192.0.2.1`, ...wider]);
  };
  const rules = Array.from({ length: 60 }, (): PlainRule => {
    const one = flows[random(flows.length)] as (typeof flows)[number];
    const other = flows[random(flows.length)] as (typeof flows)[number];
    const isFront = one.original_dst_ip !== undefined && random(2) === 0;
    const port = isFront ? one.original_dst_port : one.dst_port;
    return {
      source: around(one.src_ip),
      destination: around(
        isFront ? (one.original_dst_ip ?? '') : random(5) === 0 ? other.dst_ip : one.dst_ip,
      ),
      port: pick([
        'any',
        `${port}`,
        `${port}/${one.protocol === 6 ? 'tcp' : 'udp'}`,
        `22;${other.dst_port}/tcp`,
        '1-65535/tcp',
      ]),
      action: random(4) === 0 ? 'deny' : 'allow',
    };
    // Wide rules last, as people write them: else the first takes everything.
  }).sort((a, b) => width(a) - width(b));
  let app: FastifyInstance;

  before(async () => {
    const scene = await openDatabase('hits');
    ({ app } = scene);
    await writeInventory(scene.store, (endS - 8 * hour) * 1000);
    await writeFlows(
      scene.store,
      flows.map((row) => ({
        ...row,
        ...(row.original_dst_ip === undefined ? {} : { original_dst_ip: `::ffff:${row.original_dst_ip}` }),
      })),
    );
  });

  for (const mode of ['first', 'any'] as const) {
    for (const [what, sinceS, untilS] of [
      ['all that is stored', endS - 9 * hour, endS],
      ['a window of minutes and hours', endS - 5 * hour - 17 * 60, endS - 11 * 60],
    ] as const) {
      test(`equal a recount of every flow against every rule: ${mode} match, ${what}`, async () => {
        const within = flows.filter(({ time }) => time >= sinceS && time < untilS);
        const truth = recountRules(rules, within, mode);
        const times = { since: isoSeconds(sinceS), until: isoSeconds(untilS) };
        const answer = await audit(app, { rules: csvOf(rules), match: mode, ...times });
        assert.ok(truth.rules.filter((rule) => rule.flows > 0).length > (mode === 'first' ? 6 : 40));
        assert.deepEqual(
          answer.rules.map(counted),
          rules.map((rule, i) => expected(rule, truth.rules[i] as Recounted)),
        );
        assert.equal(answer.unmatchedFlows, truth.unmatched);
      });
    }
  }

  test('come from rollups alone where these keep what the rules ask for', async () => {
    const few = csvOf([
      { source: '10.99.0.0/16', destination: 'any', port: '8080/udp', action: 'deny' },
      { source: 'any', destination: '198.51.100.9', port: '443', action: 'deny' },
      { source: 'any', destination: 'any', port: 'any', action: 'deny' },
    ]);
    const answer = await audit(app, { rules: few });
    assert.doesNotMatch(answer.table, /flows/);
    assert.equal(
      answer.rules.reduce((sum, { hits }) => sum + hits.flows, 0),
      flows.length,
    );
    const pinned = csvOf([{ source: '10.244.0.11', destination: 'any', port: 'any', action: 'deny' }]);
    assert.match((await audit(app, { rules: pinned })).table, /flows/);
  });

  test('answer as their schema says', async () => {
    const document = (await app.inject('/openapi.json')).json();
    const { schema } =
      document.paths['/api/v1/firewall/audit'].post.responses['200'].content['application/json'];
    const check = new Ajv({ strict: false }).compile(schema);
    const answer = await audit(app, { rules: csvOf(rules) });
    assert.ok(check(answer), JSON.stringify(check.errors));
  });
});

interface Held {
  readonly app: string;
  readonly name: string;
  readonly ip: string;
  readonly fromS: number;
  readonly toS: number | null;
  readonly network?: string;
}

function identityOf(app: string): string {
  const labels: Record<string, string> = app === '' ? {} : { app, role: 'api', env: 'prod' };
  return String(
    identityId({ kind: 'pod', cluster: 'east', namespace: `${app}-prod`, name: '', zone: 'inside', labels }),
  );
}

const nobody = String(
  identityId({ kind: 'unknown', cluster: '', namespace: '', name: '', zone: 'inside', labels: {} }),
);

async function writeHolders(store: Store, held: readonly Held[]): Promise<void> {
  await store.insertRows('identities', [
    ...[...new Set(held.map(({ app }) => app))].map((app) => ({
      id: identityOf(app),
      kind: 'pod',
      cluster: 'east',
      namespace: `${app}-prod`,
      zone: 'inside',
      app,
      role: 'api',
      env: 'prod',
      label_keys: ['app', 'env', 'role'],
      label_values: [app, 'prod', 'api'],
    })),
    { id: nobody, kind: 'unknown', zone: 'inside' },
  ]);
  await store.insertRows(
    'workloads',
    held.map(({ app, name, ip, fromS, toS, network }) => ({
      id: String(workloadId('east', 'pod', name)),
      kind: 'pod',
      cluster: network ?? 'east',
      namespace: `${app}-prod`,
      name,
      uid: name,
      identity: identityOf(app),
      network: network ?? 'east',
      ip: `::ffff:${ip}`,
      valid_from: clickhouseTime(fromS * 1000),
      valid_to: clickhouseTime((toS ?? 9_999_999_999) * 1000),
    })),
  );
}

describe('verdicts', () => {
  const long = endS - 5 * 24 * hour;
  const held: Held[] = [
    { app: 'payments', name: 'payments-1', ip: '10.1.0.1', fromS: long, toS: endS - 2 * hour },
    { app: 'search', name: 'search-9', ip: '10.1.0.1', fromS: endS - 2 * hour, toS: null },
    // The same address in another cluster says nothing.
    { app: 'elsewhere', name: 'elsewhere-1', ip: '10.1.0.2', fromS: long, toS: null, network: 'west' },
    { app: 'ledger', name: 'ledger-1', ip: '10.1.0.2', fromS: long, toS: endS - 3 * hour },
    { app: 'cards', name: 'cards-1', ip: '10.1.0.3', fromS: long, toS: endS - 3 * hour },
    { app: 'fraud', name: 'fraud-1', ip: '10.1.0.3', fromS: endS - 3 * hour, toS: null },
    { app: 'loans', name: 'loans-1', ip: '10.1.0.4', fromS: long, toS: endS - 3 * hour },
    { app: 'loans', name: 'loans-2', ip: '10.1.0.4', fromS: endS - 3 * hour, toS: null },
    { app: 'oracle', name: 'ora-1', ip: '10.2.0.1', fromS: long, toS: null },
    { app: 'retired', name: 'retired-1', ip: '10.3.0.1', fromS: long, toS: endS - 4 * hour },
  ];
  const flow = (
    from: string,
    to: string,
    port: number,
    atS: number,
    more: Partial<RawFlow> = {},
  ): RawFlow => {
    const of = (ip: string): { app: string; workload: string } => {
      const found = held.find(
        (one) => one.ip === ip && one.network === undefined && one.fromS <= atS && (one.toS ?? atS + 1) > atS,
      );
      return {
        app: found?.app ?? '',
        workload: found === undefined ? '0' : String(workloadId('east', 'pod', found.name)),
      };
    };
    return {
      time: atS,
      src_ip: from,
      dst_ip: to,
      src_identity: of(from).workload === '0' ? nobody : identityOf(of(from).app),
      dst_identity: of(to).workload === '0' ? nobody : identityOf(of(to).app),
      src_workload: of(from).workload,
      dst_workload: of(to).workload,
      dst_port: port,
      protocol: 6,
      side: 'source',
      connections: 1,
      bytes_forward: 100,
      bytes_reverse: 200,
      ...more,
    };
  };
  const early = endS - 5 * hour;
  const late = endS - hour;
  const flows = [
    flow('10.1.0.1', '10.2.0.1', 1521, early),
    flow('10.1.0.2', '10.2.0.1', 1522, early),
    flow('10.1.0.3', '10.2.0.1', 1523, early),
    flow('10.1.0.3', '10.2.0.1', 1523, late),
    flow('10.1.0.4', '10.2.0.1', 1524, early),
    flow('10.1.0.4', '10.2.0.1', 1524, late),
    flow('10.1.0.4', '10.2.0.1', 1525, late),
    flow('10.1.0.4', '10.3.0.1', 873, late),
    flow('10.1.0.4', '203.0.113.9', 4444, late),
  ];
  const rules = [
    '10.1.0.1,10.2.0.1,1521/tcp,allow,payments to oracle',
    '10.1.0.2,10.2.0.1,1522/tcp,allow,ledger to oracle',
    '10.1.0.3,10.2.0.1,1523/tcp,allow,cards to oracle',
    '10.1.0.4,10.2.0.1,1524/tcp,allow,NET-24 loans to oracle',
    '10.1.0.0/24,10.2.0.0/24,1525-1530/tcp,allow,broad',
    '10.1.0.0/24,10.3.0.1,873,allow,backups',
    '10.3.0.1,10.2.0.1,22,allow,dead',
    '10.1.0.4,10.2.0.1,1524-1526/tcp,allow,after all',
    '10.1.0.4,10.2.0.1,1526/tcp,deny,too late',
    'any,203.0.113.9,4444/tcp,deny,command and control',
  ];
  const csv = ['source,destination,port,action,comment', ...rules].join('\n');
  let app: FastifyInstance;
  let byLine: Map<number, AuditedRule>;
  const ruleOf = (line: number): AuditedRule => byLine.get(line) as AuditedRule;

  before(async () => {
    const scene = await openDatabase('verdicts');
    ({ app } = scene);
    await writeHolders(scene.store, held);
    await writeRaw(scene.store, flows);
    const answer = await audit(app, { rules: csv, since: '24h' });
    byLine = new Map(answer.rules.map((rule) => [rule.line, rule]));
    assert.deepEqual(answer.summary, { unused: 3, reused: 2, 'owner-gone': 2, broader: 1, used: 2 });
  });

  test('an address that another app has now is reused: who had it, who has it', () => {
    const rule = ruleOf(2);
    assert.deepEqual(rule.verdicts, ['reused']);
    const [holder] = rule.holders;
    assert.equal(holder?.state, 'another-app');
    assert.equal(holder?.before?.name, 'payments-1');
    assert.equal(holder?.beforeUntil, new Date((endS - 2 * hour) * 1000).toISOString());
    assert.deepEqual(
      holder?.now.map(({ name }) => name),
      ['search-9'],
    );
    assert.match(
      rule.notes[0] ?? '',
      /^source 10\.1\.0\.1 was payments \(pod payments-1\) until .*, now it is search \(pod search-9\)$/,
    );
    assert.deepEqual(rule.heldNow.sources, { 'app search': 1 });
  });

  test('an address that nobody has any more in its network is gone, whoever has it elsewhere', () => {
    const rule = ruleOf(3);
    assert.deepEqual(rule.verdicts, ['owner-gone']);
    assert.deepEqual(rule.holders[0]?.now, []);
    assert.equal(rule.lastSeen, isoSeconds(early));
  });

  test('a rule that two apps used by one address, one after another, is reused', () => {
    assert.deepEqual(ruleOf(4).verdicts, ['reused']);
    assert.equal(ruleOf(4).holders[0]?.state, 'shared');
  });

  test('a pod that the same app replaced leaves the rule used', () => {
    const rule = ruleOf(5);
    assert.deepEqual(rule.verdicts, ['used']);
    assert.deepEqual(rule.equivalent, {
      rule: {
        name: 'net-24-loans-to-oracle-line-5',
        from: [{ labels: { app: 'loans', role: 'api', env: 'prod' } }],
        to: [{ labels: { app: 'oracle', role: 'api', env: 'prod' } }],
        services: [{ port: 1524 }],
        ticket: 'NET-24',
      },
    });
  });

  test('a rule that opens more than was used is broader, and the narrowest is named', () => {
    const rule = ruleOf(6);
    assert.deepEqual(rule.verdicts, ['broader']);
    assert.deepEqual(rule.narrowest, { source: ['10.1.0.4'], destination: ['10.2.0.1'], port: ['1525/tcp'] });
    assert.deepEqual(rule.breadth, {
      sources: { open: 256, used: 1 },
      destinations: { open: 256, used: 1 },
      ports: { open: 6, used: 1 },
      isBroader: true,
    });
  });

  test('flows to an address whose owner went before them say that it is gone', () => {
    const rule = ruleOf(7);
    assert.deepEqual(rule.verdicts, ['owner-gone', 'broader']);
    const holder = rule.holders.find(({ end }) => end === 'destination');
    assert.equal(holder?.before?.name, 'retired-1');
  });

  test('an unused rule says who had its addresses last', () => {
    const rule = ruleOf(8);
    assert.deepEqual(rule.verdicts, ['unused']);
    assert.match(
      rule.notes.join('\n'),
      /source 10\.3\.0\.1 is nobody's; retired \(pod retired-1\) had it until/,
    );
  });

  test('a rule that earlier ones take all of is shadowed, by one or by several together', () => {
    assert.deepEqual(ruleOf(9).shadowedBy, [5, 6]);
    assert.match(ruleOf(9).notes[0] ?? '', /^never reached: lines 5, 6 do the same for all of it$/);
    assert.deepEqual(ruleOf(10).shadowedBy, [6]);
    assert.match(ruleOf(10).notes[0] ?? '', /^never reached: line 6 decides otherwise before it$/);
  });

  test('what a rule denies and gets answers all the same does not pass by the firewall', () => {
    assert.deepEqual(ruleOf(11).verdicts, ['used']);
    assert.match(ruleOf(11).notes[0] ?? '', /does not pass by this firewall/);
  });

  test('what is older than single flows is said to be undecided, not unused in silence', async () => {
    const scene = await openDatabase('older');
    await writeHolders(scene.store, held);
    await writeRaw(scene.store, flows);
    const oldS = Math.floor((endS - 40 * 24 * hour) / hour) * hour;
    await scene.store.insertRows('edges_1h', [
      {
        time: oldS,
        src_identity: identityOf('payments'),
        dst_identity: identityOf('oracle'),
        src_ip: '::',
        dst_ip: '::',
        dst_port: 22,
        protocol: 6,
        verdict: 'unexplained',
        reason: 'no-rule',
        rule: '0',
        side: 'source',
        flows: 5,
        connections: 5,
        bytes_forward: 1,
        bytes_reverse: 1,
        packets_forward: 1,
        packets_reverse: 1,
        first_seen: oldS + 5,
        last_seen: oldS + 9,
      },
    ]);
    const answer = await audit(scene.app, { rules: csv, since: '90d' });
    assert.notEqual(answer.singleFlowsSince, null);
    const dead = answer.rules.find(({ line }) => line === 8);
    assert.equal(dead?.verdict, 'unused');
    assert.match(
      dead?.notes.join('\n') ?? '',
      new RegExp(`5 older flows may have passed by it, the last at ${isoSeconds(oldS + 9)}`),
    );
    assert.doesNotMatch(answer.rules[0]?.notes.join('\n') ?? '', /older flows/);
  });

  test('bad input is refused with everything that is wrong, by line', async () => {
    const answer = await app.inject({
      method: 'POST',
      url: '/api/v1/firewall/audit',
      payload: { rules: 'source,destination,port,action\n1.2.3.999,any,443,allow\nany,any,443,maybe' },
    });
    assert.equal(answer.statusCode, 400);
    const problem = answer.json<{ type: string; detail: string; parameter: string }>();
    assert.equal(problem.type, 'urn:eastwest:problem:bad-body');
    assert.equal(problem.parameter, 'rules');
    const [first, second] = problem.detail.split('\n');
    assert.match(first ?? '', /^line 2: source: "1\.2\.3\.999" is no address/);
    assert.match(second ?? '', /^line 3: action: "maybe" is no action/);
  });

  test('the command shows them, fails on request, and prints rules to go on with', async () => {
    await app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = app.server.address() as AddressInfo;
    const environment = { EASTWEST_URL: `http://127.0.0.1:${port}`, NO_COLOR: '1' };
    const file = join(folder, 'rules.csv');
    await writeFile(file, csv);
    const run = (...args: string[]) => runCommand(['firewall', 'audit', ...args], environment);
    // Two audits at once are what the API takes.
    const [plain, failing] = await Promise.all([
      run(file, '--since', '24h', '--details'),
      run(file, '--since', '24h', '--fail-on', 'reused,owner-gone'),
    ]);
    const [passing, policy] = await Promise.all([
      run(file, '--since', '24h', '--only', 'used', '--fail-on', 'broader'),
      run(file, '--since', '24h', '--policy', '--fail-on', 'used'),
    ]);
    const [narrow, json, bad] = await Promise.all([
      run(file, '--since', '24h', '--narrowest'),
      run(file, '--since', '24h', '--json'),
      run(join(folder, 'bad.csv')),
    ]);
    assert.equal(plain.code, 0, plain.stderr);
    assert.match(
      plain.stdout,
      /^ *2 +address reused by another app +allow +10\.1\.0\.1 +10\.2\.0\.1 +1521\/tcp/m,
    );
    assert.match(plain.stdout, /now pod east\/search-prod\/search-9 \(search\/api\/prod\) \[another-app\]/);
    assert.match(
      plain.stderr,
      /10 rules: 3 unused, 2 address reused by another app, 2 owner gone, 1 broader than used, 2 used/,
    );
    assert.equal(failing.code, 3);
    assert.equal(passing.code, 3);
    assert.doesNotMatch(passing.stdout, /owner gone/);
    assert.match(policy.stdout, /app: loans/);
    assert.match(policy.stdout, /# line 4: the source is of several apps: cards, fraud/);
    assert.match(narrow.stdout, /^10\.1\.0\.4,10\.2\.0\.1,1525\/tcp,allow,broad$/m);
    assert.equal(bad.code, 2);
    assert.equal(JSON.parse(json.stdout).rules.length, 10);
    await writeFile(join(folder, 'policy.yaml'), policy.stdout);
    const checked = await runCommand(['rules', 'check', join(folder, 'policy.yaml')], environment);
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  });
});

describe('the demo estate', () => {
  test('shows each verdict on its own list of rules, and hits as a recount has them', async () => {
    const scene = await openDatabase('demo');
    const startMs = Math.floor(Date.now() / 60_000) * 60_000 - 9 * 60_000;
    const { world, rows } = await writeEstate(scene.store, startMs, 5);
    const rules = makeFirewallRules(world);
    const answer = await audit(scene.app, { rules: firewallCsv(rules), since: '1h' });
    assert.deepEqual(
      answer.rules.map(({ verdict }, i) => [rules[i]?.comment, verdict]),
      rules.map(({ comment, expected: verdict }) => [comment, verdict]),
    );
    assert.deepEqual(new Set(answer.rules.map(({ verdict }) => verdict)), new Set(firewallVerdicts));
    const plain = rules.map(
      ({ source, destination, port, action }): PlainRule => ({
        source,
        destination: addressTexts(
          parseAddresses(destination) as Exclude<ReturnType<typeof parseAddresses>, string>,
        ).join(';'),
        port,
        action: action === 'permit' ? 'allow' : 'deny',
      }),
    );
    const truth = recountRules(plain, rows, 'first');
    assert.deepEqual(
      answer.rules.map(({ hits: { flows, connections } }) => ({ flows, connections })),
      truth.rules.map(({ flows, connections }) => ({ flows, connections })),
    );
  });
});
