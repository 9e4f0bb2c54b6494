/**
 * The JSON Schema (and types) of policy documents. A policy is a folder of YAML files; each file may hold any of
 * these top-level keys, and all files together are one policy, checked and applied as a whole.
 */
import Type, { type Static } from 'typebox';

const name = Type.String({
  minLength: 1,
  maxLength: 128,
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$',
  description: 'Letters, digits, dots, dashes and underscores; a letter or digit first.',
});
const text = Type.String({ maxLength: 2048, description: 'For people; it changes nothing.' });
const closed = { additionalProperties: false };

const values = Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1 })], {
  description: 'A value, or a list of which any will do.',
});
const group = Type.Object(
  { group: Type.String({ minLength: 1, description: 'Name of a label group (`labelGroups`) of this key.' }) },
  { ...closed, description: 'Any value of a label group.' },
);

/** What a selector may ask of one label. */
export const SelectorValue = Type.Union(
  [
    Type.String(),
    Type.Array(Type.String(), { minItems: 1 }),
    group,
    Type.Object(
      {
        not: Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1 }), group], {
          description: 'A value, a list, or a group.',
        }),
      },
      { ...closed, description: 'Anything but these values; also where the label is absent.' },
    ),
  ],
  {
    description:
      'prod, [prod, uat], { group: nonprod }, or { not: prod }, which also matches where the label is absent.',
  },
);

/** Label selector: every key must match. Keys include `cluster`, `namespace`, `kind` and `name`. */
export const LabelSelector = Type.Record(Type.String({ minLength: 1 }), SelectorValue, {
  minProperties: 1,
  description:
    'Labels that must all match, for example { app: payments, env: [prod, uat] }. Besides labels: cluster, namespace, kind, name.',
});

const dnsName = Type.String({
  minLength: 1,
  maxLength: 253,
  description: 'A DNS name, or *.example.com for every name below example.com.',
});

/** One end of a rule: workloads by labels, addresses by a named ip-list or literal CIDRs, DNS names, or anything. */
export const Actor = Type.Union(
  [
    Type.Object({ labels: LabelSelector }, { ...closed, description: 'Workloads by their labels.' }),
    Type.Object(
      { ipList: Type.String({ minLength: 1, description: 'Name of an ip-list (`ipLists`).' }) },
      { ...closed, description: 'What a named ip-list holds.' },
    ),
    Type.Object(
      { cidr: values },
      { ...closed, description: 'Addresses in place: 10.1.0.0/16, 2001:db8::/32, 203.0.113.7.' },
    ),
    Type.Object(
      {
        dns: Type.Union([dnsName, Type.Array(dnsName, { minItems: 1 })], {
          description: 'DNS names, or *.example.com for every name below example.com.',
        }),
      },
      { ...closed, description: 'Ends that were asked for by these DNS names.' },
    ),
    Type.Object(
      { any: Type.Literal(true, { description: 'Write true.' }) },
      { ...closed, description: 'Every end, known or not.' },
    ),
  ],
  { description: 'One of: labels, ipList, cidr, dns, any.' },
);

export const PortSpec = Type.Object(
  {
    port: Type.Optional(
      Type.Union(
        [Type.Integer({ minimum: 0, maximum: 65535 }), Type.String({ pattern: '^\\d{1,5}-\\d{1,5}$' })],
        {
          description: 'A port, or a range such as 8000-8080. Absent: all ports.',
        },
      ),
    ),
    protocol: Type.Optional(
      Type.Union(
        [
          Type.Literal('tcp'),
          Type.Literal('udp'),
          Type.Literal('sctp'),
          Type.Literal('icmp'),
          Type.Literal('icmpv6'),
          Type.Literal('any'),
        ],
        { default: 'tcp', description: 'tcp when absent; any is every protocol.' },
      ),
    ),
    icmpType: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 255,
        description: 'ICMP type, for protocol icmp and icmpv6. Absent: all.',
      }),
    ),
    icmpCode: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 255, description: 'ICMP code, beside icmpType. Absent: all.' }),
    ),
    process: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 256,
        description:
          "Name of the process on the reporter's side; * stands for any text. Flows that report no process don't match.",
      }),
    ),
  },
  { ...closed, description: 'Ports in place, for example { port: 443 } or { protocol: icmp, icmpType: 8 }.' },
);

/** What a rule's `services` may list: the name of a service, or ports in place. */
export const ServiceRef = Type.Union([
  Type.String({ minLength: 1, description: 'Name of a service (`services`).' }),
  PortSpec,
]);

