/** What a check of `eastwest doctor` says. */

export type FindingStatus = 'ok' | 'warn' | 'fail';

export interface Finding {
  readonly check: string;
  readonly status: FindingStatus;
  /** What was found. */
  readonly detail: string;
  /** What to do; empty when there is nothing to mend. */
  readonly mend: string;
}

export function ok(check: string, detail: string): Finding {
  return { check, status: 'ok', detail, mend: '' };
}

export function warn(check: string, detail: string, mend: string): Finding {
  return { check, status: 'warn', detail, mend };
}

export function fail(check: string, detail: string, mend: string): Finding {
  return { check, status: 'fail', detail, mend };
}

export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return reasonOf(error.errors[0]);
  }
  if (error instanceof Error && error.cause instanceof Error) {
    // What `fetch` throws says nothing itself.
    return error.message === 'fetch failed'
      ? reasonOf(error.cause)
      : `${error.message} (${reasonOf(error.cause)})`;
  }
  return error instanceof Error ? error.message : String(error);
}
