/** Reads a folder of YAML into one checked policy, with every problem named by file and line. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { Compile } from 'typebox/compile';
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { PolicyFile } from '../../schemas/policy.ts';
import { checkPolicy, type NamedFile, type Path } from './check.ts';
import { closeValues } from './label-checks.ts';

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

function locate(
  { file, document, lines }: ParsedFile,
  path: Path,
  message: string,
  severity: 'error' | 'warning',
): LocatedProblem {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (!isNode(node) || node.range === null || node.range === undefined) continue;
    const { line, col } = lines.linePos(node.range[0]);
    return { file, line, column: col, at: pathText(path), message, severity };
  }
  return { file, line: 0, column: 0, at: pathText(path), message, severity };
}

function schemaProblems(parsed: ParsedFile, value: unknown): LocatedProblem[] {
  const seen = new Set<string>();
  const out: LocatedProblem[] = [];
  for (const error of policyFile.Errors(value)) {
    const path = error.instancePath
      .split('/')
      .slice(1)
      .map((part) => (/^\d+$/.test(part) ? Number(part) : part.replaceAll('~1', '/').replaceAll('~0', '~')));
    // Of a choice, every branch complains: the first word about a place says enough.
    const key = pathText(path);
    if (seen.has(key)) continue;
    seen.add(key);
    // Named at its own place by the next case.
    if (error.keyword === 'additionalProperties') continue;
    const unknownKey = error.keyword === 'boolean';
    out.push(
      locate(
        parsed,
        path,
        unknownKey ? `there is no key "${String(path.at(-1))}" here` : error.message,
        'error',
      ),
    );
  }
  return out;
}

async function yamlFiles(folder: string): Promise<string[]> {
  if ((await stat(folder)).isFile()) return [folder];
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && /\.ya?ml$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Reads texts (file name -> YAML) as one policy. */
export function readPolicy(texts: ReadonlyMap<string, string>): LoadResult {
  const problems: LocatedProblem[] = [];
  const parsedFiles = new Map<string, ParsedFile>();
  const good: NamedFile[] = [];
  for (const [file, text] of texts) {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines });
    const parsed: ParsedFile = { file, document, lines };
    parsedFiles.set(file, parsed);
    for (const error of document.errors) {
      const { line, col } = lines.linePos(error.pos[0]);
      problems.push({
        file,
        line,
        column: col,
        at: '',
        message: error.message.split('\n')[0] ?? 'is not YAML',
        severity: 'error',
      });
    }
    if (document.errors.length > 0) continue;
    const value: unknown = document.toJS() ?? {};
    if (policyFile.Check(value)) good.push({ file, content: value });
    else problems.push(...schemaProblems(parsed, value));
  }
  const warnings: LocatedProblem[] = [];
  for (const { file, path, message, severity } of checkPolicy(good)) {
    const parsed = parsedFiles.get(file);
    if (parsed === undefined) continue;
    (severity === 'error' ? problems : warnings).push(locate(parsed, path, message, severity));
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
export async function loadPolicy(folder: string): Promise<LoadResult> {
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
  return readPolicy(texts);
}
