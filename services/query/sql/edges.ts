/** Edges: who talks to whom, merged over sides, labelled, sorted, paged. */
import type { FlowFilter, Page } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { labelledConditions, rowConditions } from './conditions.ts';
import { endColumns, identityRows } from './identities.ts';
import { type EdgePlan, mergedEdges } from './plan.ts';
import { directionOf, severityOf } from './severity.ts';

export const edgeSorts = ['connections', 'bytes', 'flows', 'severity', 'port'] as const;
export type EdgeSort = (typeof edgeSorts)[number];
export const orders = ['desc', 'asc'] as const;
export type Order = (typeof orders)[number];

export const bytesOf = 'c_bytes_forward + c_bytes_reverse';

/** Columns of one labelled edge, as `described` selects them. */
export function describedColumns(e: string): string {
  return `toString(${e}.src_identity) AS src_identity_id, toString(${e}.dst_identity) AS dst_identity_id,
    toString(${e}.src_ip) AS src_address, toString(${e}.dst_ip) AS dst_address, ${e}.dst_port AS port,
    ${e}.protocol AS protocol_number, toString(${e}.verdict) AS verdict_name, toString(${e}.reason) AS reason_name,
    toString(${e}.rule) AS rule_id,
    ${endColumns('s', 'src')},
    ${endColumns('d', 'dst')},
    ${directionOf('s', 'd')} AS direction,
    ${severityOf(e, 'd')} AS severity`;
}

/** The merged sums of one edge. */
export function summedColumns(e: string): string {
  const named = [
    'flows',
    'pending',
    'connections',
    'bytes_forward',
    'bytes_reverse',
    'packets_forward',
    'packets_reverse',
  ];
  return `${named.map((name) => `${e}.c_${name} AS c_${name}`).join(', ')}, ${e}.sides AS sides`;
}

/** Joins both ends of `e` with their identities. */
export function joinEnds(e: string): string {
  return `LEFT JOIN ${identityRows} AS s ON s.id = ${e}.src_identity
  LEFT JOIN ${identityRows} AS d ON d.id = ${e}.dst_identity`;
}

/** Name of a rule by id, of its newest version. */
export const ruleNames = `(SELECT id AS rule_key, argMax(ruleset, policy) AS ruleset_name, argMax(name, policy) AS rule_name FROM rules GROUP BY id)`;

const sortColumns: Readonly<Record<EdgeSort, string>> = {
  connections: 'c_connections',
  bytes: bytesOf,
  flows: 'c_flows',
  severity: 'severity',
  port: 'port',
};

/** Keys that make an order total, so that pages don't overlap. */
export const tieBreak =
  'port, src_identity_id, dst_identity_id, src_address, dst_address, protocol_number, verdict_name, reason_name, rule_id';

/** The same before columns are described. */
const keyOrder = 'dst_port, src_identity, dst_identity, src_ip, dst_ip, protocol, verdict, reason, rule';

export function edgesSql(
  filter: FlowFilter,
  plan: EdgePlan,
  page: Page & { readonly sort: EdgeSort; readonly order: Order },
): Statement {
  const bindings = new Bindings();
  const way = page.order === 'desc' ? 'DESC' : 'ASC';
  const merged = mergedEdges(plan, rowConditions(filter, bindings), bindings);
  const labelled = labelledConditions(filter, bindings);
  const limit = `LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  const describe = (e: string, more: string): string => `SELECT ${describedColumns('e')},
    r.ruleset_name AS ruleset_name, r.rule_name AS rule_name, ${summedColumns('e')}, e.c_last_s AS last_seen_s${more}
  FROM (${e}) AS e
  ${joinEnds('e')}
  LEFT JOIN ${ruleNames} AS r ON r.rule_key = e.rule`;
  // Where labels neither choose nor sort, only what the page shows is labelled.
  if (labelled.length === 0 && page.sort !== 'severity') {
    const first = page.sort === 'port' ? 'dst_port' : sortColumns[page.sort];
    const shown = `SELECT *, count() OVER () AS total FROM (${merged})
  ORDER BY ${first} ${way}, ${keyOrder} ${limit}`;
    const sql = `${describe(shown, ', e.total AS total')}
ORDER BY ${sortColumns[page.sort]} ${way}, ${keyOrder
      .split(', ')
      .map((column) => `e.${column}`)
      .join(', ')}`;
    return { sql, params: bindings.values };
  }
  const sql = `SELECT *, count() OVER () AS total
FROM (${describe(merged, '')})
WHERE ${allOf(labelled)}
ORDER BY ${sortColumns[page.sort]} ${way}, ${tieBreak}
${limit}`;
  return { sql, params: bindings.values };
}
