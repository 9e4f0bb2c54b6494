/** One end of a flow: what is on the wire, and the truth about who it is. */
import { workloadId } from '../lib/inventory/ids.ts';
import type { IdentityKind, Provenance } from '../schemas/closed-lists.ts';

export type Zone = 'inside' | 'outside';
export type Labels = Readonly<Record<string, string>>;

/** Who somebody truly is. */
export interface Identity {
  /** `workloads.id`, 0n for whoever is no workload (services, ranges, the unknown). */
  readonly workload: bigint;
  readonly kind: IdentityKind;
  readonly cluster: string;
  readonly namespace: string;
  /** Name of a service, range or listed name, empty otherwise. */
  readonly name: string;
  readonly zone: Zone;
  readonly labels: Labels;
  readonly provenance: Provenance;
}

export const unknownIdentity: Identity = {
  workload: 0n,
  kind: 'unknown',
  cluster: '',
  namespace: '',
  name: '',
  zone: 'inside',
  labels: {},
  provenance: 'none',
};

/** An address in somebody's possession. Made once per owner and shared by all its flows. */
export interface Endpoint {
  /** 4 or 16 bytes. */
  readonly address: Buffer;
  readonly text: string;
  /** Tells addresses apart within the estate: equal addresses of two networks differ. */
  readonly number: number;
  /** Index of the agent that sees this end, or -1. */
  readonly agent: number;
  /** Index of the pod slot, or -1 for what does not come and go. */
  readonly slot: number;
  /** Kubernetes uid, or empty. */
  readonly uid: string;
  /** When the address's owner before ended, and when the one after begins, ms; infinite where there is none. */
  readonly previousUntilMs: number;
  nextSinceMs: number;
  /** When this owner ends, as far as that is decided. */
  untilMs: number;
  /** Who it is as long as nobody changes its labels. */
  readonly identify: () => Identity;
  identity: Identity | null;
  /** Labels at a time, where they change; the same object as long as they are the ones it began with. */
  readonly labelsAt: ((timeMs: number, first: Labels) => Labels) | null;
  /** The identity after the last change that was asked about. */
  relabelled: Identity | null;
}

export function identityOf(endpoint: Endpoint): Identity {
  endpoint.identity ??= endpoint.identify();
  return endpoint.identity;
}

export function identityAt(endpoint: Endpoint, timeMs: number): Identity {
  const first = identityOf(endpoint);
  if (endpoint.labelsAt === null) return first;
  const labels = endpoint.labelsAt(timeMs, first.labels);
  if (labels === first.labels) return first;
  if (endpoint.relabelled?.labels !== labels) endpoint.relabelled = { ...first, labels };
  return endpoint.relabelled;
}

export function ipv4Text(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

export function ipv4(a: number, b: number, c: number, d: number): number {
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

export function ipv4Bytes(address: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(address);
  return bytes;
}

/** An end that is always there. */
export function lastingEndpoint(
  at: { address: Buffer; text: string; number: number; agent: number; uid: string },
  identify: () => Identity,
  labelsAt: Endpoint['labelsAt'] = null,
): Endpoint {
  return {
    ...at,
    slot: -1,
    previousUntilMs: Number.NEGATIVE_INFINITY,
    nextSinceMs: Number.POSITIVE_INFINITY,
    untilMs: Number.POSITIVE_INFINITY,
    identify,
    identity: null,
    labelsAt,
    relabelled: null,
  };
}

export function workloadIdentity(
  of: { cluster: string; kind: 'pod' | 'node' | 'vm' | 'host'; uid: string; namespace: string },
  labels: Labels,
): Identity {
  return {
    workload: workloadId(of.cluster, of.kind, of.uid),
    kind: of.kind,
    cluster: of.cluster,
    namespace: of.namespace,
    name: '',
    zone: 'inside',
    labels,
    provenance: of.kind === 'pod' ? 'pod' : of.kind === 'node' ? 'node' : 'host',
  };
}
