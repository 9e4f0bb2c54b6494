/** How near one end, or one port, comes to what a rule asks for: nothing missing, or what is missing, in words and as a cost. */
import type { Actor, IpList, PortSpec, SelectorValue, ServiceRef } from '../../schemas/policy.ts';
import { isIcmp, protocolNumbers } from './compile.ts';
import type { BlockEntry } from './conditions.ts';
import {
  type CompiledSelector,
  compileSelector,
  dnsCovers,
  type LabelGroups,
  labelOf,
  meetsSelector,
  type Selectable,
} from './match.ts';
import { compilePattern, type NameTest } from './patterns.ts';

/** One end of what is asked for. */
export interface JudgedEnd {
  readonly identity: Selectable;
  /** Address as people write it; null where none is known. */
  readonly address: string | null;
  /** Conditions on addresses that it meets, by their number. */
  readonly blocks: ReadonlySet<number>;
}

export interface JudgedPort {
  readonly port: number;
  /** IP protocol number. */
  readonly protocol: number;
  /** Process on the reporter's side; empty where none is known. */
  readonly process: string;
}

/** What lacks until it matches; cost 0 and no words where nothing does. */
export interface Fit {
  readonly cost: number;
  /** In words, which are made for the few rules only that are shown. */
  readonly missing: () => string;
  /** Whether it was asked for in particular: `any` matches everybody. */
  readonly isParticular: boolean;
}

const fits: Fit = { cost: 0, missing: () => '', isParticular: true };
const fitsAnybody: Fit = { ...fits, isParticular: false };

/** Another app is another thing; another env is nearly the same. */
const farKeys: ReadonlySet<string> = new Set(['app', 'name', 'namespace', 'cluster', 'kind']);
const costOf = (key: string): number => (farKeys.has(key) ? 3 : 1);
const strangerCost = 4;

export interface ActorTest {
  readonly actor: Actor;
  readonly text: string;
  fit(end: JudgedEnd, who: string): Fit;
}

export const protocolNames: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp',
};

const listed = (values: string | readonly string[]): string => [values].flat().join('|');

function wantedText(key: string, wanted: SelectorValue): string {
  if (typeof wanted === 'string' || Array.isArray(wanted)) return `${key}=${listed(wanted)}`;
  if ('group' in wanted) return `${key} in group ${wanted.group}`;
  const { not } = wanted;
  return typeof not === 'object' && !Array.isArray(not) && 'group' in not
    ? `${key} not in group ${not.group}`
    : `${key}!=${listed(not)}`;
}

/** A selector as people write it. */
export function selectorText(selector: Readonly<Record<string, SelectorValue>>): string {
  return Object.entries(selector)
    .map(([key, wanted]) => wantedText(key, wanted))
    .join(',');
}

/** An actor as people write it. */
export function actorText(actor: Actor): string {
  if ('labels' in actor) return selectorText(actor.labels);
  if ('ipList' in actor) return `ip-list ${actor.ipList}`;
  if ('cidr' in actor) return listed(actor.cidr);
  if ('dns' in actor) return listed(actor.dns);
  return 'any';
}

function missingLabels(
  labels: Readonly<Record<string, SelectorValue>>,
  selector: CompiledSelector,
  failed: readonly string[],
  identity: Selectable,
  who: string,
): string {
  const right = selector.filter(({ key }) => !failed.includes(key)).map(({ key }) => key);
  const words = failed.map((key) => {
    const wanted = labels[key];
    const has = labelOf(identity, key);
    const found = has === undefined || has === '' ? `no ${key}` : `${key}=${has}`;
    return `${wanted === undefined ? key : wantedText(key, wanted)} only (${who} has ${found})`;
  });
  const but = right.length === 0 ? '' : `right ${right.join(', ')}, but `;
  return `${who}: ${but}${words.join(' and ')}`;
}

function labelFit(
  labels: Readonly<Record<string, SelectorValue>>,
  selector: CompiledSelector,
  { identity }: JudgedEnd,
  who: string,
): Fit {
  if (meetsSelector(selector, identity)) return fits;
  if (identity.kind === 'unknown')
    return { cost: strangerCost, missing: () => `the ${who} is nobody that is known`, isParticular: true };
  let cost = 0;
  const failed: string[] = [];
  for (const { key, not, values } of selector) {
    const value = labelOf(identity, key);
    if (value === undefined ? not : values.has(value) !== not) continue;
    cost += costOf(key);
    failed.push(key);
  }
  return { cost, missing: () => missingLabels(labels, selector, failed, identity, who), isParticular: true };
}

/** `example.com` of `www.example.com`. */
const parentDomain = (name: string): string => name.replace(/^\*\./, '').split('.').slice(-2).join('.');

/** Makes tests of actors; addresses are collected, and tested by the number of their condition. */
export class ActorTests {
  readonly #groups: LabelGroups;
  readonly #lists: ReadonlyMap<string, IpList>;
  readonly #conditions = new Map<string, number>();
  readonly #known = new Map<string, ActorTest>();
  /** What addresses are tested for. */
  readonly blocks: BlockEntry[] = [];

  constructor(groups: LabelGroups, ipLists: readonly IpList[]) {
    this.#groups = groups;
    this.#lists = new Map(ipLists.map((list) => [list.name, list]));
  }

