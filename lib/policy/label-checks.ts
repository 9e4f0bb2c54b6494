/** Checks of labels and profiles across the documents of a policy: what contradicts, what can never be used. */
import { identityKinds } from '../../schemas/closed-lists.ts';
import type { LabelKey, LabelSelector, Profile, Rule, SelectorValue } from '../../schemas/policy.ts';
import { nearest } from '../runtime/nearest.ts';
import type { NamedFile, Path, PolicyProblem } from './check.ts';
import {
  builtInLabels,
  labelKeyProblem,
  labelValueProblem,
  maxLabelCount,
  selectorWords,
} from './label-limits.ts';
import { compareMatches, matchText } from './profile-overlap.ts';

/** Profiles of a policy at most: each is compared with each. */
export const maxProfileCount = 2000;

type Say = (path: Path, message: string) => void;

interface Report {
  readonly error: Say;
  readonly warning: Say;
}

/** What a policy says about its label keys. */
interface KnownLabels {
  /** Values of the keys that list them. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly declared: ReadonlySet<string>;
  /** Keys that something may give. */
  readonly given: ReadonlySet<string>;
  /** The key of each label group; empty where the group is wrong in itself. */
  readonly groups: ReadonlyMap<string, string>;
}

interface PlacedProfile {
  readonly profile: Profile;
  readonly path: Path;
  readonly report: Report;
  /** How another file names it. */
  readonly place: string;
}

function hint(word: string, candidates: Iterable<string>): string {
  const near = nearest(word, candidates);
  return near === undefined ? '' : `; did you mean "${near}"?`;
}

/** Every key that the profile may give. */
function keysOf({ assign, map, allow, default: defaults }: Profile): string[] {
  const mapped = (map ?? []).map(({ key }) => key);
  return [
    ...Object.keys(assign ?? {}),
    ...mapped,
    ...Object.keys(allow ?? {}),
    ...Object.keys(defaults ?? {}),
  ];
}

function checkDeclared(files: readonly NamedFile[], reportOf: (file: string) => Report): void {
  const places = new Map<string, string>();
  for (const { file, content } of files) {
    const { error } = reportOf(file);
    content.labels?.forEach(({ key, values }, i) => {
      const path: Path = ['labels', i];
      const problem = labelKeyProblem(key);
      if (problem !== null) error([...path, 'key'], problem);
      const first = places.get(key);
      if (first === undefined) places.set(key, `${file} labels[${i}]`);
      else error([...path, 'key'], `label "${key}" is declared already in ${first}: put its values together`);
      if (values?.length === 0)
        error([...path, 'values'], `label "${key}" may have no value at all: list some, or leave values out`);
      for (const [n, value] of (values ?? []).entries()) {
        const wrong = value === '' ? 'it is empty' : labelValueProblem(value);
        if (wrong !== null) error([...path, 'values', n], `a value of label "${key}" can't be: ${wrong}`);
      }
    });
  }
}

/** A value that a profile or rule gives to a key. */
function checkValue(key: string, value: string, path: Path, known: KnownLabels, { error }: Report): void {
  const wrong = value === '' ? 'it is empty, which is no label: leave it out' : labelValueProblem(value);
  if (wrong !== null) {
    error(path, `the value of ${key} can't be: ${wrong}`);
    return;
  }
  const values = known.values.get(key);
  if (values === undefined || values.includes(value)) return;
  error(
    path,
    `${key} can't be "${value}": labels lists ${values.join(', ')}${hint(value, values) || '; list it there too'}`,
  );
}

function checkKey(key: string, path: Path, known: KnownLabels, { error, warning }: Report): void {
  const problem = labelKeyProblem(key);
  if (problem !== null) error(path, problem);
  else if (known.declared.size > 0 && !known.declared.has(key) && !builtInLabels.some((one) => one === key))
    warning(
      path,
      `label "${key}" is not declared under labels${hint(key, known.declared) || ': add it there'}`,
    );
}

function checkContents({ profile, path, report }: PlacedProfile, known: KnownLabels): void {
  for (const section of ['assign', 'default'] as const) {
    for (const [key, value] of Object.entries(profile[section] ?? {})) {
      checkKey(key, [...path, section, key], known, report);
      checkValue(key, value, [...path, section, key], known, report);
    }
  }
  for (const [key, values] of Object.entries(profile.allow ?? {})) {
    checkKey(key, [...path, 'allow', key], known, report);
    for (const [i, value] of values.entries())
      checkValue(key, value, [...path, 'allow', key, i], known, report);
  }
  for (const [i, { key, values }] of (profile.map ?? []).entries()) {
    checkKey(key, [...path, 'map', i, 'key'], known, report);
    for (const [raw, value] of Object.entries(values ?? {}))
      checkValue(key, value, [...path, 'map', i, 'values', raw], known, report);
  }
}

