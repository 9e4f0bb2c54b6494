/** Clusters with their pods and policies, from inventory events. */
import type {
  InventoryEvent,
  NetworkPolicyEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../../schemas/inventory-event.ts';
import { isMapped, parseAddress } from '../net/address.ts';
import { NetworkPolicyEngine } from './engine.ts';
import type { End, Labels, NamedPort, NetworkPolicy, Pod, PolicyProtocol } from './model.ts';
import { policyProtocols } from './model.ts';
import { type Opinion, kubernetesOpinion as opinionOf } from './opinion.ts';
import { readPolicySpec, wayText } from './read.ts';

/** What one workload, service or address is to policies. */
export interface EstateEnd {
  /** Empty outside of clusters. */
  readonly cluster: string;
  readonly end: End;
  /** Every address that it has. */
  readonly addresses: readonly Uint8Array[];
}

export interface EstateProblem {
  readonly cluster: string;
  readonly namespace: string;
  readonly policy: string;
  /** `ingress[0].from[1]: ...` */
  readonly message: string;
}

interface ClusterContents {
  readonly namespaces: Map<string, Labels>;
  readonly policies: NetworkPolicy[];
}

export const protocolOf = (text: string): PolicyProtocol | null =>
  policyProtocols.find((known) => known === text.toUpperCase()) ?? null;

function namedPortsOf({ ports }: WorkloadEvent): NamedPort[] {
  return (ports ?? []).flatMap(({ name, port, protocol }) => {
    const known = protocolOf(protocol);
    return known === null ? [] : [{ name, port, protocol: known }];
  });
}

/** Present events only: what has ended is not looked at. */
export class PolicyEstate {
  readonly problems: readonly EstateProblem[];
  readonly #engines: ReadonlyMap<string, NetworkPolicyEngine>;
  /** Pods that several events or questions speak of are one. */
  readonly #pods = new Map<string, Pod>();
  readonly #nodes = new Map<string, WorkloadEvent>();

  constructor(events: Iterable<InventoryEvent>) {
    const clusters = new Map<string, ClusterContents>();
    const problems: EstateProblem[] = [];
    const contentsOf = (cluster: string): ClusterContents => {
      const known = clusters.get(cluster) ?? { namespaces: new Map<string, Labels>(), policies: [] };
      clusters.set(cluster, known);
      return known;
    };
    for (const event of events) {
      if ('untilMs' in event && event.untilMs !== undefined) continue;
      switch (event.type) {
        case 'namespace':
          contentsOf(event.cluster).namespaces.set(event.name, event.labels);
          break;
        case 'network-policy':
          takePolicy(event, contentsOf(event.cluster).policies, problems);
          break;
        case 'workload':
          if (event.kind === 'node') this.#nodes.set(`${event.cluster}/${event.name}`, event);
          break;
        default:
      }
    }
    this.problems = problems;
    this.#engines = new Map(
      [...clusters].map(([name, { namespaces, policies }]) => [
        name,
        new NetworkPolicyEngine({ namespaces, policies: policies.sort(byName) }),
      ]),
    );
  }

  engine(cluster: string): NetworkPolicyEngine | null {
    return this.#engines.get(cluster) ?? null;
  }

  #pod(event: WorkloadEvent): Pod {
    const key = `${event.cluster}/${event.uid}`;
    const known = this.#pods.get(key);
    if (known !== undefined) return known;
    const { namespace, name, labels, node, hostNetwork } = event;
    const pod = { namespace, name, labels, node, hostNetwork, namedPorts: namedPortsOf(event) };
    this.#pods.set(key, pod);
    return pod;
  }

  endOfWorkload(event: WorkloadEvent): EstateEnd {
    // A pod on its node's network has the addresses of the node.
    const holder = event.hostNetwork ? (this.#nodes.get(`${event.cluster}/${event.node}`) ?? event) : event;
    const addresses = presentAddresses(holder);
    const address = addresses[0] ?? null;
    const { cluster } = event;
    switch (event.kind) {
      case 'pod':
        return { cluster, end: { kind: 'pod', pod: this.#pod(event), address }, addresses };
      case 'node':
        return { cluster, end: { kind: 'node', node: event.name, address }, addresses };
      case 'vm':
      case 'host':
        return { cluster: '', end: { kind: 'node', node: '', address }, addresses };
    }
  }

  endOfAddress(address: Uint8Array): EstateEnd {
    return { cluster: '', end: { kind: 'address', address }, addresses: [address] };
  }

  /**
   * The opinion of the policies of both ends' clusters. Of ends with several addresses, the first pair of one family is
   * taken.
   */
  opinion(source: EstateEnd, destination: EstateEnd, port: number, protocol: PolicyProtocol | null): Opinion {
    const [a, b] = sameFamily(source, destination);
    const apart = source.cluster !== destination.cluster;
    return opinionOf(
      this.engine(source.cluster),
      this.engine(destination.cluster),
      {
        source: a,
        destination: b,
        // Another cluster's pods and nodes are nothing but addresses.
        ...(apart ? { sourceFromAfar: fromAfar(a), destinationFromAfar: fromAfar(b) } : {}),
      },
      port,
      protocol,
    );
  }
}

const byName = (a: NetworkPolicy, b: NetworkPolicy): number =>
  a.namespace === b.namespace ? compare(a.name, b.name) : compare(a.namespace, b.namespace);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function takePolicy(event: NetworkPolicyEvent, policies: NetworkPolicy[], problems: EstateProblem[]): void {
  const { cluster, namespace, name } = event;
  const read = readPolicySpec(namespace, name, event.spec);
  if (read.ok) policies.push(read.policy);
  else
    for (const { way, message } of read.problems)
      problems.push({
        cluster,
        namespace,
        policy: name,
        message: `${wayText(['spec', ...way])}: ${message}`,
      });
}

function presentAddresses({ addresses }: WorkloadEvent | ServiceEvent): Uint8Array[] {
  return addresses.flatMap(({ ip, untilMs }) => (untilMs === undefined ? (parseAddress(ip) ?? []) : []));
}

const fromAfar = (end: End): End => ({ kind: 'node', node: '', address: end.address });

/** Both ends with addresses of one family, as a connection has them; as they are where there are none. */
function sameFamily(source: EstateEnd, destination: EstateEnd): [End, End] {
  for (const a of source.addresses)
    for (const b of destination.addresses)
      if (isMapped(a) === isMapped(b)) return [withAddress(source.end, a), withAddress(destination.end, b)];
  return [source.end, destination.end];
}

const withAddress = (end: End, address: Uint8Array): End => ({ ...end, address });
