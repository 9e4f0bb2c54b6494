/**
 * The NetworkPolicies of one cluster, compiled. Pods of one namespace with the same labels and named ports are one class;
 * addresses between the same ipBlocks are one set; what a class may do with a class and a set of blocks is worked out
 * once, as a set of ports. Semantics: https://kubernetes.io/docs/concepts/services-networking/network-policies/
 */
import type { Cidr } from '../net/address.ts';
import { isMapped } from '../net/address.ts';
import { type CidrMap, findStack, makeCidrMap } from '../net/cidr-map.ts';
import {
  type Direction,
  type End,
  type Labels,
  type NetworkPolicy,
  namespaceLabels,
  type Peer,
  type Pod,
  type PolicyCluster,
  type PolicyProtocol,
  type PolicyRule,
  type PortRule,
  type Selector,
  selectorMeets,
} from './model.ts';
import {
  allPorts,
  hasPlace,
  intersectionOf,
  type PortSet,
  portPlace,
  portRange,
  unionOf,
} from './port-set.ts';
import { isIpv4Block } from './read.ts';

/** Why a direction is open or closed. */
export type DirectionReason =
  /** The end is no pod of this cluster: no policy speaks of it. */
  | 'no-pod'
  /** The end is a pod on its node's network: policies do not select it. */
  | 'host-network'
  | 'itself'
  | 'own-node'
  | 'not-isolated'
  | 'rule'
  | 'no-rule';

/** A rule that speaks of the other end. */
export interface MatchedRule {
  readonly policy: NetworkPolicy;
  /** Its place in `ingress` or `egress`. */
  readonly index: number;
  readonly ports: PortSet;
}

export interface DirectionAnswer {
  readonly direction: Direction;
  readonly allowed: boolean;
  readonly reason: DirectionReason;
  /** Policies that isolate the end in this direction. */
  readonly policies: readonly NetworkPolicy[];
  /** Rules that let it through; where none does, rules that would on other ports. */
  readonly rules: readonly MatchedRule[];
}

interface CompiledRule {
  readonly policy: NetworkPolicy;
  readonly index: number;
  /** Null: every peer. */
  readonly selectors: readonly number[] | null;
  readonly blocks: readonly number[];
  readonly ports: readonly PortRule[] | null;
}

interface CompiledPolicy {
  readonly policy: NetworkPolicy;
  readonly rules: Readonly<Record<Direction, readonly CompiledRule[] | null>>;
}

interface PodClass {
  readonly index: number;
  readonly pod: Pod;
  /** Null: not isolated. */
  readonly isolating: Readonly<Record<Direction, readonly CompiledPolicy[] | null>>;
  /** By peer selector: 1 met, 2 not met, 0 not asked yet. */
  readonly met: Uint8Array;
  /** What it may do, by class of the other end (0: no pod) and stack of its address. */
  readonly allowed: Readonly<Record<Direction, Map<number, PortSet>>>;
}

interface PeerSelector {
  /** The namespace of the policy, or a selector of namespaces. */
  readonly namespaces: string | Selector;
  readonly pods: Selector | null;
}

const stackLimit = 1 << 20;

/** An end as rules look at it. */
interface SeenEnd {
  readonly of: PodClass | null;
  readonly stack: number;
}

export class NetworkPolicyEngine {
  readonly #cluster: PolicyCluster;
  readonly #policies = new Map<string, CompiledPolicy[]>();
  readonly #selectors: PeerSelector[] = [];
  readonly #blocks: CidrMap;
  /** For each stack the ipBlock peers that hold the address: of IPv6 addresses, of IPv4 addresses. */
  readonly #holding: readonly (readonly [ReadonlySet<number>, ReadonlySet<number>])[];
  readonly #classes = new Map<string, PodClass>();
  readonly #classOf = new WeakMap<Pod, PodClass>();

