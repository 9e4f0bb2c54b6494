/** Drafts over a real ClickHouse: each answer against every stored flow judged anew, one by one. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { identityId, ruleId } from '../lib/inventory/ids.ts';
import { parseAddress } from '../lib/net/address.ts';
import { emptyPolicy, PolicyEngine, ruleOf, type Selectable, verdictCodeOf } from '../lib/policy/engine.ts';
import { readPolicy } from '../lib/policy/load.ts';
import { verdicts } from '../schemas/closed-lists.ts';
import { type FlowRow, makeFlows, people, recount, type Sums } from './support/query-rows.ts';
import { openQueryScene, pastMinute, type QueryScene, runCommand } from './support/query-scene.ts';

const endS = pastMinute();
const flows = makeFlows(endS, 5, 4000);
let scene: QueryScene;
let url: string;
let folder: string;

before(async () => {
  scene = await openQueryScene(flows, (endS - 86_400) * 1000);
  url = await scene.app.listen({ host: '127.0.0.1', port: 0 });
  folder = await mkdtemp(join(tmpdir(), 'eastwest-draft-'));
});

after(async () => {
  await scene?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** Rules that rollups decide alone. */
const byLabels = `
rulesets:
  - name: core
    scope: [{ app: ledger }, { app: payments }, { app: analytics }]
    rules:
      - { name: payments-to-ledger, from: [{ labels: { app: payments } }], to: [{ labels: { app: ledger } }], services: [{ port: 9100 }] }
      - { name: analytics-in, from: [{ labels: { app: analytics } }], to: [{ labels: { app: payments } }] }
      - { name: no-oracle, from: [{ labels: { app: payments } }], to: [{ labels: { app: oracle } }], action: deny }
      - { name: never-used, from: [{ labels: { app: oracle } }], to: [{ labels: { app: ledger } }] }
      - { name: partner, from: [{ any: true }], to: [{ cidr: 198.51.100.9 }], services: [{ port: 443 }] }
`;

/** Rules that ask for addresses of workloads, processes, and names that nobody listed when the flows came. */
const byMore = `
ipLists:
  - { name: one-payments-pod, cidrs: [10.244.0.11] }
services:
  - { name: from-java, ports: [{ port: 1521, process: 'ja*' }] }
rulesets:
  - name: core
    rules:
      - { name: one-pod, from: [{ ipList: one-payments-pod }], to: [{ labels: { app: ledger } }], services: [{ port: 5432 }] }
      - { name: java, from: [{ labels: { app: payments } }], to: [{ labels: { app: oracle } }], services: [from-java] }
      - { name: acme, from: [{ labels: { app: analytics } }], to: [{ dns: '*.acme.example' }] }
      - { name: strangers, from: [{ cidr: '2001:db8::/32' }], to: [{ labels: { app: payments } }], services: [{ protocol: udp }] }
boundaries:
  - { name: dev-stays-out, from: [{ labels: { env: dev } }], to: [{ cidr: 10.244.0.12/32 }] }
`;

type Said = { verdict: string; rule: { ruleset: string; name: string } | null };
interface Totals {
  connections: number;
  bytes: number;
  edges: number;
}
interface Changed {
  total: Totals;
  edges: {
    source: { identity: string; address: string | null };
    destination: { identity: string; address: string | null };
    port: number;
    before: Said;
    after: Said;
    connections: number;
    bytes: number;
    firstSeen: string;
    lastSeen: string;
  }[];
}
type Coverage = Record<'allowed' | 'denied' | 'unexplained' | 'undecided', Totals>;
interface DraftAnswer {
  before: Coverage;
  after: Coverage;
  newlyExplained: Changed;
  newlyDenied: Changed;
  newlyUnexplained: Changed;
  otherRule: Totals;
  ruleCount: number;
  unusedRules: { ruleset: string; name: string }[];
  edgesFromFlows: number;
}

