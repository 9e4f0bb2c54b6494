/** How rows of connections out of single flows become items of an answer. */
import { addressText, type Connection, type DescribedRow, edgeOf, isoOrNull, textOrNull } from './answers.ts';
import { type NamedRow, sightOf } from './evidence.ts';

/** A row as `connectionsSql` and `oneSidedSql` select it. */
export interface ConnectionRow extends DescribedRow, NamedRow {
  readonly first_seen_s: number;
  readonly last_seen_s: number;
  readonly src_workload_id: string;
  readonly dst_workload_id: string;
  readonly dns: string;
  readonly process_name: string;
  readonly service_ip: string;
  readonly service_port: number;
  readonly dropped_count: string;
  readonly ambiguous_count: string;
  readonly late_count: string;
  readonly unnamed_count: string;
}

function serviceAddress(row: ConnectionRow): string | null {
  const address = addressText(row.service_ip);
  if (address === null) return null;
  return address.includes(':') ? `[${address}]:${row.service_port}` : `${address}:${row.service_port}`;
}

/** `names` are those of workloads by id, `watched` the ids of those where an agent reports. */
export function connectionOf(
  row: ConnectionRow,
  names: ReadonlyMap<string, string>,
  watched: ReadonlySet<string>,
): Connection {
  return {
    ...edgeOf(
      row,
      sightOf(
        names,
        row.src_workload_id,
        row.src_address,
        row.src_how,
        row.src_sure,
        watched.has(row.src_workload_id),
      ),
      sightOf(
        names,
        row.dst_workload_id,
        row.dst_address,
        row.dst_how,
        row.dst_sure,
        watched.has(row.dst_workload_id),
      ),
      { dns: textOrNull(row.dns), process: textOrNull(row.process_name) },
    ),
    firstSeen: isoOrNull(row.first_seen_s),
    lastSeen: isoOrNull(row.last_seen_s),
    process: textOrNull(row.process_name),
    serviceAddress: serviceAddress(row),
    dropped: Number(row.dropped_count),
    ambiguous: Number(row.ambiguous_count),
    late: Number(row.late_count),
    unnamed: Number(row.unnamed_count),
  };
}
