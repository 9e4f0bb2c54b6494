/** Problem documents (RFC 9457): every error of the API. */
import Type, { type Static } from 'typebox';

export const problemKinds = [
  'bad-parameter',
  'bad-body',
  'bad-query',
  'no-token',
  'forbidden',
  'not-found',
  'too-large',
  'too-many-queries',
  'too-many-puts',
  'store-unavailable',
  'sql-unavailable',
  'bus-unavailable',
  'internal',
] as const;
export type ProblemKind = (typeof problemKinds)[number];

export const Problem = Type.Object(
  {
    type: Type.String({ description: `urn:eastwest:problem: and one of ${problemKinds.join(', ')}` }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'What was wrong, and what is right.' }),
    instance: Type.String({ description: 'The path that was asked for.' }),
    parameter: Type.Optional(Type.String({ description: 'The parameter or field that was wrong.' })),
    expected: Type.Optional(Type.String({ description: 'What the parameter takes.' })),
    code: Type.Optional(Type.String({ description: 'Name of the error in ClickHouse.' })),
    problems: Type.Optional(
      Type.Array(
        Type.Object({
          file: Type.String(),
          line: Type.Integer({ description: 'From 1; 0 for the whole file.' }),
          column: Type.Integer(),
          at: Type.String({ description: 'Place in the document: rulesets[0].rules[2].to' }),
          message: Type.String(),
        }),
        { description: 'Everything that is wrong with files that were sent.' },
      ),
    ),
  },
  { $id: 'Problem', description: 'An error as RFC 9457 describes it.' },
);
export type Problem = Static<typeof Problem>;

const titles: Readonly<Record<ProblemKind, readonly [status: number, title: string]>> = {
  'bad-parameter': [400, 'A parameter is wrong'],
  'bad-body': [400, 'The body is wrong'],
  'bad-query': [400, 'ClickHouse refused the query'],
  'no-token': [401, 'A token is needed'],
  forbidden: [403, 'Writing is not allowed'],
  'not-found': [404, 'There is no such page'],
  'too-large': [413, 'That is too large'],
  'too-many-queries': [429, 'Too many queries at once'],
  'too-many-puts': [429, 'Too many requests at once'],
  'store-unavailable': [503, 'ClickHouse does not answer'],
  'sql-unavailable': [503, 'SQL is not offered'],
  'bus-unavailable': [503, 'The bus does not take it'],
  internal: [500, 'Something went wrong here'],
};

export interface ProblemExtra {
  readonly parameter?: string;
  readonly expected?: string;
  readonly code?: string;
  readonly problems?: Problem['problems'];
  /** Seconds for Retry-After. */
  readonly retryAfterSeconds?: number;
}

/** Thrown by routes; the error handler turns it into its document. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly kind: ProblemKind;
  readonly extra: ProblemExtra;
  constructor(kind: ProblemKind, detail: string, extra: ProblemExtra = {}) {
    super(detail);
    this.kind = kind;
    this.extra = extra;
  }
  get status(): number {
    return titles[this.kind][0];
  }
}

/** A parameter that can't be used. */
export function badParameter(parameter: string, given: string, expected: string, hint = ''): ProblemError {
  const shown = given.length > 80 ? `${given.slice(0, 77)}...` : given;
  return new ProblemError('bad-parameter', `${parameter} is "${shown}"${hint}; expected ${expected}`, {
    parameter,
    expected,
  });
}

export function problemDocument(error: ProblemError, instance: string): Problem {
  const [status, title] = titles[error.kind];
  const { parameter, expected, code, problems } = error.extra;
  return {
    type: `urn:eastwest:problem:${error.kind}`,
    title,
    status,
    detail: error.message,
    instance,
    ...(parameter === undefined ? {} : { parameter }),
    ...(expected === undefined ? {} : { expected }),
    ...(code === undefined ? {} : { code }),
    ...(problems === undefined ? {} : { problems }),
  };
}
