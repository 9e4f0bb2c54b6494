/** The events that receivers get; docs/alerts.md describes them. Pure: from what the store said to JSON. */
import { formatAddress, parseAddress } from '../../lib/net/address.ts';
import type { Reason } from '../../schemas/closed-lists.ts';
import type { End, Evidence, NewEdge, Reach, WorkloadName } from './edges.ts';

export const severities = ['low', 'medium', 'high', 'critical'] as const;
export type Severity = (typeof severities)[number];

export function severityOf(edge: Pick<NewEdge, 'reach' | 'destination'>): Severity {
  if (edge.destination.labels.criticality?.toLowerCase() === 'critical') return 'critical';
  return edge.reach === 2 ? 'high' : edge.reach === 1 ? 'medium' : 'low';
}

const leaves: Readonly<Record<Reach, 'nothing' | 'cluster' | 'estate'>> = {
  0: 'nothing',
  1: 'cluster',
  2: 'estate',
};

const reasonTexts: Readonly<Record<Reason, string>> = {
  rule: 'A rule speaks of it.',
  'no-rule': 'Both ends are known and in scope, but no rule speaks of this pair.',
  'port-not-covered': 'A rule allows this pair, but on other ports or protocols only.',
  'unknown-source': 'The source address belongs to no known workload, service or range.',
  'unknown-destination': 'The destination address belongs to no known workload, service or range.',
  'outside-scope': 'Neither end is in the scope of any ruleset.',
};

const protocolNames: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp',
};

export function protocolName(protocol: number): string {
  return protocolNames[protocol] ?? String(protocol);
}

/** `10.0.0.1` for `::ffff:10.0.0.1`; nothing for `::`. */
function addressText(ipv6: string): string {
  const bytes = ipv6 === '::' ? null : parseAddress(ipv6);
  return bytes === null ? '' : formatAddress(bytes);
}

function titleOf(end: End, workload: WorkloadName | null, address: string, dnsName = ''): string {
  const { labels } = end;
  const own = labels.app ?? (end.name || workload?.name || dnsName || address || 'an unknown workload');
  const about = [labels.role, labels.env, end.namespace, end.cluster].filter(
    (text) => text !== undefined && text !== '',
  );
  return about.length === 0 ? own : `${own} (${about.join(', ')})`;
}

function endOf(end: End, workload: WorkloadName | null, address: string) {
  return {
    kind: end.kind,
    cluster: end.cluster,
    namespace: end.namespace,
    name: end.name,
    zone: end.zone || 'unknown',
    labels: end.labels,
    identity: end.identity,
    address,
    ...(workload === null
      ? {}
      : { workload: { id: workload.id, kind: workload.kind, name: workload.name, node: workload.node } }),
  };
}

/** Readable links: the API's answer about this edge, from an hour before it was first seen. */
function linksOf(edge: NewEdge, baseUrl: string) {
  const query = new URLSearchParams({
    verdict: 'unexplained',
    since: new Date((edge.firstSeenS - 3600) * 1000).toISOString(),
    src_identity: edge.source.identity,
    dst_identity: edge.destination.identity,
    port: String(edge.port),
    protocol: protocolName(edge.protocol),
  });
  const base = baseUrl.replace(/\/+$/, '');
  return { page: `${base}/?${query}`, api: `${base}/api/v1/connections?${query}` };
}

/** Id of the webhook message about an edge: the same for ever, so that a receiver can tell a repeat. */
export function messageIdOf(edge: string): string {
  return `msg_edge_${BigInt(edge).toString(16).padStart(16, '0')}`;
}

/** The event `connection.unexplained` about one edge. */
export function makeConnectionEvent(
  edge: NewEdge,
  evidence: Evidence | null,
  createdMs: number,
  baseUrl: string,
) {
  const sourceAddress = addressText(evidence?.sourceAddress ?? edge.sourceAddress);
  const destinationAddress = addressText(evidence?.destinationAddress ?? edge.destinationAddress);
  const dnsName = evidence?.dnsName ?? '';
  const from = titleOf(edge.source, evidence?.sourceWorkload ?? null, sourceAddress);
  const to = titleOf(edge.destination, evidence?.destinationWorkload ?? null, destinationAddress, dnsName);
  const protocol = protocolName(edge.protocol);
  const text = reasonTexts[edge.reason];
  return {
    type: 'connection.unexplained' as const,
    timestamp: new Date(createdMs).toISOString(),
    data: {
      edge: edge.edge,
      severity: severityOf(edge),
      title: `${from} connects to ${to} on port ${edge.port}/${protocol}, and no rule explains it`,
      leaves: leaves[edge.reach],
      source: {
        ...endOf(edge.source, evidence?.sourceWorkload ?? null, sourceAddress),
        process: evidence?.process ?? '',
      },
      destination: {
        ...endOf(edge.destination, evidence?.destinationWorkload ?? null, destinationAddress),
        dnsName,
        port: edge.port,
        protocol,
      },
      reason: { code: edge.reason, text },
      firstSeen: new Date(edge.firstSeenS * 1000).toISOString(),
      lastSeen: new Date(edge.lastSeenS * 1000).toISOString(),
      reporters: evidence?.reporters ?? [],
      counts: {
        flows: evidence?.flows ?? 0,
        connections: evidence?.connections ?? 0,
        bytesForward: evidence?.bytesForward ?? 0,
        bytesReverse: evidence?.bytesReverse ?? 0,
      },
      links: linksOf(edge, baseUrl),
    },
  };
}

/** Most edges that a summary names. */
const maxNamed = 20;

/** The event `connection.unexplained.summary` about edges that came too many at once. */
export function makeSummaryEvent(edges: readonly NewEdge[], createdMs: number, baseUrl: string) {
  const bySeverity: Record<Severity, number> = { critical: 0, high: 0, medium: 0, low: 0 };
  for (const edge of edges) bySeverity[severityOf(edge)]++;
  const named = [...edges]
    .sort((a, b) => severities.indexOf(severityOf(b)) - severities.indexOf(severityOf(a)))
    .slice(0, maxNamed);
  const firstSeenS = edges.reduce(
    (least, edge) => Math.min(least, edge.firstSeenS),
    Number.POSITIVE_INFINITY,
  );
  const base = baseUrl.replace(/\/+$/, '');
  const since = new Date((firstSeenS - 3600) * 1000).toISOString();
  return {
    type: 'connection.unexplained.summary' as const,
    timestamp: new Date(createdMs).toISOString(),
    data: {
      title: `${edges.length} further new connections that no rule explains`,
      edges: edges.length,
      bySeverity,
      examples: named.map((edge) => ({
        edge: edge.edge,
        severity: severityOf(edge),
        leaves: leaves[edge.reach],
        source: titleOf(edge.source, null, addressText(edge.sourceAddress)),
        destination: titleOf(edge.destination, null, addressText(edge.destinationAddress)),
        port: edge.port,
        protocol: protocolName(edge.protocol),
        reason: edge.reason,
      })),
      links: { api: `${base}/api/v1/edges?${new URLSearchParams({ verdict: 'unexplained', since })}` },
    },
  };
}
