/** `eastwest who`: who had an address at a moment, or every interval of it. */
import type { Who, Workload, Workloads } from './answers.ts';
import { type WorkloadOptions, workloads } from './inventory.ts';
import { start } from './start.ts';
import type { Tone } from './style.ts';
import type { Cell, Column } from './table.ts';
import { labelsText } from './words.ts';

const columns: readonly Column[] = [
  { title: 'NETWORK', min: 8 },
  { title: 'ANSWER' },
  { title: 'KIND' },
  { title: 'NAME', min: 14 },
  { title: 'LABELS', min: 12 },
  { title: 'CLUSTER', min: 8 },
  { title: 'NAMESPACE', min: 8 },
  { title: 'NODE', min: 8, optional: true },
  { title: 'FROM' },
  { title: 'TO' },
];

type Network = Who['networks'][number];
type Row = (string | Cell)[];

function workloadRow(network: string, answer: Cell, workload: Workload): Row {
  return [
    network,
    answer,
    workload.kind,
    { text: workload.name, tone: 'bold' },
    labelsText(workload.labels),
    workload.cluster,
    workload.namespace,
    workload.node,
    workload.from ?? '',
    workload.to ?? { text: 'now', tone: 'good' },
  ];
}

const answers: Readonly<Record<string, { readonly text: string; readonly tone: Tone }>> = {
  exact: { text: 'exact', tone: 'good' },
  grace: { text: 'within tolerance', tone: 'warn' },
  ambiguous: { text: 'one of these', tone: 'warn' },
};

/** One network: its owners, pods that share a node's address, or nobody with those before and after. */
function networkRows({ network, certainty, owners, candidates, before, after }: Network): Row[] {
  const rows = owners.map((owner) => workloadRow(network, answers[certainty] ?? { text: certainty }, owner));
  if (owners.length === 0) rows.push([network, { text: 'nobody', tone: 'bad' }]);
  for (const pod of candidates) rows.push(workloadRow(network, { text: 'or on it', tone: 'dim' }, pod));
  if (before !== null) rows.push(workloadRow(network, { text: 'before', tone: 'dim' }, before));
  if (after !== null) rows.push(workloadRow(network, { text: 'after', tone: 'dim' }, after));
  return rows;
}

/** Rows of the table; ranges only where nobody had the address. */
export function whoRows(who: Who): Row[] {
  const owned = who.networks.some(({ owners }) => owners.length > 0);
  const ranges = owned
    ? []
    : who.ranges.map(
        ({ network, name, cidr, zone, labels }): Row => [
          network,
          { text: `in ${cidr}`, tone: 'dim' },
          'range',
          { text: name, tone: 'bold' },
          labelsText(labels),
          zone,
        ],
      );
  return [...who.networks.flatMap(networkRows), ...ranges];
}

/** What stands beside the table: how much to believe. */
export function whoNotes(who: Who): string[] {
  const notes: string[] = [];
  const owned = who.networks.some(({ owners }) => owners.length > 0);
  if (!owned) notes.push(`nobody is known to have had ${who.address} at ${who.at}`);
  if (who.networks.some(({ candidates }) => candidates.length > 0))
    notes.push('pods on the network of their node have its address: any of them may be meant');
  if (who.networks.some(({ certainty }) => certainty === 'ambiguous' || certainty === 'grace'))
    notes.push(`clocks are trusted to ${who.toleranceMs} ms; the likeliest comes first`);
  if (who.settled === false)
    notes.push('sources of inventory do not vouch for that moment yet: this may change');
  return notes;
}

export async function who(options: WorkloadOptions): Promise<void> {
  // Without a moment, and for many addresses, the intervals are the answer.
  if (options.at === undefined || options.ip?.includes('/') === true) return workloads(options);
  const { client, screen } = start(options);
  const { ip, network, at, limit } = options;
  const answer = await client.get<Workloads>('/api/v1/workloads', { ip, network, at, limit });
  if (options.json === true) return screen.json(answer);
  if (answer.who === null) return;
  const rows = whoRows(answer.who);
  if (rows.length > 0) screen.table(columns, rows);
  for (const note of whoNotes(answer.who)) screen.note(note);
}
