/**
 * Compiles a policy to tables. A lane is one way in which a rule can match: conditions on its source and conditions on its
 * destination that do not depend on each other, so that which lanes an end is fit for can be worked out for it alone.
 */
import type { Actor, PolicyDocument, PortSpec, Rule, RuleAction, Ruleset } from '../../schemas/policy.ts';
import { boundariesName } from '../../schemas/policy.ts';
import { ruleId } from '../inventory/ids.ts';
import { BlockSets } from './blocks.ts';
import { ConditionIndex } from './conditions.ts';
import { expiryMsOf, labelGroupsOf } from './match.ts';
import { ProcessClasses } from './processes.ts';

export interface CompiledRule {
  /** For a boundary a ruleset called {@link boundariesName}, which has no scope. */
  readonly ruleset: Ruleset;
  readonly rule: Rule;
  readonly action: RuleAction;
  readonly ports: readonly PortMatch[];
}

export interface PortMatch {
  /** IP protocol number, {@link anyProtocol} or {@link anyWithPorts}. */
  readonly protocol: number;
  /** For ICMP type * 256 + code, as in flows. */
  readonly fromPort: number;
  readonly toPort: number;
  /** Pattern of the process (see `ProcessClasses`), or -1 for any. */
  readonly process: number;
}

export const protocolNumbers: Readonly<Record<string, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  icmpv6: 58,
  sctp: 132,
  any: -1,
};

export const anyProtocol = -1;
/** Where any protocol will do on some ports: types of ICMP are no ports. */
export const anyWithPorts = -2;

export const isIcmp = (protocol: number): boolean => protocol === 1 || protocol === 58;

const allPorts: PortMatch = { protocol: anyProtocol, fromPort: 0, toPort: 65535, process: -1 };

/** What rules need of the two ends of a flow, beside the ports. */
export interface CompiledPolicy {
  readonly version: number;
  /** In the order in which they decide: the first rule that matches gives the verdict. */
  readonly rules: readonly CompiledRule[];
  /** Ids of the rules as pairs of words, low first, by index + 1; 0 for none. */
  readonly ruleIdWords: Uint32Array;
  readonly nextExpiryMs: number;
  readonly conditions: ConditionIndex;
  readonly blocks: BlockSets;
  readonly processes: ProcessClasses;
  /** For each condition the rules whose `from` it is one of. */
  readonly fromRules: readonly (readonly number[])[];
  readonly toRules: readonly (readonly number[])[];
  /** For each condition the needs that it meets: what a lane may need of an end, to be in a scope or in one entry of it. */
  readonly needs: readonly (readonly number[])[];
  /** Whether a ruleset without scope has everything in its. */
  readonly isScopeOpen: boolean;
  /** The lanes of rule i are those from `firstLane[i]` up to `firstLane[i + 1]`. */
  readonly firstLane: Int32Array;
  readonly laneRule: Int32Array;
  /** What each lane needs of the source beside its rule's `from`; -1 for nothing. */
  readonly laneSourceNeed: Int32Array;
  readonly laneDestinationNeed: Int32Array;
}

/** Compiles one port specification; a port without protocol is TCP, a protocol without port is all of its ports. */
export function compilePort(spec: PortSpec, processes: ProcessClasses): PortMatch {
  const numbered = protocolNumbers[spec.protocol ?? 'tcp'] ?? anyProtocol;
  const process = spec.process === undefined ? -1 : processes.add(spec.process);
  if (spec.icmpType !== undefined) {
    const first = spec.icmpType * 256 + (spec.icmpCode ?? 0);
    const last = spec.icmpCode === undefined ? first + 255 : first;
    return { protocol: numbered, fromPort: first, toPort: last, process };
  }
  if (spec.port === undefined) return { ...allPorts, protocol: numbered, process };
  const protocol = numbered === anyProtocol ? anyWithPorts : numbered;
  if (typeof spec.port === 'number') return { protocol, fromPort: spec.port, toPort: spec.port, process };
  const [from = 0, to = 0] = spec.port.split('-').map(Number);
  return { protocol, fromPort: from, toPort: to, process };
}

interface LiveRule {
  readonly ruleset: Ruleset;
  readonly rule: Rule;
  readonly action: RuleAction;
}

/** Rulesets as they are evaluated: those that are enabled, and the boundaries as the last. */
function liveRulesets(document: PolicyDocument): Ruleset[] {
  const boundaries = (document.boundaries ?? []).map((one): Rule => ({ ...one, action: 'deny' }));
  return [
    ...document.rulesets.filter((ruleset) => ruleset.enabled !== false),
    ...(boundaries.length === 0 ? [] : [{ name: boundariesName, rules: boundaries }]),
  ];
}

/** Rules that may decide at `nowMs`, in the order in which they do, and when the next of them expires. */
function liveRules(
  rulesets: readonly Ruleset[],
  nowMs: number,
): { readonly rules: readonly LiveRule[]; readonly nextExpiryMs: number } {
  let nextExpiryMs = Number.POSITIVE_INFINITY;
  const byAction: Record<RuleAction, LiveRule[]> = { 'override-deny': [], allow: [], deny: [] };
  for (const ruleset of rulesets) {
    for (const rule of ruleset.rules) {
      if (rule.enabled === false) continue;
      if (rule.expires !== undefined) {
        const expiryMs = expiryMsOf(rule.expires);
        if (expiryMs <= nowMs) continue;
        if (expiryMs < nextExpiryMs) nextExpiryMs = expiryMs;
      }
      const action = rule.action ?? 'allow';
      byAction[action].push({ ruleset, rule, action });
    }
  }
  return { rules: [...byAction['override-deny'], ...byAction.allow, ...byAction.deny], nextExpiryMs };
}

