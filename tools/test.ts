/**
 * `npm test [-- path...]`: unit tests without servers first, then tests with the real ones; one closing summary.
 * With CI=true a skipped test is a failure.
 */
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative } from 'node:path';
import { Transform } from 'node:stream';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const compileCache = fileURLToPath(new URL('../node_modules/.cache/eastwest', import.meta.url));

interface Phase {
  readonly title: string;
  readonly patterns: readonly string[];
  readonly concurrency: number;
  /** Longest time of one test file, ms. */
  readonly timeoutMs: number;
}

const phases: readonly Phase[] = [
  {
    title: 'unit tests, no servers',
    patterns: ['lib', 'services', 'cli', 'estate', 'tools', 'deploy', 'bench'].map(
      (folder) => `${folder}/**/*.test.ts`,
    ),
    concurrency: Math.max(1, availableParallelism()),
    timeoutMs: 180_000,
  },
  {
    title: 'tests with real servers',
    patterns: ['test/**/*.test.ts'],
    concurrency: availableParallelism() >= 8 ? 2 : 1,
    timeoutMs: 900_000,
  },
];

export interface Skip {
  readonly file: string;
  readonly name: string;
  readonly reason: string;
}

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skips: readonly Skip[];
}

/** Files of a phase, those whose path has one of the words in it if there are any. */
export function selectFiles(files: readonly string[], words: readonly string[]): string[] {
  const wanted = words.map((word) => word.replace(/^\.\//, ''));
  return files.filter((file) => wanted.length === 0 || wanted.some((word) => file.includes(word))).toSorted();
}

/** A skip whose reason begins with this word is no failure anywhere: what it would show is shown in another way too. */
const optional = /^optional\b/;

/** The skips that fail a run in CI. */
export function failingSkips(skips: readonly Skip[]): Skip[] {
  return skips.filter(({ reason }) => !optional.test(reason));
}

/** The end of the output: what was skipped and why, then the totals in the words of node's test runner. */
export function closingLines(totals: Totals, skipsFail: boolean): string[] {
  const { passed, failed, skips } = totals;
  const failing = skipsFail ? failingSkips(skips).length : 0;
  const failedCount = failed + failing;
  const skippedCount = skips.length - failing;
  const heading = failing > 0 ? 'skipped, which counts as failed with CI=true unless optional:' : 'skipped:';
  return [
    ...(skips.length === 0 ? [] : [heading]),
    ...skips.map(({ file, name, reason }) => `  ${file}: ${name} (${reason})`),
    ...(skips.length === 0 ? [] : ['']),
    `# tests ${passed + failedCount + skippedCount}`,
    `# pass ${passed}`,
    `# fail ${failedCount}`,
    `# skipped ${skippedCount}`,
    `${passed} passed, ${failedCount} failed, ${skippedCount} skipped`,
  ];
}

interface TestEvent {
  readonly type: string;
  readonly data: {
    readonly name?: string;
    readonly file?: string | undefined;
    readonly nesting?: number;
    readonly skip?: string | boolean | undefined;
    readonly todo?: string | boolean | undefined;
    readonly message?: string;
    readonly details?: { readonly type?: string | undefined };
  };
}

/** Counts what passes by; hides the totals of a single phase, which are not the whole. */
function counter(totals: { passed: number; failed: number; skips: Skip[] }): Transform {
  return new Transform({
    objectMode: true,
    transform(event: TestEvent, _encoding, next) {
      const { type, data } = event;
      const isSuite = data.details?.type === 'suite';
      if (type === 'test:pass' && data.skip !== undefined && data.skip !== false) {
        // A suite that is skipped counts as one: what is in it is never told.
        const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : 'no reason given';
        const file = data.file === undefined ? '' : relative(root, data.file);
        totals.skips.push({ file, name: data.name ?? '', reason });
      } else if (type === 'test:pass' && !isSuite) {
        totals.passed++;
      } else if (type === 'test:fail' && !isSuite) {
        totals.failed++;
      }
      const isTotal =
        type === 'test:diagnostic' && data.nesting === 0 && /^[a-z_]+ [\d.]+$/.test(data.message ?? '');
      next(null, isTotal ? undefined : event);
    },
  });
}

async function runPhase(
  phase: Phase,
  files: readonly string[],
  totals: Parameters<typeof counter>[0],
): Promise<void> {
  process.stdout.write(`\n== ${phase.title}: ${files.length} files ==\n\n`);
  const events = run({
    cwd: root,
    files: files.map((file) => `${root}${file}`),
    concurrency: phase.concurrency,
    timeout: phase.timeoutMs,
  });
  const output = events.pipe(counter(totals)).compose(new spec());
  for await (const chunk of output) {
    process.stdout.write(String(chunk));
  }
}

if (import.meta.main) {
  const words = process.argv.slice(2);
  const totals = { passed: 0, failed: 0, skips: [] as Skip[] };
  process.env.NODE_COMPILE_CACHE ??= compileCache;
  let fileCount = 0;
  for (const phase of phases) {
    const files = selectFiles(globSync([...phase.patterns], { cwd: root }), words);
    fileCount += files.length;
    if (files.length > 0) {
      await runPhase(phase, files, totals);
    }
  }
  const skipsFail = process.env.CI === 'true';
  if (fileCount === 0) {
    process.stdout.write(`no test file has ${words.join(' or ')} in its path\n`);
  }
  process.stdout.write(`\n${closingLines(totals, skipsFail).join('\n')}\n`);
  process.exitCode =
    fileCount === 0 || totals.failed > 0 || (skipsFail && failingSkips(totals.skips).length > 0) ? 1 : 0;
}
