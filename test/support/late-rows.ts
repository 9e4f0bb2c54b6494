/** Rows of `flows_late` for tests, and their repairs. */

/** A row for `insertRows`. */
export type LateRow = Readonly<Record<string, string | number>>;

export interface LateFlow {
  /** Unix seconds. */
  readonly time: number;
  /** Which of a few sources. */
  readonly source: number;
  /** Id of the workload at both ends; 0 for none. */
  readonly workload: number;
  readonly side: string;
  readonly verdict: string;
  readonly bytes: number;
  readonly certainty: string;
}

/** What a repair finds: another source, another verdict. */
export interface Found {
  readonly found: number;
  readonly judged: string;
  readonly sure: string;
}

/** The first version of a row, pending; `index` tells it from the others of its block. */
export function lateRow(flow: LateFlow, index: number): LateRow {
  return {
    time: flow.time,
    src_ip: `::ffff:10.0.0.${flow.source}`,
    dst_ip: '::ffff:10.0.1.1',
    dst_port: 443,
    protocol: 6,
    src_workload: String(flow.workload),
    dst_workload: String(flow.workload),
    src_identity: String(flow.source + 1),
    dst_identity: '9',
    src_provenance: flow.certainty === 'none' ? 'none' : 'pod',
    src_certainty: flow.certainty,
    dst_provenance: 'pod',
    dst_certainty: 'exact',
    side: flow.side,
    verdict: flow.verdict,
    reason: flow.verdict === 'unexplained' ? 'no-rule' : 'rule',
    connections: 1,
    bytes_forward: String(flow.bytes),
    bytes_reverse: String(flow.bytes * 2),
    packets_forward: '3',
    packets_reverse: '4',
    start_ms: `${flow.time}.500`,
    tolerance_ms: 500,
    network: 'default',
    bus_partition: 0,
    block: '100',
    row: index,
    version: 1,
    sign: 1,
    pending: 1,
  };
}

/** The rows that a repair inserts: what cancels, and what comes instead. */
export function repairOf(row: LateRow, { found, judged, sure }: Found): LateRow[] {
  return [
    { ...row, sign: -1 },
    {
      ...row,
      version: Number(row.version) + 1,
      pending: 0,
      src_identity: String(found + 1),
      src_certainty: sure,
      src_provenance: sure === 'none' ? 'none' : 'pod',
      verdict: judged,
      reason: judged === 'unexplained' ? 'no-rule' : 'rule',
    },
  ];
}
