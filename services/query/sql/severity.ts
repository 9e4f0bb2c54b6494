/** Direction and severity of a connection: the same words and rules as in the views of schemas/clickhouse/views.sql. */

/** `s`, `d`: aliases of the joined identities. */
export function directionOf(s: string, d: string): string {
  return `multiIf(
      ${d}.zone = 'outside', 'leaves-estate',
      ${s}.zone = 'outside', 'enters-estate',
      ${s}.cluster = ${d}.cluster, 'internal',
      ${s}.cluster != '' AND ${d}.cluster != '', 'cross-cluster',
      'datacentre')`;
}

/** 0..4, the index into the closed list of severities; needs the column `direction`, and `verdict` of `e`. */
export function severityOf(e: string, d: string): string {
  return `multiIf(
      ${e}.verdict != 'unexplained', 0,
      lower(${d}.label_values[indexOf(${d}.label_keys, 'criticality')]) = 'critical', 4,
      direction = 'leaves-estate', 3,
      direction != 'internal', 2,
      1)`;
}
