/** The truth about a flow, in the terms in which the pipeline has to tell it. */
import type { Certainty, IdentityKind, Provenance, Reason, Side, Verdict } from '../schemas/closed-lists.ts';
import { type Endpoint, identityOf, type Labels } from './ends.ts';
import type { Outcome } from './patterns.ts';

export interface Truth {
  /** Agent, addresses, ports, protocol, side and second are unique in a run. */
  readonly agent: string;
  readonly srcIp: string;
  readonly srcPort: number;
  readonly dstIp: string;
  readonly dstPort: number;
  readonly protocol: number;
  readonly side: Side;
  /** Begin of what the flow reports, whole seconds since the epoch. */
  readonly startSecond: number;
  /** `workloads.id`; 0n for services, ranges and the unknown. */
  readonly srcWorkload: bigint;
  readonly dstWorkload: bigint;
  readonly srcLabels: Labels;
  readonly dstLabels: Labels;
  readonly srcKind: IdentityKind;
  readonly dstKind: IdentityKind;
  readonly srcCluster: string;
  readonly dstCluster: string;
  readonly srcNamespace: string;
  readonly dstNamespace: string;
  /** Name of the service or range; empty otherwise. */
  readonly srcName: string;
  readonly dstName: string;
  readonly srcProvenance: Provenance;
  readonly dstProvenance: Provenance;
  readonly srcCertainty: Certainty;
  readonly dstCertainty: Certainty;
  readonly verdict: Verdict;
  readonly reason: Reason;
  /** Names of the rule and its ruleset; empty where no rule speaks. */
  readonly ruleset: string;
  readonly rule: string;
}

/** How sure the pipeline can be of an owner, given when its neighbours in time had the address. */
function certaintyOf(endpoint: Endpoint, startMs: number, toleranceMs: number, hinted: boolean): Certainty {
  if (identityOf(endpoint).kind === 'unknown') return 'none';
  if (hinted) return 'exact';
  const contested =
    endpoint.previousUntilMs > startMs - toleranceMs || endpoint.nextSinceMs <= startMs + toleranceMs;
  return contested ? 'ambiguous' : 'exact';
}

export interface Seen {
  readonly agent: string;
  readonly side: Side;
  readonly source: Endpoint;
  readonly sourcePort: number;
  readonly sourceHinted: boolean;
  readonly destination: Endpoint;
  readonly destinationPort: number;
  readonly destinationHinted: boolean;
  readonly protocol: number;
  readonly startMs: number;
  readonly outcome: Outcome;
}

export function truthOf(seen: Seen, toleranceMs: number): Truth {
  const src = identityOf(seen.source);
  const dst = identityOf(seen.destination);
  return {
    agent: seen.agent,
    srcIp: seen.source.text,
    srcPort: seen.sourcePort,
    dstIp: seen.destination.text,
    dstPort: seen.destinationPort,
    protocol: seen.protocol,
    side: seen.side,
    startSecond: Math.floor(seen.startMs / 1000),
    srcWorkload: src.workload,
    dstWorkload: dst.workload,
    srcLabels: src.labels,
    dstLabels: dst.labels,
    srcKind: src.kind,
    dstKind: dst.kind,
    srcCluster: src.cluster,
    dstCluster: dst.cluster,
    srcNamespace: src.namespace,
    dstNamespace: dst.namespace,
    srcName: src.name,
    dstName: dst.name,
    srcProvenance: src.provenance,
    dstProvenance: dst.provenance,
    srcCertainty: certaintyOf(seen.source, seen.startMs, toleranceMs, seen.sourceHinted),
    dstCertainty: certaintyOf(seen.destination, seen.startMs, toleranceMs, seen.destinationHinted),
    verdict: seen.outcome.verdict,
    reason: seen.outcome.reason,
    ruleset: seen.outcome.ruleset,
    rule: seen.outcome.rule,
  };
}
