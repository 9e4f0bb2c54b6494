/** Hand-made rows for tests of answers: a small estate, seeded flows of both sides, and the recount of what they add up to. */
import { identityId, ruleId, workloadId } from '../../lib/inventory/ids.ts';
import type { Store } from '../../lib/store/store.ts';
import type { Reason, Side, Verdict } from '../../schemas/closed-lists.ts';

interface Who {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly zone: 'inside' | 'outside';
  readonly labels: Readonly<Record<string, string>>;
  /** Workloads by name and address; none for ranges and the unknown. */
  readonly workloads: readonly (readonly [name: string, ip: string])[];
  /** Addresses where no workload is known. */
  readonly addresses: readonly string[];
}

function who(partial: Partial<Who> & { readonly kind: string }): Who {
  return {
    cluster: '',
    namespace: '',
    name: '',
    zone: 'inside',
    labels: {},
    workloads: [],
    addresses: [],
    ...partial,
  };
}

export const people = {
  payments: who({
    kind: 'pod',
    cluster: 'c1',
    namespace: 'payments-prod',
    labels: { app: 'payments', role: 'api', env: 'prod', team: 'red' },
    workloads: [
      ['payments-api-1', '10.244.0.11'],
      ['payments-api-2', '10.244.0.12'],
    ],
  }),
  ledger: who({
    kind: 'pod',
    cluster: 'c1',
    namespace: 'ledger-prod',
    labels: { app: 'ledger', role: 'db', env: 'prod', team: 'blue' },
    workloads: [['ledger-db-0', '10.244.1.20']],
  }),
  analytics: who({
    kind: 'pod',
    cluster: 'c2',
    namespace: 'analytics-dev',
    labels: { app: 'analytics', role: 'worker', env: 'dev' },
    // The same address as a pod of the other cluster: only the network tells them apart.
    workloads: [['analytics-worker-1', '10.244.0.11']],
  }),
  oracle: who({
    kind: 'vm',
    labels: { app: 'oracle', env: 'prod', criticality: 'critical' },
    workloads: [['ora-7', '10.20.0.7']],
  }),
  partner: who({
    kind: 'range',
    name: 'partner-acme',
    zone: 'outside',
    labels: { app: 'partner-acme' },
    addresses: ['198.51.100.9', '198.51.100.10'],
  }),
  nobody: who({ kind: 'unknown', addresses: ['10.99.0.1', '2001:db8::5'] }),
} as const;

export type Person = keyof typeof people;

export function identityOf(person: Person): string {
  return String(identityId(people[person]));
}

export function workloadOf(person: Person, name: string): string {
  const { cluster, kind } = people[person];
  return String(workloadId(cluster, kind, `uid-${name}`));
}

export const rules = {
  ledger: { ruleset: 'core', name: 'payments-to-ledger', action: 'allow' },
  deny: { ruleset: 'core', name: 'no-dev-to-prod', action: 'deny' },
} as const;

/** Who may talk to whom: what a rule says of a pair, and on which port. */
const talks: readonly {
  readonly from: Person;
  readonly to: Person;
  readonly port: number;
  readonly protocol: number;
  readonly verdict: Verdict;
  readonly reason: Reason;
  readonly rule: string;
  readonly sides: readonly Side[];
}[] = [
  {
    from: 'payments',
    to: 'ledger',
    port: 5432,
    protocol: 6,
    verdict: 'allowed',
    reason: 'rule',
    rule: String(ruleId(rules.ledger.ruleset, rules.ledger.name)),
    sides: ['source', 'destination'],
  },
  {
    from: 'payments',
    to: 'ledger',
    port: 9100,
    protocol: 6,
    verdict: 'unexplained',
    reason: 'port-not-covered',
    rule: '0',
    sides: ['source', 'destination'],
  },
  {
    from: 'analytics',
    to: 'ledger',
    port: 5432,
    protocol: 6,
    verdict: 'denied',
    reason: 'rule',
    rule: String(ruleId(rules.deny.ruleset, rules.deny.name)),
    sides: ['source', 'destination'],
  },
  {
    from: 'payments',
    to: 'oracle',
    port: 1521,
    protocol: 6,
    verdict: 'unexplained',
    reason: 'no-rule',
    rule: '0',
    sides: ['source', 'middle'],
  },
  {
    from: 'analytics',
    to: 'partner',
    port: 443,
    protocol: 6,
    verdict: 'unexplained',
    reason: 'no-rule',
    rule: '0',
    sides: ['source'],
  },
  {
    from: 'nobody',
    to: 'payments',
    port: 8080,
    protocol: 17,
    verdict: 'unexplained',
    reason: 'unknown-source',
    rule: '0',
    sides: ['destination'],
  },
  {
    from: 'analytics',
    to: 'payments',
    port: 8080,
    protocol: 6,
    verdict: 'unexplained',
    reason: 'no-rule',
    rule: '0',
    sides: ['source', 'destination'],
  },
];

