/** Turns a file, environment variables and flags into assignments to configuration keys, each with its place. */
import { isMap, isScalar, isSeq, LineCounter, type Node, parse, parseDocument, type YAMLMap } from 'yaml';
import type { ConfigProblem } from './config.ts';
import {
  chooseVariant,
  describeExpected,
  isLeaf,
  isPlainObject,
  memberNames,
  memberShape,
  recordValueShape,
  type Shape,
  shapeOf,
} from './config-shape.ts';
import { nearest } from './nearest.ts';
import type { Sections } from './service.ts';

export type SourceKind = 'default' | 'file' | 'environment' | 'flag';

export interface Place {
  readonly source: SourceKind;
  /** `eastwest.yaml:3:5`, `environment variable EASTWEST_X_Y`, `--set x.y`. */
  readonly text: string;
}

export interface Assignment {
  readonly path: readonly string[];
  readonly value: unknown;
  readonly place: Place;
  /** Places of what is inside `value`, by the rest of the path joined with dots. */
  readonly places?: ReadonlyMap<string, Place>;
}

export interface ConfigFlag {
  /** As the user typed it, for messages: `--set`, `--data-dir`. */
  readonly flag: string;
  /** `section.key`, nested by dots. */
  readonly key: string;
  readonly value: string;
}

export const environmentPrefix = 'EASTWEST_';

function rootShape(sections: Sections): Shape {
  return {
    type: 'object',
    properties: Object.fromEntries(Object.entries(sections).map(([name, schema]) => [name, shapeOf(schema)])),
  };
}

/** A message about a key that isn't there, with the right one that is closest. */
export function unknownKey(path: readonly string[], parent: Shape): string {
  const prefix = path.slice(0, -1);
  const names = memberNames(parent);
  const right = nearest(path.at(-1) ?? '', names);
  const noun = prefix.length === 0 ? 'section' : 'key';
  const hint =
    right === undefined
      ? `known here: ${names.join(', ')}`
      : `the nearest ${noun} is \`${[...prefix, right].join('.')}\``;
  return `unknown ${noun} \`${path.join('.')}\`; ${hint}`;
}

/** What reading the file needs at every node. */
interface FileContext {
  readonly placeAt: (node: unknown) => Place;
  readonly problems: ConfigProblem[];
  readonly assignments: Assignment[];
}

function keyText(key: unknown): string {
  return isScalar(key) ? String(key.value) : String(key);
}

function plainMembers(map: YAMLMap): Record<string, unknown> {
  const members: Record<string, unknown> = {};
  for (const pair of map.items) {
    members[keyText(pair.key)] = isScalar(pair.value) ? pair.value.value : pair.value;
  }
  return members;
}

/** Checks the keys inside a value that is assigned as a whole, and notes where each of them stands. */
function noteInside(
  shape: Shape,
  node: unknown,
  path: readonly string[],
  base: number,
  places: Map<string, Place>,
  context: FileContext,
): void {
  places.set(path.slice(base).join('.'), context.placeAt(node));
  if (isSeq(node)) {
    const items = shape.items;
    for (const [index, item] of node.items.entries()) {
      noteInside(items ?? {}, item, [...path, String(index)], base, places, context);
    }
    return;
  }
  if (!isMap(node)) {
    return;
  }
  const chosen = chooseVariant(shape, plainMembers(node));
  for (const pair of node.items) {
    const inner = [...path, keyText(pair.key)];
    const member = memberShape(chosen, keyText(pair.key));
    if (member === undefined && (chosen.properties !== undefined || chosen.anyOf !== undefined)) {
      context.problems.push({
        place: context.placeAt(pair.key).text,
        key: inner.join('.'),
        message: unknownKey(inner, chosen),
      });
    }
    noteInside(member ?? {}, pair.value ?? pair.key, inner, base, places, context);
  }
}

function assignNode(shape: Shape, node: Node | null, path: readonly string[], context: FileContext): void {
  if (isMap(node) && (!isLeaf(shape) || recordValueShape(shape) !== undefined)) {
    for (const pair of node.items) {
      const inner = [...path, keyText(pair.key)];
      const member = memberShape(shape, keyText(pair.key));
      if (member === undefined) {
        context.problems.push({ place: context.placeAt(pair.key).text, message: unknownKey(inner, shape) });
      } else {
        const value = pair.value as Node | null;
        assignNode(member, value, inner, context);
      }
    }
    return;
  }
  if (node === null || (isScalar(node) && node.value === null && !isLeaf(shape))) {
    // `section:` with nothing under it sets nothing.
    return;
  }
  const places = new Map<string, Place>();
  noteInside(shape, node, path, path.length, places, context);
  context.assignments.push({ path, value: node.toJSON(), place: context.placeAt(node), places });
}

/** Assignments of a YAML text; syntax errors and unknown keys go to `problems` with file, line and column. */
export function assignmentsFromFile(
  name: string,
  text: string,
  sections: Sections,
  problems: ConfigProblem[],
): Assignment[] {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  for (const error of document.errors) {
    const { line, col } = lines.linePos(error.pos[0]);
    problems.push({ place: `${name}:${line}:${col}`, message: `not valid YAML: ${error.message}` });
  }
  if (document.errors.length > 0) {
    return [];
  }
  const placeAt = (node: unknown): Place => {
    const range = (node as Partial<Node> | null)?.range;
    const { line, col } = lines.linePos(range?.[0] ?? 0);
    return { source: 'file', text: `${name}:${line}:${col}` };
  };
  const context: FileContext = { placeAt, problems, assignments: [] };
  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null)) {
    return [];
  }
  if (!isMap(root)) {
    problems.push({ place: placeAt(root).text, message: 'expected a mapping of sections at the top' });
    return [];
  }
  assignNode(rootShape(sections), root, [], context);
  return context.assignments;
}

