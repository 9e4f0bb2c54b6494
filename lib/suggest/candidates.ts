/** From single edges to rules: who, to whom, by which services; alike ones together. */
import type {
  Actor,
  IpList,
  PolicyDocument,
  PortSpec,
  Rule,
  Ruleset,
  ServiceRef,
} from '../../schemas/policy.ts';
import { protocolNumbers } from '../policy/engine.ts';
import { mergeAddresses } from './addresses.ts';
import { type Subject, subjectKey, type UnexplainedEdge } from './edges.ts';
import { portsCarry } from './precedent.ts';
import type { Part, SelectorChooser } from './selectors.ts';
import { crossing } from './suspicion.ts';

/** Ports that a named service may have beside those that were seen. */
const maxExtraPorts = 3;

/** Where an edge goes, in a rule. */
export type Target =
  | Subject
  | { readonly type: 'list'; readonly name: string }
  | { readonly type: 'dns'; readonly name: string };

export interface Located {
  readonly edge: UnexplainedEdge;
  readonly source: Subject;
  readonly target: Target;
}

function targetKey(target: Target): string {
  return target.type === 'list' || target.type === 'dns'
    ? `${target.type} ${target.name}`
    : subjectKey(target);
}

/** Both ends have an environment, and it is the same. */
function staysInEnvironment({ edge }: Located): boolean {
  return (
    (edge.source.labels.env ?? '') !== '' && (edge.destination.labels.env ?? '') !== '' && !crossing(edge)
  );
}

export interface DraftRule {
  readonly ruleset: string;
  readonly scope: Ruleset['scope'];
  readonly owner: string | null;
  readonly rule: Rule;
  readonly edges: readonly UnexplainedEdge[];
}

/** What one pair of subjects says to each other. */
interface Talk {
  readonly source: Subject;
  readonly target: Target;
  readonly edges: UnexplainedEdge[];
  isIntra: boolean;
}

const protocolNames = new Map(Object.entries(protocolNumbers).map(([name, number]) => [number, name]));

interface SeenPort {
  readonly port: number;
  readonly protocol: number;
}

function portCount(ports: readonly PortSpec[]): number {
  return ports.reduce((sum, { port }) => {
    if (port === undefined) return sum + 65_536;
    if (typeof port === 'number') return sum + 1;
    const [low = 0, high = 0] = port.split('-').map(Number);
    return sum + high - low + 1;
  }, 0);
}

function inPlace({ port, protocol }: SeenPort): PortSpec | null {
  const name = protocolNames.get(protocol);
  switch (name) {
    case 'tcp':
      return { port };
    case 'udp':
    case 'sctp':
      return { port, protocol: name };
    case 'icmp':
    case 'icmpv6':
      return { protocol: name, icmpType: port >> 8 };
    default:
      return null;
  }
}

/** Services of the policy where they fit, ports in place for the rest. Null where a port can't be written. */
export function servicesFor(seen: readonly SeenPort[], document: PolicyDocument): ServiceRef[] | null {
  let left = [...seen].sort((a, b) => a.protocol - b.protocol || a.port - b.port);
  const refs: ServiceRef[] = [];
  for (;;) {
    let best: { readonly name: string; readonly carried: number; readonly extra: number } | null = null;
    for (const { name, ports } of document.services) {
      if (ports.some(({ process }) => process !== undefined)) continue;
      const carried = left.filter(({ port, protocol }) => portsCarry(ports, port, protocol)).length;
      const extra = portCount(ports) - carried;
      if (carried === 0 || extra > maxExtraPorts) continue;
      if (best === null || carried > best.carried || (carried === best.carried && extra < best.extra))
        best = { name, carried, extra };
    }
    if (best === null) break;
    const { name } = best;
    const ports = document.services.find((service) => service.name === name)?.ports ?? [];
    refs.push(name);
    left = left.filter(({ port, protocol }) => !portsCarry(ports, port, protocol));
  }
  for (const one of left) {
    const spec = inPlace(one);
    if (spec === null) return null;
    if (!refs.some((ref) => JSON.stringify(ref) === JSON.stringify(spec))) refs.push(spec);
  }
  return refs;
}

const partOf = (subject: Subject | Target): Part | null =>
  subject.type === 'labels' ? { app: subject.app, role: subject.role } : null;

