/** The compiled NetworkPolicy engine against the literal semantics, on generated clusters and on cases that are hard. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NetworkPolicyEngine } from '../lib/networkpolicy/engine.ts';
import type { PolicyProtocol } from '../lib/networkpolicy/model.ts';
import { hasPlace, portPlace } from '../lib/networkpolicy/port-set.ts';
import { readPolicySpec, wayText } from '../lib/networkpolicy/read.ts';
import {
  anyCluster,
  type RawCluster,
  type RawEnd,
  readCluster,
  referenceAllows,
  type Spec,
  toEnd,
} from './support/networkpolicy.ts';

const protocols: readonly (PolicyProtocol | null)[] = ['TCP', 'UDP', 'SCTP', null];
const ports = [1, 79, 80, 81, 82, 443, 444, 65535];

test('the compiled engine says of every pair, port and protocol what the literal semantics say', () => {
  let connections = 0;
  let refused = 0;
  fc.assert(
    fc.property(anyCluster, (cluster) => {
      const engine = new NetworkPolicyEngine(readCluster(cluster));
      const ends = cluster.ends.map((raw) => ({ raw, end: toEnd(raw) }));
      for (const source of ends) {
        for (const destination of ends) {
          const set = engine.ports(source.end, destination.end);
          for (const protocol of protocols) {
            for (const port of protocol === null ? [0] : ports) {
              const wanted = referenceAllows(cluster, source.raw, destination.raw, port, protocol ?? 'ICMP');
              const found = engine.allows(source.end, destination.end, port, protocol);
              connections++;
              if (!wanted) refused++;
              if (wanted === found && hasPlace(set, portPlace(protocol, port)) === wanted) continue;
              assert.fail(
                JSON.stringify({ source: source.raw, destination: destination.raw, port, protocol, wanted }),
              );
            }
          }
          const [one] = ports;
          const explained = [
            engine.explain('egress', source.end, destination.end, one ?? 0, 'TCP'),
            engine.explain('ingress', source.end, destination.end, one ?? 0, 'TCP'),
          ].every(({ allowed }) => allowed);
          assert.equal(explained, engine.allows(source.end, destination.end, one ?? 0, 'TCP'));
        }
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(connections > 300_000 && refused > connections / 10, `${refused} of ${connections} were refused`);
});

/** A pod of the cases below; its labels are the words of its name. */
function pod(namespace: string, name: string, more: Partial<NonNullable<RawEnd['pod']>> = {}): RawEnd {
  const labels = { app: name };
  const full = {
    namespace,
    name,
    labels,
    node: `node-of-${name}`,
    hostNetwork: false,
    namedPorts: [],
    ...more,
  };
  return { kind: 'pod', pod: full, address: `10.0.${namespace.length}.${name.length}` };
}

const web = pod('shop', 'web', { namedPorts: [{ name: 'http', port: 8080, protocol: 'TCP' }] });
const database = pod('shop', 'database');
const prober = pod('monitoring', 'prober');
const agent = pod('monitoring', 'agent', { hostNetwork: true, node: 'node-of-web' });
const outside: RawEnd = { kind: 'address', address: '198.51.100.7' };
const outside6: RawEnd = { kind: 'address', address: '2001:db8::7' };
const nodeOfWeb: RawEnd = { kind: 'node', node: 'node-of-web', address: '192.168.0.1' };
const otherNode: RawEnd = { kind: 'node', node: 'node-of-prober', address: '192.168.0.2' };
const namespaces = { shop: { team: 'a' }, monitoring: { team: 'b' } };

const isApp = (app: string) => ({ matchLabels: { app } });
const byName = (name: string) => ({ matchLabels: { 'kubernetes.io/metadata.name': name } });
const denyAll: Spec = { podSelector: {}, policyTypes: ['Ingress', 'Egress'] };

