/** Kubernetes objects to inventory events: tells kinds apart, checks each object, unwraps lists. */
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import { checker, FieldError } from '../validate.ts';
import { type ConversionContext, carried } from './common.ts';
import { type ServiceEndpoints, serviceEndpoints } from './endpoint-slice.ts';
import { networkPolicyEvent } from './network-policy.ts';
import { nodeEvent, nodePodCidrs } from './node.ts';
import {
  EndpointSliceObject,
  NamespaceObject,
  NetworkPolicyObject,
  NodeObject,
  PodObject,
  ServiceObject,
} from './objects.ts';
import { podEvent } from './pod.ts';
import { externalNameEvent, serviceEvent } from './service.ts';

/** Kinds that are known and, for now, tell the inventory nothing; others are counted as `other`. */
export const ignoredKinds = [
  'Endpoints',
  'Deployment',
  'ReplicaSet',
  'StatefulSet',
  'DaemonSet',
  'Job',
  'CronJob',
  'ConfigMap',
  'Secret',
  'ServiceAccount',
  'Ingress',
] as const;
export type IgnoredKind = (typeof ignoredKinds)[number] | 'other';

/** What became of one object. `ref` (`Pod/shop/web-0`) is one object's name within its cluster. */
export type Conversion =
  | {
      readonly outcome: 'entity';
      readonly ref: string;
      readonly event: InventoryEvent;
      /** Pod ranges a node was given; empty for everything else. */
      readonly podCidrs: readonly string[];
      /** What else the object says: the name an ExternalName service stands for. */
      readonly also: readonly InventoryEvent[];
    }
  | { readonly outcome: 'endpoints'; readonly ref: string; readonly endpoints: ServiceEndpoints }
  | { readonly outcome: 'ignored'; readonly kind: IgnoredKind }
  | {
      readonly outcome: 'malformed';
      /** `null` where it cannot be told which object it is. */
      readonly ref: string | null;
      readonly message: string;
    };

const checkPod = checker(PodObject);
const checkNode = checker(NodeObject);
const checkService = checker(ServiceObject);
const checkNamespace = checker(NamespaceObject);
const checkEndpointSlice = checker(EndpointSliceObject);
const checkNetworkPolicy = checker(NetworkPolicyObject);

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function ignoredKind(kind: string): IgnoredKind {
  return ignoredKinds.find((known) => known === kind) ?? 'other';
}

/** Namespaces and nodes have no namespace. */
const clusterScoped = new Set(['Namespace', 'Node']);

function refOf(kind: string, object: Record<string, unknown>): string | null {
  const metadata = object.metadata;
  if (!isRecord(metadata) || typeof metadata.name !== 'string' || metadata.name === '') return null;
  if (clusterScoped.has(kind)) return `${kind}/${metadata.name}`;
  const { namespace } = metadata;
  if (namespace !== undefined && namespace !== null && typeof namespace !== 'string') return null;
  return `${kind}/${namespace || 'default'}/${metadata.name}`;
}

type Built =
  | {
      readonly event: InventoryEvent;
      readonly podCidrs: readonly string[];
      readonly also: readonly InventoryEvent[];
    }
  | { readonly endpoints: ServiceEndpoints }
  | { readonly message: string };

function alone(event: InventoryEvent): Built {
  return { event, podCidrs: [], also: [] };
}

function namespaceEvent({ metadata }: NamespaceObject, context: ConversionContext): InventoryEvent {
  const { labels, annotations } = carried(metadata, context.carry);
  const { cluster } = context;
  return { v: 1, type: 'namespace', cluster, name: metadata.name, labels, annotations };
}

function build(kind: string, object: unknown, context: ConversionContext): Built | null {
  switch (kind) {
    case 'Pod': {
      const pod = checkPod(object);
      return pod.ok ? alone(podEvent(pod.value, context)) : pod;
    }
    case 'Node': {
      const node = checkNode(object);
      if (!node.ok) return node;
      return { event: nodeEvent(node.value, context), podCidrs: nodePodCidrs(node.value), also: [] };
    }
    case 'Service': {
      const service = checkService(object);
      if (!service.ok) return service;
      const name = externalNameEvent(service.value, context);
      const also = name === null ? [] : [name];
      return { event: serviceEvent(service.value, context), podCidrs: [], also };
    }
    case 'Namespace': {
      const namespace = checkNamespace(object);
      return namespace.ok ? alone(namespaceEvent(namespace.value, context)) : namespace;
    }
    case 'EndpointSlice': {
      const slice = checkEndpointSlice(object);
      return slice.ok ? { endpoints: serviceEndpoints(slice.value) } : slice;
    }
    case 'NetworkPolicy': {
      const policy = checkNetworkPolicy(object);
      return policy.ok ? alone(networkPolicyEvent(policy.value, context)) : policy;
    }
    default:
      return null;
  }
}

/** Converts one object (not a list). Never throws for what the object holds. */
export function convertObject(object: unknown, context: ConversionContext): Conversion {
  if (!isRecord(object)) return { outcome: 'malformed', ref: null, message: 'not an object' };
  const { kind } = object;
  if (typeof kind !== 'string' || kind === '') {
    return { outcome: 'malformed', ref: null, message: 'kind: must be a text such as Pod' };
  }
  const ref = refOf(kind, object);
  const malformed = (message: string): Conversion => ({
    outcome: 'malformed',
    ref,
    message: `${ref ?? kind}: ${message}`,
  });
  try {
    const built = build(kind, object, context);
    if (built === null) return { outcome: 'ignored', kind: ignoredKind(kind) };
    if ('message' in built) return malformed(built.message);
    if (ref === null) return malformed('metadata.name: must be a text');
    return 'endpoints' in built
      ? { outcome: 'endpoints', ref, ...built }
      : { outcome: 'entity', ref, ...built };
  } catch (error) {
    if (error instanceof FieldError) return malformed(error.message);
    throw error;
  }
}

/**
 * The objects of a document: the items of a `List` (or `PodList`, ...), or the document itself. Items of a typed list
 * have no kind of their own. `null` where `items` is not a list.
 */
export function objectsOf(
  document: unknown,
): readonly { readonly place: string; readonly object: unknown }[] | null {
  if (!isRecord(document) || typeof document.kind !== 'string' || !document.kind.endsWith('List')) {
    return [{ place: '', object: document }];
  }
  if (document.items === null || document.items === undefined) return [];
  if (!Array.isArray(document.items)) return null;
  const itemKind = document.kind.slice(0, -'List'.length);
  return document.items.map((item: unknown, i) => ({
    place: `items[${i}]`,
    object: itemKind !== '' && isRecord(item) && item.kind === undefined ? { ...item, kind: itemKind } : item,
  }));
}
