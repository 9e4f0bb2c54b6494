/**
 * The rules that concern the pods of some namespaces as Kubernetes NetworkPolicies. Each namespace is closed both ways, and
 * each rule that allows something opens what it opens: on the side of the source for egress, of the destination for
 * ingress. Deterministic, like the export for nft.
 */

import { parseAddress, parseCidr } from '../net/address.ts';
import {
  type AddressInterval,
  blocksWithHoles,
  cidrInterval,
  intersectIntervals,
  ipv4Space,
  ipv6Space,
  mergeIntervals,
  subtractIntervals,
} from '../net/intervals.ts';
import { namespaceNameLabel, type Selector } from '../networkpolicy/model.ts';
import { agrees, decideSlices, slicesOfRule } from './decisions.ts';
import { ruleName } from './nftables.ts';
import { askedValues, type PodGroup, type PodGroups, podGroups, selectorsOfBoxes } from './pod-groups.ts';
import { isWhole, type ServiceSlice, serviceSlices, servicesOf } from './services.ts';
import { unenforced } from './unenforced.ts';
import type { AddressClass, World } from './world.ts';

export interface NetworkPolicyOptions {
  readonly cluster: string;
  /** Whose pods get policies. */
  readonly namespaces: readonly string[];
  /** Networks beside the routed one whose addresses pods are reached from, and reach. */
  readonly networks: readonly string[];
}

interface LabelSelectorObject {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}
interface PeerObject {
  readonly namespaceSelector?: LabelSelectorObject;
  readonly podSelector?: LabelSelectorObject;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}
interface PortObject {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port?: number;
  readonly endPort?: number;
}
interface RuleObject {
  readonly from?: readonly PeerObject[];
  readonly to?: readonly PeerObject[];
  readonly ports?: readonly PortObject[];
}

/** As the API server takes it. */
export interface NetworkPolicyObject {
  readonly apiVersion: 'networking.k8s.io/v1';
  readonly kind: 'NetworkPolicy';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  };
  readonly spec: {
    readonly podSelector: LabelSelectorObject;
    readonly policyTypes: readonly string[];
    readonly ingress?: readonly RuleObject[];
    readonly egress?: readonly RuleObject[];
  };
}

export interface NetworkPolicyExport {
  readonly policies: readonly NetworkPolicyObject[];
  /** What could not be exported and why, and what was taken for granted, as sentences. */
  readonly remarks: readonly string[];
}

type Direction = 'ingress' | 'egress';

/** All that the other end may be. */
interface Peers {
  readonly namespaces: readonly PodGroups[];
  /** Pods of a namespace that is not known yet. */
  readonly elsewhere: number;
  /** As far as they lie outside. */
  readonly outside: readonly AddressClass[];
  readonly outsideSpace: readonly AddressInterval[];
  /** Block set of pods. */
  readonly podBlocks: number;
  readonly slices: readonly ServiceSlice[];
}

/** What one rule opens for one group in one direction, on the same services. */
interface Opening {
  readonly rule: number;
  readonly chosen: readonly number[];
  /** Null: everybody. */
  readonly peers: readonly PeerObject[] | null;
}

const everyone: readonly AddressInterval[] = [ipv4Space, ...ipv6Space];

function selectorObject(selector: Selector): LabelSelectorObject {
  const labels = selector.flatMap(({ key, operator, values }) =>
    operator === 'In' && values.length === 1 ? [[key, values[0] ?? ''] as const] : [],
  );
  const expressions = selector
    .filter(({ operator, values }) => operator !== 'In' || values.length !== 1)
    .map(({ key, operator, values }) => ({ key, operator, ...(values.length === 0 ? {} : { values }) }));
  return {
    ...(labels.length === 0 ? {} : { matchLabels: Object.fromEntries(labels) }),
    ...(expressions.length === 0 ? {} : { matchExpressions: expressions }),
  };
}

function namespaceSelector(names: readonly string[]): LabelSelectorObject {
  return selectorObject([{ key: namespaceNameLabel, operator: 'In', values: names }]);
}

/** What of a set of groups pods are, namespace by namespace. */
function podPeers(
  own: string,
  chosen: ReadonlyMap<PodGroups, readonly PodGroup[]>,
  selectorsOf: (of: PodGroups, groups: readonly PodGroup[]) => Selector[],
): PeerObject[] {
  const byPods = new Map<string, { pods: Selector[]; names: string[] }>();
  for (const [of, groups] of chosen) {
    const pods = selectorsOf(of, groups);
    const key = JSON.stringify(pods);
    const same = byPods.get(key);
    if (same === undefined) byPods.set(key, { pods, names: [of.namespace] });
    else same.names.push(of.namespace);
  }
  return [...byPods.values()].flatMap(({ pods, names }) =>
    pods.map((selector): PeerObject => {
      const podSelector = selectorObject(selector);
      if (names.length === 1 && names[0] === own) return { podSelector };
      const where = { namespaceSelector: namespaceSelector(names) };
      return selector.length === 0 ? where : { ...where, podSelector };
    }),
  );
}

