/**
 * What a policy means, read aloud: every rule is looked at for every flow, with no index, no set and nothing compiled or
 * kept. It shares no code with the engine, which tests and benchmarks hold against it.
 */
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';
import type {
  Actor,
  LabelSelector,
  PolicyDocument,
  PortSpec,
  Rule,
  Ruleset,
  SelectorValue,
  ServiceRef,
} from '../../schemas/policy.ts';
import { parseAddress } from '../net/address.ts';

export interface ReferenceEnd {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** As people write it. */
  readonly address: string;
}

export interface ReferenceFlow {
  readonly source: ReferenceEnd;
  readonly destination: ReferenceEnd;
  /** For ICMP type * 256 + code. */
  readonly port: number;
  /** IP protocol number. */
  readonly protocol: number;
  /** What the reporter names; empty for nothing. */
  readonly process: string;
}

export interface ReferenceVerdict {
  readonly verdict: Verdict;
  readonly reason: Reason;
  /** `ruleset/rule`, `boundaries/name`, or empty. */
  readonly rule: string;
}

/** All values of a group, and of the groups within it. */
function groupValues(policy: PolicyDocument, name: string, above: readonly string[] = []): string[] {
  if (above.includes(name)) return [];
  const group = policy.labelGroups?.find((one) => one.name === name);
  const inner = group?.groups ?? [];
  return [...(group?.values ?? []), ...inner.flatMap((one) => groupValues(policy, one, [...above, name]))];
}

function isValue(
  policy: PolicyDocument,
  value: string | undefined,
  wanted: string | readonly string[] | { readonly group: string },
): boolean {
  if (value === undefined) return false;
  if (typeof wanted === 'string') return value === wanted;
  if ('group' in wanted) return groupValues(policy, wanted.group).includes(value);
  return wanted.includes(value);
}

function isWanted(policy: PolicyDocument, end: ReferenceEnd, key: string, wanted: SelectorValue): boolean {
  const { kind, cluster, namespace, name } = end;
  const builtIn: Record<string, string> = { kind, cluster, namespace, name };
  const value = Object.hasOwn(builtIn, key) ? builtIn[key] : end.labels[key];
  if (typeof wanted === 'object' && 'not' in wanted)
    return kind !== 'unknown' && !isValue(policy, value, wanted.not);
  return isValue(policy, value, wanted);
}

function isSelected(policy: PolicyDocument, end: ReferenceEnd, selector: LabelSelector): boolean {
  return Object.entries(selector).every(([key, wanted]) => isWanted(policy, end, key, wanted));
}

/** The 128 bits of an address as text. */
function bitsOf(address: string): string {
  return Array.from(parseAddress(address) ?? [], (byte) => byte.toString(2).padStart(8, '0')).join('');
}

/** How many leading bits a block fixes; -1 where the address is not in it. */
function blockLength(block: string, address: string): number {
  const [base = '', length] = block.split('/');
  const isIpv4 = !base.includes(':');
  const bits = length === undefined ? 128 : Number(length) + (isIpv4 ? 96 : 0);
  return bitsOf(address).slice(0, bits) === bitsOf(base).slice(0, bits) ? bits : -1;
}

/** The narrowest block around the address says whether it is in; of equal ones the last. */
function isInBlocks(blocks: readonly string[], address: string): boolean {
  let narrowest = -1;
  let isIn = false;
  for (const text of blocks) {
    const isExcluded = text.startsWith('!');
    const length = blockLength(isExcluded ? text.slice(1) : text, address);
    if (length < 0 || length < narrowest) continue;
    narrowest = length;
    isIn = !isExcluded;
  }
  return isIn;
}

/** Names are the same in any case, and with or without a dot at the end. */
function plainName(name: string): string {
  return name.toLowerCase().replace(/\.$/, '');
}

function isNamed(listed: readonly string[], end: ReferenceEnd): boolean {
  if (end.kind !== 'name') return false;
  const name = plainName(end.name);
  return listed.some((one) => {
    const wanted = plainName(one);
    return wanted === name || (wanted.startsWith('*.') && name.endsWith(wanted.replace('*', '')));
  });
}

function isActor(policy: PolicyDocument, actor: Actor, end: ReferenceEnd): boolean {
  if ('any' in actor) return true;
  if ('labels' in actor) return isSelected(policy, end, actor.labels);
  if ('cidr' in actor) return [actor.cidr].flat().some((block) => isInBlocks([block], end.address));
  if ('dns' in actor) return isNamed([actor.dns].flat(), end);
  const list = policy.ipLists.find(({ name }) => name === actor.ipList);
  return isInBlocks(list?.cidrs ?? [], end.address) || isNamed(list?.names ?? [], end);
}

