/**
 * Whether all that one rule matches is matched by another too, by what is written alone: a `false` may mean that it can't be
 * told without knowing the workloads.
 */
import type { Actor, LabelSelector, PortSpec, Rule, Ruleset, ServiceRef } from '../../schemas/policy.ts';
import { type Cidr, parseCidr } from '../net/address.ts';
import { anyProtocol, anyWithPorts, compilePort, isIcmp, type PortMatch } from './compile.ts';
import {
  type CompiledSelector,
  compileSelector,
  dnsCovers,
  type LabelGroups,
  type WantedValues,
} from './match.ts';
import { patternInside } from './patterns.ts';
import { ProcessClasses } from './processes.ts';

/** What names in rules stand for. */
export interface Names {
  readonly groups: LabelGroups;
  readonly ipLists: ReadonlyMap<
    string,
    { readonly cidrs?: readonly string[]; readonly names?: readonly string[] }
  >;
  readonly services: ReadonlyMap<string, readonly PortSpec[]>;
}

export type End =
  | { readonly of: 'any' }
  | { readonly of: 'labels'; readonly selector: CompiledSelector }
  | {
      readonly of: 'outside';
      readonly blocks: readonly Cidr[];
      readonly leftOut: readonly Cidr[];
      readonly names: readonly string[];
    };

export interface Ports {
  readonly match: PortMatch;
  /** Pattern of the process; null for any. */
  readonly process: string | null;
}

/** All that decides what a rule matches. */
export interface Breadth {
  readonly from: readonly End[];
  readonly to: readonly End[];
  /** Null for all there are. */
  readonly ports: readonly Ports[] | null;
  /** Null for everything. */
  readonly scope: readonly CompiledSelector[] | null;
  readonly scopeKind: Rule['scope'];
}

function blocksOf(texts: readonly string[]): Cidr[] {
  return texts.flatMap((text) => parseCidr(text) ?? []);
}

function outside(cidrs: readonly string[], names: readonly string[]): End {
  return {
    of: 'outside',
    blocks: blocksOf(cidrs.filter((text) => !text.startsWith('!'))),
    leftOut: blocksOf(cidrs.flatMap((text) => (text.startsWith('!') ? [text.slice(1)] : []))),
    names,
  };
}

export function endOf(actor: Actor, names: Names): End {
  if ('any' in actor) return { of: 'any' };
  if ('labels' in actor) return { of: 'labels', selector: compileSelector(actor.labels, names.groups) };
  if ('cidr' in actor) return outside([actor.cidr].flat(), []);
  if ('dns' in actor) return outside([], [actor.dns].flat());
  const list = names.ipLists.get(actor.ipList);
  return outside(list?.cidrs ?? [], list?.names ?? []);
}

export function portsOf(refs: readonly ServiceRef[] | undefined, names: Names): readonly Ports[] | null {
  if (refs === undefined) return null;
  const specs = refs.flatMap((ref) => (typeof ref === 'string' ? (names.services.get(ref) ?? []) : [ref]));
  return specs.map((spec) => ({
    match: compilePort(spec, new ProcessClasses()),
    process: spec.process ?? null,
  }));
}

export function breadthOf(rule: Rule, ruleset: Pick<Ruleset, 'scope'>, names: Names): Breadth {
  const scopeOf = (selector: LabelSelector): CompiledSelector => compileSelector(selector, names.groups);
  return {
    from: rule.from.map((actor) => endOf(actor, names)),
    to: rule.to.map((actor) => endOf(actor, names)),
    ports: portsOf(rule.services, names),
    scope: ruleset.scope?.map(scopeOf) ?? null,
    scopeKind: rule.scope,
  };
}

function isWithin(inner: WantedValues, outer: WantedValues): boolean {
  if (outer.not) {
    // Whoever lacks all of the inner values lacks the outer ones, if they are among them.
    return inner.not
      ? [...outer.values].every((value) => inner.values.has(value))
      : [...inner.values].every((value) => !outer.values.has(value));
  }
  return !inner.not && [...inner.values].every((value) => outer.values.has(value));
}

const builtIn = new Set(['cluster', 'namespace', 'kind', 'name']);

/** Whether a selector can't select an end that nobody knows, which no `not` selects. */
function isOfKnown(selector: CompiledSelector): boolean {
  return selector.some(
    ({ key, not, values }) =>
      not || !builtIn.has(key) || (key === 'kind' ? !values.has('unknown') : !values.has('')),
  );
}

