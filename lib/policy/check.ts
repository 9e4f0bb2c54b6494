/** Checks of a policy across its documents: what a schema can't see. Pure; problems carry the path of the place. */
import type {
  Actor,
  Boundary,
  IpList,
  LabelGroup,
  PolicyFile,
  PortSpec,
  Rule,
  Ruleset,
} from '../../schemas/policy.ts';
import { boundariesName } from '../../schemas/policy.ts';
import { parseCidr } from '../net/address.ts';
import { BlockSets } from './blocks.ts';
import { ConditionIndex } from './conditions.ts';
import { checkLabels } from './label-checks.ts';
import { canonicalDnsName, expiryMsOf } from './match.ts';
import { didYouMean } from './shape.ts';

/** A place within one file: keys and indexes from its root. */
export type Path = readonly (string | number)[];

export interface PolicyProblem {
  readonly file: string;
  readonly path: Path;
  readonly message: string;
  /** A warning does not stop a policy from being applied. */
  readonly severity: 'error' | 'warning';
}

/** Sections whose entries have names that others refer to. */
const namedSections = ['ipLists', 'services', 'labelGroups', 'rulesets', 'profiles', 'boundaries'] as const;
export type NamedSection = (typeof namedSections)[number];

export interface NamedFile {
  readonly file: string;
  readonly content: PolicyFile;
  /** Names of entries that are wrong in themselves and left out of the content: they are there all the same. */
  readonly leftOut?: Partial<Readonly<Record<NamedSection, readonly string[]>>>;
}

type Report = (path: Path, message: string) => void;
type Names = Readonly<Record<NamedSection, ReadonlyMap<string, string>>>;

function checkPort(spec: PortSpec, path: Path, report: Report): void {
  const { port, protocol = 'tcp', icmpType, icmpCode } = spec;
  const isIcmp = protocol === 'icmp' || protocol === 'icmpv6';
  if (typeof port === 'string') {
    const [from = 0, to = 0] = port.split('-').map(Number);
    if (from > to || to > 65535)
      report([...path, 'port'], `${port} is no range of ports: write low-high, up to 65535`);
  }
  if (port !== undefined && isIcmp)
    report([...path, 'port'], `${protocol} has no ports: leave port out, or write icmpType`);
  if (icmpType !== undefined && !isIcmp)
    report([...path, 'icmpType'], `${protocol} has no ICMP types: write protocol: icmp or icmpv6 beside it`);
  if (icmpCode !== undefined && icmpType === undefined)
    report([...path, 'icmpCode'], 'a code belongs to a type: write icmpType beside it');
}

function checkCidrs(cidrs: readonly string[], path: Path, mayExclude: boolean, report: Report): void {
  cidrs.forEach((text, i) => {
    const isExcluded = text.startsWith('!');
    if (isExcluded && !mayExclude)
      report(
        [...path, i],
        `"${text}" leaves addresses out, which only an ip-list can: define one under ipLists`,
      );
    else if (parseCidr(isExcluded ? text.slice(1) : text) === null)
      report([...path, i], `"${text}" is no address or CIDR: write for example 10.1.0.0/16`);
  });
}

const dnsForm = /^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$/;

function checkDns(names: readonly string[], path: Path, report: Report): void {
  names.forEach((name, i) => {
    if (!dnsForm.test(canonicalDnsName(name)))
      report(
        [...path, i],
        `"${name}" is no DNS name: write for example api.acme.com, or *.acme.com for all below`,
      );
  });
}

function checkName(
  kind: string,
  section: NamedSection,
  name: string,
  path: Path,
  names: Names,
  report: Report,
  otherwise = '',
): void {
  if (names[section].has(name)) return;
  report(
    path,
    `there is no ${kind} "${name}"${didYouMean(name, names[section].keys()) || `: define it under ${section}${otherwise}`}`,
  );
}

