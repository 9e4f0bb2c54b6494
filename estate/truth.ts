/** The truth about a flow, in the terms in which the pipeline has to tell it. */
import type { Certainty, IdentityKind, Provenance, Reason, Side, Verdict } from '../schemas/closed-lists.ts';
import { type Endpoint, type Identity, identityAt, identityOf, type Labels, type Zone } from './ends.ts';
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
  /** Begin of what the flow reports, by the agent's clock less what the agent knows it to be off: whole seconds since the epoch. */
  readonly startSecond: number;
  /** When that truly was, ms since the epoch. */
  readonly trueStartMs: number;
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
  /** Name of the service, range or listed name; empty otherwise. */
  readonly srcName: string;
  readonly dstName: string;
  readonly srcZone: Zone;
  readonly dstZone: Zone;
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
  /** True begin, ms since the epoch. */
  readonly startMs: number;
  /** What is to be added to that for the time that the pipeline goes by, ms. */
  readonly shiftMs: number;
  /** As it is meant to be, while both ends have the labels they began with. */
  readonly outcome: Outcome;
}

/** Reads the policy about two ends, of whatever labels. */
export type Judge = (
  src: Identity & { readonly ip: string },
  dst: Identity & { readonly ip: string },
  port: number,
  protocol: number,
) => Outcome;

export function truthOf(seen: Seen, toleranceMs: number, judge: Judge): Truth {
  const src = identityAt(seen.source, seen.startMs);
  const dst = identityAt(seen.destination, seen.startMs);
  const isAsMeant = src === seen.source.identity && dst === seen.destination.identity;
  const { verdict, reason, ruleset, rule } = isAsMeant
    ? seen.outcome
    : judge(
        { ...src, ip: seen.source.text },
        { ...dst, ip: seen.destination.text },
        seen.destinationPort,
        seen.protocol,
      );
  return {
    agent: seen.agent,
    srcIp: seen.source.text,
    srcPort: seen.sourcePort,
    dstIp: seen.destination.text,
    dstPort: seen.destinationPort,
    protocol: seen.protocol,
    side: seen.side,
    startSecond: Math.floor((seen.startMs + seen.shiftMs) / 1000),
    trueStartMs: seen.startMs,
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
    srcZone: src.zone,
    dstZone: dst.zone,
    srcProvenance: src.provenance,
    dstProvenance: dst.provenance,
    srcCertainty: certaintyOf(seen.source, seen.startMs, toleranceMs, seen.sourceHinted),
    dstCertainty: certaintyOf(seen.destination, seen.startMs, toleranceMs, seen.destinationHinted),
    verdict,
    reason,
    ruleset,
    rule,
  };
}
