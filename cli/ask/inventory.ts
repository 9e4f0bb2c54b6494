/** `eastwest workloads`, `who` and `alerts`. */
import type { Alert, List, Workload, Workloads } from './answers.ts';
import type { AskOptions } from './options.ts';
import { listText } from './screen.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { agoText, countText, labelsText } from './words.ts';

export interface WorkloadOptions extends AskOptions {
  readonly ip?: string;
  readonly name?: string;
  readonly namespace?: string;
  readonly cluster?: string;
  readonly kind?: string;
  readonly network?: string;
  readonly label?: string;
  readonly at?: string;
  readonly limit?: string;
}

const workloadColumns: readonly Column[] = [
  { title: 'ADDRESS' },
  { title: 'NETWORK', min: 8 },
  { title: 'KIND' },
  { title: 'NAME', min: 14 },
  { title: 'LABELS', min: 12 },
  { title: 'CLUSTER', min: 8 },
  { title: 'NAMESPACE', min: 8 },
  { title: 'NODE', min: 8, optional: true },
  { title: 'FROM' },
  { title: 'TO' },
];

function workloadRow(workload: Workload): (string | Cell)[] {
  return [
    workload.address ?? '',
    workload.network,
    workload.kind,
    { text: workload.name, tone: workload.current ? 'bold' : 'dim' },
    labelsText(workload.labels),
    workload.cluster,
    workload.namespace,
    workload.node,
    workload.from ?? '',
    workload.to ?? { text: 'now', tone: 'good' },
  ];
}

function workloadParameters(options: WorkloadOptions): Record<string, string | undefined> {
  const { ip, name, namespace, cluster, kind, network, label, at, limit } = options;
  return { ip, name, namespace, cluster, kind, network, label, at, limit };
}

export async function workloads(options: WorkloadOptions): Promise<void> {
  const { client, screen } = start(options);
  const answer = await client.get<Workloads>('/api/v1/workloads', workloadParameters(options));
  if (options.json === true) return screen.json(answer);
  if (answer.items.length > 0) screen.table(workloadColumns, answer.items.map(workloadRow));
  const shown = answer.items.length === answer.total ? '' : `${countText(answer.items.length)} of `;
  screen.note(
    answer.total === 0
      ? 'nobody is known'
      : `${shown}${countText(answer.total)} ${answer.total === 1 ? 'address interval' : 'address intervals'}`,
  );
}

export interface AlertOptions extends AskOptions {
  readonly since?: string;
  readonly until?: string;
  readonly state?: string;
  readonly receiver?: string;
  readonly limit?: string;
}

const stateTones: Readonly<Record<string, Tone>> = { delivered: 'good', pending: 'warn', failed: 'bad' };

/** The sentence of a payload that tells people most; whole with --json. */
function titleOf(payload: unknown): string {
  if (typeof payload !== 'object' || payload === null || !('data' in payload)) return '';
  const { data } = payload;
  if (typeof data !== 'object' || data === null || !('title' in data)) return '';
  return typeof data.title === 'string' ? data.title : '';
}

export async function alerts(options: AlertOptions): Promise<void> {
  const { client, screen } = start(options);
  const { since, until, state, receiver, limit } = options;
  const answer = await client.get<List<Alert>>('/api/v1/alerts', { since, until, state, receiver, limit });
  if (options.json === true) return screen.json(answer);
  const columns: readonly Column[] = [
    { title: 'CREATED', align: 'right' },
    { title: 'STATE' },
    { title: 'TRIES', align: 'right' },
    { title: 'RECEIVER', min: 10, optional: true },
    { title: 'WHAT', min: 20 },
    { title: 'LAST ERROR', min: 12, optional: true },
  ];
  const rows = answer.items.map((alert) => [
    agoText(alert.created, screen.nowMs),
    { text: alert.state, tone: stateTones[alert.state] ?? 'plain' },
    countText(alert.attempts),
    alert.receiver,
    titleOf(alert.payload),
    alert.lastError ?? '',
  ]);
  if (rows.length > 0) screen.table(columns, rows);
  screen.note(listText(answer, 'alerts'));
}
