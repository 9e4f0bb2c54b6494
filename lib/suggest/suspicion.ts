/** What no rule is suggested for without a person: closed list of reasons, each with a word on why. */
import { isWorkload, subjectOf, type UnexplainedEdge } from './edges.ts';
import type { Precedent } from './precedent.ts';

export const reviewReasons = {
  'unknown-end': 'nobody knows who one end is: register it, or block it',
  'unlabelled-end': 'one end has no labels that a rule could name: give it a profile first',
  'unregistered-end': 'an address inside the estate at which no workload is registered',
  'cross-environment': 'it goes from one environment into another, and no rule does so yet',
  'cross-cluster': 'it goes from one cluster straight into another',
  'leaves-estate': 'it leaves the estate, from one application or few workloads, to where no rule goes yet',
  'enters-estate': 'it comes from outside the estate',
  'administration-port': 'it is a port by which machines are administered',
  'node-port': 'it goes by the port of a node, past the load balancer',
  'one-off': 'it was seen hardly more than once',
  'covers-suspicious': 'the rule would explain connections that are under review',
} as const;
export type ReviewReason = keyof typeof reviewReasons;

/** SSH, Telnet, rsh and the like, RDP, WinRM, VNC. */
const administrationPorts = new Set([22, 23, 512, 513, 514, 2222, 3389, 5900, 5901, 5985, 5986]);
const firstNodePort = 30_000;
const lastNodePort = 32_767;

/** Workloads, and applications, that have to be seen before what leaves the estate looks common. */
export const minOutsideWorkloads = 5;
export const minOutsideApps = 2;

/** Whether both ends have an environment, and not the same one. */
export function crossing({ source, destination }: UnexplainedEdge): boolean {
  const { env: from = '' } = source.labels;
  const { env: to = '' } = destination.labels;
  return from !== '' && to !== '' && from !== to;
}

/** What is suspicious about an edge, whoever else does the same. */
export function edgeSuspicions(edge: UnexplainedEdge, precedents: readonly Precedent[]): ReviewReason[] {
  const { source, destination, port } = edge;
  if (source.kind === 'unknown' || destination.kind === 'unknown') return ['unknown-end'];
  const reasons: ReviewReason[] = [];
  const [from, to] = [subjectOf(source), subjectOf(destination)];
  if (from === null || to === null) reasons.push('unlabelled-end');
  if (to?.type === 'range' && destination.zone === 'inside' && precedents.length === 0)
    reasons.push('unregistered-end');
  if (source.zone === 'outside') reasons.push('enters-estate');
  if (administrationPorts.has(port) && precedents.length === 0) reasons.push('administration-port');
  if (
    (destination.kind === 'service' || destination.kind === 'node') &&
    port >= firstNodePort &&
    port <= lastNodePort
  )
    reasons.push('node-port');
  if (crossing(edge) && !precedents.some(({ spansEnvironments }) => spansEnvironments))
    reasons.push('cross-environment');
  if (
    isWorkload(source) &&
    isWorkload(destination) &&
    source.cluster !== '' &&
    destination.cluster !== '' &&
    source.cluster !== destination.cluster
  )
    reasons.push('cross-cluster');
  return reasons;
}
