/**
 * The JSON Schema (and types) of a hosts file: VMs, bare-metal hosts and named address ranges in YAML or JSON,
 * read by kubelink. `docs/inventory.md` shows one.
 */
import Type, { type Static } from 'typebox';

const closed = { additionalProperties: false };
const labels = Type.Record(Type.String({ minLength: 1 }), Type.String());
const network = Type.String({
  minLength: 1,
  description: 'Address space the addresses are unique in; `default` is the routed one.',
});

export const HostAddress = Type.Union(
  [
    Type.String({ description: 'IPv4 or IPv6 address, in the network of the host.' }),
    Type.Object({ ip: Type.String(), network: Type.Optional(network) }, closed),
  ],
  { description: 'An address, or an address with a network of its own.' },
);

export const HostEntry = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 253, description: 'Name people know it by.' }),
    id: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 253,
        description:
          'Stays the same when the host is renamed or moved, and is unique in the estate. Absent: the name.',
      }),
    ),
    kind: Type.Optional(
      Type.Union([Type.Literal('vm'), Type.Literal('host')], {
        description: '`vm` for a virtual machine, `host` for bare metal. Absent: `vm`.',
      }),
    ),
    group: Type.Optional(
      Type.String({ description: 'What a namespace is to a pod: profiles match it. Absent: none.' }),
    ),
    network: Type.Optional(network),
    addresses: Type.Array(HostAddress, { maxItems: 1024 }),
    labels: Type.Optional(labels),
    annotations: Type.Optional(labels),
    since: Type.Optional(
      Type.String({
        description:
          'ISO 8601 time from which it has its addresses. Absent: always, for a host that stands in the list when the list is first read; the time of the change, for one that is added later.',
      }),
    ),
  },
  closed,
);

export const RangeEntry = Type.Object(
  {
    name: Type.String({
      minLength: 1,
      maxLength: 253,
      description: 'What people call it: data-centre, partner-acme.',
    }),
    network: Type.Optional(network),
    cidrs: Type.Array(Type.String(), {
      minItems: 1,
      description:
        'Blocks such as 10.0.0.0/8 or 2001:db8::/32, or single addresses. The longest prefix wins between ranges.',
    }),
    zone: Type.Union([Type.Literal('inside'), Type.Literal('outside')], {
      description: 'Whether it belongs to the estate.',
    }),
    labels: Type.Optional(labels),
  },
  closed,
);

/** A whole hosts file. Entries are checked one by one, so that a bad one does not stop the others. */
export const HostsFile = Type.Object(
  {
    network: Type.Optional(network),
    hosts: Type.Optional(Type.Array(HostEntry)),
    ranges: Type.Optional(Type.Array(RangeEntry)),
  },
  closed,
);

export type HostAddress = Static<typeof HostAddress>;
export type HostEntry = Static<typeof HostEntry>;
export type RangeEntry = Static<typeof RangeEntry>;
export type HostsFile = Static<typeof HostsFile>;
