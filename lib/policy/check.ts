/** Checks of a policy across its documents: what a schema can't see. Pure; problems carry the path of the place. */
import type { Actor, PolicyFile, PortSpec, Rule } from '../../schemas/policy.ts';
import { parseCidr } from '../net/address.ts';
import { checkLabels } from './label-checks.ts';

/** A place within one file: keys and indexes from its root. */
export type Path = readonly (string | number)[];

export interface PolicyProblem {
  readonly file: string;
  readonly path: Path;
  readonly message: string;
  /** A warning does not stop a policy from being applied. */
  readonly severity: 'error' | 'warning';
}

export interface NamedFile {
  readonly file: string;
  readonly content: PolicyFile;
}

type Report = (path: Path, message: string) => void;

function checkPorts(ports: readonly PortSpec[], path: Path, report: Report): void {
  ports.forEach((spec, i) => {
    if (typeof spec.port === 'string') {
      const [from = 0, to = 0] = spec.port.split('-').map(Number);
      if (from > to || to > 65535)
        report([...path, i, 'port'], `${spec.port} is no range of ports: write low-high, up to 65535`);
    }
    if (spec.port !== undefined && (spec.protocol === 'icmp' || spec.protocol === 'icmpv6')) {
      report([...path, i, 'port'], `${spec.protocol} has no ports: leave port out`);
    }
  });
}

function checkCidrs(cidrs: readonly string[], path: Path, report: Report): void {
  cidrs.forEach((text, i) => {
    if (parseCidr(text.startsWith('!') ? text.slice(1) : text) === null) {
      report([...path, i], `"${text}" is no address or CIDR: write for example 10.1.0.0/16`);
    }
  });
}

function checkActor(actor: Actor, path: Path, ipLists: ReadonlySet<string>, report: Report): void {
  if ('ipList' in actor && !ipLists.has(actor.ipList)) {
    report([...path, 'ipList'], `there is no ip-list "${actor.ipList}": define it under ipLists`);
  }
  if ('cidr' in actor) checkCidrs([actor.cidr].flat(), [...path, 'cidr'], report);
}

function checkRule(
  rule: Rule,
  path: Path,
  known: { readonly ipLists: ReadonlySet<string>; readonly services: ReadonlySet<string> },
  report: Report,
): void {
  for (const end of ['from', 'to'] as const) {
    for (const [i, actor] of rule[end].entries()) checkActor(actor, [...path, end, i], known.ipLists, report);
  }
  rule.services?.forEach((ref, i) => {
    if (typeof ref !== 'string')
      checkPorts([ref], [...path, 'services'], (_, message) =>
        report([...path, 'services', i, 'port'], message),
      );
    else if (!known.services.has(ref)) {
      report(
        [...path, 'services', i],
        `there is no service "${ref}": define it under services, or write { port, protocol }`,
      );
    }
  });
  if (rule.expires !== undefined && Number.isNaN(Date.parse(rule.expires))) {
    report([...path, 'expires'], `"${rule.expires}" is no date: write for example 2027-01-31`);
  }
}

/**
 * All problems between the documents of a policy: unknown names, names given twice, addresses, ports and dates that
 * can't be, labels and profiles that contradict each other.
 */
export function checkPolicy(files: readonly NamedFile[]): PolicyProblem[] {
  const problems: PolicyProblem[] = [];
  const collect = (section: 'ipLists' | 'services' | 'rulesets' | 'profiles'): ReadonlySet<string> => {
    const places = new Map<string, string>();
    for (const { file, content } of files) {
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
    return new Set(places.keys());
  };
  const known = { ipLists: collect('ipLists'), services: collect('services') };
  collect('rulesets');
  collect('profiles');
  for (const { file, content } of files) {
    const report: Report = (path, message) => problems.push({ file, path, message, severity: 'error' });
    for (const [i, list] of (content.ipLists ?? []).entries())
      checkCidrs(list.cidrs ?? [], ['ipLists', i, 'cidrs'], report);
    for (const [i, service] of (content.services ?? []).entries())
      checkPorts(service.ports, ['services', i, 'ports'], report);
    content.rulesets?.forEach((ruleset, i) => {
      const names = new Set<string>();
      ruleset.rules.forEach((rule, k) => {
        const path: Path = ['rulesets', i, 'rules', k];
        if (names.has(rule.name))
          report(
            [...path, 'name'],
            `ruleset ${ruleset.name} has a rule "${rule.name}" already: names are unique in a ruleset`,
          );
        names.add(rule.name);
        checkRule(rule, path, known, report);
      });
    });
  }
  problems.push(...checkLabels(files));
  return problems;
}