type Asked = readonly [source: RawEnd, destination: RawEnd, port: number, protocol: PolicyProtocol | null];
interface Case {
  /** What Kubernetes defines, in our words. */
  readonly rule: string;
  readonly policies: readonly (Spec & { readonly in?: string })[];
  readonly allows?: readonly Asked[];
  readonly forbids?: readonly Asked[];
}

const cases: readonly Case[] = [
  {
    rule: 'a pod that no policy selects is open both ways',
    policies: [{ podSelector: isApp('nobody') }],
    allows: [
      [prober, web, 80, 'TCP'],
      [web, outside, 53, 'UDP'],
      [outside, web, 1, 'SCTP'],
      [prober, web, 0, null],
    ],
  },
  {
    rule: 'a policy selects pods of its own namespace only',
    policies: [{ ...denyAll, in: 'monitoring' }],
    allows: [
      [outside, web, 80, 'TCP'],
      [web, database, 80, 'TCP'],
    ],
    forbids: [
      [web, prober, 80, 'TCP'],
      [prober, web, 80, 'TCP'],
    ],
  },
  {
    rule: 'without policyTypes and without egress rules, a policy isolates for ingress alone',
    policies: [{ podSelector: isApp('web'), ingress: [] }],
    allows: [[web, database, 80, 'TCP']],
    forbids: [[database, web, 80, 'TCP']],
  },
  {
    rule: 'without policyTypes an empty list of egress rules counts as none: egress stays open',
    policies: [{ podSelector: isApp('web'), egress: [] }],
    allows: [[web, database, 80, 'TCP']],
    forbids: [[database, web, 80, 'TCP']],
  },
  {
    rule: 'without policyTypes an egress rule isolates for egress too, and for ingress as ever',
    policies: [{ podSelector: isApp('web'), egress: [{ to: [{ podSelector: isApp('database') }] }] }],
    allows: [[web, database, 80, 'TCP']],
    forbids: [
      [web, prober, 80, 'TCP'],
      [database, web, 80, 'TCP'],
    ],
  },
  {
    rule: 'rules of a direction that policyTypes leaves out are not looked at',
    policies: [{ podSelector: isApp('web'), policyTypes: ['Egress'], ingress: [], egress: [{}] }],
    allows: [
      [outside, web, 80, 'TCP'],
      [web, outside, 80, 'TCP'],
    ],
  },
  {
    rule: 'an empty rule lets everything through, protocols without ports too',
    policies: [{ podSelector: isApp('web'), ingress: [{}] }],
    allows: [
      [outside, web, 80, 'TCP'],
      [outside6, web, 9, 'SCTP'],
      [prober, web, 0, null],
    ],
  },
  {
    rule: 'an empty list of peers is every peer, an empty list of ports every port',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [
          { from: [], ports: [{ port: 80 }] },
          { from: [{ podSelector: isApp('database') }], ports: [] },
        ],
      },
    ],
    allows: [
      [outside, web, 80, 'TCP'],
      [database, web, 9, 'UDP'],
    ],
    forbids: [[outside, web, 81, 'TCP']],
  },
  {
    rule: 'policies add up: what one allows, no other takes away',
    policies: [denyAll, { podSelector: isApp('web'), ingress: [{ ports: [{ port: 80 }] }] }],
    allows: [[prober, web, 80, 'TCP']],
    forbids: [[prober, database, 80, 'TCP']],
  },
  {
    rule: 'egress of the source and ingress of the destination are both needed',
    policies: [
      denyAll,
      { podSelector: isApp('web'), policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {} }] }] },
    ],
    forbids: [[web, database, 80, 'TCP']],
  },
  {
    rule: 'a podSelector alone means pods of the namespace of the policy',
    policies: [{ podSelector: isApp('web'), ingress: [{ from: [{ podSelector: {} }] }] }],
    allows: [[database, web, 80, 'TCP']],
    forbids: [
      [prober, web, 80, 'TCP'],
      [outside, web, 80, 'TCP'],
    ],
  },
  {
    rule: 'a namespaceSelector alone means all pods of these namespaces, and an empty one of all',
    policies: [{ podSelector: isApp('web'), ingress: [{ from: [{ namespaceSelector: {} }] }] }],
    allows: [
      [prober, web, 80, 'TCP'],
      [database, web, 80, 'TCP'],
    ],
    forbids: [[outside, web, 80, 'TCP']],
  },
  {
    rule: 'both selectors in one peer must both hold',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [{ from: [{ namespaceSelector: byName('monitoring'), podSelector: isApp('database') }] }],
      },
    ],
    forbids: [
      [prober, web, 80, 'TCP'],
      [database, web, 80, 'TCP'],
    ],
  },
  {
    rule: 'both selectors in two peers: either is enough',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [
          { from: [{ namespaceSelector: byName('monitoring') }, { podSelector: isApp('database') }] },
        ],
      },
    ],
    allows: [
      [prober, web, 80, 'TCP'],
      [database, web, 80, 'TCP'],
    ],
  },
  {
    rule: 'every namespace has its name as a label, whatever its manifest says',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [
          {
            from: [
              {
                namespaceSelector: {
                  matchExpressions: [
                    { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['monitoring'] },
                  ],
                },
              },
            ],
          },
        ],
      },
    ],
    allows: [[database, web, 80, 'TCP']],
    forbids: [[prober, web, 80, 'TCP']],
  },
  {
    rule: 'NotIn and DoesNotExist hold where the label is absent, In and Exists do not',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [
          {
            from: [
              {
                podSelector: {
                  matchExpressions: [
                    { key: 'tier', operator: 'NotIn', values: ['a'] },
                    { key: 'zone', operator: 'DoesNotExist' },
                  ],
                },
              },
            ],
          },
        ],
      },
      {
        podSelector: isApp('database'),
        ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'tier', operator: 'Exists' }] } }] }],
      },
    ],
    allows: [[database, web, 80, 'TCP']],
    forbids: [[web, database, 80, 'TCP']],
  },
  {
    rule: 'the exceptions of an ipBlock are not in it, but another peer may still hold them',
    policies: [
      {
        podSelector: isApp('web'),
        ingress: [{ from: [{ ipBlock: { cidr: '198.51.100.0/24', except: ['198.51.100.0/28'] } }] }],
      },
      {
        podSelector: isApp('database'),
        ingress: [
          {
            from: [
              { ipBlock: { cidr: '198.51.100.0/24', except: ['198.51.100.0/28'] } },
              { ipBlock: { cidr: '198.51.100.7/32' } },
            ],
          },
        ],
      },
    ],
    allows: [[outside, database, 80, 'TCP']],
    forbids: [[outside, web, 80, 'TCP']],
  },
  {
    rule: 'a block of one family holds no address of the other',
    policies: [
      { podSelector: isApp('web'), ingress: [{ from: [{ ipBlock: { cidr: '::/0' } }] }] },
      { podSelector: isApp('database'), ingress: [{ from: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }] },
    ],
    allows: [
      [outside6, web, 80, 'TCP'],
      [outside, database, 80, 'TCP'],
    ],
    forbids: [
      [outside, web, 80, 'TCP'],
      [outside6, database, 80, 'TCP'],
    ],
  },
  {
    rule: 'a named port is that of the destination pod, for ingress',
    policies: [{ podSelector: {}, ingress: [{ ports: [{ port: 'http' }] }] }],
    allows: [[prober, web, 8080, 'TCP']],
    forbids: [
      [prober, web, 80, 'TCP'],
      [prober, web, 8080, 'UDP'],
      [prober, database, 8080, 'TCP'],
    ],
  },
  {
    rule: 'a named port is that of the destination pod, for egress; an address has none',
    policies: [
      { in: 'monitoring', podSelector: {}, policyTypes: ['Egress'], egress: [{ ports: [{ port: 'http' }] }] },
    ],
    allows: [[prober, web, 8080, 'TCP']],
    forbids: [
      [prober, database, 8080, 'TCP'],
      [prober, outside, 8080, 'TCP'],
    ],
  },
  {
    rule: 'a port without protocol is TCP, a protocol without port all of its ports, endPort belongs to the range',
    policies: [
      { podSelector: isApp('web'), ingress: [{ ports: [{ port: 80, endPort: 82 }, { protocol: 'UDP' }] }] },
    ],
    allows: [
      [prober, web, 80, 'TCP'],
      [prober, web, 82, 'TCP'],
      [prober, web, 1, 'UDP'],
      [prober, web, 65535, 'UDP'],
    ],
    forbids: [
      [prober, web, 83, 'TCP'],
      [prober, web, 80, 'SCTP'],
      [prober, web, 0, null],
    ],
  },
  {
    rule: 'a pod can not be kept from itself, but from another pod with the same labels',
    policies: [denyAll],
    allows: [[web, web, 80, 'TCP']],
    forbids: [[pod('shop', 'web'), web, 80, 'TCP']],
  },
  {
    rule: 'a pod and its own node always reach each other, other nodes are addresses like any',
    policies: [denyAll],
    allows: [
      [nodeOfWeb, web, 80, 'TCP'],
      [web, nodeOfWeb, 80, 'TCP'],
    ],
    forbids: [
      [otherNode, web, 80, 'TCP'],
      [web, otherNode, 80, 'TCP'],
    ],
  },
  {
    rule: 'a pod on the network of its node is the node: not selected, matched by ipBlocks alone, always heard by pods of that node',
    policies: [
      { ...denyAll, in: 'monitoring' },
      denyAll,
      { podSelector: isApp('database'), ingress: [{ from: [{ namespaceSelector: {} }] }] },
    ],
    allows: [
      [agent, outside, 80, 'TCP'],
      [agent, web, 80, 'TCP'],
    ],
    forbids: [[agent, database, 80, 'TCP']],
  },
];

