/** Which faults a seed stands for. */
import { Random } from '../../estate/random.ts';

type Victim = 'ingest' | 'agent' | 'enrich-0' | 'enrich-1';

/** Kinds of which a run has one at most: each lasts for a while, and two would overlap. */
const lasting = ['cut', 'deaf', 'disk', 'store', 'broker'] as const;
type Lasting = (typeof lasting)[number];

export type Fault = {
  readonly of: Victim | 'network' | 'disk' | 'store' | 'broker';
  readonly what: string;
} & (
  | { readonly kind: 'failpoint' }
  | { readonly kind: 'kill' | 'freeze'; readonly atMs: number }
  | { readonly kind: Lasting; readonly atMs: number; readonly forMs: number }
);

/** Moments in the life of a block, of a repair and of a delivery; see `failpoint` in the services. */
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
const agentMoments = ['agent.resending', 'agent.resent', 'agent.delivered'];

const latestMs = 2800;

interface Draft {
  readonly random: Random;
  readonly enricher: Victim;
  readonly atMs: number;
  readonly forMs: number;
}

const killOrStop = (random: Random): string => (random.next() < 0.65 ? 'kill' : 'stop');
const oneOf = (random: Random, moments: readonly string[]): string =>
  moments[random.below(moments.length)] ?? '';

/** How often each kind comes, and what it is then. */
const kinds: readonly { readonly share: number; readonly make: (draft: Draft) => Fault }[] = [
  {
    share: 6,
    make: ({ random, enricher }) => ({
      kind: 'failpoint',
      of: enricher,
      what: `${oneOf(random, enrichMoments)}=${killOrStop(random)}@${random.between(1, 5)}`,
    }),
  },
  {
    share: 2,
    make: ({ random }) => ({
      kind: 'failpoint',
      of: 'agent',
      what: `${oneOf(random, agentMoments)}=${killOrStop(random)}@${random.between(1, 3)}`,
    }),
  },
  {
    share: 1,
    make: ({ random }) => ({
      kind: 'failpoint',
      of: 'ingest',
      what: `ingest.appended=kill@${random.between(1, 60)}`,
    }),
  },
  { share: 1, make: ({ atMs }) => ({ kind: 'kill', of: 'ingest', atMs, what: `killed at ${atMs} ms` }) },
  { share: 1, make: ({ atMs }) => ({ kind: 'freeze', of: 'ingest', atMs, what: `frozen at ${atMs} ms` }) },
  { share: 1, make: ({ atMs }) => ({ kind: 'kill', of: 'agent', atMs, what: `killed at ${atMs} ms` }) },
  {
    share: 2,
    make: ({ enricher, atMs }) => ({ kind: 'kill', of: enricher, atMs, what: `killed at ${atMs} ms` }),
  },
  {
    share: 2,
    make: ({ enricher, atMs }) => ({ kind: 'freeze', of: enricher, atMs, what: `frozen at ${atMs} ms` }),
  },
  {
    share: 1,
    make: ({ atMs, forMs }) => ({
      kind: 'cut',
      of: 'network',
      atMs,
      forMs,
      what: `store cut off at ${atMs} ms for ${forMs} ms`,
    }),
  },
  {
    share: 2,
    make: ({ atMs, forMs }) => ({
      kind: 'deaf',
      of: 'network',
      atMs,
      forMs,
      what: `answers to the agent lost from ${atMs} ms for ${forMs} ms`,
    }),
  },
  {
    share: 1,
    make: ({ atMs, forMs }) => ({
      kind: 'disk',
      of: 'disk',
      atMs,
      forMs,
      what: `disk of bus and spool full from ${atMs} ms for ${forMs} ms`,
    }),
  },
  {
    share: 1,
    make: ({ atMs, forMs }) => ({
      kind: 'store',
      of: 'store',
      atMs,
      forMs,
      what: `killed at ${atMs} ms, back after ${forMs} ms`,
    }),
  },
];
const brokerDies = {
  share: 1,
  make: ({ atMs, forMs }: Draft): Fault => ({
    kind: 'broker',
    of: 'broker',
    atMs,
    forMs,
    what: `killed at ${atMs} ms, back after ${forMs} ms`,
  }),
};

function draw(random: Random, hasBroker: boolean): Fault {
  const choices = hasBroker ? [...kinds, brokerDies] : kinds;
  const draft = {
    random,
    enricher: random.next() < 0.5 ? ('enrich-0' as const) : ('enrich-1' as const),
    atMs: random.between(100, latestMs),
    forMs: random.between(100, 1500),
  };
  let at = random.below(choices.reduce((sum, { share }) => sum + share, 0));
  for (const { share, make } of choices) {
    if (at < share) return make(draft);
    at -= share;
  }
  throw new Error('the shares add up to more than they are');
}

/** Two to five faults; of those that last for a while one of a kind at most. */
export function drawFaults(seed: string, hasBroker: boolean): Fault[] {
  const random = new Random(seed, 'faults');
  const faults: Fault[] = [];
  const wanted = random.between(2, 5);
  while (faults.length < wanted) {
    const fault = draw(random, hasBroker);
    const isRepeated =
      lasting.some((kind) => kind === fault.kind) && faults.some(({ kind }) => kind === fault.kind);
    if (!isRepeated) faults.push(fault);
  }
  return faults;
}
