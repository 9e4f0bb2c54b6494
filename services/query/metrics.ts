/** What the query service counts. */
import { Counter, Histogram, type Registry } from 'prom-client';

export interface QueryMetrics {
  /** Seconds from request to answer, by route, method and status. */
  readonly requestSeconds: Histogram<'route' | 'method' | 'status'>;
  /** Answers of the SQL endpoint that were cut off, by limit. */
  readonly sqlTruncated: Counter<'limit'>;
  /** Queries of the SQL endpoint, by outcome. */
  readonly sqlQueries: Counter<'outcome'>;
}

export function queryMetrics(registry: Registry): QueryMetrics {
  const registers = [registry];
  return {
    requestSeconds: new Histogram({
      name: 'eastwest_query_request_seconds',
      help: 'Seconds from a request to the end of its answer',
      labelNames: ['route', 'method', 'status'],
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers,
    }),
    sqlTruncated: new Counter({
      name: 'eastwest_query_sql_truncated_total',
      help: 'Answers of the SQL endpoint that were cut off',
      labelNames: ['limit'],
      registers,
    }),
    sqlQueries: new Counter({
      name: 'eastwest_query_sql_queries_total',
      help: 'Queries of the SQL endpoint by outcome: done, refused, failed, busy',
      labelNames: ['outcome'],
      registers,
    }),
  };
}