function portObjects(slices: readonly ServiceSlice[], chosen: readonly number[]): PortObject[] | null {
  if (chosen.length === slices.length) return null;
  const services = servicesOf(slices, chosen);
  return (['tcp', 'udp', 'sctp'] as const).flatMap((name): PortObject[] => {
    const protocol = name === 'tcp' ? 'TCP' : name === 'udp' ? 'UDP' : 'SCTP';
    const ports = services.get(name) ?? [];
    if (isWhole(ports)) return [{ protocol }];
    return ports.flatMap(({ from, to }): PortObject[] => {
      // Port 0 is no port to Kubernetes, nor to anybody else.
      const port = Math.max(1, from);
      if (to < port) return [];
      return [{ protocol, port, ...(to > port ? { endPort: to } : {}) }];
    });
  });
}

interface DecidedPods {
  readonly of: PodGroups;
  readonly peer: PodGroup;
  readonly decided: Int32Array;
}

/** One that a group may talk with: pods of a group, or addresses. */
type Peer =
  | { readonly of: PodGroups; readonly pods: PodGroup }
  | { readonly of: null; readonly outside: AddressClass };

class Exporter {
  readonly #world: World;
  readonly #peers: Peers;
  /** Pods namespace by namespace, then addresses. */
  readonly #others: readonly Peer[];
  /** Places in `#others` by what they fit on a side: rules speak of no others. */
  readonly #fitting = new Map<'source' | 'destination', Map<number, number[]>>();
  readonly #spoken = new Map<number, readonly number[]>();
  readonly remarks: string[] = [];
  /** Rules that were written, or of which it was said why not. */
  readonly told = new Set<number>();
  readonly #selectors = new Map<string, Selector[]>();

