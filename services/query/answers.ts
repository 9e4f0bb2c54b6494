/** What answers look like: schemas for OpenAPI, and how rows become them. */
import Type, { type Static } from 'typebox';
import {
  type Certainty,
  certainties,
  type Provenance,
  provenances,
  reasons,
  verdicts,
} from '../../schemas/closed-lists.ts';
import { directions, severities, type Window } from './filters.ts';
import { portWord } from './ports.ts';
import { protocolName } from './protocols.ts';
import { isoSeconds } from './time.ts';

const count = (description: string) => Type.Integer({ minimum: 0, description });
const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });
const nullableNumber = (description: string) => Type.Union([Type.Number(), Type.Null()], { description });

export const WindowAnswer = Type.Object(
  {
    since: Type.String({ description: 'Begin, ISO 8601, as it was answered.' }),
    until: nullable('End, exclusive; null while it is open.'),
  },
  { description: 'The window as it was answered: widened to whole minutes or hours where rollups answer.' },
);

export const Completeness = Type.Object(
  {
    agentsReporting: count('Agents that sent a batch shortly before the end of the window.'),
    agentsSilent: count('Agents that were known but sent nothing then, and whose node is still there.'),
    agentsSampling: count('Agents that looked at some flows only: sums are too small.'),
    nodesReporting: count('Nodes from which an agent reported then.'),
    nodesSilent: count('Nodes from which none did, also those of the inventory that never had one.'),
    batchesMissing: count('Batches that agents numbered but that never came.'),
    flowsDropped: count('Flows lost at the source or refused.'),
    sourcesSilent: count(
      'Sources of inventory that do not vouch for the end of the window: names may be missing or old.',
    ),
    freshestTo: nullable('Newest end of an observed interval that is queryable, ISO 8601.'),
    delayMsP99: nullableNumber('From the end of a flow to queryable, 99th percentile, milliseconds.'),
  },
  { description: 'What may be missing from this answer; batches are counted by when they were received.' },
);
export type Completeness = Static<typeof Completeness>;

export const End = Type.Object(
  {
    identity: Type.String({ description: 'Id of the identity (64-bit, as text).' }),
    kind: Type.String({ description: 'pod, node, vm, host, service, range, name or unknown.' }),
    cluster: Type.String(),
    namespace: Type.String(),
    name: Type.String({
      description: 'Name of the workload, service or range where one is known; empty otherwise.',
    }),
    workload: nullable('Name of a workload that was seen; null where none is known.'),
    address: nullable('Address; null where the edge stands for many.'),
    labels: Type.Record(Type.String(), Type.String()),
    provenance: Type.Union([Type.Enum([...provenances]), Type.Null()], {
      description: 'How it was named, in the newest report; null where that is no longer kept.',
    }),
    certainty: Type.Union([Type.Enum([...certainties]), Type.Null()], {
      description:
        'How sure that name is: of all reports of a connection the least sure, of an edge that of the newest. null where that is no longer kept.',
    }),
  },
  { description: 'One end of a connection.' },
);
export type End = Static<typeof End>;

const sums = {
  flows: count('Reports, of all sides.'),
  connections: count("Connections begun: the larger of the two sides' sums."),
  bytesForward: count('Bytes from source to destination, the larger of the sides.'),
  bytesReverse: count('Bytes from destination to source, the larger of the sides.'),
  packetsForward: count('Packets from source to destination, the larger of the sides.'),
  packetsReverse: count('Packets from destination to source, the larger of the sides.'),
  sides: Type.Array(Type.String(), { description: 'Which sides reported: source, destination, middle.' }),
  absent: Type.Array(
    Type.Object({
      side: Type.Enum(['source', 'destination']),
      agent: Type.Boolean({
        description:
          'Whether an agent reports from where that end runs; /api/v1/one-sided says if it should have seen it.',
      }),
    }),
    { description: 'Ends that did not report; empty where both did.' },
  ),
  pending: count(
    'Of the reports those that came before the inventory was complete: their names may still change.',
  ),
};

