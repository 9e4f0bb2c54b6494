/** What answers say of names: how each end of a flow was named, who had an address when, what is not settled. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { isoSeconds } from '../services/query/time.ts';
import {
  arrivalOf,
  clickhouseTime,
  type FlowRow,
  identityOf,
  makeFlows,
  workloadOf,
} from './support/query-rows.ts';
import {
  type EdgeAnswer,
  type ListAnswer,
  openQueryScene,
  pastMinute,
  type QueryScene,
  runCommand,
} from './support/query-scene.ts';

const hour = 3600;
const endS = pastMinute();
const rows = makeFlows(endS, 7, 600);
let scene: QueryScene;
const ask = <T>(url: string): Promise<T> => scene.ask<T>(url);

before(async () => {
  scene = await openQueryScene(rows, (endS - 8 * hour) * 1000);
});
after(() => scene?.close());

describe('how ends were named', () => {
  const since = isoSeconds(endS - 7 * hour);
  const arrived = (keyOf: (row: FlowRow) => string): Map<string, number> => {
    const counts = new Map<string, number>();
    rows.forEach((row) => {
      if (arrivalOf(row) === 'pending') counts.set(keyOf(row), (counts.get(keyOf(row)) ?? 0) + 1);
    });
    return counts;
  };
  const pendingOf = (row: FlowRow): string =>
    `${row.src_identity} ${row.dst_identity} ${row.dst_port} ${row.verdict}`;

  for (const path of ['edges', 'connections', 'unknown']) {
    test(`/${path} says how many reports are not settled, and by what and how surely each end was named`, async () => {
      const { items } = await ask<ListAnswer>(`/api/v1/${path}?limit=1000&since=${since}`);
      const expected = arrived(pendingOf);
      const found = new Map<string, number>();
      for (const { source, destination, port, verdict, pending } of items) {
        const key = `${source.identity} ${destination.identity} ${port} ${verdict}`;
        if (pending > 0) found.set(key, (found.get(key) ?? 0) + pending);
      }
      const asked =
        path === 'unknown' ? [...expected].filter(([key]) => key.endsWith('unexplained')) : [...expected];
      assert.ok(asked.length > 0);
      assert.deepEqual([...found].sort(), asked.sort());
      for (const { source, destination } of items) {
        assert.equal(source.provenance, source.identity === identityOf('nobody') ? 'none' : 'pod');
        assert.equal(source.certainty, source.identity === identityOf('nobody') ? 'none' : 'exact');
        assert.ok(['range', 'host', 'pod'].includes(destination.provenance ?? ''));
      }
      const toPartner = items.filter(({ destination }) => destination.identity === identityOf('partner'));
      assert.ok(toPartner.length > 0);
      for (const item of toPartner) assert.equal(item.dns, 'api.acme.example');
    });
  }

  test('/connections says the least sure of all reports, and counts what stays unsure', async () => {
    const { items } = await ask<ListAnswer>(`/api/v1/connections?limit=1000&since=${since}`);
    for (const { pending, destination, source, flows, unnamed, late, ambiguous } of items) {
      assert.equal(destination.certainty, pending > 0 ? 'late' : 'exact');
      assert.equal(unnamed, source.identity === identityOf('nobody') ? flows - pending : 0);
      assert.deepEqual([late, ambiguous], [0, 0]);
    }
    assert.ok(items.some(({ pending }) => pending > 0));
  });

  test('coverage shows its unexplained edges in the same way', async () => {
    const { uncovered } = await ask<{ uncovered: EdgeAnswer[] }>(`/api/v1/coverage?since=${since}`);
    assert.ok(uncovered.length > 0);
    for (const { source } of uncovered) assert.notEqual(source.provenance, null);
  });
});

describe('who had an address at a moment', () => {
  interface WhoAnswer {
    items: { name: string }[];
    who: {
      at: string;
      settled: boolean | null;
      networks: {
        network: string;
        certainty: string;
        owners: { name: string; kind: string; labels: Record<string, string> }[];
        candidates: { name: string }[];
        before: { name: string } | null;
        after: { name: string } | null;
      }[];
      ranges: { network: string; name: string; cidr: string; zone: string }[];
    } | null;
  }
  const t = endS - 3 * hour;
  const forever = '2200-01-01 00:00:00.000';
  const row = (
    name: string,
    ip: string,
    fromMs: number,
    toMs: number | null,
    more: Record<string, unknown> = {},
  ) => ({
    id: workloadOf('payments', name),
    kind: 'pod',
    cluster: 'c1',
    namespace: 'payments-prod',
    name,
    node: 'node-9',
    uid: name,
    identity: identityOf('payments'),
    network: 'c1',
    ip: `::ffff:${ip}`,
    valid_from: clickhouseTime(fromMs),
    valid_to: toMs === null ? forever : clickhouseTime(toMs),
    ...more,
  });
  const who = async (ip: string, ms: number, more = ''): Promise<NonNullable<WhoAnswer['who']>> => {
    const answer = await ask<WhoAnswer>(`/api/v1/workloads?ip=${ip}&at=${new Date(ms).toISOString()}${more}`);
    assert.ok(answer.who !== null);
    return answer.who;
  };
  const brief = async (ip: string, ms: number): Promise<unknown> =>
    (await who(ip, ms)).networks.map(({ certainty, owners }) => [
      certainty,
      ...owners.map(({ name }) => name),
    ]);

  before(async () => {
    const ms = t * 1000;
    await scene.store.insertRows('workloads', [
      // Handed over at t, 400 ms apart.
      row('first', '10.244.7.1', ms - 60_000, ms),
      row('second', '10.244.7.1', ms + 400, ms + 60_000),
      // Relabelled at t.
      row('moved', '10.244.7.2', ms - 60_000, ms),
      row('moved', '10.244.7.2', ms, null, { identity: identityOf('ledger') }),
      // The same address in two networks.
      row('here', '10.244.7.3', ms - 60_000, null),
      row('there', '10.244.7.3', ms - 60_000, null, { cluster: 'c2', network: 'c2' }),
      // A service, and a node with what shares its address: one pod never had one of its own, the other has by now.
      row('checkout', '10.96.0.10', ms - 60_000, null, { kind: 'service', node: '' }),
      row('node-9', '10.0.9.9', ms - 60_000, null, { kind: 'node', network: 'default', node: '' }),
      row('proxy', '0.0.0.0', ms - 60_000, null, { ip: '::', network: '' }),
      row('started', '0.0.0.0', ms - 60_000, null, { ip: '::', network: '' }),
      row('started', '10.244.7.9', ms - 50_000, null),
      row('elsewhere', '0.0.0.0', ms - 60_000, null, { ip: '::', network: '', node: 'node-8' }),
      row('over', '0.0.0.0', ms - 60_000, ms - 30_000, { ip: '::', network: '' }),
    ]);
    const range = (
      name: string,
      first: string,
      last: string,
      prefix: number,
      more: Record<string, unknown> = {},
    ) => ({
      network: 'default',
      name,
      zone: 'inside',
      identity: identityOf('partner'),
      first: `::ffff:${first}`,
      last: `::ffff:${last}`,
      prefix: 96 + prefix,
      ...more,
    });
    await scene.store.insertRows('ranges', [
      range('data-centre', '10.0.0.0', '10.255.255.255', 8),
      range('rack-7', '10.55.7.0', '10.55.7.255', 24),
      range('gone', '10.55.7.0', '10.55.7.127', 25, { removed: 1 }),
    ]);
  });

  test('one owner, and nobody else within the tolerance, is exact', async () => {
    assert.deepEqual(await brief('10.244.7.1', t * 1000 - 5_000), [['exact', 'first']]);
    assert.deepEqual(await brief('10.96.0.10', t * 1000), [['exact', 'checkout']]);
  });

  test('close to a change of hands all claimants are named, the likeliest first', async () => {
    assert.deepEqual(await brief('10.244.7.1', t * 1000 - 100), [['ambiguous', 'first', 'second']]);
    assert.deepEqual(await brief('10.244.7.1', t * 1000 + 100), [['ambiguous', 'first', 'second']]);
    assert.deepEqual(await brief('10.244.7.1', t * 1000 + 300), [['ambiguous', 'second', 'first']]);
    assert.deepEqual(await brief('10.244.7.1', t * 1000 + 500), [['ambiguous', 'second', 'first']]);
  });

  test('one owner who had it only within the tolerance is grace', async () => {
    assert.deepEqual(await brief('10.244.7.1', (t + 60) * 1000 + 900), [['grace', 'second']]);
  });

  test('nobody is an answer, with the last before and the next after', async () => {
    const [before] = (await who('10.244.7.1', (t - 3600) * 1000)).networks;
    assert.deepEqual([before?.certainty, before?.before, before?.after?.name], ['none', null, 'first']);
    const [after] = (await who('10.244.7.1', (t + 3600) * 1000)).networks;
    assert.deepEqual([after?.certainty, after?.before?.name, after?.after], ['none', 'second', null]);
  });

  test('labels are those of the moment', async () => {
    const labelsAt = async (ms: number): Promise<string | undefined> =>
      (await who('10.244.7.2', ms)).networks[0]?.owners[0]?.labels.app;
    assert.equal(await labelsAt(t * 1000 - 1), 'payments');
    assert.equal(await labelsAt(t * 1000), 'ledger');
    assert.deepEqual(await brief('10.244.7.2', t * 1000), [['exact', 'moved']]);
  });

  test('an address of two networks has an owner in each, or in the one that is named', async () => {
    const names = async (more: string): Promise<unknown> =>
      (await who('10.244.7.3', t * 1000, more)).networks.map(({ network, owners }) => [
        network,
        owners[0]?.name,
      ]);
    assert.deepEqual(await names(''), [
      ['c1', 'here'],
      ['c2', 'there'],
    ]);
    assert.deepEqual(await names('&network=c2'), [['c2', 'there']]);
  });

  test('behind the address of a node may be the pods that share its network', async () => {
    const [network] = (await who('10.0.9.9', t * 1000)).networks;
    assert.equal(network?.owners[0]?.kind, 'node');
    assert.deepEqual(
      network?.candidates.map(({ name }) => name),
      ['proxy'],
    );
  });

  test('an address of nobody lies in the narrowest range', async () => {
    const answer = await who('10.55.7.8', t * 1000);
    assert.deepEqual(answer.networks, []);
    assert.deepEqual(
      answer.ranges.map(({ name, cidr }) => [name, cidr]),
      [['rack-7', '10.55.7.0/24']],
    );
  });

  test('says whether the sources of inventory vouch for that moment', async () => {
    assert.equal((await who('10.244.7.1', t * 1000)).settled, null);
    const source = (name: string, completeMs: number) => ({
      source: name,
      complete_to: clickhouseTime(completeMs),
    });
    const nowMs = Date.now();
    await scene.store.insertRows('inventory_sources', [
      source('c1', nowMs),
      source('away', nowMs - 3_600_000),
    ]);
    assert.equal((await who('10.244.7.1', nowMs - 2_000)).settled, true);
    assert.equal((await who('10.244.7.1', nowMs + 5_000)).settled, false);
  });

  test('is asked of one address at one time alone', async () => {
    for (const query of ['ip=10.244.7.1', 'ip=10.244.7.0/24&at=now', 'at=now&limit=1'])
      assert.equal((await ask<WhoAnswer>(`/api/v1/workloads?${query}`)).who, null, query);
  });
});

describe('the ledger of names', () => {
  test('says how flows were named: what is pending, what was repaired, and what stays unresolved', async () => {
    interface NamingAnswer {
      naming: Record<string, number | string | null>;
    }
    const of = (arrival: string): FlowRow[] => rows.filter((row) => arrivalOf(row) === arrival);
    const { naming } = await ask<NamingAnswer>(`/api/v1/ledger?since=${isoSeconds(endS - 8 * hour)}`);
    const settled = rows.length - of('pending').length;
    const unnamed = rows.filter((row) => row.from === 'nobody' && arrivalOf(row) !== 'pending').length;
    const oldest = Math.min(...of('pending').map(({ time }) => time));
    assert.deepEqual(naming, {
      flows: rows.length,
      pending: of('pending').length,
      oldestPending: isoSeconds(oldest - (oldest % 60)),
      repaired: of('repaired').length,
      ambiguous: 0,
      late: 0,
      unnamed,
      unresolved: unnamed,
      unresolvedShare: unnamed / settled,
    });
    const none = await ask<NamingAnswer>('/api/v1/ledger?since=2001-01-01&until=2001-01-02');
    assert.deepEqual(
      [none.naming.flows, none.naming.repaired, none.naming.oldestPending, none.naming.unresolvedShare],
      [0, 0, null, null],
    );
  });

  test('says how far each source of inventory vouches, and every answer how many are silent', async () => {
    const nowMs = Date.now();
    const source = (name: string, completeMs: number) => ({
      source: name,
      complete_to: clickhouseTime(completeMs),
    });
    await scene.store.insertRows('inventory_sources', [
      source('kubernetes:c1', nowMs),
      source('hosts:dc', nowMs - 600_000),
    ]);
    interface SourcesAnswer {
      sources: { source: string; completeTo: string; behindMs: number; silent: boolean }[];
      completeness: Record<string, number | string | null>;
    }
    const now = await ask<SourcesAnswer>('/api/v1/ledger?since=1h');
    const found = new Map(now.sources.map((one) => [one.source, one]));
    assert.equal(found.get('hosts:dc')?.silent, true);
    assert.equal(found.get('hosts:dc')?.completeTo, new Date(nowMs - 600_000).toISOString());
    assert.ok((found.get('hosts:dc')?.behindMs ?? 0) >= 600_000);
    assert.equal(found.get('kubernetes:c1')?.silent, false);
    assert.equal(now.completeness.sourcesSilent, now.sources.filter(({ silent }) => silent).length);
    // For a window that ended before, the one that is behind now had vouched.
    const then = await ask<SourcesAnswer>(
      `/api/v1/ledger?since=1h&until=${isoSeconds(Math.floor(nowMs / 1000) - 700)}`,
    );
    assert.equal(then.sources.find((one) => one.source === 'hosts:dc')?.silent, false);
  });
});

describe('the commands', () => {
  let url: string;
  before(async () => {
    const now = clickhouseTime(Date.now());
    const batch = { agent: 'a', boot: 'b', sequence: 1, outcome: 'written', flows: 1, flows_written: 1 };
    await scene.store.insertRows('batches', [
      { ...batch, observed_from: now, observed_to: now, received: now, written: now },
    ]);
    await scene.app.listen({ host: '127.0.0.1', port: 0 });
    url = scene.app.listeningOrigin;
  });
  const run = (args: readonly string[]) => runCommand(args, { EASTWEST_URL: url });

  test('show as what each end was named, what may still change, and how sure an owner is', async () => {
    const unknown = await run(['unknown', '--limit', '1000']);
    assert.match(unknown.stdout, /SOURCE +KIND .*DESTINATION +KIND/);
    assert.match(unknown.stdout, / vm/);
    assert.match(unknown.stdout, / range/);
    const edges = await run(['connections', '--limit', '1000']);
    assert.match(edges.stdout, / pod… /);
    assert.match(edges.stderr, /… the inventory is not complete yet/);
    const who = await run(['who', '10.20.0.7', '--at', 'now']);
    assert.match(who.stdout, /^default +exact +vm +ora-7/m);
    const ledger = await run(['ledger']);
    assert.match(ledger.stdout, /repaired when the inventory came +\d/);
    assert.match(ledger.stdout, /hosts:dc +silent/);
    assert.match(ledger.stderr, /of inventory silent/);
  });
});