const serviceRefs = Type.Array(ServiceRef, {
  minItems: 1,
  description: 'Names of services, or ports in place. Absent: every port and protocol.',
});
const from = Type.Array(Actor, { minItems: 1, description: 'Sources: one of them must match.' });
const to = Type.Array(Actor, { minItems: 1, description: 'Destinations: one of them must match.' });
const owner = Type.String({ maxLength: 2048, description: 'Who answers for it.' });
const ticket = Type.String({ maxLength: 2048, description: 'Where it was asked for and approved.' });
const enabled = Type.Boolean({ description: 'False: as if it were not there. True when absent.' });

export const RuleAction = Type.Union(
  [Type.Literal('allow'), Type.Literal('deny'), Type.Literal('override-deny')],
  { default: 'allow', description: 'override-deny beats allow, which beats deny. allow when absent.' },
);

export const RuleScope = Type.Union([Type.Literal('intra'), Type.Literal('extra')], {
  description:
    'intra: both ends in one and the same entry of the scope. extra: the destination in scope, the source anywhere. Absent: either end in scope.',
});

export const Rule = Type.Object(
  {
    name,
    from,
    to,
    services: Type.Optional(serviceRefs),
    action: Type.Optional(RuleAction),
    scope: Type.Optional(RuleScope),
    enabled: Type.Optional(enabled),
    owner: Type.Optional(owner),
    ticket: Type.Optional(ticket),
    expires: Type.Optional(
      Type.String({ description: 'ISO date or time (UTC); from then on the rule explains nothing.' }),
    ),
    description: Type.Optional(text),
  },
  closed,
);

export const Ruleset = Type.Object(
  {
    name,
    scope: Type.Optional(
      Type.Array(LabelSelector, {
        description:
          'What the ruleset speaks of; a rule needs its destination or its source in scope (see its own scope). Absent: everything.',
      }),
    ),
    owner: Type.Optional(owner),
    description: Type.Optional(text),
    enabled: Type.Optional(enabled),
    rules: Type.Array(Rule, { description: 'The order of rules means nothing: actions decide.' }),
  },
  closed,
);

/** What boundaries have in place of the name of a ruleset, in verdicts and ids. */
export const boundariesName = 'boundaries';

/** A line nothing may cross unless a rule allows it: decides with `deny`, and names itself in verdicts. */
export const Boundary = Type.Object(
  {
    name,
    from,
    to,
    services: Type.Optional(serviceRefs),
    description: Type.Optional(text),
    owner: Type.Optional(owner),
    ticket: Type.Optional(ticket),
    enabled: Type.Optional(enabled),
  },
  closed,
);

/** Values of one label key under one name, for selectors. */
export const LabelGroup = Type.Object(
  {
    name,
    key: Type.String({ minLength: 1, description: 'The label key whose values these are.' }),
    values: Type.Array(Type.String(), { description: 'Values of the key that belong to the group.' }),
    groups: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        description: 'Other groups of the same key whose values belong to it too.',
      }),
    ),
    description: Type.Optional(text),
  },
  closed,
);

/** Gives labels to the workloads of namespaces, VM groups, or nodes. The first profile that matches is used. */
export const Profile = Type.Object(
  {
    name,
    match: Type.Object(
      {
        cluster: Type.Optional(Type.Array(Type.String(), { description: 'Patterns with * .' })),
        namespace: Type.Optional(
          Type.Array(Type.String(), { description: 'Patterns with *; for VMs and hosts the group.' }),
        ),
        kind: Type.Optional(
          Type.Array(
            Type.Union([
              Type.Literal('pod'),
              Type.Literal('node'),
              Type.Literal('vm'),
              Type.Literal('host'),
              Type.Literal('service'),
            ]),
            { description: 'Kinds of workloads. Absent: all of them.' },
          ),
        ),
      },
      { ...closed, description: 'What it gives labels to: all that is named must match.' },
    ),
    assign: Type.Optional(Type.Record(Type.String(), Type.String(), { description: 'Fixed labels.' })),
    map: Type.Optional(
      Type.Array(
        Type.Object(
          {
            key: Type.String({ minLength: 1, description: 'The label it gives.' }),
            from: Type.Union(
              [
                Type.Object(
                  { label: Type.String({ description: "Name of one of the workload's labels." }) },
                  closed,
                ),
                Type.Object(
                  { namespaceLabel: Type.String({ description: "Name of one of its namespace's labels." }) },
                  closed,
                ),
                Type.Object(
                  { annotation: Type.String({ description: 'Name of one of its annotations.' }) },
                  closed,
                ),
              ],
              { description: 'Where the value is taken from.' },
            ),
            values: Type.Optional(
              Type.Record(Type.String(), Type.String(), {
                description: 'What each value becomes; others give nothing. Absent: as it is.',
              }),
            ),
          },
          closed,
        ),
        { description: 'Labels taken from Kubernetes labels, optionally through a table of values.' },
      ),
    ),
    allow: Type.Optional(
      Type.Record(Type.String(), Type.Array(Type.String()), {
        description:
          'Keys that the annotation eastwest.io/<key> may set, and the values it may have ([] is any, or what `labels` lists).',
      }),
    ),
    default: Type.Optional(
      Type.Record(Type.String(), Type.String(), { description: 'For keys nothing else has set.' }),
    ),
    managed: Type.Optional(
      Type.Boolean({ description: 'False: what matches gets no labels at all. True when absent.' }),
    ),
  },
  closed,
);

