/** What the errors of kafkajs and of the brokers mean for us. */

/** The group went on without this member, or is about to: what it commits under its old membership is refused. */
const membershipTypes = new Set(['REBALANCE_IN_PROGRESS', 'ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID']);

/** The protocol error type of the error or of what caused it; empty for others (network, time out). */
export function errorType(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('type' in at && typeof at.type === 'string') return at.type;
  }
  return '';
}

export function isMembershipError(error: unknown): boolean {
  return membershipTypes.has(errorType(error));
}

/** The partition that an out-of-range fetch is about. */
export function outOfRange(error: unknown): { topic: string; partition: number } | undefined {
  if (errorType(error) !== 'OFFSET_OUT_OF_RANGE' || !(error instanceof Error)) return undefined;
  if (!('topic' in error) || !('partition' in error)) return undefined;
  return { topic: String(error.topic), partition: Number(error.partition) };
}
