/** Reads configuration schemas: which keys there are, what a value shall be, defaults, secrets. */
import type { TSchema } from 'typebox';

/** The part of JSON Schema that configuration sections use; `secret` and `unit` are ours. */
export interface Shape {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly patternProperties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
  readonly items?: Shape;
  readonly anyOf?: readonly Shape[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly description?: string;
  readonly secret?: boolean;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly pattern?: string;
  readonly format?: string;
}

export function shapeOf(schema: TSchema): Shape {
  return schema;
}

/** A key that is the user's to choose has no fixed name; this stands for it in listings. */
export const anyKey = '*';

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The shape of the values of an object whose keys are the user's to choose. */
export function recordValueShape(shape: Shape): Shape | undefined {
  return shape.patternProperties === undefined ? undefined : Object.values(shape.patternProperties)[0];
}

/** The one variant of a union that an object with these members is meant to be. */
export function chooseVariant(shape: Shape, members: Readonly<Record<string, unknown>>): Shape {
  if (shape.anyOf === undefined) {
    return shape;
  }
  let best: Shape | undefined;
  let bestScore = -1;
  for (const variant of shape.anyOf) {
    if (variant.properties === undefined && variant.patternProperties === undefined) {
      continue;
    }
    let score = 0;
    for (const [key, property] of Object.entries(variant.properties ?? {})) {
      if (key in members) {
        score += property.const === undefined ? 1 : property.const === members[key] ? 1000 : 0;
      }
    }
    if (score > bestScore) {
      best = variant;
      bestScore = score;
    }
  }
  return best ?? shape;
}

/** The shape of one member, or `undefined` when there is no such key. */
export function memberShape(shape: Shape, key: string): Shape | undefined {
  const own =
    shape.properties !== undefined && Object.hasOwn(shape.properties, key)
      ? shape.properties[key]
      : undefined;
  if (own !== undefined) {
    return own;
  }
  const value = recordValueShape(shape);
  if (value !== undefined) {
    return value;
  }
  const found = [...new Set((shape.anyOf ?? []).map((variant) => memberShape(variant, key)))].filter(
    (member) => member !== undefined,
  );
  const first = found[0];
  if (first === undefined || found.length === 1) {
    return first;
  }
  return first.description === undefined
    ? { anyOf: found }
    : { anyOf: found, description: first.description };
}

/** The shape at a path; array positions are numbers in text. */
export function shapeAt(shape: Shape, path: readonly string[]): Shape | undefined {
  let current: Shape | undefined = shape;
  for (const key of path) {
    if (current === undefined) {
      return undefined;
    }
    current = current.items !== undefined && /^\d+$/.test(key) ? current.items : memberShape(current, key);
  }
  return current;
}

/** The names that may stand under a shape; empty when they are the user's to choose. */
export function memberNames(shape: Shape): string[] {
  if (shape.anyOf !== undefined) {
    return shape.anyOf.flatMap(memberNames);
  }
  return Object.keys(shape.properties ?? {});
}

/** True for a shape that is one setting, false for one that only groups settings. */
export function isLeaf(shape: Shape): boolean {
  return shape.properties === undefined;
}

export interface Leaf {
  readonly path: readonly string[];
  readonly shape: Shape;
}

/** Every setting under a shape, in the order of the schema. */
export function leavesOf(shape: Shape, path: readonly string[] = []): Leaf[] {
  if (isLeaf(shape)) {
    return [{ path, shape }];
  }
  return Object.entries(shape.properties ?? {}).flatMap(([key, member]) => leavesOf(member, [...path, key]));
}

/** A copy of `value` in which every missing member that has a default is there. */
export function withDefaults(shape: Shape, value: unknown): unknown {
  const given = value === undefined && shape.default !== undefined ? structuredClone(shape.default) : value;
  if (Array.isArray(given)) {
    const items = shape.items;
    return items === undefined ? given : given.map((item) => withDefaults(items, item));
  }
  if (given !== undefined && !isPlainObject(given)) {
    return given;
  }
  const members = given ?? {};
  const chosen = chooseVariant(shape, members);
  const record = recordValueShape(chosen);
  if (record !== undefined) {
    return given === undefined
      ? undefined
      : Object.fromEntries(
          Object.entries(members).map(([key, member]) => [key, withDefaults(record, member)]),
        );
  }
  if (chosen.properties === undefined || (given === undefined && shape.anyOf !== undefined)) {
    return given;
  }
  const filled: Record<string, unknown> = { ...members };
  for (const [key, member] of Object.entries(chosen.properties)) {
    const required = chosen.required?.includes(key) ?? false;
    const complete =
      filled[key] === undefined && member.default === undefined && !required
        ? undefined
        : withDefaults(member, filled[key]);
    if (complete !== undefined) {
      filled[key] = complete;
    }
  }
  return filled;
}

function range(low: number | undefined, high: number | undefined, unit: string): string {
  if (low !== undefined && high !== undefined) {
    return ` from ${low} to ${high}${unit}`;
  }
  if (low !== undefined) {
    return ` of at least ${low}${unit}`;
  }
  return high === undefined ? '' : ` of at most ${high}${unit}`;
}

/** What a value shall be, in words that follow 'expected'. */
export function describeExpected(shape: Shape): string {
  const choices = shape.enum ?? (shape.const === undefined ? undefined : [shape.const]);
  if (choices !== undefined) {
    return choices.map((choice) => JSON.stringify(choice)).join(', ');
  }
  if (shape.anyOf !== undefined) {
    const variants = [...new Set(shape.anyOf.map(describeExpected))];
    return variants.length > 2 ? `one of ${variants.join(', ')}` : variants.join(' or ');
  }
  switch (shape.type) {
    case 'integer':
      return `a whole number${range(shape.minimum, shape.maximum, '')}`;
    case 'number':
      return `a number${range(shape.minimum ?? shape.exclusiveMinimum, shape.maximum, '')}`;
    case 'boolean':
      return 'true or false';
    case 'null':
      return 'null';
    case 'string':
      return `text${range(shape.minLength, shape.maxLength, ' characters')}${
        shape.pattern === undefined ? '' : ` that matches ${shape.pattern}`
      }${shape.format === undefined ? '' : ` (${shape.format})`}`;
    case 'array':
      return `a list${range(shape.minItems, shape.maxItems, ' items')}${
        shape.items === undefined ? '' : `, each ${describeExpected(shape.items)}`
      }`;
    default: {
      const names = memberNames(shape);
      return names.length === 0
        ? 'a mapping of names to values'
        : `a mapping with the keys ${names.join(', ')}`;
    }
  }
}

export const secretMask = '******';

/** A copy of `value` with every secret replaced by {@link secretMask}; an unset or empty secret stays visible. */
export function maskSecrets(shape: Shape | undefined, value: unknown): unknown {
  if (shape === undefined || value === undefined || value === null) {
    return value;
  }
  if (shape.secret === true || shape.anyOf?.some((variant) => variant.secret === true)) {
    const empty = value === '' || (Array.isArray(value) && value.length === 0);
    return empty || (isPlainObject(value) && Object.keys(value).length === 0) ? value : secretMask;
  }
  if (Array.isArray(value)) {
    return value.map((item) => maskSecrets(shape.items, item));
  }
  if (isPlainObject(value)) {
    const chosen = chooseVariant(shape, value);
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [key, maskSecrets(memberShape(chosen, key), member)]),
    );
  }
  return value;
}
