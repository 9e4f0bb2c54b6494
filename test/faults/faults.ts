/** Which faults a seed stands for. */
import { Random } from '../../estate/random.ts';

type Victim = 'ingest' | 'enrich-0' | 'enrich-1';

export type Fault = { readonly of: Victim | 'network' | 'store' | 'broker'; readonly what: string } & (
  | { readonly kind: 'failpoint' }
  | { readonly kind: 'kill' | 'freeze'; readonly atMs: number }
  | { readonly kind: 'cut' | 'store' | 'broker'; readonly atMs: number; readonly forMs: number }
);

/** Moments in the life of a block, of a repair and of a request; see `failpoint` in the services. */
const enrichMoments = [
  'enrich.before-plan',
  'enrich.planned',
  'enrich.late-decided',
  'enrich.late-written',
  'enrich.flows-written',
  'enrich.written',
  'enrich.committed',
  'enrich.before-repair',
  'enrich.repair-decided',
  'enrich.repaired',
];

const latestMs = 2800;

function draw(random: Random, hasBroker: boolean): Fault {
  const victim: Victim = random.next() < 0.5 ? 'enrich-0' : 'enrich-1';
  const atMs = random.between(100, latestMs);
  const forMs = random.between(100, 1500);
  const kind = random.below(hasBroker ? 13 : 12);
  if (kind < 5) {
    const moment = enrichMoments[random.below(enrichMoments.length)];
    const action = random.next() < 0.65 ? 'kill' : 'stop';
    return { kind: 'failpoint', of: victim, what: `${moment}=${action}@${random.between(1, 5)}` };
  }
  if (kind < 6)
    return { kind: 'failpoint', of: 'ingest', what: `ingest.appended=kill@${random.between(1, 60)}` };
  if (kind < 7) return { kind: 'kill', of: 'ingest', atMs, what: `killed at ${atMs} ms` };
  if (kind < 8) return { kind: 'kill', of: victim, atMs, what: `killed at ${atMs} ms` };
  if (kind < 10) return { kind: 'freeze', of: victim, atMs, what: `frozen at ${atMs} ms` };
  if (kind < 11)
    return { kind: 'cut', of: 'network', atMs, forMs, what: `store cut off at ${atMs} ms for ${forMs} ms` };
  if (kind < 12)
    return { kind: 'store', of: 'store', atMs, forMs, what: `killed at ${atMs} ms, back after ${forMs} ms` };
  return { kind: 'broker', of: 'broker', atMs, forMs, what: `killed at ${atMs} ms, back after ${forMs} ms` };
}

/** Two to five faults; the store and the broker die at most once in a run. */
export function drawFaults(seed: string, hasBroker: boolean): Fault[] {
  const random = new Random(seed, 'faults');
  const faults: Fault[] = [];
  const wanted = random.between(2, 5);
  while (faults.length < wanted) {
    const fault = draw(random, hasBroker);
    const isRepeated =
      (fault.kind === 'store' || fault.kind === 'broker' || fault.kind === 'cut') &&
      faults.some(({ kind }) => kind === fault.kind);
    if (!isRepeated) faults.push(fault);
  }
  return faults;
}
