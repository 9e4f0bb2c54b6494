/** A Service object to a service event. */

import type { NameEvent, ServiceEvent } from '../../../lib/inventory/events.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import {
  type ConversionContext,
  canonicalAddress,
  carried,
  intervals,
  namespaceOf,
  timeOf,
  uidOf,
} from './common.ts';
import type { ServiceObject } from './objects.ts';

/** Cluster addresses are in the network of the cluster, external and load-balancer addresses in the routed one. */
function addressesOf(service: ServiceObject, cluster: string): { ip: string; network: string }[] {
  const { spec, status } = service;
  const clusterIps = spec?.clusterIPs ?? [];
  const found = clusterIps.map((text, i) => ({ text, field: `spec.clusterIPs[${i}]`, network: cluster }));
  if (clusterIps.length === 0 && spec?.clusterIP) {
    found.push({ text: spec.clusterIP, field: 'spec.clusterIP', network: cluster });
  }
  for (const [i, text] of (spec?.externalIPs ?? []).entries()) {
    found.push({ text, field: `spec.externalIPs[${i}]`, network: defaultNetwork });
  }
  for (const [i, { ip }] of (status?.loadBalancer?.ingress ?? []).entries()) {
    if (ip) found.push({ text: ip, field: `status.loadBalancer.ingress[${i}].ip`, network: defaultNetwork });
  }
  return found
    .filter(({ text }) => text !== 'None' && text !== '')
    .map(({ text, field, network }) => ({ ip: canonicalAddress(text, field), network }));
}

/** A headless or ExternalName service has no address. @throws {FieldError} for times and addresses that do not parse. */
export function serviceEvent(service: ServiceObject, context: ConversionContext): ServiceEvent {
  const { metadata, spec } = service;
  const namespace = namespaceOf(metadata);
  const sinceMs = timeOf(metadata.creationTimestamp, 'metadata.creationTimestamp');
  return {
    v: 1,
    type: 'service',
    cluster: context.cluster,
    uid: uidOf(metadata, `${namespace}/${metadata.name}`),
    name: metadata.name,
    namespace,
    ...carried(metadata, context.carry),
    selector: { ...spec?.selector },
    addresses: intervals(addressesOf(service, context.cluster), sinceMs, 0),
    ports: (spec?.ports ?? []).map(({ port, protocol, name, nodePort, targetPort }) => ({
      port,
      protocol: protocol || 'TCP',
      name: name ?? '',
      ...(nodePort ? { nodePort } : {}),
      ...(targetPort && targetPort !== port ? { targetPort } : {}),
    })),
    sinceMs,
  };
}

/** Names below these are of the cluster itself. */
const clusterDomain = /\.(?:svc|svc\.cluster\.local|cluster\.local)$/;

/** The name that an ExternalName service stands for: `east/shop/payments`; `null` for any other service. */
export function externalNameEvent(service: ServiceObject, context: ConversionContext): NameEvent | null {
  const { metadata, spec } = service;
  if (spec?.type !== 'ExternalName' || !spec.externalName) return null;
  const dns = spec.externalName.replace(/\.$/, '').toLowerCase();
  return {
    v: 1,
    type: 'name',
    name: `${context.cluster}/${namespaceOf(metadata)}/${metadata.name}`,
    dns: [dns],
    zone: clusterDomain.test(dns) ? 'inside' : 'outside',
    labels: carried(metadata, context.carry).labels,
    addresses: [],
  };
}