async function post(yaml: string, more: Record<string, unknown> = {}): Promise<DraftAnswer> {
  const answer = await scene.app.inject({
    method: 'POST',
    url: '/api/v1/drafts',
    payload: { files: { 'rules.yaml': yaml }, since: '1d', limit: 10_000, ...more },
  });
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json<DraftAnswer>();
}

/** What a policy says of single flows, each asked on its own. */
function judgeFlows(yaml: string): (row: FlowRow) => { verdict: string; rule: string } {
  const loaded = readPolicy(new Map([['rules.yaml', yaml]]));
  assert.ok(loaded.ok, JSON.stringify(loaded));
  const engine = new PolicyEngine({ ...emptyPolicy, ...loaded.policy }, Date.now());
  const named: Selectable = {
    kind: 'name',
    cluster: '',
    namespace: '',
    name: '*.acme.example',
    labels: {},
  };
  const identities = [...Object.values(people), named];
  return (row) => {
    const index = (person: FlowRow['from']): number => identities.indexOf(people[person]);
    const blocks = (ip: string): number => engine.blockSet(parseAddress(ip) ?? new Uint8Array(16), 0);
    const listsName = yaml.includes('*.acme.example') && row.dns_name.endsWith('.acme.example');
    const packed = engine.evaluate(
      index(row.from),
      blocks(row.src_ip),
      people[row.from],
      listsName ? identities.length - 1 : index(row.to),
      blocks(row.dst_ip),
      listsName ? named : people[row.to],
      row.dst_port,
      row.protocol,
      engine.processClass(row.process),
    );
    const rule = engine.rules[ruleOf(packed)];
    return {
      verdict: verdicts[verdictCodeOf(packed)] ?? '',
      rule: rule === undefined ? '' : `${rule.ruleset.name}/${rule.rule.name}`,
    };
  };
}

const edgeOf = (row: FlowRow): string =>
  [
    row.src_identity,
    row.src_workload === '0' ? row.src_ip : '',
    row.dst_identity,
    row.dst_workload === '0' ? row.dst_ip : '',
    row.dst_port,
  ].join(' ');

function totalsOf(sums: Iterable<Sums>): Totals {
  const totals = { connections: 0, bytes: 0, edges: 0 };
  for (const { connections, bytesForward, bytesReverse } of sums) {
    totals.connections += connections;
    totals.bytes += bytesForward + bytesReverse;
    totals.edges++;
  }
  return totals;
}

const storedRule = (row: FlowRow): string =>
  row.rule === '0'
    ? ''
    : row.rule === String(ruleId('core', 'payments-to-ledger'))
      ? 'core/payments-to-ledger'
      : 'core/no-dev-to-prod';

type Judgement = (row: FlowRow) => { verdict: string; rule: string };
const stored: Judgement = (row) => ({ verdict: row.verdict, rule: storedRule(row) });

/** Everything that a draft says, from single flows. */
function expected(draft: Judgement, against: Judgement) {
  const coverage = (judge: Judgement, more: (row: FlowRow) => string): Coverage => {
    const sums = recount(flows, (row) => {
      const { verdict, rule } = judge(row);
      return `${verdict}|${edgeOf(row)}|${rule}|${more(row)}`;
    });
    const of = (verdict: string): Totals =>
      totalsOf([...sums].flatMap(([key, one]) => (key.startsWith(`${verdict}|`) ? [one] : [])));
    return {
      allowed: of('allowed'),
      denied: of('denied'),
      unexplained: of('unexplained'),
      undecided: { connections: 0, bytes: 0, edges: 0 },
    };
  };
  const changes = recount(flows, (row) => {
    const [was, is] = [against(row), draft(row)];
    return `${was.verdict}|${was.rule}|${is.verdict}|${is.rule}|${edgeOf(row)}`;
  });
  const changed = (verdict: string): Map<string, Sums> =>
    new Map([...changes].filter(([key]) => key.split('|')[0] !== verdict && key.split('|')[2] === verdict));
  return {
    before: coverage(against, (row) => (against === stored ? row.reason : '')),
    after: coverage(draft, () => ''),
    newlyExplained: changed('allowed'),
    newlyDenied: changed('denied'),
    newlyUnexplained: changed('unexplained'),
    otherRule: totalsOf(
      [...changes].flatMap(([key, sums]) => {
        const [was, wasRule, is, isRule] = key.split('|');
        return was === is && wasRule !== isRule ? [sums] : [];
      }),
    ),
    used: new Set(flows.map((row) => draft(row).rule)),
  };
}

