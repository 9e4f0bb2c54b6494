/** `eastwest ledger`. */
import type { Ledger } from './answers.ts';
import type { AskOptions } from './options.ts';
import type { Screen } from './screen.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { agoText, countText, millisecondsText, shareText } from './words.ts';

export interface LedgerOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly limit?: string;
}

const totalLines: readonly (readonly [key: string, title: string, bad: boolean])[] = [
  ['batches', 'batches received', false],
  ['batchesWritten', 'batches written', false],
  ['batchesResent', 'batches resent, left out', false],
  ['batchesMissing', 'batches missing', true],
  ['batchesDead', 'batches dead', true],
  ['flowsReceived', 'flows received', false],
  ['flowsWritten', 'flows written', false],
  ['flowsResent', 'flows resent, left out', false],
  ['flowsRefused', 'flows refused', true],
  ['flowsDroppedAtSource', 'flows dropped at the source', true],
];

function lossCell(count: number): Cell {
  return count > 0 ? { text: countText(count), tone: 'warn' } : { text: '0', tone: 'dim' };
}

const stateTones: Readonly<Record<string, Tone>> = { reporting: 'good', gone: 'dim' };

function stateCell(state: string): Cell {
  return { text: state.replace('-', ' '), tone: stateTones[state] ?? 'bad' };
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

function agentRow(agent: Ledger['agents'][number], nowMs: number): (string | Cell)[] {
  const sampled = agent.samplingRate > 1 ? `, 1 of ${countText(agent.samplingRate)}` : '';
  return [
    agent.agent,
    agent.cluster,
    agent.node,
    { text: `${agent.source}${sampled}`, tone: sampled === '' ? 'plain' : 'warn' },
    stateCell(agent.state),
    agoText(agent.lastReceived, nowMs),
    countText(agent.batches),
    countText(agent.flows),
    countText(agent.batchesResent),
    lossCell(agent.batchesMissing),
    lossCell(agent.flowsDropped),
    lossCell(agent.flowsRefused),
  ];
}

function totalsTable(screen: Screen, { totals }: Ledger): void {
  const delay = `${millisecondsText(totals.delayMsP50 ?? null)} / ${millisecondsText(totals.delayMsP99 ?? null)}`;
  screen.table(
    [{ title: 'LEDGER' }, { title: '', align: 'right' }],
    [
      ...totalLines.map(([key, title, bad]) => {
        const count = totals[key] ?? 0;
        return [title, bad ? lossCell(count) : countText(count)];
      }),
      ['flows queryable after their end (p50 / p99)', delay],
    ],
  );
}

function namingTable(screen: Screen, { naming }: Ledger): void {
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
}

function sourcesTable(screen: Screen, { sources }: Ledger): void {
  screen.table(
    [
      { title: 'SOURCE OF INVENTORY', min: 16 },
      { title: 'STATE' },
      { title: 'COMPLETE TO' },
      { title: 'BEHIND', align: 'right' },
    ],
    sources.map((source) => [
      source.source,
      source.silent ? { text: 'silent', tone: 'bad' } : { text: 'vouching', tone: 'good' },
      source.completeTo ?? 'never',
      millisecondsText(source.behindMs),
    ]),
  );
}

function causesTable(screen: Screen, { causes }: Ledger): void {
  screen.table(
    [
      { title: 'CAUSE' },
      { title: 'DEAD BATCHES', align: 'right' },
      { title: 'FLOWS REFUSED', align: 'right' },
    ],
    causes.map((row) => [row.cause, countText(row.batches), countText(row.flows)]),
  );
}

function gapsTable(screen: Screen, { gaps }: Ledger): void {
  screen.table(
    [
      { title: 'GAP OF AGENT', min: 12 },
      { title: 'BOOT', min: 8 },
      { title: 'SEQUENCES' },
      { title: 'MISSING', align: 'right' },
      { title: 'FROM' },
      { title: 'TO' },
    ],
    gaps.map((gap) => [
      gap.agent,
      gap.boot,
      `${gap.firstMissing} to ${gap.lastMissing}`,
      lossCell(gap.missing),
      gap.from ?? 'its start',
      gap.to ?? '',
    ]),
  );
}

/** Nodes that report are known by their agents: shown are those that should and don't. */
function nodesTable(screen: Screen, nodes: Ledger['nodes']): void {
  screen.table(
    [
      { title: 'NODE', min: 12 },
      { title: 'CLUSTER', min: 8 },
      { title: 'STATE' },
      { title: 'LAST BATCH', align: 'right' },
    ],
    nodes.map((node) => [
      node.node,
      node.cluster,
      stateCell(node.state),
      agoText(node.lastReceived, screen.nowMs),
    ]),
  );
}

function agentsTable(screen: Screen, { agents, agentsTotal }: Ledger): void {
  screen.table(
    agentColumns,
    agents.map((agent) => agentRow(agent, screen.nowMs)),
  );
  if (agentsTotal > agents.length)
    screen.note(`${countText(agents.length)} of ${countText(agentsTotal)} agents; --limit shows more`);
}

export async function ledger(options: LedgerOptions): Promise<void> {
  const { client, screen } = start(options);
  const { since, until, limit } = options;
  const answer = await client.get<Ledger>('/api/v1/ledger', { since, until, limit });
  if (options.json === true) return screen.json(answer);
  totalsTable(screen, answer);
  screen.line('');
  namingTable(screen, answer);
  const absent = answer.nodes.filter(({ state }) => state !== 'reporting');
  const parts: readonly (readonly [count: number, print: () => void])[] = [
    [answer.sources.length, () => sourcesTable(screen, answer)],
    [answer.causes.length, () => causesTable(screen, answer)],
    [answer.gaps.length, () => gapsTable(screen, answer)],
    [absent.length, () => nodesTable(screen, absent)],
    [answer.agents.length, () => agentsTable(screen, answer)],
  ];
  for (const [count, print] of parts) {
    if (count === 0) continue;
    screen.line('');
    print();
  }
  screen.completeness(answer.completeness);
}
