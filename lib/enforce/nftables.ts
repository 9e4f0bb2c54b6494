/**
 * The rules that concern one host as a ruleset for nft: the ingress end of rules it is a destination of, the egress end of
 * those it is a source of. Deterministic: the same inventory and policy give the same bytes. Minimal: no rule is written
 * for what the default does anyway, and no address or port stands there twice.
 */
import { formatAddress, isMapped } from '../net/address.ts';
import {
  type AddressInterval,
  addressNumber,
  intersectIntervals,
  intervalText,
  ipv4Space,
  ipv6Space,
  mergeIntervals,
  subtractIntervals,
} from '../net/intervals.ts';
import { type Decision, decisionsOf } from './decisions.ts';
import {
  isEveryService,
  isWhole,
  type PortInterval,
  type Services,
  serviceSlices,
  servicesMeet,
} from './services.ts';
import { unenforced } from './unenforced.ts';
import type { AddressClass, World, WorldHost } from './world.ts';

export interface NftablesOptions {
  /** What happens to connections that no rule speaks of. */
  readonly default: 'drop' | 'accept';
  /** Networks whose addresses reach the host beside its own: clusters whose pods keep their addresses on the way. */
  readonly networks: readonly string[];
}

export interface NftablesExport {
  readonly text: string;
  /** What could not be written, and what was taken for granted, as sentences. */
  readonly remarks: readonly string[];
  /** Elements of all sets. */
  readonly elementCount: number;
}

type Family = 'ipv4' | 'ipv6';

const spaces: Readonly<Record<Family, readonly AddressInterval[]>> = { ipv4: [ipv4Space], ipv6: ipv6Space };
const families: readonly Family[] = ['ipv4', 'ipv6'];
const directions = ['ingress', 'egress'] as const;
type Direction = (typeof directions)[number];

/** Decisions about some addresses of the host, all of which they are the same for. */
interface LocalDecisions {
  readonly addresses: readonly Uint8Array[];
  readonly decisions: readonly Decision[];
}

/** nft takes longer names, people don't. */
const maxSetNameLength = 60;
/** The kernel's, bytes; names of rules are ASCII. */
const maxCommentLength = 120;

class Sets {
  readonly #byContent = new Map<string, string>();
  readonly #names = new Set<string>();
  readonly lines: string[] = [];
  elementCount = 0;

  /** The name of the set with these addresses, which is made if there is none. */
  nameOf(wanted: string, family: Family, intervals: readonly AddressInterval[]): string {
    const elements = intervals.map(intervalText);
    const content = `${family} ${elements.join()}`;
    const known = this.#byContent.get(content);
    if (known !== undefined) return known;
    const base = wanted.replace(/[^A-Za-z0-9_-]+/g, '_').slice(0, maxSetNameLength);
    let name = base;
    for (let i = 2; this.#names.has(name); i++) name = `${base}_${i}`;
    this.#names.add(name);
    this.#byContent.set(content, name);
    this.elementCount += elements.length;
    const isInterval = elements.some((element) => /[/-]/.test(element));
    this.lines.push(
      `set ${name} {`,
      `  type ${family}_addr`,
      ...(isInterval ? ['  flags interval'] : []),
      '  elements = {',
      ...elements.map((element, i) => `    ${element}${i + 1 < elements.length ? ',' : ''}`),
      '  }',
      '}',
    );
    return name;
  }
}

const sameSpace = (a: readonly AddressInterval[], b: readonly AddressInterval[]): boolean =>
  a.length === b.length && a.every(({ from, to }, i) => from === b[i]?.from && to === b[i]?.to);

function listed(items: readonly string[]): string {
  const [only] = items;
  return items.length === 1 && only !== undefined ? only : `{ ${items.join(', ')} }`;
}

function portTexts(ports: readonly PortInterval[]): string {
  return listed(ports.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)));
}

/** Types that are meant with all of their codes, and the others one by one. */
function icmpMatches(name: 'icmp' | 'icmpv6', ports: readonly PortInterval[]): string[] {
  const whole: string[] = [];
  const single: string[] = [];
  for (const { from, to } of ports) {
    for (let at = from; at <= to; ) {
      const type = at >> 8;
      const typesEnd = to + 1 - ((to + 1) % 256);
      if (at % 256 === 0 && typesEnd > at) {
        const last = typesEnd / 256 - 1;
        whole.push(type === last ? `${type}` : `${type}-${last}`);
        at = typesEnd;
        continue;
      }
      const end = Math.min(to, type * 256 + 255);
      const codes = at === end ? `${at % 256}` : `${at % 256}-${end % 256}`;
      single.push(`${name} type ${type} ${name} code ${codes}`);
      at = end + 1;
    }
  }
  return [...(whole.length === 0 ? [] : [`${name} type ${listed(whole)}`]), ...single];
}

