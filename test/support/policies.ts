/** Generated policies, and flows that lie close to what they say: few words, so that rules, ends and ports often meet. */
import fc from 'fast-check';
import type { ReferenceEnd, ReferenceFlow } from '../../lib/policy/reference.ts';
import type {
  Actor,
  Boundary,
  IpList,
  LabelGroup,
  LabelSelector,
  PolicyDocument,
  PortSpec,
  Rule,
  Ruleset,
  SelectorValue,
  Service,
} from '../../schemas/policy.ts';

/** The time of all generated flows: between the times at which rules expire. */
export const flowTimeMs = Date.UTC(2026, 5, 15, 12);

const pick = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
const few = <T>(arbitrary: fc.Arbitrary<T>, min = 1, max = 3): fc.Arbitrary<T[]> =>
  fc.array(arbitrary, { minLength: min, maxLength: max });

const labelValues = { app: ['a', 'b', 'c'], env: ['prod', 'uat', 'dev'], loc: ['lon', 'fra'] } as const;
type Key = keyof typeof labelValues;
const key = pick<Key>('app', 'env', 'env', 'loc');

/** Groups within groups, one of them in a circle, which the check would refuse. */
const labelGroups = fc
  .record({ test: few(pick('uat', 'dev'), 0), other: few(pick('prod', 'dev', 'qa'), 0), both: fc.boolean() })
  .map(({ test, other, both }): LabelGroup[] => [
    { name: 'testing', key: 'env', values: test },
    { name: 'wider', key: 'env', values: other, groups: ['testing', ...(both ? ['circle'] : [])] },
    { name: 'circle', key: 'env', values: ['prod'], groups: ['circle', 'wider'] },
  ]);

function wantedOf(of: Key): fc.Arbitrary<SelectorValue> {
  const value = pick<string>(...labelValues[of]);
  const plain: fc.Arbitrary<string | string[] | { group: string }> =
    of === 'env'
      ? fc.oneof(value, few(value), pick({ group: 'testing' }, { group: 'wider' }, { group: 'circle' }))
      : fc.oneof(value, few(value));
  return fc.oneof(
    { weight: 3, arbitrary: plain },
    { weight: 1, arbitrary: plain.map((not): SelectorValue => ({ not })) },
  );
}

const selector: fc.Arbitrary<LabelSelector> = fc.oneof(
  { weight: 5, arbitrary: key.chain((one) => wantedOf(one).map((wanted) => ({ [one]: wanted }))) },
  {
    weight: 2,
    arbitrary: fc.tuple(wantedOf('app'), wantedOf('env')).map(([app, env]) => ({ app, env })),
  },
  {
    weight: 2,
    arbitrary: pick<LabelSelector>(
      { kind: 'pod' },
      { kind: ['vm', 'unknown'] },
      { kind: { not: 'pod' } },
      { cluster: 'east' },
      { namespace: { not: ['n1', 'n2'] } },
      { name: 'api.acme.com' },
      { missing: 'x' },
      { missing: { not: 'x' }, app: 'a' },
    ),
  },
);

/** Blocks that nest, in both families, and single addresses. */
const blocks = [
  '0.0.0.0/0',
  '10.0.0.0/8',
  '10.1.0.0/16',
  '10.1.1.0/24',
  '10.1.1.7',
  '10.1.1.8/31',
  '203.0.113.0/24',
  '::/0',
  '2001:db8::/32',
  '2001:db8:0:1::/64',
  '2001:db8:0:1::7',
  '::ffff:10.1.0.0/112',
] as const;
const addresses = [
  '10.1.1.7',
  '10.1.1.8',
  '10.1.1.9',
  '10.1.1.10',
  '10.1.255.255',
  '10.9.9.9',
  '203.0.113.1',
  '8.8.8.8',
  '2001:db8:0:1::7',
  '2001:db8:0:1::8',
  '2001:db8:0:2::7',
  '2001:dead::1',
] as const;
const dnsNames = [
  'api.acme.com',
  'API.acme.com.',
  '*.acme.com',
  'acme.com',
  '*.eu.acme.com',
  'badacme.com',
  '*.com',
] as const;

const ipLists = fc
  .record({
    one: few(fc.tuple(fc.boolean(), pick(...blocks)), 0, 6),
    two: few(fc.tuple(pick(false, false, true), pick(...blocks)), 0, 3),
    names: few(pick(...dnsNames), 0, 2),
  })
  .map(({ one, two, names }): IpList[] => {
    const text = ([isExcluded, block]: [boolean, string]): string => (isExcluded ? `!${block}` : block);
    return [
      { name: 'one', cidrs: one.map(text) },
      { name: 'two', cidrs: two.map(text), names },
      { name: 'named', names },
    ];
  });

const actor: fc.Arbitrary<Actor> = fc.oneof(
  { weight: 6, arbitrary: selector.map((labels) => ({ labels })) },
  { weight: 2, arbitrary: fc.oneof(pick(...blocks), few(pick(...blocks))).map((cidr) => ({ cidr })) },
  { weight: 2, arbitrary: pick('one', 'two', 'named').map((ipList) => ({ ipList })) },
  { weight: 2, arbitrary: fc.oneof(pick(...dnsNames), few(pick(...dnsNames))).map((dns) => ({ dns })) },
  { weight: 2, arbitrary: fc.constant({ any: true as const }) },
);

