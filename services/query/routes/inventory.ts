/** GET /api/v1/inventory: everything that is there now, as a stream. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import type { InventoryQuestions } from '../inventory-questions.ts';
import { writePresentEvents } from '../inventory-stream.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const InventoryParameters = parameters({
  format: Type.Optional(
    Type.Enum(['json', 'jsonl'], { description: 'json, one object; or jsonl, one event a line.' }),
  ),
});

const InventoryAnswer = Type.Object({
  events: Type.Array(Type.Unknown(), {
    description:
      'The newest event of everything that is there now: schemas/inventory-event.ts. The answer streams; where reading fails, it breaks off.',
  }),
});

export function inventoryRoute(app: FastifyInstance, ask: InventoryQuestions, maxEntities: number): void {
  const schema = routeSchema({
    tag: 'inventory',
    summary: 'Everything that the inventory knows to be there now',
    querystring: InventoryParameters,
    answer: InventoryAnswer,
  });
  app.get<{ Querystring: Static<typeof InventoryParameters> }>(
    '/api/v1/inventory',
    { schema },
    async (request, reply) => {
      const isJson = request.query.format !== 'jsonl';
      const stream = new PassThrough();
      const begun = Promise.withResolvers<void>();
      const put = async (text: string, signal: AbortSignal): Promise<void> => {
        begun.resolve();
        if (!stream.write(text)) await once(stream, 'drain', { signal });
      };
      const done = ask(clientSignal(reply), async (bus, signal) => {
        let isFirst = true;
        await writePresentEvents(bus, maxEntities, signal, async (event) => {
          const before = isFirst ? '{"events":[' : ',';
          isFirst = false;
          await put(isJson ? `${before}${event}` : `${event}\n`, signal);
        });
        if (isJson) await put(isFirst ? '{"events":[]}' : ']}', signal);
        stream.end();
      });
      // The answer breaks off, which its reader sees; whoever sends it looks at the stream itself.
      stream.on('error', () => undefined);
      done.catch((error: unknown) => stream.destroy(error instanceof Error ? error : undefined));
      // Until the first event what goes wrong is a problem document.
      await Promise.race([begun.promise, done]);
      return reply
        .type(isJson ? 'application/json; charset=utf-8' : 'application/x-ndjson; charset=utf-8')
        .send(stream);
    },
  );
}
