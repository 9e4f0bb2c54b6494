/** What a request asks for, typed and checked: the only input of the SQL functions. */
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';

/** Whose border a connection crosses. */
export const directions = [
  'leaves-estate',
  'enters-estate',
  'cross-cluster',
  'datacentre',
  'internal',
] as const;
export type Direction = (typeof directions)[number];

/** How much an unexplained connection matters; `none` for one that a rule speaks of. In rising order. */
export const severities = ['none', 'low', 'medium', 'high', 'critical'] as const;
export type Severity = (typeof severities)[number];

/** Seconds since the epoch; `untilS` is exclusive and `null` where the end is open. */
export interface Window {
  readonly sinceS: number;
  readonly untilS: number | null;
}

/** One term of a label expression: the key has (or hasn't) one of the values. */
export interface LabelTerm {
  readonly key: string;
  readonly negated: boolean;
  readonly values: readonly string[];
}

/** First and last address of a CIDR, as IPv6 text. */
export interface AddressSpan {
  readonly first: string;
  readonly last: string;
}

export interface FlowFilter {
  readonly window: Window;
  readonly verdict: Verdict | null;
  readonly reason: Reason | null;
  /** Terms that the source must meet, and the destination. */
  readonly source: readonly LabelTerm[];
  readonly destination: readonly LabelTerm[];
  /** Terms that either end must meet. */
  readonly either: readonly LabelTerm[];
  readonly address: AddressSpan | null;
  readonly sourceAddress: AddressSpan | null;
  readonly destinationAddress: AddressSpan | null;
  readonly port: number | null;
  readonly protocol: number | null;
  readonly rule: string | null;
  readonly sourceIdentity: string | null;
  readonly destinationIdentity: string | null;
  readonly direction: Direction | null;
  readonly severity: Severity | null;
}

export interface Page {
  readonly limit: number;
  readonly offset: number;
}

/** A filter that asks for nothing but a time. */
export function windowFilter(window: Window): FlowFilter {
  return {
    window,
    verdict: null,
    reason: null,
    source: [],
    destination: [],
    either: [],
    address: null,
    sourceAddress: null,
    destinationAddress: null,
    port: null,
    protocol: null,
    rule: null,
    sourceIdentity: null,
    destinationIdentity: null,
    direction: null,
    severity: null,
  };
}