export interface FlowRow {
  readonly time: number;
  readonly from: Person;
  readonly to: Person;
  readonly src_ip: string;
  readonly dst_ip: string;
  readonly src_workload: string;
  readonly dst_workload: string;
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly dst_port: number;
  readonly protocol: number;
  readonly verdict: Verdict;
  readonly reason: Reason;
  readonly rule: string;
  readonly side: Side;
  readonly bytes_forward: number;
  readonly bytes_reverse: number;
  readonly packets_forward: number;
  readonly packets_reverse: number;
  readonly connections: number;
  readonly dns_name: string;
  readonly process: string;
}

/** Numbers from a seed (mulberry32), so that a failure can be seen again. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Flows of `hours` hours before `endS`: each connection is reported by its sides, and a share of the reports is lost. */
export function makeFlows(
  endS: number,
  hours: number,
  connectionCount: number,
  seed = 7,
  lostShare = 0.2,
): FlowRow[] {
  const random = randomFrom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const rows: FlowRow[] = [];
  for (let index = 0; index < connectionCount; index++) {
    const talk = pick(talks);
    const end = (person: Person): { ip: string; workload: string } => {
      const { workloads, addresses } = people[person];
      if (workloads.length === 0) return { ip: pick<string>(addresses), workload: '0' };
      const [name, ip] = pick<readonly [string, string]>(workloads);
      return { ip, workload: workloadOf(person, name) };
    };
    const [source, destination] = [end(talk.from), end(talk.to)];
    const time = Math.floor(endS - 1 - random() * (hours * 3600 - 1));
    const bytes = Math.floor(random() * 5000);
    for (const side of talk.sides) {
      if (random() < lostShare) continue;
      rows.push({
        // Both ends see it in the same second: their minutes are the same.
        time,
        from: talk.from,
        to: talk.to,
        src_ip: source.ip,
        dst_ip: destination.ip,
        src_workload: source.workload,
        dst_workload: destination.workload,
        src_identity: identityOf(talk.from),
        dst_identity: identityOf(talk.to),
        dst_port: talk.port,
        protocol: talk.protocol,
        verdict: talk.verdict,
        reason: talk.reason,
        rule: talk.rule,
        side,
        bytes_forward: bytes,
        bytes_reverse: bytes * 3,
        packets_forward: 4,
        packets_reverse: 5,
        connections: 1,
        dns_name: talk.to === 'partner' ? 'api.acme.example' : '',
        process: side === 'source' ? 'java' : '',
      });
    }
  }
  return rows;
}

/** How a row came to the store: at once, late and repaired since, or late and not settled yet. */
export type Arrival = 'settled' | 'repaired' | 'pending';

export function arrivalOf(row: Pick<FlowRow, 'time'>): Arrival {
  if (row.time % 4 === 1) return 'repaired';
  return row.time % 16 === 2 ? 'pending' : 'settled';
}

/** Rows of `flows`, and of `flows_late` as they were written first and as their repair left them. */
export async function writeFlows(store: Store, rows: readonly FlowRow[]): Promise<void> {
  const mapped = (ip: string): string => (ip.includes(':') ? ip : `::ffff:${ip}`);
  const stored = rows.map(({ from, to, ...row }) => ({
    ...row,
    src_ip: mapped(row.src_ip),
    dst_ip: mapped(row.dst_ip),
    src_provenance: from === 'nobody' ? 'none' : 'pod',
    src_certainty: from === 'nobody' ? 'none' : 'exact',
    dst_provenance: to === 'partner' ? 'range' : to === 'oracle' ? 'host' : 'pod',
    dst_certainty: arrivalOf(row) === 'pending' ? 'late' : 'exact',
    state: 'closed',
    action: 'forwarded',
    policy: 1,
    agent: `agent-${from}`,
  }));
  const of = (arrival: Arrival) =>
    stored.flatMap((row, index) =>
      arrivalOf(row) === arrival
        ? [{ row, where: { bus_partition: 0, block: String(row.time), row: index, start_ms: row.time } }]
        : [],
    );
  await store.insertRows(
    'flows',
    of('settled').map(({ row }) => row),
  );
  /** What was thought of it first: from nobody, unexplained, to the right destination. */
  const guess = {
    src_identity: identityOf('nobody'),
    src_workload: '0',
    src_provenance: 'none',
    src_certainty: 'none',
    verdict: 'unexplained',
    reason: 'unknown-source',
    rule: '0',
  };
  const first = { version: 1, sign: 1, pending: 1 };
  const repaired = of('repaired').map(({ row, where }) => ({
    row: { ...row, ...where },
    wrong: { ...row, ...where, ...guess, ...first },
  }));
  await store.insertRows('flows_late', [
    ...repaired.map(({ wrong }) => wrong),
    ...of('pending').map(({ row, where }) => ({ ...row, ...where, ...first })),
  ]);
  await store.insertRows(
    'flows_late',
    repaired.flatMap(({ row, wrong }) => [
      { ...wrong, sign: -1 },
      { ...row, version: 2, sign: 1, pending: 0 },
    ]),
  );
}

