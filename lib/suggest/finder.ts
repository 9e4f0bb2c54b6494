/** Finds identities by selectors, and selectors by identities, without trying every pair. */
import type { Actor, LabelSelector } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { type CompiledSelector, compileSelector, type LabelGroups, meetsSelector } from '../policy/match.ts';

/** Keys whose values are looked up: most selectors have one of them. */
const anchorKeys = ['app', 'role'] as const;

const pairText = (key: string, value: string): string => `${key}\n${value}`;

/** The pairs of which every match has one; null where the selector has to be tried everywhere. */
function anchorsOf(selector: CompiledSelector): string[] | null {
  for (const wanted of anchorKeys) {
    const found = selector.find(({ key, not }) => key === wanted && !not);
    if (found !== undefined) return [...found.values].map((value) => pairText(wanted, value));
  }
  return null;
}

function pairsOf(of: KnownIdentity): string[] {
  return anchorKeys.flatMap((key) => {
    const value = of.labels[key];
    return value === undefined ? [] : [pairText(key, value)];
  });
}

export class IdentityFinder {
  readonly #all: readonly KnownIdentity[];
  readonly #groups: LabelGroups;
  readonly #byPair = new Map<string, KnownIdentity[]>();

  constructor(identities: readonly KnownIdentity[], groups: LabelGroups) {
    this.#all = identities;
    this.#groups = groups;
    for (const identity of identities) {
      for (const pair of pairsOf(identity)) {
        const list = this.#byPair.get(pair);
        if (list === undefined) this.#byPair.set(pair, [identity]);
        else list.push(identity);
      }
    }
  }

  /** Identities that one of the actors names by its labels, each once. */
  find(actors: readonly Actor[]): KnownIdentity[] {
    const found = new Set<KnownIdentity>();
    for (const actor of actors) {
      if (!('labels' in actor)) continue;
      const selector = compileSelector(actor.labels, this.#groups);
      const near = anchorsOf(selector)?.flatMap((pair) => this.#byPair.get(pair) ?? []) ?? this.#all;
      for (const identity of near) if (meetsSelector(selector, identity)) found.add(identity);
    }
    return [...found];
  }
}

/** Things that wait for identities which meet their selector. */
export class SelectorIndex<T> {
  readonly #groups: LabelGroups;
  readonly #byPair = new Map<string, { readonly selector: CompiledSelector; readonly what: T }[]>();
  readonly #anywhere: { readonly selector: CompiledSelector; readonly what: T }[] = [];
  readonly #known = new Map<string, readonly T[]>();

  constructor(groups: LabelGroups) {
    this.#groups = groups;
  }

  add(labels: LabelSelector, what: T): void {
    const selector = compileSelector(labels, this.#groups);
    const anchors = anchorsOf(selector);
    if (anchors === null) this.#anywhere.push({ selector, what });
    for (const pair of anchors ?? []) {
      const list = this.#byPair.get(pair);
      if (list === undefined) this.#byPair.set(pair, [{ selector, what }]);
      else list.push({ selector, what });
    }
  }

  /** What waits for an identity; worked out once for each. */
  of(identity: KnownIdentity): readonly T[] {
    const known = this.#known.get(identity.id);
    if (known !== undefined) return known;
    const near = pairsOf(identity).flatMap((pair) => this.#byPair.get(pair) ?? []);
    const met = [...near, ...this.#anywhere].filter(({ selector }) => meetsSelector(selector, identity));
    const found = [...new Set(met.map(({ what }) => what))];
    this.#known.set(identity.id, found);
    return found;
  }
}
