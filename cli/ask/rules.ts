/** `eastwest rules list` and `rules unused`: rules, and what they spoke of. */
import { exitCodes } from '../../lib/runtime/exit.ts';
import type { List } from './answers.ts';
import type { AskOptions } from './options.ts';
import { listText, type Screen } from './screen.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { agoText, bytesText, countText } from './words.ts';

export interface RulesOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly limit?: string;
  readonly sort?: string;
  readonly state?: string;
  readonly usage?: string;
  readonly failOnFindings?: boolean;
}

interface Rule {
  readonly id: string;
  readonly ruleset: string;
  readonly name: string;
  readonly action: string;
  readonly owner: string;
  readonly ticket: string;
  readonly expires: string | null;
  readonly since: string | null;
  readonly state: string;
  readonly usage: string;
  readonly connections: number;
  readonly bytes: number;
  readonly edges: number;
  readonly edgesAlive: number;
  readonly lastHit: string | null;
  readonly lastHitEver: string | null;
}
type Rules = List<Rule> & { readonly keptSince: string | null };

const stateTones: Readonly<Record<string, Tone>> = {
  active: 'good',
  expired: 'warn',
  disabled: 'dim',
  removed: 'dim',
};
const usageTones: Readonly<Record<string, Tone>> = { used: 'good', gone: 'warn', unused: 'bad' };

const columns: readonly Column[] = [
  { title: 'RULE', min: 16 },
  { title: 'ACTION' },
  { title: 'STATE' },
  { title: 'USAGE' },
  { title: 'CONNECTIONS', align: 'right' },
  { title: 'BYTES', align: 'right', optional: true },
  { title: 'EDGES', align: 'right' },
  { title: 'LAST HIT', align: 'right' },
  { title: 'OWNER', min: 8 },
  { title: 'TICKET', optional: true },
  { title: 'EXPIRES', optional: true },
];

/** A rule that the store has no name of is called by its id. */
function nameText({ ruleset, name, id }: Rule): string {
  return name === '' ? `rule ${id}` : `${ruleset}/${name}`;
}

function ruleRow(rule: Rule, nowMs: number): (string | Cell)[] {
  return [
    { text: nameText(rule), tone: 'bold' },
    rule.action,
    { text: rule.state, tone: stateTones[rule.state] ?? 'plain' },
    { text: rule.usage, tone: usageTones[rule.usage] ?? 'plain' },
    countText(rule.connections),
    bytesText(rule.bytes),
    countText(rule.edges),
    agoText(rule.lastHitEver, nowMs),
    rule.owner,
    rule.ticket,
    rule.expires ?? '',
  ];
}

async function ask(options: RulesOptions, more: Readonly<Record<string, string | undefined>>) {
  const { client, screen } = start(options);
  const { since, until, limit, sort, state } = options;
  const answer = await client.get<Rules>('/api/v1/rules', { since, until, limit, sort, state, ...more });
  return { answer, screen };
}

function remarks(screen: Screen, answer: Rules, what: string): void {
  screen.note(listText(answer, what));
  if (answer.completeness !== undefined) screen.completeness(answer.completeness);
}

export async function list(options: RulesOptions): Promise<void> {
  const { answer, screen } = await ask(options, { usage: options.usage });
  if (options.json === true) return screen.json(answer);
  if (answer.items.length > 0)
    screen.table(
      columns,
      answer.items.map((rule) => ruleRow(rule, screen.nowMs)),
    );
  else if (options.state === undefined && options.usage === undefined)
    screen.note('there are no rules: apply some with `eastwest rules apply <folder>`');
  remarks(screen, answer, 'rules');
}

const unusedColumns: readonly Column[] = [
  { title: 'RULE', min: 16 },
  { title: 'ACTION' },
  { title: 'STATE' },
  { title: 'WHY', min: 20 },
  { title: 'LAST HIT', align: 'right' },
  { title: 'IN POLICY SINCE', align: 'right' },
  { title: 'OWNER', min: 8 },
  { title: 'TICKET', optional: true },
];

function whyText({ usage, lastHitEver, edges }: Rule, keptSince: string | null): string {
  if (usage === 'gone') return `only workloads that are no more used it (${countText(edges)} edges)`;
  if (lastHitEver !== null) return 'not in this window';
  return keptSince === null ? 'never' : `never since ${keptSince.slice(0, 10)}`;
}

/** Resolves with the exit code: `findings` when asked to fail on them and there are any. */
export async function unused(options: RulesOptions): Promise<number> {
  // Rules that can't speak anyway are listed on request only.
  const { answer, screen } = await ask(options, {
    since: options.since ?? '30d',
    usage: 'unused|gone',
    state: options.state ?? 'active',
  });
  if (options.json === true) screen.json(answer);
  else {
    if (answer.items.length > 0)
      screen.table(
        unusedColumns,
        answer.items.map((rule) => [
          { text: nameText(rule), tone: 'bold' },
          rule.action,
          { text: rule.state, tone: stateTones[rule.state] ?? 'plain' },
          { text: whyText(rule, answer.keptSince), tone: usageTones[rule.usage] ?? 'plain' },
          agoText(rule.lastHitEver, screen.nowMs),
          agoText(rule.since, screen.nowMs),
          rule.owner,
          rule.ticket,
        ]),
      );
    remarks(screen, answer, 'rules that nothing alive used');
  }
  return options.failOnFindings === true && answer.total > 0 ? exitCodes.findings : exitCodes.ok;
}
