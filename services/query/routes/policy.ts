/** The policy over HTTP: which is in force, which there were, and another one in its place. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import Type, { type Static } from 'typebox';
import type { Bus } from '../../../lib/bus/bus.ts';
import { applyContent, contentOf } from '../../../lib/policy/apply.ts';
import { diffPolicies } from '../../../lib/policy/diff.ts';
import { readPolicy } from '../../../lib/policy/load.ts';
import { policyHistory } from '../../../lib/policy/publish.ts';
import type { PolicyDocument } from '../../../schemas/policy.ts';
import type { QueryConfig } from '../config.ts';
import { Problem, ProblemError } from '../problem.ts';
import { makeWriteAccess } from '../put/access.ts';
import type { WithBus } from './labels.ts';
import { bodyLimitOf, parameters, routeSchema } from './route.ts';

const Change = Type.Object({
  change: Type.Union([Type.Literal('added'), Type.Literal('removed'), Type.Literal('changed')]),
  part: Type.String({
    description: 'label, label-group, profile, ip-list, service, ruleset, rule or boundary',
  }),
  name: Type.String(),
  keys: Type.Array(Type.String(), { description: 'What differs, of what was changed.' }),
});

const Version = Type.Object({
  version: Type.Integer(),
  author: Type.String(),
  from: Type.String({ description: 'Flows that begin then or later are judged by it; ISO 8601.' }),
  changes: Type.Array(Change, {
    description: 'Against the version before; empty for the oldest that is kept.',
  }),
});

const PolicyAnswer = Type.Object({
  version: Type.Integer({ description: '0 before any was applied.' }),
  author: Type.String(),
  from: Type.Union([Type.String(), Type.Null()]),
  policy: Type.Unknown({ description: 'As in a policy file, all files as one.' }),
});

const author = Type.String({ minLength: 1, maxLength: 128, description: 'Who applies it.' });
const dryRun = Type.Optional(Type.Boolean({ description: 'Only tell what would change.' }));
const PutBody = Type.Object(
  {
    author,
    dryRun,
    files: Type.Record(Type.String(), Type.String(), {
      minProperties: 1,
      description: 'The whole policy: YAML by file name. What is not in it is no more.',
    }),
  },
  { additionalProperties: false },
);
const RollbackBody = Type.Object(
  { author, dryRun, version: Type.Integer({ minimum: 1, description: 'An earlier version.' }) },
  { additionalProperties: false },
);

const Applied = Type.Object({
  applied: Type.Boolean({ description: 'False where nothing differs, or for a dry run.' }),
  version: Type.Union([Type.Integer(), Type.Null()], { description: 'The new version.' }),
  from: Type.Union([Type.String(), Type.Null()]),
  changes: Type.Array(Change),
  warnings: Type.Array(
    Type.Object({ file: Type.String(), line: Type.Integer(), at: Type.String(), message: Type.String() }),
  ),
});
type Applied = Static<typeof Applied>;

const iso = (ms: number): string => new Date(ms).toISOString();

export interface PolicyRouteOptions {
  readonly config: QueryConfig;
  /** Absent where there is no bus. */
  readonly withBus: WithBus | undefined;
}

function versionOf(history: readonly PolicyDocument[], version: number): PolicyDocument {
  const found = history.find((document) => document.version === version);
  if (found !== undefined) return found;
  const kept =
    history.length === 0 ? 'there is none' : `${history[0]?.version} to ${history.at(-1)?.version}`;
  throw new ProblemError('not-found', `there is no version ${version} of the policy; kept: ${kept}`);
}

type OnBus = <T>(work: (bus: Bus) => Promise<T>) => Promise<T>;

function makeOnBus(withBus: WithBus | undefined): OnBus {
  return async (work) => {
    if (withBus === undefined) throw new ProblemError('bus-unavailable', 'this process has no bus');
    try {
      return await withBus(work);
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new ProblemError('bus-unavailable', `the policy can't be read or written: ${reason}`, {
        retryAfterSeconds: 2,
      });
    }
  };
}

export function policyRoutes(app: FastifyInstance, options: PolicyRouteOptions): void {
  const onBus = makeOnBus(options.withBus);
  readRoutes(app, onBus);
  writeRoutes(app, onBus, options.config);
}