function nameOf({ verdict, rule }: Said): string {
  return `${verdict}|${rule === null ? '' : `${rule.ruleset}/${rule.name}`}`;
}

function listed({
  edges,
}: Changed): Map<
  string,
  Omit<Sums, 'flows' | 'sides' | 'bytesForward' | 'bytesReverse'> & { bytes: number }
> {
  return new Map(
    edges.map((edge) => [
      `${nameOf(edge.before)}|${nameOf(edge.after)}|${edge.source.identity} ${edge.source.address ?? ''} ${edge.destination.identity} ${edge.destination.address ?? ''} ${edge.port}`,
      {
        connections: edge.connections,
        bytes: edge.bytes,
        firstS: Date.parse(edge.firstSeen) / 1000,
        lastS: Date.parse(edge.lastSeen) / 1000,
      },
    ]),
  );
}

function assertSame(answer: DraftAnswer, wanted: ReturnType<typeof expected>): void {
  const { allowed, denied, unexplained, undecided } = answer.after;
  assert.deepEqual({ allowed, denied, unexplained, undecided }, wanted.after);
  const { allowed: a, denied: d, unexplained: u, undecided: n } = answer.before;
  assert.deepEqual({ allowed: a, denied: d, unexplained: u, undecided: n }, wanted.before);
  for (const kind of ['newlyExplained', 'newlyDenied', 'newlyUnexplained'] as const) {
    const sums = new Map(
      [...wanted[kind]].map(([key, { connections, bytesForward, bytesReverse, firstS, lastS }]) => [
        key,
        { connections, bytes: bytesForward + bytesReverse, firstS, lastS },
      ]),
    );
    assert.deepEqual(
      [...listed(answer[kind])].sort(([x], [y]) => (x < y ? -1 : 1)),
      [...sums].sort(([x], [y]) => (x < y ? -1 : 1)),
      kind,
    );
    assert.deepEqual(answer[kind].total, totalsOf(wanted[kind].values()), kind);
  }
  assert.deepEqual(answer.otherRule, wanted.otherRule);
  for (const { ruleset, name } of answer.unusedRules) assert.ok(!wanted.used.has(`${ruleset}/${name}`), name);
  assert.equal(
    answer.unusedRules.length + [...wanted.used].filter((rule) => rule !== '').length,
    answer.ruleCount,
  );
}

test('a draft says what judging every flow anew says, settled, repaired or pending', async () => {
  const answer = await post(byLabels);
  const wanted = expected(judgeFlows(byLabels), stored);
  assert.ok(
    wanted.newlyExplained.size > 0 && wanted.newlyDenied.size > 0 && wanted.newlyUnexplained.size > 0,
  );
  assertSame(answer, wanted);
  assert.deepEqual(answer.unusedRules, [{ ruleset: 'core', name: 'never-used' }]);
});

test('what rollups can not tell is read from single flows: addresses of workloads, processes, new names', async () => {
  const answer = await post(byMore);
  const wanted = expected(judgeFlows(byMore), stored);
  for (const rule of ['one-pod', 'java', 'acme', 'strangers'])
    assert.ok(wanted.used.has(`core/${rule}`), `${rule} is of no use in this test`);
  assert.ok(wanted.used.has('boundaries/dev-stays-out'));
  assertSame(answer, wanted);
  assert.ok(answer.edgesFromFlows > 0);
});

test('only the edges that need it are read from single flows', async () => {
  assert.equal((await post(byLabels)).edgesFromFlows, 0);
});

