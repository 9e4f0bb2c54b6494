/** The configuration files of the embedded server, as text. */
import { join } from 'node:path';

export interface ServerOptions {
  /** Folder of the server; see `serverPaths`. */
  readonly folder: string;
  readonly httpPort: number;
  readonly tcpPort: number;
  /** Limit of the server's memory. */
  readonly memoryBytes: number;
  /** The database that `reader` may read. */
  readonly database: string;
  /** Threads that merge in the background. */
  readonly mergeThreads: number;
}

/** Days that the server's own log of queries is kept. */
const queryLogDays = 3;
/** What one question of `reader` may take; the server refuses or stops what needs more. */
const readerLimits = {
  max_execution_time: 60,
  max_memory_share: 0.4,
  max_result_rows: 1_000_000,
  max_result_bytes: 512 * 1024 ** 2,
  max_rows_to_read: 5_000_000_000,
  max_bytes_to_read: 200 * 1024 ** 3,
  max_concurrent_queries_for_user: 20,
};

/** Files below the server's folder. */
export function serverPaths(folder: string) {
  return {
    data: join(folder, 'data'),
    log: join(folder, 'log', 'clickhouse.log'),
    errorLog: join(folder, 'log', 'clickhouse-errors.log'),
    config: join(folder, 'config.xml'),
    users: join(folder, 'users.xml'),
    lock: join(folder, 'lock'),
    instance: join(folder, 'instance.json'),
  };
}

function escapeXml(text: string): string {
  return text.replace(/[<>&]/g, (char) => (char === '<' ? '&lt;' : char === '>' ? '&gt;' : '&amp;'));
}

/**
 * Text of config.xml. An insert is on the disk when it is acknowledged, as the offsets of the bus are.
 * Few parts are not worth a merge: it would take the processor from inserts (docs/decisions/010).
 * Of the logs in tables only those named here exist: no trace, metric, text or part log.
 */
export function serverConfig(options: ServerOptions): string {
  const paths = serverPaths(options.folder);
  const cacheBytes = Math.floor(options.memoryBytes / 16);
  return `<clickhouse>
  <logger>
    <log>${escapeXml(paths.log)}</log>
    <errorlog>${escapeXml(paths.errorLog)}</errorlog>
    <size>16M</size>
    <count>3</count>
  </logger>
  <path>${escapeXml(paths.data)}</path>
  <listen_host>127.0.0.1</listen_host>
  <http_port>${options.httpPort}</http_port>
  <tcp_port>${options.tcpPort}</tcp_port>
  <timezone>UTC</timezone>
  <keep_alive_timeout>3</keep_alive_timeout>
  <max_server_memory_usage>${options.memoryBytes}</max_server_memory_usage>
  <mark_cache_size>${cacheBytes}</mark_cache_size>
  <index_mark_cache_size>${cacheBytes}</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <background_pool_size>${options.mergeThreads}</background_pool_size>
  <max_concurrent_queries>100</max_concurrent_queries>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_parts_to_merge_at_once>16</min_parts_to_merge_at_once>
  </merge_tree>
  <user_directories><users_xml><path>${escapeXml(paths.users)}</path></users_xml></user_directories>
  <query_log>
    <database>system</database>
    <table>query_log</table>
    <partition_by>event_date</partition_by>
    <ttl>event_date + INTERVAL ${queryLogDays} DAY DELETE</ttl>
    <flush_interval_milliseconds>10000</flush_interval_milliseconds>
  </query_log>
</clickhouse>
`;
}

/** Text of users.xml: `default` for the program, `reader` for the SQL of people; both from this machine only. */
export function usersConfig(options: ServerOptions): string {
  const { max_memory_share, ...limits } = readerLimits;
  const settings = { ...limits, max_memory_usage: Math.floor(options.memoryBytes * max_memory_share) };
  const lines = Object.entries(settings).map(([name, value]) => `      <${name}>${value}</${name}>`);
  const loopback = '<networks><ip>::1</ip><ip>127.0.0.1</ip></networks>';
  return `<clickhouse>
  <profiles>
    <default>
      <output_format_json_quote_64bit_integers>1</output_format_json_quote_64bit_integers>
    </default>
    <reader>
      <readonly>1</readonly>
      <allow_ddl>0</allow_ddl>
      <allow_introspection_functions>0</allow_introspection_functions>
      <output_format_json_quote_64bit_integers>1</output_format_json_quote_64bit_integers>
      <cancel_http_readonly_queries_on_client_close>1</cancel_http_readonly_queries_on_client_close>
${lines.join('\n')}
    </reader>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      ${loopback}
      <profile>default</profile>
      <quota>default</quota>
    </default>
    <reader>
      <password></password>
      ${loopback}
      <profile>reader</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT ON ${options.database}.*</query>
        <query>GRANT dictGet ON ${options.database}.*</query>
      </grants>
    </reader>
  </users>
</clickhouse>
`;
}
