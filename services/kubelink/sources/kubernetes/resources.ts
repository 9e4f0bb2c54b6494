/** The kinds that are read from an API server. */

export interface Resource {
  readonly kind: 'Namespace' | 'Node' | 'Service' | 'EndpointSlice' | 'NetworkPolicy' | 'Pod';
  /** Path of the collection, over all namespaces. */
  readonly path: string;
}

export const resources: readonly Resource[] = [
  { kind: 'Namespace', path: '/api/v1/namespaces' },
  { kind: 'Node', path: '/api/v1/nodes' },
  { kind: 'Service', path: '/api/v1/services' },
  { kind: 'EndpointSlice', path: '/apis/discovery.k8s.io/v1/endpointslices' },
  { kind: 'NetworkPolicy', path: '/apis/networking.k8s.io/v1/networkpolicies' },
  { kind: 'Pod', path: '/api/v1/pods' },
];

export type Kind = Resource['kind'];

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What every object says of itself; empty where it does not. */
export interface ObjectHead {
  /** Its name within its kind and cluster: `shop/web-0`, or `node-a`. */
  readonly ref: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function headOf(object: unknown): ObjectHead {
  const metadata = isRecord(object) && isRecord(object.metadata) ? object.metadata : {};
  const name = textOf(metadata.name);
  const namespace = textOf(metadata.namespace);
  return {
    ref: namespace === '' ? name : `${namespace}/${name}`,
    namespace,
    uid: textOf(metadata.uid),
    resourceVersion: textOf(metadata.resourceVersion),
  };
}

/** The parts of a list that matter here. @throws {Error} where it is none. */
export interface ListPage {
  readonly items: readonly unknown[];
  readonly resourceVersion: string;
  /** Names the next page; empty after the last. */
  readonly next: string;
}

export function listPage(body: unknown, path: string): ListPage {
  if (!isRecord(body) || !isRecord(body.metadata)) throw new Error(`GET ${path}: the answer is no list`);
  const items = body.items ?? [];
  if (!Array.isArray(items)) throw new Error(`GET ${path}: items is no list`);
  return {
    items,
    resourceVersion: textOf(body.metadata.resourceVersion),
    next: textOf(body.metadata.continue),
  };
}

export type WatchEvent =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: Record<string, unknown> }
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string; readonly endsInitialEvents: boolean }
  | { readonly type: 'ERROR'; readonly status: unknown };

/** @throws {Error} for what is no event of a watch. */
export function watchEvent(line: unknown): WatchEvent {
  if (!isRecord(line) || !isRecord(line.object)) throw new Error('a line of a watch is no event');
  const { type, object } = line;
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return { type, object };
    case 'BOOKMARK': {
      const metadata = isRecord(object.metadata) ? object.metadata : {};
      const annotations = isRecord(metadata.annotations) ? metadata.annotations : {};
      return {
        type,
        resourceVersion: textOf(metadata.resourceVersion),
        endsInitialEvents: annotations['k8s.io/initial-events-end'] === 'true',
      };
    }
    case 'ERROR':
      return { type, status: object };
    default:
      throw new Error(`a watch has an event of the unknown type ${JSON.stringify(type)}`);
  }
}
