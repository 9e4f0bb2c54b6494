/** `eastwest draft`: what a policy folder would change of what was seen. */
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { Completeness } from '../ask/answers.ts';
import type { AskOptions } from '../ask/options.ts';
import type { Screen } from '../ask/screen.ts';
import { start } from '../ask/start.ts';
import type { Tone } from '../ask/style.ts';
import { agoText, bytesText, countText, labelsText, placeText, shareText } from '../ask/words.ts';
import { readPolicyFiles } from './files.ts';
import { whileWaiting } from './waiting.ts';

export interface DraftOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly app?: string;
  readonly against?: string;
  readonly limit?: string;
  readonly failOn?: string;
}

interface Totals {
  readonly connections: number;
  readonly bytes: number;
  readonly edges: number;
}

interface DraftCoverage {
  readonly coverage: Readonly<Record<keyof Totals, number | null>>;
  readonly allowed: Totals;
  readonly denied: Totals;
  readonly unexplained: Totals;
  readonly undecided: Totals;
}

interface DraftEnd {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly address: string | null;
  readonly labels: Readonly<Record<string, string>>;
}

interface RuleName {
  readonly ruleset: string;
  readonly name: string;
}

interface Said {
  readonly verdict: string;
  readonly rule: RuleName | null;
}

interface ChangedEdge {
  readonly source: DraftEnd;
  readonly destination: DraftEnd;
  readonly port: number;
  readonly protocol: string;
  readonly before: Said;
  readonly after: Said;
  readonly connections: number;
  readonly bytes: number;
  readonly firstSeen: string;
  readonly lastSeen: string;
}

interface Changes {
  readonly total: Totals;
  readonly edges: readonly ChangedEdge[];
}

interface DraftAnswer {
  readonly before: DraftCoverage;
  readonly after: DraftCoverage;
  readonly newlyExplained: Changes;
  readonly newlyDenied: Changes;
  readonly newlyUnexplained: Changes;
  readonly otherRule: Totals;
  readonly ruleCount: number;
  readonly unusedRules: readonly RuleName[];
  readonly edgesFromFlows: number;
  readonly comparedWith: string;
  readonly warnings: readonly string[];
  readonly window: { readonly since: string; readonly until: string | null };
  readonly table: string;
  readonly completeness: Completeness;
}

const failures = {
  'new-explained': 'newlyExplained',
  'new-denied': 'newlyDenied',
  'new-unexplained': 'newlyUnexplained',
} as const;
type FailOn = keyof typeof failures;

function isFailOn(text: string): text is FailOn {
  return text in failures;
}

/** @throws {OperatorError} for a word that is not known. */
export function parseFailOn(text: string | undefined): readonly FailOn[] {
  if (text === undefined) return [];
  return text.split(',').map((word) => {
    const trimmed = word.trim();
    if (!isFailOn(trimmed))
      throw new OperatorError(
        `--fail-on is "${trimmed}"; expected one or more of ${Object.keys(failures).join(', ')}, joined by commas`,
        exitCodes.usage,
      );
    return trimmed;
  });
}

export function endText(end: DraftEnd): string {
  const labels = labelsText(end.labels);
  const name = labels !== '' ? labels : end.name !== '' ? end.name : '';
  const place = placeText(end);
  const who = name !== '' ? name : place === '' ? end.kind : `${end.kind} in ${place}`;
  return end.address === null ? who : `${who} ${end.address}`;
}

function saidText({ verdict, rule }: Said): string {
  return rule === null ? verdict : `${verdict} by ${rule.ruleset}/${rule.name}`;
}

function showCoverage(screen: Screen, { before, after }: DraftAnswer): void {
  const row = (name: string, covered: DraftCoverage) => [
    name,
    shareText(covered.coverage.connections),
    shareText(covered.coverage.bytes),
    shareText(covered.coverage.edges),
    countText(covered.unexplained.connections),
    countText(covered.denied.connections),
    countText(covered.unexplained.edges),
  ];
  screen.table(
    [
      { title: 'COVERAGE' },
      { title: 'CONNECTIONS', align: 'right' },
      { title: 'BYTES', align: 'right' },
      { title: 'EDGES', align: 'right' },
      { title: 'UNEXPLAINED', align: 'right' },
      { title: 'DENIED', align: 'right' },
      { title: 'UNEXPLAINED EDGES', align: 'right' },
    ],
    [row('before', before), row('after', after)],
  );
}

