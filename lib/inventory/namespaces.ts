/** Namespaces (groups, for VMs and hosts): their labels, and who lives in them. */
import type { FormerLabels, NamespaceEvent } from './events.ts';
import type { Owner } from './owners.ts';
import type { Labels } from './shared-texts.ts';

export interface Namespace {
  readonly cluster: string;
  readonly name: string;
  /** Another number after each change of its labels; no two namespaces share one. */
  stamp: number;
  labels: Labels;
  former: readonly FormerLabels[];
  /** Whether an event told of it; otherwise its members imply it. */
  isTold: boolean;
  readonly members: Owner[];
}

export class Namespaces {
  readonly #clusters = new Map<string, Map<string, Namespace>>();
  /** Those that an event told of, by its key. */
  readonly #told = new Map<string, Namespace>();
  #nextStamp = 1;

  /** The namespace; made where it is new. */
  take(cluster: string, name: string): Namespace {
    let inCluster = this.#clusters.get(cluster);
    if (inCluster === undefined) {
      inCluster = new Map();
      this.#clusters.set(cluster, inCluster);
    }
    let namespace = inCluster.get(name);
    if (namespace === undefined) {
      namespace = {
        cluster,
        name,
        stamp: this.#nextStamp++,
        labels: {},
        former: [],
        isTold: false,
        members: [],
      };
      inCluster.set(name, namespace);
    }
    return namespace;
  }

  join(namespace: Namespace, owner: Owner): void {
    owner.memberAt = namespace.members.push(owner) - 1;
  }

  leave(namespace: Namespace, owner: Owner): void {
    const last = namespace.members.pop();
    if (last !== undefined && last !== owner) {
      namespace.members[owner.memberAt] = last;
      last.memberAt = owner.memberAt;
    }
    this.#drop(namespace);
  }

  /** Takes the labels of an event. Returns the namespace, or null where nothing changed. */
  apply(key: string, event: NamespaceEvent): Namespace | null {
    const namespace = this.take(event.cluster, event.name);
    const former = event.former ?? [];
    const isSame =
      JSON.stringify([event.labels, former]) === JSON.stringify([namespace.labels, namespace.former]);
    namespace.isTold = true;
    this.#told.set(key, namespace);
    if (isSame) return null;
    namespace.labels = event.labels;
    namespace.former = former;
    namespace.stamp = this.#nextStamp++;
    return namespace;
  }

  /** Forgets what an event told. Returns the namespace where its members lose labels by that. */
  forget(key: string): Namespace | null {
    const namespace = this.#told.get(key);
    if (namespace === undefined) return null;
    this.#told.delete(key);
    namespace.isTold = false;
    namespace.labels = {};
    namespace.former = [];
    namespace.stamp = this.#nextStamp++;
    this.#drop(namespace);
    return namespace;
  }

  #drop({ cluster, name, isTold, members }: Namespace): void {
    if (isTold || members.length > 0) return;
    const inCluster = this.#clusters.get(cluster);
    inCluster?.delete(name);
    if (inCluster?.size === 0) this.#clusters.delete(cluster);
  }
}
