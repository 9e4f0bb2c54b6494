/** Audited rules on a terminal: one line each, and below it what it rests on. */
import { type FirewallVerdict, verdictWords } from '../../lib/firewall/audit.ts';
import type { Screen } from '../ask/screen.ts';
import type { Tone } from '../ask/style.ts';
import type { Cell, Column } from '../ask/table.ts';
import { agoText, bytesText, countText, labelsText } from '../ask/words.ts';
import type { AuditedRule, HolderAnswer } from './answer.ts';

const columns: readonly Column[] = [
  { title: 'LINE', align: 'right' },
  { title: 'VERDICT' },
  { title: 'ACTION' },
  { title: 'SOURCE', min: 10 },
  { title: 'DESTINATION', min: 10 },
  { title: 'PORT', min: 6 },
  { title: 'LAST HIT', align: 'right' },
  { title: 'COUNT', align: 'right' },
  { title: 'BYTES', align: 'right', optional: true },
  { title: 'COMMENT', min: 10, optional: true },
  { title: 'WHY', min: 20 },
];

const tones: Readonly<Record<FirewallVerdict, Tone>> = {
  unused: 'warn',
  reused: 'alarm',
  'owner-gone': 'bad',
  broader: 'warn',
  used: 'good',
};

function listText(list: readonly string[]): string {
  return list.length <= 3 ? list.join(';') : `${list.slice(0, 2).join(';')};+${list.length - 2}`;
}

function narrowText({ narrowest }: AuditedRule): string {
  if (narrowest === null) return '';
  const { source, destination, port } = narrowest;
  return `only ${listText(source)} to ${listText(destination)} on ${listText(port)}`;
}

/** The most telling thing about a rule, in a line. */
export function whyText(rule: AuditedRule): string {
  const [note] = rule.notes;
  if (rule.verdict === 'broader') return narrowText(rule);
  if (note !== undefined) return note;
  if (rule.verdict === 'unused') return 'no flow matches it';
  return '';
}

function ruleRow(rule: AuditedRule, nowMs: number): (string | Cell)[] {
  const { verdict, hits } = rule;
  return [
    String(rule.line),
    { text: verdictWords[verdict], tone: tones[verdict] },
    { text: rule.action, tone: rule.action === 'deny' ? 'dim' : 'plain' },
    { text: listText(rule.source), tone: 'bold' },
    { text: listText(rule.destination), tone: 'bold' },
    listText(rule.port),
    agoText(rule.lastSeen, nowMs),
    countText(hits.connections),
    bytesText(hits.bytesForward + hits.bytesReverse),
    { text: rule.comment, tone: 'dim' },
    whyText(rule),
  ];
}

function whoText({ kind, name, cluster, namespace, labels }: HolderAnswer['now'][number]): string {
  const place = [cluster, namespace, name].filter((part) => part !== '').join('/');
  const said = labelsText(labels);
  return `${kind} ${place}${said === '' ? '' : ` (${said})`}`;
}

function holderText(holder: HolderAnswer): string {
  const { end, address, before, beforeUntil, now, lastUsed, state } = holder;
  const used = lastUsed === null ? 'not used' : `used until ${lastUsed}`;
  const whose =
    before === null
      ? ''
      : `, by ${whoText(before)}${beforeUntil === null ? '' : `, who had it until ${beforeUntil}`}`;
  const have = now.length === 0 ? 'nobody' : now.map(whoText).join(', ');
  return `${end} ${address}: ${used}${whose}; now ${have} [${state}]`;
}

function heldText(held: Readonly<Record<string, number>>): string {
  return Object.entries(held)
    .slice(0, 5)
    .map(([app, workloads]) => `${app.replace(/^app /, '')} ${countText(workloads)}`)
    .join(', ');
}

function details(screen: Screen, rule: AuditedRule): void {
  const line = (text: string): void => screen.line(`    ${text}`);
  const { paint } = screen.style;
  screen.line(
    `line ${rule.line} ${paint(tones[rule.verdict], rule.verdicts.map((verdict) => verdictWords[verdict]).join(', '))}${rule.comment === '' ? '' : `  ${paint('dim', rule.comment)}`}`,
  );
  for (const note of rule.notes) line(note);
  for (const holder of rule.holders) line(holderText(holder));
  if (rule.holdersOmitted > 0) line(`and ${countText(rule.holdersOmitted)} more addresses`);
  const { sources, destinations } = rule.heldNow;
  if (Object.keys(sources).length > 0) line(`sources now: ${heldText(sources)}`);
  if (Object.keys(destinations).length > 0) line(`destinations now: ${heldText(destinations)}`);
  if (rule.narrowest !== null)
    line(
      `narrowest: ${[rule.narrowest.source, rule.narrowest.destination, rule.narrowest.port].map((list) => list.join(';')).join(', ')}`,
    );
  if (rule.equivalent !== null)
    line(
      'rule' in rule.equivalent
        ? `in labels: ${JSON.stringify(rule.equivalent.rule)}`
        : `not in labels: ${rule.equivalent.why}`,
    );
}

export function showRules(screen: Screen, rules: readonly AuditedRule[], hasDetails: boolean): void {
  if (rules.length === 0) return;
  screen.table(
    columns,
    rules.map((rule) => ruleRow(rule, screen.nowMs)),
  );
  if (!hasDetails) return;
  for (const rule of rules) {
    screen.line('');
    details(screen, rule);
  }
}