function ownerOf(source: Subject, target: Target): string {
  const part = partOf(target) ?? partOf(source);
  if (part !== null) return part.app === '' ? part.role : part.app;
  return 'name' in target ? target.name : 'outside';
}

function word(text: string): string {
  const plain = text.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '');
  return plain === '' ? 'x' : plain.slice(0, 48);
}

function rolesText(selectors: readonly Part[]): string {
  const roles = [...new Set(selectors.map(({ app, role }) => (role === '' ? app : role)))].sort();
  return roles.length > 3 ? 'several' : word(roles.join('-and-'));
}

/** Talks that become one rule: the same owner, destination, services and reach. */
interface Bundle {
  readonly owner: string;
  readonly isInside: boolean;
  readonly isIntra: boolean;
  readonly services: readonly ServiceRef[];
  readonly targets: Map<string, Target>;
  readonly sources: Map<string, Subject>;
  readonly edges: UnexplainedEdge[];
}

function talksOf(located: readonly Located[]): Talk[] {
  const talks = new Map<string, Talk>();
  for (const one of located) {
    const key = `${subjectKey(one.source)}|${targetKey(one.target)}`;
    const talk: Talk = talks.get(key) ?? { source: one.source, target: one.target, edges: [], isIntra: true };
    talks.set(key, talk);
    talk.edges.push(one.edge);
    if (!staysInEnvironment(one)) talk.isIntra = false;
  }
  return [...talks.values()];
}

function bundlesOf(talks: readonly Talk[], document: PolicyDocument): Bundle[] {
  const bySource = new Map<string, Bundle>();
  for (const { source, target, edges, isIntra } of talks) {
    const ports = new Map(edges.map(({ port, protocol }) => [`${port}/${protocol}`, { port, protocol }]));
    const services = servicesFor([...ports.values()], document);
    if (services === null) continue;
    const owner = ownerOf(source, target);
    const [from, to] = [partOf(source), partOf(target)];
    const isInside = from !== null && to !== null && from.app !== '' && from.app === to.app;
    const key = JSON.stringify([owner, isInside, isIntra, services, targetKey(target)]);
    const bundle: Bundle = bySource.get(key) ?? {
      owner,
      isInside,
      isIntra,
      services,
      targets: new Map([[targetKey(target), target]]),
      sources: new Map(),
      edges: [],
    };
    bySource.set(key, bundle);
    bundle.sources.set(subjectKey(source), source);
    bundle.edges.push(...edges);
  }
  // What the same sources reach by the same services is one rule with several destinations.
  const merged = new Map<string, Bundle>();
  for (const bundle of bySource.values()) {
    const { owner, isInside, isIntra, services, sources } = bundle;
    const types = [...bundle.targets.values()].map(({ type }) => type);
    const key = JSON.stringify([owner, isInside, isIntra, services, [...sources.keys()].sort(), types]);
    const known = merged.get(key);
    if (known === undefined) merged.set(key, bundle);
    else {
      for (const [name, target] of bundle.targets) known.targets.set(name, target);
      known.edges.push(...bundle.edges);
    }
  }
  return [...merged.values()];
}

export interface Drafts {
  readonly rules: readonly DraftRule[];
  readonly ipLists: readonly IpList[];
}

