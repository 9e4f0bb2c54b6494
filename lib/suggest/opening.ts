/** What a rule would open beside what was seen: pairs of identities that it lets talk and that never did. */
import type { Actor, PolicyDocument } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { type LabelGroups, labelGroupsOf, selects } from '../policy/match.ts';
import type { DraftRule } from './candidates.ts';
import type { UnexplainedEdge } from './edges.ts';

/** Pairs that are given as examples. */
const maxExamples = 3;

export interface Opening {
  /** Pairs of identities that the rule lets talk. */
  readonly allowedPairs: number;
  /** Of those, pairs that were seen. */
  readonly seenPairs: number;
  /** Seen of allowed, 0 to 1. */
  readonly seenShare: number;
  /** Some that were never seen. */
  readonly examples: readonly { readonly source: KnownIdentity; readonly destination: KnownIdentity }[];
}

function isOne(actors: readonly Actor[], of: KnownIdentity, groups: LabelGroups): boolean {
  return actors.some((actor) => 'labels' in actor && selects(actor.labels, of, groups));
}

export function openingOf(
  { rule, scope }: DraftRule,
  edges: readonly UnexplainedEdge[],
  {
    identities,
    document,
  }: { readonly identities: readonly KnownIdentity[]; readonly document: PolicyDocument },
): Opening {
  const groups = labelGroupsOf(document.labelGroups);
  const seen = new Set(edges.map(({ source, destination }) => `${source.id} ${destination.id}`));
  const own = <T extends 'source' | 'destination'>(end: T): KnownIdentity[] => [
    ...new Map(edges.map((edge) => [edge[end].id, edge[end]])).values(),
  ];
  const matching = (actors: readonly Actor[], end: 'source' | 'destination'): KnownIdentity[] => {
    const found = identities.filter((identity) => isOne(actors, identity, groups));
    // Addresses and names outside are as many as were seen.
    return actors.every((actor) => 'labels' in actor) ? found : [...new Set([...found, ...own(end)])];
  };
  const from = matching(rule.from, 'source');
  const to = matching(rule.to, 'destination');
  const entries = rule.scope === 'intra' ? (scope ?? []) : [null];
  let allowedPairs = 0;
  const examples: { source: KnownIdentity; destination: KnownIdentity }[] = [];
  for (const entry of entries) {
    const inside = (list: readonly KnownIdentity[]): readonly KnownIdentity[] =>
      entry === null ? list : list.filter((identity) => selects(entry, identity, groups));
    const [sources, destinations] = [inside(from), inside(to)];
    allowedPairs += sources.length * destinations.length;
    for (const source of sources) {
      if (examples.length >= maxExamples) break;
      const destination = destinations.find(({ id }) => !seen.has(`${source.id} ${id}`));
      if (destination !== undefined) examples.push({ source, destination });
    }
  }
  allowedPairs = Math.max(allowedPairs, seen.size);
  return {
    allowedPairs,
    seenPairs: seen.size,
    seenShare: allowedPairs === 0 ? 0 : seen.size / allowedPairs,
    examples,
  };
}
