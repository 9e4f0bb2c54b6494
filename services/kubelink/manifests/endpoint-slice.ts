/** EndpointSlice objects: which addresses stand behind a service that has no selector. */
import { isDeepStrictEqual } from 'node:util';
import type { ClusterEvent, ServiceEvent, WorkloadEvent } from '../../../lib/inventory/events.ts';
import { type Cidr, parseAddress, parseCidr } from '../../../lib/net/address.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import { canonicalAddress, intervals, namespaceOf, timeOf } from './common.ts';
import type { EndpointSliceObject } from './objects.ts';

/** Label of a slice that names its service. */
const serviceLabel = 'kubernetes.io/service-name';

/** Addresses that somebody wrote down for a service by hand. */
export interface ServiceEndpoints {
  /** `namespace/name`; empty where the slice names no service. */
  readonly service: string;
  /** Those that are no pod's by the slice's own word. */
  readonly addresses: readonly string[];
  readonly sinceMs: number;
}

/** Endpoints with a `targetRef` belong to what it names. @throws {FieldError} for what does not parse. */
export function serviceEndpoints(slice: EndpointSliceObject): ServiceEndpoints {
  const { metadata, addressType, endpoints } = slice;
  const name = metadata.labels?.[serviceLabel] ?? '';
  const addresses: string[] = [];
  for (const [i, endpoint] of (endpoints ?? []).entries()) {
    if (addressType === 'FQDN' || endpoint.targetRef) continue;
    for (const [j, text] of (endpoint.addresses ?? []).entries()) {
      addresses.push(canonicalAddress(text, `endpoints[${i}].addresses[${j}]`));
    }
  }
  return {
    service: name === '' ? '' : `${namespaceOf(metadata)}/${name}`,
    addresses,
    sinceMs: timeOf(metadata.creationTimestamp, 'metadata.creationTimestamp'),
  };
}

function covers({ base, prefix }: Cidr, address: Uint8Array): boolean {
  const whole = prefix >> 3;
  for (let i = 0; i < whole; i++) if (base[i] !== address[i]) return false;
  const rest = prefix & 7;
  return rest === 0 || ((base[whole] ?? 0) ^ (address[whole] ?? 0)) >> (8 - rest) === 0;
}

/** Whose addresses are not a service's, though an endpoint names them: nodes and pods of the cluster itself. */
export class ClusterAddresses {
  readonly #nodes: ReadonlySet<string>;
  readonly #podCidrs: readonly string[];
  readonly #pods: readonly Cidr[];

  constructor(nodes: Iterable<WorkloadEvent>, cluster: ClusterEvent) {
    this.#nodes = new Set([...nodes].flatMap(({ addresses }) => addresses.map(({ ip }) => ip)));
    this.#podCidrs = cluster.podCidrs;
    this.#pods = cluster.podCidrs.flatMap((text) => parseCidr(text) ?? []);
  }

  /** Whether both speak of the same addresses. */
  equals(other: ClusterAddresses): boolean {
    return isDeepStrictEqual(this.#nodes, other.#nodes) && isDeepStrictEqual(this.#podCidrs, other.#podCidrs);
  }

  has(ip: string): boolean {
    if (this.#nodes.has(ip)) return true;
    const address = parseAddress(ip);
    return address !== null && this.#pods.some((cidr) => covers(cidr, address));
  }
}

/** The service with the addresses of its slices; unchanged where it has a selector, or they are others' (nodes, pods). */
export function withEndpoints(
  service: ServiceEvent,
  slices: Iterable<ServiceEndpoints>,
  others: ClusterAddresses,
): ServiceEvent {
  if (Object.keys(service.selector).length > 0) return service;
  const added = [...slices].flatMap(({ addresses, sinceMs }) =>
    addresses
      .filter((ip) => !others.has(ip))
      .map((ip) => ({ ip, network: defaultNetwork, sinceMs: Math.max(sinceMs, service.sinceMs) })),
  );
  if (added.length === 0) return service;
  const known = new Set(service.addresses.map(({ ip, network }) => `${network} ${ip}`));
  const fresh = added.filter(({ ip, network }) => !known.has(`${network} ${ip}`));
  const own = fresh.flatMap(({ ip, network, sinceMs }) => intervals([{ ip, network }], sinceMs, 0));
  const distinct = new Map(own.map((interval) => [`${interval.network} ${interval.ip}`, interval]));
  return { ...service, addresses: [...service.addresses, ...distinct.values()] };
}