const portSpec: fc.Arbitrary<PortSpec> = pick<PortSpec>(
  { port: 443 },
  { port: '80-443' },
  { port: '0-65535', protocol: 'any' },
  { port: 53, protocol: 'udp' },
  { port: '443-444', protocol: 'any' },
  { protocol: 'sctp' },
  { protocol: 'icmp' },
  { protocol: 'icmp', icmpType: 8 },
  { protocol: 'icmp', icmpType: 3, icmpCode: 1 },
  { protocol: 'icmpv6', icmpType: 128 },
  { protocol: 'any' },
  { port: 443, process: 'nginx' },
  { port: '80-443', process: 'ng*' },
  { protocol: 'any', process: '*x' },
  { port: 5432, process: 'post*es' },
  { protocol: 'udp', process: '*' },
);
const services = fc.record({ web: few(portSpec), dns: few(portSpec) }).map(({ web, dns }): Service[] => [
  { name: 'web', ports: web },
  { name: 'dns', ports: dns },
]);
const serviceRefs = few(fc.oneof(portSpec, pick('web', 'dns')), 1, 2);

const ruleParts = fc.record(
  {
    from: few(actor, 1, 2),
    to: few(actor, 1, 2),
    services: serviceRefs,
    action: pick('allow' as const, 'deny' as const, 'override-deny' as const),
    scope: pick('intra' as const, 'extra' as const),
    enabled: pick(true, true, true, false),
    expires: pick(
      '2026-06-15',
      '2026-06-16',
      '2026-06-15T12:00:00Z',
      '2026-06-15T14:00:01+02:00',
      '2027-01-01',
    ),
  },
  { requiredKeys: ['from', 'to'] },
);

/** Rules, some of them once more with another action, or as a boundary: which of them decides is what must agree. */
const rules: fc.Arbitrary<Rule[]> = few(fc.tuple(ruleParts, fc.nat(7)), 0, 5).map((list) =>
  list.flatMap(([parts, twice], i): Rule[] => {
    const rule: Rule = { ...parts, name: `r${i}` };
    if (twice > 2) return [rule];
    const action = (['allow', 'deny', 'override-deny'] as const)[twice];
    return [rule, { ...rule, name: `r${i}-again`, ...(action === undefined ? {} : { action }) }];
  }),
);

const ruleset = fc.record(
  { scope: few(selector, 0, 3), enabled: pick(true, true, true, false), rules },
  { requiredKeys: ['rules'] },
);

const boundaries: fc.Arbitrary<Boundary[]> = few(
  fc.record(
    { from: few(actor, 1, 2), to: few(actor, 1, 2), services: serviceRefs, enabled: pick(true, true, false) },
    { requiredKeys: ['from', 'to'] },
  ),
  0,
  2,
).map((list) => list.map((parts, i) => ({ ...parts, name: `b${i}` })));

export const policies: fc.Arbitrary<PolicyDocument> = fc
  .record({ labelGroups, ipLists, services, boundaries, rulesets: few(ruleset, 0, 5) })
  .map(({ rulesets, ...rest }) => ({
    v: 1,
    version: 1,
    author: 'nobody',
    appliedMs: 0,
    labels: [],
    profiles: [],
    ...rest,
    rulesets: rulesets.map((one, i): Ruleset => ({ ...one, name: `s${i}` })),
  }));

const labels = fc.record(
  { app: pick('a', 'b', 'c', 'z'), env: pick('prod', 'uat', 'dev', 'qa'), loc: pick('lon', 'fra') },
  { requiredKeys: [] },
);
const workload: fc.Arbitrary<ReferenceEnd> = fc.record({
  kind: pick('pod', 'pod', 'vm', 'range', 'service'),
  cluster: pick('east', ''),
  namespace: pick('n1', 'n3', ''),
  name: pick('', '', 'api.acme.com'),
  labels,
  address: pick(...addresses),
});
const nobody = { cluster: '', namespace: '', labels: {} };

export const ends: fc.Arbitrary<ReferenceEnd> = fc.oneof(
  { weight: 6, arbitrary: workload },
  {
    weight: 1,
    arbitrary: pick(...addresses).map((address) => ({ ...nobody, kind: 'unknown', name: '', address })),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(pick(...dnsNames, 'x.acme.com', 'x.eu.acme.com'), pick(...addresses))
      .map(([name, address]) => ({ ...nobody, kind: 'name', name, address })),
  },
);

const service = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ port: pick(0, 53, 80, 443, 444, 5432), protocol: pick(6, 6, 6, 17, 132) }),
  },
  {
    weight: 2,
    // ICMP echo (and its last code), destination unreachable (two codes), echo of ICMPv6; 443 is a type and code too.
    arbitrary: fc.record({
      port: pick(0, 8 * 256, 8 * 256 + 255, 3 * 256 + 1, 3 * 256 + 2, 128 * 256, 443),
      protocol: pick(1, 58),
    }),
  },
  { weight: 1, arbitrary: fc.record({ port: pick(0, 443), protocol: pick(47, 0, 255) }) },
);

/** Flows among a few ends, so that pairs come again on other ports and by other processes. */
export function flowsAmong(count: number): fc.Arbitrary<ReferenceFlow[]> {
  const process = pick('', '', 'nginx', 'ngx', 'x', 'postgres', 'post.es');
  return fc
    .tuple(
      fc.array(ends, { minLength: 8, maxLength: 8 }),
      fc.array(fc.tuple(fc.nat(7), fc.nat(7), service, process), { minLength: count, maxLength: count }),
    )
    .map(([among, list]) =>
      list.flatMap(([from, to, { port, protocol }, process]) => {
        const source = among[from];
        const destination = among[to];
        return source === undefined || destination === undefined
          ? []
          : [{ source, destination, port, protocol, process }];
      }),
    );
}