function showChanges(screen: Screen, title: string, tone: Tone, { total, edges }: Changes): void {
  if (total.edges === 0) return;
  const shown = edges.length === total.edges ? '' : `, the ${countText(edges.length)} busiest`;
  screen.line('');
  screen.line(
    screen.style.paint(
      tone,
      `${title}: ${countText(total.edges)} edges, ${countText(total.connections)} connections, ${bytesText(total.bytes)}${shown}`,
    ),
  );
  screen.table(
    [
      { title: 'SOURCE', min: 14 },
      { title: 'DESTINATION', min: 14 },
      { title: 'PORT' },
      { title: 'BEFORE', min: 11 },
      { title: 'AFTER', min: 11 },
      { title: 'CONNECTIONS', align: 'right' },
      { title: 'BYTES', align: 'right', optional: true },
      { title: 'LAST', optional: true },
    ],
    edges.map((edge) => [
      endText(edge.source),
      endText(edge.destination),
      `${edge.port}/${edge.protocol}`,
      saidText(edge.before),
      { text: saidText(edge.after), tone },
      countText(edge.connections),
      bytesText(edge.bytes),
      agoText(edge.lastSeen, screen.nowMs),
    ]),
  );
}

/** Rules that are listed at most where no one asked for JSON. */
const maxRulesShown = 20;

function show(screen: Screen, answer: DraftAnswer): void {
  showCoverage(screen, answer);
  showChanges(screen, 'newly unexplained', 'bad', answer.newlyUnexplained);
  showChanges(screen, 'newly denied', 'warn', answer.newlyDenied);
  showChanges(screen, 'newly explained', 'good', answer.newlyExplained);
  screen.line('');
  if (answer.otherRule.edges > 0)
    screen.line(`${countText(answer.otherRule.edges)} edges keep their verdict, by another rule`);
  const { unusedRules } = answer;
  if (unusedRules.length > 0) {
    const names = unusedRules.slice(0, maxRulesShown).map(({ ruleset, name }) => `${ruleset}/${name}`);
    const more = unusedRules.length - names.length;
    screen.line(
      `${countText(unusedRules.length)} of ${countText(answer.ruleCount)} rules decide nothing: ${names.join(', ')}${more > 0 ? ` and ${countText(more)} more` : ''}`,
    );
  }
  const { undecided } = answer.after;
  if (undecided.edges > 0)
    screen.line(
      screen.style.paint(
        'warn',
        `undecided: ${countText(undecided.edges)} edges, ${countText(undecided.connections)} connections: rules ask for addresses, processes or names that are no longer kept`,
      ),
    );
  const { since, until } = answer.window;
  screen.note(
    `compared with ${answer.comparedWith}, since ${since}${until === null ? '' : ` until ${until}`}, from ${answer.table}`,
  );
  screen.completeness(answer.completeness);
}

/** Resolves with the exit code: `findings` where something is newly as `--fail-on` says. */
export async function draft(folder: string, options: DraftOptions): Promise<number> {
  const failOn = parseFailOn(options.failOn);
  const files = await readPolicyFiles(folder);
  const against = options.against === undefined ? undefined : await readPolicyFiles(options.against);
  const { client, screen } = start(options);
  const { since, until, app, limit } = options;
  const answer = await whileWaiting(
    'judging what was seen',
    client.post<DraftAnswer>('/api/v1/drafts', {
      files,
      against,
      since: since ?? '7d',
      until,
      app,
      limit: limit === undefined ? undefined : Number(limit),
    }),
  );
  if (options.json === true) screen.json(answer);
  else show(screen, answer);
  const hits = failOn.filter((word) => answer[failures[word]].total.edges > 0);
  if (hits.length === 0) return exitCodes.ok;
  screen.note(`--fail-on ${hits.join(',')}: there are such edges`);
  return exitCodes.findings;
}
