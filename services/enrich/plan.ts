/**
 * The plan of a block: which offsets it is made of. It is committed as metadata of the unchanged offset before the block
 * is inserted, so that after any crash exactly this range is built again and inserted under the same token.
 */
import type { TopicPartition } from '../../lib/bus/bus.ts';

/** Offsets from `from` to `to`, both included. */
export interface Plan {
  readonly from: number;
  readonly to: number;
}

export function encodePlan(plan: Plan): string {
  return JSON.stringify({ plan: [plan.from, plan.to] });
}

/** The plan in committed metadata; `null` where there is none (or it is not ours). */
export function decodePlan(metadata: string): Plan | null {
  if (metadata === '') return null;
  let value: unknown;
  try {
    value = JSON.parse(metadata);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('plan' in value) || !Array.isArray(value.plan))
    return null;
  const [from, to]: unknown[] = value.plan;
  if (typeof from !== 'number' || typeof to !== 'number' || !(to >= from)) return null;
  return { from, to };
}

/** The token under which the store takes the block of this range once. */
export function insertToken(at: TopicPartition, plan: Plan): string {
  return `${at.topic}/${at.partition}/${plan.from}-${plan.to}`;
}
