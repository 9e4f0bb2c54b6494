/** Section `query`: where the page and the API listen, and the limits of what they answer. */
import Type, { type Static } from 'typebox';

export const SqlLimits = Type.Object(
  {
    maxRows: Type.Integer({
      default: 10_000,
      minimum: 1,
      maximum: 1_000_000,
      description: 'Most rows of one answer; more are cut off and the answer says so.',
    }),
    maxBytes: Type.Integer({
      default: 16 * 1024 * 1024,
      minimum: 1024,
      maximum: 512 * 1024 * 1024,
      description: 'Most bytes of one answer; more are cut off and the answer says so.',
    }),
    maxSeconds: Type.Integer({
      default: 30,
      minimum: 1,
      maximum: 600,
      description: 'Longest time that one query may take, in seconds.',
    }),
    maxConcurrent: Type.Integer({
      default: 4,
      minimum: 1,
      maximum: 100,
      description: 'Most queries at once; one more is answered with 429.',
    }),
    maxQueryBytes: Type.Integer({
      default: 256 * 1024,
      minimum: 1024,
      maximum: 1024 * 1024,
      description: 'Longest body of a query, in bytes.',
    }),
  },
  {
    default: {},
    additionalProperties: false,
    description:
      'Limits of POST /api/v1/sql. The memory of a query is limited by the profile of the ClickHouse user `store.reader.username`.',
  },
);
export type SqlLimits = Static<typeof SqlLimits>;

export const PutLimits = Type.Object(
  {
    maxWorkloads: Type.Integer({
      default: 50_000,
      minimum: 1,
      maximum: 1_000_000,
      description: 'Most workloads in one request.',
    }),
    maxBodyBytes: Type.Integer({
      default: 32 * 1024 * 1024,
      minimum: 1024,
      maximum: 256 * 1024 * 1024,
      description: 'Longest body of a request, in bytes.',
    }),
    maxConcurrent: Type.Integer({
      default: 4,
      minimum: 1,
      maximum: 100,
      description: 'Most requests at once; one more is answered with 429.',
    }),
    timeoutMs: Type.Integer({
      default: 20_000,
      minimum: 100,
      maximum: 600_000,
      description: 'How long a request waits for the bus before it is answered with 503, in milliseconds.',
    }),
  },
  { default: {}, additionalProperties: false, description: 'Limits of PUT /api/v1/workloads.' },
);
export type PutLimits = Static<typeof PutLimits>;

export const QueryConfig = Type.Object(
  {
    host: Type.String({
      default: '127.0.0.1',
      minLength: 1,
      description: 'Address on which the page and the API listen.',
    }),
    port: Type.Integer({
      default: 8080,
      minimum: 0,
      maximum: 65_535,
      description: 'TCP port of the page and the API; 0 takes a free one.',
    }),
    defaultSince: Type.String({
      default: '24h',
      pattern: '^\\d{1,9}(s|m|h|d|w)$',
      description: 'How far back answers look when a request names no time.',
    }),
    maxLimit: Type.Integer({
      default: 10_000,
      minimum: 1,
      maximum: 100_000,
      description: 'Most items of one page of an answer.',
    }),
    maxSeconds: Type.Integer({
      default: 30,
      minimum: 1,
      maximum: 600,
      description: 'Longest time that one question to ClickHouse may take, in seconds.',
    }),
    silentAfterSeconds: Type.Integer({
      default: 150,
      minimum: 1,
      maximum: 86_400,
      description:
        'An agent without a batch for this long is called silent, in seconds; keep it above twice `agent.heartbeatMs`.',
    }),
    otherSideSeconds: Type.Integer({
      default: 60,
      minimum: 1,
      maximum: 3_600,
      description:
        'How much further the agent of the other side must have reported, in seconds, before a connection that it does not mention never arrived; keep it above twice `agent.intervalMs`.',
    }),
    sourceSilentAfterSeconds: Type.Integer({
      default: 60,
      minimum: 1,
      maximum: 86_400,
      description:
        'A source of inventory that vouches for nothing newer than this is called silent, in seconds; sources vouch about twice a second.',
    }),
    toleranceMs: Type.Integer({
      default: 1_000,
      minimum: 0,
      maximum: 3_600_000,
      description:
        'How far the clocks of inventory may be off, in milliseconds: who had an address at a moment is sure only where nobody else had it so shortly before or after.',
    }),
    ledgerLookbackHours: Type.Integer({
      default: 24,
      minimum: 1,
      maximum: 2_160,
      description: 'How far before the window the ledger looks for agents and their last batch, in hours.',
    }),
    completenessCacheMs: Type.Integer({
      default: 2_000,
      minimum: 0,
      maximum: 60_000,
      description: 'How long the completeness of a window may be answered from memory, in milliseconds.',
    }),
    maxInventoryEntities: Type.Integer({
      default: 2_000_000,
      minimum: 1,
      maximum: 16_000_000,
      description:
        'Most entities that GET /api/v1/inventory gives; while it answers, it holds the key of each, about 100 bytes.',
    }),
    corsOrigins: Type.Array(Type.String(), {
      default: [],
      description: 'Origins whose pages may read the API, such as https://ops.example.com; none by default.',
    }),
    writeTokens: Type.Array(Type.String({ pattern: '^\\S{16,}$', secret: true }), {
      default: [],
      maxItems: 1000,
      secret: true,
      description:
        'Tokens of 16 or more characters without spaces; who sends one as bearer may write (PUT /api/v1/workloads). While there are none, this machine alone may write, and only if `query.host` is loopback.',
    }),
    maxPolicyBytes: Type.Integer({
      default: 32 * 1024 * 1024,
      minimum: 1024,
      maximum: 256 * 1024 * 1024,
      description:
        'Longest body that holds policies, in bytes: PUT /api/v1/policy, POST /api/v1/drafts and /api/v1/suggestions.',
    }),
    put: PutLimits,
    sql: SqlLimits,
  },
  { default: {}, additionalProperties: false, description: 'The HTTP API and the page.' },
);
export type QueryConfig = Static<typeof QueryConfig>;
