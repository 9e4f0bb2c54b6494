/** What routes share: schemas that refuse unknown parameters, and a signal that ends a question nobody waits for. */
import type { FastifyReply } from 'fastify';
import Type, { type Static, type TProperties, type TSchema } from 'typebox';
import { Problem } from '../problem.ts';

/** A closed set of parameters; `patterns` are names that may be anything of a kind. */
export function parameters<P extends TProperties>(
  properties: P,
  patterns: Readonly<Record<string, TSchema>> = {},
) {
  return Type.Object(properties, { additionalProperties: false, patternProperties: patterns });
}

/** The schema of a route: its parameters, its answer, and the errors that any route may give. */
export function routeSchema(options: {
  readonly summary: string;
  readonly description?: string;
  readonly querystring?: TSchema;
  readonly body?: TSchema;
  readonly answer: TSchema;
  readonly tag: string;
}) {
  const { summary, description, querystring, body, answer, tag } = options;
  return {
    summary,
    tags: [tag],
    ...(description === undefined ? {} : { description }),
    ...(querystring === undefined ? {} : { querystring }),
    ...(body === undefined ? {} : { body }),
    response: { 200: answer, 400: Problem, 503: Problem },
  };
}

/** Aborted when the client goes away before the answer is sent. */
export function clientSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new Error('the client went away'));
  });
  return controller.signal;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The setting that `bodyLimit` of the route is; absent where it is fixed. */
    bodyLimitSetting?: string;
  }
}

/** Options of a route: the longest body that it takes, in bytes, and the setting that says so. */
export function bodyLimitOf(bytes: number, setting?: string) {
  return { bodyLimit: bytes, config: setting === undefined ? {} : { bodyLimitSetting: setting } };
}

export type Parameters<S extends TSchema> = { Querystring: Static<S> };
