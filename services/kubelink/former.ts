/** The labels that an entity had before, each set with the moment it ended, so that flows keep the labels of their time. */
import { isDeepStrictEqual } from 'node:util';
import type {
  FormerLabels,
  NamespaceEvent,
  ServiceEvent,
  WorkloadEvent,
} from '../../lib/inventory/events.ts';
import { maxFormerLabels } from '../../schemas/inventory-event.ts';

export type LabelledEvent = WorkloadEvent | ServiceEvent | NamespaceEvent;

/**
 * Former labels of an entity that was published as `known` (`null`: never) and is `event` now, oldest first. A change
 * took effect at `atMs`, or at any time since `knownToMs`; those that ended at or before `horizonMs` are forgotten, and of more than
 * {@link maxFormerLabels} the oldest. Ends rise strictly: a set that was never in effect is none.
 */
export function formerLabels(
  known: LabelledEvent | null,
  event: LabelledEvent,
  atMs: number,
  knownToMs: number,
  horizonMs: number,
): FormerLabels[] {
  const former = [...(known?.former ?? [])];
  if (known !== null && !hasSameLabels(known, event)) {
    const sinceMs = event.type === 'namespace' ? 0 : event.sinceMs;
    // A moment before the last change, or before it began, is no moment at which these labels were in effect.
    const beganMs = Math.max(former.at(-1)?.untilMs ?? 0, sinceMs);
    if (atMs > beganMs) {
      const { labels, annotations } = known;
      const fromMs = Math.max(beganMs, knownToMs);
      former.push({ untilMs: atMs, ...(fromMs < atMs ? { knownToMs: fromMs } : {}), labels, annotations });
    }
  }
  return former.filter(({ untilMs }) => untilMs > horizonMs).slice(-maxFormerLabels);
}

function hasSameLabels(a: LabelledEvent, b: LabelledEvent): boolean {
  return isDeepStrictEqual(a.labels, b.labels) && isDeepStrictEqual(a.annotations, b.annotations);
}