/** Paths of scalars where a list may stand too. */
const listPath = (value: unknown, path: Path): ((at: Path) => Path) =>
  Array.isArray(value) ? (at) => at : () => path;

function checkActor(actor: Actor, path: Path, names: Names, report: Report): void {
  if ('ipList' in actor) checkName('ip-list', 'ipLists', actor.ipList, [...path, 'ipList'], names, report);
  else if ('cidr' in actor) {
    const at = listPath(actor.cidr, [...path, 'cidr']);
    checkCidrs([actor.cidr].flat(), [...path, 'cidr'], false, (where, message) => report(at(where), message));
  } else if ('dns' in actor) {
    const at = listPath(actor.dns, [...path, 'dns']);
    checkDns([actor.dns].flat(), [...path, 'dns'], (where, message) => report(at(where), message));
  }
}

function checkRule(rule: Rule | Boundary, path: Path, names: Names, report: Report): void {
  for (const end of ['from', 'to'] as const) {
    for (const [i, actor] of rule[end].entries()) checkActor(actor, [...path, end, i], names, report);
  }
  rule.services?.forEach((ref, i) => {
    const at = [...path, 'services', i];
    if (typeof ref !== 'string') checkPort(ref, at, report);
    else checkName('service', 'services', ref, at, names, report, ', or write { port, protocol }');
  });
}

function checkRuleset(ruleset: Ruleset, path: Path, names: Names, report: Report): void {
  const seen = new Set<string>();
  if (ruleset.scope?.length === 0)
    report(
      [...path, 'scope'],
      'the scope is empty, so no rule could ever match: list labels, or leave scope out',
    );
  ruleset.rules.forEach((rule, k) => {
    const at: Path = [...path, 'rules', k];
    if (seen.has(rule.name))
      report(
        [...at, 'name'],
        `ruleset ${ruleset.name} has a rule "${rule.name}" already: names are unique in a ruleset`,
      );
    seen.add(rule.name);
    if (ruleset.name === boundariesName && names.boundaries.has(rule.name))
      report(
        [...at, 'name'],
        `"${boundariesName}/${rule.name}" is the name of a boundary too (${names.boundaries.get(rule.name)}): rename one`,
      );
    if (rule.scope !== undefined && ruleset.scope === undefined)
      report(
        [...at, 'scope'],
        `ruleset ${ruleset.name} has no scope for the rule to be ${rule.scope} of: give it one, or leave scope out`,
      );
    if (rule.expires !== undefined && Number.isNaN(expiryMsOf(rule.expires)))
      report(
        [...at, 'expires'],
        `"${rule.expires}" is no date: write for example 2027-01-31, or 2027-01-31T18:00:00Z`,
      );
    checkRule(rule, at, names, report);
  });
}

function checkIpList(list: IpList, path: Path, report: Report): void {
  const { name, cidrs = [], names = [] } = list;
  checkCidrs(cidrs, [...path, 'cidrs'], true, report);
  checkDns(names, [...path, 'names'], report);
  if (cidrs.length === 0 && names.length === 0)
    report([...path, 'name'], `ip-list ${name} holds nothing: give it cidrs or names`);
  else if (names.length === 0 && cidrs.every((text) => text.startsWith('!')))
    report([...path, 'cidrs'], `ip-list ${name} only leaves addresses out: list what it holds too`);
}

/** Groups within groups: of one key, and never round in a circle. */
function checkGroups(
  groups: readonly { readonly group: LabelGroup; readonly path: Path; readonly report: Report }[],
  names: Names,
): void {
  const byName = new Map(groups.map(({ group }) => [group.name, group]));
  const reaches = (from: string, to: string, seen: Set<string>): boolean => {
    if (seen.has(from)) return false;
    seen.add(from);
    return (byName.get(from)?.groups ?? []).some((inner) => inner === to || reaches(inner, to, seen));
  };
  for (const { group, path, report } of groups) {
    if (group.values.length === 0 && (group.groups ?? []).length === 0)
      report([...path, 'values'], `label group ${group.name} has no values: list some, or groups`);
    for (const [i, inner] of (group.groups ?? []).entries()) {
      const at = [...path, 'groups', i];
      checkName('label group', 'labelGroups', inner, at, names, report);
      const other = byName.get(inner);
      if (other !== undefined && other.key !== group.key)
        report(at, `label group "${inner}" is of ${other.key}, not of ${group.key}: name groups of one key`);
      if (inner === group.name || reaches(inner, group.name, new Set()))
        report(at, `label group "${inner}" holds ${group.name} itself: take one out of the other`);
    }
  }
}

