/** Reads from Kubernetes manifests what labels depend on: the metadata of pods, pod templates and namespaces. */
import { isMap, isNode, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';

/** A place in a file, from 1; 0 where the whole file is meant. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

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

export interface ManifestProblem extends Place {
  readonly message: string;
}

export interface Manifests {
  readonly workloads: readonly ManifestWorkload[];
  /** Labels of the namespaces that the manifests define. */
  readonly namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly problems: readonly ManifestProblem[];
}

/** For each kind of workload, the way to the metadata that its pods get. */
const podMetadata: Readonly<Record<string, readonly string[]>> = {
  Pod: ['metadata'],
  Deployment: ['spec', 'template', 'metadata'],
  StatefulSet: ['spec', 'template', 'metadata'],
  DaemonSet: ['spec', 'template', 'metadata'],
  ReplicaSet: ['spec', 'template', 'metadata'],
  ReplicationController: ['spec', 'template', 'metadata'],
  Job: ['spec', 'template', 'metadata'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template', 'metadata'],
};

type Way = readonly (string | number)[];

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function at(value: unknown, way: Way): unknown {
  let found = value;
  for (const part of way) {
    if (Array.isArray(found)) found = found[Number(part)];
    else if (isRecord(found) && Object.hasOwn(found, part)) found = found[String(part)];
    else return undefined;
  }
  return found;
}

/** Times that aliases of one document may be used: a few of them can stand for more than memory holds. */
const maxAliasCount = 1000;

function notYaml(why: string, text: string): string {
  const first = why.split('\n')[0]?.replace(/:$/, '') ?? '';
  const hint = text.includes('{{') ? '. Render templates first, for example with `helm template`' : '';
  return `this is not YAML: ${first}${hint}`;
}

/** One document of one file. */
class ManifestDocument {
  readonly #file: string;
  readonly #root: Node | null;
  readonly #lines: LineCounter;
  readonly #problems: ManifestProblem[];
  readonly value: unknown;

  constructor(
    file: string,
    root: Node | null,
    value: unknown,
    lines: LineCounter,
    problems: ManifestProblem[],
  ) {
    this.#file = file;
    this.#root = root;
    this.#lines = lines;
    this.#problems = problems;
    this.value = value;
  }

  /** Where the key (or item) at the end of the way stands; the nearest that exists. */
  place(way: Way): Place {
    let node: unknown = this.#root;
    let nearest = this.#root?.range?.[0] ?? 0;
    for (const part of way) {
      let next: unknown;
      if (isMap(node)) {
        const pair = node.items.find(({ key }) => String(key) === String(part));
        next = pair?.value;
        if (isNode(pair?.key)) nearest = pair.key.range?.[0] ?? nearest;
      } else if (isSeq(node)) {
        next = node.items[Number(part)];
        if (isNode(next)) nearest = next.range?.[0] ?? nearest;
      }
      if (next === undefined) break;
      node = next;
    }
    const { line, col } = this.#lines.linePos(nearest);
    return { file: this.#file, line, column: col };
  }

  report(way: Way, message: string): void {
    this.#problems.push({ ...this.place(way), message });
  }

  /** A table of texts; values of another type are reported, as the API server refuses them. */
  texts(way: Way): Record<string, string> {
    const found = at(this.value, way);
    if (found === undefined || found === null) return {};
    if (!isRecord(found)) {
      this.report(way, `${way.join('.')} must be a table of texts`);
      return {};
    }
    const texts: [string, string][] = [];
    for (const [key, value] of Object.entries(found)) {
      if (typeof value === 'string') texts.push([key, value]);
      else if (value !== null)
        this.report([...way, key], `${key} must be a text: put ${JSON.stringify(value)} in quotes`);
    }
    return Object.fromEntries(texts);
  }
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
    const lines = new LineCounter();
    for (const parsed of parseAllDocuments(text, { lineCounter: lines })) {
      if (!('errors' in parsed)) continue;
      const [error] = parsed.errors;
      if (error !== undefined) {
        const { line, col } = lines.linePos(error.pos[0]);
        this.problems.push({ file, line, column: col, message: notYaml(error.message, text) });
        continue;
      }
      let value: unknown;
      try {
        value = parsed.toJS({ maxAliasCount });
      } catch (aliases) {
        const why = aliases instanceof Error ? aliases.message : String(aliases);
        this.problems.push({ file, line: 0, column: 0, message: notYaml(why, text) });
        continue;
      }
      if (value === null || value === undefined) continue;
      this.#object(new ManifestDocument(file, parsed.contents, value, lines, this.problems), [], '');
    }
  }

  /** An object, or the objects of a list; `kind` is what the items of a typed list are. */
  #object(document: ManifestDocument, way: Way, kindOfItems: string): void {
    const kind = at(document.value, [...way, 'kind']) ?? kindOfItems;
    if (typeof kind !== 'string' || kind === '') {
      // Folders hold other YAML too, such as values of a chart: that has no version either.
      if (at(document.value, [...way, 'apiVersion']) !== undefined)
        document.report(way, 'this object has no kind: write one, such as Deployment');
      return;
    }
    if (kind.endsWith('List')) {
      const items = at(document.value, [...way, 'items']);
      const itemKind = kind.slice(0, -'List'.length);
      if (Array.isArray(items))
        for (const i of items.keys()) this.#object(document, [...way, 'items', i], itemKind);
      return;
    }
    const pods = Object.hasOwn(podMetadata, kind) ? podMetadata[kind] : undefined;
    if (pods === undefined && kind !== 'Namespace') return;
    const name =
      at(document.value, [...way, 'metadata', 'name']) ??
      at(document.value, [...way, 'metadata', 'generateName']);
    if (typeof name !== 'string' || name === '')
      document.report([...way, 'metadata'], `a ${kind} needs metadata.name`);
    else if (pods === undefined) this.namespaces.set(name, document.texts([...way, 'metadata', 'labels']));
    else this.#workload(document, way, kind, name, [...way, ...pods]);
  }

  #workload(document: ManifestDocument, way: Way, kind: string, name: string, metadata: Way): void {
    const namespace = at(document.value, [...way, 'metadata', 'namespace']);
    const annotations = document.texts([...metadata, 'annotations']);
    this.workloads.push({
      ...document.place(way),
      kind,
      name,
      namespace: typeof namespace === 'string' && namespace !== '' ? namespace : this.#defaultNamespace,
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
