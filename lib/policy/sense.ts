/** What a policy says that makes little sense: rules that never decide, contradict, have expired, match nobody, or are broad. */
import type { Actor, Rule, RuleAction } from '../../schemas/policy.ts';
import { boundariesName } from '../../schemas/policy.ts';
import type { NamedFile, Path, PolicyProblem } from './check.ts';
import { ConditionIndex } from './conditions.ts';
import { type Breadth, breadthOf, covers, type End, EndIndex, type Names, type Ports } from './covers.ts';
import { expiryMsOf, labelGroupsOf, type Selectable } from './match.ts';
import { finish } from './steps.ts';

/** Above which an `allow` is called broad. */
export interface BroadLimits {
  /** Ports of one rule. */
  readonly maxPorts: number;
  /** Addresses of one end; of IPv6, networks of 64 bits. */
  readonly maxAddresses: number;
  /** Workloads that one end selects. */
  readonly maxWorkloads: number;
}

export const defaultBroadLimits: BroadLimits = { maxPorts: 1000, maxAddresses: 65_536, maxWorkloads: 5000 };

/** An identity of the inventory, and how many workloads have it now. */
export interface IdentityCount {
  readonly identity: Selectable;
  readonly workloads: number;
}

export interface SenseOptions {
  readonly nowMs: number;
  readonly limits: BroadLimits;
  /** Null where the inventory is not known: then nothing is said of rules that match nobody. */
  readonly identities: readonly IdentityCount[] | null;
}

interface PlacedRule {
  readonly rule: Rule;
  readonly action: RuleAction;
  /** `ruleset/rule`, or `boundaries/name`. */
  readonly title: string;
  readonly file: string;
  readonly path: Path;
  readonly expiryMs: number;
  readonly breadth: Breadth;
}

type Warn = (rule: Pick<PlacedRule, 'file'>, path: Path, message: string) => void;

const precedence: readonly RuleAction[] = ['override-deny', 'allow', 'deny'];
const beats: Readonly<Record<RuleAction, string>> = {
  'override-deny': 'override-deny decides before all others',
  allow: 'allow decides before deny',
  deny: 'it stands first',
};

/** Rules and boundaries that are enabled, in the order in which they decide. */
function rulesOf(files: readonly NamedFile[], names: Names): PlacedRule[] {
  const place = (
    rule: Rule,
    ruleset: Parameters<typeof breadthOf>[1] & { name: string },
    file: string,
    path: Path,
  ) => ({
    rule,
    action: rule.action ?? 'allow',
    title: `${ruleset.name}/${rule.name}`,
    file,
    path,
    expiryMs: rule.expires === undefined ? Number.POSITIVE_INFINITY : expiryMsOf(rule.expires),
    breadth: breadthOf(rule, ruleset, names),
  });
  const rules = files.flatMap(({ file, content }) =>
    (content.rulesets ?? []).flatMap((ruleset, i) =>
      ruleset.enabled === false
        ? []
        : ruleset.rules.flatMap((rule, k) =>
            rule.enabled === false ? [] : [place(rule, ruleset, file, ['rulesets', i, 'rules', k])],
          ),
    ),
  );
  const boundaries = files.flatMap(({ file, content }) =>
    (content.boundaries ?? []).flatMap((boundary, i) =>
      boundary.enabled === false
        ? []
        : [place({ ...boundary, action: 'deny' }, { name: boundariesName }, file, ['boundaries', i])],
    ),
  );
  return precedence.flatMap((action) => [...rules, ...boundaries].filter((rule) => rule.action === action));
}

/** Rules that never decide, as one that decides before them covers all of them. */
function checkShadows(rules: readonly PlacedRule[], warn: Warn): void {
  const sources = new EndIndex();
  const destinations = new EndIndex();
  for (const [index, later] of rules.entries()) {
    const { from, to } = later.breadth;
    const bySource = sources.candidates(from);
    const byDestination = destinations.candidates(to);
    const candidates = bySource.length < byDestination.length ? bySource : byDestination;
    for (const at of new Set(candidates)) {
      const earlier = rules[at];
      if (earlier === undefined || earlier.expiryMs < later.expiryMs) continue;
      if (!covers(earlier.breadth, later.breadth)) continue;
      warn(later, [...later.path, 'name'], shadowText(earlier, later));
      break;
    }
    sources.add(from, index);
    destinations.add(to, index);
  }
}

function shadowText(earlier: PlacedRule, later: PlacedRule): string {
  const isOpposite = (earlier.action === 'allow') !== (later.action === 'allow');
  const place = `${earlier.title} (${earlier.file} ${earlier.path.join('.')})`;
  if (isOpposite && covers(later.breadth, earlier.breadth))
    return `${later.title} contradicts ${place}: one is ${earlier.action}, the other ${later.action}, of the same; ${earlier.action} wins, so remove one of them`;
  return `${later.title} never decides: ${place} covers all of it, and ${earlier.action === later.action ? 'has the same action' : beats[earlier.action]}; remove it, or narrow ${earlier.title}`;
}

function checkExpired(rules: readonly PlacedRule[], nowMs: number, warn: Warn): void {
  for (const rule of rules) {
    if (rule.expiryMs <= nowMs)
      warn(
        rule,
        [...rule.path, 'expires'],
        `${rule.title} expired on ${rule.rule.expires}: it explains nothing; remove it, or give it a later date`,
      );
  }
}

