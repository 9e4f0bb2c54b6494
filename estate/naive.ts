/**
 * The slow and obvious way to name and judge a flow, from published events and policy alone: a second opinion that tests hold
 * the truth against. It shares no code with the estate's construction, nor with `lib/inventory` and `lib/policy`.
 */
import { parseCidr, parseWireAddress, toMapped } from '../lib/net/address.ts';
import type { Reason, Verdict } from '../schemas/closed-lists.ts';
import type {
  InventoryEvent,
  NameEvent,
  NamespaceEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../schemas/inventory-event.ts';
import type { Actor, LabelSelector, PolicyDocument, Profile, Rule } from '../schemas/policy.ts';

export interface NaiveEnd {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** What else a destination is told by. */
export interface NaiveCall {
  readonly port: number;
  readonly protocol: number;
  readonly dnsName: string;
}

type Owner = WorkloadEvent | ServiceEvent | NameEvent;

/** Labels and annotations at a time: of those it had formerly, the first that ended later. */
function givenAt(
  event: WorkloadEvent | ServiceEvent | NamespaceEvent,
  timeMs: number,
): { readonly labels: Record<string, string>; readonly annotations: Record<string, string> } {
  return (event.former ?? []).find(({ untilMs }) => untilMs > timeMs) ?? event;
}

export interface NaiveVerdict {
  readonly verdict: Verdict;
  readonly reason: Reason;
  readonly ruleset: string;
  readonly rule: string;
  /** Rules of the deciding action that match: one, where the policy is free of overlaps. */
  readonly matchCount: number;
}

const unknownEnd: NaiveEnd = { kind: 'unknown', cluster: '', namespace: '', name: '', uid: '', labels: {} };
const notPublic = [
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '127.0.0.0/8',
  '169.254.0.0/16',
  'fc00::/7',
  'fe80::/10',
];

/** Length of the match when the address is in the block (IPv4 counted from 96), -1 otherwise. */
function prefixMatch(ip: string, block: string): number {
  const cidr = parseCidr(block);
  const wire = parseWireAddress(ip);
  if (cidr === null || wire === null) return -1;
  const bytes = toMapped(wire);
  for (let bit = 0; bit < cidr.prefix; bit++) {
    const mask = 0x80 >> (bit & 7);
    if (((bytes[bit >> 3] ?? 0) & mask) !== ((cidr.base[bit >> 3] ?? 0) & mask)) return -1;
  }
  return cidr.prefix;
}

function globMatches(glob: string, text: string): boolean {
  const [head = '', ...rest] = glob.split('*');
  if (rest.length === 0) return glob === text;
  const tail = rest.at(-1) ?? '';
  return text.length >= head.length + tail.length && text.startsWith(head) && text.endsWith(tail);
}

export class NaiveInventory {
  readonly #namespaces = new Map<string, NamespaceEvent>();
  readonly #clusters = new Map<string, readonly string[]>();
  readonly #ranges: Extract<InventoryEvent, { type: 'range' }>[] = [];
  readonly #names: NameEvent[] = [];
  readonly #services = new Map<string, ServiceEvent>();
  readonly #owners = new Map<string, Map<string, Owner>>();

  /** Takes an event; the newest of a uid counts. */
  add(event: InventoryEvent): void {
    if (event.type === 'namespace') this.#namespaces.set(`${event.cluster}/${event.name}`, event);
    else if (event.type === 'cluster')
      this.#clusters.set(event.cluster, [...event.podCidrs, ...event.serviceCidrs]);
    else if (event.type === 'range') this.#ranges.push(event);
    else if (event.type === 'workload' || event.type === 'service' || event.type === 'name') {
      const uid = event.type === 'name' ? `name ${event.name}` : event.uid;
      if (event.type === 'name') this.#names.push(event);
      if (event.type === 'service') this.#services.set(uid, event);
      for (const { network, ip } of event.addresses) {
        const key = `${network}|${ip}`;
        const owners = this.#owners.get(key) ?? new Map<string, Owner>();
        owners.set(uid, event);
        this.#owners.set(key, owners);
      }
    }
  }

  /** Who had the address at the time: whoever else claims it too is listed as well. */
  holders(network: string, ip: string, timeMs: number): Owner[] {
    const owners = this.#owners.get(`${network}|${ip}`);
    return [...(owners?.values() ?? [])].filter((owner) =>
      owner.addresses.some(
        (at) =>
          at.network === network &&
          at.ip === ip &&
          at.sinceMs <= timeMs &&
          timeMs < (at.untilMs ?? Number.POSITIVE_INFINITY),
      ),
    );
  }

  /** How many different owners the address had in `(fromMs, toMs]`. */
  holdersAround(network: string, ip: string, fromMs: number, toMs: number): number {
    const owners = this.#owners.get(`${network}|${ip}`);
    return [...(owners?.values() ?? [])].filter((owner) =>
      owner.addresses.some((at) => at.sinceMs <= toMs && (at.untilMs ?? Number.POSITIVE_INFINITY) > fromMs),
    ).length;
  }

  /** Names an address seen from a network; of a destination, by the call as well. @throws {Error} where two have it at once */
  name(
    network: string,
    ip: string,
    timeMs: number,
    profiles: readonly Profile[],
    call: NaiveCall | null = null,
  ): NaiveEnd {
    const own = this.#clusters.get(network);
    const inCluster = own?.some((block) => prefixMatch(ip, block) >= 0) === true;
    const places = own === undefined || inCluster ? [network] : [network, 'default'];
    for (const place of places) {
      const holders = this.holders(place, ip, timeMs);
      if (holders.length > 1) throw new Error(`${ip} in ${place} has ${holders.length} owners at ${timeMs}`);
      const [holder] = holders;
      if (holder !== undefined)
        return this.#named(this.#behindNodePort(holder, call) ?? holder, timeMs, profiles);
    }
    if (inCluster) return unknownEnd;
    return this.#byName(call?.dnsName ?? '') ?? this.#range(ip);
  }

  /** The service that a node stands for on the port that was called. */
  #behindNodePort(holder: Owner, call: NaiveCall | null): ServiceEvent | undefined {
    if (call === null || holder.type !== 'workload' || holder.kind !== 'node') return undefined;
    return [...this.#services.values()].find(
      ({ cluster, ports }) =>
        cluster === holder.cluster &&
        ports.some(
          ({ nodePort, protocol }) =>
            nodePort === call.port && protocol.toLowerCase() === protocolNames[call.protocol],
        ),
    );
  }

  /** Of the listed names that match, the most particular one's. */
  #byName(dnsName: string): NaiveEnd | null {
    let best: { readonly length: number; readonly end: NaiveEnd } | null = null;
    for (const { name, dns, labels } of this.#names) {
      for (const listed of dns) {
        const matches = listed.startsWith('*.') ? dnsName.endsWith(listed.slice(1)) : dnsName === listed;
        if (matches && listed.length > (best?.length ?? 0))
          best = { length: listed.length, end: { ...unknownEnd, kind: 'name', name, labels } };
      }
    }
    return best?.end ?? null;
  }

  #named(owner: Owner, timeMs: number, profiles: readonly Profile[]): NaiveEnd {
    if (owner.type === 'name') return { ...unknownEnd, kind: 'name', name: owner.name, labels: owner.labels };
    const kind = owner.type === 'service' ? 'service' : owner.kind;
    const { cluster, namespace, uid } = owner;
    const name = owner.type === 'service' ? owner.name : '';
    return { kind, cluster, namespace, name, uid, labels: this.labels(owner, kind, timeMs, profiles) };
  }

  labels(
    owner: WorkloadEvent | ServiceEvent,
    kind: string,
    timeMs: number,
    profiles: readonly Profile[],
  ): Record<string, string> {
    const given = givenAt(owner, timeMs);
    const namespace = this.#namespaces.get(`${owner.cluster}/${owner.namespace}`);
    const profile = profiles.find(
      ({ match }) =>
        (match.kind === undefined || match.kind.some((one) => one === kind)) &&
        (match.cluster === undefined || match.cluster.some((glob) => globMatches(glob, owner.cluster))) &&
        (match.namespace === undefined || match.namespace.some((glob) => globMatches(glob, owner.namespace))),
    );
    if (profile === undefined) return {};
    const labels: Record<string, string> = { ...profile.default };
    for (const { key, from, values } of profile.map ?? []) {
      const namespaceLabels = namespace === undefined ? {} : givenAt(namespace, timeMs).labels;
      const raw =
        'label' in from
          ? given.labels[from.label]
          : 'namespaceLabel' in from
            ? namespaceLabels[from.namespaceLabel]
            : given.annotations[from.annotation];
      const value = raw === undefined ? undefined : values === undefined ? raw : values[raw];
      if (value !== undefined) labels[key] = value;
    }
    for (const [key, permitted] of Object.entries(profile.allow ?? {})) {
      const asked = given.annotations[`eastwest.io/${key}`];
      if (asked !== undefined && (permitted.length === 0 || permitted.includes(asked))) labels[key] = asked;
    }
    return { ...labels, ...profile.assign };
  }

  #range(ip: string): NaiveEnd {
    let best: { readonly length: number; readonly end: NaiveEnd } | null = null;
    for (const { name, cidrs, labels } of this.#ranges) {
      for (const block of cidrs) {
        const length = prefixMatch(ip, block);
        if (length >= 0 && length > (best?.length ?? -1))
          best = { length, end: { ...unknownEnd, kind: 'range', name, labels } };
      }
    }
    if (best !== null) return best.end;
    if (notPublic.some((block) => prefixMatch(ip, block) >= 0)) return unknownEnd;
    return { ...unknownEnd, kind: 'range', name: 'internet' };
  }
}

