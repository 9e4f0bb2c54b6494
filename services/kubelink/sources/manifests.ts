/** A source of Kubernetes objects in files. */
import type { Logger } from 'pino';
import type {
  ClusterEvent,
  InventoryEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../../../lib/inventory/events.ts';
import type { KubelinkConfig, ManifestsSource } from '../config.ts';
import { parseDocuments } from '../documents.ts';
import { type CarryRules, carryRules, checkedCidr } from '../manifests/common.ts';
import { type Conversion, convertObject, type IgnoredKind, objectsOf } from '../manifests/convert.ts';
import { ClusterAddresses, type ServiceEndpoints, withEndpoints } from '../manifests/endpoint-slice.ts';
import { type FileContents, type FileEntity, FileSource } from './file-source.ts';

/** Reads the text of a file of Kubernetes objects. `nowMs` is the end of what ended at an unknown time. */
export function readManifests(text: string, cluster: string, carry: CarryRules, nowMs: number): FileContents {
  const entities = new Map<string, FileEntity>();
  const endpoints = new Map<string, ServiceEndpoints>();
  const ignored = new Map<IgnoredKind, number>();
  const { documents, problems } = parseDocuments(text);
  const malformed: { ref: string | null; message: string }[] = problems.map(({ place, message }) => ({
    ref: null,
    message: `${place}: ${message}`,
  }));
  const take = (place: string, conversion: Conversion): void => {
    switch (conversion.outcome) {
      case 'entity':
        entities.set(conversion.ref, conversion);
        return;
      case 'endpoints':
        endpoints.set(conversion.ref, conversion.endpoints);
        return;
      case 'ignored':
        ignored.set(conversion.kind, (ignored.get(conversion.kind) ?? 0) + 1);
        return;
      case 'malformed':
        malformed.push({ ref: conversion.ref, message: `${place}: ${conversion.message}` });
    }
  };
  for (const { place, value } of documents) {
    const objects = objectsOf(value);
    if (objects === null) malformed.push({ ref: null, message: `${place}: items: must be a list` });
    for (const { place: inner, object } of objects ?? []) {
      const at = inner === '' ? place : `${place}, ${inner}`;
      take(at, convertObject(object, { cluster, carry, nowMs }));
    }
  }
  return { entities, endpoints, malformed, ignored };
}

/** The services that have addresses of hand-written slices, with these. */
function completedServices(
  entities: readonly FileEntity[],
  endpoints: readonly ServiceEndpoints[],
  cluster: ClusterEvent,
): ServiceEvent[] {
  const slices = Map.groupBy(endpoints, ({ service }) => service);
  const events = entities.map(({ event }) => event);
  const isNode = (event: InventoryEvent): event is WorkloadEvent =>
    event.type === 'workload' && event.kind === 'node';
  const others = new ClusterAddresses(events.filter(isNode), cluster);
  return events.flatMap((event) => {
    const own = event.type === 'service' ? slices.get(`${event.namespace}/${event.name}`) : undefined;
    return event.type === 'service' && own !== undefined ? [withEndpoints(event, own, others)] : [];
  });
}

/** @throws {Error} naming the key, where the configuration holds a range that does not parse. */
export function manifestsSource(
  name: string,
  source: ManifestsSource,
  config: KubelinkConfig,
  log: Logger,
): FileSource {
  const { cluster } = source;
  const at = `kubelink source ${name}`;
  const podCidrs = source.podCidrs.map((cidr) => checkedCidr(cidr, `${at}: podCidrs`));
  const serviceCidrs = source.serviceCidrs.map((cidr) => checkedCidr(cidr, `${at}: serviceCidrs`));
  const carry = carryRules(config.droppedLabels, config.carriedAnnotations);
  return new FileSource({
    name,
    path: source.path,
    limits: config,
    debounceMs: config.debounceMs,
    rescanMs: config.rescanMs,
    log,
    read: (text) => readManifests(text, cluster, carry, Date.now()),
    derived: (entities, endpoints) => {
      const ofNodes = [...new Set(entities.flatMap((entity) => entity.podCidrs))].sort();
      const event: ClusterEvent = {
        v: 1,
        type: 'cluster',
        cluster,
        podCidrs: podCidrs.length > 0 ? podCidrs : ofNodes,
        serviceCidrs,
      };
      return [event, ...completedServices(entities, endpoints, event)];
    },
  });
}
