/**
 * Why a verdict is what it is. The verdict is always the engine's; this tells the way to it: which entries of the rule
 * matched, or which rules came near, and what each of them lacks.
 */

import type { Actor, PolicyDocument, Rule, Ruleset, ServiceRef } from '../../schemas/policy.ts';
import { boundariesName } from '../../schemas/policy.ts';
import { ruleId } from '../inventory/ids.ts';
import { parseAddress } from '../net/address.ts';
import { BlockSets } from './blocks.ts';
import {
  type ActorTest,
  ActorTests,
  type Fit,
  type JudgedEnd,
  type JudgedPort,
  type PortTest,
  portTests,
  selectorText,
} from './explain-fit.ts';
import { type CompiledSelector, expiryMsOf, labelGroupsOf, meetsSelector, type Selectable } from './match.ts';
import { finish, finishInSlices } from './steps.ts';

/** What a rule lacks, in a closed list. */
export const gapKinds = [
  'disabled',
  'expired',
  'source',
  'destination',
  'port',
  'scope',
  'direction',
] as const;
export type GapKind = (typeof gapKinds)[number];

export interface Gap {
  readonly kind: GapKind;
  /** In words: `covers 5432/tcp, not 5433/tcp`. */
  readonly text: string;
}

export interface RuleName {
  /** As in `rules.id`. */
  readonly id: string;
  /** `boundaries` for those. */
  readonly ruleset: string;
  readonly rule: string;
  readonly action: string;
  readonly owner: string;
  readonly ticket: string;
  readonly expires: string | null;
}

/** Which entry of a list matched: its place, from 0, and what it says. */
export interface Entry {
  readonly index: number;
  readonly text: string;
}

/** The way through a rule that matches. */
export interface RulePath extends RuleName {
  /** Entries of the scope that hold an end; null where the ruleset speaks of everything. */
  readonly scope: readonly Entry[] | null;
  readonly from: Entry;
  readonly to: Entry;
  /** Name of the service, null in place; and the ports. */
  readonly service: string | null;
  readonly ports: string;
}

export interface NearRule extends RuleName {
  /** Lower is nearer. */
  readonly distance: number;
  readonly gaps: readonly Gap[];
}

export interface ExplainedEnd {
  readonly identity: Selectable;
  /** Any form; null where none is known. */
  readonly address: string | null;
}

/** Rules that are farther than this are not near: another app at one end and another port is, two other apps are not. */
const farthest = 5;
const unparticularCost = 2;
const reversedCost = 2;
const scopeCost = 2;

interface Candidate {
  readonly name: RuleName;
  readonly rule: Pick<Rule, 'enabled' | 'expires' | 'scope'>;
  readonly isDisabled: boolean;
  readonly expiresMs: number;
  readonly from: readonly ActorTest[];
  readonly to: readonly ActorTest[];
  readonly ports: readonly PortTest[];
  readonly scope: readonly ScopeEntry[] | null;
}

interface ScopeEntry {
  readonly text: string;
  readonly selector: CompiledSelector;
}

function bestOf<T extends { fit: (...args: never[]) => Fit }>(
  tests: readonly T[],
  fitOf: (test: T) => Fit,
): { readonly index: number; readonly test: T; readonly fit: Fit } | null {
  let best: { index: number; test: T; fit: Fit } | null = null;
  for (const [index, test] of tests.entries()) {
    const fit = fitOf(test);
    if (best === null || fit.cost < best.fit.cost) best = { index, test, fit };
    if (fit.cost === 0 && fit.isParticular) break;
  }
  return best;
}

interface Pair {
  readonly source: JudgedEnd;
  readonly destination: JudgedEnd;
  readonly asked: JudgedPort;
}

/** What the scope of a rule says of a pair: null where it holds. */
function scopeGap({ scope, rule }: Candidate, { source, destination }: Pair): string | null {
  if (scope === null) {
    return null;
  }
  const held = (end: JudgedEnd): ScopeEntry[] =>
    scope.filter(({ selector }) => meetsSelector(selector, end.identity));
  const [a, b] = [held(source), held(destination)];
  const text = scope.map((entry) => entry.text).join(' or ');
  switch (rule.scope) {
    case 'intra':
      if (a.some((entry) => b.includes(entry))) return null;
      if (a.length > 0 && b.length > 0) return `within one entry of its scope only (${text})`;
      return a.length + b.length === 0
        ? `within its scope ${text} only`
        : `${a.length === 0 ? 'source' : 'destination'} not in scope ${text}, and the rule is for both ends within it`;
    case 'extra':
      return b.length > 0 ? null : `destination not in scope ${text}`;
    default:
      return a.length + b.length > 0 ? null : `neither end in scope ${text}`;
  }
}

