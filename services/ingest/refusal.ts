/** Why a request is refused: a closed list, each with its status and title, and the problem document (RFC 9457). */
import type { DropCause } from '../../schemas/closed-lists.ts';

export const refusalCauses = [
  'undecodable',
  'unknown-schema',
  'too-many-flows',
  'too-many-batches',
  'bad-value',
  'time-out-of-range',
  'no-token',
  'wrong-token',
  'not-granted',
  'body-too-large',
  'message-too-large',
  'unsupported-type',
  'unsupported-encoding',
  'bad-encoding',
  'no-route',
  'bad-request',
  'too-busy',
  'backlog-full',
  'bus-away',
  'failure',
] as const;
export type RefusalCause = (typeof refusalCauses)[number];

const meanings: Readonly<Record<RefusalCause, { readonly status: number; readonly title: string }>> = {
  undecodable: { status: 400, title: 'The body cannot be read' },
  'unknown-schema': { status: 415, title: 'The schema of the batch is not known' },
  'too-many-flows': { status: 413, title: 'The batch has too many flows' },
  'too-many-batches': { status: 413, title: 'The request has too many batches' },
  'bad-value': { status: 422, title: 'A value is not allowed' },
  'time-out-of-range': { status: 422, title: 'A time is too far from now' },
  'no-token': { status: 401, title: 'A token is needed' },
  'wrong-token': { status: 401, title: 'The token is not known' },
  'not-granted': { status: 403, title: 'The token does not allow this' },
  'body-too-large': { status: 413, title: 'The body is too large' },
  'message-too-large': { status: 413, title: 'The batch is too large for the bus' },
  'unsupported-type': { status: 415, title: 'The content type is not known' },
  'unsupported-encoding': { status: 415, title: 'The content encoding is not known' },
  'bad-encoding': { status: 400, title: 'The body cannot be decompressed' },
  'no-route': { status: 404, title: 'There is nothing here' },
  'bad-request': { status: 400, title: 'The request is broken' },
  'too-busy': { status: 429, title: 'Too much is being taken at once' },
  'backlog-full': { status: 429, title: 'The bus holds all it may' },
  'bus-away': { status: 503, title: 'The bus does not take messages' },
  failure: { status: 500, title: 'Something unexpected went wrong' },
};

export interface FieldError {
  /** Place of the value, such as `flows[17].destinationPort`. */
  readonly path: string;
  readonly message: string;
}

/** Carries a refusal from where it is found to the answer. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
  readonly refusal: RefusalCause;
  readonly fields: readonly FieldError[];

  constructor(refusal: RefusalCause, detail: string, fields: readonly FieldError[] = []) {
    super(detail);
    this.refusal = refusal;
    this.fields = fields;
  }
}

/** A refusal because of what the readers of `lib/wire` found; `prefix` is the place of the batch in the request. */
export function refusedBatch(
  cause: Exclude<DropCause, 'none'>,
  field: string,
  message: string,
  prefix = '',
): RefusedError {
  const path = prefix + field;
  return new RefusedError(cause, `${path} ${message}`, [{ path, message }]);
}

export function statusOf(cause: RefusalCause): number {
  return meanings[cause].status;
}

/** The body of an answer that refuses. */
export function problemDocument(error: RefusedError): Readonly<Record<string, unknown>> {
  const { status, title } = meanings[error.refusal];
  return {
    type: `urn:eastwest:problem:${error.refusal}`,
    title,
    status,
    detail: error.message,
    ...(error.fields.length === 0 ? {} : { errors: error.fields }),
  };
}
