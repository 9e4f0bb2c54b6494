/** What one policy has that another has not. */
import { isDeepStrictEqual } from 'node:util';
import type { PolicyContent } from './load.ts';

export type PolicyPart =
  | 'label'
  | 'label-group'
  | 'profile'
  | 'ip-list'
  | 'service'
  | 'ruleset'
  | 'rule'
  | 'boundary';

export interface PolicyChange {
  readonly change: 'added' | 'removed' | 'changed';
  readonly part: PolicyPart;
  /** Rules as `ruleset/rule`. */
  readonly name: string;
  /** Keys that differ, of what was changed; `order` where only the place did. */
  readonly keys: readonly string[];
}

interface Named {
  readonly name: string;
}

function changedKeys(before: object, after: object): string[] {
  const a = new Map<string, unknown>(Object.entries(before));
  const b = new Map<string, unknown>(Object.entries(after));
  return [...new Set([...a.keys(), ...b.keys()])].filter((key) => !isDeepStrictEqual(a.get(key), b.get(key)));
}

/** `isOrdered`: the first that matches is used, so the place matters. */
function compare<T extends object>(
  part: PolicyPart,
  before: readonly (Named & { readonly of: T })[],
  after: readonly (Named & { readonly of: T })[],
  isOrdered = false,
): PolicyChange[] {
  const old = new Map(before.map(({ name, of }) => [name, of]));
  const now = new Map(after.map(({ name, of }) => [name, of]));
  const removed = [...old.keys()].filter((name) => !now.has(name));
  const common = (names: Iterable<string>, other: ReadonlyMap<string, T>): string[] =>
    [...names].filter((name) => other.has(name));
  const [orderBefore, orderAfter] = [common(old.keys(), now), common(now.keys(), old)];
  const changes: PolicyChange[] = removed.map((name) => ({ change: 'removed', part, name, keys: [] }));
  for (const [name, of] of now) {
    const former = old.get(name);
    if (former === undefined) {
      changes.push({ change: 'added', part, name, keys: [] });
      continue;
    }
    const keys = changedKeys(former, of);
    if (isOrdered && orderBefore.indexOf(name) !== orderAfter.indexOf(name)) keys.push('order');
    if (keys.length > 0) changes.push({ change: 'changed', part, name, keys });
  }
  return changes;
}

const named = <T extends Named & object>(list: readonly T[] | undefined) =>
  (list ?? []).map((of) => ({ name: of.name, of }));

/** Everything that applying `after` in place of `before` changes, part by part. */
export function diffPolicies(before: PolicyContent, after: PolicyContent): PolicyChange[] {
  const rules = ({ rulesets }: PolicyContent) =>
    rulesets.flatMap((ruleset) => ruleset.rules.map((of) => ({ name: `${ruleset.name}/${of.name}`, of })));
  const heads = ({ rulesets }: PolicyContent) =>
    rulesets.map(({ rules: _, ...of }) => ({ name: of.name, of }));
  const labels = (content: PolicyContent) => content.labels.map((of) => ({ name: of.key, of }));
  return [
    ...compare('label', labels(before), labels(after)),
    ...compare('label-group', named(before.labelGroups), named(after.labelGroups)),
    ...compare('profile', named(before.profiles), named(after.profiles), true),
    ...compare('ip-list', named(before.ipLists), named(after.ipLists)),
    ...compare('service', named(before.services), named(after.services)),
    ...compare('ruleset', heads(before), heads(after)),
    ...compare('rule', rules(before), rules(after)),
    ...compare('boundary', named(before.boundaries), named(after.boundaries)),
  ];
}