/** How long making an explainer goes on before it lets others run, ms. */
const sliceMs = 5;

interface Candidates {
  readonly list: readonly Candidate[];
  readonly blocks: BlockSets;
}

/** Every rule and boundary, as what an end is tested by. */
function* candidateSteps(document: PolicyDocument): Generator<void, Candidates> {
  const tests = new ActorTests(labelGroupsOf(document.labelGroups), document.ipLists);
  const services = new Map(document.services.map(({ name, ports }) => [name, ports]));
  const list: Candidate[] = [];
  const add = (
    rule: {
      readonly from: readonly Actor[];
      readonly to: readonly Actor[];
      readonly services?: ServiceRef[];
    },
    rest: Pick<Candidate, 'name' | 'rule' | 'isDisabled' | 'expiresMs' | 'scope'>,
  ): void => {
    list.push({
      ...rest,
      from: rule.from.map((actor) => tests.test(actor)),
      to: rule.to.map((actor) => tests.test(actor)),
      ports: portTests(rule.services, services),
    });
  };
  for (const ruleset of document.rulesets) {
    const scope =
      ruleset.scope?.map((labels) => ({ text: selectorText(labels), selector: tests.selector(labels) })) ??
      null;
    for (const rule of ruleset.rules) {
      add(rule, {
        name: nameOf(ruleset, rule),
        rule,
        isDisabled: rule.enabled === false || ruleset.enabled === false,
        expiresMs: rule.expires === undefined ? Number.POSITIVE_INFINITY : expiryMsOf(rule.expires),
        scope,
      });
      yield;
    }
  }
  for (const boundary of document.boundaries ?? []) {
    add(boundary, {
      name: {
        id: String(ruleId(boundariesName, boundary.name)),
        ruleset: boundariesName,
        rule: boundary.name,
        action: 'deny',
        owner: boundary.owner ?? '',
        ticket: boundary.ticket ?? '',
        expires: null,
      },
      rule: {},
      isDisabled: boundary.enabled === false,
      expiresMs: Number.POSITIVE_INFINITY,
      scope: null,
    });
    yield;
  }
  return { list, blocks: new BlockSets(tests.blocks) };
}

export class Explainer {
  readonly #candidates: readonly Candidate[];
  readonly #blocks: BlockSets;
  readonly #nowMs: number;

  /**
   * Made at once; where the event loop must go on turning, use {@link Explainer.of}.
   * @param nowMs the moment by which rules are expired or not
   */
  constructor(document: PolicyDocument, nowMs: number, candidates = finish(candidateSteps(document))) {
    this.#nowMs = nowMs;
    this.#candidates = candidates.list;
    this.#blocks = candidates.blocks;
  }

  /** Made a few ms at a time. */
  static async of(document: PolicyDocument, nowMs: number): Promise<Explainer> {
    return new Explainer(document, nowMs, await finishInSlices(candidateSteps(document), sliceMs));
  }

