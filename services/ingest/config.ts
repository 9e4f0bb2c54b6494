/** Section `ingest`: where the door listens, who may enter, and how much it takes. */
import Type, { type Static } from 'typebox';

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const dayMs = 24 * 60 * minuteMs;
const mib = 1024 * 1024;

/** What the bearer of a token may report. */
export const TokenGrant = Type.Object(
  {
    agents: Type.String({
      default: '*',
      minLength: 1,
      description: 'Agent ids that the bearer may use; * stands for any text.',
    }),
    networks: Type.Array(Type.String(), {
      default: [],
      description: 'Networks that its batches may name; empty: any.',
    }),
    clusters: Type.Array(Type.String(), {
      default: [],
      description: 'Clusters that its batches may name; empty: any.',
    }),
  },
  { default: {}, additionalProperties: false },
);
export type TokenGrant = Static<typeof TokenGrant>;

export const IngestConfig = Type.Object(
  {
    host: Type.String({
      default: '127.0.0.1',
      minLength: 1,
      description: 'Address that flows are taken on.',
    }),
    port: Type.Integer({
      default: 8089,
      minimum: 0,
      maximum: 65_535,
      description: 'TCP port that flows are taken on; 0 takes a free one.',
    }),
    tokens: Type.Record(Type.String({ pattern: '^\\S{16,}$' }), TokenGrant, {
      default: {},
      additionalProperties: false,
      secret: true,
      description: 'Tokens of 16 or more characters without spaces, each with what its bearer may report.',
    }),
    tokensFile: Type.String({
      default: '',
      description: 'YAML file with more tokens, in the form of `tokens`; read again when it changes.',
    }),
    anonymousLoopback: Type.Boolean({
      default: true,
      description: 'While there are no tokens at all, take flows without one from this machine.',
    }),
    maxBodyBytes: Type.Integer({
      default: 4 * mib,
      minimum: 1024,
      description: 'Largest request body as it arrives (compressed), bytes.',
    }),
    maxBatchBytes: Type.Integer({
      default: 8 * mib,
      minimum: 1024,
      maximum: 64 * mib,
      description: 'Largest request body after decompression, bytes.',
    }),
    maxFlowsPerBatch: Type.Integer({
      default: 20_000,
      minimum: 1,
      maximum: 1_000_000,
      description: 'Most flows in one batch.',
    }),
    maxBatchesPerRequest: Type.Integer({
      default: 1000,
      minimum: 1,
      maximum: 100_000,
      description: 'Most batches in one request (container file or JSON list).',
    }),
    maxInFlightBytes: Type.Integer({
      default: 128 * mib,
      minimum: mib,
      description: 'Most bytes of requests held at once; beyond it the answer is 429.',
    }),
    maxBacklogBatches: Type.Integer({
      default: 1_000_000,
      minimum: 1,
      description:
        'Most batches that may wait on the bus for the enrichers; beyond it the answer is 429, and agents keep theirs.',
    }),
    maxAppendWaitMs: Type.Integer({
      default: 5 * secondMs,
      minimum: 10,
      description: 'While the oldest append waits longer for the bus, new requests are answered 503, ms.',
    }),
    appendTimeoutMs: Type.Integer({
      default: 20 * secondMs,
      minimum: 100,
      description: 'How long one request waits for the bus before it is answered 503, ms.',
    }),
    retryAfterS: Type.Integer({
      default: 2,
      minimum: 1,
      maximum: 3600,
      description: 'Retry-After of answers 429 and 503, seconds.',
    }),
    requestTimeoutMs: Type.Integer({
      default: 30 * secondMs,
      minimum: 100,
      description: 'How long a client may take to send a request, ms.',
    }),
    maxClockAheadMs: Type.Integer({
      default: 10 * minuteMs,
      minimum: 0,
      description: 'How far times may lie in the future, ms.',
    }),
    maxAgeMs: Type.Integer({
      default: 7 * dayMs,
      minimum: secondMs,
      description: 'How far times may lie in the past, ms.',
    }),
    deadLetters: Type.Boolean({
      default: true,
      description: 'Copy batches that cannot be read to the topic flows.dead, with the reason.',
    }),
    maxDeadLetterBytes: Type.Integer({
      default: 256 * 1024,
      minimum: 0,
      description: 'How much of such a batch is kept, bytes.',
    }),
    maxDeadLettersPerMinute: Type.Integer({
      default: 60,
      minimum: 1,
      description: 'How many such copies are made a minute; more are only counted.',
    }),
  },
  { default: {}, additionalProperties: false, description: 'The door through which flows come in.' },
);
export type IngestConfig = Static<typeof IngestConfig>;
