/** The labels that manifests would get under some profiles, and what is wrong with them. Pure. */
import { builtInLabels } from '../../lib/policy/label-limits.ts';
import { labelAnnotationPrefix, ProfileSet, sourceText } from '../../lib/policy/profiles.ts';
import type { Profile } from '../../schemas/policy.ts';
import { type ManifestWorkload, type Place, readManifests } from './manifests.ts';

export interface CheckedLabel {
  readonly key: string;
  readonly value: string;
  /** Where the value comes from, in words. */
  readonly source: string;
}

export interface CheckedWorkload extends Place {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly profile: string | null;
  readonly managed: boolean;
  readonly labels: readonly CheckedLabel[];
}

export interface CheckProblem extends Place {
  readonly severity: 'error' | 'warning';
  /** `Deployment payments/api`, or empty where no object is meant. */
  readonly workload: string;
  readonly message: string;
}

export interface CheckResult {
  readonly workloads: readonly CheckedWorkload[];
  readonly problems: readonly CheckProblem[];
}

export interface CheckOptions {
  /** Cluster that the manifests are meant for; empty where it is not said. */
  readonly cluster: string;
  /** Namespace of objects that name none. */
  readonly namespace: string;
}

export function workloadText({
  kind,
  namespace,
  name,
}: Pick<CheckedWorkload, 'kind' | 'namespace' | 'name'>) {
  return `${kind} ${namespace}/${name}`;
}

type Say = (place: Place, severity: 'error' | 'warning', message: string) => void;

function noProfile(workload: ManifestWorkload, profiles: readonly Profile[], cluster: string): string {
  const byCluster = profiles.some(({ match }) => (match.cluster ?? []).length > 0);
  const hint =
    cluster === '' && byCluster
      ? 'some profiles match by cluster: name it with --cluster'
      : 'add its namespace to a profile, or make a profile with managed: false for it';
  return `no profile matches namespace ${workload.namespace}, so its pods get no labels; ${hint}`;
}

function misplaced({ kind, ownAnnotations, annotations }: ManifestWorkload): string[] {
  return Object.keys(ownAnnotations)
    .filter((name) => name.startsWith(labelAnnotationPrefix) && !Object.hasOwn(annotations, name))
    .map(
      (name) =>
        `annotation ${name} stands on the ${kind} itself, and its pods do not get it: move it to the metadata of the pod template`,
    );
}

/** Mappings that could not be looked at, as the manifests do not hold the namespace. */
function unseenMappings(profile: Profile | undefined, namespace: string): string[] {
  return (profile?.map ?? []).flatMap(({ key, from }) =>
    'namespaceLabel' in from
      ? [
          `${key} comes from label ${from.namespaceLabel} of namespace ${namespace}, which these manifests do not define`,
        ]
      : [],
  );
}

/** Reads manifests (file name -> text) and gives them labels as the enricher would. */
export function checkManifests(
  texts: ReadonlyMap<string, string>,
  profiles: readonly Profile[],
  { cluster, namespace }: CheckOptions,
): CheckResult {
  const set = new ProfileSet(profiles);
  const manifests = readManifests(texts, namespace);
  const problems: CheckProblem[] = manifests.problems.map((problem) => ({
    ...problem,
    severity: 'error',
    workload: '',
  }));
  const workloads = manifests.workloads.map((workload): CheckedWorkload => {
    const { file, line, column, kind, name, labels, annotations } = workload;
    const say: Say = (place, severity, message) =>
      problems.push({
        file: place.file,
        line: place.line,
        column: place.column,
        severity,
        workload: workloadText(workload),
        message,
      });
    const subject = { kind: 'pod', cluster, namespace: workload.namespace, labels, annotations };
    const namespaceLabels = manifests.namespaces.get(workload.namespace);
    const result = set.explain(subject, namespaceLabels ?? {});
    if (result.profile === null) say(workload, 'error', noProfile(workload, profiles, cluster));
    for (const { name: refused, reason } of result.refused)
      say(workload.annotationPlaces.get(refused) ?? workload, 'error', reason);
    for (const message of misplaced(workload)) say(workload, 'warning', message);
    if (result.profile !== null && result.managed) {
      const missing = builtInLabels.filter((key) => !Object.hasOwn(result.labels, key));
      const unseen =
        namespaceLabels === undefined ? unseenMappings(set.matching(subject)[0], workload.namespace) : [];
      if (missing.length > 0)
        say(
          workload,
          'warning',
          [`it gets no ${missing.join(', ')} (profile ${result.profile})`, ...result.notes, ...unseen].join(
            '; ',
          ),
        );
    }
    return {
      file,
      line,
      column,
      kind,
      namespace: workload.namespace,
      name,
      profile: result.profile,
      managed: result.managed,
      labels: Object.entries(result.labels).map(([key, value]) => {
        const source = result.sources[key];
        return { key, value, source: source === undefined ? '' : sourceText(source, result.profile) };
      }),
    };
  });
  return { workloads, problems };
}
