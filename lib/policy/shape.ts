/** Holds values against JSON Schema and says in people's words what is wrong, where, and what was probably meant. */
import { nearest } from '../runtime/nearest.ts';
import type { Path } from './check.ts';

/** The part of JSON Schema that the schema of policy files is written in. */
export interface Shape {
  readonly type?: string;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly patternProperties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly minProperties?: number;
  readonly items?: Shape;
  readonly minItems?: number;
  readonly anyOf?: readonly Shape[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}

type Say = (path: Path, message: string) => void;

/** `; did you mean "x"?`, or nothing where no candidate is close. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const near = nearest(word, candidates);
  return near === undefined || near === word ? '' : `; did you mean "${near}"?`;
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function typeOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'array';
  return typeof value === 'number' && Number.isInteger(value) ? 'integer' : typeof value;
}

const typeWords: Readonly<Record<string, string>> = {
  nothing: 'nothing',
  array: 'a list',
  object: 'a mapping of keys',
  string: 'text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
};

function shown(value: unknown): string {
  const text = typeof value === 'string' ? `"${value}"` : (JSON.stringify(value) ?? 'nothing');
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** What would be right, in words. */
function wanted(shape: Shape): string {
  if (shape.const !== undefined) return String(shape.const);
  if (shape.anyOf !== undefined) return listed([...new Set(shape.anyOf.map(wanted))]);
  return typeWords[shape.type ?? ''] ?? 'something else';
}

const about = (shape: Shape, from: string): string => shape.description ?? from;
const explained = (description: string): string => (description === '' ? '' : `: ${description}`);

function checkString(shape: Shape, value: string, path: Path, description: string, say: Say): void {
  if (shape.minLength !== undefined && value.length < shape.minLength)
    say(path, `is empty${explained(description)}`);
  else if (shape.maxLength !== undefined && value.length > shape.maxLength)
    say(path, `has ${value.length} characters, at most ${shape.maxLength} are possible`);
  else if (shape.pattern !== undefined && !new RegExp(shape.pattern).test(value))
    say(path, `${shown(value)} can't be${explained(description)}`);
}

function checkInteger({ minimum = 0, maximum = 0 }: Shape, value: number, path: Path, say: Say): void {
  if (value < minimum || value > maximum) say(path, `${value} is out of range: ${minimum} to ${maximum}`);
}

/** `others`: keys that the value might have had as something else. */
function checkMapping(
  shape: Shape,
  value: Readonly<Record<string, unknown>>,
  path: Path,
  say: Say,
  others: readonly string[] = [],
): void {
  const known = shape.properties ?? {};
  const patterns = Object.entries(shape.patternProperties ?? {});
  for (const [key, inner] of Object.entries(value)) {
    const at = [...path, key];
    const own = Object.hasOwn(known, key) ? known[key] : undefined;
    const byPattern = patterns.find(([pattern]) => new RegExp(pattern).test(key))?.[1];
    const inside = own ?? byPattern;
    if (inside !== undefined) checkShape(inside, inner, at, '', say);
    else if (others.includes(key))
      say(
        at,
        `"${key}" can't stand beside "${Object.keys(value).find((one) => one !== key)}": write one of them`,
      );
    else {
      const keys = [...new Set([...Object.keys(known), ...others])];
      const hint = didYouMean(key, keys) || (keys.length > 8 ? '' : `; there are ${keys.join(', ')}`);
      say(at, `there is no key "${key}" here${hint}`);
    }
  }
  for (const key of shape.required ?? []) {
    if (!Object.hasOwn(value, key))
      say(path, `"${key}" is missing${explained(known[key]?.description ?? '')}`);
  }
  if (shape.minProperties !== undefined && Object.keys(value).length < shape.minProperties)
    say(path, `is empty${explained(shape.description ?? '')}`);
}

/** Of several shapes, that which the value was probably meant to have. */
function checkChoice(
  choices: readonly Shape[],
  value: unknown,
  path: Path,
  description: string,
  say: Say,
): void {
  const flat = choices.flatMap((choice) => choice.anyOf ?? [choice]);
  const constants = flat.flatMap((choice) => (choice.const === undefined ? [] : [String(choice.const)]));
  if (constants.length === flat.length) {
    if (!constants.includes(String(value)))
      say(
        path,
        `${shown(value)} can't be: write ${listed(constants)}${didYouMean(String(value), constants)}`,
      );
    return;
  }
  const fitting = flat.filter((choice) => choice.type === typeOf(value));
  const [only] = fitting;
  if (only === undefined) sayType(flat, value, path, description, say);
  else if (!isMapping(value)) checkShape(only, value, path, description, say);
  else {
    const allKeys = fitting.flatMap((choice) => Object.keys(choice.properties ?? {}));
    const common = (choice: Shape): number =>
      Object.keys(value).filter((key) => Object.hasOwn(choice.properties ?? {}, key)).length;
    const best = fitting.toSorted((a, b) => common(b) - common(a))[0] ?? only;
    if (common(best) === 0) {
      const [key = ''] = Object.keys(value);
      const near = didYouMean(key, allKeys) || `; write one of ${[...new Set(allKeys)].join(', ')}`;
      say(
        key === '' ? path : [...path, key],
        key === '' ? `is empty${near}` : `there is no key "${key}" here${near}`,
      );
    } else checkMapping(best, value, path, say, allKeys);
  }
}

function sayType(choices: readonly Shape[], value: unknown, path: Path, description: string, say: Say): void {
  const type = typeOf(value);
  const words = listed([...new Set(choices.map(wanted))]);
  const quotes =
    (type === 'integer' || type === 'number' || type === 'boolean') &&
    choices.some((choice) => choice.type === 'string')
      ? `: write '${String(value)}' in quotes`
      : explained(description);
  say(path, `is ${typeWords[type] ?? type}, and should be ${words}${quotes}`);
}

/** Says everything that is wrong with a value. `description` is that of what is around, where the shape has none. */
export function checkShape(shape: Shape, value: unknown, path: Path, description: string, say: Say): void {
  const words = about(shape, description);
  if (shape.anyOf !== undefined) {
    checkChoice(shape.anyOf, value, path, words, say);
    return;
  }
  if (shape.const !== undefined) {
    if (value !== shape.const) say(path, `${shown(value)} can't be: write ${String(shape.const)}`);
    return;
  }
  if (shape.type !== typeOf(value)) {
    sayType([shape], value, path, words, say);
    return;
  }
  if (typeof value === 'string') checkString(shape, value, path, words, say);
  else if (typeof value === 'number') checkInteger(shape, value, path, say);
  else if (Array.isArray(value)) {
    if (shape.minItems !== undefined && value.length < shape.minItems)
      say(path, `is an empty list${explained(words)}`);
    for (const [i, item] of value.entries()) checkShape(shape.items ?? {}, item, [...path, i], '', say);
  } else if (isMapping(value)) checkMapping(shape, value, path, say);
}