const protocolNames: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp',
};

/** Who somebody is matters to rules only in kind, place and labels. */
type Judged = Pick<NaiveEnd, 'kind' | 'cluster' | 'namespace' | 'labels'>;

function selected(selector: LabelSelector, end: Judged): boolean {
  return Object.entries(selector).every(([key, wanted]) => {
    if (typeof wanted !== 'string' && !Array.isArray(wanted))
      throw new Error(`the policy of the estate selects ${key} by a plain value, or by a list`);
    const { kind, cluster, namespace } = end;
    const value = { kind, cluster, namespace }[key] ?? end.labels[key];
    return value !== undefined && [wanted].flat().includes(value);
  });
}

function isActor(actor: Actor, end: Judged, ip: string, policy: PolicyDocument): boolean {
  if ('any' in actor) return true;
  if ('labels' in actor) return selected(actor.labels, end);
  if ('dns' in actor) throw new Error('the policy of the estate has no DNS names');
  const cidrs =
    'cidr' in actor
      ? [actor.cidr].flat()
      : (policy.ipLists.find(({ name }) => name === actor.ipList)?.cidrs ?? []);
  let longest = -1;
  let inside = false;
  for (const text of cidrs) {
    const excluded = text.startsWith('!');
    const length = prefixMatch(ip, excluded ? text.slice(1) : text);
    if (length <= longest) continue;
    longest = length;
    inside = !excluded;
  }
  return inside;
}

