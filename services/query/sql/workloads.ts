/** Who had which address when. */
import type { AddressSpan, LabelTerm, Page } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { endColumns, identitiesMeeting, identityRows } from './identities.ts';

export interface WorkloadFilter {
  readonly address: AddressSpan | null;
  /** Part of the name, in any case. */
  readonly name: string | null;
  readonly namespace: string | null;
  readonly cluster: string | null;
  readonly kind: string | null;
  readonly network: string | null;
  readonly labels: readonly LabelTerm[];
  /** Milliseconds since the epoch: intervals that hold this moment; `null` is all of them. */
  readonly atMs: number | null;
}

/** Columns of one interval of the table `workloads`, aliased `w`. */
export function workloadColumns(w: string): string {
  return `toString(${w}.id) AS workload_id, toString(${w}.kind) AS workload_kind, toString(${w}.cluster) AS cluster,
  toString(${w}.namespace) AS namespace, ${w}.name AS name, toString(${w}.node) AS node, ${w}.uid AS uid,
  toString(${w}.identity) AS identity_id, toString(${w}.network) AS network, toString(${w}.ip) AS address,
  toUnixTimestamp64Milli(${w}.valid_from) AS from_ms, toUnixTimestamp64Milli(${w}.valid_to) AS to_ms,
  ${w}.valid_to > now64(3) AS is_current`;
}

export function workloadsSql(filter: WorkloadFilter, page: Page): Statement {
  const bindings = new Bindings();
  const where: string[] = [];
  if (filter.address !== null) {
    where.push(
      `ip BETWEEN ${bindings.bind('IPv6', filter.address.first)} AND ${bindings.bind('IPv6', filter.address.last)}`,
    );
  }
  if (filter.name !== null)
    where.push(`positionCaseInsensitive(name, ${bindings.bind('String', filter.name)}) > 0`);
  for (const column of ['namespace', 'cluster', 'kind', 'network'] as const) {
    const value = filter[column];
    if (value !== null) where.push(`${column} = ${bindings.bind('String', value)}`);
  }
  if (filter.labels.length > 0) where.push(`identity IN ${identitiesMeeting(filter.labels, bindings)}`);
  if (filter.atMs !== null) {
    const at = `fromUnixTimestamp64Milli(toInt64(${bindings.bind('UInt64', String(filter.atMs))}))`;
    where.push(`valid_from <= ${at}`, `valid_to > ${at}`);
  }
  const sql = `SELECT ${workloadColumns('w')}, w.total AS total, ${endColumns('s', 'src')}
FROM (
  SELECT *, valid_to > now64(3) AS lasts, count() OVER () AS total
  FROM workloads FINAL
  WHERE ${allOf(where)}
  ORDER BY lasts DESC, valid_from DESC, name, ip, id
  LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}
) AS w
LEFT JOIN ${identityRows} AS s ON s.id = w.identity
ORDER BY is_current DESC, from_ms DESC, name, address, workload_id`;
  return { sql, params: bindings.values };
}

/** Names of workloads by id; at most a few thousand ids at once. */
export function workloadNamesSql(ids: readonly string[]): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(id) AS workload_id, argMax(name, updated_at) AS workload_name, toString(argMax(node, updated_at)) AS node_name
FROM workloads WHERE id IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', ids)})) GROUP BY id`;
  return { sql, params: bindings.values };
}
