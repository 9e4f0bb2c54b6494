/** GET /api/v1/alerts. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { isoMsOrNull, listFields, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { encodeCursor } from '../cursor.ts';
import type { Window } from '../filters.ts';
import { pageParameters, toPage, toWindow, windowParameters } from '../parameters.ts';
import { alertsSql } from '../sql/alerts.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const text = (description: string) =>
  Type.Optional(Type.String({ minLength: 1, maxLength: 1024, description }));
const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

function nextOf(window: Window, offset: number, count: number, total: number): string | null {
  return count > 0 && offset + count < total ? encodeCursor({ window, offset: offset + count }) : null;
}

/** JSON as it is meant; the text itself where it is none. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What may have become of an alert; `recorded` is one that nobody was to be told of. */
const alertStates = ['pending', 'delivered', 'failed', 'recorded', 'summarised'] as const;

const AlertsParameters = parameters({
  ...windowParameters,
  state: Type.Optional(Type.Enum([...alertStates], { description: `One of ${alertStates.join(', ')}.` })),
  receiver: text('Receiver, exactly.'),
  ...pageParameters,
});
const Alert = Type.Object({
  id: Type.String({ description: 'Id of the webhook message, the same for every try.' }),
  edge: Type.String(),
  created: nullable('When the edge was found.'),
  state: Type.String(),
  attempts: Type.Integer(),
  lastError: nullable('What the last try said.'),
  receiver: Type.String(),
  payload: Type.Unknown({ description: 'The body of the webhook.' }),
  updated: nullable('When the state last changed.'),
});
const AlertsAnswer = Type.Object({ items: Type.Array(Alert), ...listFields });

interface AlertRow {
  readonly alert_id: string;
  readonly edge_id: string;
  readonly created_ms: string;
  readonly state_name: string;
  readonly attempts: number;
  readonly last_error: string;
  readonly receiver_name: string;
  readonly payload: string;
  readonly updated_ms: string;
  readonly total: string;
}

export function alertRoutes(app: FastifyInstance, context: RouteContext): void {
  const schema = routeSchema({
    tag: 'alerts',
    summary: 'What was said to webhooks, or is still being tried',
    querystring: AlertsParameters,
    answer: AlertsAnswer,
  });
  app.get<{ Querystring: Static<typeof AlertsParameters> }>(
    '/api/v1/alerts',
    { schema },
    async (request, reply) => {
      const { query } = request;
      const { page, window: ofCursor } = toPage(query, context.config.maxLimit);
      const window = ofCursor ?? toWindow(query, context.clock());
      const filter = { window, state: query.state ?? null, receiver: query.receiver ?? null };
      const rows = await context.ask<AlertRow>(alertsSql(filter, page), clientSignal(reply));
      const total = Number(rows[0]?.total ?? page.offset);
      return {
        items: rows.map((row) => ({
          id: row.alert_id,
          edge: row.edge_id,
          created: isoMsOrNull(row.created_ms),
          state: row.state_name,
          attempts: row.attempts,
          lastError: row.last_error === '' ? null : row.last_error,
          receiver: row.receiver_name,
          payload: parsed(row.payload),
          updated: isoMsOrNull(row.updated_ms),
        })),
        total,
        next: nextOf(window, page.offset, rows.length, total),
        window: windowAnswer(window),
      };
    },
  );
}
