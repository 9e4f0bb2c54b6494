/** The JSON Schema (and type) of an inventory event. Times are ms since the epoch; `untilMs` absent means 'still'. */
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
  },
  { additionalProperties: false },
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
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
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
      }),
    ),
    sinceMs: timeMs,
    untilMs: Type.Optional(timeMs),
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
  },
  { additionalProperties: false },
);

export const InventoryEvent = Type.Union([
  WorkloadEvent,
  NamespaceEvent,
  ServiceEvent,
  RangeEvent,
  ClusterEvent,
]);

export type AddressInterval = Static<typeof AddressInterval>;
export type WorkloadKind = Static<typeof WorkloadKind>;
export type WorkloadEvent = Static<typeof WorkloadEvent>;
export type NamespaceEvent = Static<typeof NamespaceEvent>;
export type ServiceEvent = Static<typeof ServiceEvent>;
export type RangeEvent = Static<typeof RangeEvent>;
export type ClusterEvent = Static<typeof ClusterEvent>;
export type InventoryEvent = Static<typeof InventoryEvent>;
