/** Checks the layout of the repository: import directions, sizes, residue, and that documents name what exists. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path/posix';
import { fileURLToPath } from 'node:url';
import {
  environmentReaders,
  fileLineExceptions,
  folderRelations,
  importExceptions,
  libFoundations,
  libRelations,
  maxFileLines,
  maxTestFileLines,
  rootFiles,
  rootFolders,
  serviceFiles,
} from './layout-rules.ts';

export interface LayoutProblem {
  readonly file: string;
  /** 0 where it is about the whole file. */
  readonly line: number;
  readonly message: string;
}

/** Texts by path from the root; `undefined` for files whose text isn't looked at. */
export type Tree = ReadonlyMap<string, string | undefined>;

interface Import {
  readonly target: string;
  readonly line: number;
}

const codeFile = /\.(ts|tsx|mjs)$/;
const testFile = /\.test\.tsx?$/;

/** Relative imports of a text, static and dynamic, as paths from the root. */
function importsOf(file: string, text: string): Import[] {
  const found: Import[] = [];
  const pattern = /(?:^(?:import|export|\})[^'"\n]*?\bfrom\s+|^import\s+|\bimport\(\s*)'(\.{1,2}\/[^']+)'/gm;
  for (const match of text.matchAll(pattern)) {
    const line = text.slice(0, match.index).split('\n').length;
    found.push({ target: normalize(join(dirname(file), match[1] ?? '')), line });
  }
  return found;
}

/** Top folder and, in `lib` and `services`, the room in it. */
function placeOf(path: string): { folder: string; room: string } {
  const [folder = '', second = ''] = path.split('/');
  return { folder, room: folder === 'lib' || folder === 'services' ? second : '' };
}

/** Why one file may not import another, or `undefined` when it may. */
export function importProblem(file: string, target: string): string | undefined {
  const from = placeOf(file);
  const to = placeOf(target);
  if (testFile.test(target) && !testFile.test(file)) {
    return `${target} is a test; nothing but tests may import tests`;
  }
  if (testFile.test(file) && from.folder !== 'test' && to.folder === 'test') {
    return `a test beside code starts no server; move it to test/ or do without ${target}`;
  }
  if (from.folder === to.folder) {
    return from.room === to.room ? undefined : roomProblem(from.folder, from.room, to.room);
  }
  const allowed = [...(folderRelations[from.folder] ?? []), ...(importExceptions[file] ?? [])];
  if (allowed.includes(to.folder)) {
    return undefined;
  }
  return `${from.folder} may not import from ${to.folder} (allowed: ${allowed.join(', ') || 'nothing'})`;
}

function roomProblem(folder: string, from: string, to: string): string | undefined {
  if (folder === 'services') {
    return `service ${from} may not import service ${to}; what both need belongs to lib or schemas`;
  }
  const foundation = libFoundations.includes(to) && !libFoundations.includes(from);
  if (foundation || libRelations[from]?.includes(to)) {
    return undefined;
  }
  return `lib/${from} may not import lib/${to} (the list is libRelations in tools/layout-rules.ts)`;
}

function checkImports(tree: Tree, problems: LayoutProblem[]): void {
  for (const [file, text] of tree) {
    if (text === undefined || !codeFile.test(file)) {
      continue;
    }
    for (const { target, line } of importsOf(file, text)) {
      const message = importProblem(file, target);
      if (message !== undefined) {
        problems.push({ file, line, message });
      }
    }
  }
}

interface LineRule {
  readonly pattern: RegExp;
  readonly message: string;
  applies(file: string): boolean;
}

function isCode(file: string): boolean {
  return codeFile.test(file);
}

const lineRules: readonly LineRule[] = [
  {
    pattern: /\b(TODO|FIXME|XXX|HACK)\b/,
    message: 'unfinished work has no place here: do it, or write an issue',
    applies: (file) => /\.(ts|tsx|mjs|sql|yaml|yml|avsc)$/.test(file) && !file.startsWith('tools/layout'),
  },
  {
    pattern: /\b(test|it|describe|suite)\.only\(|\bonly: true\b/,
    message: 'with `only`, the other tests do not run',
    applies: (file) => testFile.test(file) && !file.startsWith('tools/'),
  },
  {
    pattern: /\b(Bun|Deno)\./,
    message: 'this runs on Node',
    applies: (file) => isCode(file) && !file.startsWith('tools/layout'),
  },
  {
    pattern: /\bprocess\.env\b/,
    message: 'only the runtime reads the environment; take a setting as an argument',
    applies: (file) =>
      /^(lib|services|cli|estate)\//.test(file) && !testFile.test(file) && !environmentReaders.includes(file),
  },
];

function checkLines(tree: Tree, problems: LayoutProblem[]): void {
  for (const [file, text] of tree) {
    const rules = lineRules.filter((rule) => rule.applies(file));
    if (text === undefined || rules.length === 0) {
      continue;
    }
    for (const [index, line] of text.split('\n').entries()) {
      for (const rule of rules.filter(({ pattern }) => pattern.test(line))) {
        problems.push({ file, line: index + 1, message: rule.message });
      }
    }
  }
}

function checkSizes(tree: Tree, problems: LayoutProblem[]): void {
  for (const [file, text] of tree) {
    if (text === undefined || !isCode(file)) {
      continue;
    }
    const count = text.split('\n').length - 1;
    const limit = fileLineExceptions[file] ?? (testFile.test(file) ? maxTestFileLines : maxFileLines);
    if (count > limit) {
      const message = `${count} lines, the limit is ${limit}: a file that can't be described in one sentence is two`;
      problems.push({ file, line: 0, message });
    }
  }
}

function checkRooms(tree: Tree, problems: LayoutProblem[]): void {
  const services = new Set<string>();
  for (const file of tree.keys()) {
    const { folder, room } = placeOf(file);
    if (!file.includes('/')) {
      if (!rootFiles.includes(file)) {
        problems.push({
          file,
          line: 0,
          message: 'does not belong in the root (rootFiles in tools/layout-rules.ts)',
        });
      }
    } else if (!rootFolders.includes(folder)) {
      problems.push({ file, line: 0, message: `${folder} is no folder of this house` });
    } else if (folder === 'services') {
      services.add(room);
    } else if (folder === 'lib' && libRelations[room] === undefined) {
      problems.push({
        file,
        line: 0,
        message: `lib/${room} is not in libRelations of tools/layout-rules.ts`,
      });
    }
  }
  for (const service of services) {
    for (const name of serviceFiles.filter((each) => !tree.has(`services/${service}/${each}`))) {
      problems.push({
        file: `services/${service}`,
        line: 0,
        message: `has no ${name}; every service has one`,
      });
    }
  }
}

/** A path that a document names: in a link, or in backticks when it begins with a folder of ours. */
function namedPaths(file: string, line: string): string[] {
  const links = [...line.matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)/g)].map((match) =>
    normalize(join(dirname(file), match[1] ?? '')),
  );
  const quoted = [...line.matchAll(/`([A-Za-z.][\w.-]*\/[\w./-]*)`/g)]
    .map((match) => match[1] ?? '')
    .filter((path) => rootFolders.includes(path.split('/')[0] ?? ''));
  return [...links, ...quoted];
}

function checkDocuments(tree: Tree, problems: LayoutProblem[]): void {
  const folders = new Set<string>();
  for (const file of tree.keys()) {
    for (let folder = dirname(file); folder !== '.'; folder = dirname(folder)) {
      folders.add(folder);
    }
  }
  for (const [file, text] of tree) {
    if (text === undefined || !file.endsWith('.md')) {
      continue;
    }
    for (const [index, line] of text.split('\n').entries()) {
      for (const path of namedPaths(file, line)) {
        const plain = path.replace(/\/$/, '');
        if (!tree.has(plain) && !folders.has(plain)) {
          problems.push({ file, line: index + 1, message: `names ${path}, which does not exist` });
        }
      }
    }
  }
}

/** Everything that is wrong with a tree, by file and line. */
export function checkLayout(tree: Tree): LayoutProblem[] {
  const problems: LayoutProblem[] = [];
  checkImports(tree, problems);
  checkLines(tree, problems);
  checkSizes(tree, problems);
  checkRooms(tree, problems);
  checkDocuments(tree, problems);
  return problems.toSorted((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1));
}

/** The files of the repository that are in git or would be. */
export function readTree(root: string): Tree {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const tree = new Map<string, string | undefined>();
  for (const file of listed.split('\0').filter((name) => name !== '')) {
    try {
      const text = /\.(ts|tsx|mjs|md|sql|ya?ml|avsc)$/.test(file)
        ? readFileSync(join(root, file), 'utf8')
        : undefined;
      tree.set(file, text);
    } catch {
      // Removed, but not yet so in git.
    }
  }
  return tree;
}

if (import.meta.main) {
  const problems = checkLayout(readTree(fileURLToPath(new URL('..', import.meta.url))));
  for (const { file, line, message } of problems) {
    process.stdout.write(`${file}${line === 0 ? '' : `:${line}`}: ${message}\n`);
  }
  process.exitCode = problems.length === 0 ? 0 : 1;
}
