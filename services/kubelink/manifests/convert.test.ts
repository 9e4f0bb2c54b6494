import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import { InventoryEvent as InventoryEventSchema } from '../../../schemas/inventory-event.ts';
import { checker } from '../validate.ts';
import { carryRules } from './common.ts';
import { type Conversion, convertObject, objectsOf } from './convert.ts';
import { ClusterAddresses, withEndpoints } from './endpoint-slice.ts';

const nowMs = Date.parse('2026-03-01T12:00:00Z');
const at = (text: string): number => Date.parse(text);
const context = {
  cluster: 'east',
  carry: carryRules(['pod-template-hash', 'batch.kubernetes.io/*'], ['eastwest.io/*', 'team']),
  nowMs,
};
const checkEvent = checker(InventoryEventSchema);

function entity(object: unknown): Extract<Conversion, { outcome: 'entity' }> {
  const conversion = convertObject(object, context);
  assert.equal(conversion.outcome, 'entity', JSON.stringify(conversion));
  assert.ok(conversion.outcome === 'entity');
  const checked = checkEvent(conversion.event);
  assert.ok(checked.ok, JSON.stringify(checked));
  return conversion;
}

function workload(object: unknown): Extract<InventoryEvent, { type: 'workload' }> {
  const { event } = entity(object);
  assert.ok(event.type === 'workload');
  return event;
}

/** As `kubectl get pod -o json` prints it, with what kubelink does not read left in here and there. */
function pod(changes: { metadata?: object; spec?: object; status?: object } = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'checkout-7d4b9c6f5-x2x9q',
      namespace: 'shop',
      uid: '0b0c7d3e-6a51-4f2e-9d2b-3f1f5e3a9c11',
      resourceVersion: '81231',
      creationTimestamp: '2026-03-01T10:00:00Z',
      labels: { app: 'checkout', 'pod-template-hash': '7d4b9c6f5', 'batch.kubernetes.io/job-name': 'x' },
      annotations: { 'eastwest.io/env': 'prod', 'cni.projectcalico.org/podIP': '10.1.4.7/32', team: 'web' },
      ownerReferences: [{ kind: 'ReplicaSet', name: 'checkout-7d4b9c6f5' }],
      ...changes.metadata,
    },
    spec: { nodeName: 'node-a', containers: [{ name: 'main', image: 'checkout:1' }], ...changes.spec },
    status: {
      phase: 'Running',
      startTime: '2026-03-01T10:00:02Z',
      hostIP: '192.168.7.10',
      podIP: '10.1.4.7',
      podIPs: [{ ip: '10.1.4.7' }, { ip: 'FD00:10:1::0:7' }],
      containerStatuses: [{ name: 'main', state: { running: { startedAt: '2026-03-01T10:00:04Z' } } }],
      ...changes.status,
    },
  };
}

const terminated = (finishedAt?: string) => ({
  name: 'main',
  state: { terminated: { exitCode: 0, finishedAt } },
});