/** Ports that are open: each protocol's own. */
function portCount(ports: readonly Ports[] | null): number {
  if (ports === null) return 65_536;
  return ports.reduce((sum, { match }) => sum + match.toPort - match.fromPort + 1, 0);
}

/** ICMP has types in place of ports: as many as there are is nothing broad. */
function isOfPorts({ match }: Ports): boolean {
  return match.protocol !== 1 && match.protocol !== 58;
}

function addressCount(end: End): number {
  if (end.of !== 'outside') return 0;
  return end.blocks.reduce((sum, { prefix, base }) => {
    const isIpv4 = prefix >= 96 && base[10] === 255 && base[11] === 255;
    return sum + 2 ** Math.max(0, (isIpv4 ? 128 : 64) - prefix);
  }, 0);
}

const counted = (count: number): string => Math.round(count).toLocaleString('en');

function checkBroad(rules: readonly PlacedRule[], limits: BroadLimits, warn: Warn): void {
  for (const rule of rules) {
    if (rule.action !== 'allow') continue;
    const { from, to, ports } = rule.breadth;
    if ([from, to].every((ends) => ends.some(({ of }) => of === 'any')))
      warn(
        rule,
        [...rule.path, 'to'],
        `${rule.title} is broad: it allows anything to reach anything; name one end`,
      );
    const open = portCount(ports?.filter(isOfPorts) ?? null);
    if (open > limits.maxPorts)
      warn(
        rule,
        rule.rule.services === undefined ? [...rule.path, 'name'] : [...rule.path, 'services'],
        `${rule.title} is broad: it allows ${counted(open)} ports, more than maxPorts (${counted(limits.maxPorts)}); name the services it needs`,
      );
    for (const side of ['from', 'to'] as const) {
      for (const [i, end] of rule.breadth[side].entries()) {
        const addresses = addressCount(end);
        if (addresses > limits.maxAddresses)
          warn(
            rule,
            [...rule.path, side, i],
            `${rule.title} is broad: it allows ${counted(addresses)} addresses, more than maxAddresses (${counted(limits.maxAddresses)}); name narrower blocks`,
          );
        if (end.of === 'labels' && end.selector.every(({ not }) => not))
          warn(
            rule,
            [...rule.path, side, i, 'labels'],
            `${rule.title} is broad: these labels only leave out, so all that has none of them is in, ranges and services too; name a label or a kind beside it`,
          );
      }
    }
  }
}

/** Ends that select nobody of the inventory, or more than the limit. */
function checkInventory(
  rules: readonly PlacedRule[],
  names: Names,
  identities: readonly IdentityCount[],
  maxWorkloads: number,
  warn: Warn,
): void {
  const conditions = new ConditionIndex(names.groups, []);
  const asked = rules.flatMap((rule) =>
    (['from', 'to'] as const).flatMap((side) =>
      rule.rule[side].flatMap((actor: Actor, i) =>
        'labels' in actor ? [{ rule, side, i, condition: conditions.addSelector(actor.labels) }] : [],
      ),
    ),
  );
  finish(conditions.anchor());
  const isMet = new Uint8Array(conditions.count);
  const workloads = new Float64Array(conditions.count);
  for (const { identity, workloads: count } of identities) {
    const met = new Set<number>();
    conditions.match(identity, [], (condition) => met.add(condition));
    for (const condition of met) {
      isMet[condition] = 1;
      workloads[condition] = (workloads[condition] ?? 0) + count;
    }
  }
  for (const { rule, side, i, condition } of asked) {
    const path = [...rule.path, side, i, 'labels'];
    const count = workloads[condition] ?? 0;
    if (isMet[condition] !== 1)
      warn(
        rule,
        path,
        `${rule.title} matches nobody: no workload has these labels now; mend them, or remove the rule`,
      );
    else if (rule.action === 'allow' && count > maxWorkloads)
      warn(
        rule,
        path,
        `${rule.title} is broad: these labels select ${counted(count)} workloads, more than maxWorkloads (${counted(maxWorkloads)}); name more labels`,
      );
  }
}

/** All of it, as warnings. */
export function checkSense(files: readonly NamedFile[], options: SenseOptions): PolicyProblem[] {
  const names: Names = {
    groups: labelGroupsOf(files.flatMap(({ content }) => content.labelGroups ?? [])),
    ipLists: new Map(
      files.flatMap(({ content }) => (content.ipLists ?? []).map((list) => [list.name, list])),
    ),
    services: new Map(
      files.flatMap(({ content }) => (content.services ?? []).map(({ name, ports }) => [name, ports])),
    ),
  };
  const problems: PolicyProblem[] = [];
  const warn: Warn = ({ file }, path, message) => problems.push({ file, path, message, severity: 'warning' });
  const rules = rulesOf(files, names);
  checkExpired(rules, options.nowMs, warn);
  const live = rules.filter(({ expiryMs }) => !(expiryMs <= options.nowMs));
  checkShadows(live, warn);
  checkBroad(live, options.limits, warn);
  if (options.identities !== null)
    checkInventory(live, names, options.identities, options.limits.maxWorkloads, warn);
  return problems;
}
