/**
 * Typed configuration. A value comes from, weakest first: the schema's default, the file (`eastwest.yaml` or
 * `--config`), the environment (`EASTWEST_<SECTION>_<KEY>`), flags (`--set section.key=value`).
 */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import Type, { type TSchema } from 'typebox';
import { Check, Errors } from 'typebox/value';
import { parseDocument } from 'yaml';
import {
  chooseVariant,
  describeExpected,
  isPlainObject,
  leavesOf,
  maskSecrets,
  type Shape,
  secretMask,
  shapeAt,
  shapeOf,
  withDefaults,
} from './config-shape.ts';
import {
  type Assignment,
  assignmentsFromEnvironment,
  assignmentsFromFile,
  assignmentsFromFlags,
  type ConfigFlag,
  type Place,
  type SourceKind,
  unknownKey,
} from './config-sources.ts';
import type { ConfigOf, Sections } from './service.ts';

export const defaultConfigFile = 'eastwest.yaml';

/** Environment variables under our prefix that are no settings. */
export const reservedEnvironment: readonly string[] = [
  'EASTWEST_CONFIG',
  'EASTWEST_FAILPOINTS',
  // A Kubernetes control plane for tests.
  'EASTWEST_KUBELAB',
  'EASTWEST_PARENT',
  'EASTWEST_URL',
];

export const RuntimeConfig = Type.Object({
  dataDir: Type.String({
    default: '.eastwest',
    minLength: 1,
    description:
      'Folder of everything this machine keeps: embedded store and log, spool, tokens, process logs.',
  }),
  logLevel: Type.Union(
    [
      Type.Literal('trace'),
      Type.Literal('debug'),
      Type.Literal('info'),
      Type.Literal('warn'),
      Type.Literal('error'),
      Type.Literal('fatal'),
    ],
    { default: 'info', description: 'Least severe log lines that are written.' },
  ),
  logFormat: Type.Union([Type.Literal('auto'), Type.Literal('json'), Type.Literal('pretty')], {
    default: 'auto',
    description: 'Shape of log lines; auto is pretty on a terminal and json elsewhere.',
  }),
  stopTimeoutMs: Type.Integer({
    default: 3_500,
    minimum: 100,
    maximum: 600_000,
    description:
      'How long a process may take to finish what it holds once it was told to stop, milliseconds.',
  }),
  maxMemoryBytes: Type.Integer({
    default: 4 * 1024 ** 3,
    minimum: 64 * 1024 ** 2,
    description:
      'Resident memory that a process is to stay under, bytes: near it, it takes less at a time and says so in /readyz.',
  }),
  http: Type.Object({
    host: Type.String({
      default: '127.0.0.1',
      minLength: 1,
      description: 'Address on which the process serves /healthz, /readyz and /metrics.',
    }),
    port: Type.Integer({
      default: 9464,
      minimum: 0,
      maximum: 65_535,
      description: 'TCP port of /healthz, /readyz and /metrics; 0 takes a free one.',
    }),
  }),
});

/** Where configuration is read from; everything a process takes from outside, so that tests can give their own. */
export interface ConfigInputs {
  readonly cwd: string;
  /** The file named by `--config`; without it `eastwest.yaml` in `cwd` is read when it is there. */
  readonly file?: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly flags: readonly ConfigFlag[];
}

export interface ConfigProblem {
  /** Where the wrong thing stands, for example `eastwest.yaml:3:5`. */
  readonly place: string;
  readonly message: string;
  /** The key it is about, where there is one. */
  readonly key?: string;
}

/** Configuration that can't be used; `problems` has every one found. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];
  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map((problem) => `${problem.place}: ${problem.message}`).join('\n'));
    this.problems = problems;
  }
}

export interface ConfigEntry {
  /** `section.key`, nested by dots. */
  readonly key: string;
  /** In force, with secrets masked. */
  readonly value: unknown;
  readonly source: SourceKind;
  /** Where it was set; empty for a default. */
  readonly place: string;
}

export interface LoadedConfig<S extends Sections> {
  readonly values: ConfigOf<S>;
  /** The file that was read, if any. */
  readonly file: string | undefined;
  /** Every setting of every known section. */
  readonly entries: readonly ConfigEntry[];
}

