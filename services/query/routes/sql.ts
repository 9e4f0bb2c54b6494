/** POST /api/v1/sql. */
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply } from 'fastify';
import Type, { type Static } from 'typebox';
import { Completeness, WindowAnswer, windowAnswer } from '../answers.ts';
import type { SqlLimits } from '../config.ts';
import type { RouteContext } from '../context.ts';
import type { QueryMetrics } from '../metrics.ts';
import { toWindow, windowParameters } from '../parameters.ts';
import { contentTypes, rowWriter, type SqlFormat, sqlFormats } from '../people/formats.ts';
import { SqlParameters } from '../people/parameters.ts';
import { checkReadonly, guardSql, runSql, type SqlResult, type SqlServer } from '../people/sql.ts';
import { Problem, ProblemError } from '../problem.ts';
import { bodyLimitOf, clientSignal } from './route.ts';

const SqlBody = Type.Object(
  {
    query: Type.String({
      minLength: 1,
      description: 'One statement of ClickHouse SQL that reads. No FORMAT clause.',
    }),
    params: Type.Optional(SqlParameters),
    ...windowParameters,
    format: Type.Optional(
      Type.Enum([...sqlFormats], { description: `One of ${sqlFormats.join(', ')}; json when absent.` }),
    ),
  },
  { additionalProperties: false },
);

const SqlAnswer = Type.Object(
  {
    columns: Type.Array(
      Type.Object({ name: Type.String(), type: Type.String({ description: 'ClickHouse type.' }) }),
    ),
    rows: Type.Array(Type.Array(Type.Unknown()), {
      description: 'Values in the order of the columns; 64-bit integers as text.',
    }),
    rowCount: Type.Integer(),
    truncated: Type.Boolean({ description: 'Whether a limit cut the answer off.' }),
    truncatedBy: Type.Union([Type.Enum(['rows', 'bytes', 'seconds']), Type.Null()]),
    error: Type.Union([Type.String(), Type.Null()], {
      description: 'What ClickHouse said after the first rows; the rows are not all.',
    }),
    limits: Type.Object({ rows: Type.Integer(), bytes: Type.Integer(), seconds: Type.Integer() }),
    elapsedMs: Type.Number(),
    window: WindowAnswer,
    windowAssumed: Type.Boolean({
      description: 'Whether the request named no time, so that `window` is only the usual one.',
    }),
    completeness: Completeness,
  },
  {
    description:
      'The answer for format json. Other formats say truncation in the trailer Eastwest-Truncated, and window, windowAssumed and completeness in the trailer Eastwest-Completeness (JSON).',
  },
);

/** What is known of the time that a query is about. Which that is nobody can tell from the query: the request may say it. */
type Known = Pick<Static<typeof SqlAnswer>, 'window' | 'windowAssumed' | 'completeness'>;

async function knownOf(
  context: RouteContext,
  body: Static<typeof SqlBody>,
  signal: AbortSignal,
): Promise<Known> {
  const window = toWindow(body, context.clock());
  return {
    window: windowAnswer(window),
    windowAssumed: body.since === undefined && body.until === undefined,
    completeness: await context.completeness(window, signal),
  };
}

/** Whether an answer was cut: the value of the trailer. */
function cutBy(result: SqlResult): string {
  return result.end.error === null ? (result.end.truncatedBy ?? 'no') : 'error';
}

async function* answer(
  result: SqlResult,
  format: SqlFormat,
  limits: SqlLimits,
  startedMs: number,
  known: Known,
): AsyncGenerator<string> {
  const writer = rowWriter(format, result.columns);
  yield writer.head;
  let index = 0;
  for await (const batch of result.rows) yield batch.map((line) => writer.row(line, index++)).join('');
  const { rowCount, truncatedBy, error } = result.end;
  if (format !== 'json') return;
  const tail = {
    rowCount,
    truncated: truncatedBy !== null || error !== null,
    truncatedBy,
    error,
    limits: { rows: limits.maxRows, bytes: limits.maxBytes, seconds: limits.maxSeconds },
    elapsedMs: Math.round((performance.now() - startedMs) * 10) / 10,
    ...known,
  };
  yield `],${JSON.stringify(tail).slice(1)}`;
}

export interface SqlRouteOptions {
  readonly server: SqlServer;
  readonly limits: SqlLimits;
  readonly metrics: QueryMetrics;
  readonly context: RouteContext;
}

/** Counts the queries that run, and refuses one too many. */
function makeGate(limits: SqlLimits, metrics: QueryMetrics): { enter(): () => void } {
  let running = 0;
  return {
    enter() {
      if (running >= limits.maxConcurrent) {
        metrics.sqlQueries.inc({ outcome: 'busy' });
        throw new ProblemError(
          'too-many-queries',
          `${running} queries are running already (query.sql.maxConcurrent)`,
          {
            retryAfterSeconds: 1,
          },
        );
      }
      running++;
      let left = false;
      return () => {
        if (!left) running--;
        left = true;
      };
    },
  };
}

function sendRows(
  reply: FastifyReply,
  result: SqlResult,
  body: Static<typeof SqlBody>,
  options: SqlRouteOptions,
  startedMs: number,
  known: Known,
  leave: () => void,
) {
  const { limits, metrics } = options;
  const format = body.format ?? 'json';
  const stream = Readable.from(answer(result, format, limits, startedMs, known), { objectMode: false });
  stream.once('close', () => {
    leave();
    const { truncatedBy, error } = result.end;
    if (truncatedBy !== null) metrics.sqlTruncated.inc({ limit: truncatedBy });
    metrics.sqlQueries.inc({ outcome: error === null ? 'done' : 'failed' });
  });
  reply.type(contentTypes[format]);
  if (format !== 'json') {
    reply.trailer('eastwest-truncated', async () => cutBy(result));
    reply.trailer('eastwest-completeness', async () => JSON.stringify(known));
  }
  return reply.send(stream);
}

export function sqlRoutes(app: FastifyInstance, options: SqlRouteOptions): void {
  const { server, limits, metrics, context } = options;
  const gate = makeGate(limits, metrics);
  let checked = false;
  const schema = {
    tags: ['sql'],
    summary: 'Ask in SQL',
    description: `Runs as a ClickHouse user that may only read. At most ${limits.maxRows} rows, ${limits.maxBytes} bytes, ${limits.maxSeconds} s. since and until filter nothing: they say which time the query is about, and \`completeness\` is of that time.`,
    body: SqlBody,
    response: { 200: SqlAnswer, 400: Problem, 429: Problem, 503: Problem },
  };
  app.post<{ Body: Static<typeof SqlBody> }>(
    '/api/v1/sql',
    { schema, ...bodyLimitOf(limits.maxQueryBytes, 'query.sql.maxQueryBytes') },
    async (request, reply) => {
      const leave = gate.enter();
      const startedMs = performance.now();
      const signal = clientSignal(reply);
      try {
        if (!checked) await checkReadonly(server, limits, signal);
        checked = true;
        const asked = { query: request.body.query, params: request.body.params ?? {} };
        const [known] = await Promise.all([
          knownOf(context, request.body, signal),
          guardSql(server, asked, limits, signal),
        ]);
        const result = await runSql(server, asked, limits, signal);
        return sendRows(reply, result, request.body, options, startedMs, known, leave);
      } catch (error) {
        leave();
        metrics.sqlQueries.inc({ outcome: 'refused' });
        throw error;
      }
    },
  );
}
