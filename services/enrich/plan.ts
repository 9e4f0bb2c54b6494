/**
 * What is committed beside an offset. The plan of a block says which offsets it is made of: it is committed with the
 * unchanged offset before the block is inserted, so that after any crash exactly this range is built again and inserted
 * under the same token. Beside it stands the number of partitions by which the partition's agents are told from others
 * (see home.ts): a range is built again by the number it was built by.
 */
import type { TopicPartition } from '../../lib/bus/bus.ts';

/** Offsets from `from` to `to`, both included. */
export interface Plan {
  readonly from: number;
  readonly to: number;
}

/** Committed metadata, as the enricher writes it. */
export interface Mark {
  /** The block that is on its way; `null`: none. */
  readonly plan: Plan | null;
  /** Number of partitions that the partition's owner reckons with; 0: none ever did. */
  readonly partitionCount: number;
}

export function encodeMark({ plan, partitionCount }: Mark): string {
  return JSON.stringify({ ...(plan === null ? {} : { plan: [plan.from, plan.to] }), of: partitionCount });
}

/** Nothing where the metadata is not ours. */
export function decodeMark(metadata: string): Mark {
  let value: unknown;
  try {
    value = JSON.parse(metadata);
  } catch {
    value = null;
  }
  if (typeof value !== 'object' || value === null) return { plan: null, partitionCount: 0 };
  const partitionCount = 'of' in value && typeof value.of === 'number' ? value.of : 0;
  return { plan: 'plan' in value ? planOf(value.plan) : null, partitionCount };
}

function planOf(value: unknown): Plan | null {
  const [from, to]: unknown[] = Array.isArray(value) ? value : [];
  return typeof from === 'number' && typeof to === 'number' && to >= from ? { from, to } : null;
}

/** The token under which the store takes the block of this range once. */
export function insertToken(at: TopicPartition, plan: Plan): string {
  return `${at.topic}/${at.partition}/${plan.from}-${plan.to}`;
}