test('a draft held against another policy tells the difference of the two, not of history', async () => {
  const answer = await post(byMore, { against: { 'base.yaml': byLabels } });
  assertSame(answer, expected(judgeFlows(byMore), judgeFlows(byLabels)));
});

test('coverage before a draft is that of /coverage', async () => {
  const answer = await post(byLabels);
  const coverage = await scene.ask<{ total: Coverage }>('/api/v1/coverage?since=1d');
  for (const verdict of ['allowed', 'denied', 'unexplained'] as const)
    assert.deepEqual(answer.before[verdict], coverage.total[verdict]);
});

test('a wrong policy is refused by file and line', async () => {
  const answer = await scene.app.inject({
    method: 'POST',
    url: '/api/v1/drafts',
    payload: {
      files: {
        'rules.yaml':
          'rulesets:\n  - name: core\n    rules:\n      - { name: a, from: [{ any: true }], to: [{ ipList: nowhere }] }\n',
      },
    },
  });
  assert.equal(answer.statusCode, 400);
  assert.match(answer.json<{ detail: string }>().detail, /rules\.yaml:4:.*nowhere/);
});

test('`eastwest draft` stops a pipeline with 1 for what it was told to, and with 2 for a wrong policy', async () => {
  const good = join(folder, 'good');
  await mkdir(good);
  await writeFile(join(good, 'rules.yaml'), byLabels);
  const environment = { EASTWEST_URL: url };
  const shown = await runCommand(['draft', good, '--since', '1d'], environment);
  assert.equal(shown.code, 0, shown.stderr);
  assert.match(shown.stdout, /newly unexplained: /);
  assert.match(shown.stdout, /core\/never-used/);
  const stopped = await runCommand(
    ['draft', good, '--since', '1d', '--json', '--fail-on', 'new-unexplained,new-denied'],
    environment,
  );
  assert.equal(stopped.code, 3);
  assert.ok((JSON.parse(stopped.stdout) as DraftAnswer).newlyDenied.total.edges > 0);
  const bad = join(folder, 'bad');
  await mkdir(bad);
  await writeFile(join(bad, 'rules.yaml'), 'rulesets: 7\n');
  const wrong = await runCommand(['draft', bad], environment);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /rules\.yaml:1/);
  const misspelt = await runCommand(['draft', good, '--fail-on', 'new-denid'], environment);
  assert.equal(misspelt.code, 2);
});

test('`eastwest rules test` reports by line, with 3 for a case that fails and 2 for a file that is wrong', async () => {
  const policy = join(folder, 'cases');
  await mkdir(policy);
  await writeFile(join(policy, 'rules.yaml'), byLabels);
  const file = join(folder, 'cases.yaml');
  const run = async (text: string) => {
    await writeFile(file, text);
    return runCommand(['rules', 'test', file, '--policy', policy], {});
  };
  const right =
    'cases:\n  - { source: { app: payments }, destination: { app: ledger }, port: 9100, expect: allowed, rule: core/payments-to-ledger }\n';
  const holds = await run(right);
  assert.equal(holds.code, 0, holds.stderr);
  const fails = await run(
    `${right}  - { source: { app: payments }, destination: { app: oracle }, port: 1521, expect: allowed }\n`,
  );
  assert.equal(fails.code, 3);
  assert.match(fails.stdout, /FAIL .*cases\.yaml:3 .*expected allowed, got denied by core\/no-oracle/);
  const wrong = await run('cases:\n  - { source: nobody, destination: { app: oracle }, expect: allowed }\n');
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /cases\.yaml:2/);
});

test('flows that are no longer kept leave their edges undecided, and counted', async () => {
  const oracle = String(identityId(people.oracle));
  await scene.store.command(
    `ALTER TABLE flows DELETE WHERE dst_identity = ${oracle} SETTINGS mutations_sync = 1`,
  );
  const answer = await post(byMore);
  const toOracle = recount(
    flows.filter((row) => row.to === 'oracle'),
    edgeOf,
  );
  assert.deepEqual(answer.after.undecided, totalsOf(toOracle.values()));
});