/** Collects, for each condition, what it is a condition of. */
function listAt(lists: number[][], at: number, value: number): void {
  const list = lists[at];
  if (list === undefined) lists[at] = [value];
  else if (list.at(-1) !== value) list.push(value);
}

/** What rulesets need of ends: each has a number for its whole scope, and one for each entry, if rules ask for it. */
class Needs {
  readonly byCondition: number[][] = [];
  readonly #conditions: ConditionIndex;
  readonly #entries = new Map<Ruleset, readonly number[]>();
  readonly #scopes = new Map<Ruleset, number>();
  #count = 0;

  constructor(conditions: ConditionIndex) {
    this.#conditions = conditions;
  }

  add(ruleset: Ruleset): void {
    if (ruleset.scope === undefined) return;
    const need = this.#count++;
    this.#scopes.set(ruleset, need);
    for (const selector of ruleset.scope)
      listAt(this.byCondition, this.#conditions.addSelector(selector), need);
  }

  /** In the scope of the ruleset; -1 where it has none, so that everything is. */
  scopeOf(ruleset: Ruleset): number {
    return this.#scopes.get(ruleset) ?? -1;
  }

  /** In each entry of the scope. */
  entriesOf(ruleset: Ruleset): readonly number[] {
    let entries = this.#entries.get(ruleset);
    if (entries === undefined) {
      entries = (ruleset.scope ?? []).map((selector) => {
        const need = this.#count++;
        listAt(this.byCondition, this.#conditions.addSelector(selector), need);
        return need;
      });
      this.#entries.set(ruleset, entries);
    }
    return entries;
  }
}

/** Needs of source and destination for each lane of a rule. */
function lanesOf(
  { ruleset, rule }: LiveRule,
  needs: Needs,
): (readonly [source: number, destination: number])[] {
  const scope = needs.scopeOf(ruleset);
  if (scope < 0) return [[-1, -1]];
  if (rule.scope === 'extra') return [[-1, scope]];
  if (rule.scope === 'intra') return needs.entriesOf(ruleset).map((entry) => [entry, entry] as const);
  return [
    [scope, -1],
    [-1, scope],
  ];
}

/** Compiles in steps of well under a millisecond, so that whoever runs it can do other things in between. */
export function* compileSteps(document: PolicyDocument, nowMs: number): Generator<void, CompiledPolicy> {
  const services = new Map(document.services.map((service) => [service.name, service.ports]));
  const rulesets = liveRulesets(document);
  const { rules: live, nextExpiryMs } = liveRules(rulesets, nowMs);
  yield;
  const processes = new ProcessClasses();
  const conditions = new ConditionIndex(labelGroupsOf(document.labelGroups), document.ipLists);
  const needs = new Needs(conditions);
  for (const [i, ruleset] of rulesets.entries()) {
    if (i % 128 === 0) yield;
    needs.add(ruleset);
  }
  const fromRules: number[][] = [];
  const toRules: number[][] = [];
  const rules: CompiledRule[] = [];
  const ruleIdWords = new Uint32Array((live.length + 1) * 2);
  const firstLane = new Int32Array(live.length + 1);
  const laneRule: number[] = [];
  const sourceNeeds: number[] = [];
  const destinationNeeds: number[] = [];
  const addEnd = (actors: readonly Actor[], lists: number[][], index: number): void => {
    for (const actor of actors) for (const at of conditions.add(actor)) listAt(lists, at, index);
  };
  for (const [index, one] of live.entries()) {
    if (index % 128 === 0) yield;
    const { rule } = one;
    const ports =
      rule.services === undefined
        ? [allPorts]
        : rule.services
            .flatMap((ref) => (typeof ref === 'string' ? (services.get(ref) ?? []) : [ref]))
            .map((spec) => compilePort(spec, processes));
    rules.push({ ...one, ports });
    const id = ruleId(one.ruleset.name, rule.name);
    ruleIdWords[index * 2 + 2] = Number(id & 0xffffffffn);
    ruleIdWords[index * 2 + 3] = Number(id >> 32n);
    addEnd(rule.from, fromRules, index);
    addEnd(rule.to, toRules, index);
    firstLane[index] = laneRule.length;
    for (const [source, destination] of lanesOf(one, needs)) {
      laneRule.push(index);
      sourceNeeds.push(source);
      destinationNeeds.push(destination);
    }
  }
  firstLane[live.length] = laneRule.length;
  yield* conditions.anchor();
  const blocks = yield* BlockSets.steps(conditions.blocks);
  return {
    version: document.version,
    rules,
    ruleIdWords,
    nextExpiryMs,
    conditions,
    blocks,
    processes,
    fromRules,
    toRules,
    needs: needs.byCondition,
    isScopeOpen: rulesets.some(({ name, scope }) => scope === undefined && name !== boundariesName),
    firstLane,
    laneRule: Int32Array.from(laneRule),
    laneSourceNeed: Int32Array.from(sourceNeeds),
    laneDestinationNeed: Int32Array.from(destinationNeeds),
  };
}
