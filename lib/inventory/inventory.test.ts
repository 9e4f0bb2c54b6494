import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../net/address.ts';
import type { InventoryEvent, WorkloadEvent } from './events.ts';
import { inventoryKey } from './events.ts';
import { workloadId } from './ids.ts';
import { factsPerOwner, Inventory, ownerFact, provenanceCode, provenanceOf } from './inventory.ts';

const pod: WorkloadEvent = {
  v: 1,
  type: 'workload',
  kind: 'pod',
  cluster: 'east',
  uid: 'u1',
  name: 'api-1',
  namespace: 'payments',
  node: 'n1',
  hostNetwork: false,
  labels: { tier: 'api' },
  annotations: {},
  addresses: [{ ip: '10.244.1.2', network: 'east', sinceMs: 1000 }],
  sinceMs: 1000,
};

function makeInventory(): Inventory {
  return new Inventory({
    maxIntervalsPerAddress: 16,
    reuseAfterMs: 0,
    labelsOf: (subject, namespaceLabels) => ({
      labels: { role: subject.labels.tier ?? '', team: namespaceLabels.team ?? '' },
    }),
  });
}

function apply(inventory: Inventory, ...events: InventoryEvent[]): void {
  for (const event of events) inventory.apply(inventoryKey(event), event);
}

function find(
  inventory: Inventory,
  network: string,
  ip: string,
  timeMs: number,
): { name: string; certainty: number } {
  const words = new Uint32Array(Uint8Array.from(parseAddress(ip)!).buffer);
  inventory.index.find(inventory.network(network), words, 0, timeMs, 0);
  return {
    name: inventory.owners[inventory.index.foundOwner]?.event.name ?? '',
    certainty: inventory.index.foundCertainty,
  };
}

test('a workload is found at its address, for its time only', () => {
  const inventory = makeInventory();
  apply(inventory, pod);
  assert.equal(find(inventory, 'east', '10.244.1.2', 1500).name, 'api-1');
  assert.equal(find(inventory, 'east', '10.244.1.2', 999).name, '');
  assert.equal(find(inventory, 'west', '10.244.1.2', 1500).name, '');
  apply(inventory, {
    ...pod,
    addresses: [{ ip: '10.244.1.2', network: 'east', sinceMs: 1000, untilMs: 2000 }],
    untilMs: 2000,
  });
  assert.equal(find(inventory, 'east', '10.244.1.2', 1999).name, 'api-1');
  assert.equal(find(inventory, 'east', '10.244.1.2', 2000).name, '');
});

test('an event replaces the one before, however often it comes', () => {
  const inventory = makeInventory();
  for (let i = 0; i < 5; i++) apply(inventory, pod);
  assert.equal(inventory.index.intervalCount, 1);
  assert.equal(inventory.ownerCount, 1);
  apply(inventory, { ...pod, addresses: [{ ip: '10.244.1.9', network: 'east', sinceMs: 3000 }] });
  assert.equal(find(inventory, 'east', '10.244.1.2', 3500).name, '');
  assert.equal(find(inventory, 'east', '10.244.1.9', 3500).name, 'api-1');
});

test('a tombstone forgets the workload, and its place is used again', () => {
  const inventory = makeInventory();
  apply(inventory, pod);
  inventory.apply(inventoryKey(pod), null);
  assert.equal(find(inventory, 'east', '10.244.1.2', 1500).name, '');
  assert.equal(inventory.byUid('u1'), undefined);
  apply(inventory, { ...pod, uid: 'u2', name: 'api-2' });
  assert.equal(inventory.owners.length, 1);
  assert.equal(inventory.byUid('u2')?.id, workloadId('east', 'pod', 'u2'));
});

test('labels follow the namespace and the profiles, whichever comes last', async () => {
  const inventory = makeInventory();
  apply(inventory, pod);
  const labels = (): unknown => inventory.identities.list[inventory.byUid('u1')!.identity]?.labels;
  assert.deepEqual(labels(), { role: 'api', team: '' });
  apply(inventory, {
    v: 1,
    type: 'namespace',
    cluster: 'east',
    name: 'payments',
    labels: { team: 'blue' },
    annotations: {},
  });
  assert.deepEqual(labels(), { role: 'api', team: 'blue' });
  await inventory.relabel(() => ({ labels: { app: 'p' } }));
  assert.deepEqual(labels(), { app: 'p' });
});

