/** Our rules as NetworkPolicies: evaluated as Kubernetes does they say what our engine says, and an API server takes them. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { exportNetworkPolicies, type NetworkPolicyObject } from '../lib/enforce/networkpolicy.ts';
import { World } from '../lib/enforce/world.ts';
import { parseAddress } from '../lib/net/address.ts';
import { NetworkPolicyEngine } from '../lib/networkpolicy/engine.ts';
import type { End, NetworkPolicy, Pod } from '../lib/networkpolicy/model.ts';
import { readPolicySpec, wayText } from '../lib/networkpolicy/read.ts';
import { verdictCodeOf } from '../lib/policy/engine.ts';
import { verdicts } from '../schemas/closed-lists.ts';
import type { InventoryEvent } from '../schemas/inventory-event.ts';
import type { Actor, PolicyDocument, Profile, Rule, Ruleset } from '../schemas/policy.ts';
import { type KubeForTests, startKube } from './support/kube.ts';
import { KubeError } from './support/kube-client.ts';

const cluster = 'east';
const namespaceNames = ['shop-prod', 'shop-dev', 'tools', 'plain'];

const profiles: Profile[] = [
  {
    name: 'shop',
    match: { namespace: ['shop-*'] },
    assign: { app: 'shop' },
    map: [
      { key: 'role', from: { label: 'component' }, values: { web: 'web', api: 'web', db: 'db' } },
      { key: 'role', from: { label: 'role' } },
      { key: 'env', from: { namespaceLabel: 'stage' } },
    ],
    default: { role: 'other', env: 'dev' },
  },
  { name: 'tools', match: { namespace: ['tools'] }, assign: { app: 'tools', env: 'prod' } },
];

const namespace = (name: string, labels: Record<string, string>): InventoryEvent => ({
  v: 1,
  type: 'namespace',
  cluster,
  name,
  labels,
  annotations: {},
});
const vm = (name: string, ip: string, labels: Record<string, string>): InventoryEvent => ({
  v: 1,
  type: 'workload',
  kind: 'vm',
  cluster: '',
  uid: name,
  name,
  namespace: '',
  node: '',
  hostNetwork: false,
  labels,
  annotations: {},
  addresses: [{ ip, network: 'default', sinceMs: 0 }],
  sinceMs: 0,
});
const events: InventoryEvent[] = [
  { v: 1, type: 'cluster', cluster, podCidrs: ['10.1.0.0/16'], serviceCidrs: ['10.96.0.0/16'] },
  namespace('shop-prod', { stage: 'prod' }),
  namespace('shop-dev', {}),
  namespace('tools', {}),
  namespace('plain', {}),
  vm('mainframe', '10.20.0.5', { app: 'mainframe' }),
  vm('other', '10.20.0.6', { app: 'shop', role: 'db' }),
  {
    v: 1,
    type: 'range',
    name: 'dc',
    network: 'default',
    cidrs: ['10.20.0.0/16'],
    zone: 'inside',
    labels: { app: 'dc' },
  },
];

function documentOf(rulesets: Ruleset[], more: Partial<PolicyDocument> = {}): PolicyDocument {
  return {
    v: 1,
    version: 1,
    author: 'test',
    appliedMs: 0,
    labels: [],
    profiles,
    ipLists: [
      { name: 'partners', cidrs: ['198.51.100.0/24', '!198.51.100.8/29'] },
      { name: 'near', cidrs: ['10.0.0.0/8', '2001:db8::/32'] },
    ],
    services: [{ name: 'https', ports: [{ port: 443 }] }],
    rulesets,
    ...more,
  };
}

const podLabels = ['web', 'api', 'db', 'zzz', ''].flatMap((component): Record<string, string>[] => [
  { component },
  { component, role: 'db' },
]);
const pods: Pod[] = namespaceNames.flatMap((one) =>
  [...podLabels, {}, { role: 'web' }, { role: 'q' }].map((labels, i) => ({
    namespace: one,
    name: `pod-${i}`,
    labels,
    node: '',
    hostNetwork: false,
    namedPorts: [],
  })),
);
const addresses = [
  '10.20.0.5',
  '10.20.0.6',
  '10.20.0.7',
  '198.51.100.1',
  '198.51.100.9',
  '8.8.8.8',
  '2001:db8::1',
  '2001:dead::1',
];

function engineOf(policies: readonly NetworkPolicyObject[]): NetworkPolicyEngine {
  const read = policies.map(({ metadata, spec }): NetworkPolicy => {
    const one = readPolicySpec(metadata.namespace, metadata.name, spec);
    assert.ok(
      one.ok,
      JSON.stringify(one.ok ? '' : one.problems.map(({ way, message }) => `${wayText(way)}: ${message}`)),
    );
    return one.policy;
  });
  const namespaces = events.flatMap((event): [string, Record<string, string>][] =>
    event.type === 'namespace' ? [[event.name, event.labels]] : [],
  );
  return new NetworkPolicyEngine({ namespaces: new Map(namespaces), policies: read });
}

interface Judged {
  readonly end: End;
  readonly identity: number;
  readonly blocks: number;
  readonly words: string;
}

/** Every pair of which one is a pod of the namespaces: ours and Kubernetes' answers must be one. Returns how many were allowed. */
function compare(document: PolicyDocument, chosen: readonly string[], ports: readonly number[]): number {
  const world = new World(document, events, 0);
  const { policies } = exportNetworkPolicies(world, { cluster, namespaces: chosen, networks: [] });
  const engine = engineOf(policies);
  const podBlocks = world.engine.blockSet(parseAddress('10.1.0.1')!, 0);
  const classes = world.classes(['default']);
  const ends: Judged[] = [
    ...pods.map(
      (pod, i): Judged => ({
        end: { kind: 'pod', pod, address: parseAddress(`10.1.0.${i + 1}`)! },
        identity: world.identityOfPod(cluster, pod.namespace, pod.labels),
        blocks: podBlocks,
        words: `${pod.namespace} ${JSON.stringify(pod.labels)}`,
      }),
    ),
    ...addresses.map((text): Judged => {
      const address = parseAddress(text)!;
      const at = BigInt(`0x${Buffer.from(address).toString('hex')}`);
      const of = classes.find(({ intervals }) => intervals.some(({ from, to }) => from <= at && at <= to))!;
      return { end: { kind: 'address', address }, identity: of.identity, blocks: of.blockSet, words: text };
    }),
  ];
  const isChosen = ({ end }: Judged): boolean => end.kind === 'pod' && chosen.includes(end.pod.namespace);
  let allowedCount = 0;
  for (const source of ends)
    for (const destination of ends) {
      if (source === destination || (!isChosen(source) && !isChosen(destination))) continue;
      for (const port of ports)
        for (const [protocol, number] of [
          ['TCP', 6],
          ['UDP', 17],
        ] as const) {
          const packed = world.engine.verdict(
            world.identities,
            source.identity,
            source.blocks,
            destination.identity,
            destination.blocks,
            port,
            number,
          );
          const wanted = verdicts[verdictCodeOf(packed)] === 'allowed';
          if (wanted) allowedCount++;
          const found = engine.allows(source.end, destination.end, port, protocol);
          if (found !== wanted)
            assert.fail(
              `${source.words} -> ${destination.words} ${protocol} ${port}: policy ${wanted}, NetworkPolicy ${found}\n${JSON.stringify(document.rulesets)}\n${JSON.stringify(policies.map(({ metadata, spec }) => [metadata.name, spec]))}`,
            );
        }
    }
  return allowedCount;
}

