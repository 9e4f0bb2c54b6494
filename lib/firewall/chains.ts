/** Chains of nftables and iptables: rules with jumps, laid out as one list in the order in which a packet meets them. */
import { type AddressSet, everyAddress, intersect } from './addresses.ts';
import type { FirewallAction, Ignored, StaticRule } from './rule.ts';
import { everyService, intersectServices, type Services } from './services.ts';

/** What a packet has to be like. */
export interface Match {
  readonly source: AddressSet;
  readonly destination: AddressSet;
  readonly services: Services;
  /** See `StaticRule.conditions`. */
  readonly conditions: readonly string[];
}

export const matchAll: Match = {
  source: everyAddress,
  destination: everyAddress,
  services: everyService,
  conditions: [],
};

export type Target =
  | { readonly type: 'verdict'; readonly action: FirewallAction }
  | { readonly type: 'jump' | 'goto'; readonly chain: string }
  | { readonly type: 'return' }
  /** Nothing that decides, such as a counter. */
  | { readonly type: 'none' };

export interface ChainRule {
  readonly line: number;
  /** As it stands in the file. */
  readonly text: string;
  readonly comment: string;
  readonly match: Match;
  readonly target: Target;
  /** Why it can't be taken; empty where it can. */
  readonly problem: string;
}

export interface Chain {
  readonly name: string;
  /** `forward`, `input`, `output`, ...; empty for a chain that is jumped to. */
  readonly hook: string;
  /** What is done with what no rule decided; `null` for chains that are jumped to. */
  readonly policy: FirewallAction | null;
  readonly line: number;
  /** Addresses of its family. */
  readonly every: AddressSet;
  readonly rules: ChainRule[];
}

/** Jumps within jumps at most; deeper is a loop. */
const maxDepth = 16;
/** Rules after laying out at most: chains that many jump to count for each. */
const maxRules = 50_000;

export function both(a: Match, b: Match): Match {
  return {
    source: intersect(a.source, b.source),
    destination: intersect(a.destination, b.destination),
    services: intersectServices(a.services, b.services),
    conditions: [...new Set([...a.conditions, ...b.conditions])],
  };
}

function isEmpty({ source, destination, services }: Match): boolean {
  return source.length === 0 || destination.length === 0 || services.length === 0;
}

interface Layout {
  readonly chains: ReadonlyMap<string, Chain>;
  readonly rules: StaticRule[];
  readonly ignored: Ignored[];
  readonly visited: Set<string>;
}

function place(layout: Layout, match: Match, action: FirewallAction, line: number, comment: string): void {
  if (isEmpty(match) || layout.rules.length >= maxRules) return;
  const { source, destination, services, conditions } = match;
  const index = layout.rules.length;
  layout.rules.push({ index, line, action, source, destination, services, comment, columns: {}, conditions });
}

/** Lays out one chain under `given`; what leaves it early makes what follows uncertain. */
function walk(layout: Layout, chain: Chain, given: Match, depth: number): void {
  layout.visited.add(chain.name);
  let left: Match = given;
  const leaves = (why: string): void => {
    left = { ...left, conditions: [...left.conditions, why] };
  };
  for (const rule of chain.rules) {
    const ignore = (reason: string): void => {
      if (!layout.ignored.some(({ line }) => line === rule.line))
        layout.ignored.push({ line: rule.line, text: rule.text, reason });
    };
    if (rule.problem !== '') {
      ignore(rule.problem);
      continue;
    }
    const match = both(left, rule.match);
    const { target } = rule;
    if (target.type === 'verdict') place(layout, match, target.action, rule.line, rule.comment);
    else if (target.type === 'return') {
      if (rule !== chain.rules.at(-1)) {
        ignore('a return is not followed: hits of the rules after it are an upper bound');
        leaves(`the return on line ${rule.line}`);
      }
    } else if (target.type !== 'none') {
      const next = layout.chains.get(target.chain);
      if (next === undefined) ignore(`there is no chain ${target.chain}`);
      else if (depth >= maxDepth) ignore(`jumps are followed ${maxDepth} deep at most`);
      else {
        walk(layout, next, match, depth + 1);
        if (target.type === 'goto') leaves(`the goto on line ${rule.line}`);
      }
    }
  }
}

export interface LaidOut {
  readonly rules: readonly StaticRule[];
  readonly ignored: readonly Ignored[];
  readonly problems: readonly string[];
}

function hookNames(chains: ReadonlyMap<string, Chain>): string {
  const names = [...chains.values()].map(({ name, hook }) => (hook === '' ? name : `${name} (${hook})`));
  return names.length === 0 ? 'none' : names.join(', ');
}

/**
 * The rules that a packet meets which starts in the chain `wanted`, or in every chain of the hook `forward` where none is
 * named. Rules of other chains are ignored, each by its line.
 */
export function layOut(chains: ReadonlyMap<string, Chain>, wanted: string | null): LaidOut {
  const starts = [...chains.values()].filter(({ name, hook }) =>
    wanted === null ? hook === 'forward' : name === wanted || name.split(' ').at(-1) === wanted,
  );
  const layout: Layout = { chains, rules: [], ignored: [], visited: new Set() };
  if (starts.length === 0) {
    const what = wanted === null ? 'there is no chain of the hook forward' : `there is no chain ${wanted}`;
    return { rules: [], ignored: [], problems: [`line 1: ${what}; there are: ${hookNames(chains)}`] };
  }
  for (const chain of starts) {
    const { every } = chain;
    walk(layout, chain, matchAll, 0);
    if (chain.policy !== null)
      place(
        layout,
        { ...matchAll, source: every, destination: every },
        chain.policy,
        chain.line,
        `policy of ${chain.name}`,
      );
  }
  for (const chain of chains.values()) {
    if (layout.visited.has(chain.name)) continue;
    for (const { line, text } of chain.rules)
      layout.ignored.push({
        line,
        text,
        reason: `chain ${chain.name} is not met by forwarded packets; name it with --chain`,
      });
  }
  const problems =
    layout.rules.length >= maxRules ? [`line 1: more than ${maxRules} rules once jumps are followed`] : [];
  const ignored = layout.ignored.sort((a, b) => a.line - b.line);
  return { rules: problems.length > 0 ? [] : layout.rules, ignored, problems };
}
