/** A NetworkPolicy object to an event that carries its spec as it is. */
import type { NetworkPolicyEvent } from '../../../lib/inventory/events.ts';
import { type ConversionContext, carried, namespaceOf, timeOf, uidOf } from './common.ts';
import type { NetworkPolicyObject } from './objects.ts';

/** @throws {FieldError} for a time that does not parse. */
export function networkPolicyEvent(
  policy: NetworkPolicyObject,
  context: ConversionContext,
): NetworkPolicyEvent {
  const { metadata, spec } = policy;
  const namespace = namespaceOf(metadata);
  return {
    v: 1,
    type: 'network-policy',
    cluster: context.cluster,
    uid: uidOf(metadata, `${namespace}/${metadata.name}`),
    namespace,
    name: metadata.name,
    labels: carried(metadata, context.carry).labels,
    spec: spec ?? {},
    sinceMs: timeOf(metadata.creationTimestamp, 'metadata.creationTimestamp'),
  };
}
