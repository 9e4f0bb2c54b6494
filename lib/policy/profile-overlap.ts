/** How what two profiles match lies to each other. */
import type { Profile } from '../../schemas/policy.ts';
import { patternInside, patternsOverlap } from './patterns.ts';

type Match = Profile['match'];

/** `inside`: the first matches part of what the second does; `around`: more; `across`: each has something of its own. */
export type MatchRelation = 'apart' | 'same' | 'inside' | 'around' | 'across';

const everything: readonly string[] = ['*'];
const allKinds: readonly string[] = ['pod', 'node', 'vm', 'host', 'service'];

function patterns(list: readonly string[] | undefined): readonly string[] {
  return list === undefined || list.length === 0 ? everything : list;
}

/** Whether every name of `inner` fits `outer`: for sure where it says so; it may miss that several patterns do together. */
function covered(inner: readonly string[], outer: readonly string[]): boolean {
  return inner.every((one) => outer.some((other) => patternInside(one, other)));
}

function meet(a: readonly string[], b: readonly string[]): boolean {
  return a.some((one) => b.some((other) => patternsOverlap(one, other)));
}

export function compareMatches(first: Match, second: Match): MatchRelation {
  const firstKinds = first.kind === undefined || first.kind.length === 0 ? allKinds : first.kind;
  const secondKinds = second.kind === undefined || second.kind.length === 0 ? allKinds : second.kind;
  if (!firstKinds.some((kind) => secondKinds.includes(kind))) return 'apart';
  const namespaces = [patterns(first.namespace), patterns(second.namespace)] as const;
  const clusters = [patterns(first.cluster), patterns(second.cluster)] as const;
  if (!meet(...namespaces) || !meet(...clusters)) return 'apart';
  const inside =
    firstKinds.every((kind) => secondKinds.includes(kind)) && covered(...namespaces) && covered(...clusters);
  const around =
    secondKinds.every((kind) => firstKinds.includes(kind)) &&
    covered(namespaces[1], namespaces[0]) &&
    covered(clusters[1], clusters[0]);
  if (inside && around) return 'same';
  return inside ? 'inside' : around ? 'around' : 'across';
}

/** What a profile matches, in words. */
export function matchText({ namespace, cluster, kind }: Match): string {
  const part = (word: string, list: readonly string[] | undefined): string[] =>
    list === undefined || list.length === 0 ? [] : [`${word} ${list.join(', ')}`];
  const parts = [...part('namespace', namespace), ...part('cluster', cluster), ...part('kind', kind)];
  return parts.length === 0 ? 'everything' : parts.join('; ');
}