const value = fc.constantFrom('web', 'db', 'other', 'q');
const selector = fc.oneof(
  fc.record({
    role: fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 2 }), fc.record({ not: value })),
  }),
  fc.record({ app: fc.constantFrom('shop', 'tools', 'mainframe') }),
  fc.record({ env: fc.constantFrom('prod', 'dev'), role: value }),
  fc.record({ namespace: fc.constantFrom('plain', 'tools') }),
);
const actor: fc.Arbitrary<Actor> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ labels: selector }) },
  { weight: 1, arbitrary: fc.constant({ any: true } as const) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Actor>({ ipList: 'partners' }, { ipList: 'near' }, { cidr: '10.20.0.4/30' }),
  },
);
const actors = fc.array(actor, { minLength: 1, maxLength: 2 });
const services = fc.option(
  fc.array(
    fc.constantFrom(
      'https',
      { port: 80 },
      { port: '80-443' },
      { port: 53, protocol: 'udp' as const },
      { protocol: 'any' as const, port: 53 },
      { protocol: 'udp' as const },
    ),
    { minLength: 1, maxLength: 2 },
  ),
  { nil: undefined },
);
const rule: fc.Arbitrary<Rule> = fc
  .record({
    from: actors,
    to: actors,
    services,
    action: fc.constantFrom(
      'allow' as const,
      'allow' as const,
      'allow' as const,
      'deny' as const,
      'override-deny' as const,
    ),
    scope: fc.option(fc.constantFrom('intra' as const, 'extra' as const), { nil: undefined }),
  })
  .map(({ services: ports, scope, ...rest }) => ({
    name: 'r',
    ...rest,
    ...(ports === undefined ? {} : { services: ports }),
    ...(scope === undefined ? {} : { scope }),
  }));
