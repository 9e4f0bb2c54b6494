/** What the store says of a run, held against what was sent: every edge and every day, in every table. */
import type { Store } from '../../lib/store/store.ts';
import { type EdgeSum, edgeKey, type Traffic } from './traffic.ts';

const ofRollup = 'sum(flows) AS flows, sum(connections) AS connections, sum(bytes_forward) AS bytes';
const sources = {
  flows_all: 'count() AS flows, sum(connections) AS connections, sum(bytes_forward) AS bytes',
  edges_1m: ofRollup,
  edges_1h: ofRollup,
};

type Sums = Record<'flows' | 'connections' | 'bytes', string>;

const shown = ({ flows, connections, bytes }: Record<keyof EdgeSum, number | string>): string =>
  `${flows} flows, ${connections} connections, ${bytes} bytes`;

/** Differences of what was found from what was sent, both by key. */
function differencesOf(
  table: string,
  found: readonly (Sums & { readonly key: string })[],
  sent: ReadonlyMap<string, EdgeSum>,
): string[] {
  const differences: string[] = [];
  const left = new Map(sent);
  for (const row of found) {
    const wanted = left.get(row.key);
    left.delete(row.key);
    const right = wanted === undefined ? 'nothing' : shown(wanted);
    if (shown(row) !== right) differences.push(`${table} ${row.key}: ${shown(row)}, sent ${right}`);
  }
  for (const [key, sum] of left) differences.push(`${table} ${key}: nothing, sent ${shown(sum)}`);
  return differences;
}

/** Empty when all is right. */
export async function compare(store: Store, traffic: Traffic): Promise<string[]> {
  const differences: string[] = [];
  for (const [table, sums] of Object.entries(sources)) {
    const edges = await store.query<Record<'source' | 'destination' | 'verdict' | 'port', string> & Sums>(
      `SELECT toString(src_identity) AS source, toString(dst_identity) AS destination, verdict, toString(dst_port) AS port, ${sums}
       FROM ${table} GROUP BY source, destination, verdict, port HAVING flows > 0`,
    );
    const byEdge = edges.map((row) => ({
      ...row,
      key: edgeKey(row.source, row.destination, Number(row.port), row.verdict),
    }));
    differences.push(...differencesOf(table, byEdge, traffic.truth));
    const days = await store.query<Sums & { key: string }>(
      `SELECT toString(toDate(time)) AS key, ${sums} FROM ${table} GROUP BY key HAVING flows > 0`,
    );
    differences.push(...differencesOf(table, days, traffic.days));
  }
  const [ledger] = await store.query<{ written: string }>(
    `SELECT sum(flows_written) AS written FROM batches WHERE outcome = 'written'`,
  );
  if (Number(ledger?.written) !== traffic.flowCount)
    differences.push(`the ledger says ${ledger?.written} flows, sent ${traffic.flowCount}`);
  return differences;
}
