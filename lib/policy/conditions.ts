/**
 * Which of many conditions an endpoint meets, without trying them all: each label selector waits at its rarest label, each
 * DNS name at its name, each address condition at its block, so an endpoint looks only at what its own labels, name and
 * blocks lead to. Equal conditions are one.
 */
import type { Actor, IpList, LabelSelector } from '../../schemas/policy.ts';
import {
  type CompiledSelector,
  canonicalDnsName,
  compileSelector,
  type LabelGroups,
  meetsSelector,
  type Selectable,
} from './match.ts';

/** A block of addresses as a policy writes it, and the condition that an address in it meets. */
export interface BlockEntry {
  readonly condition: number;
  /** CIDR or address, with a leading `!` where it leaves out. */
  readonly text: string;
}

interface SelectorEntry {
  readonly selector: CompiledSelector;
  readonly condition: number;
}

const pairText = (key: string, value: string): string => `${key}\n${value}`;
const ownKeys = ['cluster', 'namespace', 'kind', 'name'] as const;

function append<K>(map: Map<K, number[]>, key: K, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** Collects conditions (numbered from 0), then answers which of them an end meets. */
export class ConditionIndex {
  readonly #groups: LabelGroups;
  readonly #ipLists: ReadonlyMap<string, IpList>;
  readonly #known = new Map<string, number>();
  /** What `{ any: true }` is. */
  #always = -1;
  #selectors: SelectorEntry[] = [];
  readonly #byPair = new Map<string, SelectorEntry[]>();
  /** Selectors of nothing but `not`, which no label leads to. */
  readonly #unanchored: SelectorEntry[] = [];
  readonly #byDns = new Map<string, number[]>();
  /** By what stands after the `*.` */
  readonly #belowDns = new Map<string, number[]>();
  readonly blocks: BlockEntry[] = [];

  constructor(groups: LabelGroups, ipLists: readonly IpList[]) {
    this.#groups = groups;
    this.#ipLists = new Map(ipLists.map((list) => [list.name, list]));
  }

  get count(): number {
    return this.#known.size;
  }

  /** The conditions of which one is enough to be this actor. */
  add(actor: Actor): number[] {
    if ('labels' in actor) return [this.addSelector(actor.labels)];
    if ('ipList' in actor)
      return [this.#once(`list ${actor.ipList}`, (at) => this.#addList(actor.ipList, at))];
    if ('cidr' in actor)
      return [actor.cidr]
        .flat()
        .map((text) => this.#once(`cidr ${text}`, (condition) => this.blocks.push({ condition, text })));
    if ('dns' in actor)
      return [actor.dns].flat().map((name) => this.#once(`dns ${name}`, (at) => this.#addDns(name, at)));
    return [
      this.#once('any', (at) => {
        this.#always = at;
      }),
    ];
  }

  addSelector(selector: LabelSelector): number {
    return this.#once(`labels ${JSON.stringify(selector)}`, (condition) => {
      this.#selectors.push({ selector: compileSelector(selector, this.#groups), condition });
    });
  }

  /** Thousands of rules speak of the same actors: each is a condition once. */
  #once(text: string, make: (condition: number) => void): number {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const condition = this.#known.size;
    this.#known.set(text, condition);
    make(condition);
    return condition;
  }

  #addList(name: string, condition: number): void {
    const list = this.#ipLists.get(name);
    for (const text of list?.cidrs ?? []) this.blocks.push({ condition, text });
    for (const dns of list?.names ?? []) this.#addDns(dns, condition);
  }

  #addDns(listed: string, condition: number): void {
    const name = canonicalDnsName(listed);
    if (name.startsWith('*.')) append(this.#belowDns, name.slice(2), condition);
    else append(this.#byDns, name, condition);
  }

  /** To be run to its end once all conditions are added: puts each selector where the fewest others wait. */
  *anchor(): Generator<void, void> {
    const counts = new Map<string, number>();
    for (const [i, { selector }] of this.#selectors.entries()) {
      if (i % 256 === 0) yield;
      for (const { key, not, values } of selector) {
        if (not) continue;
        for (const value of values) {
          const pair = pairText(key, value);
          counts.set(pair, (counts.get(pair) ?? 0) + 1);
        }
      }
    }
    for (const [i, entry] of this.#selectors.entries()) {
      if (i % 256 === 0) yield;
      this.#anchorOne(entry, counts);
    }
    this.#selectors = [];
  }

  #anchorOne(entry: SelectorEntry, counts: ReadonlyMap<string, number>): void {
    let best: string[] | undefined;
    let bestCount = Number.POSITIVE_INFINITY;
    for (const { key, not, values } of entry.selector) {
      if (not) continue;
      const pairs = [...values].map((value) => pairText(key, value));
      const count = pairs.reduce((sum, pair) => sum + (counts.get(pair) ?? 0), 0);
      if (count >= bestCount) continue;
      best = pairs;
      bestCount = count;
    }
    if (best === undefined) this.#unanchored.push(entry);
    for (const pair of best ?? []) {
      const waiting = this.#byPair.get(pair);
      if (waiting === undefined) this.#byPair.set(pair, [entry]);
      else waiting.push(entry);
    }
  }

  /** Tells every condition that the endpoint meets; some may be told twice. `blocks` are those its address lies in. */
  match(of: Selectable, blocks: readonly number[], meets: (condition: number) => void): void {
    if (this.#always >= 0) meets(this.#always);
    for (const condition of blocks) meets(condition);
    const tryAll = (entries: readonly SelectorEntry[] | undefined): void => {
      if (entries === undefined) return;
      for (const { selector, condition } of entries) if (meetsSelector(selector, of)) meets(condition);
    };
    tryAll(this.#unanchored);
    for (const key of ownKeys) tryAll(this.#byPair.get(pairText(key, of[key])));
    for (const key in of.labels) {
      const value = of.labels[key];
      // A label that is called like one of the built-in keys can't be asked for.
      if (value !== undefined && !ownKeys.some((own) => own === key))
        tryAll(this.#byPair.get(pairText(key, value)));
    }
    if (of.kind === 'name') this.#matchDns(canonicalDnsName(of.name), meets);
  }

  /** `name` is what is listed: a name, or a pattern, which lies below itself and what is around it. */
  #matchDns(name: string, meets: (condition: number) => void): void {
    for (const condition of this.#byDns.get(name) ?? []) meets(condition);
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1))
      for (const condition of this.#belowDns.get(name.slice(dot + 1)) ?? []) meets(condition);
  }
}