/** Reads the process' own configuration inputs. */
export function processInputs(
  options: { file?: string | undefined; flags?: readonly ConfigFlag[] } = {},
): ConfigInputs {
  return { cwd: process.cwd(), file: options.file, environment: process.env, flags: options.flags ?? [] };
}

/** The text of the configuration file, or `undefined` when none was named and none is there. */
function readConfigFile(inputs: ConfigInputs): { name: string; text: string } | undefined {
  const named = inputs.file ?? inputs.environment.EASTWEST_CONFIG;
  const name = named ?? defaultConfigFile;
  const path = resolve(inputs.cwd, name);
  if (named === undefined && !existsSync(path)) {
    return undefined;
  }
  try {
    return { name, text: readFileSync(path, 'utf8') };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError([{ place: name, message: `the configuration file cannot be read: ${reason}` }]);
  }
}

function setAt(root: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let current = root;
  for (const key of path.slice(0, -1)) {
    const next = current[key];
    if (isPlainObject(next)) {
      current = next;
    } else {
      const created: Record<string, unknown> = {};
      current[key] = created;
      current = created;
    }
  }
  const last = path.at(-1);
  if (last !== undefined) {
    current[last] = value;
  }
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let current = root;
  for (const key of path) {
    current = Array.isArray(current)
      ? current[Number(key)]
      : isPlainObject(current)
        ? current[key]
        : undefined;
  }
  return current;
}

/** The place of what is at `rest` inside an assigned value, or of the closest thing around it. */
function placeInside(assignment: Assignment, rest: readonly string[]): Place {
  for (let length = rest.length; length > 0; length--) {
    const place = assignment.places?.get(rest.slice(0, length).join('.'));
    if (place !== undefined) {
      return place;
    }
  }
  return assignment.place;
}

/** The strongest place that set the path itself, something above it, or (for a group) something inside it. */
function placeOf(assignments: readonly Assignment[], path: readonly string[]): Place | undefined {
  let inside: Place | undefined;
  for (const assignment of assignments.toReversed()) {
    const shared = Math.min(assignment.path.length, path.length);
    if (assignment.path.slice(0, shared).every((key, index) => key === path[index])) {
      if (assignment.path.length <= path.length) {
        return placeInside(assignment, path.slice(assignment.path.length));
      }
      inside ??= assignment.place;
    }
  }
  return inside;
}