/** Addresses and DNS names under one name. At least one of `cidrs` and `names` is there (the check says so). */
export const IpList = Type.Object(
  {
    name,
    cidrs: Type.Optional(
      Type.Array(Type.String(), {
        description: 'CIDRs or addresses; a leading ! leaves it out. The innermost block decides.',
      }),
    ),
    names: Type.Optional(
      Type.Array(dnsName, { description: 'DNS names; *.example.com is every name below example.com.' }),
    ),
    description: Type.Optional(text),
  },
  closed,
);

export const Service = Type.Object(
  {
    name,
    ports: Type.Array(PortSpec, { minItems: 1, description: 'Any of them.' }),
    description: Type.Optional(text),
  },
  closed,
);

export const LabelKey = Type.Object(
  {
    key: name,
    values: Type.Optional(
      Type.Array(Type.String(), { description: 'All values that profiles may give it. Absent: any.' }),
    ),
    description: Type.Optional(text),
  },
  closed,
);

/** One file of a policy folder. */
export const PolicyFile = Type.Object(
  {
    labels: Type.Optional(
      Type.Array(LabelKey, { description: 'Label keys there are, and the values some of them may have.' }),
    ),
    labelGroups: Type.Optional(
      Type.Array(LabelGroup, { description: 'Names for several values of a label key.' }),
    ),
    profiles: Type.Optional(
      Type.Array(Profile, { description: 'Labels for workloads. The first profile that matches is used.' }),
    ),
    ipLists: Type.Optional(Type.Array(IpList, { description: 'Names for addresses and DNS names outside.' })),
    services: Type.Optional(Type.Array(Service, { description: 'Names for ports.' })),
    rulesets: Type.Optional(
      Type.Array(Ruleset, { description: 'Rules, with the part of the estate they speak of.' }),
    ),
    boundaries: Type.Optional(
      Type.Array(Boundary, { description: 'Lines that nothing crosses unless a rule allows it.' }),
    ),
  },
  closed,
);

/** PolicyFile as plain JSON Schema, as it is published for editors in `policy.schema.json`. */
export function policyJsonSchema(): Record<string, unknown> {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Eastwest policy',
    description: 'One file of a policy folder: any of these keys; all files together are one policy.',
    ...JSON.parse(JSON.stringify(PolicyFile)),
  };
}

export type SelectorValue = Static<typeof SelectorValue>;
export type LabelSelector = Static<typeof LabelSelector>;
export type Actor = Static<typeof Actor>;
export type PortSpec = Static<typeof PortSpec>;
export type ServiceRef = Static<typeof ServiceRef>;
export type RuleAction = Static<typeof RuleAction>;
export type RuleScope = Static<typeof RuleScope>;
export type Rule = Static<typeof Rule>;
export type Ruleset = Static<typeof Ruleset>;
export type Boundary = Static<typeof Boundary>;
export type LabelGroup = Static<typeof LabelGroup>;
export type Profile = Static<typeof Profile>;
export type IpList = Static<typeof IpList>;
export type Service = Static<typeof Service>;
export type LabelKey = Static<typeof LabelKey>;
export type PolicyFile = Static<typeof PolicyFile>;

/** The policy as it travels on the topic `policy` (key `policy`). */
export interface PolicyDocument {
  readonly v: 1;
  /** Rises by one with each applied policy. */
  readonly version: number;
  readonly author: string;
  readonly appliedMs: number;
  readonly labels: readonly LabelKey[];
  /** Absent in policies from before there were any. */
  readonly labelGroups?: readonly LabelGroup[];
  readonly profiles: readonly Profile[];
  readonly ipLists: readonly IpList[];
  readonly services: readonly Service[];
  readonly rulesets: readonly Ruleset[];
  /** Absent in policies from before there were any. */
  readonly boundaries?: readonly Boundary[];
}
