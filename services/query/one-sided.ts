/** Why a side of a connection did not report: whether that is a finding, or has another reason. Plain functions over rows. */
import type { EndSide } from './sql/one-sided.ts';

/** Closed list. Only `not-seen` is a finding. */
export const absences = [
  'not-seen',
  'waiting',
  'incomplete',
  'silent',
  'translated',
  'same-agent',
  'no-agent',
] as const;
export type Absence = (typeof absences)[number];

export const absenceMeanings: Readonly<Record<Absence, string>> = {
  'not-seen': 'an agent there reported past it, lost nothing then, and did not see it',
  waiting: 'the agent there has not reported that far, or a name may still change',
  incomplete: 'the agent there lost reports of that time, began later, or samples',
  silent: 'the agent there sends nothing any more',
  translated: 'the other side reported a like connection under a translated address or an unsure name',
  'same-agent': 'one agent sees both ends, and reports such connections once',
  'no-agent': 'nobody reports there',
};

/** What is known of an agent's reports; times in ms since the epoch. */
export interface Reporter {
  readonly agent: string;
  /** What it saw until then is in the store, but for its hazards. */
  readonly reachedMs: number;
  readonly sampling: boolean;
  /** Spans of which its reports are lost or were never made. */
  readonly hazards: readonly (readonly [fromMs: number, toMs: number])[];
}

/** One end as far as it matters here. */
export interface PairEnd {
  readonly workload: string;
  readonly address: string;
  readonly cluster: string;
  readonly how: string;
  readonly sure: string;
}

/** A connection that one side alone reported. */
export interface OneSided {
  readonly seenBy: EndSide;
  readonly source: PairEnd;
  readonly destination: PairEnd;
  readonly port: number;
  readonly protocol: number;
  /** Times of reports to look at, ms: the first, the last, and one that is long past if there is any. */
  readonly reportsMs: readonly number[];
  /** Whether all its reports may still be named anew. */
  readonly pending: boolean;
  readonly agents: readonly string[];
}

export interface AbsenceLimits {
  /** The other side has reported what it will of a moment when it has reported so much more, ms. */
  readonly slackMs: number;
  /** How far the clocks of both sides may be apart, ms. */
  readonly toleranceMs: number;
  readonly silentAfterMs: number;
  readonly nowMs: number;
}

const isUnsure = ({ sure }: PairEnd): boolean => sure === 'late' || sure === 'ambiguous';

/** Where it could have arrived: the destination of both must be the same for source addresses that were translated. */
function destinationKey({ destination, port, protocol }: OneSided): string {
  const { workload, address } = destination;
  return `${workload === '0' ? address : workload} ${port} ${protocol}`;
}

function sourceKey({ source, protocol }: OneSided): string {
  return `${source.workload === '0' ? source.address : source.workload} ${protocol}`;
}

/**
 * Finds what a one-sided connection may be at its other side: a source that is masqueraded arrives as its node, and who
 * asks a service without seeing the translation arrives at a backend.
 */
export class Counterparts {
  readonly #byDestination = new Map<string, OneSided[]>();
  readonly #bySource = new Map<string, OneSided[]>();

  constructor(all: readonly OneSided[]) {
    for (const one of all) {
      add(this.#byDestination, `${one.seenBy} ${destinationKey(one)}`, one);
      add(this.#bySource, `${one.seenBy} ${sourceKey(one)}`, one);
    }
  }

  /** The likeliest: one whose name may still change before one that is settled. */
  of(one: OneSided): OneSided | null {
    const other: EndSide = one.seenBy === 'source' ? 'destination' : 'source';
    const arrived = (this.#byDestination.get(`${other} ${destinationKey(one)}`) ?? []).filter((candidate) => {
      const [sent, received] = one.seenBy === 'source' ? [one, candidate] : [candidate, one];
      return isMasked(sent.source, received.source);
    });
    const asked = (this.#bySource.get(`${other} ${sourceKey(one)}`) ?? []).filter((candidate) => {
      const sent = one.seenBy === 'source' ? one : candidate;
      return sent.destination.how === 'service' || isUnsure(sent.destination);
    });
    const found = [...arrived, ...asked];
    return found.find(({ pending }) => pending) ?? found[0] ?? null;
  }
}

/** Whether `received` may be the name under which `sent` arrives. */
function isMasked(sent: PairEnd, received: PairEnd): boolean {
  return (
    (received.how === 'node' && received.cluster === sent.cluster) || isUnsure(received) || isUnsure(sent)
  );
}

function add(map: Map<string, OneSided[]>, key: string, one: OneSided): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [one]);
  else list.push(one);
}

/** Whether a reporter has said all that it will say of a moment, and whether it can be trusted to have seen it. */
function standing(
  reporter: Reporter,
  atMs: number,
  { slackMs, toleranceMs }: AbsenceLimits,
): 'reported' | 'incomplete' | 'not-yet' {
  if (reporter.reachedMs < atMs + slackMs) return 'not-yet';
  const lost = reporter.hazards.some(
    ([fromMs, toMs]) => fromMs <= atMs + toleranceMs && toMs >= atMs - toleranceMs,
  );
  return lost || reporter.sampling ? 'incomplete' : 'reported';
}

/** Why the other side did not report; `reporters` are the agents that should have. */
export function absenceOf(
  one: OneSided,
  reporters: readonly Reporter[],
  counterparts: Counterparts,
  limits: AbsenceLimits,
): Absence {
  if (reporters.length === 0) return 'no-agent';
  if (reporters.some(({ agent }) => one.agents.includes(agent))) return 'same-agent';
  if (one.pending) return 'waiting';
  const standings = one.reportsMs.map((atMs) => {
    const each = reporters.map((reporter) => standing(reporter, atMs, limits));
    if (each.includes('incomplete')) return 'incomplete';
    return each.includes('reported') ? 'reported' : 'not-yet';
  });
  if (standings.includes('reported')) {
    const counterpart = counterparts.of(one);
    if (counterpart === null) return 'not-seen';
    return counterpart.pending ? 'waiting' : 'translated';
  }
  if (standings.includes('incomplete')) return 'incomplete';
  const reachedMs = Math.max(...reporters.map((reporter) => reporter.reachedMs));
  return reachedMs < limits.nowMs - limits.silentAfterMs ? 'silent' : 'waiting';
}
