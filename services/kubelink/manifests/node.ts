/** A Node object to a workload event and the pod ranges it was given. */

import type { WorkloadEvent } from '../../../lib/inventory/events.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import {
  type ConversionContext,
  canonicalAddress,
  carried,
  checkedCidr,
  intervals,
  timeOf,
  uidOf,
} from './common.ts';
import type { NodeObject } from './objects.ts';

/** Node addresses are in the routed network. @throws {FieldError} for times and addresses that do not parse. */
export function nodeEvent(node: NodeObject, context: ConversionContext): WorkloadEvent {
  const { metadata, status } = node;
  const sinceMs = timeOf(metadata.creationTimestamp, 'metadata.creationTimestamp');
  const addresses = (status?.addresses ?? [])
    .map(({ type, address }, i) => ({ type, address, field: `status.addresses[${i}].address` }))
    .filter(({ type }) => type === 'InternalIP' || type === 'ExternalIP')
    .map(({ address, field }) => ({ ip: canonicalAddress(address, field), network: defaultNetwork }));
  return {
    v: 1,
    type: 'workload',
    kind: 'node',
    cluster: context.cluster,
    uid: uidOf(metadata, metadata.name),
    name: metadata.name,
    namespace: '',
    node: '',
    hostNetwork: false,
    ...carried(metadata, context.carry),
    addresses: intervals(addresses, sinceMs, 0),
    sinceMs,
  };
}

/** @throws {FieldError} for ranges that do not parse. */
export function nodePodCidrs(node: NodeObject): string[] {
  const listed = node.spec?.podCIDRs ?? [];
  if (listed.length > 0) return listed.map((cidr, i) => checkedCidr(cidr, `spec.podCIDRs[${i}]`));
  return node.spec?.podCIDR ? [checkedCidr(node.spec.podCIDR, 'spec.podCIDR')] : [];
}
