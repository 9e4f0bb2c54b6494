/** Reads a folder of YAML into one checked policy, with every problem named by file and line. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { Compile } from 'typebox/compile';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { PolicyFile, policyJsonSchema, Rule } from '../../schemas/policy.ts';
import { checkPolicy, type NamedFile, type Path } from './check.ts';
import { closeValues } from './label-checks.ts';
import { checkSense, type SenseOptions } from './sense.ts';
import { checkShape, type Shape } from './shape.ts';

export interface LocatedProblem {
  readonly file: string;
  /** From 1; 0 where the whole file is meant. */
  readonly line: number;
  readonly column: number;
  /** The place as people write it: rulesets[0].rules[2].to */
  readonly at: string;
  readonly message: string;
  /** A warning does not stop the policy from being applied. */
  readonly severity: 'error' | 'warning';
}

export type PolicyContent = Omit<PolicyDocument, 'v' | 'version' | 'author' | 'appliedMs'>;

export type LoadResult =
  | {
      readonly ok: true;
      readonly policy: PolicyContent;
      readonly fileCount: number;
      readonly warnings: readonly LocatedProblem[];
    }
  | {
      readonly ok: false;
      /** Errors only. */
      readonly problems: readonly LocatedProblem[];
      readonly warnings: readonly LocatedProblem[];
    };

interface ParsedFile {
  readonly file: string;
  readonly document: Document;
  readonly lines: LineCounter;
}

const policyFile = Compile(PolicyFile);

function pathText(path: Path): string {
  return path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : i === 0 ? part : `.${part}`))
    .join('');
}

/** Where a path stands: at its key, or at its value in a list; where there is none, at what is around it. */
function locate(
  { file, document, lines }: ParsedFile,
  path: Path,
  message: string,
  severity: 'error' | 'warning',
): LocatedProblem {
  for (let length = path.length; length > 0; length--) {
    const parent = document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    const key = isMap(parent)
      ? parent.items.find(({ key }) => isScalar(key) && String(key.value) === last)?.key
      : undefined;
    const node = key ?? document.getIn(path.slice(0, length), true);
    if (!isNode(node) || node.range === null || node.range === undefined) continue;
    const { line, col } = lines.linePos(node.range[0]);
    return { file, line, column: col, at: pathText(path), message, severity };
  }
  return { file, line: 0, column: 0, at: pathText(path), message, severity };
}

/** A file without the entries that are wrong in themselves, so that the rest can be checked too. */
interface Pruned {
  readonly named: NamedFile;
  /** The place in the file of a place in what is left. */
  originalPath(path: Path): Path;
}

const fileShape: Shape = policyJsonSchema();
const sections = Object.entries(PolicyFile.properties).map(([section, schema]) => ({
  section,
  isEntry: Compile(schema.items),
}));
const isRule = Compile(Rule);

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Entries that fit, and which they were. */
function fitting(entries: readonly unknown[], fits: (entry: unknown) => boolean): [unknown[], number[]] {
  const indexes = [...entries.keys()].filter((i) => fits(entries[i]));
  return [indexes.map((i) => entries[i]), indexes];
}

function prune(file: string, value: unknown): Pruned {
  const content: Record<string, unknown[]> = {};
  const leftOut: Record<string, string[]> = {};
  const indexes = new Map<string, readonly number[]>();
  for (const { section, isEntry } of sections) {
    const entries = isMapping(value) ? value[section] : undefined;
    if (!Array.isArray(entries)) continue;
    const cleaned = entries.map((entry: unknown, i): unknown => {
      if (section !== 'rulesets' || !isMapping(entry) || !Array.isArray(entry.rules)) return entry;
      const [rules, places] = fitting(entry.rules, (rule) => isRule.Check(rule));
      indexes.set(`${section}/${i}/rules`, places);
      return { ...entry, rules };
    });
    const [kept, places] = fitting(cleaned, (entry) => isEntry.Check(entry));
    content[section] = kept;
    indexes.set(section, places);
    leftOut[section] = cleaned.flatMap((entry, i) =>
      !places.includes(i) && isMapping(entry) && typeof entry.name === 'string' ? [entry.name] : [],
    );
  }
  return {
    named: { file, content: policyFile.Check(content) ? content : {}, leftOut },
    originalPath: (path) => {
      const original: (string | number)[] = [];
      for (const part of path)
        original.push(typeof part === 'number' ? (indexes.get(original.join('/'))?.[part] ?? part) : part);
      return original;
    },
  };
}

