/**
 * The JSON Schema (and types) of policy documents. A policy is a folder of YAML files; each file may hold any of
 * these top-level keys, and all files together are one policy, checked and applied as a whole.
 */
import Type, { type Static } from 'typebox';

const name = Type.String({ minLength: 1, maxLength: 128, pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$' });
const text = Type.String({ maxLength: 2048 });
const closed = { additionalProperties: false };

/** Label selector: every key must match; a list of values means any of them. Keys include `cluster`, `namespace`, `kind`. */
export const LabelSelector = Type.Record(
  Type.String({ minLength: 1 }),
  Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1 })]),
  {
    minProperties: 1,
    description: 'Labels that must all match, for example { app: payments, env: [prod, uat] }.',
  },
);

/** One end of a rule: workloads by labels, addresses by a named ip-list or literal CIDRs, or anything. */
export const Actor = Type.Union([
  Type.Object({ labels: LabelSelector }, closed),
  Type.Object({ ipList: name }, closed),
  Type.Object({ cidr: Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1 })]) }, closed),
  Type.Object({ any: Type.Literal(true) }, closed),
]);

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
        { default: 'tcp' },
      ),
    ),
  },
  closed,
);

/** What a rule's `services` may list: the name of a service, or ports in place. */
export const ServiceRef = Type.Union([name, PortSpec]);

export const RuleAction = Type.Union([
  Type.Literal('allow'),
  Type.Literal('deny'),
  Type.Literal('override-deny'),
]);

export const Rule = Type.Object(
  {
    name,
    from: Type.Array(Actor, { minItems: 1 }),
    to: Type.Array(Actor, { minItems: 1 }),
    services: Type.Optional(
      Type.Array(ServiceRef, { minItems: 1, description: 'Absent: every port and protocol.' }),
    ),
    action: Type.Optional(RuleAction),
    enabled: Type.Optional(Type.Boolean()),
    owner: Type.Optional(text),
    ticket: Type.Optional(text),
    expires: Type.Optional(
      Type.String({ description: 'ISO date or time; from then on the rule explains nothing.' }),
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
          'What the ruleset speaks of; a rule needs its destination or its source in scope. Absent: everything.',
      }),
    ),
    owner: Type.Optional(text),
    description: Type.Optional(text),
    enabled: Type.Optional(Type.Boolean()),
    rules: Type.Array(Rule),
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
          ),
        ),
      },
      closed,
    ),
    assign: Type.Optional(Type.Record(Type.String(), Type.String(), { description: 'Fixed labels.' })),
    map: Type.Optional(
      Type.Array(
        Type.Object(
          {
            key: Type.String({ minLength: 1 }),
            from: Type.Union([
              Type.Object({ label: Type.String() }, closed),
              Type.Object({ namespaceLabel: Type.String() }, closed),
              Type.Object({ annotation: Type.String() }, closed),
            ]),
            values: Type.Optional(Type.Record(Type.String(), Type.String())),
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

export const IpList = Type.Object(
  {
    name,
    cidrs: Type.Array(Type.String(), { description: 'CIDRs or addresses; a leading ! leaves it out.' }),
    description: Type.Optional(text),
  },
  closed,
);

export const Service = Type.Object({ name, ports: Type.Array(PortSpec, { minItems: 1 }) }, closed);

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
    labels: Type.Optional(Type.Array(LabelKey)),
    profiles: Type.Optional(Type.Array(Profile)),
    ipLists: Type.Optional(Type.Array(IpList)),
    services: Type.Optional(Type.Array(Service)),
    rulesets: Type.Optional(Type.Array(Ruleset)),
  },
  closed,
);

export type LabelSelector = Static<typeof LabelSelector>;
export type Actor = Static<typeof Actor>;
export type PortSpec = Static<typeof PortSpec>;
export type ServiceRef = Static<typeof ServiceRef>;
export type RuleAction = Static<typeof RuleAction>;
export type Rule = Static<typeof Rule>;
export type Ruleset = Static<typeof Ruleset>;
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
  readonly profiles: readonly Profile[];
  readonly ipLists: readonly IpList[];
  readonly services: readonly Service[];
  readonly rulesets: readonly Ruleset[];
}