function coversPort(rule: Rule, port: number, protocol: number, policy: PolicyDocument): boolean {
  if (rule.services === undefined) return true;
  const specs = rule.services.flatMap((ref) =>
    typeof ref === 'string' ? (policy.services.find(({ name }) => name === ref)?.ports ?? []) : [ref],
  );
  return specs.some((spec) => {
    const wanted = spec.protocol ?? 'tcp';
    if (wanted !== 'any' && wanted !== protocolNames[protocol]) return false;
    if (spec.port === undefined) return true;
    const [from = 0, to = from] = String(spec.port).split('-').map(Number);
    return port >= from && port <= to;
  });
}

/** Judges a flow by reading every rule. */
export function naiveVerdict(
  policy: PolicyDocument,
  nowMs: number,
  source: Judged & { readonly ip: string },
  destination: Judged & { readonly ip: string },
  port: number,
  protocol: number,
): NaiveVerdict {
  const matches = new Map<string, { readonly ruleset: string; readonly rule: string }[]>();
  let pair = false;
  let scoped = false;
  for (const ruleset of policy.rulesets) {
    if (ruleset.enabled === false) continue;
    const inScope =
      ruleset.scope === undefined ||
      ruleset.scope.some((selector) => selected(selector, source) || selected(selector, destination));
    if (!inScope) continue;
    scoped = true;
    for (const rule of ruleset.rules) {
      if (rule.enabled === false) continue;
      if (rule.expires !== undefined && Date.parse(rule.expires) <= nowMs) continue;
      if (!rule.from.some((actor) => isActor(actor, source, source.ip, policy))) continue;
      if (!rule.to.some((actor) => isActor(actor, destination, destination.ip, policy))) continue;
      pair = true;
      if (!coversPort(rule, port, protocol, policy)) continue;
      const action = rule.action ?? 'allow';
      matches.set(action, [...(matches.get(action) ?? []), { ruleset: ruleset.name, rule: rule.name }]);
    }
  }
  for (const action of ['override-deny', 'allow', 'deny']) {
    const found = matches.get(action);
    const [first] = found ?? [];
    if (found === undefined || first === undefined) continue;
    return {
      verdict: action === 'allow' ? 'allowed' : 'denied',
      reason: 'rule',
      ...first,
      matchCount: found.length,
    };
  }
  const reason: Reason =
    source.kind === 'unknown'
      ? 'unknown-source'
      : destination.kind === 'unknown'
        ? 'unknown-destination'
        : pair
          ? 'port-not-covered'
          : scoped
            ? 'no-rule'
            : 'outside-scope';
  return { verdict: 'unexplained', reason, ruleset: '', rule: '', matchCount: 0 };
}
