/** `eastwest unknown`, `connections` and `edges`. */
import { exitCodes } from '../../lib/runtime/exit.ts';
import type { Edge, List, Seen } from './answers.ts';
import { explainCommand } from './explain-command.ts';
import { type FlowOptions, flowParameters } from './options.ts';
import { listText, type Screen } from './screen.ts';
import { start } from './start.ts';
import { severityTone, verdictTone } from './style.ts';
import type { Cell, Column } from './table.ts';
import {
  agoText,
  bytesText,
  countText,
  endpointText,
  kindText,
  labelsText,
  marksText,
  placeText,
  whoText,
} from './words.ts';

export interface UnknownOptions extends FlowOptions {
  readonly failOnFindings?: boolean;
}

/** A destination by name with its address beside it, if there is one. */
export function destinationText(edge: Edge): string {
  const { destination } = edge;
  const labels = labelsText(destination.labels);
  const name = edge.dns ?? destination.name;
  const who = [labels, name].filter((part) => part !== '').join(' ');
  return who === '' ? (destination.address ?? whoText(destination)) : who;
}

export function endpoint(edge: Edge): string {
  const { address } = edge.destination;
  return address === null ? '' : endpointText(address, edge.port);
}

export function kinds(edge: Edge): [source: string, destination: string] {
  return [kindText(edge.source, edge.pending), kindText(edge.destination, edge.pending)];
}

/** A kind that is marked says that a name is no fact. */
export function kindCell(kind: string): Cell {
  return { text: kind, tone: marksText([kind]) === '' ? 'dim' : 'warn' };
}

export function explainMarks(screen: Screen, edges: readonly Edge[]): void {
  const text = marksText(edges.flatMap(kinds));
  if (text !== '') screen.note(text);
}

function portText(edge: Edge): string {
  return edge.protocol === 'icmp' || edge.protocol === 'icmpv6'
    ? edge.protocol
    : `${edge.port}/${edge.protocol}`;
}

const unknownColumns: readonly Column[] = [
  { title: 'SEVERITY' },
  { title: 'SOURCE', min: 14 },
  { title: 'KIND' },
  { title: 'PLACE', min: 8, optional: true },
  { title: 'WORKLOAD', min: 10, optional: true },
  { title: 'DESTINATION', min: 14 },
  { title: 'KIND' },
  { title: 'ADDRESS' },
  { title: 'PORT' },
  { title: 'REASON' },
  { title: 'FIRST SEEN', align: 'right' },
  { title: 'LAST SEEN', align: 'right' },
  { title: 'COUNT', align: 'right' },
  { title: 'BYTES', align: 'right', optional: true },
];

function unknownRow(edge: Edge & Seen, nowMs: number): (string | Cell)[] {
  const process = edge.process === null ? '' : ` (${edge.process})`;
  const [source, destination] = kinds(edge);
  return [
    { text: edge.severity, tone: severityTone(edge.severity) },
    { text: whoText(edge.source), tone: 'bold' },
    kindCell(source),
    { text: placeText(edge.source), tone: 'dim' },
    `${edge.source.workload ?? ''}${process}`.trim(),
    { text: destinationText(edge), tone: 'bold' },
    kindCell(destination),
    { text: edge.destination.address ?? '', tone: 'dim' },
    portText(edge),
    edge.reason,
    agoText(edge.firstSeen, nowMs),
    agoText(edge.lastSeen, nowMs),
    countText(edge.connections),
    bytesText(edge.bytesForward + edge.bytesReverse),
  ];
}

/** Resolves with the exit code: `findings` when asked to fail on them and there are any. */
export async function unknown(options: UnknownOptions): Promise<number> {
  const { client, screen } = start(options);
  const answer = await client.get<List<Edge & Seen>>('/api/v1/unknown', flowParameters(options));
  if (options.json === true) screen.json(answer);
  else {
    if (answer.items.length > 0)
      screen.table(
        unknownColumns,
        answer.items.map((edge) => unknownRow(edge, screen.nowMs)),
      );
    explainMarks(screen, answer.items);
    screen.note(listText(answer, 'unexplained'));
    const link = answer.items[0]?.explain ?? null;
    if (link !== null) screen.note(`why the first, and what a rule would need: ${explainCommand(link)}`);
    if (answer.completeness !== undefined) screen.completeness(answer.completeness);
  }
  return options.failOnFindings === true && answer.total > 0 ? exitCodes.findings : exitCodes.ok;
}