export const RuleName = Type.Union(
  [Type.Object({ id: Type.String(), ruleset: Type.String(), name: Type.String() }), Type.Null()],
  { description: 'The rule that speaks of it; null for none.' },
);

const edge = {
  source: End,
  destination: End,
  port: Type.Integer({ description: 'Destination port.' }),
  protocol: Type.String({ description: 'Name, or number as text.' }),
  verdict: Type.Enum([...verdicts]),
  reason: Type.Enum([...reasons]),
  rule: RuleName,
  direction: Type.Enum([...directions]),
  severity: Type.Enum([...severities]),
  dns: nullable('Name that the source asked for, if it was seen.'),
  explain: nullable('Path that says why it is unexplained, and what a rule would need; null for the rest.'),
  ...sums,
};

const seen = {
  firstSeen: nullable('First sight, ISO 8601.'),
  lastSeen: nullable('Last sight, ISO 8601.'),
};

export const Edge = Type.Object(edge);
export type Edge = Static<typeof Edge>;

export const Unknown = Type.Object({
  ...edge,
  ...seen,
  process: nullable('Process at the source, if it was seen.'),
});
export type Unknown = Static<typeof Unknown>;

export const Connection = Type.Object({
  ...edge,
  ...seen,
  process: nullable('Process at the source, if it was seen.'),
  serviceAddress: nullable('Destination before NAT, as address:port; null where there was none.'),
  dropped: count('Reports of the network having dropped it.'),
  ambiguous: count('Settled reports in which more than one workload may have had the address of an end.'),
  late: count('Settled reports in which the inventory never became complete: the name of an end is a guess.'),
  unnamed: count('Settled reports in which nobody is known to have had the address of an end.'),
});
export type Connection = Static<typeof Connection>;

/** What every list says beside its items. */
export const listFields = {
  total: count('Items in all, before paging.'),
  next: nullable('Cursor of the next page; null on the last.'),
  window: WindowAnswer,
};

export const tableField = {
  table: Type.String({
    description: 'Tables that answered: flows, edges_1m, edges_1h, or edges_1h+edges_1m.',
  }),
};

/** A row as `describedColumns` selects it. */
export interface DescribedRow {
  readonly src_identity_id: string;
  readonly dst_identity_id: string;
  readonly src_address: string;
  readonly dst_address: string;
  readonly port: number;
  readonly protocol_number: number;
  readonly verdict_name: (typeof verdicts)[number];
  readonly reason_name: (typeof reasons)[number];
  readonly rule_id: string;
  readonly ruleset_name?: string;
  readonly rule_name?: string;
  readonly src_kind: string;
  readonly src_cluster: string;
  readonly src_namespace: string;
  readonly src_name: string;
  readonly src_labels: Readonly<Record<string, string>>;
  readonly dst_kind: string;
  readonly dst_cluster: string;
  readonly dst_namespace: string;
  readonly dst_name: string;
  readonly dst_labels: Readonly<Record<string, string>>;
  readonly direction: (typeof directions)[number];
  readonly severity: number;
  readonly c_flows: string;
  readonly c_pending: string;
  readonly c_connections: string;
  readonly c_bytes_forward: string;
  readonly c_bytes_reverse: string;
  readonly c_packets_forward: string;
  readonly c_packets_reverse: string;
  readonly sides: readonly string[];
  readonly total: string;
}

/** IPv4 without its mapping; `null` for ::, which stands for none. */
export function addressText(stored: string): string | null {
  if (stored === '::') return null;
  return stored.startsWith('::ffff:') ? stored.slice('::ffff:'.length) : stored;
}

export function textOrNull(value: string | undefined): string | null {
  return value === undefined || value === '' ? null : value;
}

export function isoOrNull(seconds: number): string | null {
  return seconds === 0 ? null : isoSeconds(seconds);
}

export function isoMsOrNull(ms: string | number): string | null {
  return Number(ms) <= 0 ? null : new Date(Number(ms)).toISOString();
}

