/** Section `alert`: what is worth an alert, who is told, and how hard it is tried. */
import Type, { type Static } from 'typebox';

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const dayMs = 24 * 60 * minuteMs;

export const scopes = ['leaves-estate', 'leaves-cluster', 'any'] as const;
export type Scope = (typeof scopes)[number];

export const ReceiverConfig = Type.Object(
  {
    name: Type.String({
      default: '',
      maxLength: 128,
      description: 'What it is called in alerts, logs and metrics; empty: its host and a hash of its URL.',
    }),
    url: Type.String({ pattern: '^https?://', description: 'Where events are posted.' }),
    secret: Type.String({
      pattern: '^whsec_[A-Za-z0-9+/]{32,}={0,2}$',
      secret: true,
      description: 'Key of the signature: whsec_ and 24 or more bytes in base64.',
    }),
    headers: Type.Record(Type.String(), Type.String(), {
      default: {},
      secret: true,
      description: 'Further headers of each request, such as Authorization.',
    }),
  },
  { additionalProperties: false },
);
export type ReceiverConfig = Static<typeof ReceiverConfig>;

export const AlertConfig = Type.Object(
  {
    receivers: Type.Array(ReceiverConfig, {
      default: [],
      maxItems: 100,
      description: 'Who is told; without any, alerts are only kept in the table alerts.',
    }),
    scope: Type.Union(
      scopes.map((scope) => Type.Literal(scope)),
      {
        default: 'leaves-cluster',
        description:
          'Which unexplained connections are alerted: those that leave the estate, those that leave their cluster ' +
          '(which includes leaving the estate), or any.',
      },
    ),
    backfill: Type.Boolean({
      default: false,
      description: 'At the very first start, alert also for what was there before.',
    }),
    pollIntervalMs: Type.Integer({
      default: secondMs,
      minimum: 50,
      maximum: 10 * minuteMs,
      description:
        'How often the store is asked for new edges, ms; less often where an answer takes over a fifth of that.',
    }),
    overlapMs: Type.Integer({
      default: 2 * minuteMs,
      minimum: secondMs,
      maximum: dayMs,
      description: 'How far back the store is asked every 30 s, for inserts that became visible late, ms.',
    }),
    identityWaitMs: Type.Integer({
      default: 5 * secondMs,
      minimum: 0,
      maximum: 8 * secondMs,
      description: 'How long an edge waits for the labels of its ends to arrive, ms.',
    }),
    pendingGraceMs: Type.Integer({
      default: 15 * secondMs,
      minimum: 0,
      maximum: dayMs,
      description:
        'How long an edge that came before its inventory waits until its ends are named for good, ms; after that it is alerted as it is.',
    }),
    maxEdgesPerPoll: Type.Integer({
      default: 10_000,
      minimum: 1,
      maximum: 100_000,
      description: 'Most new edges that are taken at once; more wait for the next question.',
    }),
    maxAlertsPerMinute: Type.Integer({
      default: 60,
      minimum: 1,
      maximum: 10_000,
      description: 'Most edges that get an event of their own; the others of that minute share one summary.',
    }),
    summaryIntervalMs: Type.Integer({
      default: minuteMs,
      minimum: 100,
      maximum: dayMs,
      description: 'Least time between two summaries, ms.',
    }),
    timeoutMs: Type.Integer({
      default: 10 * secondMs,
      minimum: 100,
      maximum: 5 * minuteMs,
      description: 'How long a receiver may take to answer, ms.',
    }),
    retryBaseMs: Type.Integer({
      default: secondMs,
      minimum: 10,
      maximum: minuteMs,
      description: 'Pause before the second try, ms; it doubles from try to try.',
    }),
    maxRetryPauseMs: Type.Integer({
      default: 10 * minuteMs,
      minimum: 100,
      maximum: dayMs,
      description: 'Longest pause between two tries, ms.',
    }),
    maxRetryAgeMs: Type.Integer({
      default: 3 * dayMs,
      minimum: secondMs,
      description: 'How long an event is tried before it counts as failed, ms.',
    }),
    maxQueued: Type.Integer({
      default: 1000,
      minimum: 10,
      maximum: 100_000,
      description: 'Most events that are held in memory for a receiver; the rest waits in the table alerts.',
    }),
    baseUrl: Type.String({
      default: 'http://127.0.0.1:8080',
      description: 'Address of the page and API as the readers of alerts reach it; links begin with it.',
    }),
  },
  { default: {}, additionalProperties: false, description: 'Webhooks for new unexplained connections.' },
);
export type AlertConfig = Static<typeof AlertConfig>;
