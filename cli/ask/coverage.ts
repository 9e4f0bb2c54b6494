/** `eastwest coverage`. */
import type { Coverage, Covered } from './answers.ts';
import { type FlowOptions, flowParameters } from './options.ts';
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

export async function coverage(options: CoverageOptions): Promise<void> {
  const { client, screen } = start(options);
  const { verdict: _verdict, sort: _sort, ...filters } = flowParameters(options);
  const answer = await client.get<Coverage>('/api/v1/coverage', {
    ...filters,
    group_by: options.groupBy,
    step: options.step,
    top: options.top,
  });
  if (options.json === true) return screen.json(answer);
  const name = { title: answer.groupBy?.toUpperCase() ?? 'EXPLAINED', min: 12 };
  const groups = answer.groups.map((group) => [
    group.value === '' ? '(not set)' : group.value,
    ...sumCells(group),
  ]);
  screen.table(
    [name, ...sumColumns],
    [...groups, [{ text: 'all', tone: 'bold' }, ...sumCells(answer.total)]],
  );
  if (answer.series.length > 0) {
    screen.line('');
    screen.table(
      [{ title: 'TIME' }, ...sumColumns],
      answer.series.map((point) => [point.time, ...sumCells(point)]),
    );
  }
  if (answer.uncovered.length > 0) {
    screen.line('');
    const columns = [
      { title: 'UNEXPLAINED, MOST CONNECTIONS FIRST', min: 14 },
      { title: 'DESTINATION', min: 14 },
      { title: 'PORT' },
      { title: 'REASON' },
      { title: 'CONNECTIONS', align: 'right' as const },
    ];
    const rows = answer.uncovered.map((edge) => [
      whoText(edge.source),
      whoText(edge.destination),
      `${edge.port}/${edge.protocol}`,
      edge.reason,
      countText(edge.connections),
    ]);
    screen.table(columns, rows);
  }
  const { since, until } = answer.window;
  screen.note(`since ${since}${until === null ? '' : ` until ${until}`}, from ${answer.table}`);
  screen.completeness(answer.completeness);
}
