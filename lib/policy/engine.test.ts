import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import type { Actor, LabelSelector, PolicyDocument, PortSpec, Rule, Ruleset } from '../../schemas/policy.ts';
import { parseAddress, parseCidr } from '../net/address.ts';
import { emptyPolicy, PolicyEngine, reasonCodeOf, ruleOf, type Selectable, verdictCodeOf } from './engine.ts';

interface End {
  readonly is: Selectable;
  readonly ip: string;
}

const now = Date.UTC(2026, 0, 1);

/** Obviously right: reads the documents anew for every flow, with none of the engine's tables. */
function reference(
  policy: PolicyDocument,
  source: End,
  destination: End,
  port: number,
  protocol: number,
): string {
  const selected = (selector: LabelSelector, { is }: End): boolean =>
    Object.entries(selector).every(([key, wanted]) => {
      const own: Record<string, string> = {
        ...is.labels,
        kind: is.kind,
        cluster: is.cluster,
        namespace: is.namespace,
        name: is.name,
      };
      return own[key] !== undefined && [wanted].flat().some((value) => value === own[key]);
    });
  const inBlock = (text: string, ip: string): boolean => {
    const cidr = parseCidr(text)!;
    const length = cidr.prefix - 96;
    const bits = (address: string): string =>
      [...parseAddress(address)!.subarray(12)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    return bits(ip).startsWith(bits(text.split('/')[0]!).slice(0, length));
  };
  const inList = (cidrs: readonly string[], ip: string): boolean => {
    const around = cidrs
      .map((text, order) => ({ out: text.startsWith('!'), text: text.replace('!', ''), order }))
      .filter(({ text }) => inBlock(text, ip))
      .sort((a, b) => parseCidr(a.text)!.prefix - parseCidr(b.text)!.prefix || a.order - b.order);
    return around.length > 0 && !around.at(-1)!.out;
  };
  const acts = (actor: Actor, end: End): boolean => {
    if ('any' in actor) return true;
    if ('labels' in actor) return selected(actor.labels, end);
    if ('cidr' in actor) return [actor.cidr].flat().some((text) => inList([text], end.ip));
    if ('dns' in actor) return false;
    return inList(policy.ipLists.find(({ name }) => name === actor.ipList)!.cidrs ?? [], end.ip);
  };
  const carries = (spec: PortSpec): boolean => {
    const numbers: Record<string, number> = { tcp: 6, udp: 17, sctp: 132, icmp: 1, icmpv6: 58 };
    const wanted = spec.protocol ?? 'tcp';
    if (wanted !== 'any' && numbers[wanted] !== protocol) return false;
    if (spec.port === undefined) return true;
    if (wanted === 'any' && (protocol === 1 || protocol === 58)) return false;
    const [low, high] =
      typeof spec.port === 'number' ? [spec.port, spec.port] : spec.port.split('-').map(Number);
    return port >= low! && port <= high!;
  };
  let pair = false;
  const hits: string[] = [];
  let anyScope = false;
  for (const ruleset of policy.rulesets) {
    if (ruleset.enabled === false) continue;
    const inScope = (end: End): boolean =>
      ruleset.scope === undefined || ruleset.scope.some((selector) => selected(selector, end));
    if (!inScope(source) && !inScope(destination)) continue;
    anyScope = true;
    for (const rule of ruleset.rules) {
      if (rule.enabled === false || (rule.expires !== undefined && Date.parse(rule.expires) <= now)) continue;
      if (
        !rule.from.some((actor) => acts(actor, source)) ||
        !rule.to.some((actor) => acts(actor, destination))
      )
        continue;
      pair = true;
      const specs = (rule.services ?? [{ protocol: 'any' } as PortSpec]).flatMap((ref) =>
        typeof ref === 'string' ? policy.services.find(({ name }) => name === ref)!.ports : [ref],
      );
      if (specs.some(carries)) hits.push(rule.action ?? 'allow');
    }
  }
  if (hits.includes('override-deny')) return 'denied/rule';
  if (hits.includes('allow')) return 'allowed/rule';
  if (hits.includes('deny')) return 'denied/rule';
  if (source.is.kind === 'unknown') return 'unexplained/unknown-source';
  if (destination.is.kind === 'unknown') return 'unexplained/unknown-destination';
  if (pair) return 'unexplained/port-not-covered';
  return anyScope ? 'unexplained/no-rule' : 'unexplained/outside-scope';
}

const app = fc.constantFrom('a', 'b', 'c');
const env = fc.constantFrom('prod', 'dev');
const selector: fc.Arbitrary<LabelSelector> = fc.oneof(
  app.map((value) => ({ app: value })),
  fc.tuple(app, env).map(([a, e]) => ({ app: [a, 'b'], env: e })),
  fc.constantFrom<LabelSelector>(
    { kind: 'pod' },
    { cluster: 'east' },
    { missing: 'x' },
    { namespace: ['n1', 'n2'] },
  ),
);
const cidr = fc.constantFrom(
  '10.0.0.0/8',
  '10.1.0.0/16',
  '10.1.1.0/24',
  '0.0.0.0/0',
  '192.168.0.0/16',
  '10.1.1.7',
);
const actor: fc.Arbitrary<Actor> = fc.oneof(
  selector.map((labels) => ({ labels })),
  cidr.map((text) => ({ cidr: text })),
  fc.constantFrom<Actor>({ ipList: 'one' }, { ipList: 'two' }, { any: true }),
);
const portSpec: fc.Arbitrary<PortSpec> = fc.constantFrom<PortSpec>(
  { port: 443 },
  { port: '80-443', protocol: 'tcp' },
  { port: 53, protocol: 'udp' },
  { protocol: 'icmp' },
  { protocol: 'any' },
  { port: 443, protocol: 'any' },
);
const ruleOfArbitrary: fc.Arbitrary<Omit<Rule, 'name'>> = fc.record(
  {
    from: fc.array(actor, { minLength: 1, maxLength: 2 }),
    to: fc.array(actor, { minLength: 1, maxLength: 2 }),
    services: fc.array(fc.oneof(portSpec, fc.constantFrom('web', 'dns')), { minLength: 1, maxLength: 2 }),
    action: fc.constantFrom('allow' as const, 'deny' as const, 'override-deny' as const),
    enabled: fc.boolean(),
    expires: fc.constantFrom('2025-01-01', '2027-01-01'),
  },
  { requiredKeys: ['from', 'to'] },
);
const rulesetOf: fc.Arbitrary<Omit<Ruleset, 'name'>> = fc.record(
  {
    scope: fc.array(selector, { maxLength: 2 }),
    enabled: fc.boolean(),
    rules: fc
      .array(ruleOfArbitrary, { maxLength: 6 })
      .map((rules) => rules.map((rule, i) => ({ ...rule, name: `r${i}` }))),
  },
  { requiredKeys: ['rules'] },
);
const policyOf: fc.Arbitrary<PolicyDocument> = fc.array(rulesetOf, { maxLength: 5 }).chain((rulesets) =>
  fc
    .record({
      one: fc.array(fc.tuple(fc.boolean(), cidr), { maxLength: 4 }),
      two: fc.array(cidr, { maxLength: 2 }),
    })
    .map(({ one, two }) => ({
      ...emptyPolicy,
      version: 1,
      ipLists: [
        { name: 'one', cidrs: one.map(([out, text]) => (out ? `!${text}` : text)) },
        { name: 'two', cidrs: two },
      ],
      services: [
        { name: 'web', ports: [{ port: 80 }, { port: 443 }] },
        { name: 'dns', ports: [{ port: 53, protocol: 'udp' as const }, { port: 53 }] },
      ],
      rulesets: rulesets.map((ruleset, i) => ({ ...ruleset, name: `s${i}` })),
    })),
);
const end: fc.Arbitrary<End> = fc.record({
  ip: fc.constantFrom('10.1.1.7', '10.1.2.2', '10.9.9.9', '8.8.8.8', '192.168.3.3'),
  is: fc.record({
    kind: fc.constantFrom('pod', 'vm', 'unknown', 'range'),
    cluster: fc.constantFrom('east', ''),
    namespace: fc.constantFrom('n1', 'n3'),
    name: fc.constant(''),
    labels: fc.record({ app, env }, { requiredKeys: [] }),
  }),
});

test('compiled rules give what reading the documents gives, with and without the memo', () => {
  let explained = 0;
  fc.assert(
    fc.property(
      policyOf,
      fc.array(fc.tuple(end, end, fc.constantFrom(443, 80, 53, 0, 8080), fc.constantFrom(6, 17, 1)), {
        minLength: 1,
        maxLength: 12,
      }),
      (policy, flows) => {
        const engine = new PolicyEngine(policy, now);
        const identities: Selectable[] = flows.flatMap(([a, b]) => [a.is, b.is]);
        for (const pass of ['miss', 'hit']) {
          flows.forEach(([source, destination, port, protocol], i) => {
            const packed = engine.verdict(
              identities,
              2 * i,
              engine.blockSet(parseAddress(source.ip)!, 0),
              2 * i + 1,
              engine.blockSet(parseAddress(destination.ip)!, 0),
              port,
              protocol,
            );
            const verdict = verdicts[verdictCodeOf(packed)];
            const reason = reasons[reasonCodeOf(packed)];
            assert.equal(
              `${verdict}/${reason}`,
              reference(policy, source, destination, port, protocol),
              pass,
            );
            if (reason !== 'rule') assert.equal(ruleOf(packed), -1);
            else {
              explained++;
              const action = engine.rules[ruleOf(packed)]?.action ?? '';
              assert.equal(action === 'allow' ? 'allowed' : 'denied', verdict);
            }
          });
        }
      },
    ),
    { numRuns: 2000 },
  );
  assert.ok(explained > 1000, `only ${explained} flows were explained: the test sees too little`);
});

test('a verdict names the rule that gave it', () => {
  const policy: PolicyDocument = {
    ...emptyPolicy,
    version: 7,
    rulesets: [
      { name: 'x', rules: [{ name: 'all', from: [{ any: true }], to: [{ any: true }], action: 'deny' }] },
      {
        name: 'y',
        rules: [
          { name: 'web', from: [{ any: true }], to: [{ labels: { app: 'web' } }], services: [{ port: 80 }] },
        ],
      },
    ],
  };
  const engine = new PolicyEngine(policy, now);
  const ends: Selectable[] = [
    { kind: 'pod', cluster: '', namespace: '', name: '', labels: {} },
    { kind: 'pod', cluster: '', namespace: '', name: '', labels: { app: 'web' } },
  ];
  const rule = (port: number) => {
    const { ruleset, rule } = engine.rules[ruleOf(engine.verdict(ends, 0, 0, 1, 0, port, 6))]!;
    return `${ruleset.name}/${rule.name}`;
  };
  assert.equal(rule(80), 'y/web');
  assert.equal(rule(81), 'x/all');
  assert.equal(engine.version, 7);
});

test('the engine says when the next rule expires', () => {
  const rules: Rule[] = ['2025-06-01', '2026-06-01', '2027-06-01'].map((expires) => ({
    name: expires,
    from: [{ any: true as const }],
    to: [{ any: true as const }],
    expires,
  }));
  const engine = new PolicyEngine({ ...emptyPolicy, rulesets: [{ name: 's', rules }] }, now);
  assert.equal(engine.rules.length, 2);
  assert.equal(engine.nextExpiryMs, Date.parse('2026-06-01'));
});

test('the memo stays within its bound and keeps answering right', () => {
  const policy: PolicyDocument = {
    ...emptyPolicy,
    rulesets: [
      {
        name: 's',
        rules: [{ name: 'even', from: [{ any: true }], to: [{ any: true }], services: [{ port: '0-999' }] }],
      },
    ],
  };
  const engine = new PolicyEngine(policy, now);
  const ends: Selectable[] = Array.from({ length: 40 }, () => ({
    kind: 'pod',
    cluster: '',
    namespace: '',
    name: '',
    labels: {},
  }));
  for (let i = 0; i < 1_300_000; i++) {
    const port = i % 65536;
    const packed = engine.verdict(ends, Math.floor(i / 65536), 0, 1, 0, port, 6);
    if ((verdictCodeOf(packed) === 1) !== port <= 999) assert.fail(`port ${port}`);
  }
  assert.equal(engine.memoResetCount, 1);
});
