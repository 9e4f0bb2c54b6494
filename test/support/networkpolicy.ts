/**
 * The semantics of NetworkPolicy once more, sentence by sentence and as slow as it likes: works on specs as they stand
 * in manifests, for one connection at a time. And generated clusters to hold the compiled engine to it.
 */
import fc from 'fast-check';
import { parseAddress } from '../../lib/net/address.ts';
import type { End, NetworkPolicy, Pod, PolicyCluster } from '../../lib/networkpolicy/model.ts';
import { readPolicySpec } from '../../lib/networkpolicy/read.ts';

type Labels = Record<string, string>;

interface Selector {
  matchLabels?: Labels | null | undefined;
  matchExpressions?: { key: string; operator: string; values?: string[] }[] | null | undefined;
}
interface Peer {
  podSelector?: Selector | null | undefined;
  namespaceSelector?: Selector | null | undefined;
  ipBlock?: { cidr: string; except?: string[] } | null | undefined;
}
interface Port {
  port?: number | string | null | undefined;
  endPort?: number | null | undefined;
  protocol?: string | null | undefined;
}
export interface Spec {
  podSelector?: Selector | null | undefined;
  policyTypes?: string[] | null | undefined;
  ingress?: { from?: Peer[] | null | undefined; ports?: Port[] | null | undefined }[] | null | undefined;
  egress?: { to?: Peer[] | null | undefined; ports?: Port[] | null | undefined }[] | null | undefined;
}
export interface RawPolicy {
  namespace: string;
  name: string;
  spec: Spec;
}

/** An end with its address as text. */
export interface RawEnd {
  kind: 'pod' | 'node' | 'address';
  pod?: Pod;
  node?: string;
  address: string;
}

export interface RawCluster {
  namespaces: Record<string, Labels>;
  policies: RawPolicy[];
  ends: RawEnd[];
}

function selects(selector: Selector, labels: Labels): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) {
    if (labels[key] !== value) return false;
  }
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const has = key in labels;
    if (operator === 'In' && !(has && values!.includes(labels[key]!))) return false;
    if (operator === 'NotIn' && has && values!.includes(labels[key]!)) return false;
    if (operator === 'Exists' && !has) return false;
    if (operator === 'DoesNotExist' && has) return false;
  }
  return true;
}

/** Bit by bit, on the addresses as they are written: a block holds addresses of its own family only. */
function bits(text: string): string {
  const bytes = parseAddress(text)!;
  const own = text.includes(':') ? bytes : bytes.subarray(12);
  return [...own].map((byte) => byte.toString(2).padStart(8, '0')).join('');
}
function blockHas(cidr: string, address: string): boolean {
  const [base = '', length = ''] = cidr.split('/');
  const [a, b] = [bits(base), bits(address)];
  return a.length === b.length && a.slice(0, Number(length)) === b.slice(0, Number(length));
}

function isPolicyPod(end: RawEnd): boolean {
  return end.kind === 'pod' && end.pod!.hostNetwork === false;
}

function peerMatches(peer: Peer, policy: RawPolicy, other: RawEnd, cluster: RawCluster): boolean {
  if (peer.ipBlock) {
    const { cidr, except } = peer.ipBlock;
    return blockHas(cidr, other.address) && !(except ?? []).some((one) => blockHas(one, other.address));
  }
  if (!isPolicyPod(other)) return false;
  const { namespace, labels } = other.pod!;
  if (peer.namespaceSelector) {
    const namespaceLabels = { ...cluster.namespaces[namespace], 'kubernetes.io/metadata.name': namespace };
    if (!selects(peer.namespaceSelector, namespaceLabels)) return false;
  } else if (namespace !== policy.namespace) return false;
  return !peer.podSelector || selects(peer.podSelector, labels);
}

function portMatches(wanted: Port, destination: RawEnd, port: number, protocol: string): boolean {
  if ((wanted.protocol ?? 'TCP') !== protocol) return false;
  if (wanted.port === undefined || wanted.port === null) return true;
  if (typeof wanted.port === 'string')
    return (
      isPolicyPod(destination) &&
      destination.pod!.namedPorts.some(
        (named) => named.name === wanted.port && named.protocol === protocol && named.port === port,
      )
    );
  if (wanted.endPort) return port >= wanted.port && port <= wanted.endPort;
  return port === wanted.port;
}