/** Names of each section, and where they are; a name that is given twice is reported. */
function collectNames(files: readonly NamedFile[], problems: PolicyProblem[]): Names {
  const collect = (section: NamedSection): ReadonlyMap<string, string> => {
    const places = new Map<string, string>();
    for (const { file, content, leftOut } of files) {
      for (const name of leftOut?.[section] ?? []) places.set(name, file);
      content[section]?.forEach(({ name }, i) => {
        const first = places.get(name);
        if (first === undefined) places.set(name, `${file} ${section}[${i}]`);
        else
          problems.push({
            file,
            path: [section, i, 'name'],
            message: `"${name}" is defined already in ${first}: names are unique`,
            severity: 'error',
          });
      });
    }
    return places;
  };
  return {
    ipLists: collect('ipLists'),
    services: collect('services'),
    labelGroups: collect('labelGroups'),
    rulesets: collect('rulesets'),
    profiles: collect('profiles'),
    boundaries: collect('boundaries'),
  };
}

/** The CIDRs of all ip-lists and rules must not overlap in more ways than columns have room for. */
function checkBlocks(files: readonly NamedFile[], problems: PolicyProblem[]): void {
  const conditions = new ConditionIndex(
    new Map(),
    files.flatMap(({ content }) => content.ipLists ?? []),
  );
  for (const { content } of files) {
    const rules = [
      ...(content.rulesets ?? []).flatMap((ruleset) => ruleset.rules),
      ...(content.boundaries ?? []),
    ];
    for (const { from, to } of rules) {
      for (const actor of [...from, ...to]) if ('ipList' in actor || 'cidr' in actor) conditions.add(actor);
    }
  }
  try {
    new BlockSets(conditions.blocks);
  } catch (error) {
    const [first] = files;
    if (!(error instanceof RangeError) || first === undefined) throw error;
    problems.push({ file: first.file, path: [], message: error.message, severity: 'error' });
  }
}

/**
 * All problems between the documents of a policy: unknown names, names given twice, addresses, ports and dates that
 * can't be, labels and profiles that contradict each other.
 */
export function checkPolicy(files: readonly NamedFile[]): PolicyProblem[] {
  const problems: PolicyProblem[] = [];
  const names = collectNames(files, problems);
  const reportOf =
    (file: string): Report =>
    (path, message) =>
      problems.push({ file, path, message, severity: 'error' });
  for (const { file, content } of files) {
    const report = reportOf(file);
    for (const [i, list] of (content.ipLists ?? []).entries()) checkIpList(list, ['ipLists', i], report);
    for (const [i, service] of (content.services ?? []).entries()) {
      for (const [k, spec] of service.ports.entries()) checkPort(spec, ['services', i, 'ports', k], report);
    }
    for (const [i, ruleset] of (content.rulesets ?? []).entries())
      checkRuleset(ruleset, ['rulesets', i], names, report);
    for (const [i, boundary] of (content.boundaries ?? []).entries())
      checkRule(boundary, ['boundaries', i], names, report);
  }
  checkGroups(
    files.flatMap(({ file, content }) =>
      (content.labelGroups ?? []).map((group, i) => ({
        group,
        path: ['labelGroups', i],
        report: reportOf(file),
      })),
    ),
    names,
  );
  checkBlocks(files, problems);
  problems.push(...checkLabels(files));
  return problems;
}
