/**
 * Ways to make the enricher wrong, by changing its source as it is loaded (`node --import`): a harness that stays green
 * with them would show nothing. The program itself has no such switch.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';

interface Break {
  readonly what: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export const breaks = {
  token: {
    what: 'every try of an insert has a token of its own',
    file: 'services/enrich/plan.ts',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text.
    from: 'return `${at.topic}/${at.partition}/${plan.from}-${plan.to}`;',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text.
    to: 'return `${at.topic}/${at.partition}/${plan.from}-${plan.to}/${process.hrtime.bigint()}`;',
  },
  'commit-first': {
    what: 'offsets are committed before the insert',
    file: 'services/enrich/partition.ts',
    from: "failpoint('enrich.planned');",
    to: "await this.#deps.commit(at, { offset: plan.to + 1, metadata: encodeMark({ plan: null, partitionCount }) }); failpoint('enrich.planned');",
  },
} as const satisfies Record<string, Break>;
export type BreakName = keyof typeof breaks;

export function isBreak(name: string): name is BreakName {
  return name in breaks;
}

/** Arguments of Node that make a process wrong in this way. */
export function breakArguments(name: BreakName): string[] {
  return ['--import', `data:text/javascript,${encodeURIComponent(preload(name))}`];
}

const preload = (name: BreakName): string =>
  `import { breakSources } from ${JSON.stringify(import.meta.url)}; breakSources(${JSON.stringify(name)});`;

/** @throws {Error} when the file is loaded and does not say what it said when this was written. */
export function breakSources(name: BreakName): void {
  const { file, from, to } = breaks[name];
  const url = new URL(`../../${file}`, import.meta.url).href;
  registerHooks({
    load(asked, context, nextLoad) {
      const loaded = nextLoad(asked, context);
      if (asked !== url) return loaded;
      const source = readFileSync(fileURLToPath(url), 'utf8');
      if (!source.includes(from)) throw new Error(`--break ${name}: ${file} no longer says ${from}`);
      return { ...loaded, source: source.replace(from, to) };
    },
  });
}
