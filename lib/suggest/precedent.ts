/** What the rules in force already say of a destination: others may reach it on this port, so it is nothing odd. */
import type { Actor, PolicyDocument, PortSpec, Rule, Ruleset, Service } from '../../schemas/policy.ts';
import { type Cidr, parseAddress, parseCidr } from '../net/address.ts';
import { protocolNumbers } from '../policy/engine.ts';
import { dnsCovers, labelGroupsOf } from '../policy/match.ts';
import type { UnexplainedEdge } from './edges.ts';
import { SelectorIndex } from './finder.ts';

/** IPv4 blocks larger than this (and IPv6 ones above a site's) say nothing of a destination. */
const widestPrefix = 96 + 12;

export interface Precedent {
  readonly ruleset: string;
  readonly rule: string;
  /** Whether the rule leaves the environment open at both ends. */
  readonly spansEnvironments: boolean;
}

export function portsCarry(ports: readonly PortSpec[], port: number, protocol: number): boolean {
  return ports.some((spec) => {
    const wanted = protocolNumbers[spec.protocol ?? 'tcp'] ?? -1;
    if (spec.process !== undefined || (wanted !== -1 && wanted !== protocol)) return false;
    if (spec.icmpType !== undefined && spec.icmpType !== port >> 8) return false;
    if (spec.port === undefined) return true;
    const [low = 0, high = low] =
      typeof spec.port === 'number' ? [spec.port] : spec.port.split('-').map(Number);
    return port >= low && port <= high;
  });
}

function within(address: Uint8Array, { base, prefix }: Cidr): boolean {
  for (let bit = 0; bit < prefix; bit += 8) {
    const mask = prefix - bit >= 8 ? 0xff : (0xff << (8 - (prefix - bit))) & 0xff;
    if (((address[bit >> 3] ?? 0) & mask) !== ((base[bit >> 3] ?? 0) & mask)) return false;
  }
  return true;
}

/** Whether blocks hold the address: the innermost decides, and only narrow ones count. */
function holds(cidrs: readonly string[], address: Uint8Array): boolean {
  let best = -1;
  let held = false;
  for (const text of cidrs) {
    const excluded = text.startsWith('!');
    const cidr = parseCidr(excluded ? text.slice(1) : text);
    if (cidr === null || cidr.prefix <= best || !within(address, cidr)) continue;
    best = cidr.prefix;
    held = !excluded;
  }
  return held && best >= widestPrefix;
}

interface KnownRule {
  readonly precedent: Precedent;
  readonly ports: readonly PortSpec[];
  readonly to: readonly Actor[];
}

const namesEnvironment = (actors: readonly Actor[]): boolean =>
  actors.some((actor) => 'labels' in actor && 'env' in actor.labels);

function knownRule(ruleset: Ruleset, rule: Rule, services: ReadonlyMap<string, Service>): KnownRule | null {
  if (rule.enabled === false || (rule.action ?? 'allow') !== 'allow' || rule.services === undefined)
    return null;
  // What anybody may reach says nothing of who should.
  if (rule.from.some((actor) => 'any' in actor)) return null;
  return {
    to: rule.to,
    ports: rule.services.flatMap((ref) =>
      typeof ref === 'string' ? (services.get(ref)?.ports ?? []) : [ref],
    ),
    precedent: {
      ruleset: ruleset.name,
      rule: rule.name,
      spansEnvironments: rule.scope !== 'intra' && !namesEnvironment(rule.from) && !namesEnvironment(rule.to),
    },
  };
}

/** Most addresses whose list is remembered. */
const maxKnownAddresses = 1 << 16;

export class Precedents {
  readonly #byLabels: SelectorIndex<KnownRule>;
  /** Rules that know destinations by addresses or names. */
  readonly #byAddress: readonly KnownRule[];
  readonly #document: PolicyDocument;
  readonly #lists = new Map<string, string | null>();

  constructor(document: PolicyDocument) {
    this.#document = document;
    this.#byLabels = new SelectorIndex(labelGroupsOf(document.labelGroups));
    const services = new Map<string, Service>(document.services.map((service) => [service.name, service]));
    const rules = document.rulesets.flatMap((ruleset) =>
      ruleset.enabled === false
        ? []
        : ruleset.rules.flatMap((rule) => knownRule(ruleset, rule, services) ?? []),
    );
    for (const rule of rules)
      for (const actor of rule.to) if ('labels' in actor) this.#byLabels.add(actor.labels, rule);
    this.#byAddress = rules.filter(({ to }) => to.some((actor) => !('labels' in actor) && !('any' in actor)));
  }

  /** An ip-list (none too wide) that holds the address. */
  listOf(address: string): string | null {
    const known = this.#lists.get(address);
    if (known !== undefined) return known;
    const bytes = parseAddress(address);
    const found =
      bytes === null
        ? null
        : (this.#document.ipLists.find(({ cidrs }) => holds(cidrs ?? [], bytes))?.name ?? null);
    if (this.#lists.size >= maxKnownAddresses) this.#lists.clear();
    this.#lists.set(address, found);
    return found;
  }

  #knows(actor: Actor, { destination }: UnexplainedEdge, address: Uint8Array | null): boolean {
    if ('cidr' in actor) return address !== null && holds([actor.cidr].flat(), address);
    const isNamed = (names: readonly string[]): boolean =>
      destination.kind === 'name' && names.some((name) => dnsCovers(name, destination.name));
    if ('dns' in actor) return isNamed([actor.dns].flat());
    if (!('ipList' in actor)) return false;
    const list = this.#document.ipLists.find(({ name }) => name === actor.ipList);
    return (
      list !== undefined &&
      ((address !== null && holds(list.cidrs ?? [], address)) || isNamed(list.names ?? []))
    );
  }

  /** Rules that let somebody in particular reach the destination of an edge on its port. */
  of(edge: UnexplainedEdge): Precedent[] {
    const { destination, destinationAddress, port, protocol } = edge;
    const carries = ({ ports }: KnownRule): boolean => portsCarry(ports, port, protocol);
    const found = new Set(this.#byLabels.of(destination).filter(carries));
    if (destinationAddress !== null || destination.kind === 'name') {
      const address = destinationAddress === null ? null : parseAddress(destinationAddress);
      for (const rule of this.#byAddress)
        if (carries(rule) && rule.to.some((actor) => this.#knows(actor, edge, address))) found.add(rule);
    }
    return [...found].map(({ precedent }) => precedent);
  }
}
