/** What selectors, label groups and DNS patterns select, one end at a time: the meaning that all of policy shares. */
import type { LabelGroup, LabelSelector, SelectorValue } from '../../schemas/policy.ts';

/** What a selector may ask of an identity. */
export interface Selectable {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** The values of each label group, those of the groups within it too. */
export type LabelGroups = ReadonlyMap<string, ReadonlySet<string>>;

const noGroups: LabelGroups = new Map();
const noValues: ReadonlySet<string> = new Set();

/** Resolves groups of groups. Names that are not defined add nothing; the check of a policy refuses them, and circles. */
export function labelGroupsOf(groups: readonly LabelGroup[] = []): LabelGroups {
  const byName = new Map(groups.map((group) => [group.name, group]));
  const valuesBelow = (name: string, seen: Set<string>): string[] => {
    const group = byName.get(name);
    if (group === undefined || seen.has(name)) return [];
    seen.add(name);
    return [...group.values, ...(group.groups ?? []).flatMap((inner) => valuesBelow(inner, seen))];
  };
  return new Map(groups.map(({ name }) => [name, new Set(valuesBelow(name, new Set()))]));
}

/** The value that a selector's key asks for: cluster, namespace, kind and name are built in, the rest are labels. */
export function labelOf(of: Selectable, key: string): string | undefined {
  switch (key) {
    case 'cluster':
      return of.cluster;
    case 'namespace':
      return of.namespace;
    case 'kind':
      return of.kind;
    case 'name':
      return of.name;
    default: {
      // A key such as `constructor` finds what every object has: that is no label.
      const value: unknown = of.labels[key];
      return typeof value === 'string' ? value : undefined;
    }
  }
}

/** What is wanted of one label: one of the values, or none of them. */
export interface WantedValues {
  readonly not: boolean;
  readonly values: ReadonlySet<string>;
}

export function wantedValues(wanted: SelectorValue, groups: LabelGroups = noGroups): WantedValues {
  if (typeof wanted === 'string') return { not: false, values: new Set([wanted]) };
  if (Array.isArray(wanted)) return { not: false, values: new Set(wanted) };
  if ('group' in wanted) return { not: false, values: groups.get(wanted.group) ?? noValues };
  return { not: true, values: wantedValues(wanted.not, groups).values };
}

/** A selector with its groups resolved. */
export type CompiledSelector = readonly (WantedValues & { readonly key: string })[];

export function compileSelector(selector: LabelSelector, groups: LabelGroups = noGroups): CompiledSelector {
  return Object.entries(selector).map(([key, wanted]) => ({ key, ...wantedValues(wanted, groups) }));
}

/** Whether an end has all that is wanted. Of an end that nobody knows (kind `unknown`) no `not` is certain, so none holds. */
export function meetsSelector(selector: CompiledSelector, of: Selectable): boolean {
  for (const { key, not, values } of selector) {
    if (not && of.kind === 'unknown') return false;
    const value = labelOf(of, key);
    if (value === undefined ? !not : values.has(value) === not) return false;
  }
  return true;
}

/** Whether a selector selects an end; see {@link meetsSelector}. */
export function selects(selector: LabelSelector, of: Selectable, groups: LabelGroups = noGroups): boolean {
  return meetsSelector(compileSelector(selector, groups), of);
}

/** The form in which DNS names are compared: lower case, without the dot of the root. */
export function canonicalDnsName(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

/** Whether a listed name (`api.acme.com`, or `*.acme.com` for all below) holds a name, or all that another pattern holds. */
export function dnsCovers(listed: string, name: string): boolean {
  const outer = canonicalDnsName(listed);
  const inner = canonicalDnsName(name);
  return outer === inner || (outer.startsWith('*.') && inner.endsWith(outer.slice(1)));
}

/**
 * When a rule expires, ms since the epoch: an ISO date, or date and time, which is UTC where it names no zone. NaN where
 * the text is neither.
 */
export function expiryMsOf(text: string): number {
  if (!/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/.test(text)) return Number.NaN;
  return Date.parse(/T.*(Z|[+-]\d\d:\d\d)$/.test(text) || !text.includes('T') ? text : `${text}Z`);
}