test('pods alike share one identity, and services have one of their own name', () => {
  const inventory = makeInventory();
  apply(inventory, pod, { ...pod, uid: 'u2', name: 'api-2', addresses: [] });
  assert.equal(inventory.byUid('u1')?.identity, inventory.byUid('u2')?.identity);
  apply(inventory, {
    v: 1,
    type: 'service',
    cluster: 'east',
    uid: 's1',
    name: 'api',
    namespace: 'payments',
    labels: {},
    annotations: {},
    selector: {},
    addresses: [{ ip: '10.96.0.10', network: 'east', sinceMs: 0 }],
    ports: [],
    sinceMs: 0,
  });
  assert.equal(find(inventory, 'east', '10.96.0.10', 5).name, 'api');
  const service = inventory.byUid('s1')!;
  assert.equal(service.id, 0n);
  const origin = inventory.ownerFacts[service.index * factsPerOwner + ownerFact.origin]!;
  assert.equal(provenanceOf(origin), provenanceCode.service);
});

test('a pod on the host network owns no address', () => {
  const inventory = makeInventory();
  apply(inventory, {
    ...pod,
    hostNetwork: true,
    addresses: [{ ip: '172.16.0.1', network: 'default', sinceMs: 0 }],
  });
  assert.equal(find(inventory, 'default', '172.16.0.1', 5).name, '');
});

test('the innermost range answers; private space is unknown until it is named; pod ranges are closed', () => {
  const inventory = makeInventory();
  apply(
    inventory,
    { v: 1, type: 'cluster', cluster: 'east', podCidrs: ['10.244.0.0/16'], serviceCidrs: ['10.96.0.0/16'] },
    {
      v: 1,
      type: 'range',
      name: 'data-centre',
      network: 'default',
      cidrs: ['172.20.0.0/16'],
      zone: 'inside',
      labels: { loc: 'dc1' },
    },
    {
      v: 1,
      type: 'range',
      name: 'vault',
      network: 'default',
      cidrs: ['172.20.9.0/24'],
      zone: 'inside',
      labels: {},
    },
  );
  const at = (network: string, ip: string) => {
    const { identity, closed } = inventory.rangeOf(inventory.network(network), parseAddress(ip)!, 0);
    return [inventory.identities.list[identity]?.name, closed];
  };
  assert.deepEqual(at('east', '172.20.1.1'), ['data-centre', false]);
  assert.deepEqual(at('east', '172.20.9.1'), ['vault', false]);
  assert.deepEqual(at('east', '10.244.7.7'), ['', true]);
  assert.deepEqual(at('default', '10.244.7.7'), ['', false]);
  assert.deepEqual(at('east', '8.8.8.8'), ['internet', false]);
  assert.deepEqual(at('east', '2a00:1450::1'), ['internet', false]);
  assert.deepEqual(at('east', '192.168.1.1'), ['', false]);
  assert.deepEqual(at('local', '172.20.1.1'), ['', false], 'an island knows nothing of the routed network');
  assert.deepEqual(at('local', '127.0.0.1'), ['loopback', false]);
  apply(inventory, {
    v: 1,
    type: 'range',
    name: 'vault',
    network: 'default',
    cidrs: ['172.20.8.0/24'],
    zone: 'inside',
    labels: {},
  });
  assert.deepEqual(at('east', '172.20.9.1'), ['data-centre', false]);
});

test('an address that does not parse is left out and counted', () => {
  const inventory = makeInventory();
  apply(inventory, {
    ...pod,
    addresses: [{ ip: '10.244.1.999', network: 'east', sinceMs: 1 }, ...pod.addresses],
  });
  assert.equal(inventory.problemCounts['bad-address'], 1);
  assert.equal(find(inventory, 'east', '10.244.1.2', 1500).name, 'api-1');
});
