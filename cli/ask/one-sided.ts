/** `eastwest one-sided`: what one side of a connection saw and the other did not. */
import { exitCodes } from '../../lib/runtime/exit.ts';
import type { Edge, List, Seen } from './answers.ts';
import { destinationText, endpoint, explainMarks, kindCell, kinds } from './connections.ts';
import { type FlowOptions, flowParameters } from './options.ts';
import { listText } from './screen.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { agoText, bytesText, countText, whoText } from './words.ts';

export interface OneSidedOptions extends FlowOptions {
  readonly seenBy?: string;
  readonly state?: string;
  readonly failOnFindings?: boolean;
}

type OneSided = Edge &
  Seen & {
    readonly seenBy: string;
    readonly state: string;
    readonly missing: readonly string[];
    readonly refused: number;
    readonly timedOut: number;
  };

interface OneSidedList extends List<OneSided> {
  readonly states: Readonly<Record<string, number>>;
  readonly truncated: boolean;
}

/** Short words for a state, and the sentence below the table. */
const words: Readonly<Record<string, readonly [short: string, long: string]>> = {
  'not-seen': ['', 'an agent there reported past it, lost nothing then, and did not see it'],
  waiting: [
    'waiting for the other side',
    'the agent there has not reported that far, or a name may still change',
  ],
  incomplete: ['other side incomplete', 'the agent there lost reports of that time, began later, or samples'],
  silent: ['other side silent', 'the agent there sends nothing any more'],
  translated: [
    'translated address',
    'the other side reported the like under a translated address or an unsure name',
  ],
  'same-agent': ['one agent sees both', 'one agent sees both ends and reports such connections once'],
  'no-agent': ['other side does not report', 'nobody reports there'],
};

function stateCell({ state, seenBy }: OneSided): Cell {
  if (state === 'not-seen')
    return { text: seenBy === 'source' ? 'never arrived' : 'never sent', tone: 'bad' };
  const tone: Tone = state === 'incomplete' || state === 'silent' ? 'warn' : 'dim';
  return { text: words[state]?.[0] ?? state, tone };
}

/** What the side that saw it says of its end. */
function outcomeText({ refused, timedOut, bytesReverse }: OneSided): string {
  if (refused > 0) return 'refused';
  if (timedOut > 0) return 'timed out';
  return bytesReverse > 0 ? 'answered' : 'no answer';
}

const columns: readonly Column[] = [
  { title: 'LAST SEEN', align: 'right' },
  { title: 'SEEN BY' },
  { title: 'SOURCE', min: 14 },
  { title: 'KIND' },
  { title: 'ADDRESS' },
  { title: 'DESTINATION', min: 14 },
  { title: 'KIND' },
  { title: 'ENDPOINT' },
  { title: 'PROTOCOL' },
  { title: 'OUTCOME' },
  { title: 'BUT' },
  { title: 'BY AGENT', min: 10, optional: true },
  { title: 'COUNT', align: 'right' },
  { title: 'BYTES', align: 'right' },
];

function rowOf(one: OneSided, nowMs: number): (string | Cell)[] {
  const [source, destination] = kinds(one);
  return [
    agoText(one.lastSeen, nowMs),
    one.seenBy,
    { text: one.source.workload ?? whoText(one.source), tone: 'bold' },
    kindCell(source),
    { text: one.source.address ?? '', tone: 'dim' },
    { text: one.destination.workload ?? destinationText(one), tone: 'bold' },
    kindCell(destination),
    endpoint(one),
    one.protocol,
    outcomeText(one),
    stateCell(one),
    { text: one.missing.join(', '), tone: 'dim' },
    countText(one.connections),
    bytesText(one.bytesForward + one.bytesReverse),
  ];
}

/** Resolves with the exit code: `findings` when asked to fail on them and there are any. */
export async function oneSided(options: OneSidedOptions): Promise<number> {
  const { client, screen } = start(options);
  const { seenBy, state } = options;
  const answer = await client.get<OneSidedList>('/api/v1/one-sided', {
    ...flowParameters(options),
    sort: undefined,
    seen_by: seenBy,
    state,
  });
  if (options.json === true) screen.json(answer);
  else {
    if (answer.items.length > 0)
      screen.table(
        columns,
        answer.items.map((one) => rowOf(one, screen.nowMs)),
      );
    explainMarks(screen, answer.items);
    screen.note(listText(answer, 'one-sided'));
    for (const [name, [, long]] of Object.entries(words)) {
      const count = answer.states[name] ?? 0;
      if (count > 0) screen.note(`${countText(count)} ${name}: ${long}`);
    }
    if (answer.truncated) screen.note('there are more, older ones; ask for a shorter time');
    if (answer.completeness !== undefined) screen.completeness(answer.completeness);
  }
  const found = answer.states['not-seen'] ?? 0;
  return options.failOnFindings === true && found > 0 ? exitCodes.findings : exitCodes.ok;
}
