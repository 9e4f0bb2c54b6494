/** Labels that people change while what they are on lives on: of pods, and of whole namespaces. */
import { type FormerLabels, maxFormerLabels } from '../schemas/inventory-event.ts';
import { componentLabel, components, isTeamNamed, type Tier, tiers } from './catalogue.ts';
import { quantumMs } from './config.ts';
import type { Endpoint, Labels } from './ends.ts';
import { Random } from './random.ts';
import type { Deployment, Namespace, World } from './world.ts';

/** What somebody gave a pod instead of what its deployment gives. */
export interface PodRelabel {
  readonly sinceMs: number;
  readonly role: Tier;
  readonly team: string;
}

/** What somebody gave a namespace. */
export interface NamespaceRelabel {
  readonly sinceMs: number;
  readonly app: string;
  readonly site: string;
}

export type Relabel =
  | { readonly type: 'pod'; readonly timeMs: number; readonly slot: number; readonly to: PodRelabel }
  | { readonly type: 'namespace'; readonly timeMs: number; readonly namespace: Namespace };

/** Share of the changes that are taken back and made again, and how soon at most, ms. */
const flapShare = 0.3;
const longestFlapMs = 1200;

export const partOfLabel = 'app.kubernetes.io/part-of';
export const siteLabel = 'bank.example/site';
const teamAnnotation = 'eastwest.io/team';

/** The last of the changes that had happened by a time. */
function changeAt<T extends { readonly sinceMs: number }>(changes: readonly T[], timeMs: number): T | null {
  return changes.findLast(({ sinceMs }) => sinceMs <= timeMs) ?? null;
}

/** Kubernetes labels and annotations of a pod after a change, or as its deployment gives them. */
export function rawPodLabels(
  deployment: Deployment,
  change: PodRelabel | null,
): { labels: Labels; annotations: Labels } {
  const { rawLabels, annotations, appIndex } = deployment;
  if (change === null) return { labels: rawLabels, annotations };
  const word = appIndex < 0 || isTeamNamed(appIndex) ? change.role : components[change.role];
  return {
    labels: { ...rawLabels, [componentLabel]: word },
    annotations: { ...annotations, [teamAnnotation]: change.team },
  };
}

export function rawNamespaceLabels(namespace: Namespace, change: NamespaceRelabel | null): Labels {
  const { rawLabels } = namespace;
  if (change === null) return rawLabels;
  const labels: Record<string, string> = {};
  for (const [key, value] of Object.entries(rawLabels))
    labels[key] = key === partOfLabel ? change.app : key === siteLabel ? change.site : value;
  return labels;
}

/** The `former` of an event: what there was before each change. */
export function formerLabels<T extends { readonly sinceMs: number }>(
  changes: readonly T[],
  raw: (change: T | null) => { labels: Labels; annotations: Labels },
): { former?: FormerLabels[] } {
  if (changes.length === 0) return {};
  const former = changes.map(({ sinceMs }, i) => {
    const { labels, annotations } = raw(changes[i - 1] ?? null);
    return { untilMs: sinceMs, labels: { ...labels }, annotations: { ...annotations } };
  });
  return { former: former.slice(-maxFormerLabels) };
}

/** What a deployment's pods, or its service, are truly called after changes of themselves and of their namespace. */
function trueLabels(
  first: Labels,
  deployment: Deployment,
  own: PodRelabel | null,
  around: NamespaceRelabel | null,
): Labels {
  const labels: Record<string, string> = { ...first };
  const { appIndex, app } = deployment;
  // The sandbox has no profile: whatever its labels say, it has none here.
  if (app === '') return first;
  if (own !== null) {
    labels.role = own.role;
    // The platform's profile lets no annotation set anything.
    if (appIndex >= 0) labels.team = own.team;
  }
  if (around !== null) {
    // Where teams chose the name of the namespace, the profile fixes the application and the namespace says the site.
    if (appIndex < 0 || isTeamNamed(appIndex)) labels.loc = around.site;
    else labels.app = around.app;
  }
  return labels;
}