function affects(spec: Spec, type: 'Ingress' | 'Egress'): boolean {
  const types = spec.policyTypes ?? [];
  if (types.length > 0) return types.includes(type);
  return type === 'Ingress' || (spec.egress ?? []).length > 0;
}

function nodeOf(end: RawEnd): string | undefined {
  if (end.kind === 'node') return end.node;
  return end.kind === 'pod' && end.pod!.hostNetwork ? end.pod!.node : undefined;
}

function directionAllows(
  type: 'Ingress' | 'Egress',
  own: RawEnd,
  other: RawEnd,
  destination: RawEnd,
  port: number,
  protocol: string,
  cluster: RawCluster,
): boolean {
  if (!isPolicyPod(own)) return true;
  const pod = own.pod!;
  if (nodeOf(other) === pod.node && pod.node !== '') return true;
  const isolating = cluster.policies.filter(
    ({ namespace, spec }) =>
      namespace === pod.namespace && affects(spec, type) && selects(spec.podSelector ?? {}, pod.labels),
  );
  if (isolating.length === 0) return true;
  for (const policy of isolating) {
    const rules = type === 'Ingress' ? policy.spec.ingress : policy.spec.egress;
    for (const rule of rules ?? []) {
      const peers: Peer[] = ('from' in rule ? rule.from : 'to' in rule ? rule.to : null) ?? [];
      const ports = rule.ports ?? [];
      const peerIn = peers.length === 0 || peers.some((peer) => peerMatches(peer, policy, other, cluster));
      const portIn = ports.length === 0 || ports.some((one) => portMatches(one, destination, port, protocol));
      if (peerIn && portIn) return true;
    }
  }
  return false;
}

/** Whether the connection is allowed: out of the source and into the destination. */
export function referenceAllows(
  cluster: RawCluster,
  source: RawEnd,
  destination: RawEnd,
  port: number,
  protocol: string,
): boolean {
  if (source.kind === 'pod' && destination.kind === 'pod' && source.pod === destination.pod) return true;
  return (
    directionAllows('Egress', source, destination, destination, port, protocol, cluster) &&
    directionAllows('Ingress', destination, source, destination, port, protocol, cluster)
  );
}

export function toEnd({ kind, pod, node, address }: RawEnd): End {
  const bytes = parseAddress(address)!;
  if (kind === 'pod') return { kind, pod: pod!, address: bytes };
  return kind === 'node' ? { kind, node: node!, address: bytes } : { kind, address: bytes };
}

/** The cluster as the engine takes it. @throws {Error} where a spec is wrong. */
export function readCluster({ namespaces, policies }: Omit<RawCluster, 'ends'>): PolicyCluster {
  return {
    namespaces: new Map(Object.entries(namespaces)),
    policies: policies.map(({ namespace, name, spec }): NetworkPolicy => {
      const read = readPolicySpec(namespace, name, spec);
      if (!read.ok) throw new Error(JSON.stringify(read.problems));
      return read.policy;
    }),
  };
}

// Few words, so that selectors meet labels often.
const key = fc.constantFrom('app', 'tier');
const value = fc.constantFrom('a', 'b', 'c');
const labels = fc.dictionary(key, value, { maxKeys: 2, noNullPrototype: true });
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const maybeNull = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof(fc.constant(undefined), fc.constant(null), arbitrary);