  /** An end with the conditions on addresses that it meets. */
  #judged({ identity, address }: ExplainedEnd): JudgedEnd {
    const bytes = address === null ? null : parseAddress(address);
    const set = bytes === null ? 0 : this.#blocks.find(bytes, 0);
    return { identity, address, blocks: new Set(this.#blocks.conditions[set] ?? []) };
  }

  #pair(source: ExplainedEnd, destination: ExplainedEnd, asked: JudgedPort): Pair {
    return { source: this.#judged(source), destination: this.#judged(destination), asked };
  }

  #pathOf(candidate: Candidate, pair: Pair): RulePath | null {
    if (candidate.isDisabled || candidate.expiresMs <= this.#nowMs) return null;
    const from = bestOf(candidate.from, (test) => test.fit(pair.source, 'source'));
    if (from === null || from.fit.cost > 0) return null;
    const to = bestOf(candidate.to, (test) => test.fit(pair.destination, 'destination'));
    if (to === null || to.fit.cost > 0) return null;
    const ports = bestOf(candidate.ports, (test) => test.fit(pair.asked));
    if (ports === null || ports.fit.cost > 0 || scopeGap(candidate, pair) !== null) return null;
    const { scope } = candidate;
    const ends = [pair.source.identity, pair.destination.identity];
    return {
      ...candidate.name,
      scope:
        scope?.flatMap(({ text, selector }, index) =>
          ends.some((end) => meetsSelector(selector, end)) ? [{ index, text }] : [],
        ) ?? null,
      from: { index: from.index, text: from.test.text },
      to: { index: to.index, text: to.test.text },
      service: ports.test.service,
      ports: ports.test.text,
    };
  }

  /** All rules that match, in the order of the policy: the way through each. */
  matching(source: ExplainedEnd, destination: ExplainedEnd, asked: JudgedPort): RulePath[] {
    const pair = this.#pair(source, destination, asked);
    return this.#candidates.flatMap((candidate) => this.#pathOf(candidate, pair) ?? []);
  }

  /** The rules that come nearest without matching, the nearest first, with what each lacks. */
  near(source: ExplainedEnd, destination: ExplainedEnd, asked: JudgedPort, limit: number): NearRule[] {
    const pair = this.#pair(source, destination, asked);
    const found = this.#candidates.flatMap((candidate) => this.#nearness(candidate, pair) ?? []);
    const helps = ({ action }: NearRule): number => (action === 'allow' ? 0 : 1);
    const fullName = ({ ruleset, rule }: NearRule): string => `${ruleset}/${rule}`;
    return found
      .toSorted(
        (a, b) => a.distance - b.distance || helps(a) - helps(b) || (fullName(a) < fullName(b) ? -1 : 1),
      )
      .slice(0, limit);
  }

  #nearness(candidate: Candidate, pair: Pair): NearRule | null {
    const from = bestOf(candidate.from, (test) => test.fit(pair.source, 'source'));
    const to = bestOf(candidate.to, (test) => test.fit(pair.destination, 'destination'));
    if (from === null || to === null) return null;
    // `any` at an end is no reason to think of a rule.
    const particular = [from, to].reduce(
      (sum, { fit }) => sum + (fit.isParticular ? 0 : unparticularCost),
      0,
    );
    const ends = from.fit.cost + to.fit.cost;
    const isReversed = ends > 0 && this.#isReversed(candidate, pair);
    // Nearly all rules are far, which is seen without a look at the rest.
    if (particular + (isReversed ? reversedCost : ends) > farthest) return null;
    const ports = bestOf(candidate.ports, (test) => test.fit(pair.asked));
    if (ports === null) return null;
    const gaps: Gap[] = [];
    let distance = particular;
    const add = (kind: GapKind, cost: number, text: string): void => {
      distance += cost;
      gaps.push({ kind, text });
    };
    if (candidate.isDisabled) add('disabled', 0.5, 'disabled');
    if (candidate.expiresMs <= this.#nowMs) add('expired', 0.5, `expired ${candidate.name.expires ?? ''}`);
    if (ports.fit.cost > 0) add('port', ports.fit.cost, portGap(candidate.ports, ports.fit));
    if (isReversed)
      add('direction', reversedCost, 'is for the other direction: from the destination to the source');
    else {
      if (from.fit.cost > 0) add('source', from.fit.cost, from.fit.missing());
      if (to.fit.cost > 0) add('destination', to.fit.cost, to.fit.missing());
    }
    const scope = scopeGap(candidate, pair);
    if (scope !== null) add('scope', scopeCost, scope);
    return gaps.length === 0 || distance > farthest ? null : { ...candidate.name, distance, gaps };
  }

  #isReversed(candidate: Candidate, { source, destination }: Pair): boolean {
    return (
      candidate.from.some((test) => test.fit(destination, 'source').cost === 0) &&
      candidate.to.some((test) => test.fit(source, 'destination').cost === 0)
    );
  }
}

function nameOf(ruleset: Ruleset, rule: Rule): RuleName {
  return {
    id: String(ruleId(ruleset.name, rule.name)),
    ruleset: ruleset.name,
    rule: rule.name,
    action: rule.action ?? 'allow',
    owner: rule.owner ?? ruleset.owner ?? '',
    ticket: rule.ticket ?? '',
    expires: rule.expires ?? null,
  };
}

/** Where a rule has several ports, all of them say what it covers. */
function portGap(tests: readonly PortTest[], fit: Fit): string {
  const shown = 5;
  const missing = fit.missing();
  if (tests.length < 2 || !missing.startsWith('covers ')) return missing;
  const texts = tests.slice(0, shown).map(({ text }) => text);
  const rest = tests.length > shown ? ` and ${tests.length - shown} more` : '';
  return `covers ${texts.join(', ')}${rest}, not ${missing.slice(missing.lastIndexOf(', not ') + 6)}`;
}