describe('pods', () => {
  test('a running pod has all its addresses since its start, in the network of its cluster', () => {
    const { ref, event } = entity(pod());
    assert.equal(ref, 'Pod/shop/checkout-7d4b9c6f5-x2x9q');
    assert.deepEqual(event, {
      v: 1,
      type: 'workload',
      kind: 'pod',
      cluster: 'east',
      uid: '0b0c7d3e-6a51-4f2e-9d2b-3f1f5e3a9c11',
      name: 'checkout-7d4b9c6f5-x2x9q',
      namespace: 'shop',
      node: 'node-a',
      hostNetwork: false,
      labels: { app: 'checkout' },
      annotations: { 'eastwest.io/env': 'prod', team: 'web' },
      addresses: [
        { ip: '10.1.4.7', network: 'east', sinceMs: at('2026-03-01T10:00:02Z') },
        { ip: 'fd00:10:1::7', network: 'east', sinceMs: at('2026-03-01T10:00:02Z') },
      ],
      sinceMs: at('2026-03-01T10:00:00Z'),
    });
  });

  test('a pod has the ports with names of the containers that run as long as it does', () => {
    const ports = (name: string, containerPort: number, more: object = {}) => ({
      ports: [{ name, containerPort, ...more }, { containerPort: 1 }],
    });
    const spec = {
      containers: [ports('web', 8080), ports('dns', 53, { protocol: 'UDP' })],
      initContainers: [ports('setup', 1000), { ...ports('proxy', 15001), restartPolicy: 'Always' }],
    };
    assert.deepEqual(workload(pod({ spec })).ports, [
      { name: 'web', port: 8080, protocol: 'TCP' },
      { name: 'dns', port: 53, protocol: 'UDP' },
      { name: 'proxy', port: 15001, protocol: 'TCP' },
    ]);
  });

  test('a pod of an older API with podIP alone has that address', () => {
    assert.deepEqual(
      workload(pod({ status: { podIPs: undefined } })).addresses.map(({ ip }) => ip),
      ['10.1.4.7'],
    );
  });

  test('a pod that shares the network of its node has no address of its own', () => {
    const event = workload(pod({ spec: { hostNetwork: true } }));
    assert.equal(event.hostNetwork, true);
    assert.deepEqual(event.addresses, []);
  });

  test('a pod that is not scheduled yet has neither node nor address', () => {
    const event = workload(
      pod({ spec: { nodeName: null }, status: { phase: 'Pending', podIP: null, podIPs: null } }),
    );
    assert.equal(event.node, '');
    assert.deepEqual(event.addresses, []);
    assert.equal(event.untilMs, undefined);
  });

  test('a hand-written manifest is a workload by its name, without times', () => {
    const event = workload({ kind: 'Pod', metadata: { name: 'web' }, spec: { containers: [] } });
    assert.equal(event.uid, 'default/web');
    assert.equal(event.namespace, 'default');
    assert.equal(event.sinceMs, 0);
  });

  const ends: readonly [string, object, object, number | undefined][] = [
    [
      'a finished pod ended when its last container did, up to the end of that second',
      {
        phase: 'Succeeded',
        containerStatuses: [terminated('2026-03-01T11:00:00Z'), terminated('2026-03-01T11:00:05Z')],
      },
      {},
      at('2026-03-01T11:00:06Z'),
    ],
    [
      'a failed pod of which nothing is known ended by now',
      { phase: 'Failed', containerStatuses: null },
      {},
      nowMs,
    ],
    [
      'a pod that is being deleted keeps its addresses while a container runs',
      {},
      { deletionTimestamp: '2026-03-01T11:59:30Z' },
      undefined,
    ],
    [
      'a pod that is being deleted ended when its containers did',
      { containerStatuses: [terminated('2026-03-01T11:59:10.500Z')] },
      { deletionTimestamp: '2026-03-01T11:59:30Z' },
      at('2026-03-01T11:59:10.500Z'),
    ],
    [
      'a pod whose grace period is over and whose containers are unknown ended with it, up to the end of that second',
      { containerStatuses: [] },
      { deletionTimestamp: '2026-03-01T11:59:30Z' },
      at('2026-03-01T11:59:31Z'),
    ],
    [
      'a pod in its grace period whose containers are unknown goes on',
      { containerStatuses: [] },
      { deletionTimestamp: '2026-03-01T12:00:30Z' },
      undefined,
    ],
    [
      'a pod whose container crashed goes on: it keeps its addresses',
      { containerStatuses: [terminated('2026-03-01T11:00:00Z')] },
      {},
      undefined,
    ],
  ];
  for (const [promise, status, metadata, untilMs] of ends) {
    test(promise, () => {
      const event = workload(pod({ status, metadata }));
      assert.equal(event.untilMs, untilMs);
      assert.equal(event.addresses.length, 2);
      for (const address of event.addresses) assert.equal(address.untilMs, untilMs);
    });
  }
});