function pathOfPointer(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

export function showValue(value: unknown): string {
  const text = typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? 'nothing');
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Paths of what is wrong in `value`. For a union of objects, what is wrong in the variant that was meant. */
function wrongPaths(schema: TSchema, value: unknown, path: readonly string[]): string[][] {
  const found: string[][] = [];
  for (const error of Errors(schema, value)) {
    const inner = pathOfPointer(error.instancePath);
    const at = [...path, ...inner];
    if (error.schemaPath.includes('/anyOf/')) {
      continue;
    }
    if (error.keyword === 'required') {
      found.push(...error.params.requiredProperties.map((key) => [...at, key]));
    } else if (error.keyword === 'additionalProperties') {
      found.push(...error.params.additionalProperties.map((key) => [...at, key]));
    } else if (error.keyword === 'anyOf') {
      const given = valueAt(value, inner);
      const union = shapeAt(shapeOf(schema), inner);
      const variant = union === undefined || !isPlainObject(given) ? union : chooseVariant(union, given);
      found.push(...(variant === undefined || variant === union ? [at] : wrongPaths(variant, given, at)));
    } else {
      found.push(at);
    }
  }
  return found;
}

function addProblems(
  sections: Sections,
  tree: Record<string, unknown>,
  assignments: readonly Assignment[],
  problems: ConfigProblem[],
): void {
  const told = new Set(problems.map((problem) => problem.key));
  for (const [name, schema] of Object.entries(sections)) {
    if (Check(schema, tree[name])) {
      continue;
    }
    for (const path of wrongPaths(schema, tree[name], [name])) {
      const key = path.join('.');
      if (!told.has(key)) {
        told.add(key);
        problems.push(problemAt(shapeOf(schema), path, tree, assignments));
      }
    }
  }
}

function problemAt(
  section: Shape,
  path: readonly string[],
  tree: unknown,
  assignments: readonly Assignment[],
): ConfigProblem {
  const key = path.join('.');
  const shape = shapeAt(section, path.slice(1));
  const place = placeOf(assignments, path)?.text ?? 'configuration';
  if (shape === undefined) {
    const parent = shapeAt(section, path.slice(1, -1)) ?? section;
    return { place, key, message: unknownKey(path, parent) };
  }
  const value = valueAt(tree, path);
  const meaning = shape.description === undefined ? '' : ` (${shape.description.replace(/\.$/, '')})`;
  const given = value === undefined ? 'is not set' : `is ${showValue(maskSecrets(shape, value))}`;
  return { place, key, message: `\`${key}\` ${given}; expected ${describeExpected(shape)}${meaning}` };
}

/** What the file says, as far as it can be read: its errors are told elsewhere. */
function asGiven(text: string | undefined): unknown {
  try {
    return text === undefined ? {} : parseDocument(text).toJS();
  } catch {
    return {};
  }
}

/** Keys that are secrets themselves, as in a table of tokens. */
function secretKeys(sections: Sections, tree: unknown): string[] {
  return Object.entries(sections).flatMap(([name, schema]) =>
    leavesOf(shapeOf(schema), [name]).flatMap(({ path, shape }) => {
      const value = shape.secret === true ? valueAt(tree, path) : undefined;
      return isPlainObject(value) ? Object.keys(value) : [];
    }),
  );
}

function hideKeys(problems: readonly ConfigProblem[], secrets: readonly string[]): ConfigProblem[] {
  const hide = (text: string): string =>
    secrets.reduce((shown, secret) => (secret === '' ? shown : shown.replaceAll(secret, secretMask)), text);
  return problems.map((problem) => ({
    place: problem.place,
    message: hide(problem.message),
    ...(problem.key === undefined ? {} : { key: hide(problem.key) }),
  }));
}

function entriesOf(
  sections: Sections,
  tree: Record<string, unknown>,
  assignments: readonly Assignment[],
): ConfigEntry[] {
  return Object.entries(sections).flatMap(([name, schema]) =>
    leavesOf(shapeOf(schema), [name]).map(({ path, shape }) => {
      const place = placeOf(assignments, path);
      return {
        key: path.join('.'),
        value: maskSecrets(shape, valueAt(tree, path)),
        source: place?.source ?? 'default',
        place: place?.text ?? '',
      };
    }),
  );
}

/**
 * Loads the configuration of `sections`. `known` are all sections that the file and the environment may speak of
 * (a process reads a few, the file is everybody's); a key outside them is an error.
 * @throws {ConfigError} with every problem found, each with its place.
 */
export function loadConfig<S extends Sections>(
  sections: S,
  inputs: ConfigInputs,
  known: Sections = sections,
): LoadedConfig<S> {
  const all: Sections = { ...known, ...sections };
  const problems: ConfigProblem[] = [];
  const file = readConfigFile(inputs);
  const assignments = [
    ...(file === undefined ? [] : assignmentsFromFile(file.name, file.text, all, problems)),
    ...assignmentsFromEnvironment(inputs.environment, all, reservedEnvironment, problems),
    ...assignmentsFromFlags(inputs.flags, all, problems),
  ];
  const tree: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(all)) {
    tree[name] = withDefaults(shapeOf(schema), undefined) ?? {};
  }
  for (const assignment of assignments) {
    setAt(tree, assignment.path, structuredClone(assignment.value));
  }
  for (const [name, schema] of Object.entries(all)) {
    tree[name] = withDefaults(shapeOf(schema), tree[name]);
  }
  addProblems(all, tree, assignments, problems);
  if (problems.length > 0) {
    throw new ConfigError(
      hideKeys(problems, [...secretKeys(all, asGiven(file?.text)), ...secretKeys(all, tree)]),
    );
  }
  const values = Object.fromEntries(Object.keys(sections).map((name) => [name, tree[name]]));
  // Every section was checked against its schema above; the compiler cannot see that through the loop.
  return { values: values as ConfigOf<S>, file: file?.name, entries: entriesOf(all, tree, assignments) };
}

/** Prints what is wrong with the configuration, one problem a line. */
export function printConfigError(error: ConfigError): void {
  process.stderr.write(`${error.message}\n`);
}

export type { ConfigFlag, SourceKind } from './config-sources.ts';
