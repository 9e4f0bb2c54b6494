/**
 * The JSON Schema (and type) of an inventory event. Times are ms since the epoch; `untilMs` absent means 'still'.
 * The message header `source` names who published an event, and with it whose watermark vouches for it.
 */
import Type, { type Static } from 'typebox';

const timeMs = Type.Integer({ minimum: 0 });
const labels = Type.Record(Type.String(), Type.String());
const common = { v: Type.Literal(1) };

/** The routed network that VMs, bare metal and nodes live in, and every address space that is not a pod network. */
export const defaultNetwork = 'default';

export const AddressInterval = Type.Object(
  {
    ip: Type.String({ description: 'IPv4 or IPv6 address in text.' }),
    network: Type.String({
      description: 'Address space: the cluster name for a pod network, `default` for the routed one.',
    }),
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
    certainFromMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        description:
          'From then on nobody else had it for sure; between sinceMs and then somebody who was never seen may have. Absent: since sinceMs.',
      }),
    ),
  },
  { additionalProperties: false },
);

/** Most former sets of labels that one event carries; of more the oldest are left out. */
export const maxFormerLabels = 16;

export const FormerLabels = Type.Object(
  {
    untilMs: timeMs,
    knownToMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        description:
          'Until when it is known to have had these; from then to untilMs it may have had others. Absent: until untilMs.',
      }),
    ),
    labels,
    annotations: labels,
  },
  { additionalProperties: false },
);
const former = Type.Optional(
  Type.Array(FormerLabels, {
    maxItems: maxFormerLabels,
    description:
      'Labels and annotations it had before, oldest first, each with the moment it was given others. Flows that began earlier keep them.',
  }),
);

export const WorkloadKind = Type.Union([
  Type.Literal('pod'),
  Type.Literal('node'),
  Type.Literal('vm'),
  Type.Literal('host'),
]);

export const WorkloadEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('workload'),
    kind: WorkloadKind,
    cluster: Type.String({ description: 'Empty for a VM or a bare-metal host.' }),
    uid: Type.String({ minLength: 1 }),
    name: Type.String({ minLength: 1 }),
    namespace: Type.String({ description: 'Kubernetes namespace; for a VM or host its group, or empty.' }),
    node: Type.String({ description: 'Node a pod runs on, or empty.' }),
    hostNetwork: Type.Boolean({
      description: "A pod that shares its node's addresses: it owns none of its own.",
    }),
    labels,
    annotations: labels,
    addresses: Type.Array(AddressInterval, {
      description: 'Every address it has or had, each with its time.',
    }),
    ports: Type.Optional(
      Type.Array(Type.Object({ name: Type.String(), port: Type.Integer(), protocol: Type.String() }), {
        description: 'Ports of its containers that have a name. Absent: none.',
      }),
    ),
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
    former,
  },
  { additionalProperties: false },
);

export const NamespaceEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('namespace'),
    cluster: Type.String(),
    name: Type.String({ minLength: 1 }),
    labels,
    annotations: labels,
    former,
  },
  { additionalProperties: false },
);

export const ServiceEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('service'),
    cluster: Type.String(),
    uid: Type.String({ minLength: 1 }),
    name: Type.String({ minLength: 1 }),
    namespace: Type.String(),
    labels,
    annotations: labels,
    selector: labels,
    addresses: Type.Array(AddressInterval, {
      description: 'ClusterIPs, external and load-balancer addresses.',
    }),
    ports: Type.Array(
      Type.Object({
        port: Type.Integer({ minimum: 1, maximum: 65535 }),
        protocol: Type.String(),
        name: Type.String(),
        nodePort: Type.Optional(Type.Integer()),
        targetPort: Type.Optional(
          Type.Union([Type.Integer(), Type.String()], {
            description: 'Port of its pods, or the name of one. Absent: the same as port.',
          }),
        ),
      }),
    ),
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
    former,
  },
  { additionalProperties: false },
);

export const RangeEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('range'),
    name: Type.String({
      minLength: 1,
      description: 'What people call it: data-centre, partner-acme, internet.',
    }),
    network: Type.String(),
    cidrs: Type.Array(Type.String(), { description: 'Longest prefix wins between ranges.' }),
    zone: Type.Union([Type.Literal('inside'), Type.Literal('outside')], {
      description: 'Whether it belongs to the estate.',
    }),
    labels,
  },
  { additionalProperties: false },
);

export const ClusterEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('cluster'),
    cluster: Type.String({ minLength: 1 }),
    podCidrs: Type.Array(Type.String(), {
      description:
        'The pod address ranges: an address in one of these is a pod, known or not, and never looked for elsewhere.',
    }),
    serviceCidrs: Type.Array(Type.String()),
    uid: Type.Optional(
      Type.String({
        description:
          'What tells this cluster from another of the same name: uid of its namespace kube-system. Absent where unknown.',
      }),
    ),
  },
  { additionalProperties: false },
);

export const NameEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('name'),
    name: Type.String({ minLength: 1, description: 'What people call it: payment-provider.' }),
    dns: Type.Array(Type.String({ minLength: 1 }), {
      description:
        'DNS names; `*.example.com` stands for every name below example.com. A flow whose agent saw such a name goes to it.',
    }),
    zone: Type.Union([Type.Literal('inside'), Type.Literal('outside')]),
    labels,
    addresses: Type.Array(AddressInterval, {
      description: 'Addresses that the names were found to have, each with its time.',
    }),
  },
  { additionalProperties: false },
);

export const NetworkPolicyEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('network-policy'),
    cluster: Type.String({ minLength: 1 }),
    uid: Type.String({ minLength: 1 }),
    namespace: Type.String({ minLength: 1 }),
    name: Type.String({ minLength: 1 }),
    labels,
    spec: Type.Unknown({ description: 'spec of the networking.k8s.io/v1 NetworkPolicy.' }),
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
  },
  { additionalProperties: false },
);

export const WatermarkEvent = Type.Object(
  {
    ...common,
    type: Type.Literal('watermark'),
    source: Type.String({ minLength: 1, description: 'The source that vouches, as in the header `source`.' }),
    completeToMs: Type.Integer({
      minimum: 0,
      description:
        'Every change of what this source owns that took effect at or before this moment is on the topic already.',
    }),
  },
  { additionalProperties: false },
);

export const InventoryEvent = Type.Union([
  WorkloadEvent,
  NamespaceEvent,
  ServiceEvent,
  RangeEvent,
  ClusterEvent,
  NameEvent,
  NetworkPolicyEvent,
  WatermarkEvent,
]);

export type AddressInterval = Static<typeof AddressInterval>;
export type WorkloadKind = Static<typeof WorkloadKind>;
export type WorkloadEvent = Static<typeof WorkloadEvent>;
export type NamespaceEvent = Static<typeof NamespaceEvent>;
export type ServiceEvent = Static<typeof ServiceEvent>;
export type RangeEvent = Static<typeof RangeEvent>;
export type ClusterEvent = Static<typeof ClusterEvent>;
export type FormerLabels = Static<typeof FormerLabels>;
export type NameEvent = Static<typeof NameEvent>;
export type NetworkPolicyEvent = Static<typeof NetworkPolicyEvent>;
export type WatermarkEvent = Static<typeof WatermarkEvent>;
export type InventoryEvent = Static<typeof InventoryEvent>;