const ruleset: fc.Arbitrary<Ruleset> = fc
  .record({
    scope: fc.option(fc.array(selector, { minLength: 1, maxLength: 2 }), { nil: undefined }),
    rules: fc.array(rule, { minLength: 1, maxLength: 3 }),
  })
  .map(({ scope, rules }) => ({
    name: 's',
    rules: rules.map((one, i) => ({ ...one, name: `r${i}` })),
    ...(scope === undefined ? {} : { scope }),
  }));

test('what is exported allows exactly what our rules allow', () => {
  let allowedCount = 0;
  fc.assert(
    fc.property(
      fc.array(ruleset, { minLength: 1, maxLength: 2 }),
      fc.subarray(namespaceNames, { minLength: 1 }),
      (rulesets, chosen) => {
        allowedCount += compare(documentOf(rulesets), chosen, [53, 80, 443]);
      },
    ),
    { numRuns: 60 },
  );
  assert.ok(allowedCount > 10_000, `${allowedCount} connections were allowed`);
});

/** A bank's shop in words: the policy of docs and of the API server's test. */
const shopRules: Ruleset[] = [
  {
    name: 'shop',
    scope: [{ app: 'shop' }],
    rules: [
      {
        name: 'web-to-db',
        from: [{ labels: { role: 'web' } }],
        to: [{ labels: { role: 'db' } }],
        services: [{ port: 5432 }],
        scope: 'intra',
      },
      {
        name: 'partners',
        from: [{ ipList: 'partners' }],
        to: [{ labels: { role: 'web', env: 'prod' } }],
        services: ['https'],
      },
      { name: 'tools', from: [{ labels: { app: 'tools' } }], to: [{ labels: { app: 'shop' } }] },
      {
        name: 'internet',
        from: [{ labels: { role: 'web' } }],
        to: [{ any: true }],
        services: ['https', { port: '8000-8010', protocol: 'udp' }],
      },
      {
        name: 'ping',
        from: [{ any: true }],
        to: [{ labels: { role: 'db' } }],
        services: [{ protocol: 'icmp' }],
      },
      { name: 'vms', from: [{ labels: { kind: 'vm' } }], to: [{ labels: { kind: 'vm' } }] },
    ],
  },
];
const exportShop = () =>
  exportNetworkPolicies(new World(documentOf(shopRules), events, 0), {
    cluster,
    namespaces: ['shop-dev', 'shop-prod'],
    networks: [],
  });

test('a rule becomes policies of both ends, with selectors as short as labels allow', () => {
  const { policies } = exportShop();
  const spec = (name: string) =>
    policies.find(({ metadata }) => metadata.namespace === 'shop-prod' && metadata.name === name)?.spec;
  assert.deepEqual(spec('eastwest-closed'), { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
  assert.deepEqual(spec('eastwest-shop-web-to-db-ingress')?.podSelector, {
    matchLabels: { component: 'db' },
  });
  assert.deepEqual(spec('eastwest-shop-web-to-db-ingress-2')?.podSelector, {
    matchLabels: { role: 'db' },
    matchExpressions: [{ key: 'component', operator: 'NotIn', values: ['api', 'web'] }],
  });
  assert.deepEqual(spec('eastwest-shop-tools-ingress'), {
    podSelector: {},
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'tools' } } }] }],
  });
  assert.deepEqual(spec('eastwest-shop-internet-egress')?.egress, [
    {
      ports: [
        { protocol: 'TCP', port: 443 },
        { protocol: 'UDP', port: 8000, endPort: 8010 },
      ],
    },
  ]);
  assert.deepEqual(spec('eastwest-shop-partners-ingress')?.ingress, [
    {
      from: [{ ipBlock: { cidr: '198.51.100.0/24', except: ['198.51.100.8/29'] } }],
      ports: [{ protocol: 'TCP', port: 443 }],
    },
  ]);
});

test('what can not be exported is said, with the reason', () => {
  assert.deepEqual(exportShop().remarks, [
    'shop/vms: nothing of it is exported; it allows pods of these namespaces nothing that a NetworkPolicy can say',
    'shop/ping: NetworkPolicy can allow TCP, UDP and SCTP, or everything; what this rule allows of other protocols (ICMP) is left out',
  ]);
  const byAnnotation: Profile = { name: 'a', match: { namespace: ['plain'] }, allow: { app: [] } };
  const names: Ruleset = {
    name: 'more',
    rules: [
      { name: 'names', from: [{ labels: { app: 'shop' } }], to: [{ dns: ['*.example.com'] }] },
      {
        name: 'half',
        from: [{ cidr: '10.1.0.0/17' }],
        to: [{ labels: { app: 'shop' } }],
        services: [{ port: 1, process: 'x' }],
      },
    ],
  };
  const pod: InventoryEvent = {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster,
    uid: 'u',
    name: 'a-1',
    namespace: 'plain',
    node: '',
    hostNetwork: false,
    labels: {},
    annotations: { 'eastwest.io/app': 'shop' },
    addresses: [],
    sinceMs: 0,
  };
  const onNode: InventoryEvent = { ...pod, uid: 'v', name: 'a-2', annotations: {}, hostNetwork: true };
  const document = documentOf([names], { profiles: [...profiles, byAnnotation] });
  const world = new World(document, [...events, pod, onNode], 0);
  assert.deepEqual(exportNetworkPolicies(world, { cluster, namespaces: ['plain'], networks: [] }).remarks, [
    "ip-lists or CIDRs of the policy hold some of the pod addresses of cluster east and not others; selectors can't tell those apart, so pods are taken to be in none of them",
    'more/names: nothing of it is exported; it allows pods of these namespaces nothing that a NetworkPolicy can say',
    'more/half: nothing of it is exported; it allows pods of these namespaces nothing that a NetworkPolicy can say',
    'more/names: the inventory knows no addresses of *.example.com, so these DNS names are left out',
    'more/half: asks for a process, which a packet does not name, so these services are left out',
    "plain/a-1 has labels by annotations (eastwest.io/app), which selectors can't see: policies take it as if it had none",
    'plain/a-2 is on the network of its node: policies do not select it',
  ]);
});