/** Matches of which any will do; one empty match where every service is meant. */
function serviceMatches(services: Services): string[] {
  if (isEveryService(services)) return [''];
  const wholes: string[] = [];
  const out: string[] = [];
  for (const [protocol, ports] of services) {
    if (protocol === 'other') continue;
    const l4 = protocol === 'icmpv6' ? 'ipv6-icmp' : protocol;
    if (isWhole(ports)) wholes.push(l4);
    else if (protocol === 'icmp' || protocol === 'icmpv6') out.push(...icmpMatches(protocol, ports));
    else out.push(`${protocol} dport ${portTexts(ports)}`);
  }
  if (wholes.length > 0) out.unshift(`meta l4proto ${listed(wholes)}`);
  if (services.has('other')) out.push('meta l4proto != { tcp, udp, sctp, icmp, ipv6-icmp }');
  return out;
}

/** `payments/api-to-database` */
export function ruleName(world: World, rule: number): string {
  const compiled = world.engine.rules[rule];
  return compiled === undefined ? '' : `${compiled.ruleset.name}/${compiled.rule.name}`;
}

/** A world, with what of it is the same for both chains. */
interface Judged {
  readonly world: World;
  readonly identity: number;
  readonly classes: readonly AddressClass[];
}

/** What is decided about the addresses of one family, grouped where it is not the same for all of them. */
function localDecisions(
  { world, identity, classes }: Judged,
  own: readonly Uint8Array[],
  direction: Direction,
  family: Family,
): LocalDecisions[] {
  const groups = Map.groupBy(own, (ip) => world.engine.blockSet(ip, 0));
  const slices = serviceSlices(world.engine, family);
  // A host reaches itself whatever rules say.
  const space = peerSpace(own, family);
  const found = new Map<string, { addresses: Uint8Array[]; decisions: Decision[] }>();
  for (const [blockSet, addresses] of groups) {
    const decisions = decisionsOf(world, { identity, blockSet }, direction, classes, slices, space);
    const key = JSON.stringify(decisions, (_name, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value instanceof Map ? [...value] : value,
    );
    const same = found.get(key);
    if (same === undefined) found.set(key, { addresses: [...addresses], decisions });
    else same.addresses.push(...addresses);
  }
  return [...found.values()];
}

/** Every address of a family but the host's own. */
function peerSpace(own: readonly Uint8Array[], family: Family): AddressInterval[] {
  const points = own.map((ip) => ({ from: addressNumber(ip), to: addressNumber(ip) }));
  return subtractIntervals(spaces[family], mergeIntervals(points));
}

/** A decision that becomes rules of a chain. */
interface Written {
  readonly name: string;
  readonly decision: Decision;
  readonly family: Family;
  /** Addresses of the host that it is about; null for all of the family. */
  readonly addresses: readonly Uint8Array[] | null;
  readonly isEverybody: boolean;
}

function writtenOf(
  judged: Judged,
  host: WorldHost,
  direction: Direction,
  wanted: (decision: Decision) => boolean,
): Written[] {
  const written: Written[] = [];
  for (const family of families) {
    const own = host.addresses.map(({ ip }) => ip).filter((ip) => isMapped(ip) === (family === 'ipv4'));
    const local = localDecisions(judged, own, direction, family);
    const everybody = peerSpace(own, family);
    for (const { addresses, decisions } of local)
      for (const decision of decisions.filter(wanted))
        written.push({
          name: ruleName(judged.world, decision.rule),
          decision,
          family,
          addresses: local.length === 1 ? null : addresses,
          isEverybody: sameSpace(decision.peers, everybody),
        });
  }
  // A stable sort: families and addresses stay in their order within a rule.
  return written.sort((a, b) => a.decision.rule - b.decision.rule);
}

function overlap(a: Written, b: Written): boolean {
  return (
    a.family === b.family &&
    intersectIntervals(a.decision.peers, b.decision.peers).length > 0 &&
    servicesMeet(a.decision.services, b.decision.services)
  );
}

/**
 * What a chain says, in its order. By default accept only what is denied needs a rule. By default drop that is what is
 * allowed, and before it the rules that override some of it.
 */
function chainOf(
  strict: Judged,
  lenient: Judged,
  host: WorldHost,
  direction: Direction,
  fallback: string,
): Written[] {
  if (fallback === 'accept') return writtenOf(strict, host, direction, ({ allows }) => !allows);
  const accepts = writtenOf(lenient, host, direction, ({ allows }) => allows);
  const overrides = writtenOf(
    strict,
    host,
    direction,
    ({ rule }) => strict.world.engine.rules[rule]?.action === 'override-deny',
  );
  const needed = new Set(
    overrides.flatMap((one) => (accepts.some((other) => overlap(one, other)) ? [one.decision.rule] : [])),
  );
  return [...overrides.filter(({ decision }) => needed.has(decision.rule)), ...accepts];
}

function chainLines(written: readonly Written[], direction: Direction, sets: Sets): string[] {
  const [peerSide, ownSide] = direction === 'ingress' ? ['saddr', 'daddr'] : ['daddr', 'saddr'];
  const lines = written.flatMap(({ name, decision, family, addresses, isEverybody }) => {
    const { peers, services, allows } = decision;
    const ip = family === 'ipv4' ? 'ip' : 'ip6';
    const own =
      addresses === null
        ? []
        : [`${ip} ${ownSide} ${listed(addresses.map((one) => formatAddress(one)).sort())}`];
    const set = (): string =>
      sets.nameOf(`${direction === 'ingress' ? 'from' : 'to'}${family.slice(-1)}_${name}`, family, peers);
    const who = isEverybody
      ? own.length > 0
        ? own
        : [`meta nfproto ${family}`]
      : [...own, `${ip} ${peerSide} @${set()}`];
    const comment = `comment ${JSON.stringify(name.slice(0, maxCommentLength))}`;
    return serviceMatches(services).map((service) =>
      [...who, service, allows ? 'accept' : 'drop', comment].filter((word) => word !== '').join(' '),
    );
  });
  const [four, six] = ['meta nfproto ipv4 ', 'meta nfproto ipv6 '];
  return lines.flatMap((line) => {
    // Types of ICMP belong to a family by themselves, and what both families say alike is said once.
    if (/^meta nfproto ipv. icmp(v6)? type /.test(line)) return [line.slice(four.length)];
    if (line.startsWith(four) && lines.includes(line.replace(four, six))) return [line.slice(four.length)];
    if (line.startsWith(six) && lines.includes(line.replace(six, four))) return [];
    return [line];
  });
}

/** Neighbours must find each other, or there is no IPv6 at all. */
const neighbours =
  'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld2-listener-report } accept';

/** @param host one of `world.hosts()` */
export function exportNftables(
  world: World,
  host: WorldHost,
  options: NftablesOptions,
  nowMs: number,
): NftablesExport {
  const own = [...new Set(host.addresses.map(({ network }) => network))].sort();
  const networks = [...own, ...options.networks.filter((network) => !own.includes(network))];
  const judge = (one: World): Judged => ({
    world: one,
    identity: one.identityOfOwner(host.event),
    classes: one.classes(networks),
  });
  const remarksBefore = world.remarks.length;
  const strict = judge(world);
  const hasOverrides = world.engine.rules.some(({ action }) => action === 'override-deny');
  const lenient = hasOverrides ? judge(world.withoutOverrides(nowMs)) : strict;
  const sets = new Sets();
  const chains = directions.flatMap((direction) => {
    const [hook, device] = direction === 'ingress' ? ['input', 'iif'] : ['output', 'oif'];
    const written = chainOf(strict, lenient, host, direction, options.default);
    return [
      `chain ${hook} {`,
      ...[
        `type filter hook ${hook} priority filter; policy ${options.default};`,
        'ct state established,related accept',
        `${device} "lo" accept`,
        neighbours,
        ...chainLines(written, direction, sets),
      ].map((line) => `  ${line}`),
      '}',
    ];
  });
  const { name, namespace } = host.event;
  const addresses = host.addresses.map(({ ip, network }) => `${formatAddress(ip)} (${network})`);
  const text = [
    '#!/usr/sbin/nft -f',
    `# Made by Eastwest: what the policy says of ${namespace === '' ? name : `${namespace}/${name}`},`,
    `# ${addresses.sort().join(', ')}. Replaces the table eastwest, and no other.`,
    'table inet eastwest',
    'delete table inet eastwest',
    'table inet eastwest {',
    ...[...sets.lines, ...chains].map((line) => `  ${line}`),
    '}',
    '',
  ].join('\n');
  const remarks = [...world.remarks.slice(remarksBefore), ...unenforced(world)];
  return { text, remarks: [...new Set(remarks)], elementCount: sets.elementCount };
}