describe('nodes, services and namespaces', () => {
  test('a node has its internal and external addresses in the routed network, and names its pod ranges', () => {
    const { event, podCidrs } = entity({
      kind: 'Node',
      metadata: {
        name: 'node-a',
        uid: 'n-1',
        creationTimestamp: '2026-01-01T00:00:00Z',
        labels: { zone: 'a' },
      },
      spec: { podCIDR: '10.1.4.0/24', podCIDRs: ['10.1.4.0/24', 'fd00:10:1:4::/64'] },
      status: {
        addresses: [
          { type: 'Hostname', address: 'node-a' },
          { type: 'InternalIP', address: '192.168.7.10' },
          { type: 'ExternalIP', address: '198.51.100.7' },
        ],
      },
    });
    assert.ok(event.type === 'workload');
    assert.equal(event.kind, 'node');
    const sinceMs = at('2026-01-01T00:00:00Z');
    assert.deepEqual(event.addresses, [
      { ip: '192.168.7.10', network: 'default', sinceMs },
      { ip: '198.51.100.7', network: 'default', sinceMs },
    ]);
    assert.deepEqual(podCidrs, ['10.1.4.0/24', 'fd00:10:1:4::/64']);
  });

  test('a service has its cluster addresses in the cluster and the others in the routed network', () => {
    const { event } = entity({
      kind: 'Service',
      metadata: { name: 'web', namespace: 'shop', uid: 's-1', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        type: 'LoadBalancer',
        clusterIP: '10.96.0.7',
        clusterIPs: ['10.96.0.7', 'fd00:96::7'],
        externalIPs: ['198.51.100.9'],
        selector: { app: 'web' },
        ports: [
          { name: 'https', port: 443, protocol: 'TCP', targetPort: 8443, nodePort: 30443 },
          { port: 53, protocol: 'UDP', targetPort: 'dns' },
          { port: 80 },
        ],
      },
      status: { loadBalancer: { ingress: [{ ip: '203.0.113.4' }, { hostname: 'lb.example.org' }] } },
    });
    assert.ok(event.type === 'service');
    assert.deepEqual(
      event.addresses.map(({ ip, network }) => `${network} ${ip}`),
      ['east 10.96.0.7', 'east fd00:96::7', 'default 198.51.100.9', 'default 203.0.113.4'],
    );
    assert.deepEqual(event.selector, { app: 'web' });
    assert.deepEqual(event.ports, [
      { port: 443, protocol: 'TCP', name: 'https', nodePort: 30443, targetPort: 8443 },
      { port: 53, protocol: 'UDP', name: '', targetPort: 'dns' },
      { port: 80, protocol: 'TCP', name: '' },
    ]);
  });

  for (const spec of [
    { clusterIP: 'None' },
    { clusterIP: 'None', clusterIPs: ['None'] },
    { type: 'ExternalName' },
  ]) {
    test(`a service without an address is a service all the same: ${JSON.stringify(spec)}`, () => {
      const { event } = entity({ kind: 'Service', metadata: { name: 'web' }, spec });
      assert.ok(event.type === 'service');
      assert.deepEqual(event.addresses, []);
    });
  }

  test('a namespace is known by its name', () => {
    assert.deepEqual(
      entity({ kind: 'Namespace', metadata: { name: 'shop', labels: { team: 'web' } } }).event,
      {
        v: 1,
        type: 'namespace',
        cluster: 'east',
        name: 'shop',
        labels: { team: 'web' },
        annotations: {},
      },
    );
  });
});