function selectorCovers(outer: CompiledSelector, inner: CompiledSelector): boolean {
  if (outer.some(({ not }) => not) && !isOfKnown(inner)) return false;
  return outer.every((wanted) => inner.some((own) => own.key === wanted.key && isWithin(own, wanted)));
}

function isAround(outer: Cidr, inner: Cidr): boolean {
  if (outer.prefix > inner.prefix) return false;
  for (let bit = 0; bit < outer.prefix; bit++) {
    const mask = 0x80 >> (bit & 7);
    if (((outer.base[bit >> 3] ?? 0) & mask) !== ((inner.base[bit >> 3] ?? 0) & mask)) return false;
  }
  return true;
}

function endCovers(outer: End, inner: End): boolean {
  if (outer.of === 'any') return true;
  if (outer.of === 'labels') return inner.of === 'labels' && selectorCovers(outer.selector, inner.selector);
  if (inner.of !== 'outside') return false;
  return (
    inner.names.every((name) => outer.names.some((listed) => dnsCovers(listed, name))) &&
    inner.blocks.every(
      (block) =>
        outer.blocks.some((around) => isAround(around, block)) &&
        outer.leftOut.every(
          (hole) =>
            (!isAround(hole, block) && !isAround(block, hole)) ||
            inner.leftOut.some((own) => isAround(own, hole)),
        ),
    )
  );
}

function endsCover(outer: readonly End[], inner: readonly End[]): boolean {
  return inner.every((one) => outer.some((other) => endCovers(other, one)));
}

function protocolCovers(outer: number, inner: number): boolean {
  if (outer === anyProtocol || outer === inner) return true;
  return outer === anyWithPorts && inner !== anyProtocol && !isIcmp(inner);
}

function portsCover(outer: readonly Ports[] | null, inner: readonly Ports[] | null): boolean {
  if (outer === null) return true;
  const covers = (a: Ports, b: Ports): boolean =>
    protocolCovers(a.match.protocol, b.match.protocol) &&
    a.match.fromPort <= b.match.fromPort &&
    a.match.toPort >= b.match.toPort &&
    (a.process === null || (b.process !== null && patternInside(b.process, a.process)));
  const all: Ports = {
    match: { protocol: anyProtocol, fromPort: 0, toPort: 65535, process: -1 },
    process: null,
  };
  return (inner ?? [all]).every((one) => outer.some((other) => covers(other, one)));
}

function scopeCovers(outer: Breadth, inner: Breadth): boolean {
  if (outer.scope === null) return true;
  if (inner.scope === null) return false;
  if (outer.scopeKind !== undefined && outer.scopeKind !== inner.scopeKind) return false;
  return inner.scope.every((one) => outer.scope?.some((other) => selectorCovers(other, one)) === true);
}

/** Whether `outer` matches all that `inner` matches. */
export function covers(outer: Breadth, inner: Breadth): boolean {
  return (
    endsCover(outer.from, inner.from) &&
    endsCover(outer.to, inner.to) &&
    portsCover(outer.ports, inner.ports) &&
    scopeCovers(outer, inner)
  );
}

/**
 * Finds rules that may cover others on one end, by the rarest label that an end asks for: only such with a value in common
 * can cover it.
 */
export class EndIndex {
  readonly #anywhere: number[] = [];
  readonly #outside: number[] = [];
  readonly #byPair = new Map<string, number[]>();

  add(ends: readonly End[], rule: number): void {
    for (const end of ends) {
      if (end.of === 'outside') this.#outside.push(rule);
      const wanted = end.of === 'labels' ? end.selector.filter(({ not }) => !not) : [];
      const rarest = wanted.toSorted((a, b) => a.values.size - b.values.size)[0];
      if (rarest === undefined) {
        if (end.of !== 'outside') this.#anywhere.push(rule);
        continue;
      }
      for (const value of rarest.values) {
        const pair = `${rarest.key}\n${value}`;
        const rules = this.#byPair.get(pair);
        if (rules === undefined) this.#byPair.set(pair, [rule]);
        else rules.push(rule);
      }
    }
  }

  /** Every rule that may cover these ends, and others. */
  candidates([first]: readonly End[]): number[] {
    const found = [...this.#anywhere];
    if (first?.of === 'outside') found.push(...this.#outside);
    if (first?.of === 'labels') {
      for (const { key, not, values } of first.selector) {
        const [value] = values;
        if (!not && value !== undefined) found.push(...(this.#byPair.get(`${key}\n${value}`) ?? []));
      }
    }
    return found;
  }
}