/** What a profile says and can never come true. */
function checkSense({ profile, path, report: { error, warning } }: PlacedProfile): void {
  const { name, assign = {}, allow = {}, default: defaults = {}, map = [] } = profile;
  if (profile.managed === false) {
    for (const section of ['assign', 'map', 'allow', 'default'] as const) {
      if (profile[section] !== undefined)
        error(
          [...path, section],
          `profile ${name} has managed: false, so it gives no labels: leave out ${section}, or managed`,
        );
    }
    return;
  }
  const keys = new Set(keysOf(profile));
  const certain = new Set([...Object.keys(assign), ...Object.keys(defaults)]);
  if (keys.size === 0)
    warning(
      [...path, 'name'],
      `profile ${name} gives no labels: add assign or map, or say managed: false if that is meant`,
    );
  const limit = `a workload has at most ${maxLabelCount}: give fewer`;
  if (certain.size > maxLabelCount)
    error([...path, 'name'], `profile ${name} gives ${certain.size} labels, ${limit}`);
  else if (keys.size > maxLabelCount)
    warning([...path, 'name'], `profile ${name} may give ${keys.size} labels, ${limit}`);
  for (const key of Object.keys(allow)) {
    if (Object.hasOwn(assign, key))
      warning(
        [...path, 'allow', key],
        `the annotation can never set ${key}: profile ${name} assigns ${key}=${assign[key]}; leave out one of them`,
      );
  }
  for (const [i, { key }] of map.entries()) {
    if (Object.hasOwn(assign, key))
      warning(
        [...path, 'map', i, 'key'],
        `this mapping can never give ${key}: profile ${name} assigns ${key}=${assign[key]}; leave out one of them`,
      );
  }
  for (const key of Object.keys(defaults)) {
    if (Object.hasOwn(assign, key))
      warning(
        [...path, 'default', key],
        `this default can never be used: profile ${name} assigns ${key}=${assign[key]}; leave out one of them`,
      );
  }
}

/** Keys that both assign, with other values; as `app=a (here app=b)`. */
function differences(earlier: Profile, later: Profile): string[] {
  const before = new Map(Object.entries(earlier.assign ?? {}));
  const list = Object.entries(later.assign ?? {}).flatMap(([key, value]) => {
    const other = before.get(key);
    return other === undefined || other === value ? [] : [`${key}=${other} (here ${key}=${value})`];
  });
  if ((earlier.managed === false) !== (later.managed === false))
    list.push(earlier.managed === false ? 'no labels (managed: false)' : 'labels (here managed: false)');
  return list;
}

/** Each profile against those before it. The first that matches is used, so only a later one can come to nothing. */
function checkPairs(profiles: readonly PlacedProfile[]): void {
  for (const [i, later] of profiles.entries()) {
    const { name } = later.profile;
    for (const earlier of profiles.slice(0, i)) {
      const relation = compareMatches(earlier.profile.match, later.profile.match);
      if (relation === 'apart' || relation === 'inside') continue;
      const differ = differences(earlier.profile, later.profile);
      const first = `profile ${earlier.profile.name} (${earlier.place})`;
      const path: Path = [...later.path, 'match'];
      if (relation === 'same' && differ.length > 0)
        later.report.error(
          path,
          `profile ${name} matches the same workloads as ${first}, which gives ${differ.join(', ')}: merge them, or make one narrower`,
        );
      else if (relation === 'same' || relation === 'around') {
        later.report.warning(
          path,
          `profile ${name} is never used: ${first} comes before it and matches all of ${matchText(later.profile.match)}; put it first, or remove it`,
        );
        break;
      } else if (differ.length > 0)
        later.report.warning(
          path,
          `profile ${name} overlaps with ${first}, which gives ${differ.join(', ')}; where both match, ${earlier.profile.name} wins as it comes first`,
        );
    }
  }
}

const kinds: readonly string[] = identityKinds;

/** The values that a selector names itself, and where each of them stands. */
function plainValues(
  wanted: SelectorValue,
  path: Path,
): { readonly values: readonly string[]; readonly at: (i: number) => Path } {
  if (typeof wanted === 'string') return { values: [wanted], at: () => path };
  if (Array.isArray(wanted)) return { values: wanted, at: (i) => [...path, i] };
  if ('not' in wanted) return plainValues(wanted.not, [...path, 'not']);
  return { values: [], at: () => path };
}

function checkGroupOf(
  key: string,
  wanted: SelectorValue,
  path: Path,
  known: KnownLabels,
  report: Report,
): void {
  if (typeof wanted === 'string' || Array.isArray(wanted)) return;
  if ('not' in wanted) {
    checkGroupOf(key, wanted.not, [...path, 'not'], known, report);
    return;
  }
  const of = known.groups.get(wanted.group);
  if (of === undefined)
    report.error(
      [...path, 'group'],
      `there is no label group "${wanted.group}"${hint(wanted.group, known.groups.keys()) || ': define it under labelGroups'}`,
    );
  else if (of !== '' && of !== key)
    report.error(
      [...path, 'group'],
      `label group "${wanted.group}" is of ${of}, not of ${key}: write ${of}: { group: ${wanted.group} }`,
    );
}