describe('what stands behind services, and policies', () => {
  test('an ExternalName service is a service without an address, and a name outside', () => {
    const external = { kind: 'Service', metadata: { name: 'pay', namespace: 'shop', labels: { a: 'b' } } };
    const { event, also } = entity({
      ...external,
      spec: { type: 'ExternalName', externalName: 'API.Example.com.' },
    });
    assert.ok(event.type === 'service');
    assert.deepEqual(event.addresses, []);
    assert.deepEqual(also, [
      {
        v: 1,
        type: 'name',
        name: 'east/shop/pay',
        dns: ['api.example.com'],
        zone: 'outside',
        labels: { a: 'b' },
        addresses: [],
      },
    ]);
    assert.ok(checkEvent(also[0]).ok);
    const spec = { type: 'ExternalName', externalName: 'web.shop.svc.cluster.local' };
    const [inside] = entity({ ...external, spec }).also;
    assert.ok(inside?.type === 'name');
    assert.equal(inside.zone, 'inside');
  });

  test('a slice names the addresses that are no pods of its service', () => {
    const slice = {
      kind: 'EndpointSlice',
      metadata: {
        name: 'db-1',
        namespace: 'shop',
        creationTimestamp: '2026-01-01T00:00:00Z',
        labels: { 'kubernetes.io/service-name': 'db' },
      },
      addressType: 'IPv4',
      endpoints: [
        { addresses: ['10.20.0.5'] },
        { addresses: ['10.1.0.7'], targetRef: { kind: 'Pod', name: 'db-0' } },
      ],
    };
    assert.deepEqual(convertObject(slice, context), {
      outcome: 'endpoints',
      ref: 'EndpointSlice/shop/db-1',
      endpoints: { service: 'shop/db', addresses: ['10.20.0.5'], sinceMs: at('2026-01-01T00:00:00Z') },
    });
    const broken = convertObject({ ...slice, endpoints: [{ addresses: ['x'] }] }, context);
    assert.ok(broken.outcome === 'malformed');
    assert.match(broken.message, /endpoints\[0\]\.addresses\[0\]: "x" is not an IP address/);
  });

  test('the addresses of slices are those of a service without selector, unless they are nodes or pods', () => {
    const service = (spec: object) => {
      const { event } = entity({ kind: 'Service', metadata: { name: 'db', namespace: 'shop' }, spec });
      assert.ok(event.type === 'service');
      return event;
    };
    const node = workload({
      kind: 'Node',
      metadata: { name: 'n' },
      status: { addresses: [{ type: 'InternalIP', address: '192.168.7.10' }] },
    });
    const others = new ClusterAddresses([node], {
      v: 1,
      type: 'cluster',
      cluster: 'east',
      podCidrs: ['10.1.0.0/18'],
      serviceCidrs: [],
    });
    const slices = [
      { service: 'shop/db', addresses: ['10.20.0.5', '192.168.7.10', '10.1.63.255'], sinceMs: 5 },
      { service: 'shop/db', addresses: ['10.20.0.5', '10.1.64.0'], sinceMs: 6 },
    ];
    assert.deepEqual(
      withEndpoints(service({ clusterIP: '10.96.0.9' }), slices, others).addresses.map(
        ({ ip, network }) => `${network} ${ip}`,
      ),
      ['east 10.96.0.9', 'default 10.20.0.5', 'default 10.1.64.0'],
    );
    const selecting = service({ selector: { app: 'db' } });
    assert.equal(withEndpoints(selecting, slices, others), selecting);
  });

  test('a network policy carries its spec as it is', () => {
    const spec = { podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { a: 'b' } } }] }] };
    const { event } = entity({
      kind: 'NetworkPolicy',
      metadata: { name: 'deny', namespace: 'shop', uid: 'p-1', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec,
    });
    assert.ok(event.type === 'network-policy');
    assert.deepEqual(event.spec, spec);
    assert.equal(event.namespace, 'shop');
  });

  test('a pod has its address from when its network was set up, where that is known', () => {
    const ready = {
      type: 'PodReadyToStartContainers',
      status: 'True',
      lastTransitionTime: '2026-03-01T10:00:20Z',
    };
    assert.equal(
      workload(pod({ status: { conditions: [ready] } })).addresses[0]?.sinceMs,
      at('2026-03-01T10:00:20Z'),
    );
    assert.equal(
      workload(pod({ status: { conditions: [{ ...ready, status: 'False' }] } })).addresses[0]?.sinceMs,
      at('2026-03-01T10:00:02Z'),
    );
  });
});

