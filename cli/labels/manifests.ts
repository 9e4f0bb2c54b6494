/** Reads from Kubernetes manifests what labels depend on: the metadata of pods, pod templates and namespaces. */
import {
  type ManifestObject,
  type ManifestProblem,
  manifestObjects,
  nameOf,
  namespaceOf,
  type Place,
  podTemplates,
} from '../manifests/objects.ts';

export type { Place } from '../manifests/objects.ts';

/** A pod, or what a controller makes pods from. */
export interface ManifestWorkload extends Place {
  /** Kind of the object, such as Deployment. */
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Annotations of the controller itself, which its pods do not get. */
  readonly ownAnnotations: Readonly<Record<string, string>>;
  /** Where an annotation stands. */
  readonly annotationPlaces: ReadonlyMap<string, Place>;
}

export interface Manifests {
  readonly workloads: readonly ManifestWorkload[];
  /** Labels of the namespaces that the manifests define. */
  readonly namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly problems: readonly ManifestProblem[];
}

class Reader {
  readonly #defaultNamespace: string;
  readonly workloads: ManifestWorkload[] = [];
  readonly namespaces = new Map<string, Readonly<Record<string, string>>>();
  readonly problems: ManifestProblem[] = [];

  constructor(defaultNamespace: string) {
    this.#defaultNamespace = defaultNamespace;
  }

  file(file: string, text: string): void {
    for (const object of manifestObjects(file, text, this.problems)) {
      const { document, way, kind } = object;
      const template = Object.hasOwn(podTemplates, kind) ? podTemplates[kind] : undefined;
      if (template === undefined && kind !== 'Namespace') continue;
      const name = nameOf(object);
      if (name === null) continue;
      if (template === undefined) this.namespaces.set(name, document.texts([...way, 'metadata', 'labels']));
      else this.#workload(object, name, [...way, ...template, 'metadata']);
    }
  }

  #workload(object: ManifestObject, name: string, metadata: readonly (string | number)[]): void {
    const { document, way, kind } = object;
    const annotations = document.texts([...metadata, 'annotations']);
    this.workloads.push({
      ...document.place(way),
      kind,
      name,
      namespace: namespaceOf(object, this.#defaultNamespace),
      labels: document.texts([...metadata, 'labels']),
      annotations,
      ownAnnotations: kind === 'Pod' ? {} : document.texts([...way, 'metadata', 'annotations']),
      annotationPlaces: new Map([
        ...Object.keys(annotations).map(
          (key) => [key, document.place([...metadata, 'annotations', key])] as const,
        ),
      ]),
    });
  }
}

/**
 * Reads texts (file name -> YAML or JSON, several documents in each). What makes no pods is passed over.
 * @param defaultNamespace where an object names none
 */
export function readManifests(texts: ReadonlyMap<string, string>, defaultNamespace: string): Manifests {
  const reader = new Reader(defaultNamespace);
  for (const [file, text] of texts) reader.file(file, text);
  return reader;
}
