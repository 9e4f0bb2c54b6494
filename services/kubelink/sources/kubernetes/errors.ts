/** What a request to an API server can come back with, other than what was asked for. */

/** An answer that is no success, in the server's own words: it names verb, resource and user where something is forbidden. */
export class StatusError extends Error {
  override readonly name = 'StatusError';
  /** HTTP status; that of the error event where a watch ended in one. */
  readonly code: number;
  /** How long the server asks to wait, ms; 0 where it does not say. */
  readonly retryAfterMs: number;
  constructor(code: number, message: string, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The connection as a whole is of no more use; everything on it has ended. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
  /** The server asked for another connection: nothing is wrong. */
  readonly isOrderly: boolean;
  constructor(message: string, isOrderly = false) {
    super(message);
    this.isOrderly = isOrderly;
  }
}

/** Whether the state or the place in a list that the request names is no longer kept. */
export function isExpired(error: unknown): boolean {
  return error instanceof StatusError && error.code === 410;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** The error in the body of an answer, or in an `ERROR` event of a watch. `code` where the body has none. */
export function statusError(body: unknown, code: number, request: string): StatusError {
  const [what] = request.split('?');
  const status = isRecord(body) ? body : {};
  const said = typeof status.message === 'string' && status.message !== '' ? status.message : '';
  const details = isRecord(status.details) ? status.details : {};
  const seconds = typeof details.retryAfterSeconds === 'number' ? details.retryAfterSeconds : 0;
  const actual = typeof status.code === 'number' ? status.code : code;
  return new StatusError(actual, `${what}: ${actual}${said === '' ? '' : ` ${said}`}`, seconds * 1000);
}
