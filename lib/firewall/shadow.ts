/** Rules that never get a flow, as earlier ones take all of theirs. */
import { everyAddress, intersect } from './addresses.ts';
import { type Matcher, nextCommon } from './matcher.ts';
import type { StaticRule } from './rule.ts';
import { highestPort, protocolsOf } from './services.ts';

/** Combinations of segments that are looked at for one rule; beyond it, whether it is shadowed is not said. */
const maxCombinations = 20_000;

export interface Shadow {
  /** Rules (by index) that take what it would, in order. */
  readonly by: readonly number[];
  /** Whether all of them do what it would do. */
  readonly isRedundant: boolean;
}

/** Places at which any rule begins or ends, so that between two of them all addresses are alike. */
function edgesOf(rules: readonly StaticRule[], end: 'source' | 'destination'): bigint[] {
  const edges = new Set<bigint>();
  for (const rule of rules)
    for (const { first, last } of rule[end]) {
      edges.add(first);
      edges.add(last + 1n);
    }
  return [...edges].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function firstAbove(sorted: readonly bigint[], value: bigint): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0n) <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Classes of the segments that a rule's addresses are cut into, each once. */
function addressClasses(
  rule: StaticRule,
  end: 'source' | 'destination',
  edges: readonly bigint[],
  classOf: (address: bigint) => number,
): Set<number> {
  const classes = new Set<number>();
  for (const { first, last } of intersect(rule[end], everyAddress)) {
    classes.add(classOf(first));
    for (let i = firstAbove(edges, first); i < edges.length; i++) {
      const at = edges[i];
      if (at === undefined || at > last) break;
      classes.add(classOf(at));
    }
  }
  return classes;
}

function portEdges(rules: readonly StaticRule[]): { readonly ports: number[]; readonly protocols: number[] } {
  const ports = new Set<number>();
  const protocols = new Set<number>();
  for (const { services } of rules)
    for (const range of services) {
      ports.add(range.first);
      ports.add(range.last + 1);
      for (const protocol of protocolsOf(range) ?? []) protocols.add(protocol);
    }
  return { ports: [...ports].sort((a, b) => a - b), protocols: [...protocols] };
}

function serviceClasses(
  rule: StaticRule,
  matcher: Matcher,
  edges: ReturnType<typeof portEdges>,
): Set<number> {
  const classes = new Set<number>();
  for (const range of rule.services) {
    // A protocol that no rule names is like any other such: one stands for all.
    const other = Array.from({ length: 256 }, (_, i) => i).find((i) => !edges.protocols.includes(i));
    const protocols = protocolsOf(range) ?? [...edges.protocols, ...(other === undefined ? [] : [other])];
    for (const protocol of protocols) {
      classes.add(matcher.serviceClass(protocol, range.first));
      for (const port of edges.ports)
        if (port > range.first && port <= Math.min(range.last, highestPort))
          classes.add(matcher.serviceClass(protocol, port));
    }
  }
  return classes;
}

/** For each rule the earlier ones that take everything it matches; `null` where something is left, or that can't be said. */
export function findShadows(rules: readonly StaticRule[], matcher: Matcher): (Shadow | null)[] {
  const sources = edgesOf(rules, 'source');
  const destinations = edgesOf(rules, 'destination');
  const services = portEdges(rules);
  const certain = new Uint32Array(Math.ceil(rules.length / 32));
  for (const { index, conditions } of rules)
    if (conditions.length === 0) certain[index >> 5] = (certain[index >> 5] ?? 0) | (1 << (index & 31));
  return rules.map((rule) => {
    if (rule.index === 0) return null;
    const source = addressClasses(rule, 'source', sources, matcher.sourceClass);
    const destination = addressClasses(rule, 'destination', destinations, matcher.destinationClass);
    const service = serviceClasses(rule, matcher, services);
    if (source.size * destination.size * service.size > maxCombinations) return null;
    const by = new Set<number>();
    for (const s of source)
      for (const d of destination)
        for (const p of service) {
          const sets = [s, d, p].map((index) => matcher.sets[index] ?? null);
          const first = nextCommon(rules.length, 0, [...sets, certain]);
          if (first < 0 || first >= rule.index) return null;
          by.add(first);
        }
    const list = [...by].sort((a, b) => a - b);
    return { by: list, isRedundant: list.every((index) => rules[index]?.action === rule.action) };
  });
}
