import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress } from '../net/address.ts';
import {
  type AddressInterval,
  type FormerLabels,
  type InventoryEvent,
  inventoryKey,
  type WorkloadEvent,
} from './events.ts';
import { Inventory, type LabelsOf } from './inventory.ts';
import { ReferenceInventory } from './reference-support.ts';
import { certaintyCode } from './time-index.ts';

const labelsOf: LabelsOf = ({ labels, annotations }, { team = '' }) => ({
  labels: { app: labels.app ?? '', role: annotations.role ?? '', env: team },
});
const otherLabelsOf: LabelsOf = ({ kind, labels }) => ({ labels: { app: `${kind}-${labels.app ?? ''}` } });

const networks = ['east', 'default'] as const;
const ips = ['10.0.0.1', '10.0.0.2', '2001:db8::1', '::ffff:10.0.0.1'] as const;
const time = fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 9000 }));
const short = fc.constantFrom('', 'a', 'b');

const addressOf: fc.Arbitrary<AddressInterval> = fc
  .record({
    ip: fc.constantFrom(...ips),
    network: fc.constantFrom(...networks),
    sinceMs: time,
    untilMs: fc.option(time, { nil: undefined }),
  })
  .map(({ untilMs, ...rest }) => (untilMs === undefined ? rest : { ...rest, untilMs }));

const formerOf: fc.Arbitrary<FormerLabels[]> = fc
  .array(fc.record({ untilMs: time, app: short, role: short }), { maxLength: 3 })
  .map((list) =>
    list
      .sort((a, b) => a.untilMs - b.untilMs)
      .map(({ untilMs, app, role }) => ({ untilMs, labels: { app, team: role }, annotations: { role } })),
  );

const commonOf = fc.record({
  cluster: fc.constantFrom('east', ''),
  uid: fc.constantFrom('u1', 'u2', 'u3'),
  namespace: fc.constantFrom('blue', 'red'),
  name: fc.constantFrom('n1', 'n2'),
  app: short,
  role: short,
  addresses: fc.array(addressOf, { maxLength: 4 }),
  sinceMs: time,
  former: formerOf,
});