test('the same input gives the same bytes, whatever its order', () => {
  const first = JSON.stringify(exportShop().policies);
  const world = new World(documentOf(shopRules), events.toReversed(), 0);
  const again = exportNetworkPolicies(world, {
    cluster,
    namespaces: ['shop-prod', 'shop-dev'],
    networks: [],
  });
  assert.equal(JSON.stringify(again.policies), first);
});

describe('a real API server', { timeout: 120_000 }, () => {
  let kube: KubeForTests | { skip: string };
  before(async () => {
    kube = await startKube();
  });
  after(async () => {
    if ('client' in kube) await kube.stop();
  });

  test('takes every exported policy, and gives back what means the same', async (context) => {
    if ('skip' in kube) {
      context.skip(kube.skip);
      return;
    }
    const { client } = kube;
    for (const name of namespaceNames) await client.createNamespace(name);
    const { policies } = exportShop();
    assert.ok(policies.length > 10);
    const stored: NetworkPolicyObject[] = [];
    for (const policy of policies) {
      const path = `/apis/networking.k8s.io/v1/namespaces/${policy.metadata.namespace}/networkpolicies`;
      await client.create(`${path}?fieldValidation=Strict`, policy);
      stored.push((await client.request('GET', `${path}/${policy.metadata.name}`)) as NetworkPolicyObject);
    }
    const [sent, found] = [engineOf(policies), engineOf(stored)];
    const ends = pods.map((pod): End => ({ kind: 'pod', pod, address: parseAddress('10.1.0.1') }));
    let openCount = 0;
    for (const source of ends)
      for (const destination of ends) {
        assert.deepEqual(found.ports(source, destination), sent.ports(source, destination));
        if (sent.ports(source, destination).length > 0) openCount++;
      }
    assert.ok(openCount > 100);
  });

  test('refuses what our reader refuses', async (context) => {
    if ('skip' in kube) {
      context.skip(kube.skip);
      return;
    }
    const { client } = kube;
    const wrong: unknown[] = [
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['b'] }] } },
      { podSelector: { matchLabels: { 'a b': 'c' } } },
      { podSelector: { matchLabels: { a: 'b c' } } },
      { podSelector: {}, policyTypes: ['ingress'] },
      { podSelector: {}, ingress: [{ from: [{}] }] },
      { podSelector: {}, ingress: [{ from: [{ podSelector: {}, ipBlock: { cidr: '10.0.0.0/8' } }] }] },
      { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.1' } }] }] },
      {
        podSelector: {},
        ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }] }],
      },
      { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/8'] } }] }] },
      { podSelector: {}, ingress: [{ ports: [{ protocol: 'ICMP' }] }] },
      { podSelector: {}, ingress: [{ ports: [{ port: 65536 }] }] },
      { podSelector: {}, ingress: [{ ports: [{ port: '80' }] }] },
      { podSelector: {}, ingress: [{ ports: [{ endPort: 80 }] }] },
      { podSelector: {}, ingress: [{ ports: [{ port: 'http', endPort: 80 }] }] },
      { podSelector: {}, ingress: [{ ports: [{ port: 80, endPort: 79 }] }] },
      { podselector: {} },
    ];
    for (const [i, spec] of wrong.entries()) {
      assert.equal(readPolicySpec('plain', 'p', spec).ok, false, JSON.stringify(spec));
      const policy = {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: `wrong-${i}` },
        spec,
      };
      await assert.rejects(
        client.create(
          '/apis/networking.k8s.io/v1/namespaces/plain/networkpolicies?fieldValidation=Strict',
          policy,
        ),
        KubeError,
        JSON.stringify(spec),
      );
    }
  });
});
