/** PUT /api/v1/workloads. */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { PutRequest } from '../../../schemas/workload-put.ts';
import type { QueryConfig } from '../config.ts';
import { Problem, ProblemError } from '../problem.ts';
import { makeWriteAccess } from '../put/access.ts';
import { checkPut } from '../put/check.ts';
import type { PutWriter } from '../put/writer.ts';
import { bodyLimitOf } from './route.ts';

const PutAnswer = Type.Object({
  request: Type.String({ description: 'Name of this request.' }),
  source: Type.String(),
  put: Type.Integer({ description: 'Workloads that are new, different or confirmed.' }),
  removed: Type.Integer({ description: 'Workloads that were named to be removed.' }),
  replace: Type.Boolean({ description: 'Whether everything else of the source ended.' }),
  until: Type.Union([Type.String(), Type.Null()], {
    description: 'When they end unless they are put again, ISO 8601; null for never.',
  }),
});

export interface PutRouteOptions {
  readonly config: QueryConfig;
  /** Absent where there is no bus to write to. */
  readonly writer: PutWriter | undefined;
  readonly nowMs: () => number;
}

const description = `The workloads are known to the inventory within a second. Putting the same again changes nothing
but the lifetime. A request with anything wrong in it is refused as a whole, and the problem names the field.
Writing asks for a bearer token of \`query.writeTokens\`; without any configured, this machine alone may write.`;

export function putWorkloadsRoute(app: FastifyInstance, options: PutRouteOptions): void {
  const { config, writer, nowMs } = options;
  const { put: limits } = config;
  const mayWrite = makeWriteAccess(config);
  let running = 0;
  const schema = {
    tags: ['inventory'],
    summary: 'Say who has which address: VMs and bare metal of a CMDB or a cloud',
    description,
    body: PutRequest,
    response: {
      202: PutAnswer,
      400: Problem,
      401: Problem,
      403: Problem,
      413: Problem,
      429: Problem,
      503: Problem,
    },
  };
  app.put(
    '/api/v1/workloads',
    {
      schema,
      ...bodyLimitOf(limits.maxBodyBytes, 'query.put.maxBodyBytes'),
      // Our own check names fields inside of entries; the schema is for readers.
      validatorCompiler: () => () => true,
      onRequest: async (request, reply) => {
        const { remoteAddress = '' } = request.socket;
        mayWrite({ remoteAddress, headers: request.headers });
        if (running >= limits.maxConcurrent) {
          throw new ProblemError(
            'too-many-puts',
            `${running} requests are under way already (query.put.maxConcurrent)`,
            { retryAfterSeconds: 1 },
          );
        }
        running++;
        reply.raw.once('close', () => running--);
      },
    },
    async (request, reply) => {
      const id = randomUUID();
      const checked = checkPut(request.body, limits, id, nowMs());
      if (writer === undefined) throw new ProblemError('bus-unavailable', 'this process has no bus');
      await writer.append(checked.messages);
      const answer: Static<typeof PutAnswer> = {
        request: id,
        source: checked.source,
        put: checked.putCount,
        removed: checked.removedCount,
        replace: checked.isReplacing,
        until: checked.untilMs === null ? null : new Date(checked.untilMs).toISOString(),
      };
      return reply.code(202).send(answer);
    },
  );
}