const eventOf: fc.Arbitrary<InventoryEvent> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(commonOf, fc.constantFrom('pod', 'node', 'vm'), fc.boolean()).map(
      ([{ app, role, ...common }, kind, hostNetwork]): InventoryEvent => ({
        ...common,
        v: 1,
        type: 'workload',
        kind,
        node: '',
        hostNetwork: hostNetwork && kind === 'pod',
        labels: { app },
        annotations: { role },
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: commonOf.map(
      ({ app, role, ...common }): InventoryEvent => ({
        ...common,
        v: 1,
        type: 'service',
        labels: { app },
        annotations: { role },
        selector: {},
        ports: [],
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.record({ name: fc.constantFrom('blue', 'red'), team: short, former: formerOf }).map(
      ({ team, ...rest }): InventoryEvent => ({
        v: 1,
        type: 'namespace',
        cluster: 'east',
        labels: { team },
        annotations: {},
        ...rest,
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.array(addressOf, { maxLength: 2 }).map(
      (addresses): InventoryEvent => ({
        v: 1,
        type: 'name',
        name: 'payment-provider',
        dns: ['pay.example.com'],
        zone: 'outside',
        labels: {},
        addresses,
      }),
    ),
  },
);

const stepOf = fc.oneof(
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('event' as const), event: eventOf }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), at: fc.nat({ max: 100 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('profiles' as const), other: fc.boolean() }) },
);

const questionOf = fc.record({
  network: fc.constantFrom(...networks),
  ip: fc.constantFrom(...ips, '10.0.0.3'),
  timeMs: time,
  toleranceMs: fc.constantFrom(0, 1, 30, 1000),
});
type Question = typeof questionOf extends fc.Arbitrary<infer T> ? T : never;

const wordsOf = (ip: string): Uint32Array => new Uint32Array(Uint8Array.from(parseAddress(ip)!).buffer);

function keyOfOwner(inventory: Inventory, owner: number): string {
  return inventoryKey(inventory.owners[owner]!.event);
}

function assertSame(
  inventory: Inventory,
  reference: ReferenceInventory,
  inForce: LabelsOf,
  { network, ip, timeMs, toleranceMs }: Question,
): void {
  const expected = reference.find(network, ip, timeMs, toleranceMs);
  const index = inventory.network(network);
  inventory.index.find(index, wordsOf(ip), 0, timeMs, toleranceMs);
  const { foundOwner, foundCertainty } = inventory.index;
  assert.equal(foundCertainty, expected.certainty);
  const candidates = inventory.candidates(index, wordsOf(ip), 0, timeMs, toleranceMs);
  assert.deepEqual(new Set(candidates.map((owner) => keyOfOwner(inventory, owner))), expected.owners);
  if (foundOwner < 0) {
    assert.equal(expected.owners.size, 0);
    return;
  }
  const key = keyOfOwner(inventory, foundOwner);
  assert.ok(expected.likeliest.has(key));
  const event = reference.event(key)!;
  assert.deepEqual(inventory.owners[foundOwner]!.event.labels, event.labels);
  const identity = inventory.identities.list[inventory.identityAt(foundOwner, timeMs)]!;
  if (event.type === 'name') {
    assert.deepEqual([identity.kind, identity.name, identity.zone], ['name', event.name, event.zone]);
    return;
  }
  const { labels, annotations, namespaceLabels } = reference.labelsAt(key, timeMs)!;
  const { cluster, namespace } = event;
  const kind = event.type === 'service' ? 'service' : event.kind;
  const wanted = inForce({ kind, cluster, namespace, labels, annotations }, namespaceLabels).labels;
  assert.deepEqual({ ...identity.labels }, wanted);
  assert.deepEqual([identity.kind, identity.cluster, identity.namespace], [kind, cluster, namespace]);
}

test('whatever comes, in whatever order: the inventory answers as a search through the newest events', () => {
  fc.assert(
    fc.property(
      fc.array(stepOf, { maxLength: 40 }),
      fc.array(questionOf, { minLength: 1, maxLength: 20 }),
      (steps, questions) => {
        const inventory = new Inventory({ maxIntervalsPerAddress: 500, labelsOf, reuseAfterMs: 0 });
        const reference = new ReferenceInventory();
        let inForce = labelsOf;
        const keys = new Set<string>();
        for (const step of steps) {
          if (step.kind === 'event') {
            const key = inventoryKey(step.event);
            keys.add(key);
            reference.apply(key, step.event);
            inventory.apply(key, step.event);
          } else if (step.kind === 'end') {
            const key = [...keys][step.at % Math.max(1, keys.size)];
            if (key === undefined) continue;
            reference.apply(key, null);
            inventory.apply(key, null);
          } else {
            inForce = step.other ? otherLabelsOf : labelsOf;
            void inventory.relabel(inForce);
          }
          for (const question of questions.slice(0, 3)) assertSame(inventory, reference, inForce, question);
        }
        for (const question of questions) assertSame(inventory, reference, inForce, question);
      },
    ),
    { numRuns: 500 },
  );
});

/** What really happened: who had the address from when to when, and which labels they had. */
interface Possession {
  readonly owner: number;
  readonly sinceMs: number;
  readonly untilMs: number;
}

interface Change {
  readonly reportedMs: number;
  readonly owner: number;
  /** Number of changes of this owner up to this one. */
  readonly version: number;
}

const ownerCount = 4;
const horizonMs = 20_000;

/** An address goes from one to the next, some at once, some after a while; each keeps it for a while. */
const historyOf: fc.Arbitrary<Possession[]> = fc
  .array(
    fc.record({
      owner: fc.nat({ max: ownerCount - 1 }),
      gapMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 3000 })),
      lengthMs: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 6000 })),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((steps) => {
    let atMs = 100;
    return steps.map(({ owner, gapMs, lengthMs }) => {
      const sinceMs = atMs + gapMs;
      atMs = sinceMs + lengthMs;
      return { owner, sinceMs, untilMs: atMs };
    });
  });

/** The changes in the order in which they are told: all up to `completeToMs` and some later ones, those of one owner in their order. */
function told(changes: readonly Change[], completeToMs: number, order: readonly number[]): Change[] {
  const rankOf = (i: number): number => order[i % order.length] ?? 0;
  const due = changes.filter(({ reportedMs }, i) => reportedMs <= completeToMs || rankOf(i) % 2 === 0);
  const owners = due
    .map(({ owner }, i) => ({ owner, rank: rankOf(i) }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ owner }) => owner);
  const waiting = Map.groupBy(due, ({ owner }) => owner);
  return owners.flatMap((owner) => waiting.get(owner)?.shift() ?? []);
}

