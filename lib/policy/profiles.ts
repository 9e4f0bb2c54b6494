/**
 * Labels of workloads and services by label profiles: the first profile that matches gives them. Two ways to ask: the
 * labels alone, a million times a second, and the labels with the source of each, for people.
 */
import type { Profile } from '../../schemas/policy.ts';
import { labelValueProblem, maxLabelCount } from './label-limits.ts';
import { compilePatterns, type NameTest } from './patterns.ts';

/** What profiles may look at. */
export interface LabelSubject {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

type Labels = Readonly<Record<string, string>>;

/** What a mapping may read. */
export type MappingOrigin = 'label' | 'namespaceLabel' | 'annotation';

/** Where the value of a label comes from. */
export type LabelSource =
  /** The list that people keep of their VMs and hosts. */
  | { readonly from: 'inventory' }
  /** `assign` of the profile. */
  | { readonly from: 'profile' }
  | { readonly from: 'annotation'; readonly annotation: string }
  | { readonly from: 'mapping'; readonly origin: MappingOrigin; readonly name: string; readonly raw: string }
  /** `default` of the profile. */
  | { readonly from: 'default' };

/** Something that asked for a label and was not obeyed. */
export interface Refusal {
  /** The annotation, or the label of the inventory. */
  readonly name: string;
  readonly value: string;
  /** A sentence that names what asked, and why it was refused. */
  readonly reason: string;
}

export interface LabelResult {
  readonly labels: Labels;
  /** For each key of `labels`, where its value comes from. */
  readonly sources: Readonly<Record<string, LabelSource>>;
  /** Name of the profile that was used, or null. */
  readonly profile: string | null;
  /** False where the profile says that Eastwest gives these workloads no labels. */
  readonly managed: boolean;
  readonly refused: readonly Refusal[];
  /** Why a mapping gave nothing, as sentences. */
  readonly notes: readonly string[];
}

/** Annotations with this prefix ask for labels. */
export const labelAnnotationPrefix = 'eastwest.io/';

/** Results kept at most by one set of profiles; beyond, it starts anew. */
const maxKeptResults = 1 << 16;
/** Places (kind, cluster, namespace) whose profile is kept at most. */
const maxKeptPlaces = 1 << 17;

/** Kinds whose Kubernetes labels are not people's words until a profile says so. */
const kubernetesKinds: ReadonlySet<string> = new Set(['pod', 'service']);

interface Mapping {
  readonly key: string;
  readonly origin: MappingOrigin;
  readonly name: string;
  readonly values: ReadonlyMap<string, string> | null;
}

/** What was found of a workload's labels up to some input: the results form a tree by the values of the inputs. */
interface Kept {
  next: Map<string | undefined, Kept> | null;
  result: { readonly labels: Labels } | null;
}

interface CompiledProfile {
  readonly profile: Profile;
  readonly kinds: ReadonlySet<string> | null;
  readonly cluster: NameTest;
  readonly namespace: NameTest;
  readonly assign: readonly (readonly [key: string, value: string])[];
  /** By annotation: the key it sets and the values it may have; an empty list is any. */
  readonly allow: ReadonlyMap<string, { readonly key: string; readonly values: readonly string[] }>;
  readonly mappings: readonly Mapping[];
  readonly defaults: readonly (readonly [key: string, value: string])[];
  readonly managed: boolean;
  /** All that the labels depend on. */
  readonly inputs: readonly { readonly origin: MappingOrigin; readonly name: string }[];
  kept: Kept;
}

function mappingOf({ key, from, values }: NonNullable<Profile['map']>[number]): Mapping {
  const table = values === undefined ? null : new Map(Object.entries(values));
  if ('label' in from) return { key, origin: 'label', name: from.label, values: table };
  if ('namespaceLabel' in from)
    return { key, origin: 'namespaceLabel', name: from.namespaceLabel, values: table };
  return { key, origin: 'annotation', name: from.annotation, values: table };
}

function compile(profile: Profile): CompiledProfile {
  const { match } = profile;
  const managed = profile.managed !== false;
  const mappings = managed ? (profile.map ?? []).map(mappingOf) : [];
  const allow = new Map(
    managed
      ? Object.entries(profile.allow ?? {}).map(([key, values]) => [
          `${labelAnnotationPrefix}${key}`,
          { key, values },
        ])
      : [],
  );
  const inputs = new Map<string, { origin: MappingOrigin; name: string }>();
  // What few workloads differ in comes first, so that the tree of results stays small.
  for (const origin of ['namespaceLabel', 'label', 'annotation'] as const) {
    for (const { name } of mappings.filter((mapping) => mapping.origin === origin))
      inputs.set(`${origin} ${name}`, { origin, name });
  }
  for (const name of allow.keys()) inputs.set(`annotation ${name}`, { origin: 'annotation', name });
  return {
    profile,
    kinds: match.kind === undefined || match.kind.length === 0 ? null : new Set<string>(match.kind),
    cluster: compilePatterns(match.cluster ?? []),
    namespace: compilePatterns(match.namespace ?? []),
    assign: managed ? Object.entries(profile.assign ?? {}) : [],
    allow,
    mappings,
    defaults: managed ? Object.entries(profile.default ?? {}) : [],
    managed,
    inputs: [...inputs.values()],
    kept: { next: null, result: null },
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function read(
  origin: MappingOrigin,
  name: string,
  subject: LabelSubject,
  namespaceLabels: Labels,
): string | undefined {
  const from =
    origin === 'label' ? subject.labels : origin === 'annotation' ? subject.annotations : namespaceLabels;
  // A name such as `constructor` finds what every object has: that is no text.
  return textOf(from[name]);
}

const originWords: Readonly<Record<MappingOrigin, string>> = {
  label: 'label',
  namespaceLabel: 'namespace label',
  annotation: 'annotation',
};

/** Collects the labels of one workload; what comes first stays. */
class Collector {
  readonly #labels = new Map<string, string>();
  readonly #sources = new Map<string, LabelSource>();
  readonly refused: Refusal[] = [];
  readonly notes: string[] = [];

  /** @param asking how people call what asks for the value */
  set(key: string, value: string, source: LabelSource, name: string, asking: string): void {
    if (value === '' || this.#labels.has(key)) return;
    const problem =
      labelValueProblem(value) ??
      (this.#labels.size < maxLabelCount ? null : `a workload has at most ${maxLabelCount} labels`);
    if (problem !== null) {
      this.refuse(name, value, `${asking}: ${problem}`);
      return;
    }
    this.#labels.set(key, value);
    this.#sources.set(key, source);
  }

  refuse(name: string, value: string, reason: string): void {
    this.refused.push({ name, value, reason });
  }

  result(profile: string | null, managed: boolean): LabelResult {
    const { refused, notes } = this;
    return {
      labels: Object.fromEntries(this.#labels),
      sources: Object.fromEntries(this.#sources),
      profile,
      managed,
      refused,
      notes,
    };
  }
}

function shown(value: string): string {
  return value.length > 80 ? `${value.slice(0, 77)}...` : value;
}

function refuseAll(subject: LabelSubject, to: Collector, why: string): void {
  for (const [name, value] of Object.entries(subject.annotations))
    if (name.startsWith(labelAnnotationPrefix)) to.refuse(name, value, `annotation ${name}: ${why}`);
}

function obeyAnnotations({ profile, allow, assign }: CompiledProfile, subject: LabelSubject, to: Collector) {
  const assigned = new Map(assign);
  for (const [name, value] of Object.entries(subject.annotations)) {
    if (!name.startsWith(labelAnnotationPrefix)) continue;
    const allowed = allow.get(name);
    const asking = `annotation ${name}=${shown(value)}`;
    const key = name.slice(labelAnnotationPrefix.length);
    const fixed = assigned.get(key);
    if (fixed !== undefined) {
      if (fixed !== value)
        to.refuse(name, value, `${asking}: profile ${profile.name} assigns ${key}=${fixed}`);
    } else if (allowed === undefined)
      to.refuse(name, value, `${asking}: profile ${profile.name} does not allow it`);
    else if (value === '') to.refuse(name, value, `${asking}: it is empty`);
    else if (allowed.values.length > 0 && !allowed.values.includes(value))
      to.refuse(name, value, `${asking}: profile ${profile.name} allows ${allowed.values.join(', ')}`);
    else to.set(key, value, { from: 'annotation', annotation: name }, name, asking);
  }
}

function applyProfile(
  compiled: CompiledProfile,
  subject: LabelSubject,
  namespaceLabels: Labels,
  to: Collector,
): void {
  const { profile, assign, mappings, defaults, managed } = compiled;
  if (!managed) {
    refuseAll(subject, to, `profile ${profile.name} gives no labels (managed: false)`);
    return;
  }
  for (const [key, value] of assign)
    to.set(key, value, { from: 'profile' }, key, `assign ${key}=${shown(value)} of profile ${profile.name}`);
  obeyAnnotations(compiled, subject, to);
  for (const { key, origin, name, values } of mappings) {
    const raw = read(origin, name, subject, namespaceLabels);
    if (raw === undefined) continue;
    const value = values === null ? raw : values.get(raw);
    const asking = `${originWords[origin]} ${name}=${shown(raw)}`;
    if (value === undefined) to.notes.push(`${asking} gives no ${key}: it is not among the mapped values`);
    else to.set(key, value, { from: 'mapping', origin, name, raw }, name, asking);
  }
  for (const [key, value] of defaults)
    to.set(key, value, { from: 'default' }, key, `default ${key}=${shown(value)} of profile ${profile.name}`);
}

function applyInventory(subject: LabelSubject, to: Collector): void {
  refuseAll(subject, to, 'no profile matches, so none is obeyed');
  if (kubernetesKinds.has(subject.kind)) return;
  for (const [key, value] of Object.entries(subject.labels))
    to.set(key, value, { from: 'inventory' }, key, `label ${key}=${shown(value)} of the inventory`);
}

/** What applyInventory gives. Nearly always all of the subject's labels are as they should be: then those themselves. */
function inventoryLabels(subject: LabelSubject): Labels {
  let count = 0;
  let sound = true;
  for (const key in subject.labels) {
    const value = subject.labels[key] ?? '';
    sound &&= ++count <= maxLabelCount && value !== '' && labelValueProblem(value) === null;
  }
  if (sound) return subject.labels;
  const collector = new Collector();
  applyInventory(subject, collector);
  return collector.result(null, true).labels;
}

const noLabels: { readonly labels: Labels } = { labels: Object.freeze({}) };

/**
 * A set of profiles, prepared. Of one key, `assign` beats an allowed annotation, which beats `map` (the first entry that
 * gives a value), which beats `default`. Without a matching profile, VMs, hosts and nodes keep the labels of their
 * inventory (people wrote those); pods and services get none. A profile with `managed: false` gives none to anybody.
 */
export class ProfileSet {
  readonly #profiles: readonly CompiledProfile[];
  /** The profile of each place: by kind, cluster, namespace. */
  #places = new Map<string, Map<string, Map<string, CompiledProfile | null>>>();
  #placeCount = 0;
  #keptCount = 0;

  constructor(profiles: readonly Profile[]) {
    this.#profiles = profiles.map(compile);
  }

  #matches(compiled: CompiledProfile, kind: string, cluster: string, namespace: string): boolean {
    return (
      (compiled.kinds === null || compiled.kinds.has(kind)) &&
      compiled.cluster(cluster) &&
      compiled.namespace(namespace)
    );
  }

  #profileOf({ kind, cluster, namespace }: LabelSubject): CompiledProfile | null {
    const known = this.#places.get(kind)?.get(cluster)?.get(namespace);
    if (known !== undefined) return known;
    const found =
      this.#profiles.find((compiled) => this.#matches(compiled, kind, cluster, namespace)) ?? null;
    if (this.#placeCount >= maxKeptPlaces) {
      this.#places = new Map();
      this.#placeCount = 0;
    }
    const clusters = this.#places.get(kind) ?? new Map<string, Map<string, CompiledProfile | null>>();
    this.#places.set(kind, clusters);
    const namespaces = clusters.get(cluster) ?? new Map<string, CompiledProfile | null>();
    clusters.set(cluster, namespaces);
    namespaces.set(namespace, found);
    this.#placeCount++;
    return found;
  }

  #branch(kept: Kept, value: string | undefined): Kept {
    kept.next ??= new Map();
    let branch = kept.next.get(value);
    if (branch === undefined) {
      branch = { next: null, result: null };
      kept.next.set(value, branch);
      this.#keptCount++;
    }
    return branch;
  }

  #forgetResults(): void {
    for (const compiled of this.#profiles) compiled.kept = { next: null, result: null };
    this.#keptCount = 0;
  }

  /**
   * The labels alone. Workloads of one profile that agree in all it looks at share one object, so that what is worked out
   * for it can be kept by it; leave it as it is.
   */
  readonly labelsOf = (subject: LabelSubject, namespaceLabels: Labels): { readonly labels: Labels } => {
    const compiled = this.#profileOf(subject);
    if (compiled === null) {
      if (kubernetesKinds.has(subject.kind)) return noLabels;
      return { labels: inventoryLabels(subject) };
    }
    if (this.#keptCount > maxKeptResults) this.#forgetResults();
    let kept = compiled.kept;
    for (const { origin, name } of compiled.inputs)
      kept = this.#branch(kept, read(origin, name, subject, namespaceLabels));
    if (kept.result === null) {
      const collector = new Collector();
      applyProfile(compiled, subject, namespaceLabels, collector);
      const { labels } = collector.result(null, true);
      kept.result = { labels: Object.freeze(labels) };
    }
    return kept.result;
  };

  /** The labels with the source of each, and everything that was refused. */
  explain(subject: LabelSubject, namespaceLabels: Labels): LabelResult {
    const compiled = this.#profileOf(subject);
    const collector = new Collector();
    if (compiled === null) applyInventory(subject, collector);
    else applyProfile(compiled, subject, namespaceLabels, collector);
    return collector.result(compiled?.profile.name ?? null, compiled?.managed ?? true);
  }

  /** Every profile that matches, in order: the first is the one in use. */
  matching({ kind, cluster, namespace }: Pick<LabelSubject, 'kind' | 'cluster' | 'namespace'>): Profile[] {
    return this.#profiles
      .filter((compiled) => this.#matches(compiled, kind, cluster, namespace))
      .map(({ profile }) => profile);
  }
}

/** Labels by these profiles, as `lib/inventory` asks for them. */
export function makeLabeller(profiles: readonly Profile[]): ProfileSet['labelsOf'] {
  return new ProfileSet(profiles).labelsOf;
}

/** The source of a label in words: `profile payments`, `label app.kubernetes.io/component=api, mapped by profile payments`. */
export function sourceText(source: LabelSource, profile: string | null): string {
  switch (source.from) {
    case 'inventory':
      return 'its inventory';
    case 'profile':
      return `profile ${profile ?? ''}`;
    case 'annotation':
      return `annotation ${source.annotation}, allowed by profile ${profile ?? ''}`;
    case 'mapping':
      return `${originWords[source.origin]} ${source.name}=${shown(source.raw)}, mapped by profile ${profile ?? ''}`;
    case 'default':
      return `default of profile ${profile ?? ''}`;
  }
}
