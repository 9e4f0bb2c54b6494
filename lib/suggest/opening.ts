/** What a rule would open beside what was seen: pairs of identities that it lets talk and that never did. */
import type { Actor } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { compileSelector, type LabelGroups, meetsSelector } from '../policy/match.ts';
import type { DraftRule } from './candidates.ts';
import type { UnexplainedEdge } from './edges.ts';
import type { IdentityFinder } from './finder.ts';

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

export function openingOf(
  { rule, scope }: DraftRule,
  edges: readonly UnexplainedEdge[],
  finder: IdentityFinder,
  groups: LabelGroups,
): Opening {
  const seen = new Set(edges.map(({ source, destination }) => `${source.id} ${destination.id}`));
  const matching = (actors: readonly Actor[], end: 'source' | 'destination'): KnownIdentity[] => {
    const found = finder.find(actors);
    // Addresses and names outside are as many as were seen.
    if (actors.every((actor) => 'labels' in actor)) return found;
    return [...new Map([...found, ...edges.map((edge) => edge[end])].map((one) => [one.id, one])).values()];
  };
  const from = matching(rule.from, 'source');
  const to = matching(rule.to, 'destination');
  const entries = rule.scope === 'intra' ? (scope ?? []) : [null];
  let allowedPairs = 0;
  const examples: { source: KnownIdentity; destination: KnownIdentity }[] = [];
  for (const entry of entries) {
    const selector = entry === null ? [] : compileSelector(entry, groups);
    const inside = (list: readonly KnownIdentity[]): readonly KnownIdentity[] =>
      list.filter((identity) => meetsSelector(selector, identity));
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
