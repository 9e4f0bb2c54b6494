/** Who had one address at one moment: intervals around it, pods behind a node, ranges, and what sources vouch for. */
import { Bindings, type Statement } from './bindings.ts';
import { endColumns, identityRows } from './identities.ts';
import { workloadColumns } from './workloads.ts';

export interface Moment {
  /** As IPv6 text. */
  readonly address: string;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  readonly toleranceMs: number;
  /** One network alone, or all. */
  readonly network: string | null;
}

/** Most intervals around the moment that are looked at, in all networks. */
const maxNear = 1_000;
/** Most pods that are listed behind a node. */
const maxCandidates = 500;

function millis(bindings: Bindings, ms: number): string {
  return `fromUnixTimestamp64Milli(toInt64(${bindings.bind('UInt64', String(ms))}))`;
}

/**
 * Intervals of the address: those that touch the moment give or take the tolerance (`near`), and for each network the
 * last before and the first after that. `holds` tells those that hold the moment itself.
 */
export function whoSql(moment: Moment): Statement {
  const bindings = new Bindings();
  const at = millis(bindings, moment.atMs);
  const from = millis(bindings, Math.max(0, moment.atMs - moment.toleranceMs));
  const to = millis(bindings, moment.atMs + moment.toleranceMs);
  const network = moment.network === null ? '' : ` AND network = ${bindings.bind('String', moment.network)}`;
  const rows = `FROM workloads FINAL WHERE ip = ${bindings.bind('IPv6', moment.address)}${network}`;
  const held = `valid_from <= ${at} AND valid_to > ${at}`;
  const part = (name: string, condition: string, order: string): string =>
    `(SELECT '${name}' AS part, ${held} AS holds, * ${rows} AND ${condition} ORDER BY ${order})`;
  const sql = `SELECT ${workloadColumns('w')}, w.part AS part, w.holds AS holds, ${endColumns('s', 'src')}
FROM (
  ${part('near', `valid_from <= ${to} AND valid_to > ${from}`, `holds DESC, valid_from DESC, id LIMIT ${maxNear}`)}
  UNION ALL ${part('before', `valid_to <= ${from}`, 'valid_to DESC, id LIMIT 1 BY network')}
  UNION ALL ${part('after', `valid_from > ${to}`, 'valid_from, id LIMIT 1 BY network')}
) AS w
LEFT JOIN ${identityRows} AS s ON s.id = w.identity
ORDER BY network, part, holds DESC, from_ms DESC, workload_id`;
  return { sql, params: bindings.values };
}

/** A node: its cluster and its name. */
export type NodeName = readonly [cluster: string, name: string];

/** Pods on nodes that shared their addresses at a moment: those that never had one of their own. */
export function sharingPodsSql(nodes: readonly NodeName[], atMs: number): Statement {
  const bindings = new Bindings();
  const at = millis(bindings, atMs);
  const column = (index: 0 | 1): string =>
    bindings.bind(
      'Array(String)',
      nodes.map((node) => node[index]),
    );
  const sql = `SELECT ${workloadColumns('w')}, ${endColumns('s', 'src')}
FROM (
  SELECT * FROM workloads FINAL
  WHERE kind = 'pod' AND ip = toIPv6('::') AND valid_from <= ${at} AND valid_to > ${at}
    AND (toString(cluster), toString(node)) IN (SELECT arrayJoin(arrayZip(${column(0)}, ${column(1)})))
  ORDER BY namespace, name, id LIMIT ${maxCandidates}
) AS w
LEFT JOIN ${identityRows} AS s ON s.id = w.identity
WHERE w.id NOT IN (SELECT id FROM workloads WHERE ip != toIPv6('::') AND kind = 'pod')
ORDER BY namespace, name, workload_id`;
  return { sql, params: bindings.values };
}

/** The narrowest range that holds an address, of each network. */
export function rangesOfSql(address: string, network: string | null): Statement {
  const bindings = new Bindings();
  const ip = bindings.bind('IPv6', address);
  const only = network === null ? '' : ` AND network = ${bindings.bind('String', network)}`;
  const sql = `SELECT r.network AS network, r.name AS name, r.zone AS zone, toString(r.first) AS first_address, r.prefix AS prefix,
  ${endColumns('s', 'src')}
FROM (
  SELECT toString(network) AS network, name, toString(zone) AS zone, first, prefix, identity FROM ranges FINAL
  WHERE removed = 0 AND first <= ${ip} AND last >= ${ip}${only}
  ORDER BY ranges.prefix DESC LIMIT 1 BY network
) AS r
LEFT JOIN ${identityRows} AS s ON s.id = r.identity
ORDER BY network`;
  return { sql, params: bindings.values };
}

/** How far each source of inventory vouches for itself, the furthest behind first. */
export function sourcesSql(): Statement {
  return {
    sql: `SELECT source, toUnixTimestamp64Milli(complete_to) AS complete_ms, toUnixTimestamp64Milli(updated_at) AS heard_ms
FROM inventory_sources FINAL ORDER BY complete_to, source LIMIT 1000`,
    params: {},
  };
}
