/** Section `store`: where ClickHouse is, how long rows stay, and the embedded server's limits. */
import Type, { type Static } from 'typebox';

/** Longest retention; the end of a row's life must fit into a DateTime, which ends in 2106. */
const retentionLimitDays = 10_000;

export const RetentionConfig = Type.Object(
  {
    rawDays: Type.Integer({
      default: 90,
      minimum: 1,
      maximum: retentionLimitDays,
      description: 'Days that single flows and the ledger of batches are kept.',
    }),
    minuteDays: Type.Integer({
      default: 30,
      minimum: 1,
      maximum: retentionLimitDays,
      description: 'Days that the rollup per minute is kept.',
    }),
    hourDays: Type.Integer({
      default: 400,
      minimum: 1,
      maximum: retentionLimitDays,
      description:
        'Days that the rollup per hour, and first and last time of edges no longer seen, are kept.',
    }),
    denseHours: Type.Integer({
      default: 24,
      minimum: 1,
      maximum: retentionLimitDays * 24,
      description:
        'Age at which single flows are compressed harder, once, in hours: about half the bytes for later merges.',
    }),
  },
  {
    default: {},
    additionalProperties: false,
    description: 'How long rows are kept; applied by `eastwest migrate`.',
  },
);
export type RetentionConfig = Static<typeof RetentionConfig>;

export const ReaderConfig = Type.Object(
  {
    username: Type.String({
      default: 'reader',
      minLength: 1,
      description:
        'ClickHouse user for SQL that people write; it needs a readonly=1 profile and SELECT on the database only.',
    }),
    password: Type.String({ default: '', secret: true, description: 'Password of that user.' }),
  },
  { default: {}, additionalProperties: false, description: 'The user that runs the SQL of people.' },
);
export type ReaderConfig = Static<typeof ReaderConfig>;

export const EmbeddedConfig = Type.Object(
  {
    httpPort: Type.Integer({
      default: 18_123,
      minimum: 0,
      maximum: 65_535,
      description: 'HTTP port of the embedded server on 127.0.0.1; 0 takes a free one.',
    }),
    tcpPort: Type.Integer({
      default: 19_000,
      minimum: 0,
      maximum: 65_535,
      description: 'Native protocol port of the embedded server on 127.0.0.1; 0 takes a free one.',
    }),
    memoryBytes: Type.Integer({
      default: 0,
      minimum: 0,
      description:
        'Memory limit of the embedded server, in bytes; 0 takes the smaller of 4 GiB and 40 % of the machine.',
    }),
  },
  {
    default: {},
    additionalProperties: false,
    description: 'The embedded ClickHouse that `eastwest up` runs.',
  },
);
export type EmbeddedConfig = Static<typeof EmbeddedConfig>;

export const StoreConfig = Type.Object(
  {
    url: Type.String({
      default: '',
      description: 'HTTP address of an own ClickHouse, as http://host:8123; empty takes the embedded server.',
    }),
    database: Type.String({
      default: 'eastwest',
      pattern: '^[A-Za-z_][A-Za-z0-9_]{0,62}$',
      description: 'Database of all tables and views; `eastwest migrate` creates it.',
    }),
    cluster: Type.String({
      default: '',
      pattern: '^[A-Za-z0-9_-]{0,63}$',
      description:
        'Name of the ClickHouse cluster (remote_servers) that the tables are sharded and replicated over; empty: one server.',
    }),
    username: Type.String({
      default: 'default',
      minLength: 1,
      description: 'ClickHouse user that writes and migrates.',
    }),
    password: Type.String({ default: '', secret: true, description: 'Password of that user.' }),
    queryTimeoutMs: Type.Integer({
      default: 60_000,
      minimum: 100,
      maximum: 3_600_000,
      description: 'Longest wait for an answer to a query, in milliseconds.',
    }),
    insertTimeoutMs: Type.Integer({
      default: 120_000,
      minimum: 100,
      maximum: 3_600_000,
      description: 'Longest wait for the acknowledgement of an insert, in milliseconds.',
    }),
    maxOpenConnections: Type.Integer({
      default: 10,
      minimum: 1,
      maximum: 1_000,
      description: 'Most HTTP connections that one process opens to ClickHouse.',
    }),
    reader: ReaderConfig,
    retention: RetentionConfig,
    embedded: EmbeddedConfig,
  },
  {
    default: {},
    additionalProperties: false,
    description: 'ClickHouse: where it is and how long it keeps rows.',
  },
);
export type StoreConfig = Static<typeof StoreConfig>;

/** HTTP address of the server that the section means, without a trailing slash. */
export function storeUrl(config: StoreConfig): string {
  if (config.url !== '') return config.url.replace(/\/+$/, '');
  return `http://127.0.0.1:${config.embedded.httpPort}`;
}