  selector(labels: Readonly<Record<string, SelectorValue>>): CompiledSelector {
    return compileSelector(labels, this.#groups);
  }

  test(actor: Actor): ActorTest {
    const key = JSON.stringify(actor);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const made = { actor, text: actorText(actor), fit: this.#fitOf(actor) };
    this.#known.set(key, made);
    return made;
  }

  #condition(name: string, texts: readonly string[]): number {
    const known = this.#conditions.get(name);
    if (known !== undefined) return known;
    const condition = this.#conditions.size;
    this.#conditions.set(name, condition);
    for (const text of texts) this.blocks.push({ condition, text });
    return condition;
  }

  #fitOf(actor: Actor): ActorTest['fit'] {
    if ('any' in actor) return () => fitsAnybody;
    if ('labels' in actor) {
      const selector = this.selector(actor.labels);
      return (end, who) => labelFit(actor.labels, selector, end, who);
    }
    const text = actorText(actor);
    const list = 'ipList' in actor ? this.#lists.get(actor.ipList) : undefined;
    const names = 'dns' in actor ? [actor.dns].flat() : (list?.names ?? []);
    const cidrs = 'cidr' in actor ? [actor.cidr].flat().map((cidr) => [cidr]) : [list?.cidrs ?? []];
    // Of several CIDRs in place each counts for itself; of a list the innermost decides.
    const conditions =
      'dns' in actor ? [] : cidrs.map((texts) => this.#condition(`${text} ${texts.join(' ')}`, texts));
    return ({ identity, address, blocks }, who) => {
      if (conditions.some((condition) => blocks.has(condition))) return fits;
      const isNamed = identity.kind === 'name';
      if (isNamed && names.some((name) => dnsCovers(name, identity.name))) return fits;
      const isNear = isNamed && names.some((name) => parentDomain(name) === parentDomain(identity.name));
      const found = isNamed ? identity.name : (address ?? 'without an address');
      return {
        cost: isNear ? 2 : strangerCost,
        missing: () => `${text} only (${who} is ${found})`,
        isParticular: true,
      };
    };
  }
}

export interface PortTest {
  /** Name of the service it stands in; null in place. */
  readonly service: string | null;
  readonly text: string;
  fit(asked: JudgedPort): Fit;
}

/** `5432/tcp`, `icmp type 8 code 0`. */
export function portText({ port, protocol }: Pick<JudgedPort, 'port' | 'protocol'>): string {
  const name = protocolNames[protocol] ?? `protocol ${protocol}`;
  if (isIcmp(protocol)) return `${name} type ${port >> 8} code ${port & 255}`;
  return `${port}/${name}`;
}

/** A port specification as people write it. */
export function specText(spec: PortSpec): string {
  const protocol = spec.protocol ?? 'tcp';
  const process = spec.process === undefined ? '' : ` by ${spec.process}`;
  if (spec.icmpType !== undefined) {
    const code = spec.icmpCode === undefined ? '' : ` code ${spec.icmpCode}`;
    return `${protocol} type ${spec.icmpType}${code}${process}`;
  }
  const name = protocol === 'any' ? 'any protocol' : protocol;
  return `${spec.port === undefined ? name : `${spec.port}/${name}`}${process}`;
}

function portsOf({ port, icmpType, icmpCode }: PortSpec): readonly [from: number, to: number] {
  if (icmpType !== undefined) {
    const from = icmpType * 256 + (icmpCode ?? 0);
    return [from, icmpCode === undefined ? from + 255 : from];
  }
  if (port === undefined) return [0, 65_535];
  if (typeof port === 'number') return [port, port];
  const [from = 0, to = 0] = port.split('-').map(Number);
  return [from, to];
}

function portTest(service: string | null, spec: PortSpec): PortTest {
  const text = specText(spec);
  const protocol = spec.protocol ?? 'tcp';
  const [from, to] = portsOf(spec);
  const isProcess: NameTest = spec.process === undefined ? () => true : compilePattern(spec.process);
  return {
    service,
    text,
    fit(asked) {
      const rightProtocol =
        protocol === 'any'
          ? // Types of ICMP are no ports.
            spec.port === undefined || !isIcmp(asked.protocol)
          : protocolNumbers[protocol] === asked.protocol;
      const rightPort = asked.port >= from && asked.port <= to;
      if (rightProtocol && rightPort) {
        const rightProcess = spec.process === undefined || (asked.process !== '' && isProcess(asked.process));
        if (rightProcess) return fits;
        const found = asked.process === '' ? 'none is reported' : `it is ${asked.process}`;
        return {
          cost: 1,
          missing: () => `for the process ${spec.process} only (${found})`,
          isParticular: true,
        };
      }
      return {
        cost: rightProtocol || rightPort ? 1 : 1.5,
        missing: () => `covers ${text}, not ${portText(asked)}`,
        isParticular: true,
      };
    },
  };
}

const everyPort: PortTest = { service: null, text: 'every port', fit: () => fits };

/** What a rule's `services` take; every port where there are none. */
export function portTests(
  refs: readonly ServiceRef[] | undefined,
  services: ReadonlyMap<string, readonly PortSpec[]>,
): PortTest[] {
  if (refs === undefined) return [everyPort];
  return refs.flatMap((ref) =>
    typeof ref === 'string'
      ? (services.get(ref) ?? []).map((spec) => portTest(ref, spec))
      : [portTest(null, ref)],
  );
}