  constructor(world: World, peers: Peers) {
    this.#world = world;
    this.#peers = peers;
    this.#others = [
      ...peers.namespaces.flatMap((of) => of.groups.map((pods) => ({ of, pods }))),
      ...peers.outside.map((outside) => ({ of: null, outside })),
    ];
  }

  #lanes(side: 'source' | 'destination', identity: number, blockSet: number): number[] {
    const is = this.#world.identities[identity];
    if (is === undefined) throw new RangeError('identity index out of range');
    return this.#world.engine.lanesOf(side, identity, blockSet, is);
  }

  #othersFitting(side: 'source' | 'destination'): ReadonlyMap<number, readonly number[]> {
    const known = this.#fitting.get(side);
    if (known !== undefined) return known;
    const found = new Map<number, number[]>();
    for (const [place, other] of this.#others.entries()) {
      const lanes =
        other.of === null
          ? this.#lanes(side, other.outside.identity, other.outside.blockSet)
          : this.#lanes(side, other.pods.identity, this.#peers.podBlocks);
      for (const lane of lanes) {
        const places = found.get(lane);
        if (places === undefined) found.set(lane, [place]);
        else places.push(place);
      }
    }
    this.#fitting.set(side, found);
    return found;
  }

  /** Those that a rule may speak of together with the group, in order. */
  #othersOf(group: PodGroup, direction: Direction): Peer[] {
    const [own, other] =
      direction === 'ingress' ? (['destination', 'source'] as const) : (['source', 'destination'] as const);
    const fitting = this.#othersFitting(other);
    const places = new Set(
      this.#lanes(own, group.identity, this.#peers.podBlocks).flatMap((lane) => fitting.get(lane) ?? []),
    );
    return [...places].sort((a, b) => a - b).flatMap((place) => this.#others[place] ?? []);
  }

  #decide(group: PodGroup, direction: Direction, identity: number, blockSet: number): Int32Array | null {
    const own = { identity: group.identity, blockSet: this.#peers.podBlocks };
    const other = { identity, blockSet };
    const [source, destination] = direction === 'ingress' ? [other, own] : [own, other];
    return decideSlices(this.#world, source, destination, this.#peers.slices);
  }

  #slicesOf(rule: number): readonly number[] {
    const known = this.#spoken.get(rule) ?? slicesOfRule(this.#world, rule, this.#peers.slices);
    this.#spoken.set(rule, known);
    return known;
  }

  /** Selectors of some groups of a namespace; namespaces with the same groups share them. */
  #selectorsOf(of: PodGroups, groups: readonly PodGroup[]): Selector[] {
    const boxes = groups.flatMap((group) => group.boxes);
    const key = JSON.stringify([of.axes, boxes]);
    const known = this.#selectors.get(key) ?? selectorsOfBoxes(of, boxes);
    this.#selectors.set(key, known);
    return known;
  }

  /** What every rule opens for a group. */
  openings(group: PodGroup, direction: Direction): Opening[] {
    const { podBlocks, elsewhere } = this.#peers;
    const pods: DecidedPods[] = [];
    const addresses: { readonly intervals: readonly AddressInterval[]; readonly decided: Int32Array }[] = [];
    for (const other of this.#othersOf(group, direction)) {
      const [identity, blockSet] =
        other.of === null
          ? [other.outside.identity, other.outside.blockSet]
          : [other.pods.identity, podBlocks];
      const decided = this.#decide(group, direction, identity, blockSet);
      if (decided === null) continue;
      if (other.of === null) addresses.push({ intervals: other.outside.intervals, decided });
      else pods.push({ of: other.of, peer: other.pods, decided });
    }
    const byNamespace = Map.groupBy(pods, ({ of }) => of);
    const strangers = this.#decide(group, direction, elsewhere, podBlocks);
    const wanted = new Map<string, { key: number; chosen: number[] }>();
    for (const { decided } of [
      ...pods,
      ...addresses,
      ...(strangers === null ? [] : [{ decided: strangers }]),
    ])
      for (const key of new Set(decided)) {
        if (key === -1 || (key & 1) === 0) continue;
        const chosen = this.#slicesOf(key >> 1).filter((slice) => agrees(decided, slice, key));
        wanted.set(`${key} ${chosen.join()}`, { key, chosen });
      }
    return [...wanted.values()]
      .sort(
        (a, b) =>
          a.key - b.key || a.chosen.length - b.chosen.length || (a.chosen.join() < b.chosen.join() ? -1 : 1),
      )
      .flatMap(({ key, chosen }) => {
        const is = (decided: Int32Array): boolean => chosen.every((slice) => agrees(decided, slice, key));
        const first = (decided: Int32Array): boolean =>
          decided.includes(key) &&
          this.#slicesOf(key >> 1).filter((slice) => agrees(decided, slice, key)).length === chosen.length &&
          is(decided);
        const peers = this.#peerObjects(group, byNamespace, addresses, strangers, is, first);
        return peers !== null && peers.length === 0 ? [] : [{ rule: key >> 1, chosen, peers }];
      });
  }

  /** Null for everybody. What comes out the same anyway is taken in where that says it in fewer words. */
  #peerObjects(
    group: PodGroup,
    pods: ReadonlyMap<PodGroups, readonly DecidedPods[]>,
    addresses: readonly { readonly intervals: readonly AddressInterval[]; readonly decided: Int32Array }[],
    strangers: Int32Array | null,
    is: (decided: Int32Array) => boolean,
    first: (decided: Int32Array) => boolean,
  ): PeerObject[] | null {
    const { namespaces, outsideSpace } = this.#peers;
    const chosen = new Map<PodGroups, PodGroup[]>();
    let isEveryPod = strangers !== null && is(strangers) && pods.size === namespaces.length;
    for (const [of, own] of pods) {
      const same = own.filter(({ decided }) => is(decided));
      const isFull = same.length === of.groups.length;
      isEveryPod &&= isFull;
      const needed = own.filter(({ decided }) => first(decided));
      if (needed.length > 0)
        chosen.set(
          of,
          (isFull ? same : needed).map(({ peer }) => peer),
        );
    }
    const care = mergeIntervals(
      addresses.filter(({ decided }) => first(decided)).flatMap((one) => one.intervals),
    );
    const runs = mergeIntervals(
      addresses.filter(({ decided }) => is(decided)).flatMap((one) => one.intervals),
    );
    const isEveryAddress = subtractIntervals(outsideSpace, runs).length === 0;
    if (chosen.size === 0 && care.length === 0 && (strangers === null || !first(strangers))) return [];
    if (isEveryPod && isEveryAddress) return null;
    const wide = care.length > 1 ? runs.filter((run) => intersectIntervals(care, [run]).length > 0) : care;
    const blocks =
      [blocksWithHoles(care), blocksWithHoles(wide)].sort((a, b) => entries(a) - entries(b))[0] ?? [];
    return [
      ...(isEveryPod
        ? [{ namespaceSelector: {} }]
        : podPeers(group.namespace, chosen, (of, groups) => this.#selectorsOf(of, groups))),
      ...blocks.map(({ cidr, except }) => ({ ipBlock: except.length === 0 ? { cidr } : { cidr, except } })),
    ];
  }

  /** The policies of one namespace, the one that closes it first. */
  policiesOf(of: PodGroups): NetworkPolicyObject[] {
    const { namespace } = of;
    const { slices } = this.#peers;
    const closed = policyObject(namespace, 'eastwest-closed', 'what no rule allows', {
      podSelector: {},
      policyTypes: ['Ingress', 'Egress'],
    });
    const names = new Set<string>();
    const opened: NetworkPolicyObject[] = [];
    for (const direction of ['ingress', 'egress'] as const) {
      // By rule and what it opens: the groups that it opens the same for.
      const alike = new Map<string, { rule: number; rules: RuleObject[]; groups: PodGroup[] }>();
      for (const group of of.groups) {
        const byRule = Map.groupBy(this.openings(group, direction), ({ rule }) => rule);
        for (const [rule, openings] of byRule) {
          const rules = openings.flatMap(({ chosen, peers }) => {
            const ports = portObjects(slices, chosen);
            if (ports === null || ports.length > 0) return [ruleObject(direction, peers, ports)];
            return [];
          });
          this.#tellIcmp(rule, openings);
          if (rules.length === 0) continue;
          this.told.add(rule);
          const key = `${rule} ${JSON.stringify(rules)}`;
          const same = alike.get(key);
          if (same === undefined) alike.set(key, { rule, rules, groups: [group] });
          else same.groups.push(group);
        }
      }
      for (const { rule, rules, groups } of [...alike.values()].sort((a, b) => a.rule - b.rule)) {
        const name = ruleName(this.#world, rule);
        for (const selector of this.#selectorsOf(of, groups))
          opened.push(
            policyObject(namespace, uniqueName(`${name}-${direction}`, names), name, {
              podSelector: selectorObject(selector),
              policyTypes: [direction === 'ingress' ? 'Ingress' : 'Egress'],
              [direction]: rules,
            }),
          );
      }
    }
    return [closed, ...opened];
  }

  #tellIcmp(rule: number, openings: readonly Opening[]): void {
    const { slices } = this.#peers;
    const lost = openings.some(
      ({ chosen }) =>
        chosen.length < slices.length &&
        chosen.some((slice) => !['tcp', 'udp', 'sctp'].includes(slices[slice]?.protocol ?? '')),
    );
    if (!lost) return;
    this.told.add(rule);
    this.remarks.push(
      `${ruleName(this.#world, rule)}: NetworkPolicy can allow TCP, UDP and SCTP, or everything; what this rule allows of other protocols (ICMP) is left out`,
    );
  }
}

const entries = (blocks: readonly { readonly except: readonly string[] }[]): number =>
  blocks.reduce((sum, { except }) => sum + 1 + except.length, 0);

function ruleObject(
  direction: Direction,
  peers: readonly PeerObject[] | null,
  ports: readonly PortObject[] | null,
): RuleObject {
  return {
    ...(peers === null ? {} : direction === 'ingress' ? { from: peers } : { to: peers }),
    ...(ports === null ? {} : { ports }),
  };
}

/** A name that Kubernetes takes, and that the namespace has only once. */
function uniqueName(text: string, names: Set<string>): string {
  const maxLength = 240;
  const base = `eastwest-${text.toLowerCase().replace(/[^a-z0-9-]+/g, '-')}`
    .slice(0, maxLength)
    .replace(/-+$/, '');
  let name = base;
  for (let i = 2; names.has(name); i++) name = `${base}-${i}`;
  names.add(name);
  return name;
}

function policyObject(
  namespace: string,
  name: string,
  rule: string,
  spec: NetworkPolicyObject['spec'],
): NetworkPolicyObject {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: {
      name,
      namespace,
      labels: { 'app.kubernetes.io/managed-by': 'eastwest' },
      annotations: { 'eastwest.io/rule': rule },
    },
    spec,
  };
}

/** The block set of every pod of the cluster; 0, with a remark, where addresses of pods decide what rules say of them. */
function podBlocksOf(world: World, cluster: string, remarks: string[]): number {
  const event = world.events.find((one) => one.type === 'cluster' && one.cluster === cluster);
  const ranges = event?.type === 'cluster' ? event.podCidrs : [];
  const sets = new Set(
    ranges.flatMap((text) => {
      const cidr = parseCidr(text);
      return cidr === null ? [] : [world.engine.blockSetOfBlock(cidr)];
    }),
  );
  const [only] = sets;
  if (sets.size === 1 && only !== undefined && only >= 0) return only;
  if (world.engine.hasBlocks)
    remarks.push(
      ranges.length === 0
        ? `the pod range of cluster ${cluster} is not known, so pods are taken to be in no ip-list and no CIDR of the policy`
        : `ip-lists or CIDRs of the policy hold some of the pod addresses of cluster ${cluster} and not others; selectors can't tell those apart, so pods are taken to be in none of them`,
    );
  return 0;
}

/** Addresses that are not pods or services of the cluster: what ipBlocks are for. */
function outsideOf(world: World, cluster: string): AddressInterval[] {
  const inside = world.events.flatMap((event): AddressInterval[] => {
    if (!('cluster' in event) || event.cluster !== cluster) return [];
    if (event.type === 'cluster')
      return [...event.podCidrs, ...event.serviceCidrs].flatMap((text) => {
        const cidr = parseCidr(text);
        return cidr === null ? [] : [cidrInterval(cidr)];
      });
    const isInside = event.type === 'service' || (event.type === 'workload' && event.kind === 'pod');
    if (!isInside) return [];
    return event.addresses.flatMap(({ ip, network, untilMs }) => {
      const cidr =
        network === cluster && untilMs === undefined && parseAddress(ip) !== null ? parseCidr(ip) : null;
      return cidr === null ? [] : [cidrInterval(cidr)];
    });
  });
  return subtractIntervals(
    everyone.toSorted((a, b) => (a.from < b.from ? -1 : 1)),
    mergeIntervals(inside),
  );
}

/** What of the pods that are there now selectors can't see. */
function presentRemarks(world: World, { cluster, namespaces }: NetworkPolicyOptions): string[] {
  return world.events.flatMap((event) => {
    if (event.type !== 'workload' || event.kind !== 'pod' || event.cluster !== cluster) return [];
    const name = `${event.namespace}/${event.name}`;
    if (event.hostNetwork)
      return namespaces.includes(event.namespace)
        ? [`${name} is on the network of its node: policies do not select it`]
        : [];
    const bySelectors = world.identityOfPod(cluster, event.namespace, event.labels);
    if (bySelectors === world.identityOfOwner(event)) return [];
    const { annotations } = event;
    return [
      `${name} has labels by annotations (${Object.keys(annotations).sort().join(', ')}), which selectors can't see: policies take it as if it had none`,
    ];
  });
}

/**
 * @param onNamespace told of each namespace that is done, and of how many there are
 * @throws {RangeError} where labels of a namespace have too many combinations
 */
export function exportNetworkPolicies(
  world: World,
  options: NetworkPolicyOptions,
  onNamespace: (done: number, of: number) => void = () => undefined,
): NetworkPolicyExport {
  const { cluster } = options;
  const remarks: string[] = [];
  const asked = askedValues(world.document);
  const known = [...new Set([...world.namespaces(cluster), ...options.namespaces])].sort();
  const namespaces = known.map((namespace) => podGroups(world, cluster, namespace, asked));
  const [four, six] = [serviceSlices(world.engine, 'ipv4'), serviceSlices(world.engine, 'ipv6')];
  const outsideSpace = outsideOf(world, cluster);
  const outside = world.classes(['default', ...options.networks]).flatMap((one): AddressClass[] => {
    const intervals = intersectIntervals(one.intervals, outsideSpace);
    return intervals.length === 0 ? [] : [{ ...one, intervals }];
  });
  const peers: Peers = {
    namespaces,
    elsewhere: world.identityOfPod(cluster, 'any other namespace', {}),
    outside,
    outsideSpace,
    podBlocks: podBlocksOf(world, cluster, remarks),
    slices: [...four, ...six.filter(({ protocol }) => protocol === 'icmpv6')],
  };
  const exporter = new Exporter(world, peers);
  const wanted = new Set(options.namespaces);
  const chosen = namespaces.filter(({ namespace }) => wanted.has(namespace));
  const policies = chosen.flatMap((of, i) => {
    const own = exporter.policiesOf(of);
    onNamespace(i + 1, chosen.length);
    return own;
  });
  for (const [rule, { action }] of world.engine.rules.entries())
    if (action === 'allow' && !exporter.told.has(rule))
      remarks.push(
        `${ruleName(world, rule)}: nothing of it is exported; it allows pods of these namespaces nothing that a NetworkPolicy can say`,
      );
  const all = [
    ...remarks,
    ...exporter.remarks,
    ...world.remarks,
    ...unenforced(world),
    ...presentRemarks(world, options),
  ];
  return { policies, remarks: [...new Set(all)] };
}
