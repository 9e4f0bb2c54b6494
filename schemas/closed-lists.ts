/**
 * The closed lists of the design, with the codes they have in columns, in ClickHouse enums and in metrics.
 * Codes are stored: never renumber, only append. A test holds the DDL to these lists.
 */
export const verdicts = ['unexplained', 'allowed', 'denied'] as const;
export type Verdict = (typeof verdicts)[number];

/** Why a verdict is what it is. */
export const reasons = [
  /** A rule speaks of it: see the rule. */
  'rule',
  /** Both ends are known and in scope, no rule speaks of the pair. */
  'no-rule',
  /** A rule allows the pair, on other ports or protocols only. */
  'port-not-covered',
  /** The source address belongs to no known workload, service or range. */
  'unknown-source',
  /** The destination address belongs to no known workload, service or range. */
  'unknown-destination',
  /** Neither end is in the scope of any ruleset. */
  'outside-scope',
] as const;
export type Reason = (typeof reasons)[number];

/** How an end of a flow was named. */
export const provenances = ['none', 'pod', 'host', 'service', 'node', 'range', 'name'] as const;
export type Provenance = (typeof provenances)[number];

/** How sure that name is. */
export const certainties = [
  /** Nobody is known to have had the address then. */
  'none',
  /** In possession at the flow's begin, and nobody else within the clock tolerance around it. */
  'exact',
  /** One candidate, whose time the flow misses by no more than the clock tolerance. */
  'grace',
  /**
   * The inventory was not known to be complete for that time when the row was written: a guess, until the row is
   * repaired; it stays only where the inventory never caught up.
   */
  'late',
  /** More than one owner within the clock tolerance: the row names the likeliest. */
  'ambiguous',
] as const;
export type Certainty = (typeof certainties)[number];

export const sides = ['source', 'destination', 'middle'] as const;
export type Side = (typeof sides)[number];

export const states = ['unknown', 'new', 'open', 'closed', 'timed_out', 'refused'] as const;
export type State = (typeof states)[number];

export const actions = ['unknown', 'forwarded', 'dropped'] as const;
export type Action = (typeof actions)[number];

/** What kind of thing an identity stands for. */
export const identityKinds = ['unknown', 'pod', 'node', 'vm', 'host', 'service', 'range', 'name'] as const;
export type IdentityKind = (typeof identityKinds)[number];

/** What became of a batch that the enricher read from the bus. */
export const batchOutcomes = ['written', 'resent', 'dead'] as const;
export type BatchOutcome = (typeof batchOutcomes)[number];

/** Why a batch, or flows of a batch, were not written. */
export const dropCauses = [
  'none',
  'undecodable',
  'unknown-schema',
  'too-many-flows',
  'bad-value',
  'time-out-of-range',
] as const;
export type DropCause = (typeof dropCauses)[number];
