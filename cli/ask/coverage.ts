/** `eastwest coverage`. */
import type { Coverage, Covered } from './answers.ts';
import { explainCommand } from './explain-command.ts';
import { type FlowOptions, flowParameters } from './options.ts';
import type { Screen } from './screen.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { bytesText, countText, shareText, whoText } from './words.ts';

export interface CoverageOptions extends FlowOptions {
  readonly groupBy?: string;
  readonly step?: string;
  readonly top?: string;
}

/** Shares below these look bad, or need a look. */
const poor = 0.5;
const fair = 0.95;

function shareTone(share: number | null): Tone {
  if (share === null) return 'dim';
  return share < poor ? 'bad' : share < fair ? 'warn' : 'good';
}

function shareCell(share: number | null): Cell {
  return { text: shareText(share), tone: shareTone(share) };
}

const sumColumns: readonly Column[] = [
  { title: 'CONNECTIONS', align: 'right' },
  { title: 'BYTES', align: 'right' },
  { title: 'EDGES', align: 'right' },
  { title: 'UNEXPLAINED CONNECTIONS', align: 'right' },
  { title: 'BYTES', align: 'right' },
  { title: 'EDGES', align: 'right' },
];

function sumCells({ coverage, unexplained }: Covered): (string | Cell)[] {
  return [
    shareCell(coverage.connections),
    shareCell(coverage.bytes),
    shareCell(coverage.edges),
    countText(unexplained.connections),
    bytesText(unexplained.bytes),
    countText(unexplained.edges),
  ];
}

/** A value's egress and ingress, beside each other. */
const bothColumns: readonly Column[] = ['EGRESS', 'INGRESS'].flatMap((title) => [
  { title, align: 'right' as const },
  { title: 'BYTES', align: 'right' as const },
  { title: 'EDGES', align: 'right' as const, optional: true as const },
  { title: 'UNEXPLAINED', align: 'right' as const },
]);

function halfCells(covered: Covered | undefined): (string | Cell)[] {
  if (covered === undefined) return ['', '', '', ''];
  const { coverage: share, unexplained } = covered;
  return [
    shareCell(share.connections),
    shareCell(share.bytes),
    shareCell(share.edges),
    countText(unexplained.connections),
  ];
}

const valueText = (value: string): string => (value === '' ? '(not set)' : value);
const othersText = ({ groups }: { readonly groups: number }): string => `(${countText(groups)} others)`;

function showBoth(screen: Screen, answer: Coverage, ingress: NonNullable<Coverage['ingress']>): void {
  const sent = new Map(answer.groups.map((group) => [group.value, group]));
  const received = new Map(ingress.groups.map((group) => [group.value, group]));
  const lacking = (value: string): number =>
    Math.max(
      sent.get(value)?.unexplained.connections ?? 0,
      received.get(value)?.unexplained.connections ?? 0,
    );
  const values = [...new Set([...sent.keys(), ...received.keys()])].sort(
    (a, b) => lacking(b) - lacking(a) || (a < b ? -1 : 1),
  );
  const rows = values.map((value) => [
    valueText(value),
    ...halfCells(sent.get(value)),
    ...halfCells(received.get(value)),
  ]);
  for (const [others, isSent] of [
    [answer.others, true],
    [ingress.others, false],
  ] as const) {
    if (others === null) continue;
    const [out, back] = isSent ? [others, undefined] : [undefined, others];
    rows.push([othersText(others), ...halfCells(out), ...halfCells(back)]);
  }
  const all: Cell = { text: 'all', tone: 'bold' };
  const name = { title: ingress.groupBy.slice('dst_'.length).toUpperCase(), min: 12 };
  screen.table(
    [name, ...bothColumns],
    [...rows, [all, ...halfCells(answer.total), ...halfCells(answer.total)]],
  );
}

function showGroups(screen: Screen, answer: Coverage): void {
  if (answer.ingress !== null) {
    showBoth(screen, answer, answer.ingress);
    return;
  }
  const name = { title: answer.groupBy?.toUpperCase() ?? 'EXPLAINED', min: 12 };
  const { others } = answer;
  const rows: (string | Cell)[][] = [
    ...answer.groups.map((group) => [valueText(group.value), ...sumCells(group)]),
    ...(others === null ? [] : [[othersText(others), ...sumCells(others)]]),
    [{ text: 'all', tone: 'bold' }, ...sumCells(answer.total)],
  ];
  screen.table([name, ...sumColumns], rows);
}

function showReasons(screen: Screen, { reasons }: Coverage): void {
  if (reasons.length === 0) return;
  screen.line('');
  screen.table(
    [
      { title: 'UNEXPLAINED BY REASON' },
      { title: 'CONNECTIONS', align: 'right' },
      { title: 'BYTES', align: 'right' },
      { title: 'EDGES', align: 'right' },
    ],
    reasons.map(({ reason, connections, bytes, edges }) => [
      reason,
      countText(connections),
      bytesText(bytes),
      countText(edges),
    ]),
  );
}

function showUncovered(screen: Screen, { uncovered }: Coverage): void {
  if (uncovered.length === 0) return;
  screen.line('');
  screen.table(
    [
      { title: 'UNEXPLAINED, THE LARGEST FIRST', min: 14 },
      { title: 'DESTINATION', min: 14 },
      { title: 'PORT' },
      { title: 'REASON' },
      { title: 'CONNECTIONS', align: 'right' },
      { title: 'BYTES', align: 'right' },
    ],
    uncovered.map((edge) => [
      whoText(edge.source),
      whoText(edge.destination),
      `${edge.port}/${edge.protocol}`,
      edge.reason,
      countText(edge.connections),
      bytesText(edge.bytesForward + edge.bytesReverse),
    ]),
  );
}

export async function coverage(options: CoverageOptions): Promise<void> {
  const { client, screen } = start(options);
  const { verdict: _verdict, ...filters } = flowParameters(options);
  const answer = await client.get<Coverage>('/api/v1/coverage', {
    ...filters,
    group_by: options.groupBy,
    step: options.step,
    top: options.top,
  });
  if (options.json === true) return screen.json(answer);
  showGroups(screen, answer);
  if (answer.series.length > 0) {
    screen.line('');
    screen.table(
      [{ title: 'TIME' }, ...sumColumns],
      answer.series.map((point) => [point.time, ...sumCells(point)]),
    );
  }
  showReasons(screen, answer);
  showUncovered(screen, answer);
  const link = answer.uncovered[0]?.explain ?? null;
  if (link !== null) screen.note(`why the first, and what a rule would need: ${explainCommand(link)}`);
  const { since, until } = answer.window;
  screen.note(`since ${since}${until === null ? '' : ` until ${until}`}, from ${answer.table}`);
  screen.completeness(answer.completeness);
}
