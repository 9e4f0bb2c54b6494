/**
 * The pods that a namespace has or may get, by what rules see of them, and how Kubernetes labels select each kind of them.
 * Profiles turn Kubernetes labels into people's labels; here that is read backwards: every combination of values that
 * makes a difference is labelled once, and combinations with one outcome are one group.
 */
import type { LabelSelector, PolicyDocument, Profile } from '../../schemas/policy.ts';
import type { Selector } from '../networkpolicy/model.ts';
import { labelGroupsOf, wantedValues } from '../policy/match.ts';
import type { World } from './world.ts';

/** Pods of one namespace that rules see alike. */
export interface PodGroup {
  readonly namespace: string;
  /** Index of the identity. */
  readonly identity: number;
  /** Combinations of label values, as boxes. */
  readonly boxes: readonly Box[];
}

/** What a namespace's pods are told apart by. */
export interface PodGroups {
  readonly namespace: string;
  readonly axes: readonly Axis[];
  readonly groups: readonly PodGroup[];
}

/** A Kubernetes label that a profile reads, with the values that make a difference; then any other one, then none at all. */
interface Axis {
  readonly key: string;
  readonly values: readonly string[];
}

/** For each axis the places on it that are meant: indexes of its values, then `values.length` for any other, then absent. */
export type Box = readonly (readonly number[])[];

/** Combinations of values in one namespace at most. */
export const maxCombinations = 4096;

function selectorsOf({ rulesets, boundaries }: PolicyDocument): LabelSelector[] {
  const rules = [...rulesets.flatMap((ruleset) => ruleset.rules), ...(boundaries ?? [])];
  return [
    ...rulesets.flatMap(({ scope }) => scope ?? []),
    ...rules.flatMap(({ from, to }) =>
      [...from, ...to].flatMap((actor) => ('labels' in actor ? [actor.labels] : [])),
    ),
  ];
}

/** For each label key the values that rules ask for. */
export function askedValues(document: PolicyDocument): Map<string, Set<string>> {
  const groups = labelGroupsOf(document.labelGroups);
  const asked = new Map<string, Set<string>>();
  for (const selector of selectorsOf(document))
    for (const [key, wanted] of Object.entries(selector)) {
      const values = asked.get(key) ?? new Set<string>();
      asked.set(key, values);
      for (const value of wantedValues(wanted, groups).values) values.add(value);
    }
  return asked;
}

/** What the value of a Kubernetes label may be. */
const labelValue = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

function axesOf(profile: Profile | null, asked: ReadonlyMap<string, ReadonlySet<string>>): Axis[] {
  if (profile === null || profile.managed === false) return [];
  const axes = new Map<string, Set<string>>();
  for (const { key, from, values } of profile.map ?? []) {
    // Of what no rule asks for, every value is as good as any other.
    if (!('label' in from) || !asked.has(key)) continue;
    const own = axes.get(from.label) ?? new Set<string>();
    axes.set(from.label, own);
    // An empty value gives no label where there is no table.
    const told = values === undefined ? [...(asked.get(key) ?? []), ''] : Object.keys(values);
    for (const value of told) if (labelValue.test(value)) own.add(value);
  }
  return [...axes]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, values]) => ({ key, values: [...values].sort() }));
}

/** A value that none of these is. */
function otherThan(values: readonly string[]): string {
  let other = 'any-other';
  while (values.includes(other)) other += '-one';
  return other;
}

function labelsAt(axes: readonly Axis[], places: readonly number[]): Record<string, string> {
  return Object.fromEntries(
    axes.flatMap(({ key, values }, i) => {
      const place = places[i] ?? 0;
      if (place > values.length) return [];
      return [[key, values[place] ?? otherThan(values)]];
    }),
  );
}

function* combinations(axes: readonly Axis[], from = 0): Generator<number[]> {
  const axis = axes[from];
  if (axis === undefined) {
    yield [];
    return;
  }
  for (let place = 0; place < axis.values.length + 2; place++)
    for (const rest of combinations(axes, from + 1)) yield [place, ...rest];
}

