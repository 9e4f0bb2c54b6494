/** Labels of workloads and services by label profiles: the first profile that matches gives them, each with its source. */
import type { Profile } from '../../schemas/policy.ts';

/** What profiles may look at. */
export interface LabelSubject {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export type LabelSource = 'inventory' | 'profile' | 'annotation' | 'mapping' | 'default';

export interface LabelResult {
  readonly labels: Record<string, string>;
  /** For each key, where its value comes from. */
  readonly sources: Record<string, LabelSource>;
  /** Name of the profile that was used, or null. */
  readonly profile: string | null;
  /** Annotations that were not obeyed, as sentences. */
  readonly refused: readonly string[];
}

/** Annotations with this prefix ask for labels. */
export const labelAnnotationPrefix = 'eastwest.io/';

/** Labels an identity may have at most. */
export const maxLabelCount = 20;

function matches(patterns: readonly RegExp[], text: string): boolean {
  return patterns.length === 0 || patterns.some((pattern) => pattern.test(text));
}

function pattern(text: string): RegExp {
  return new RegExp(
    `^${text
      .split('*')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
  );
}

interface CompiledProfile {
  readonly profile: Profile;
  readonly clusters: readonly RegExp[];
  readonly namespaces: readonly RegExp[];
}

export type Labeller = (
  subject: LabelSubject,
  namespaceLabels: Readonly<Record<string, string>>,
) => LabelResult;

/**
 * Prepares profiles. Of one key, `assign` beats an allowed annotation, which beats `map`, which beats `default`. Without a
 * matching profile, VMs, hosts and nodes keep the labels of their inventory (people wrote those); pods and services get
 * none, since Kubernetes labels are not people's words until a profile says so.
 */
export function makeLabeller(profiles: readonly Profile[]): Labeller {
  const compiled: CompiledProfile[] = profiles.map((profile) => ({
    profile,
    clusters: (profile.match.cluster ?? []).map(pattern),
    namespaces: (profile.match.namespace ?? []).map(pattern),
  }));
  return (subject, namespaceLabels) => {
    const found = compiled.find(
      ({ profile, clusters, namespaces }) =>
        (profile.match.kind === undefined || profile.match.kind.some((kind) => kind === subject.kind)) &&
        matches(clusters, subject.cluster) &&
        matches(namespaces, subject.namespace),
    );
    const labels: Record<string, string> = {};
    const sources: Record<string, LabelSource> = {};
    const refused: string[] = [];
    const set = (key: string, value: string, source: LabelSource): void => {
      if (key in labels) return;
      if (Object.keys(labels).length >= maxLabelCount) {
        refused.push(`label ${key} is left out: a workload has at most ${maxLabelCount} labels`);
        return;
      }
      labels[key] = value;
      sources[key] = source;
    };
    if (found === undefined) {
      if (subject.kind !== 'pod' && subject.kind !== 'service') {
        for (const [key, value] of Object.entries(subject.labels)) set(key, value, 'inventory');
      }
      return { labels, sources, profile: null, refused };
    }
    const { profile } = found;
    for (const [key, value] of Object.entries(profile.assign ?? {})) set(key, value, 'profile');
    for (const [annotation, value] of Object.entries(subject.annotations)) {
      if (!annotation.startsWith(labelAnnotationPrefix)) continue;
      const key = annotation.slice(labelAnnotationPrefix.length);
      const allowed = profile.allow?.[key];
      if (allowed === undefined)
        refused.push(`annotation ${annotation} is not allowed by profile ${profile.name}`);
      else if (allowed.length > 0 && !allowed.includes(value)) {
        refused.push(
          `annotation ${annotation}=${value}: profile ${profile.name} allows ${allowed.join(', ')}`,
        );
      } else set(key, value, 'annotation');
    }
    for (const { key, from, values } of profile.map ?? []) {
      const raw =
        'label' in from
          ? subject.labels[from.label]
          : 'namespaceLabel' in from
            ? namespaceLabels[from.namespaceLabel]
            : subject.annotations[from.annotation];
      if (raw === undefined) continue;
      const value = values === undefined ? raw : values[raw];
      if (value !== undefined) set(key, value, 'mapping');
    }
    for (const [key, value] of Object.entries(profile.default ?? {})) set(key, value, 'default');
    return { labels, sources, profile: profile.name, refused };
  };
}