const protocolNames: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp',
};

function isProcess(pattern: string, process: string): boolean {
  if (process === '') return false;
  const parts = pattern.split('*').map((part) => part.replace(/[^A-Za-z0-9]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's').test(process);
}

function isPort(spec: PortSpec, { port, protocol, process }: ReferenceFlow): boolean {
  const wanted = spec.protocol ?? 'tcp';
  if (wanted !== 'any' && wanted !== protocolNames[protocol]) return false;
  if (spec.process !== undefined && !isProcess(spec.process, process)) return false;
  if (spec.icmpType !== undefined && Math.floor(port / 256) !== spec.icmpType) return false;
  if (spec.icmpCode !== undefined && port % 256 !== spec.icmpCode) return false;
  if (spec.port === undefined) return true;
  // Types of ICMP are no ports.
  if (protocol === 1 || protocol === 58) return false;
  const [low = 0, high = low] = String(spec.port).split('-').map(Number);
  return low <= port && port <= high;
}

function isService(
  policy: PolicyDocument,
  refs: readonly ServiceRef[] | undefined,
  flow: ReferenceFlow,
): boolean {
  if (refs === undefined) return true;
  return refs.some((ref) => {
    const specs =
      typeof ref === 'string' ? (policy.services.find(({ name }) => name === ref)?.ports ?? []) : [ref];
    return specs.some((spec) => isPort(spec, flow));
  });
}

function isInScope(policy: PolicyDocument, ruleset: Ruleset, rule: Rule, flow: ReferenceFlow): boolean {
  const { source, destination } = flow;
  if (ruleset.scope === undefined) return true;
  const isIn = (end: ReferenceEnd, entry: LabelSelector): boolean => isSelected(policy, end, entry);
  switch (rule.scope) {
    case 'intra':
      return ruleset.scope.some((entry) => isIn(source, entry) && isIn(destination, entry));
    case 'extra':
      return ruleset.scope.some((entry) => isIn(destination, entry));
    default:
      return ruleset.scope.some((entry) => isIn(source, entry) || isIn(destination, entry));
  }
}

function isLive(rule: Rule, nowMs: number): boolean {
  if (rule.enabled === false) return false;
  return rule.expires === undefined || new Date(rule.expires).getTime() > nowMs;
}

/** The verdict of a policy, as it is at `nowMs`, on a flow. */
export function referenceVerdict(
  policy: PolicyDocument,
  nowMs: number,
  flow: ReferenceFlow,
): ReferenceVerdict {
  const { source, destination } = flow;
  const rulesets = policy.rulesets.filter((ruleset) => ruleset.enabled !== false);
  const boundaries: Ruleset = {
    name: 'boundaries',
    rules: (policy.boundaries ?? []).map((boundary) => ({ ...boundary, action: 'deny' })),
  };
  const speaking = [...rulesets, boundaries].flatMap((ruleset) =>
    ruleset.rules
      .filter(
        (rule) =>
          isLive(rule, nowMs) &&
          isInScope(policy, ruleset, rule, flow) &&
          rule.from.some((actor) => isActor(policy, actor, source)) &&
          rule.to.some((actor) => isActor(policy, actor, destination)),
      )
      .map((rule) => ({ rule, name: `${ruleset.name}/${rule.name}` })),
  );
  for (const action of ['override-deny', 'allow', 'deny'] as const) {
    const decides = speaking.find(
      ({ rule }) => (rule.action ?? 'allow') === action && isService(policy, rule.services, flow),
    );
    if (decides !== undefined)
      return { verdict: action === 'allow' ? 'allowed' : 'denied', reason: 'rule', rule: decides.name };
  }
  const unexplained = (reason: Reason): ReferenceVerdict => ({ verdict: 'unexplained', reason, rule: '' });
  if (source.kind === 'unknown') return unexplained('unknown-source');
  if (destination.kind === 'unknown') return unexplained('unknown-destination');
  if (speaking.length > 0) return unexplained('port-not-covered');
  const isAnyScope = rulesets.some(
    ({ scope }) =>
      scope === undefined ||
      scope.some((entry) => isSelected(policy, source, entry) || isSelected(policy, destination, entry)),
  );
  return unexplained(isAnyScope ? 'no-rule' : 'outside-scope');
}