export function setLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
}

/** What is known of an end beyond its identity. */
export interface Sight {
  readonly workload: string | null;
  readonly address: string | null;
  readonly provenance: Provenance | null;
  readonly certainty: Certainty | null;
  /** Whether an agent reports from where it runs. */
  readonly watched: boolean;
}

function absentOf(sides: readonly string[], source: Sight, destination: Sight): Edge['absent'] {
  const ends = [
    { side: 'source', agent: source.watched },
    { side: 'destination', agent: destination.watched },
  ] as const;
  return ends.filter(({ side }) => !sides.includes(side));
}

function endOf(row: DescribedRow, side: 'src' | 'dst', sight: Sight): End {
  const named = row[`${side}_name`];
  return {
    identity: row[`${side}_identity_id`],
    kind: row[`${side}_kind`] === '' ? 'unknown' : row[`${side}_kind`],
    cluster: row[`${side}_cluster`],
    namespace: row[`${side}_namespace`],
    name: named === '' ? (sight.workload ?? '') : named,
    workload: sight.workload,
    address: sight.address ?? addressText(row[`${side}_address`]),
    labels: setLabels(row[`${side}_labels`]),
    provenance: sight.provenance,
    certainty: sight.certainty,
  };
}

/** What flows of an edge say beyond its ends. */
export interface Spoken {
  readonly dns: string | null;
  readonly process: string | null;
}

/** A word that `explain` reads as this end. */
function endWord({ workload, address, cluster, namespace, identity }: End): string {
  if (workload === null) return address ?? `identity=${identity}`;
  const place = cluster === '' ? [namespace] : [cluster, namespace];
  return [...place.filter((part) => part !== ''), workload].join('/');
}

function explainPath(
  edge: Pick<Edge, 'source' | 'destination' | 'port' | 'protocol'>,
  spoken: Spoken,
  atS: number,
): string {
  const { source, destination, port, protocol } = edge;
  const isNamed = destination.kind === 'name';
  const query = new URLSearchParams({
    source: endWord(source),
    destination: isNamed ? (spoken.dns ?? destination.name) : endWord(destination),
    port: portWord(port, protocol),
    ...(spoken.process === null ? {} : { process: spoken.process }),
    ...(atS === 0 ? {} : { at: isoSeconds(atS) }),
  });
  return `/api/v1/explain?${query}`;
}

/** `last_seen_s` is 0 where it is not known. */
export function edgeOf(
  row: DescribedRow & { readonly last_seen_s: number },
  sourceSight: Sight,
  destinationSight: Sight,
  spoken: Spoken,
): Edge {
  const who = {
    source: endOf(row, 'src', sourceSight),
    destination: endOf(row, 'dst', destinationSight),
    port: row.port,
    protocol: protocolName(row.protocol_number),
  };
  return {
    ...who,
    explain: row.verdict_name === 'unexplained' ? explainPath(who, spoken, row.last_seen_s) : null,
    dns: spoken.dns,
    verdict: row.verdict_name,
    reason: row.reason_name,
    rule:
      row.rule_id === '0'
        ? null
        : { id: row.rule_id, ruleset: row.ruleset_name ?? '', name: row.rule_name ?? '' },
    direction: row.direction,
    severity: severities[row.severity] ?? 'none',
    flows: Number(row.c_flows),
    connections: Number(row.c_connections),
    bytesForward: Number(row.c_bytes_forward),
    bytesReverse: Number(row.c_bytes_reverse),
    packetsForward: Number(row.c_packets_forward),
    packetsReverse: Number(row.c_packets_reverse),
    sides: [...row.sides].sort(),
    absent: absentOf(row.sides, sourceSight, destinationSight),
    pending: Number(row.c_pending),
  };
}

export function windowAnswer(window: Window): Static<typeof WindowAnswer> {
  return {
    since: isoSeconds(window.sinceS),
    until: window.untilS === null ? null : isoSeconds(window.untilS),
  };
}