const expression = fc.oneof(
  fc.record({
    key,
    operator: fc.constantFrom('In', 'NotIn'),
    values: fc.array(value, { minLength: 1, maxLength: 2 }),
  }),
  fc.record({ key, operator: fc.constantFrom('Exists', 'DoesNotExist') }),
);
const selector: fc.Arbitrary<Selector> = fc.record(
  { matchLabels: labels, matchExpressions: fc.array(expression, { maxLength: 2 }) },
  { requiredKeys: [] },
);
const namespaceSelector: fc.Arbitrary<Selector> = fc.oneof(
  selector,
  fc.constantFrom('n0', 'n1', 'n2').map((name) => ({ matchLabels: { 'kubernetes.io/metadata.name': name } })),
);
const ipBlock: fc.Arbitrary<NonNullable<Peer['ipBlock']>> = fc.constantFrom<NonNullable<Peer['ipBlock']>>(
  { cidr: '10.0.0.0/8' },
  { cidr: '10.0.0.0/16', except: ['10.0.1.0/24'] },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/8', '192.0.2.0/25'] },
  { cidr: '10.0.1.2/32' },
  { cidr: '192.0.2.0/24' },
  { cidr: '::/0' },
  { cidr: '2001:db8::/32', except: ['2001:db8:0:1::/64', '2001:db8::1/128'] },
);
const peer: fc.Arbitrary<Peer> = fc.oneof(
  fc.record({ podSelector: selector, namespaceSelector }),
  fc.record({ podSelector: selector, ipBlock: fc.constantFrom(null, undefined) }),
  fc.record({ namespaceSelector, podSelector: fc.constantFrom(null, undefined) }),
  fc.record({ ipBlock }),
);
const protocol = fc.constantFrom('TCP', 'UDP', 'SCTP');
const port: fc.Arbitrary<Port> = fc.oneof(
  fc.record({ protocol: maybeNull(protocol) }),
  fc.record({ port: fc.constantFrom(80, 81, 443), protocol: maybe(protocol) }),
  fc.record({ port: fc.constantFrom('web', 'dns'), protocol: maybe(protocol) }),
  fc.record({
    port: fc.constantFrom(80, 81),
    endPort: fc.constantFrom(81, 443, 65535),
    protocol: maybe(protocol),
  }),
);
const list = <T>(arbitrary: fc.Arbitrary<T>) => maybeNull(fc.array(arbitrary, { maxLength: 3 }));
const spec: fc.Arbitrary<Spec> = fc.record({
  podSelector: fc.oneof(fc.constant({}), selector, fc.constant(undefined)),
  policyTypes: fc.constantFrom(undefined, null, [], ['Ingress'], ['Egress'], ['Ingress', 'Egress']),
  ingress: list(fc.record({ from: list(peer), ports: list(port) })),
  egress: list(fc.record({ to: list(peer), ports: list(port) })),
});
const namedPort = fc.record({
  name: fc.constantFrom('web', 'dns'),
  port: fc.constantFrom(80, 81, 443),
  protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
});
const address = fc.oneof(
  fc.tuple(fc.constantFrom(0, 1), fc.constantFrom(1, 2)).map(([a, b]) => `10.0.${a}.${b}`),
  fc.constantFrom('2001:db8::1', '2001:db8::2', '2001:db8:0:1::1'),
);
const namespace = fc.constantFrom('n0', 'n1', 'n2');
const podEnd: fc.Arbitrary<RawEnd> = fc
  .record({
    namespace,
    name: fc.constant('pod'),
    labels,
    node: fc.constantFrom('', 'node-a', 'node-b'),
    hostNetwork: fc.constantFrom(false, false, false, false, true),
    namedPorts: fc.array(namedPort, { maxLength: 2 }),
  })
  .chain((pod) => address.map((text) => ({ kind: 'pod' as const, pod, address: text })));
const otherEnds: RawEnd[] = [
  { kind: 'node', node: 'node-a', address: '10.0.0.1' },
  { kind: 'address', address: '192.0.2.1' },
  { kind: 'address', address: '192.0.2.200' },
  { kind: 'address', address: '2001:db8::2' },
  { kind: 'address', address: '203.0.113.9' },
];

/** Clusters of three namespaces with a few pods and policies. */
export const anyCluster: fc.Arbitrary<RawCluster> = fc
  .record({
    namespaces: fc.record({ n0: labels, n1: labels }),
    policies: fc.array(fc.record({ namespace, name: fc.constantFrom('p', 'q', 'r'), spec }), {
      maxLength: 6,
    }),
    pods: fc.array(podEnd, { minLength: 4, maxLength: 8 }),
  })
  .map(({ namespaces, policies, pods }) => ({ namespaces, policies, ends: [...pods, ...otherEnds] }));