test('who is named exactly had the address, for any true time within the tolerance, once the inventory is complete to there', () => {
  let exactCount = 0;
  fc.assert(
    fc.property(
      historyOf,
      fc.integer({ min: 0, max: 80 }),
      fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 24, maxLength: 24 }),
      fc.integer({ min: 0, max: horizonMs }),
      fc.array(fc.nat({ max: 1000 }), { minLength: 24, maxLength: 24 }),
      fc.array(
        fc.record({
          trueMs: fc.integer({ min: 0, max: horizonMs }),
          clock: fc.double({ min: -1, max: 1, noNaN: true }),
          clockErrorMs: fc.constantFrom(0, 20, 500),
        }),
        { minLength: 10, maxLength: 30 },
      ),
      (history, errorMs, errors, completeToMs, order, flows) => {
        // Reported times are off by up to `errorMs`, each by its own.
        const off = (i: number): number => Math.round(((errors[i % errors.length] ?? 0) / 1000) * errorMs);
        const reported = history.map(({ owner, sinceMs, untilMs }, i) => ({
          owner,
          sinceMs: Math.max(0, sinceMs + off(i * 2)),
          untilMs: Math.max(0, untilMs + off(i * 2 + 1)),
        }));
        const changes: Change[] = [];
        for (let owner = 0; owner < ownerCount; owner++) {
          const times = reported
            .filter((possession) => possession.owner === owner)
            .flatMap(({ sinceMs, untilMs }) => [sinceMs, untilMs]);
          changes.push(...times.map((reportedMs, i) => ({ reportedMs, owner, version: i + 1 })));
        }
        const inventory = new Inventory({ maxIntervalsPerAddress: 50, labelsOf });
        for (const { owner, version } of told(changes, completeToMs, order)) {
          const own = reported.filter((possession) => possession.owner === owner);
          const addresses = own.slice(0, Math.ceil(version / 2)).map(({ sinceMs, untilMs }, i) => ({
            ip: '10.0.0.1',
            network: 'east',
            sinceMs,
            ...(i * 2 + 2 <= version ? { untilMs } : {}),
          }));
          inventory.apply(`workload/east/pod/u${owner}`, pod(owner, addresses), 'kubelink');
        }
        for (const { trueMs, clock, clockErrorMs } of flows) {
          const timeMs = trueMs + Math.round(clock * clockErrorMs);
          const toleranceMs = clockErrorMs + errorMs;
          if (timeMs + toleranceMs > completeToMs) continue;
          inventory.index.find(inventory.network('east'), wordsOf('10.0.0.1'), 0, timeMs, toleranceMs);
          if (inventory.index.foundCertainty !== certaintyCode.exact) continue;
          const truth = history.find(({ sinceMs, untilMs }) => sinceMs <= trueMs && trueMs < untilMs);
          if (truth === undefined) continue;
          exactCount++;
          assert.equal(
            keyOfOwner(inventory, inventory.index.foundOwner),
            `workload/east/pod/u${truth.owner}`,
          );
        }
      },
    ),
    { numRuns: 800 },
  );
  assert.ok(exactCount > 1000, `only ${exactCount} answers were exact`);
});

function pod(owner: number, addresses: AddressInterval[]): WorkloadEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid: `u${owner}`,
    name: `pod-${owner}`,
    namespace: 'blue',
    node: 'n1',
    hostNetwork: false,
    labels: {},
    annotations: {},
    addresses,
    sinceMs: 0,
  };
}