/** Milliseconds since the epoch as DateTime64(3) takes it in JSON; a bare number would be ticks. */
export function clickhouseTime(ms: number): string {
  return new Date(ms).toISOString().replace('T', ' ').replace('Z', '');
}

/** Identities, workloads and rules of the small estate; addresses are valid since `sinceMs`. */
export async function writeInventory(store: Store, sinceMs: number): Promise<void> {
  const all = Object.entries(people) as [Person, Who][];
  await store.insertRows(
    'identities',
    all.map(([person, { kind, cluster, namespace, name, zone, labels }]) => ({
      id: identityOf(person),
      kind,
      cluster,
      namespace,
      name,
      zone,
      app: labels.app ?? '',
      role: labels.role ?? '',
      env: labels.env ?? '',
      loc: labels.loc ?? '',
      label_keys: Object.keys(labels),
      label_values: Object.values(labels),
    })),
  );
  await store.insertRows(
    'workloads',
    all.flatMap(([person, { kind, cluster, namespace, workloads }]) =>
      workloads.map(([name, ip]) => ({
        id: workloadOf(person, name),
        kind,
        cluster,
        namespace,
        name,
        node: 'node-1',
        uid: `uid-${name}`,
        identity: identityOf(person),
        network: cluster === '' ? 'default' : cluster,
        ip: `::ffff:${ip}`,
        valid_from: clickhouseTime(sinceMs),
        valid_to: '2200-01-01 00:00:00.000',
      })),
    ),
  );
  await store.insertRows(
    'rules',
    Object.values(rules).map(({ ruleset, name, action }) => ({
      id: String(ruleId(ruleset, name)),
      policy: 1,
      ruleset,
      name,
      action,
      owner: 'platform',
      ticket: 'SEC-1',
      definition: JSON.stringify({ name, action }),
      applied: clickhouseTime(sinceMs),
      author: 'test',
    })),
  );
}

export interface Sums {
  flows: number;
  connections: number;
  bytesForward: number;
  bytesReverse: number;
  sides: string[];
  firstS: number;
  lastS: number;
}

/** What rows add up to, by a key: for each sum the larger of the sides, written without any SQL. */
export function recount(rows: readonly FlowRow[], keyOf: (row: FlowRow) => string): Map<string, Sums> {
  const bySide = new Map<string, Map<Side, Sums>>();
  for (const row of rows) {
    const key = keyOf(row);
    const sides = bySide.get(key) ?? new Map<Side, Sums>();
    bySide.set(key, sides);
    const sums = sides.get(row.side) ?? {
      flows: 0,
      connections: 0,
      bytesForward: 0,
      bytesReverse: 0,
      sides: [row.side],
      firstS: row.time,
      lastS: row.time,
    };
    sides.set(row.side, sums);
    sums.flows++;
    sums.connections += row.connections;
    sums.bytesForward += row.bytes_forward;
    sums.bytesReverse += row.bytes_reverse;
    sums.firstS = Math.min(sums.firstS, row.time);
    sums.lastS = Math.max(sums.lastS, row.time);
  }
  const merged = new Map<string, Sums>();
  for (const [key, sides] of bySide) {
    const all = [...sides.values()];
    const most = (name: 'connections' | 'bytesForward' | 'bytesReverse'): number =>
      Math.max(...all.map((sums) => sums[name]));
    merged.set(key, {
      flows: all.reduce((sum, { flows }) => sum + flows, 0),
      connections: most('connections'),
      bytesForward: most('bytesForward'),
      bytesReverse: most('bytesReverse'),
      sides: [...sides.keys()].sort(),
      firstS: Math.min(...all.map(({ firstS }) => firstS)),
      lastS: Math.max(...all.map(({ lastS }) => lastS)),
    });
  }
  return merged;
}

/** The key of an edge: addresses count only where no workload is known. */
export function edgeKey(row: FlowRow): string {
  return [
    row.src_identity,
    row.src_workload === '0' ? row.src_ip : '',
    row.dst_identity,
    row.dst_workload === '0' ? row.dst_ip : '',
    row.dst_port,
    row.verdict,
    row.reason,
  ].join(' ');
}
