/** `eastwest ledger`. */
import type { Ledger } from './answers.ts';
import type { AskOptions } from './options.ts';
import { start } from './start.ts';
import type { Cell, Column } from './table.ts';
import { agoText, countText, millisecondsText, shareText } from './words.ts';

export interface LedgerOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly limit?: string;
}

const totalLines: readonly (readonly [key: string, title: string, bad: boolean])[] = [
  ['batchesWritten', 'batches written', false],
  ['batchesResent', 'batches resent, left out', false],
  ['batchesMissing', 'batches missing', true],
  ['batchesDead', 'batches dead', true],
  ['flowsWritten', 'flows written', false],
  ['flowsRefused', 'flows refused', true],
  ['flowsDroppedAtSource', 'flows dropped at the source', true],
];

function lossCell(count: number): Cell {
  return count > 0 ? { text: countText(count), tone: 'warn' } : { text: '0', tone: 'dim' };
}

const agentColumns: readonly Column[] = [
  { title: 'AGENT', min: 12 },
  { title: 'CLUSTER', min: 8 },
  { title: 'NODE', min: 8 },
  { title: 'FROM', min: 6 },
  { title: 'STATE' },
  { title: 'LAST BATCH', align: 'right' },
  { title: 'BATCHES', align: 'right' },
  { title: 'FLOWS', align: 'right' },
  { title: 'RESENT', align: 'right' },
  { title: 'MISSING', align: 'right' },
  { title: 'DROPPED', align: 'right' },
  { title: 'REFUSED', align: 'right' },
];

export async function ledger(options: LedgerOptions): Promise<void> {
  const { client, screen } = start(options);
  const { since, until, limit } = options;
  const answer = await client.get<Ledger>('/api/v1/ledger', { since, until, limit });
  if (options.json === true) return screen.json(answer);
  const totals = totalLines.map(([key, title, bad]) => {
    const count = answer.totals[key] ?? 0;
    return [title, bad ? lossCell(count) : countText(count)];
  });
  const delay = `${millisecondsText(answer.totals.delayMsP50 ?? null)} / ${millisecondsText(answer.totals.delayMsP99 ?? null)}`;
  screen.table(
    [{ title: 'LEDGER' }, { title: '', align: 'right' }],
    [...totals, ['queryable after (p50 / p99)', delay]],
  );
  const { naming } = answer;
  screen.line('');
  screen.table(
    [{ title: 'NAMES OF FLOWS' }, { title: '', align: 'right' }],
    [
      ['flows of the window', countText(naming.flows)],
      [
        naming.oldestPending === null
          ? 'may still change'
          : `may still change, the oldest from ${agoText(naming.oldestPending, screen.nowMs)}`,
        countText(naming.pending),
      ],
      ['repaired when the inventory came', countText(naming.repaired)],
      ['one of several had the address', lossCell(naming.ambiguous)],
      ['guessed, the inventory never came', lossCell(naming.late)],
      ['nobody had the address', lossCell(naming.unnamed)],
      ['unresolved in all', shareText(naming.unresolvedShare)],
    ],
  );
  if (answer.sources.length > 0) {
    screen.line('');
    screen.table(
      [
        { title: 'SOURCE OF INVENTORY', min: 16 },
        { title: 'STATE' },
        { title: 'COMPLETE TO' },
        { title: 'BEHIND', align: 'right' },
      ],
      answer.sources.map((source) => [
        source.source,
        source.silent ? { text: 'silent', tone: 'bad' } : { text: 'vouching', tone: 'good' },
        source.completeTo ?? 'never',
        millisecondsText(source.behindMs),
      ]),
    );
  }
  if (answer.causes.length > 0) {
    screen.line('');
    screen.table(
      [
        { title: 'CAUSE' },
        { title: 'DEAD BATCHES', align: 'right' },
        { title: 'FLOWS REFUSED', align: 'right' },
      ],
      answer.causes.map((row) => [row.cause, countText(row.batches), countText(row.flows)]),
    );
  }
  if (answer.gaps.length > 0) {
    screen.line('');
    screen.table(
      [
        { title: 'GAP OF AGENT', min: 12 },
        { title: 'BOOT', min: 8 },
        { title: 'SEQUENCES' },
        { title: 'MISSING', align: 'right' },
      ],
      answer.gaps.map((gap) => [
        gap.agent,
        gap.boot,
        `${gap.firstMissing} to ${gap.lastMissing}`,
        lossCell(gap.missing),
      ]),
    );
  }
  if (answer.agents.length > 0) {
    screen.line('');
    screen.table(
      agentColumns,
      answer.agents.map((agent) => [
        agent.agent,
        agent.cluster,
        agent.node,
        agent.source,
        agent.silent ? { text: 'silent', tone: 'bad' } : { text: 'reporting', tone: 'good' },
        agoText(agent.lastReceived, screen.nowMs),
        countText(agent.batches),
        countText(agent.flows),
        countText(agent.batchesResent),
        lossCell(agent.batchesMissing),
        lossCell(agent.flowsDropped),
        lossCell(agent.flowsRefused),
      ]),
    );
    if (answer.agentsTotal > answer.agents.length) {
      screen.note(
        `${countText(answer.agents.length)} of ${countText(answer.agentsTotal)} agents; --limit shows more`,
      );
    }
  }
  screen.completeness(answer.completeness);
}
