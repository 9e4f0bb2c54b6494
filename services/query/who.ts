/** Who had one address at one moment, as far as it is known: owners by network, and how sure that is. */
import Type, { type Static } from 'typebox';
import { addressText, isoMsOrNull, setLabels } from './answers.ts';

const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

export const Workload = Type.Object({
  id: Type.String(),
  kind: Type.String({ description: 'pod, node, vm, host or service.' }),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  node: Type.String(),
  uid: Type.String(),
  identity: Type.String(),
  network: Type.String(),
  address: nullable('Its address; null for a pod without one of its own.'),
  labels: Type.Record(Type.String(), Type.String(), { description: 'Those of this time.' }),
  from: nullable('Since when it has the address with these labels.'),
  to: nullable('Until when; null while it has both.'),
  current: Type.Boolean(),
});
export type Workload = Static<typeof Workload>;

export const whoCertainties = ['exact', 'grace', 'ambiguous', 'none'] as const;

const Range = Type.Object({
  network: Type.String(),
  name: Type.String(),
  cidr: Type.String(),
  zone: Type.String({ description: 'inside or outside of the estate.' }),
  labels: Type.Record(Type.String(), Type.String()),
});

export const Who = Type.Object(
  {
    address: Type.String(),
    at: Type.String({ description: 'The moment, ISO 8601.' }),
    toleranceMs: Type.Integer({ description: 'How far clocks may be off: `query.toleranceMs`.' }),
    settled: Type.Union([Type.Boolean(), Type.Null()], {
      description:
        'Whether every source of inventory that speaks vouches for that moment; null where none ever vouched.',
    }),
    networks: Type.Array(
      Type.Object({
        network: Type.String(),
        certainty: Type.Enum([...whoCertainties], {
          description:
            'exact: one had it, and nobody else within the tolerance. grace: one had it within the tolerance only. ambiguous: several had it within the tolerance. none: nobody.',
        }),
        owners: Type.Array(Workload, { description: 'The likeliest first.' }),
        candidates: Type.Array(Workload, {
          description: 'Where a node has the address: pods on it that share its network and may be meant.',
        }),
        before: Type.Union([Workload, Type.Null()], { description: 'Where nobody had it: the last before.' }),
        after: Type.Union([Workload, Type.Null()], { description: 'Where nobody had it: the first after.' }),
      }),
      { description: 'Each network in which the address was ever seen.' },
    ),
    ranges: Type.Array(Range, { description: 'The narrowest range of each network, as ranges are now.' }),
  },
  { description: 'Who had the address at that moment; in answers to one `ip` and `at`.' },
);
export type Who = Static<typeof Who>;

export interface WorkloadRow {
  readonly workload_id: string;
  readonly workload_kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly uid: string;
  readonly identity_id: string;
  readonly network: string;
  readonly address: string;
  readonly from_ms: string;
  readonly to_ms: string;
  readonly is_current: number;
  readonly src_labels: Readonly<Record<string, string>>;
}

export type WhoRow = WorkloadRow & {
  readonly part: 'near' | 'before' | 'after';
  readonly holds: number;
};

export interface RangeRow {
  readonly network: string;
  readonly name: string;
  readonly zone: string;
  readonly first_address: string;
  readonly prefix: number;
  readonly src_labels: Readonly<Record<string, string>>;
}

export function workloadOf(row: WorkloadRow): Workload {
  return {
    id: row.workload_id,
    kind: row.workload_kind,
    cluster: row.cluster,
    namespace: row.namespace,
    name: row.name,
    node: row.node,
    uid: row.uid,
    identity: row.identity_id,
    network: row.network,
    address: addressText(row.address),
    labels: setLabels(row.src_labels),
    from: isoMsOrNull(row.from_ms),
    to: row.is_current === 1 ? null : isoMsOrNull(row.to_ms),
    current: row.is_current === 1,
  };
}

/** How far, ms, an interval is from a moment that it may or may not hold. */
function distance(row: WhoRow, atMs: number): number {
  if (row.holds === 1) return 0;
  return Math.min(Math.abs(Number(row.from_ms) - atMs), Math.abs(Number(row.to_ms) - atMs));
}

/** One row for each claimant, the likeliest first: who held the moment, of these who came last; then the nearest. */
function claimants(rows: readonly WhoRow[], atMs: number): WhoRow[] {
  const order = rows
    .filter(({ part }) => part === 'near')
    .toSorted((a, b) => distance(a, atMs) - distance(b, atMs) || Number(b.from_ms) - Number(a.from_ms));
  const known = new Set<string>();
  return order.filter(({ workload_id }) => {
    if (known.has(workload_id)) return false;
    known.add(workload_id);
    return true;
  });
}

function certaintyOf(owners: readonly WhoRow[]): (typeof whoCertainties)[number] {
  if (owners.length === 0) return 'none';
  if (owners.length > 1) return 'ambiguous';
  return owners[0]?.holds === 1 ? 'exact' : 'grace';
}

export type NetworkOwners = Who['networks'][number];

/** Owners by network, without the pods behind nodes. */
export function ownersOf(rows: readonly WhoRow[], atMs: number): NetworkOwners[] {
  return [...Map.groupBy(rows, ({ network }) => network)].map(([network, some]) => {
    const owners = claimants(some, atMs);
    const besides = (part: WhoRow['part']): Workload | null => {
      const row = some.find((one) => one.part === part);
      return row === undefined || owners.length > 0 ? null : workloadOf(row);
    };
    return {
      network,
      certainty: certaintyOf(owners),
      owners: owners.map(workloadOf),
      candidates: [],
      before: besides('before'),
      after: besides('after'),
    };
  });
}

export function rangeOf(row: RangeRow): Static<typeof Range> {
  const first = addressText(row.first_address) ?? '::';
  const isIpv4 = row.first_address.startsWith('::ffff:') && row.prefix >= 96;
  return {
    network: row.network,
    name: row.name,
    cidr: `${isIpv4 ? first : row.first_address}/${isIpv4 ? row.prefix - 96 : row.prefix}`,
    zone: row.zone,
    labels: setLabels(row.src_labels),
  };
}
