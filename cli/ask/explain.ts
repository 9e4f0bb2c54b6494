/** `eastwest explain`: why a connection is allowed, denied or unexplained. */
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { Client } from './client.ts';
import type { AskOptions } from './options.ts';
import type { Screen } from './screen.ts';
import { start } from './start.ts';
import { verdictTone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { labelsText, placeText } from './words.ts';

export interface ExplainOptions extends AskOptions {
  readonly at?: string;
  readonly process?: string;
  readonly failOn?: string;
  /** False: Kubernetes is not asked. */
  readonly kubernetes?: boolean;
}

interface Candidate {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly workload: string | null;
  readonly address: string | null;
  readonly network: string | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly there: boolean;
}
interface AskedEnd {
  readonly asked: string;
  readonly candidates: readonly Candidate[];
  readonly total: number;
  readonly notes: readonly string[];
}
interface RuleName {
  readonly ruleset: string;
  readonly rule: string;
  readonly action: string;
  readonly owner: string;
  readonly ticket: string;
  readonly expires: string | null;
}
interface Entry {
  readonly index: number;
  readonly text: string;
}
interface RulePath extends RuleName {
  readonly scope: readonly Entry[] | null;
  readonly from: Entry;
  readonly to: Entry;
  readonly service: string | null;
  readonly ports: string;
}
interface Outcome {
  readonly verdict: string;
  readonly reason: string;
  readonly rule: { readonly ruleset: string; readonly rule: string } | null;
  readonly pairs: number;
  readonly source: number;
  readonly destination: number;
}
export interface Explained {
  readonly at: string;
  readonly source: AskedEnd;
  readonly destination: AskedEnd;
  readonly port: number;
  readonly protocol: string;
  readonly policy: {
    readonly version: number;
    readonly author: string;
    readonly applied: string | null;
    readonly isOldest: boolean;
  };
  readonly verdict: string;
  readonly reason: string;
  readonly pair: { readonly source: number; readonly destination: number };
  readonly rule: RulePath | null;
  readonly also: readonly RulePath[];
  readonly near: readonly (RuleName & { readonly gaps: readonly { readonly text: string }[] })[];
  readonly hint: { readonly text: string; readonly yaml: string | null } | null;
  readonly outcomes: readonly Outcome[];
}

/** What a reason means, in the words of docs/policy.md. */
const reasonTexts: Readonly<Record<string, string>> = {
  'no-rule': 'both ends are known, and no rule speaks of them',
  'port-not-covered': 'a rule speaks of the pair, on other ports only',
  'unknown-source': 'the source belongs to no known workload, service or range',
  'unknown-destination': 'the destination belongs to no known workload, service or range',
  'outside-scope': 'neither end is in the scope of any ruleset',
};

const endColumns: readonly Column[] = [
  { title: 'END' },
  { title: 'NAME', min: 14 },
  { title: 'KIND' },
  { title: 'LABELS', min: 12 },
  { title: 'PLACE', min: 8 },
  { title: 'ADDRESS' },
  { title: 'NETWORK', optional: true },
  { title: 'FROM', optional: true },
  { title: 'TO' },
];
/** Candidates of one end that are listed at most. */
const maxListed = 5;

const nameOf = ({ workload, name, address, kind }: Candidate): string =>
  workload ?? (name === '' ? (address ?? kind) : name);

function endRows(title: string, { candidates, total }: AskedEnd): (string | Cell)[][] {
  const rows = candidates
    .slice(0, maxListed)
    .map((one, index): (string | Cell)[] => [
      index === 0 ? title : 'or',
      { text: nameOf(one), tone: 'bold' },
      { text: one.kind, tone: one.there ? 'plain' : 'warn' },
      labelsText(one.labels),
      placeText(one),
      one.address ?? '',
      one.network ?? '',
      one.from ?? '',
      one.to ?? (one.there ? '' : 'not there'),
    ]);
  if (total > maxListed) rows.push(['', { text: `and ${total - maxListed} more`, tone: 'dim' }]);
  return rows;
}

const fullName = ({ ruleset, rule }: Pick<RuleName, 'ruleset' | 'rule'>): string => `${ruleset}/${rule}`;

/** The way through a rule, a line each. */
function pathRows(rule: RulePath): (string | Cell)[][] {
  const scope = rule.scope?.map(({ text }) => text).join(' or ') ?? 'everything';
  const rows: [string, string][] = [
    ['rule', `${fullName(rule)} (${rule.action})`],
    ['scope', scope],
    ['from', `${rule.from.text} (entry ${rule.from.index + 1})`],
    ['to', `${rule.to.text} (entry ${rule.to.index + 1})`],
    ['service', rule.service === null ? rule.ports : `${rule.service}: ${rule.ports}`],
    ['owner', rule.owner],
    ['ticket', rule.ticket],
    ['expires', rule.expires ?? ''],
  ];
  return rows.filter(([, text]) => text !== '').map(([title, text]) => [{ text: title, tone: 'dim' }, text]);
}

function showNear(screen: Screen, { near }: Explained): void {
  if (near.length === 0) {
    screen.line('No rule comes near.');
    return;
  }
  screen.table(
    [
      { title: 'NEAREST RULES', min: 16 },
      { title: 'ACTION' },
      { title: 'WHAT IS MISSING', min: 30 },
      { title: 'OWNER' },
    ],
    near.map((rule) => [
      { text: fullName(rule), tone: 'bold' },
      rule.action,
      rule.gaps.map(({ text }) => text).join('; '),
      rule.owner,
    ]),
  );
}

function outcomeText({ source, destination }: Explained, outcome: Outcome): string {
  const [from, to] = [source.candidates[outcome.source], destination.candidates[outcome.destination]];
  const by = outcome.rule === null ? outcome.reason : fullName(outcome.rule);
  const ends = from === undefined || to === undefined ? '' : `${nameOf(from)} to ${nameOf(to)}: `;
  const more = outcome.pairs === 1 ? '' : ` (and ${outcome.pairs - 1} more pairs)`;
  return `${ends}${outcome.verdict}, ${by}${more}`;
}

function show(screen: Screen, answer: Explained): void {
  const { verdict, reason, rule, also, hint, outcomes, policy } = answer;
  screen.table(endColumns, [
    ...endRows('source', answer.source),
    ...endRows('destination', answer.destination),
  ]);
  screen.line('');
  const port = answer.protocol.startsWith('icmp')
    ? `${answer.protocol} type ${answer.port >> 8} code ${answer.port & 255}`
    : `${answer.port}/${answer.protocol}`;
  const why = rule === null ? `: ${reason}, ${reasonTexts[reason] ?? ''}` : '';
  screen.line(`${port} is ${screen.style.paint(verdictTone(verdict), verdict)}${why}`);
  screen.line('');
  if (rule !== null) screen.table([{ title: 'BY' }, { title: '' }], pathRows(rule));
  for (const one of also) screen.line(`${fullName(one)} (${one.action}) matches too, and decides nothing`);
  if (verdict !== 'allowed') showNear(screen, answer);
  if (hint !== null) {
    screen.line('');
    screen.line(`What it needs: ${hint.text}`);
    if (hint.yaml !== null) screen.line(`\n${hint.yaml.trimEnd()}`);
  }
  if (outcomes.length > 1) {
    screen.line('');
    screen.line('It depends on who is meant:');
    for (const outcome of outcomes) screen.line(`  ${outcomeText(answer, outcome)}`);
  }
  for (const [name, { notes }] of [
    ['source', answer.source],
    ['destination', answer.destination],
  ] as const)
    for (const note of notes) screen.note(`${name}: ${note}`);
  const by =
    policy.version === 0 ? 'no policy was in force' : `policy version ${policy.version} by ${policy.author}`;
  const oldest = policy.isOldest ? ', the oldest that is kept, though it came later' : '';
  screen.note(`at ${answer.at}, ${by}${oldest}`);
}

interface Opinion {
  readonly allowed: boolean | null;
  readonly why: string;
  readonly pairs: readonly { readonly remarks: readonly string[] }[];
  readonly problems: readonly string[];
}

/** How the other route takes an end: a workload by its full name, or an address. */
function opinionWord({ kind, cluster, namespace, workload, address }: Candidate): string | null {
  if (workload !== null && (kind === 'pod' || kind === 'service'))
    return `${cluster}/${namespace}/${workload}`;
  return workload ?? address;
}

/**
 * What the NetworkPolicies of Kubernetes say, where an end is a pod that is there now; null where they have no say, or
 * can't be asked.
 */
async function opinionOf(
  client: Client,
  { source, destination, pair }: Explained,
  port: string,
): Promise<Opinion | null> {
  const ends = [source.candidates[pair.source], destination.candidates[pair.destination]];
  const [from, to] = ends.map((end) => (end === undefined || !end.there ? null : opinionWord(end)));
  const isTheirs = ends.some((end) => end?.kind === 'pod' || end?.kind === 'service');
  if (!isTheirs || from === null || from === undefined || to === null || to === undefined) return null;
  return client
    .get<Opinion>('/api/v1/networkpolicy/opinion', { source: from, destination: to, port })
    .catch(() => null);
}

function showOpinion(screen: Screen, { allowed, why, pairs, problems }: Opinion): void {
  const word = allowed === null ? 'would allow some' : allowed ? 'would allow' : 'would not allow';
  screen.line('');
  screen.line(
    `Kubernetes, as its policies are now, ${screen.style.paint(allowed === false ? 'warn' : 'plain', word)}: ${why}`,
  );
  for (const remark of new Set(pairs.flatMap(({ remarks }) => remarks))) screen.note(remark);
  for (const problem of problems) screen.note(`a NetworkPolicy was left out: ${problem}`);
}

const verdicts: readonly string[] = ['allowed', 'denied', 'unexplained'];

/** Resolves with the exit code: `findings` where what `--fail-on` names is among the outcomes. */
export async function explain(
  source: string,
  destination: string,
  port: string,
  options: ExplainOptions,
): Promise<number> {
  const failOn = options.failOn?.split(',').map((verdict) => verdict.trim()) ?? [];
  const wrong = failOn.find((verdict) => !verdicts.includes(verdict));
  if (wrong !== undefined)
    throw new OperatorError(
      `--fail-on has "${wrong}"; expected ${verdicts.join(', ')}, joined by commas`,
      exitCodes.usage,
    );
  const { client, screen } = start(options);
  const { at, process } = options;
  const answer = await client.get<Explained>('/api/v1/explain', { source, destination, port, at, process });
  if (options.json !== true) show(screen, answer);
  const opinion = options.kubernetes === false ? null : await opinionOf(client, answer, port);
  if (options.json === true) screen.json({ ...answer, kubernetes: opinion });
  else if (opinion !== null) showOpinion(screen, opinion);
  return answer.outcomes.some(({ verdict }) => failOn.includes(verdict)) ? exitCodes.findings : exitCodes.ok;
}
