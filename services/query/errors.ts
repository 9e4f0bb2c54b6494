/** Whatever goes wrong in a route, as a problem document. */
import type { FastifyError, FastifyInstance, FastifyRequest, FastifySchemaValidationError } from 'fastify';
import { nearest } from '../../lib/runtime/nearest.ts';
import { StoreRefusedError, StoreUnavailableError } from '../../lib/store/store.ts';
import { ProblemError, problemDocument } from './problem.ts';

interface SchemaNode {
  readonly properties?: Readonly<
    Record<string, { readonly description?: string; readonly enum?: readonly string[] }>
  >;
}

function isSchemaNode(value: unknown): value is SchemaNode {
  return typeof value === 'object' && value !== null;
}

/** Value of a property of something unknown, as text. */
function givenOf(source: unknown, name: string): string {
  if (typeof source !== 'object' || source === null) return '';
  const value = new Map<string, unknown>(Object.entries(source)).get(name);
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** A failed check of a schema, in words that name the parameter and say what is right. */
export function validationProblem(
  failure: FastifySchemaValidationError,
  where: string,
  schema: unknown,
  given: unknown,
): ProblemError {
  const kind = where === 'body' ? 'bad-body' : 'bad-parameter';
  const what = where === 'body' ? 'field' : 'parameter';
  const properties = isSchemaNode(schema) ? (schema.properties ?? {}) : {};
  if (failure.keyword === 'additionalProperties') {
    const name = textOf(failure.params.additionalProperty);
    const near = nearest(name, Object.keys(properties));
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    const expected = `one of ${Object.keys(properties).join(', ')}`;
    return new ProblemError(kind, `there is no ${what} "${name}"${hint}`, { parameter: name, expected });
  }
  if (failure.keyword === 'required') {
    const name = textOf(failure.params.missingProperty);
    const expected = properties[name]?.description ?? 'a value';
    return new ProblemError(kind, `the ${what} "${name}" is missing; expected: ${expected}`, {
      parameter: name,
      expected,
    });
  }
  const name = failure.instancePath.split('/')[1] ?? '';
  if (name === '')
    return new ProblemError(kind, `the ${where} ${failure.message ?? 'is wrong'}; expected a JSON object`);
  const property = properties[name];
  const expected = property?.description ?? failure.message ?? 'something else';
  const value = givenOf(given, name);
  const near = property?.enum === undefined ? undefined : nearest(value, property.enum);
  const hint = near === undefined ? '' : `; did you mean "${near}"?`;
  const said = failure.message ?? 'is wrong';
  return new ProblemError(
    kind,
    `${name} ${JSON.stringify(value.slice(0, 80))} ${said}${hint === '' ? '.' : hint} Expected: ${expected}`,
    {
      parameter: name,
      expected,
    },
  );
}

function schemaOf(schema: unknown, where: string): unknown {
  return typeof schema === 'object' && schema !== null
    ? new Map<string, unknown>(Object.entries(schema)).get(where)
    : undefined;
}

/** What kind of problem an error of fastify itself is. */
function fastifyProblem(error: FastifyError, { routeOptions }: FastifyRequest): ProblemError {
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    const { bodyLimit, config } = routeOptions;
    const setting = config.bodyLimitSetting ?? 'a fixed limit';
    return new ProblemError('too-large', `the body is over ${bodyLimit} bytes (${setting})`);
  }
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return new ProblemError(
      'bad-body',
      `${error.message}; expected a JSON object with content-type application/json`,
    );
  }
  return new ProblemError('internal', 'the log of the query service says more');
}

function asProblem(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  if (error instanceof StoreUnavailableError) {
    return new ProblemError('store-unavailable', `ClickHouse does not answer: ${error.message}`, {
      code: error.code,
      retryAfterSeconds: 2,
    });
  }
  if (error instanceof StoreRefusedError) {
    const hint =
      error.code === 'UNKNOWN_TABLE' || error.code === 'UNKNOWN_DATABASE' ? '; run `eastwest migrate`' : '';
    return new ProblemError('internal', `ClickHouse refused the question: ${error.message}${hint}`, {
      code: error.code,
    });
  }
  return new ProblemError('internal', 'the log of the query service says more');
}

export function handleErrors(app: FastifyInstance): void {
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const failure = error.validation?.[0];
    const where = error.validationContext ?? 'querystring';
    const given = where === 'body' ? request.body : request.query;
    const problem =
      failure !== undefined
        ? validationProblem(failure, where, schemaOf(request.routeOptions.schema, where), given)
        : typeof error.code === 'string' && error.code.startsWith('FST_')
          ? fastifyProblem(error, request)
          : asProblem(error);
    if (problem.kind === 'internal') request.log.error({ err: error }, 'a request failed');
    const { retryAfterSeconds } = problem.extra;
    if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds));
    if (problem.status === 401) reply.header('www-authenticate', 'Bearer realm="eastwest"');
    return reply
      .code(problem.status)
      .type('application/problem+json')
      .send(problemDocument(problem, request.url.split('?')[0] ?? request.url));
  });
  app.setNotFoundHandler((request, reply) => {
    const problem = new ProblemError(
      'not-found',
      `there is no ${request.method} ${request.url.split('?')[0]}; see /openapi.json`,
    );
    return reply
      .code(404)
      .type('application/problem+json')
      .send(problemDocument(problem, request.url.split('?')[0] ?? request.url));
  });
}