/** Values that are asked of a key: some that can't be. */
function checkValues(
  key: string,
  values: readonly string[],
  at: (i: number) => Path,
  known: KnownLabels,
  report: Report,
): void {
  for (const [i, value] of values.entries()) {
    if (key === 'kind' && !kinds.includes(value))
      report.error(at(i), `there is no kind "${value}": write one of ${kinds.join(', ')}`);
    else if (known.values.has(key)) checkValue(key, value, at(i), known, report);
  }
}

function checkSelector(selector: LabelSelector, path: Path, known: KnownLabels, report: Report): void {
  for (const [key, wanted] of Object.entries(selector)) {
    const { values, at } = plainValues(wanted, [...path, key]);
    checkGroupOf(key, wanted, [...path, key], known, report);
    checkValues(key, values, at, known, report);
    if (known.given.has(key) || selectorWords.some((word) => word === key)) continue;
    const asked =
      hint(key, [...known.given, ...selectorWords]) || '; declare it under labels if hosts have it';
    report.warning(
      [...path, key],
      `no profile gives a label "${key}", and labels does not declare it${asked}`,
    );
  }
}

function checkRules(
  files: readonly NamedFile[],
  known: KnownLabels,
  reportOf: (file: string) => Report,
): void {
  for (const { file, content } of files) {
    const report = reportOf(file);
    const checkEnds = ({ from, to }: Pick<Rule, 'from' | 'to'>, path: Path): void => {
      for (const [end, actors] of [
        ['from', from],
        ['to', to],
      ] as const) {
        for (const [n, actor] of actors.entries()) {
          if ('labels' in actor) checkSelector(actor.labels, [...path, end, n, 'labels'], known, report);
        }
      }
    };
    content.rulesets?.forEach(({ scope, rules }, i) => {
      for (const [n, selector] of (scope ?? []).entries())
        checkSelector(selector, ['rulesets', i, 'scope', n], known, report);
      for (const [k, rule] of rules.entries()) checkEnds(rule, ['rulesets', i, 'rules', k]);
    });
    for (const [i, boundary] of (content.boundaries ?? []).entries()) checkEnds(boundary, ['boundaries', i]);
    for (const [i, { key, values }] of (content.labelGroups ?? []).entries())
      checkValues(key, values, (n) => ['labelGroups', i, 'values', n], known, report);
  }
}

/** All problems of labels and profiles, errors and warnings. */
export function checkLabels(files: readonly NamedFile[]): PolicyProblem[] {
  const problems: PolicyProblem[] = [];
  const reportOf = (file: string): Report => ({
    error: (path, message) => problems.push({ file, path, message, severity: 'error' }),
    warning: (path, message) => problems.push({ file, path, message, severity: 'warning' }),
  });
  const declared = files.flatMap(({ content }) => content.labels ?? []);
  const profiles: PlacedProfile[] = files.flatMap(({ file, content }) =>
    (content.profiles ?? []).map((profile, i) => ({
      profile,
      path: ['profiles', i],
      report: reportOf(file),
      place: `${file} profiles[${i}]`,
    })),
  );
  const declaredKeys = new Set(declared.map(({ key }) => key));
  const known: KnownLabels = {
    values: new Map(declared.flatMap(({ key, values }) => (values === undefined ? [] : [[key, values]]))),
    declared: declaredKeys,
    given: new Set([
      ...builtInLabels,
      ...declaredKeys,
      ...profiles.flatMap(({ profile }) => keysOf(profile)),
    ]),
    groups: new Map(
      files.flatMap(({ content, leftOut }) => [
        ...(leftOut?.labelGroups ?? []).map((name) => [name, ''] as const),
        ...(content.labelGroups ?? []).map(({ name, key }) => [name, key] as const),
      ]),
    ),
  };
  checkDeclared(files, reportOf);
  for (const placed of profiles) {
    checkContents(placed, known);
    checkSense(placed);
  }
  const over = profiles[maxProfileCount];
  if (over === undefined) checkPairs(profiles);
  else
    over.report.error(
      over.path,
      `there are ${profiles.length} profiles, at most ${maxProfileCount} are possible: match several namespaces with one, by patterns and mappings`,
    );
  checkRules(files, known, reportOf);
  return problems;
}

/**
 * Profiles with the values of `labels` put in where they leave values open: a mapping without a table and an annotation
 * that may be anything give what is listed there, nothing else.
 */
export function closeValues(profiles: readonly Profile[], declared: readonly LabelKey[]): Profile[] {
  const lists = new Map(declared.flatMap(({ key, values }) => (values === undefined ? [] : [[key, values]])));
  return profiles.map((profile) => {
    const map = profile.map?.map((mapping) => {
      const values = mapping.values === undefined ? lists.get(mapping.key) : undefined;
      return values === undefined
        ? mapping
        : { ...mapping, values: Object.fromEntries(values.map((value) => [value, value])) };
    });
    const allow = Object.entries(profile.allow ?? {}).map(
      ([key, values]) => [key, values.length === 0 ? [...(lists.get(key) ?? [])] : values] as const,
    );
    return {
      ...profile,
      ...(map === undefined ? {} : { map }),
      ...(profile.allow === undefined ? {} : { allow: Object.fromEntries(allow) }),
    };
  });
}
