/** How large blocks may be, so that those of all partitions together stay within the memory that is theirs. */
import type { EnrichConfig } from './config.ts';

/**
 * What a row costs: columns and the message it came in, in a block that grows and in two on their way; there also what was
 * found out about it, and its bytes as one goes to the store.
 */
const bytesPerRow = 900;
/** Smaller blocks cost the store more than they save here. */
const leastRows = 8192;

/** Most rows of a block while this process has so many partitions. */
export function maxBlockRows(
  config: Pick<EnrichConfig, 'maxBlockRows' | 'maxHeldBytes'>,
  partitionCount: number,
  isMemoryTight: boolean,
): number {
  if (isMemoryTight) return Math.min(leastRows, config.maxBlockRows);
  const share = Math.floor(config.maxHeldBytes / (bytesPerRow * Math.max(1, partitionCount)));
  return Math.min(config.maxBlockRows, Math.max(leastRows, share));
}