  constructor(cluster: PolicyCluster) {
    this.#cluster = cluster;
    const selectorIds = new Map<string, number>();
    const blocks: Extract<Peer, { kind: 'block' }>[] = [];
    for (const policy of cluster.policies) {
      const compile = (rules: readonly PolicyRule[] | null): CompiledRule[] | null =>
        rules?.map((rule, index) => this.#compileRule(policy, rule, index, selectorIds, blocks)) ?? null;
      const compiled = {
        policy,
        rules: { ingress: compile(policy.ingress), egress: compile(policy.egress) },
      };
      const own = this.#policies.get(policy.namespace);
      if (own === undefined) this.#policies.set(policy.namespace, [compiled]);
      else own.push(compiled);
    }
    const cidrs: Cidr[] = [];
    const entries: { block: number; excluded: boolean; ipv4: boolean }[] = [];
    blocks.forEach(({ cidr, except }, block) => {
      const add = (one: Cidr, excluded: boolean): void => {
        cidrs.push(one);
        entries.push({ block, excluded, ipv4: isIpv4Block(one) });
      };
      add(cidr, false);
      for (const one of except) add(one, true);
    });
    this.#blocks = makeCidrMap(cidrs);
    this.#holding = this.#blocks.stacks.map((stack) => {
      const held = (ipv4: boolean): ReadonlySet<number> => {
        const inside = stack.flatMap((i) => entries[i] ?? []).filter((entry) => entry.ipv4 === ipv4);
        const excluded = new Set(inside.flatMap((entry) => (entry.excluded ? [entry.block] : [])));
        return new Set(inside.map(({ block }) => block).filter((block) => !excluded.has(block)));
      };
      return [held(false), held(true)] as const;
    });
  }

  #compileRule(
    policy: NetworkPolicy,
    { peers, ports }: PolicyRule,
    index: number,
    selectorIds: Map<string, number>,
    blocks: Extract<Peer, { kind: 'block' }>[],
  ): CompiledRule {
    const own: number[] = [];
    const selectors: number[] = [];
    for (const peer of peers ?? []) {
      if (peer.kind === 'block') {
        own.push(blocks.length);
        blocks.push(peer);
        continue;
      }
      const selector = { namespaces: peer.namespaces ?? policy.namespace, pods: peer.pods };
      const key = JSON.stringify(selector);
      const known = selectorIds.get(key) ?? this.#selectors.length;
      if (known === this.#selectors.length) {
        this.#selectors.push(selector);
        selectorIds.set(key, known);
      }
      selectors.push(known);
    }
    return { policy, index, selectors: peers === null ? null : selectors, blocks: own, ports };
  }

  #class(pod: Pod): PodClass {
    const cached = this.#classOf.get(pod);
    if (cached !== undefined) return cached;
    const labels = Object.entries(pod.labels).sort(([a], [b]) => (a < b ? -1 : 1));
    const key = JSON.stringify([pod.namespace, labels, pod.namedPorts]);
    let found = this.#classes.get(key);
    if (found === undefined) {
      const selecting = (this.#policies.get(pod.namespace) ?? []).filter(({ policy }) =>
        selectorMeets(policy.pods, pod.labels),
      );
      const isolating = (direction: Direction): CompiledPolicy[] | null => {
        const own = selecting.filter(({ rules }) => rules[direction] !== null);
        return own.length === 0 ? null : own;
      };
      found = {
        index: this.#classes.size + 1,
        pod,
        isolating: { ingress: isolating('ingress'), egress: isolating('egress') },
        met: new Uint8Array(this.#selectors.length),
        allowed: { ingress: new Map(), egress: new Map() },
      };
      this.#classes.set(key, found);
    }
    this.#classOf.set(pod, found);
    return found;
  }

  #meets(of: PodClass, selector: number): boolean {
    const known = of.met[selector] ?? 0;
    if (known !== 0) return known === 1;
    const wanted = this.#selectors[selector];
    const { namespace, labels } = of.pod;
    const met =
      wanted !== undefined &&
      (typeof wanted.namespaces === 'string'
        ? wanted.namespaces === namespace
        : selectorMeets(wanted.namespaces, namespaceLabels(this.#cluster, namespace))) &&
      (wanted.pods === null || selectorMeets(wanted.pods, labels));
    of.met[selector] = met ? 1 : 2;
    return met;
  }

  /** Pods on their node's network are the node to policies; an address is looked up among the ipBlocks. */
  #seen(end: End): SeenEnd & { readonly ipv4: boolean } {
    const { address } = end;
    const stack = address === null ? 0 : findStack(this.#blocks, address);
    const of = end.kind === 'pod' && !end.pod.hostNetwork ? this.#class(end.pod) : null;
    return { of, stack, ipv4: address !== null && isMapped(address) };
  }

  #holds(stack: number, ipv4: boolean): ReadonlySet<number> | undefined {
    return stack === 0 ? undefined : this.#holding[stack]?.[ipv4 ? 1 : 0];
  }

  /** Rules of a class that speak of the other end, with the ports they open. */
  #rules(
    own: PodClass,
    direction: Direction,
    other: SeenEnd & { readonly ipv4: boolean },
  ): { readonly rule: CompiledRule; readonly ports: PortSet }[] {
    const holding = this.#holds(other.stack, other.ipv4);
    const destination = direction === 'ingress' ? own : other.of;
    return (own.isolating[direction] ?? []).flatMap(({ rules }) =>
      (rules[direction] ?? []).flatMap((rule) => {
        const { of } = other;
        const speaks =
          rule.selectors === null ||
          (of !== null && rule.selectors.some((selector) => this.#meets(of, selector))) ||
          (holding !== undefined && rule.blocks.some((block) => holding.has(block)));
        return speaks ? [{ rule, ports: portsOf(rule.ports, destination?.pod ?? null) }] : [];
      }),
    );
  }

  /** What a class may do in a direction with the other end. */
  #allowed(own: PodClass, direction: Direction, end: End): PortSet {
    if (own.isolating[direction] === null) return allPorts;
    const other = this.#seen(end);
    const key = ((other.of?.index ?? 0) * stackLimit + other.stack) * 2 + (other.ipv4 ? 1 : 0);
    const memo = own.allowed[direction];
    let set = memo.get(key);
    if (set === undefined) {
      set = unionOf(this.#rules(own, direction, other).map(({ ports }) => ports));
      memo.set(key, set);
    }
    return set;
  }

  /** Every port on which the source may connect to the destination. */
  ports(source: End, destination: End): PortSet {
    if (exemption(source, destination) !== null) return allPorts;
    const from = subjectOf(source);
    const to = subjectOf(destination);
    const out = from === null ? allPorts : this.#allowed(this.#class(from), 'egress', destination);
    if (out.length === 0 || to === null) return out;
    return intersectionOf(out, this.#allowed(this.#class(to), 'ingress', source));
  }

  /** @param protocol null for one that NetworkPolicy does not speak of */
  allows(source: End, destination: End, port: number, protocol: PolicyProtocol | null): boolean {
    if (exemption(source, destination) !== null) return true;
    const place = portPlace(protocol, port);
    const from = subjectOf(source);
    if (from !== null && !hasPlace(this.#allowed(this.#class(from), 'egress', destination), place))
      return false;
    const to = subjectOf(destination);
    return to === null || hasPlace(this.#allowed(this.#class(to), 'ingress', source), place);
  }

  /** Whether a policy isolates the pod in this direction. */
  isIsolated(pod: Pod, direction: Direction): boolean {
    return !pod.hostNetwork && this.#class(pod).isolating[direction] !== null;
  }

  /** One direction by itself, with the policies and rules that decide it. */
  explain(
    direction: Direction,
    source: End,
    destination: End,
    port: number,
    protocol: PolicyProtocol | null,
  ): DirectionAnswer {
    const [own, other] = direction === 'egress' ? [source, destination] : [destination, source];
    const open = (reason: DirectionReason): DirectionAnswer => ({
      direction,
      allowed: true,
      reason,
      policies: [],
      rules: [],
    });
    if (own.kind !== 'pod') return open('no-pod');
    if (own.pod.hostNetwork) return open('host-network');
    const exempt = exemption(source, destination);
    if (exempt !== null) return open(exempt);
    const of = this.#class(own.pod);
    const isolating = of.isolating[direction];
    if (isolating === null) return open('not-isolated');
    const place = portPlace(protocol, port);
    const speaking = this.#rules(of, direction, this.#seen(other)).map(({ rule, ports }) => ({
      policy: rule.policy,
      index: rule.index,
      ports,
    }));
    const opening = speaking.filter(({ ports }) => hasPlace(ports, place));
    const allowed = opening.length > 0;
    return {
      direction,
      allowed,
      reason: allowed ? 'rule' : 'no-rule',
      policies: isolating.map(({ policy }) => policy),
      rules: allowed ? opening : speaking,
    };
  }
}

/** The pod that policies may select; null for everything else. */
function subjectOf(end: End): Pod | null {
  return end.kind === 'pod' && !end.pod.hostNetwork ? end.pod : null;
}

function nodeOf(end: End): string {
  if (end.kind === 'node') return end.node;
  return end.kind === 'pod' && end.pod.hostNetwork ? end.pod.node : '';
}

/** What no policy can forbid: a pod with itself, and a pod with the node it runs on. */
function exemption(source: End, destination: End): 'itself' | 'own-node' | null {
  if (source.kind === 'pod' && destination.kind === 'pod' && source.pod === destination.pod) return 'itself';
  for (const [end, other] of [
    [source, destination],
    [destination, source],
  ] as const) {
    const pod = subjectOf(end);
    if (pod !== null && pod.node !== '' && nodeOf(other) === pod.node) return 'own-node';
  }
  return null;
}

/** Ports of a rule; named ones are those of the destination pod, and none where it is no pod. */
function portsOf(rules: readonly PortRule[] | null, destination: Pod | null): PortSet {
  if (rules === null) return allPorts;
  return unionOf(
    rules.flatMap((rule) => {
      if (!('name' in rule)) return [portRange(rule.protocol, rule.from, rule.to)];
      return (destination?.namedPorts ?? [])
        .filter(({ name, protocol }) => name === rule.name && protocol === rule.protocol)
        .map(({ port }) => portRange(rule.protocol, port, port));
    }),
  );
}

/** Labels as a selector that asks for exactly these values. */
export function selectorOfLabels(labels: Labels): Selector {
  return Object.entries(labels).map(([key, value]) => ({ key, operator: 'In', values: [value] }));
}