async function yamlFiles(folder: string): Promise<string[]> {
  if ((await stat(folder)).isFile()) return [folder];
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && /\.ya?ml$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** What `readPolicy` looks at beyond errors. */
export interface ReadOptions {
  /** Also looks for rules that never decide, contradict each other, have expired, or are broad: for people, as it takes longer. */
  readonly sense?: SenseOptions;
}

/** Reads texts (file name -> YAML) as one policy. */
export function readPolicy(texts: ReadonlyMap<string, string>, options: ReadOptions = {}): LoadResult {
  const problems: LocatedProblem[] = [];
  const parsedFiles = new Map<string, { readonly parsed: ParsedFile; readonly pruned: Pruned }>();
  for (const [file, text] of texts) {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines });
    const parsed: ParsedFile = { file, document, lines };
    for (const error of document.errors) {
      const { line, col } = lines.linePos(error.pos[0]);
      const message = error.message.split('\n')[0] ?? 'is not YAML';
      problems.push({ file, line, column: col, at: '', message, severity: 'error' });
    }
    if (document.errors.length > 0) continue;
    const value: unknown = document.toJS() ?? {};
    const before = problems.length;
    checkShape(fileShape, value, [], '', (path, message) =>
      problems.push(locate(parsed, path, message, 'error')),
    );
    if (problems.length === before && !policyFile.Check(value))
      problems.push(locate(parsed, [], 'does not fit the schema of policies', 'error'));
    parsedFiles.set(file, { parsed, pruned: prune(file, value) });
  }
  const good = [...parsedFiles.values()].map(({ pruned }) => pruned.named);
  const warnings: LocatedProblem[] = [];
  const found = checkPolicy(good);
  if (options.sense !== undefined) found.push(...checkSense(good, options.sense));
  for (const { file, path, message, severity } of found) {
    const read = parsedFiles.get(file);
    if (read === undefined) continue;
    const located = locate(read.parsed, read.pruned.originalPath(path), message, severity);
    (severity === 'error' ? problems : warnings).push(located);
  }
  if (problems.length > 0) return { ok: false, problems, warnings };
  const contents = good.map(({ content }) => content);
  const labels = contents.flatMap((content) => content.labels ?? []);
  return {
    ok: true,
    fileCount: good.length,
    warnings,
    policy: {
      labels,
      labelGroups: contents.flatMap((content) => content.labelGroups ?? []),
      profiles: closeValues(
        contents.flatMap((content) => content.profiles ?? []),
        labels,
      ),
      ipLists: contents.flatMap((content) => content.ipLists ?? []),
      services: contents.flatMap((content) => content.services ?? []),
      rulesets: contents.flatMap((content) => content.rulesets ?? []),
      boundaries: contents.flatMap((content) => content.boundaries ?? []),
    },
  };
}

/** Reads every .yaml and .yml file below `folder` (or the one file it names). @throws where the folder can't be read. */
export async function loadPolicy(folder: string, options: ReadOptions = {}): Promise<LoadResult> {
  const texts = new Map<string, string>();
  for (const file of await yamlFiles(folder))
    texts.set(relative(process.cwd(), file) || file, await readFile(file, 'utf8'));
  if (texts.size === 0) {
    return {
      ok: false,
      warnings: [],
      problems: [
        {
          file: folder,
          line: 0,
          column: 0,
          at: '',
          message: 'there are no .yaml files here: name a folder that has some',
          severity: 'error',
        },
      ],
    };
  }
  return readPolicy(texts, options);
}