describe('what Kubernetes defines', () => {
  for (const { rule, policies, allows = [], forbids = [] } of cases) {
    test(rule, () => {
      const raw: RawCluster = {
        namespaces,
        policies: policies.map(({ in: namespace = 'shop', ...spec }, i) => ({
          namespace,
          name: `p${i}`,
          spec,
        })),
        ends: [],
      };
      const engine = new NetworkPolicyEngine(readCluster(raw));
      for (const [asked, wanted] of [
        [allows, true],
        [forbids, false],
      ] as const) {
        for (const [source, destination, port, protocol] of asked) {
          const words = `${source.pod?.name ?? source.address} -> ${destination.pod?.name ?? destination.address} ${protocol} ${port}`;
          const found = engine.allows(toEnd(source), toEnd(destination), port, protocol);
          assert.equal(found, wanted, words);
          const literal = referenceAllows(raw, source, destination, port, protocol ?? 'ICMP');
          assert.equal(literal, wanted, `reference: ${words}`);
        }
      }
    });
  }
});

describe('a spec that is wrong is told where', () => {
  const wrong: readonly [what: string, spec: unknown, ...messages: string[]][] = [
    ['no table', [], ': must be a table, not []'],
    ['a misspelt key', { podselector: {} }, 'podselector: is not known here; did you mean podSelector?'],
    ['a selector that is a text', { podSelector: 'web' }, 'podSelector: must be a table, not "web"'],
    [
      'labels that are a list',
      { podSelector: { matchLabels: ['a'] } },
      'podSelector.matchLabels: must be a table of texts, not ["a"]',
    ],
    [
      'a label that is no text',
      { podSelector: { matchLabels: { a: 1 } } },
      'podSelector.matchLabels.a: must be a text, not 1',
    ],
    [
      'a key that can be none',
      { podSelector: { matchLabels: { 'a b': 'c' } } },
      'podSelector.matchLabels.a b: "a b" can be no key of a label',
    ],
    [
      'a value that can be none',
      { podSelector: { matchLabels: { a: 'b c' } } },
      'podSelector.matchLabels.a: "b c" can be no value of a label',
    ],
    [
      'an operator',
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'Is', values: ['b'] }] } },
      'podSelector.matchExpressions[0].operator: must be one of In, NotIn, Exists, DoesNotExist, not "Is"',
    ],
    [
      'In without values',
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
      'podSelector.matchExpressions[0].values: must name a value at least, for operator In',
    ],
    [
      'Exists with values',
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['b'] }] } },
      'podSelector.matchExpressions[0].values: must be left out, for operator Exists',
    ],
    ['policyTypes', { policyTypes: ['ingress'] }, 'policyTypes[0]: must be Ingress or Egress, not "ingress"'],
    [
      'policyTypes thrice',
      { policyTypes: ['Ingress', 'Egress', 'Ingress'] },
      'policyTypes: must name Ingress and Egress at most once',
    ],
    ['rules that are no list', { ingress: {} }, 'ingress: must be a list, not {}'],
    [
      'to in an ingress rule',
      { ingress: [{ to: [] }] },
      'ingress[0].to: is not known here; there are from, ports',
    ],
    [
      'an empty peer',
      { ingress: [{ from: [{}] }] },
      'ingress[0].from[0]: must have podSelector, namespaceSelector or ipBlock',
    ],
    [
      'a block beside a selector',
      { ingress: [{ from: [{ podSelector: {}, ipBlock: { cidr: '10.0.0.0/8' } }] }] },
      'ingress[0].from[0]: ipBlock stands alone: put podSelector and namespaceSelector in another entry',
    ],
    [
      'an address that is no CIDR',
      { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.1' } }] }] },
      'egress[0].to[0].ipBlock.cidr: "10.0.0.1" is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32',
    ],
    [
      'an exception outside',
      { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }] }] },
      'egress[0].to[0].ipBlock.except[0]: 11.0.0.0/16 must lie inside 10.0.0.0/8 and be smaller',
    ],
    [
      'an exception of everything',
      { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/8'] } }] }] },
      'egress[0].to[0].ipBlock.except[0]: 10.0.0.0/8 must lie inside 10.0.0.0/8 and be smaller',
    ],
    [
      'a protocol',
      { ingress: [{ ports: [{ protocol: 'ICMP' }] }] },
      'ingress[0].ports[0].protocol: must be one of TCP, UDP, SCTP, not "ICMP"',
    ],
    [
      'a port too high',
      { ingress: [{ ports: [{ port: 65536 }] }] },
      'ingress[0].ports[0].port: must be a number from 1 to 65535 or the name of a port, not 65536',
    ],
    [
      'a number in quotes',
      { ingress: [{ ports: [{ port: '80' }] }] },
      'ingress[0].ports[0].port: "80" can be no name of a port (and a number must not stand in quotes)',
    ],
    [
      'endPort without port',
      { ingress: [{ ports: [{ endPort: 80 }] }] },
      'ingress[0].ports[0].endPort: needs a port to begin with',
    ],
    [
      'endPort of a name',
      { ingress: [{ ports: [{ port: 'http', endPort: 80 }] }] },
      'ingress[0].ports[0].endPort: needs a number as port, not a name',
    ],
    [
      'endPort below',
      { ingress: [{ ports: [{ port: 80, endPort: 79 }] }] },
      'ingress[0].ports[0].endPort: must not be below port 80',
    ],
    [
      'endPort too high',
      { ingress: [{ ports: [{ port: 80, endPort: 70000 }] }] },
      'ingress[0].ports[0].endPort: must be a number from 1 to 65535, not 70000',
    ],
  ];
  for (const [what, spec, ...messages] of wrong) {
    test(what, () => {
      const read = readPolicySpec('shop', 'p', spec);
      assert.ok(!read.ok);
      assert.deepEqual(
        read.problems.map(({ way, message }) => `${wayText(way)}: ${message}`),
        messages,
      );
    });
  }
});
