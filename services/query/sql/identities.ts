/** Labels in SQL: which identities meet a filter, and what an end of a connection is called. */
import type { LabelTerm } from '../filters.ts';
import { allOf, type Bindings } from './bindings.ts';

/** Keys that are columns of their own in `identities`. Its column `zone` is no label: filter by direction for it. */
export const identityColumns = ['app', 'role', 'env', 'loc', 'kind', 'cluster', 'namespace', 'name'] as const;

/** The value of a label key in a row of `identities` (by its alias): a column where there is one, else from the arrays. */
export function labelValue(key: string, bindings: Bindings, alias: string): string {
  const column = identityColumns.find((name) => name === key);
  if (column !== undefined) return `${alias}.${column}`;
  return `${alias}.label_values[indexOf(${alias}.label_keys, ${bindings.bind('String', key)})]`;
}

export function termCondition(term: LabelTerm, bindings: Bindings): string {
  const set = bindings.bind('Array(String)', term.values);
  return `${term.negated ? 'NOT ' : ''}has(${set}, toString(${labelValue(term.key, bindings, 'identities')}))`;
}

/** A subquery of the ids of all identities that meet every term. */
export function identitiesMeeting(terms: readonly LabelTerm[], bindings: Bindings): string {
  return `(SELECT id FROM identities FINAL WHERE ${allOf(terms.map((term) => termCondition(term, bindings)))})`;
}

/** What answers need of an identity. */
const named = `id, toString(kind) AS kind, toString(cluster) AS cluster, toString(namespace) AS namespace, name,
    toString(zone) AS zone, toString(app) AS app, toString(role) AS role, toString(env) AS env, toString(loc) AS loc,
    label_keys, label_values`;

/** The identities, one row each, to be joined on a small result. */
export const identityRows = `(SELECT ${named} FROM identities FINAL)`;

/** Columns of one end after a join with `identityRows AS <alias>`, named `<end>_kind`, `<end>_labels`, ... */
export function endColumns(alias: string, end: 'src' | 'dst'): string {
  const plain = ['kind', 'cluster', 'namespace', 'name', 'zone']
    .map((column) => `${alias}.${column} AS ${end}_${column}`)
    .join(', ');
  return `${plain},
    mapFromArrays(arrayConcat(['app', 'role', 'env', 'loc'], arrayFilter(k -> NOT has(['app', 'role', 'env', 'loc'], k), ${alias}.label_keys)),
      arrayConcat([${alias}.app, ${alias}.role, ${alias}.env, ${alias}.loc],
        arrayFilter((v, k) -> NOT has(['app', 'role', 'env', 'loc'], k), ${alias}.label_values, ${alias}.label_keys))) AS ${end}_labels`;
}
