/** A Pod object to a workload event. */
import type { WorkloadEvent } from '../../../lib/inventory/events.ts';
import {
  type ConversionContext,
  canonicalAddress,
  carried,
  endOf,
  intervals,
  namespaceOf,
  timeOf,
  uidOf,
} from './common.ts';
import type { PodObject } from './objects.ts';

/** The latest end of a container, ms; 0 where none is known. */
function lastFinishedMs(pod: PodObject): number {
  let lastMs = 0;
  for (const field of ['containerStatuses', 'initContainerStatuses'] as const) {
    for (const [i, status] of (pod.status?.[field] ?? []).entries()) {
      const finishedAt = status.state?.terminated?.finishedAt;
      lastMs = Math.max(lastMs, endOf(finishedAt, `status.${field}[${i}].state.terminated.finishedAt`));
    }
  }
  return lastMs;
}

/**
 * When the pod gave its addresses back, ms; 0 while it has them. A pod whose phase is final has, though it is still
 * listed. One that is being deleted keeps them until its containers have stopped; where nothing is known of
 * containers, its deletion time (the end of the grace period) is the best there is.
 */
function endedMs(pod: PodObject, nowMs: number): number {
  const deletionMs = timeOf(pod.metadata.deletionTimestamp, 'metadata.deletionTimestamp');
  const phase = pod.status?.phase;
  const deletedMs = endOf(pod.metadata.deletionTimestamp, 'metadata.deletionTimestamp');
  if (phase === 'Succeeded' || phase === 'Failed') {
    return Math.min(lastFinishedMs(pod) || deletedMs || nowMs, nowMs);
  }
  if (deletionMs === 0) return 0;
  const containers = pod.status?.containerStatuses ?? [];
  if (containers.length === 0) return deletionMs <= nowMs ? Math.min(deletedMs, nowMs) : 0;
  const allStopped = containers.every((status) => status.state?.terminated);
  return allStopped ? Math.min(lastFinishedMs(pod) || deletedMs, nowMs) : 0;
}

/**
 * When the kubelet noted that the pod's network was set up, ms, cut to the second; 0 where that is not known. The pod itself
 * was started before, by far where it had to wait for a volume.
 */
function networkReadyMs(pod: PodObject): number {
  const conditions = pod.status?.conditions ?? [];
  const i = conditions.findIndex(({ type }) => type === 'PodReadyToStartContainers');
  const ready = conditions[i];
  if (ready?.status !== 'True') return 0;
  return timeOf(ready.lastTransitionTime, `status.conditions[${i}].lastTransitionTime`);
}

/** Ports with names, of containers that run as long as the pod: policies and services may speak of them. */
function namedPorts({ spec }: PodObject): NonNullable<WorkloadEvent['ports']> {
  const sidecars = (spec?.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  return [...(spec?.containers ?? []), ...sidecars].flatMap(({ ports }) =>
    (ports ?? []).flatMap(({ name, containerPort, protocol }) =>
      name ? [{ name, port: containerPort, protocol: protocol || 'TCP' }] : [],
    ),
  );
}

/** @throws {FieldError} for times and addresses that do not parse. */
export function podEvent(pod: PodObject, context: ConversionContext): WorkloadEvent {
  const { metadata, spec, status } = pod;
  const namespace = namespaceOf(metadata);
  const createdMs = timeOf(metadata.creationTimestamp, 'metadata.creationTimestamp');
  const startedMs = timeOf(status?.startTime, 'status.startTime') || createdMs;
  const addressedMs = networkReadyMs(pod) || startedMs;
  const untilMs = endedMs(pod, context.nowMs);
  const hostNetwork = spec?.hostNetwork === true;
  const ports = namedPorts(pod);
  const named = (status?.podIPs ?? []).map(({ ip }, i) => ({ text: ip, field: `status.podIPs[${i}].ip` }));
  if (named.length === 0 && status?.podIP) named.push({ text: status.podIP, field: 'status.podIP' });
  const addresses = named.map(({ text, field }) => ({
    ip: canonicalAddress(text, field),
    network: context.cluster,
  }));
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: context.cluster,
    uid: uidOf(metadata, `${namespace}/${metadata.name}`),
    name: metadata.name,
    namespace,
    node: spec?.nodeName ?? '',
    hostNetwork,
    ...carried(metadata, context.carry),
    addresses: hostNetwork ? [] : intervals(addresses, addressedMs, untilMs),
    ...(ports.length === 0 ? {} : { ports }),
    sinceMs: untilMs === 0 ? createdMs : Math.min(createdMs, untilMs),
    ...(untilMs === 0 ? {} : { untilMs }),
  };
}
