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
    const last = former.at(-1);
    const beganMs = Math.max(last?.untilMs ?? 0, sinceMs);
    const { labels, annotations } = known;
    if (last !== undefined && atMs <= last.untilMs) {
      const middleMs = middleOfDoubt(last);
      if (middleMs !== null) {
        const { untilMs } = last;
        former.splice(
          -1,
          1,
          { ...last, untilMs: middleMs },
          { untilMs, knownToMs: middleMs, labels, annotations },
        );
      }
    } else if (atMs > beganMs) {
      const fromMs = Math.max(beganMs, knownToMs);
      former.push({ untilMs: atMs, ...(fromMs < atMs ? { knownToMs: fromMs } : {}), labels, annotations });
    }
  }
  return former.filter(({ untilMs }) => untilMs > horizonMs).slice(-maxFormerLabels);
}

/**
 * Where labels that were in effect between this change and a next one at the same time can stand, ms: in the time in which
 * this change is not known exactly. `null` where there is no room.
 */
function middleOfDoubt({ untilMs, knownToMs = untilMs }: FormerLabels): number | null {
  const middleMs = Math.ceil((knownToMs + untilMs) / 2);
  return knownToMs < middleMs && middleMs < untilMs ? middleMs : null;
}

/** Whether something went without anything in its place: of that an API server keeps no note. */
export function losesLabels(before: LabelledEvent, after: LabelledEvent): boolean {
  return (
    Object.keys(before.labels).some((key) => !(key in after.labels)) ||
    Object.keys(before.annotations).some((key) => !(key in after.annotations))
  );
}

function hasSameLabels(a: LabelledEvent, b: LabelledEvent): boolean {
  return isDeepStrictEqual(a.labels, b.labels) && isDeepStrictEqual(a.annotations, b.annotations);
}