class Names {
  readonly #taken: Set<string>;
  constructor(taken: Iterable<string>) {
    this.#taken = new Set(taken);
  }
  take(wanted: string): string {
    let name = wanted;
    for (let i = 2; this.#taken.has(name); i++) name = `${wanted}-${i}`;
    this.#taken.add(name);
    return name;
  }
}

function actorsOf(subjects: readonly (Subject | Target)[], chooser: SelectorChooser): Actor[] {
  const parts = subjects.flatMap((subject) => partOf(subject) ?? []);
  const actors: Actor[] = chooser.choose(parts).map((labels) => ({ labels }));
  const ranges = subjects.flatMap((subject) => (subject.type === 'range' ? [subject.name] : [])).sort();
  for (const name of ranges) actors.push({ labels: { kind: 'range', name } });
  for (const subject of subjects) if (subject.type === 'list') actors.push({ ipList: subject.name });
  const names = subjects
    .flatMap((subject) => (subject.type === 'dns' || subject.type === 'name' ? [subject.name] : []))
    .sort();
  const [only] = names;
  if (names.length > 0) actors.push({ dns: names.length === 1 && only !== undefined ? only : names });
  return actors;
}

/** An ip-list for addresses outside that have no name: no wider than what was seen. */
function listFor(bundle: Bundle, names: Names): IpList {
  const addresses = bundle.edges.flatMap(({ destinationAddress }) => destinationAddress ?? []);
  return { name: names.take(`${word(bundle.owner)}-peers`), cidrs: mergeAddresses(addresses) };
}

function ruleName({ sources, targets, isInside, services }: Bundle): string {
  const to = [...targets.values()];
  const parts = to.flatMap((target) => partOf(target) ?? []);
  const [first] = to;
  const where =
    parts.length > 0
      ? rolesText(parts)
      : first !== undefined && 'name' in first && to.length === 1
        ? word(first.name)
        : 'outside';
  const from = [...sources.values()].flatMap((source) => partOf(source) ?? []);
  if (isInside || parts.length === 0) return `${from.length === 0 ? 'others' : rolesText(from)}-to-${where}`;
  const [service] = services;
  const by = services.length === 1 && typeof service === 'string' ? `-${word(service)}` : '';
  return `callers-of-${where}${by}`;
}

/** The environments that the inner traffic of each ruleset was seen in. */
function environmentsOf(bundles: readonly Bundle[]): Map<string, Set<string>> {
  const environments = new Map<string, Set<string>>();
  for (const bundle of bundles) {
    const name = baseName(bundle);
    const seen = environments.get(name) ?? new Set();
    environments.set(name, seen);
    for (const { destination } of bundle.edges) seen.add(destination.labels.env ?? '');
  }
  return environments;
}

function baseName({ owner, isInside, isIntra }: Bundle): string {
  return `${word(owner)}${isInside ? '' : isIntra ? '-callers' : '-across'}-suggested`;
}

/** Label by which an owner is known in the edges of a bundle. */
function scopeKeyOf({ owner, edges }: Bundle): 'app' | 'role' | null {
  const has = (key: string): boolean =>
    edges.some(
      ({ source, destination }) => source.labels[key] === owner || destination.labels[key] === owner,
    );
  return has('app') ? 'app' : has('role') ? 'role' : null;
}

function scopeOf(bundle: Bundle, environments: ReadonlySet<string>): Ruleset['scope'] {
  const { owner, isInside, isIntra } = bundle;
  if (isIntra) return [...environments].sort().map((env) => (isInside ? { app: owner, env } : { env }));
  const key = scopeKeyOf(bundle);
  return key === null ? undefined : [{ [key]: owner }];
}

/** Rules for edges that are as they should be, alike ones together. Edges of odd protocols are left out. */
export function draftRules(
  located: readonly Located[],
  document: PolicyDocument,
  chooser: SelectorChooser,
): Drafts {
  const bundles = bundlesOf(talksOf(located), document);
  const listNames = new Names(document.ipLists.map(({ name }) => name));
  const rulesetNames = new Names(document.rulesets.map(({ name }) => name));
  const environments = environmentsOf(bundles);
  const owners = new Map(document.rulesets.map(({ name, owner }) => [name, owner]));
  const rulesets = new Map<string, { readonly name: string; readonly rules: Names }>();
  const ipLists: IpList[] = [];
  const rules: DraftRule[] = [];
  for (const bundle of bundles) {
    const base = baseName(bundle);
    const ruleset = rulesets.get(base) ?? { name: rulesetNames.take(base), rules: new Names([]) };
    rulesets.set(base, ruleset);
    const subjects = [...bundle.targets.values()];
    const to = actorsOf(subjects, chooser);
    if (subjects.some(({ type }) => type === 'outside')) {
      const list = listFor(bundle, listNames);
      ipLists.push(list);
      to.push({ ipList: list.name });
    }
    const from = actorsOf([...bundle.sources.values()], chooser);
    if (from.length === 0 || to.length === 0) continue;
    rules.push({
      ruleset: ruleset.name,
      scope: scopeOf(bundle, environments.get(base) ?? new Set()),
      owner: owners.get(bundle.owner) ?? null,
      edges: bundle.edges,
      rule: {
        name: ruleset.rules.take(ruleName(bundle)),
        from,
        to,
        services: [...bundle.services],
        ...(bundle.isIntra ? { scope: 'intra' as const } : {}),
      },
    });
  }
  return { rules, ipLists };
}
