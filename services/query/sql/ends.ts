/** Who may be meant by a word: workloads by name or uid, identities by labels, addresses behind a DNS name, and near names. */
import type { LabelTerm } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';
import { endColumns, identityRows, labelValue, termCondition } from './identities.ts';
import { allFlows } from './plan.ts';
import { workloadColumns } from './workloads.ts';

/** Rows that one word may lead to at most. */
export const maxEndRows = 200;
const maxNearNames = 5;

const millis = (bindings: Bindings, ms: number): string =>
  `fromUnixTimestamp64Milli(toInt64(${bindings.bind('UInt64', String(ms))}))`;

/**
 * Intervals of workloads that a word (name, namespace/name, cluster/namespace/name or uid) means: those that hold the
 * moment, else those nearest to it in time. `holds` tells them apart.
 */
export function workloadsByWordSql(word: string, atMs: number): Statement {
  const bindings = new Bindings();
  const at = millis(bindings, atMs);
  const parts = word.split('/');
  const [name = '', namespace, cluster] = parts.toReversed();
  const terms = [`name = ${bindings.bind('String', name)}`];
  if (namespace !== undefined) terms.push(`namespace = ${bindings.bind('String', namespace)}`);
  if (cluster !== undefined) terms.push(`cluster = ${bindings.bind('String', cluster)}`);
  // The uid of a hand-written manifest may have slashes of its own.
  const named = parts.length > 3 ? '0' : allOf(terms);
  const sql = `SELECT ${workloadColumns('w')}, w.holds AS holds, ${endColumns('s', 'src')}
FROM (
  SELECT *, valid_from <= ${at} AND valid_to > ${at} AS holds,
    least(abs(dateDiff('ms', valid_from, ${at})), abs(dateDiff('ms', valid_to, ${at}))) AS distance
  FROM workloads FINAL WHERE (${named}) OR uid = ${bindings.bind('String', word)}
  ORDER BY holds DESC, distance, id, ip LIMIT ${maxEndRows}
) AS w
LEFT JOIN ${identityRows} AS s ON s.id = w.identity
ORDER BY holds DESC, w.distance, workload_id, address`;
  return { sql, params: bindings.values };
}

/** Identities that meet all terms (the key `identity` asks for the id), those with the most workloads at the moment first. */
export function identitiesByLabelsSql(terms: readonly LabelTerm[], atMs: number): Statement {
  const bindings = new Bindings();
  const at = millis(bindings, atMs);
  const where = terms.map((term) =>
    term.key === 'identity'
      ? `id ${term.negated ? 'NOT ' : ''}IN (SELECT arrayJoin(${bindings.bind('Array(UInt64)', term.values)}))`
      : termCondition(term, bindings),
  );
  const meeting = `(SELECT id FROM identities FINAL WHERE ${allOf(where)})`;
  const sql = `SELECT toString(s.id) AS identity_id, w.workloads AS workload_count, w.ips AS addresses, w.sample AS sample,
  count() OVER () AS total, ${endColumns('s', 'src')}
FROM ${identityRows} AS s
LEFT JOIN (
  SELECT identity, uniqExact(id) AS workloads, arrayMap(one -> toString(one), groupUniqArray(${maxEndRows})(ip)) AS ips, min(name) AS sample
  FROM workloads FINAL WHERE valid_from <= ${at} AND valid_to > ${at} AND identity IN ${meeting}
  GROUP BY identity
) AS w ON w.identity = s.id
WHERE s.id IN ${meeting}
ORDER BY workload_count DESC, identity_id
LIMIT ${maxEndRows}`;
  return { sql, params: bindings.values };
}

/** What flows that asked for a DNS name were named as, the most recent first. */
export function seenUnderNameSql(dnsName: string, fromS: number, toS: number): Statement {
  const bindings = new Bindings();
  const sql = `SELECT toString(f.dst_identity) AS identity_id, toString(f.address) AS address, f.last_s AS last_s, ${endColumns('s', 'src')}
FROM (
  SELECT dst_identity, dst_ip AS address, toUnixTimestamp(max(time)) AS last_s FROM ${allFlows}
  WHERE lower(dns_name) = ${bindings.bind('String', dnsName)} AND time >= toDateTime(${bindings.bind('UInt32', fromS)})
    AND time < toDateTime(${bindings.bind('UInt32', toS)})
  GROUP BY dst_identity, dst_ip ORDER BY last_s DESC LIMIT ${maxEndRows}
) AS f
LEFT JOIN ${identityRows} AS s ON s.id = f.dst_identity
ORDER BY last_s DESC, address`;
  return { sql, params: bindings.values };
}

/** Names of workloads that are spelt like a word, the nearest first. */
export function nearNamesSql(word: string): Statement {
  const bindings = new Bindings();
  const wanted = bindings.bind('String', word.slice(word.lastIndexOf('/') + 1).toLowerCase());
  const sql = `SELECT full_name FROM (
  SELECT DISTINCT name, if(namespace = '', name, concat(namespace, '/', name)) AS full_name FROM workloads WHERE name != ''
)
WHERE position(lower(name), ${wanted}) > 0 OR levenshteinDistance(lower(name), ${wanted}) <= greatest(2, intDiv(length(${wanted}), 3))
ORDER BY startsWith(lower(name), ${wanted}) DESC, levenshteinDistance(lower(name), ${wanted}), full_name LIMIT ${maxNearNames}`;
  return { sql, params: bindings.values };
}

/** Values of a label key that are spelt like one that nobody has. */
export function nearValuesSql(key: string, value: string): Statement {
  const bindings = new Bindings();
  const column = `toString(${labelValue(key, bindings, 'identities')})`;
  const wanted = bindings.bind('String', value.toLowerCase());
  const sql = `SELECT near FROM (SELECT DISTINCT ${column} AS near FROM identities)
WHERE near != '' AND (position(lower(near), ${wanted}) > 0 OR levenshteinDistance(lower(near), ${wanted}) <= greatest(2, intDiv(length(${wanted}), 3)))
ORDER BY levenshteinDistance(lower(near), ${wanted}), near LIMIT ${maxNearNames}`;
  return { sql, params: bindings.values };
}

/** Whether any identity has a value of a label key. */
export function hasValueSql(key: string, values: readonly string[]): Statement {
  const bindings = new Bindings();
  const condition = termCondition({ key, negated: false, values }, bindings);
  return { sql: `SELECT count() AS found FROM identities WHERE ${condition}`, params: bindings.values };
}
