/** The connections that policies permit between workloads, and with addresses outside, gathered to few lines. Pure. */
import { NetworkPolicyEngine } from '../../lib/networkpolicy/engine.ts';
import type { End, PolicyCluster } from '../../lib/networkpolicy/model.ts';
import { isEmptySet, type PortSet, portsText } from '../../lib/networkpolicy/port-set.ts';
import type { PolicyWorkload } from './manifests.ts';
import { type AddressRange, addressRanges, rangeTexts } from './outside.ts';

export interface PermittedConnections {
  /** Workloads as namespace/name (of kind), or CIDRs outside. */
  readonly sources: readonly string[];
  readonly destinations: readonly string[];
  /** `TCP 443; UDP 53`, or `everything`. */
  readonly ports: string;
}

export interface Openness {
  readonly workload: string;
  readonly namespace: string;
  /** Whether a policy isolates it, by direction. */
  readonly ingress: boolean;
  readonly egress: boolean;
  readonly hostNetwork: boolean;
}

export interface ConnectionsResult {
  readonly connections: readonly PermittedConnections[];
  readonly workloads: readonly Openness[];
}

/** One place of the table: a workload, or all addresses outside that policies do not tell apart. */
interface Place {
  /** As a source and as a destination; two, so that a workload reaches another pod of itself. */
  readonly source: End;
  readonly destination: End;
  readonly name: string;
  readonly range: AddressRange | null;
}

/** Workloads that no other has the namespace and name of are called by these alone. */
export function workloadNames(workloads: readonly PolicyWorkload[]): string[] {
  const counts = new Map<string, number>();
  const plain = workloads.map(({ pod }) => `${pod.namespace}/${pod.name}`);
  for (const name of plain) counts.set(name, (counts.get(name) ?? 0) + 1);
  return workloads.map(({ kind, pod }, i) =>
    counts.get(plain[i] ?? '') === 1
      ? `${pod.namespace}/${pod.name}`
      : `${pod.namespace}/${kind}/${pod.name}`,
  );
}

function placesOf(cluster: PolicyCluster, workloads: readonly PolicyWorkload[]): Place[] {
  const names = workloadNames(workloads);
  const inside = workloads.map(({ pod }, i): Place => {
    const name = names[i] ?? '';
    return {
      source: { kind: 'pod', pod, address: null },
      destination: { kind: 'pod', pod: { ...pod }, address: null },
      name,
      range: null,
    };
  });
  const outside = addressRanges(cluster.policies).map((range): Place => {
    const end: End = { kind: 'address', address: range.example };
    return { source: end, destination: end, name: '', range };
  });
  return [...inside, ...outside];
}

function namesOf(places: readonly Place[], all: readonly Place[]): string[] {
  const named = places.filter(({ range }) => range === null).map(({ name }) => name);
  const outside = rangeTexts(places.flatMap(({ range }) => range ?? []));
  return [
    ...byNamespace(
      named,
      all.filter(({ range }) => range === null).map(({ name }) => name),
    ),
    ...outside,
  ];
}

/** `shop/*` where all workloads of a namespace are meant (of two at least), `*` where all there are. */
function byNamespace(names: readonly string[], all: readonly string[]): string[] {
  if (names.length === all.length && all.length > 1) return ['*'];
  const namespace = (name: string): string => name.slice(0, name.indexOf('/'));
  const totals = Map.groupBy(all, namespace);
  return [...Map.groupBy(names, namespace)].flatMap(([key, own]) =>
    own.length > 1 && own.length === totals.get(key)?.length ? [`${key}/*`] : own,
  );
}

/** Each pair of places once, connections between addresses outside left out. */
export function permittedConnections(
  cluster: PolicyCluster,
  workloads: readonly PolicyWorkload[],
): ConnectionsResult {
  const engine = new NetworkPolicyEngine(cluster);
  const places = placesOf(cluster, workloads);
  const numbers = new Map(places.map((place, i) => [place, i]));
  // From each source the destinations with the same ports; then all sources that reach the same ones.
  const gathered = new Map<string, { sources: Place[]; destinations: readonly Place[]; ports: PortSet }>();
  for (const source of places) {
    const open = places.flatMap((destination) => {
      if (source.range !== null && destination.range !== null) return [];
      const ports = engine.ports(source.source, destination.destination);
      return isEmptySet(ports) ? [] : [{ destination, ports }];
    });
    for (const same of Map.groupBy(open, ({ ports }) => ports.join()).values()) {
      const destinations = same.map(({ destination }) => destination);
      const ports = same[0]?.ports ?? [];
      const key = `${destinations.map((place) => numbers.get(place)).join()}:${ports.join()}`;
      const known = gathered.get(key);
      if (known === undefined) gathered.set(key, { sources: [source], destinations, ports });
      else known.sources.push(source);
    }
  }
  const names = workloadNames(workloads);
  return {
    connections: [...gathered.values()].map(({ sources, destinations, ports }) => ({
      sources: namesOf(sources, places),
      destinations: namesOf(destinations, places),
      ports: portsText(ports),
    })),
    workloads: workloads.map(({ pod }, i) => ({
      workload: names[i] ?? '',
      namespace: pod.namespace,
      ingress: engine.isIsolated(pod, 'ingress'),
      egress: engine.isIsolated(pod, 'egress'),
      hostNetwork: pod.hostNetwork,
    })),
  };
}
