/**
 * Which of many conditions an endpoint meets, without trying them all: each label selector waits at its rarest label, each
 * address condition at its block, so an endpoint looks only at what its own labels and blocks lead to.
 */
import type { Actor, LabelSelector } from '../../schemas/policy.ts';

/** What a selector may ask of an identity. */
export interface Selectable {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Name, as a block of addresses, of an ip-list. */
export const listBlock = (name: string): string => `list:${name}`;
/** Name, as a block of addresses, of a CIDR that a rule has in place. */
export const cidrBlock = (text: string): string => `cidr:${text}`;

function labelOf(of: Selectable, key: string): string | undefined {
  switch (key) {
    case 'cluster':
      return of.cluster;
    case 'namespace':
      return of.namespace;
    case 'kind':
      return of.kind;
    case 'name':
      return of.name;
    default:
      return of.labels[key];
  }
}

export function selects(selector: LabelSelector, of: Selectable): boolean {
  for (const key in selector) {
    const wanted = selector[key];
    const value = labelOf(of, key);
    if (value === undefined) return false;
    if (typeof wanted === 'string' ? value !== wanted : wanted?.includes(value) !== true) return false;
  }
  return true;
}

interface SelectorEntry {
  readonly selector: LabelSelector;
  readonly targets: number[];
}

const pairText = (key: string, value: string): string => `${key}\n${value}`;
const ownKeys = ['cluster', 'namespace', 'kind', 'name'] as const;

export class ConditionIndex {
  readonly #always: number[] = [];
  readonly #byBlock = new Map<string, number[]>();
  readonly #byPair = new Map<string, SelectorEntry[]>();

  /** @param conditions actors, each with the number that `match` tells when an endpoint meets it */
  constructor(conditions: Iterable<readonly [actor: Actor, target: number]>) {
    const selectors = new Map<string, SelectorEntry>();
    for (const [actor, target] of conditions) {
      if ('labels' in actor) {
        // Thousands of rules speak of the same actors: each selector is tried once.
        const text = JSON.stringify(actor.labels);
        const entry = selectors.get(text);
        if (entry === undefined) selectors.set(text, { selector: actor.labels, targets: [target] });
        else entry.targets.push(target);
      } else if ('ipList' in actor) this.#atBlock(listBlock(actor.ipList), target);
      else if ('cidr' in actor)
        for (const text of [actor.cidr].flat()) this.#atBlock(cidrBlock(text), target);
      else this.#always.push(target);
    }
    this.#anchor([...selectors.values()]);
  }

  #atBlock(block: string, target: number): void {
    const targets = this.#byBlock.get(block);
    if (targets === undefined) this.#byBlock.set(block, [target]);
    else targets.push(target);
  }

  /** Puts each selector where the fewest others wait. */
  #anchor(entries: readonly SelectorEntry[]): void {
    const pairsOf = (key: string, wanted: string | readonly string[]): string[] =>
      [wanted].flat().map((value) => pairText(key, value));
    const counts = new Map<string, number>();
    for (const { selector } of entries) {
      for (const [key, wanted] of Object.entries(selector)) {
        for (const pair of pairsOf(key, wanted)) counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    for (const entry of entries) {
      let best: string[] = [];
      let bestCount = Number.POSITIVE_INFINITY;
      for (const [key, wanted] of Object.entries(entry.selector)) {
        const pairs = pairsOf(key, wanted);
        const count = pairs.reduce((sum, pair) => sum + (counts.get(pair) ?? 0), 0);
        if (count >= bestCount) continue;
        best = pairs;
        bestCount = count;
      }
      for (const pair of new Set(best)) {
        const waiting = this.#byPair.get(pair);
        if (waiting === undefined) this.#byPair.set(pair, [entry]);
        else waiting.push(entry);
      }
    }
  }

  /** Tells the target of every condition that the endpoint meets; a target with several conditions may be told again. */
  match(of: Selectable, blocks: ReadonlySet<string>, meets: (target: number) => void): void {
    for (const target of this.#always) meets(target);
    for (const block of blocks) for (const target of this.#byBlock.get(block) ?? []) meets(target);
    const at = (key: string, value: string): void => {
      for (const { selector, targets } of this.#byPair.get(pairText(key, value)) ?? []) {
        if (selects(selector, of)) for (const target of targets) meets(target);
      }
    };
    for (const key of ownKeys) at(key, of[key]);
    for (const key in of.labels) {
      const value = of.labels[key];
      // A label that is called like one of the built-in keys can't be asked for.
      if (value !== undefined && !ownKeys.some((own) => own === key)) at(key, value);
    }
  }
}
