/** Rows of `flows_late` as columns, so that they are named and judged by the same code as all others. */
import { parseAddress } from '../../lib/net/address.ts';
import { type FlowColumns, makeFlowColumns, TextRefs } from '../../lib/wire/columns.ts';
import type { BatchRows } from './resolve.ts';

/** A row of `flows_late` as the store gives it, all columns; those that naming needs have their types. */
export interface LateRow extends Readonly<Record<string, unknown>> {
  readonly block: string;
  readonly row: number;
  readonly version: number;
  readonly start_ms_epoch: string;
  readonly tolerance_ms: number;
  readonly network: string;
  readonly src_ip: string;
  readonly dst_ip: string;
  readonly dst_port: number;
  readonly protocol: number;
  readonly src_hint: string;
  readonly dst_hint: string;
  readonly dns_name: string;
  readonly process: string;
}

/** Texts that come from no message. */
class OwnTexts {
  readonly refs = new TextRefs();
  readonly #known = new Map<string, number>([['', 0]]);

  index(text: string): number {
    let index = this.#known.get(text);
    if (index === undefined) {
      const bytes = Buffer.from(text, 'utf8');
      index = this.refs.count;
      this.refs.addMessage(bytes);
      this.refs.add(0, bytes.length);
      this.#known.set(text, index);
    }
    return index;
  }
}

/** What naming and judging read of the rows, and the batches they make: one for each run of equal network and tolerance. */
export function columnsOfLate(
  rows: readonly LateRow[],
  networkIndex: (name: string) => number,
): { columns: FlowColumns; batches: BatchRows[] } {
  const texts = new OwnTexts();
  const columns = makeFlowColumns(rows.length, texts.refs);
  columns.count = rows.length;
  const batches: BatchRows[] = [];
  let run: { firstRow: number; rowCount: number; network: number; toleranceMs: number } | null = null;
  rows.forEach((row, i) => {
    columns.startMs[i] = Number(row.start_ms_epoch);
    columns.source.set(parseAddress(row.src_ip) ?? [], i * 16);
    columns.destination.set(parseAddress(row.dst_ip) ?? [], i * 16);
    columns.destinationPort[i] = row.dst_port;
    columns.protocol[i] = row.protocol;
    columns.sourceHint[i] = texts.index(row.src_hint);
    columns.destinationHint[i] = texts.index(row.dst_hint);
    columns.dnsName[i] = texts.index(row.dns_name);
    columns.processName[i] = texts.index(row.process);
    const network = networkIndex(row.network);
    if (run !== null && run.network === network && run.toleranceMs === row.tolerance_ms) run.rowCount++;
    else {
      run = { firstRow: i, rowCount: 1, network, toleranceMs: row.tolerance_ms };
      batches.push(run);
    }
  });
  return { columns, batches };
}
