/** The DNS names that a policy speaks of, in rules and ip-lists. */
import type { Actor, PolicyDocument } from '../../schemas/policy.ts';
import { canonicalName } from '../inventory/dns-names.ts';

function namesOf(actors: readonly Actor[]): string[] {
  return actors.flatMap((actor) => ('dns' in actor ? [actor.dns].flat() : []));
}

/** Each once, in lower case; patterns as they are written (`*.example.com`). */
export function dnsNamesOf(policy: PolicyDocument): string[] {
  const rules = [...policy.rulesets.flatMap((ruleset) => ruleset.rules), ...(policy.boundaries ?? [])];
  const names = [
    ...policy.ipLists.flatMap((list) => list.names ?? []),
    ...rules.flatMap(({ from, to }) => [...namesOf(from), ...namesOf(to)]),
  ];
  return [...new Set(names.map(canonicalName))].sort();
}
