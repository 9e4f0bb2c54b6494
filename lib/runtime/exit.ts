/** Exit codes of every command, and the errors that speak to the operator. */

export const exitCodes = {
  ok: 0,
  /** Something failed; a restart may mend it. */
  failure: 1,
  /** Wrong usage or configuration; a restart can't mend it. */
  usage: 2,
  /** The command worked and found what it was asked to look for (to stop a pipeline). */
  findings: 3,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** A state that the operator can mend; the message says how, so no stack is shown. */
export class OperatorError extends Error {
  override readonly name: string = 'OperatorError';
  readonly exitCode: ExitCode;
  constructor(message: string, exitCode: ExitCode = exitCodes.failure) {
    super(message);
    this.exitCode = exitCode;
  }
}