export class Relabels {
  readonly #world: World;
  readonly #random: Random;
  readonly #perMinute: number;
  readonly #namespaces: readonly Namespace[];
  readonly #changes = new Map<Namespace, NamespaceRelabel[]>();
  #planned: Relabel[] = [];
  #owed = 0;
  #owedNamespaces = 0;

  constructor(world: World, relabelsPerMinute: number) {
    this.#world = world;
    this.#perMinute = relabelsPerMinute;
    this.#random = new Random(world.seed, 'relabels');
    this.#namespaces = world.clusters.flatMap(({ namespaces }) => namespaces);
  }

  /** Takes out what happens in `[fromMs, fromMs + quantum)`, in time order. */
  due(fromMs: number): Relabel[] {
    if (this.#perMinute === 0) return [];
    const share = (this.#perMinute * quantumMs) / 60_000;
    this.#owed += this.#world.slotCount * share;
    for (; this.#owed >= 1; this.#owed--) this.#planPod(fromMs + this.#random.below(quantumMs));
    this.#owedNamespaces += this.#namespaces.length * share;
    for (; this.#owedNamespaces >= 1; this.#owedNamespaces--)
      this.#planNamespace(fromMs + this.#random.below(quantumMs));
    const toMs = fromMs + quantumMs;
    const due = this.#planned.filter(({ timeMs }) => timeMs < toMs);
    this.#planned = this.#planned.filter(({ timeMs }) => timeMs >= toMs);
    return due.sort((a, b) => a.timeMs - b.timeMs);
  }

  /** Times of one change, or of one that is taken back a moment later and made again. */
  #times(timeMs: number): number[] {
    if (this.#random.next() >= flapShare) return [timeMs];
    const backMs = timeMs + this.#random.between(1, longestFlapMs);
    return [timeMs, backMs, backMs + this.#random.between(1, longestFlapMs)];
  }

  #planPod(firstMs: number): void {
    const slot = this.#random.below(this.#world.slotCount);
    const draw = (): Omit<PodRelabel, 'sinceMs'> => ({
      role: tiers[this.#random.below(tiers.length)] ?? 'web',
      team: `team-${this.#random.below(90)}`,
    });
    const states = [draw(), draw()];
    this.#times(firstMs).forEach((timeMs, i) => {
      const state = states[i % 2] ?? draw();
      this.#planned.push({ type: 'pod', timeMs, slot, to: { ...state, sinceMs: timeMs } });
    });
  }

  #planNamespace(firstMs: number): void {
    const namespace = this.#namespaces[this.#random.below(this.#namespaces.length)];
    if (namespace === undefined) return;
    for (const timeMs of this.#times(firstMs)) this.#planned.push({ type: 'namespace', timeMs, namespace });
  }

  /** Changes of a namespace so far, oldest first. */
  changesOf(namespace: Namespace): readonly NamespaceRelabel[] {
    return this.#changes.get(namespace) ?? [];
  }

  /** Changes a namespace's labels; every other time they become again what they were. */
  applyNamespace(namespace: Namespace, sinceMs: number): void {
    const changes = this.#changes.get(namespace) ?? [];
    const isNew = changes.length % 2 === 0;
    changes.push({
      sinceMs,
      app: `${namespace.rawLabels[partOfLabel] ?? ''}${isNew ? '-next' : ''}`,
      site: isNew ? 'dc-moved' : namespace.cluster.site,
    });
    this.#changes.set(namespace, changes);
  }

  /**
   * Labels at a time of a pod with the given changes, or (none of its own) of a service of the deployment; null where no
   * labels ever change.
   */
  labelsAt(deployment: Deployment, own: readonly PodRelabel[]): Endpoint['labelsAt'] {
    if (this.#perMinute === 0) return null;
    // One object for each state, so that whoever compares needs to look no deeper.
    const known = new Map<string, Labels>();
    return (timeMs, first) => {
      const change = changeAt(own, timeMs);
      const around = changeAt(this.changesOf(deployment.namespace), timeMs);
      if (change === null && around === null) return first;
      const key = `${change?.sinceMs} ${around?.sinceMs}`;
      let labels = known.get(key);
      if (labels === undefined) {
        labels = trueLabels(first, deployment, change, around);
        known.set(key, labels);
      }
      return labels;
    };
  }
}
