/**
 * The same schema on a cluster: statements of the migrations, written for one server, as a cluster of shards and replicas
 * takes them. What grows with traffic is sharded, as `<table>_local` on each shard behind a Distributed table of the plain
 * name; everything else is whole on every server. Tables are replicated through Keeper, by the macros {shard} and {replica}.
 */

/**
 * Tables with a part on each shard, and what a row's shard depends on. Only what never changes when a block is built again
 * will do: a row that moved to another shard would be lost there or come twice, as each shard knows the token for itself.
 */
const sharded: ReadonlyMap<string, string> = new Map([
  ['flows', 'cityHash64(dst_ip, dst_port)'],
  ['flows_late', 'cityHash64(bus_partition, block)'],
  ['flows_relabel', 'cityHash64(dst_ip, dst_port)'],
  ['flows_relabel_new', 'cityHash64(dst_ip, dst_port)'],
  ['edges_1m', 'cityHash64(dst_identity)'],
  ['edges_1h', 'cityHash64(dst_identity)'],
  ['edges_seen', 'cityHash64(dst_identity)'],
  ['edges_1m_relabel', 'cityHash64(dst_identity)'],
  ['edges_1h_relabel', 'cityHash64(dst_identity)'],
  ['edges_seen_relabel', 'cityHash64(dst_identity)'],
  ['naming_1m', 'cityHash64(time)'],
]);

/** How long Keeper remembers tokens, as long as a bus may keep a block that is written again; s. */
const tokenMemoryS = 30 * 86_400;

/** The name of the table that holds the rows on a server. */
export function storedName(table: string): string {
  return sharded.has(table) ? `${table}_local` : table;
}

/** A path of its own for each table, also when one replaces another of its name; what is whole has one replica per server. */
function replicated(engine: string, table: string): string {
  const place = sharded.has(table)
    ? "'/clickhouse/tables/{uuid}/{shard}', '{replica}'"
    : "'/clickhouse/tables/{uuid}/all', '{shard}-{replica}'";
  return engine
    .replace(/\b(\w*MergeTree)\b(?:\(([^)]*)\))?/, (_whole, name: string, columns: string | undefined) => {
      const more = columns === undefined || columns === '' ? '' : `, ${columns}`;
      return `Replicated${name}(${place}${more})`;
    })
    .replace(
      /non_replicated_deduplication_window = (\d+)/,
      `replicated_deduplication_window = $1, replicated_deduplication_window_seconds = ${tokenMemoryS}`,
    );
}

/** What is read and written under the plain name; made again whenever its columns may have changed. */
function distributed(table: string, cluster: string): string[] {
  const key = sharded.get(table);
  if (key === undefined) return [];
  return [
    `CREATE OR REPLACE TABLE ${table} ON CLUSTER '${cluster}' AS ${table}_local
ENGINE = Distributed('${cluster}', currentDatabase(), '${table}_local', ${key})`,
  ];
}

function createTable(statement: string, cluster: string): string[] | null {
  const found = /^(CREATE (?:OR REPLACE )?TABLE (?:IF NOT EXISTS )?)(\w+)(?: AS (\w+))?([\s\S]*)$/.exec(
    statement,
  );
  if (found === null) return null;
  const [, begin = '', table = '', source, rest = ''] = found;
  const like = source === undefined ? '' : ` AS ${storedName(source)}`;
  const at = rest.search(/\bENGINE\s*=/);
  const body = at < 0 ? rest : rest.slice(0, at) + replicated(rest.slice(at), table);
  return [
    `${begin}${storedName(table)} ON CLUSTER '${cluster}'${like}${body}`,
    ...distributed(table, cluster),
  ];
}

/** Reads and writes what is on the server itself, so that each shard rolls up its own rows. */
function viewBody(body: string): string {
  return body
    .replace(/^ TO (\w+)/, (_whole, table: string) => ` TO ${storedName(table)}`)
    .replace(/\nFROM (\w+) AS raw/, (_whole, table: string) => `\nFROM ${storedName(table)} AS raw`);
}

function alterTable(statement: string, cluster: string): string[] | null {
  const found = /^ALTER TABLE (\w+)([\s\S]*)$/.exec(statement);
  if (found === null) return null;
  const [, table = '', rest = ''] = found;
  if (rest.trimStart().startsWith('MODIFY QUERY'))
    return [`ALTER TABLE ${table} ON CLUSTER '${cluster}'${viewBody(rest)}`];
  // What is whole on every server passes the change on by itself; two servers at once would get in each other's way.
  if (!sharded.has(table)) return [`${statement} SETTINGS alter_sync = 2`];
  return [`ALTER TABLE ${storedName(table)} ON CLUSTER '${cluster}'${rest}`, ...distributed(table, cluster)];
}

/**
 * A statement of a migration as the cluster takes it, which may be several.
 * @throws {RangeError} for a statement that it does not know.
 */
export function forCluster(statement: string, cluster: string): string[] {
  const table = createTable(statement, cluster) ?? alterTable(statement, cluster);
  if (table !== null) return table;
  const view = /^(CREATE MATERIALIZED VIEW IF NOT EXISTS \w+)([\s\S]*)$/.exec(statement);
  if (view !== null) return [`${view[1]} ON CLUSTER '${cluster}'${viewBody(view[2] ?? '')}`];
  const other =
    /^(CREATE OR REPLACE (?:VIEW|DICTIONARY) \w+|CREATE DATABASE IF NOT EXISTS \w+)([\s\S]*)$/.exec(
      statement,
    );
  if (other !== null) return [`${other[1]} ON CLUSTER '${cluster}'${other[2]}`];
  if (/^(RENAME TABLE|DROP VIEW|DROP TABLE) [\w ]+$/.test(statement))
    return [`${statement} ON CLUSTER '${cluster}'`];
  // What is whole on every server passes rows on by itself.
  const insert = /^INSERT INTO (\w+)/.exec(statement)?.[1];
  if (insert !== undefined && !sharded.has(insert)) return [statement];
  throw new RangeError(`no form of this statement for a cluster: ${statement.slice(0, 80)}`);
}
