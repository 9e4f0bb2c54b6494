/** What the rules in force already say of a destination: others may reach it on this port, so it is nothing odd. */
import type { Actor, PolicyDocument, PortSpec, Rule, Ruleset, Service } from '../../schemas/policy.ts';
import { type Cidr, parseAddress, parseCidr } from '../net/address.ts';
import { protocolNumbers } from '../policy/engine.ts';
import { dnsCovers, type LabelGroups, labelGroupsOf, selects } from '../policy/match.ts';
import type { UnexplainedEdge } from './edges.ts';

/** IPv4 blocks larger than this (and IPv6 ones above a site's) say nothing of a destination. */
const widestPrefix = 96 + 12;

export interface Precedent {
  readonly ruleset: string;
  readonly rule: string;
  /** Whether the rule leaves the environment open at both ends. */
  readonly spansEnvironments: boolean;
  /** The ip-list by which the rule knows the destination; null where it does by something else. */
  readonly ipList: string | null;
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
  readonly ruleset: Ruleset;
  readonly rule: Rule;
  readonly ports: readonly PortSpec[] | null;
}

export class Precedents {
  readonly #rules: readonly KnownRule[];
  readonly #groups: LabelGroups;
  readonly #document: PolicyDocument;

  constructor(document: PolicyDocument) {
    this.#document = document;
    this.#groups = labelGroupsOf(document.labelGroups);
    const services = new Map<string, Service>(document.services.map((service) => [service.name, service]));
    this.#rules = document.rulesets.flatMap((ruleset) =>
      ruleset.enabled === false
        ? []
        : ruleset.rules.flatMap((rule) => {
            if (rule.enabled === false || (rule.action ?? 'allow') !== 'allow') return [];
            const ports =
              rule.services?.flatMap((ref) =>
                typeof ref === 'string' ? (services.get(ref)?.ports ?? []) : [ref],
              ) ?? null;
            return [{ ruleset, rule, ports }];
          }),
    );
  }

  /** An ip-list (none too wide) that holds the address. */
  listOf(address: string): string | null {
    const bytes = parseAddress(address);
    if (bytes === null) return null;
    return this.#document.ipLists.find(({ cidrs }) => holds(cidrs ?? [], bytes))?.name ?? null;
  }

  #knows(actor: Actor, edge: UnexplainedEdge): boolean {
    const { destination, destinationAddress } = edge;
    if ('labels' in actor) return selects(actor.labels, destination, this.#groups);
    const bytes = destinationAddress === null ? null : parseAddress(destinationAddress);
    if ('cidr' in actor) return bytes !== null && holds([actor.cidr].flat(), bytes);
    const isNamed = (names: readonly string[]): boolean =>
      destination.kind === 'name' && names.some((name) => dnsCovers(name, destination.name));
    if ('dns' in actor) return isNamed([actor.dns].flat());
    if (!('ipList' in actor)) return false;
    const list = this.#document.ipLists.find(({ name }) => name === actor.ipList);
    return (
      list !== undefined && ((bytes !== null && holds(list.cidrs ?? [], bytes)) || isNamed(list.names ?? []))
    );
  }

  /** Rules that let somebody in particular reach the destination of an edge on its port. */
  of(edge: UnexplainedEdge): Precedent[] {
    return this.#rules.flatMap(({ ruleset, rule, ports }) => {
      if (ports === null || !portsCarry(ports, edge.port, edge.protocol)) return [];
      if (rule.from.some((actor) => 'any' in actor)) return [];
      const known = rule.to.find((actor) => this.#knows(actor, edge));
      if (known === undefined) return [];
      const names = (actors: readonly Actor[]): boolean =>
        actors.some((actor) => 'labels' in actor && 'env' in actor.labels);
      return [
        {
          ruleset: ruleset.name,
          rule: rule.name,
          spansEnvironments: rule.scope !== 'intra' && !names(rule.from) && !names(rule.to),
          ipList: 'ipList' in known ? known.ipList : null,
        },
      ];
    });
  }
}