/** A value of the wanted shape from text. The text itself comes back when it doesn't fit; the check then says why. */
export function coerceText(shape: Shape, text: string): unknown {
  if (shape.anyOf !== undefined) {
    return coerceToVariant(shape.anyOf, text);
  }
  if (shape.enum !== undefined || shape.const !== undefined) {
    return (shape.enum ?? [shape.const]).find((choice) => String(choice) === text) ?? text;
  }
  switch (shape.type) {
    case 'integer':
    case 'number':
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : text;
    case 'boolean':
      return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : text;
    case 'null':
      return text === '' || text === 'null' ? null : text;
    case 'array':
      return coerceToList(shape, text);
    case 'object':
      return parsed(text);
    default:
      return text;
  }
}

function coerceToVariant(variants: readonly Shape[], text: string): unknown {
  const wantsText = variants.some((variant) => variant.type === 'string' && variant.const === undefined);
  for (const variant of variants) {
    const value = coerceText(variant, text);
    if (value !== text || variant.const === text) {
      return value;
    }
  }
  return wantsText ? text : parsed(text);
}

function coerceToList(shape: Shape, text: string): unknown {
  const trimmed = text.trim();
  if (trimmed === '') {
    return [];
  }
  if (trimmed.startsWith('[')) {
    return parsed(trimmed);
  }
  const items = shape.items ?? {};
  return trimmed.split(',').map((item) => coerceText(items, item.trim()));
}

function parsed(text: string): unknown {
  try {
    const value: unknown = parse(text);
    return isPlainObject(value) || Array.isArray(value) ? value : text;
  } catch {
    return text;
  }
}

interface Target {
  readonly path: readonly string[];
  readonly shape: Shape;
}

function targetsOf(shape: Shape, path: readonly string[] = []): Target[] {
  const own = path.length < 2 ? [] : [{ path, shape }];
  return [
    ...own,
    ...Object.entries(shape.properties ?? {}).flatMap(([key, member]) => targetsOf(member, [...path, key])),
  ];
}

/** The variable that sets a key: `store.embedded.httpPort` is `EASTWEST_STORE_EMBEDDED_HTTP_PORT`. */
export function environmentName(path: readonly string[]): string {
  const words = path.map((key) => key.replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase());
  return environmentPrefix + words.join('_');
}

function squashed(name: string): string {
  return name.replaceAll('_', '').toUpperCase();
}

/** Kubernetes gives every pod variables about Services; one named `eastwest-...` would look like a setting. */
function isServiceLink(name: string, value: string): boolean {
  return (
    /_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$/.test(name) ||
    /_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name) ||
    (name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value))
  );
}

/** Assignments of `EASTWEST_...` variables. Underscores inside a key may be left out (`HTTPPORT`, `HTTP_PORT`). */
export function assignmentsFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  sections: Sections,
  reserved: readonly string[],
  problems: ConfigProblem[],
): Assignment[] {
  const targets = targetsOf(rootShape(sections));
  const byName = new Map(targets.map((target) => [squashed(environmentName(target.path)), target]));
  const assignments: Assignment[] = [];
  for (const [name, value] of Object.entries(environment).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    if (value === undefined || !name.startsWith(environmentPrefix) || reserved.includes(name)) {
      continue;
    }
    if (environment.KUBERNETES_SERVICE_HOST !== undefined && isServiceLink(name, value)) {
      continue;
    }
    const place: Place = { source: 'environment', text: `environment variable ${name}` };
    const target = byName.get(squashed(name));
    if (target === undefined) {
      const right = nearest(
        name,
        targets.map((known) => environmentName(known.path)),
      );
      const hint = right === undefined ? 'see `eastwest config --reference`' : `the nearest is ${right}`;
      problems.push({ place: place.text, message: `no such setting; ${hint}` });
      continue;
    }
    assignments.push({ path: target.path, value: coerceText(target.shape, value), place });
  }
  return assignments;
}

/** Assignments of flags. A key under an object whose names are the user's to choose may be any. */
export function assignmentsFromFlags(
  flags: readonly ConfigFlag[],
  sections: Sections,
  problems: ConfigProblem[],
): Assignment[] {
  const assignments: Assignment[] = [];
  for (const { flag, key, value } of flags) {
    const place: Place = { source: 'flag', text: flag === '--set' ? `--set ${key}` : flag };
    const path = key.split('.');
    let shape: Shape = rootShape(sections);
    let known = true;
    for (const [index, part] of path.entries()) {
      const member = memberShape(shape, part);
      if (member === undefined) {
        problems.push({ place: place.text, message: unknownKey(path.slice(0, index + 1), shape) });
        known = false;
        break;
      }
      shape = member;
    }
    if (known && path.length < 2) {
      problems.push({
        place: place.text,
        message: `expected section.key=value; \`${key}\` is a section, ${describeExpected(shape)}`,
      });
    } else if (known) {
      assignments.push({ path, value: coerceText(shape, value), place });
    }
  }
  return assignments;
}

/** Splits the argument of `--set`; `undefined` when there is no `=` in it. */
export function parseSetFlag(text: string): ConfigFlag | undefined {
  const at = text.indexOf('=');
  return at < 1 ? undefined : { flag: '--set', key: text.slice(0, at).trim(), value: text.slice(at + 1) };
}