/** Joins boxes that differ on one axis only, axis by axis. */
function joinBoxes(boxes: readonly Box[]): Box[] {
  let joined = [...boxes];
  for (let axis = 0; axis < (boxes[0]?.length ?? 0); axis++) {
    const alike = Map.groupBy(joined, (box) => JSON.stringify(box.with(axis, [])));
    joined = [...alike.values()].map((same) => {
      const places = new Set(same.flatMap((box) => box[axis] ?? []));
      return (same[0] ?? []).with(
        axis,
        [...places].sort((a, b) => a - b),
      );
    });
  }
  return joined;
}

/** Every combination of places in a box, as text. */
function pointsOf(box: Box): string[] {
  let points = [''];
  for (const places of box) points = points.flatMap((point) => places.map((place) => `${point} ${place}`));
  return points;
}

/** The same combinations in boxes that are as wide as can be, and none that the others make needless. */
function widestBoxes(axes: readonly Axis[], boxes: readonly Box[]): Box[] {
  const inside = new Set(boxes.flatMap(pointsOf));
  const wide = joinBoxes(boxes).map((box) => {
    let widened = box;
    for (const [i, { values }] of axes.entries()) {
      const places = Array.from({ length: values.length + 2 }, (_, place) => place).filter((place) =>
        pointsOf(widened.with(i, [place])).every((point) => inside.has(point)),
      );
      widened = widened.with(i, places);
    }
    return widened;
  });
  const kept = new Map(wide.map((box) => [JSON.stringify(box), box]));
  for (const [text, box] of [...kept].reverse()) {
    const others = new Set([...kept].flatMap(([other, one]) => (other === text ? [] : pointsOf(one))));
    if (pointsOf(box).every((point) => others.has(point))) kept.delete(text);
  }
  return [...kept.values()];
}

/** @throws {RangeError} where a profile reads too many values of too many labels */
export function podGroups(
  world: World,
  cluster: string,
  namespace: string,
  asked: ReadonlyMap<string, ReadonlySet<string>>,
): PodGroups {
  const profile = world.profileOf(cluster, namespace);
  const axes = axesOf(profile, asked);
  const count = axes.reduce((product, { values }) => product * (values.length + 2), 1);
  if (count > maxCombinations)
    throw new RangeError(
      `profile ${profile?.name ?? ''} reads ${axes.length} labels with ${count} combinations of values, at most ${maxCombinations} can be exported: give it tables with fewer values`,
    );
  const byIdentity = new Map<number, Box[]>();
  for (const places of combinations(axes)) {
    const identity = world.identityOfPod(cluster, namespace, labelsAt(axes, places));
    const box = places.map((place) => [place]);
    const own = byIdentity.get(identity);
    if (own === undefined) byIdentity.set(identity, [box]);
    else own.push(box);
  }
  const groups = [...byIdentity].map(([identity, boxes]) => ({ namespace, identity, boxes }));
  return { namespace, axes, groups };
}

/** Selectors of which each pod meets one at least, for boxes of one namespace. One that is empty selects every pod. */
export function selectorsOfBoxes({ axes }: PodGroups, boxes: readonly Box[]): Selector[] {
  const selectors = widestBoxes(axes, boxes).flatMap((box) => {
    let parts: Selector[] = [[]];
    for (const [i, axis] of axes.entries()) {
      const ways = requirements(axis, box[i] ?? []);
      parts = parts.flatMap((part) => ways.map((way) => [...part, ...way]));
    }
    return parts;
  });
  const texts = new Map(selectors.map((selector) => [JSON.stringify(selector), selector]));
  return [...texts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, selector]) => selector);
}

/** What a label must be for these places: ways of which any will do. */
function requirements({ key, values }: Axis, places: readonly number[]): Selector[] {
  const chosen = values.filter((_, i) => places.includes(i));
  const left = values.filter((_, i) => !places.includes(i));
  const other = places.includes(values.length);
  const absent = places.includes(values.length + 1);
  const notIn: Selector = left.length === 0 ? [] : [{ key, operator: 'NotIn', values: left }];
  if (other && absent) return [notIn];
  if (other) return [[{ key, operator: 'Exists', values: [] }, ...notIn]];
  const ways: Selector[] = [];
  if (chosen.length > 0) ways.push([{ key, operator: 'In', values: chosen }]);
  if (absent) ways.push([{ key, operator: 'DoesNotExist', values: [] }]);
  return ways;
}
