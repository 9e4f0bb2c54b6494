/** What the faults of a seed aim at: the table of docs/faults.md, and what the runs of the test suite must cover. */
import { drawFaults, type Fault } from './faults.ts';
import { drawCourse } from './harness.ts';

export const aims = {
  'before the plan': (fault: Fault) => fault.what.startsWith('enrich.before-plan'),
  'between plan and insert': (fault: Fault) => /^enrich\.(planned|late-)/.test(fault.what),
  'between insert and commit': (fault: Fault) => /^enrich\.(flows-)?written/.test(fault.what),
  'after the commit': (fault: Fault) => fault.what.startsWith('enrich.committed'),
  'during a repair': (fault: Fault) => /^enrich\.(before-repair|repair)/.test(fault.what),
  'an enricher at any moment': (fault: Fault) =>
    fault.of.startsWith('enrich') && (fault.kind === 'kill' || fault.kind === 'freeze'),
  "during the agent's resend": (fault: Fault) => /^agent\.res/.test(fault.what),
  'agent between answer and note': (fault: Fault) => fault.what.startsWith('agent.delivered'),
  'the agent at any moment': (fault: Fault) => fault.of === 'agent' && fault.kind === 'kill',
  'ingest between append and answer': (fault: Fault) => fault.what.startsWith('ingest.appended'),
  'ingest at any moment': (fault: Fault) =>
    fault.of === 'ingest' && (fault.kind === 'kill' || fault.kind === 'freeze'),
  'answers to the agent lost': (fault: Fault) => fault.kind === 'deaf',
  'the store cut off': (fault: Fault) => fault.kind === 'cut',
  'the store killed': (fault: Fault) => fault.kind === 'store',
  'disk full': (fault: Fault) => fault.kind === 'disk',
  'the broker killed': (fault: Fault) => fault.kind === 'broker',
} satisfies Record<string, (fault: Fault) => boolean>;

const rebalance = 'during a rebalance of two enrichers';
export type Aim = keyof typeof aims | typeof rebalance;
export const aimNames: readonly Aim[] = [...(Object.keys(aims) as (keyof typeof aims)[]), rebalance];

/** `seed` begins with the name of its bus. */
export function aimsOf(seed: string): Aim[] {
  const faults = drawFaults(seed, seed.startsWith('kafka'));
  const enricherDies = faults.some(({ of }) => of.startsWith('enrich'));
  return aimNames.filter((name) =>
    name === rebalance
      ? enricherDies && drawCourse(seed).secondJoinsAtOnce
      : faults.some((fault) => aims[name](fault)),
  );
}
