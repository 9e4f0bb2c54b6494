/** `eastwest firewall audit`. */
import { readFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { type FirewallVerdict, firewallVerdicts, verdictWords } from '../../lib/firewall/audit.ts';
import { readRules } from '../../lib/firewall/read.ts';
import type { RuleFormat } from '../../lib/firewall/rule.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import type { AskOptions } from '../ask/options.ts';
import type { Screen } from '../ask/screen.ts';
import { start } from '../ask/start.ts';
import { countText } from '../ask/words.ts';
import type { AuditAnswer, AuditedRule } from './answer.ts';
import { showRules } from './print.ts';

export interface AuditOptions extends AskOptions {
  readonly format?: RuleFormat;
  readonly since: string;
  readonly until?: string;
  readonly chain?: string;
  readonly match: 'first' | 'any';
  readonly only?: readonly FirewallVerdict[];
  readonly details?: boolean;
  readonly narrowest?: boolean;
  readonly policy?: boolean;
  readonly failOn?: readonly FirewallVerdict[];
}

/** Wait before progress is shown, and between its updates, ms. */
const quietMs = 2000;
const tickMs = 500;
/** Ignored lines that are listed. */
const maxIgnored = 20;

function readText(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw new OperatorError(
      `${path}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
}

/** Problems are said here already, with the name of the file, and without asking anybody. */
function checkText(path: string, text: string, { format, chain }: AuditOptions): number {
  const { problems, rules } = readRules(text, { format, chain });
  if (problems.length > 0) {
    const lines = problems.map((problem) => `${path}: ${problem}`).join('\n  ');
    throw new OperatorError(
      `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}:\n  ${lines}`,
      exitCodes.usage,
    );
  }
  return rules.length;
}

/** Says on a terminal how long it has been going on. */
async function withProgress<T>(what: string, work: Promise<T>): Promise<T> {
  const { stderr } = process;
  if (stderr.isTTY !== true) return work;
  const begunMs = performance.now();
  const timer = setInterval(() => {
    const passedMs = performance.now() - begunMs;
    if (passedMs >= quietMs) stderr.write(`\r${what}, ${Math.round(passedMs / 1000)} s`);
  }, tickMs);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    if (performance.now() - begunMs >= quietMs) stderr.write('\r\x1b[K');
  }
}

function csvCell(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The rules that carried something, as narrow as that; those that deny stay as they are. */
export function narrowestCsv(rules: readonly AuditedRule[]): string {
  const kept = rules.filter(({ action, verdict }) => action === 'deny' || verdict !== 'unused');
  const lines = kept.map((rule) => {
    const { source, destination, port } = rule.narrowest ?? rule;
    return [source.join(';'), destination.join(';'), port.join(';'), rule.action, rule.comment]
      .map(csvCell)
      .join(',');
  });
  return ['source,destination,port,action,comment', ...lines].join('\n');
}

/** A file of a policy folder with the rules that can be said in labels, and why the others can't. */
export function policyYaml(rules: readonly AuditedRule[]): string {
  const allowed = rules.filter(({ action, hits }) => action === 'allow' && hits.flows > 0);
  const said = allowed.flatMap(({ equivalent }) =>
    equivalent !== null && 'rule' in equivalent ? [equivalent.rule] : [],
  );
  const unsaid = allowed.flatMap(({ line, equivalent }) =>
    equivalent !== null && 'why' in equivalent ? [`# line ${line}: ${equivalent.why}\n`] : [],
  );
  const ruleset = {
    name: 'from-static-firewall',
    description: 'What static rules were used for.',
    rules: said,
  };
  return `${unsaid.join('')}${stringify({ rulesets: said.length === 0 ? [] : [ruleset] })}`;
}

function remarks(screen: Screen, answer: AuditAnswer): void {
  const { summary, window, table, match, ignored, singleFlowsSince } = answer;
  const counts = firewallVerdicts.flatMap((verdict) => {
    const rules = summary[verdict] ?? 0;
    return rules === 0 ? [] : [`${countText(rules)} ${verdictWords[verdict]}`];
  });
  const end = window.until === null ? '' : ` until ${window.until}`;
  screen.note(`${countText(answer.rules.length)} rules: ${counts.join(', ')}`);
  screen.note(
    `flows since ${window.since}${end}, ${match === 'first' ? 'each for the first rule that matches' : 'each for every rule that matches'}, from ${table}`,
  );
  if (singleFlowsSince !== null)
    screen.note(
      `single flows go back to ${singleFlowsSince}: what is older counts only where rollups tell it`,
    );
  if (ignored.length > 0) {
    screen.note(`${countText(ignored.length)} lines are not audited:`);
    for (const { line, text, reason } of ignored.slice(0, maxIgnored))
      screen.note(`  line ${line}: ${reason}: ${text}`);
    if (ignored.length > maxIgnored)
      screen.note(`  and ${countText(ignored.length - maxIgnored)} more (--json has all)`);
  }
  screen.completeness(answer.completeness);
}

/** Resolves with the exit code: `findings` where a rule has a verdict of `--fail-on`. */
export async function audit(path: string, options: AuditOptions): Promise<number> {
  const { client, screen } = start(options);
  const text = readText(path);
  const ruleCount = checkText(path, text, options);
  const { format, chain, since, until, match, failOn = [] } = options;
  const answer = await withProgress(
    `auditing ${countText(ruleCount)} rules`,
    client.post<AuditAnswer>('/api/v1/firewall/audit', { rules: text, format, chain, since, until, match }),
  );
  const { only } = options;
  const shown = answer.rules.filter(
    ({ verdicts }) => only === undefined || verdicts.some((one) => only.includes(one)),
  );
  if (options.narrowest === true) screen.line(narrowestCsv(shown));
  else if (options.policy === true) screen.line(policyYaml(shown).trimEnd());
  else if (options.json === true) screen.json({ ...answer, rules: shown });
  else {
    showRules(screen, shown, options.details === true);
    remarks(screen, answer);
  }
  const found = answer.rules.some(({ verdicts }) => verdicts.some((verdict) => failOn.includes(verdict)));
  return found ? exitCodes.findings : exitCodes.ok;
}