function readRoutes(app: FastifyInstance, onBus: OnBus): void {
  const one = parameters({
    version: Type.Optional(Type.Integer({ minimum: 1, description: 'The newest when absent.' })),
  });
  app.get<{ Querystring: Static<typeof one> }>(
    '/api/v1/policy',
    {
      schema: routeSchema({
        tag: 'policy',
        summary: 'A policy as a whole',
        querystring: one,
        answer: PolicyAnswer,
      }),
    },
    async (request): Promise<Static<typeof PolicyAnswer>> => {
      const history = await onBus(policyHistory);
      const { version } = request.query;
      const document = version === undefined ? history.at(-1) : versionOf(history, version);
      if (document === undefined) return { version: 0, author: '', from: null, policy: {} };
      return {
        version: document.version,
        author: document.author,
        from: iso(document.appliedMs),
        policy: contentOf(document),
      };
    },
  );

  app.get(
    '/api/v1/policy/versions',
    {
      schema: routeSchema({
        tag: 'policy',
        summary: 'The versions there were, the newest first',
        answer: Type.Object({ versions: Type.Array(Version) }),
      }),
    },
    async (): Promise<{ versions: Static<typeof Version>[] }> => {
      const history = await onBus(policyHistory);
      const versions = history.map((document, i) => {
        const before = history[i - 1];
        const changes = before === undefined ? [] : diffPolicies(contentOf(before), contentOf(document));
        const { version, author: by, appliedMs } = document;
        return {
          version,
          author: by,
          from: iso(appliedMs),
          changes: changes.map((change) => ({ ...change, keys: [...change.keys] })),
        };
      });
      return { versions: versions.toReversed() };
    },
  );
}

function answerOf(
  applied: Awaited<ReturnType<typeof applyContent>>,
  isDry: boolean,
  warnings: Applied['warnings'],
): Applied {
  const isApplied = applied !== null && !isDry;
  return {
    applied: isApplied,
    version: isApplied ? applied.document.version : null,
    from: isApplied ? iso(applied.document.appliedMs) : null,
    changes: (applied?.changes ?? []).map((change) => ({ ...change, keys: [...change.keys] })),
    warnings,
  };
}

function writeRoutes(app: FastifyInstance, onBus: OnBus, config: QueryConfig): void {
  const mayWrite = makeWriteAccess(config);
  const onRequest = async (request: FastifyRequest): Promise<void> => {
    const { remoteAddress = '' } = request.socket;
    mayWrite({ remoteAddress, headers: request.headers });
  };
  const writing = { 401: Problem, 403: Problem, 413: Problem };
  const putSchema = routeSchema({
    tag: 'policy',
    summary: 'Apply a policy as a whole, as the next version',
    description: `A policy with any error in it changes nothing, and the answer names each by file and line. It takes effect on
flows that begin at \`from\` or later. Writing asks for a bearer token of \`query.writeTokens\`; without any configured, this
machine alone may write.`,
    body: PutBody,
    answer: Applied,
  });
  app.put<{ Body: Static<typeof PutBody> }>(
    '/api/v1/policy',
    {
      schema: { ...putSchema, response: { ...putSchema.response, ...writing } },
      onRequest,
      ...bodyLimitOf(config.maxPolicyBytes, 'query.maxPolicyBytes'),
    },
    async ({ body }) => {
      const result = readPolicy(new Map(Object.entries(body.files)));
      if (!result.ok) {
        const problems = result.problems.map(({ file, line, column, at, message }) => ({
          file,
          line,
          column,
          at,
          message,
        }));
        const [first] = problems;
        const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
        throw new ProblemError(
          'bad-body',
          `nothing was applied: ${first?.file}:${first?.line} ${first?.at}: ${first?.message}${more}`,
          { problems },
        );
      }
      const isDry = body.dryRun === true;
      const applied = await onBus((bus) => applyContent(bus, result.policy, body.author, isDry));
      return answerOf(
        applied,
        isDry,
        result.warnings.map(({ file, line, at, message }) => ({ file, line, at, message })),
      );
    },
  );

  const backSchema = routeSchema({
    tag: 'policy',
    summary: 'Apply an earlier version again, as the next one',
    body: RollbackBody,
    answer: Applied,
  });
  app.post<{ Body: Static<typeof RollbackBody> }>(
    '/api/v1/policy/rollback',
    { schema: { ...backSchema, response: { ...backSchema.response, ...writing, 404: Problem } }, onRequest },
    async ({ body }) => {
      const isDry = body.dryRun === true;
      const applied = await onBus(async (bus) => {
        const wanted = versionOf(await policyHistory(bus), body.version);
        return applyContent(bus, contentOf(wanted), body.author, isDry);
      });
      return answerOf(applied, isDry, []);
    },
  );
}