const edgeColumns: readonly Column[] = [
  { title: 'SOURCE', min: 14 },
  { title: 'KIND' },
  { title: 'PLACE', min: 8, optional: true },
  { title: 'DESTINATION', min: 14 },
  { title: 'KIND' },
  { title: 'ADDRESS' },
  { title: 'PORT' },
  { title: 'VERDICT' },
  { title: 'RULE OR REASON', min: 10 },
  { title: 'DIRECTION', optional: true },
  { title: 'COUNT', align: 'right' },
  { title: 'BYTES', align: 'right' },
];

function whyText(edge: Edge): string {
  return edge.rule === null ? edge.reason : `${edge.rule.ruleset}/${edge.rule.name}`;
}

function edgeRow(edge: Edge): (string | Cell)[] {
  const [source, destination] = kinds(edge);
  return [
    { text: whoText(edge.source), tone: 'bold' },
    kindCell(source),
    { text: placeText(edge.source), tone: 'dim' },
    { text: destinationText(edge), tone: 'bold' },
    kindCell(destination),
    { text: edge.destination.address ?? '', tone: 'dim' },
    portText(edge),
    { text: edge.verdict, tone: verdictTone(edge.verdict) },
    whyText(edge),
    edge.direction,
    countText(edge.connections),
    bytesText(edge.bytesForward + edge.bytesReverse),
  ];
}

export async function edges(options: FlowOptions): Promise<void> {
  const { client, screen } = start(options);
  const answer = await client.get<List<Edge>>('/api/v1/edges', flowParameters(options));
  if (options.json === true) return screen.json(answer);
  if (answer.items.length > 0) screen.table(edgeColumns, answer.items.map(edgeRow));
  explainMarks(screen, answer.items);
  screen.note(listText(answer, 'edges'));
  if (answer.completeness !== undefined) screen.completeness(answer.completeness);
}

const connectionColumns: readonly Column[] = [
  { title: 'LAST SEEN', align: 'right' },
  { title: 'SOURCE', min: 14 },
  { title: 'KIND' },
  { title: 'ADDRESS' },
  { title: 'DESTINATION', min: 14 },
  { title: 'KIND' },
  { title: 'ENDPOINT' },
  { title: 'PROTOCOL' },
  { title: 'VERDICT' },
  { title: 'RULE OR REASON', min: 10 },
  { title: 'COUNT', align: 'right' },
  { title: 'BYTES', align: 'right' },
];

function connectionRow(edge: Edge & Seen, nowMs: number): (string | Cell)[] {
  const [source, destination] = kinds(edge);
  return [
    agoText(edge.lastSeen, nowMs),
    { text: edge.source.workload ?? whoText(edge.source), tone: 'bold' },
    kindCell(source),
    { text: edge.source.address ?? '', tone: 'dim' },
    { text: edge.destination.workload ?? destinationText(edge), tone: 'bold' },
    kindCell(destination),
    endpoint(edge),
    edge.protocol,
    { text: edge.verdict, tone: verdictTone(edge.verdict) },
    whyText(edge),
    countText(edge.connections),
    bytesText(edge.bytesForward + edge.bytesReverse),
  ];
}

export async function connections(options: FlowOptions): Promise<void> {
  const { client, screen } = start(options);
  const answer = await client.get<List<Edge & Seen>>('/api/v1/connections', flowParameters(options));
  if (options.json === true) return screen.json(answer);
  if (answer.items.length > 0)
    screen.table(
      connectionColumns,
      answer.items.map((edge) => connectionRow(edge, screen.nowMs)),
    );
  explainMarks(screen, answer.items);
  screen.note(listText(answer, 'connections'));
  if (answer.completeness !== undefined) screen.completeness(answer.completeness);
}
