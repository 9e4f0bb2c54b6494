/**
 * The JSON Schema (and types) of a hosts file: VMs, bare-metal hosts, named address ranges and DNS names in YAML
 * or JSON, read by kubelink; a CSV file has the keys of a host as its columns. `docs/inventory.md` shows one.
 */
import Type, { type Static } from 'typebox';

const closed = { additionalProperties: false };
const labels = Type.Record(Type.String({ minLength: 1 }), Type.String());
export const network = Type.String({
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

/** A host name, or `*.` and a host name; compared in any case, a dot at the end does not matter. */
export const dnsNamePattern =
  '^(\\*\\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\\.?$';

export const NameEntry = Type.Object(
  {
    name: Type.String({
      minLength: 1,
      maxLength: 253,
      description: 'What people call it: payment-provider.',
    }),
    dns: Type.Array(
      Type.String({
        maxLength: 254,
        pattern: dnsNamePattern,
        description: 'A DNS name; `*.example.com` stands for every name below example.com.',
      }),
      { minItems: 1, maxItems: 1024 },
    ),
    zone: Type.Optional(
      Type.Union([Type.Literal('inside'), Type.Literal('outside')], {
        description: 'Whether it belongs to the estate. Absent: `outside`.',
      }),
    ),
    labels: Type.Optional(labels),
    resolve: Type.Optional(
      Type.Boolean({
        description:
          'Look up the addresses of its names (those without `*`) regularly, and take flows to them as flows to it. Absent: false.',
      }),
    ),
  },
  closed,
);

/** A whole hosts file. Entries are checked one by one, so that a bad one does not stop the others. */
export const HostsFile = Type.Object(
  {
    network: Type.Optional(network),
    hosts: Type.Optional(Type.Array(HostEntry)),
    ranges: Type.Optional(Type.Array(RangeEntry)),
    names: Type.Optional(Type.Array(NameEntry)),
  },
  closed,
);

export type HostAddress = Static<typeof HostAddress>;
export type HostEntry = Static<typeof HostEntry>;
export type RangeEntry = Static<typeof RangeEntry>;
export type NameEntry = Static<typeof NameEntry>;
export type HostsFile = Static<typeof HostsFile>;
