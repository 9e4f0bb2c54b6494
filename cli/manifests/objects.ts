/** Kubernetes objects in YAML or JSON files, each with the places of what it says. */
import { isMap, isNode, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';

/** A place in a file, from 1; 0 where the whole file is meant. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** `file:line:column`, as editors know it. */
export function placeText({ file, line, column }: Place): string {
  return line === 0 ? file : `${file}:${line}:${column}`;
}

export interface ManifestProblem extends Place {
  readonly message: string;
}

export type Way = readonly (string | number)[];

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What stands at the end of the way; undefined where nothing does. */
export function at(value: unknown, way: Way): unknown {
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
export class ManifestDocument {
  readonly #file: string;
  readonly #root: Node | null;
  readonly #lines: LineCounter;
  readonly #problems: ManifestProblem[];
  readonly value: unknown;
  /** Its place among the documents of the file, from 1. */
  readonly number: number;

  constructor(
    file: string,
    root: Node | null,
    value: unknown,
    lines: LineCounter,
    problems: ManifestProblem[],
    number: number,
  ) {
    this.number = number;
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

/** An object of a file: what `document` holds at the end of `way`. */
export interface ManifestObject {
  readonly document: ManifestDocument;
  readonly way: Way;
  readonly kind: string;
}

/** An object, or the objects of a list; `kindOfItems` is what the items of a typed list are. */
function* objectsAt(document: ManifestDocument, way: Way, kindOfItems: string): Generator<ManifestObject> {
  const kind = at(document.value, [...way, 'kind']) ?? kindOfItems;
  if (typeof kind !== 'string' || kind === '') {
    // Folders hold other YAML too, such as values of a chart: that has no version either.
    if (at(document.value, [...way, 'apiVersion']) !== undefined)
      document.report(way, 'this object has no kind: write one, such as Deployment');
    return;
  }
  if (!kind.endsWith('List')) {
    yield { document, way, kind };
    return;
  }
  const items = at(document.value, [...way, 'items']);
  if (!Array.isArray(items)) return;
  for (const i of items.keys())
    yield* objectsAt(document, [...way, 'items', i], kind.slice(0, -'List'.length));
}

/** The objects of a text of one or several documents, in order. What can't be read is added to `problems`. */
export function* manifestObjects(
  file: string,
  text: string,
  problems: ManifestProblem[],
): Generator<ManifestObject> {
  const lines = new LineCounter();
  for (const [index, parsed] of parseAllDocuments(text, { lineCounter: lines }).entries()) {
    if (!('errors' in parsed)) continue;
    const [error] = parsed.errors;
    if (error !== undefined) {
      const { line, col } = lines.linePos(error.pos[0]);
      problems.push({ file, line, column: col, message: notYaml(error.message, text) });
      continue;
    }
    let value: unknown;
    try {
      value = parsed.toJS({ maxAliasCount });
    } catch (aliases) {
      const why = aliases instanceof Error ? aliases.message : String(aliases);
      problems.push({ file, line: 0, column: 0, message: notYaml(why, text) });
      continue;
    }
    if (value === null || value === undefined) continue;
    yield* objectsAt(new ManifestDocument(file, parsed.contents, value, lines, problems, index + 1), [], '');
  }
}

/** For each kind that makes pods, the way to the template (metadata and spec) that its pods get. */
export const podTemplates: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  ReplicationController: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

/** The name of an object, or the one that its names begin with; reported where there is none. */
export function nameOf({ document, way, kind }: ManifestObject): string | null {
  const name =
    at(document.value, [...way, 'metadata', 'name']) ??
    at(document.value, [...way, 'metadata', 'generateName']);
  if (typeof name === 'string' && name !== '') return name;
  document.report([...way, 'metadata'], `a ${kind} needs metadata.name`);
  return null;
}

export function namespaceOf({ document, way }: ManifestObject, defaultNamespace: string): string {
  const namespace = at(document.value, [...way, 'metadata', 'namespace']);
  return typeof namespace === 'string' && namespace !== '' ? namespace : defaultNamespace;
}