describe('lists and other objects', () => {
  test('a List and a typed list are their items, of which those of a typed list have no kind of their own', () => {
    const items = [{ kind: 'Pod', metadata: { name: 'a' } }];
    assert.deepEqual(objectsOf({ kind: 'List', items }), [{ place: 'items[0]', object: items[0] }]);
    assert.deepEqual(objectsOf({ kind: 'PodList', items: [{ metadata: { name: 'a' } }] }), [
      { place: 'items[0]', object: items[0] },
    ]);
    assert.deepEqual(objectsOf({ kind: 'PodList', items: null }), []);
    assert.equal(objectsOf({ kind: 'PodList', items: 'many' }), null);
  });

  test('kinds that tell the inventory nothing are named, and unknown ones are counted together', () => {
    for (const [kind, counted] of [
      ['Endpoints', 'Endpoints'],
      ['Deployment', 'Deployment'],
      ['Gadget', 'other'],
    ]) {
      assert.deepEqual(convertObject({ kind, metadata: { name: 'x' } }, context), {
        outcome: 'ignored',
        kind: counted,
      });
    }
  });

  const malformed: readonly [string, unknown, string | null, RegExp][] = [
    ['no object', 'text', null, /not an object/],
    ['no kind', { metadata: { name: 'x' } }, null, /^kind: must be/],
    ['no metadata', { kind: 'Pod' }, null, /metadata/],
    ['no name', { kind: 'Pod', metadata: { namespace: 'shop' } }, null, /^Pod: metadata: .*name/],
    [
      'an address of another type',
      pod({ status: { podIPs: [{ ip: 7 }] } }),
      'Pod/shop/checkout-7d4b9c6f5-x2x9q',
      /status\.podIPs\[0\]\.ip: must be string/,
    ],
    [
      'an address that does not parse',
      pod({ status: { podIPs: [{ ip: '10.1.4.7' }, { ip: '10.1.4.777' }] } }),
      'Pod/shop/checkout-7d4b9c6f5-x2x9q',
      /status\.podIPs\[1\]\.ip: "10\.1\.4\.777" is not an IP address/,
    ],
    [
      'a time that does not parse',
      pod({ status: { startTime: 'yesterday' } }),
      'Pod/shop/checkout-7d4b9c6f5-x2x9q',
      /status\.startTime: "yesterday" is not/,
    ],
    [
      'a label that is not text',
      pod({ metadata: { labels: { app: true } } }),
      'Pod/shop/checkout-7d4b9c6f5-x2x9q',
      /metadata\.labels\.app: must be string/,
    ],
    [
      'a range that does not parse',
      { kind: 'Node', metadata: { name: 'n' }, spec: { podCIDR: '10.1.4.0/240' } },
      'Node/n',
      /spec\.podCIDR: "10\.1\.4\.0\/240" is not a CIDR/,
    ],
    [
      'a port out of range',
      { kind: 'Service', metadata: { name: 's' }, spec: { ports: [{ port: 70000 }] } },
      'Service/default/s',
      /spec\.ports\[0\]\.port/,
    ],
  ];
  for (const [what, object, ref, message] of malformed) {
    test(`the error names object and field: ${what}`, () => {
      const conversion = convertObject(object, context);
      assert.ok(conversion.outcome === 'malformed', JSON.stringify(conversion));
      assert.equal(conversion.ref, ref);
      assert.match(conversion.message, message);
      if (ref !== null) assert.ok(conversion.message.startsWith(`${ref}: `));
    });
  }
});
