/** Gives stored flows the labels that the present profiles give, and the verdicts that follow. */
import type { Bus } from '../bus/bus.ts';
import type { Store } from '../store/store.ts';
import { type DayResult, finishDay, relabelDay, tryDay } from './day.ts';
import { EndNamer } from './ends.ts';
import { type LateResult, relabelLate } from './late.ts';
import { Mapping } from './mapping.ts';
import { closeLeft, openRun, type Run } from './runs.ts';
import { type CoverageRow, type Given, killLeftovers } from './sql.ts';
import { readWorld } from './world.ts';

/** Times that days are gone through again for flows that came meanwhile with labels of an older policy. */
const maxPasses = 3;

export interface Share {
  readonly flows: number;
  readonly connections: number;
  readonly bytes: number;
}

export interface Coverage {
  readonly all: Share;
  /** What rules speak of. */
  readonly explained: Share;
}

export interface RelabelResult {
  readonly dryRun: boolean;
  readonly policy: number;
  readonly days: readonly { readonly day: number; readonly flows: number; readonly changed: number }[];
  /** The same of flows that were written before their inventory was complete. */
  readonly late: LateResult;
  readonly flows: number;
  readonly changed: number;
  /** Flows with an end that the inventory no longer knows: it keeps its labels. */
  readonly unknown: number;
  readonly before: Coverage;
  readonly after: Coverage;
  /** Flows that still have labels of an older policy, as enrichers wrote them meanwhile. */
  readonly left: number;
}

export interface RelabelOptions {
  readonly bus: Bus;
  /** Its timeouts have to allow for statements that work on millions of rows. */
  readonly store: Store;
  /** Seconds since the epoch. */
  readonly since: number;
  readonly dryRun: boolean;
  /** Told in words how far it is. */
  readonly onProgress: (text: string) => void;
}

/** No policy is in force: there is nothing to relabel by. */
export class NoPolicyError extends Error {
  override readonly name = 'NoPolicyError';
}

function share(rows: readonly CoverageRow[]): Share {
  const sum = (key: 'flows' | 'connections' | 'bytes'): number =>
    rows.reduce((total, row) => total + Number(row[key]), 0);
  return { flows: sum('flows'), connections: sum('connections'), bytes: sum('bytes') };
}

function coverage(rows: readonly CoverageRow[]): Coverage {
  return { all: share(rows), explained: share(rows.filter(({ verdict }) => verdict !== 'unexplained')) };
}

/** Days with flows from `since` on, the newest first; of `older`, those that have flows of an older policy. */
async function daysOf(store: Store, { since, policy }: Given, older: boolean): Promise<number[]> {
  const rows = await store.query<{ day: number }>(
    `SELECT DISTINCT toYYYYMMDD(time) AS day FROM flows
     WHERE time >= toDateTime({since:UInt32}, 'UTC') ${older ? 'AND policy < {policy:UInt32}' : ''} ORDER BY day DESC`,
    { since, policy },
  );
  return rows.map(({ day }) => day);
}

async function countOlder(store: Store, { since, policy }: Given): Promise<number> {
  const [row] = await store.query<{ count: string }>(
    `SELECT count() AS count FROM flows_all
     WHERE time >= toDateTime({since:UInt32}, 'UTC') AND policy < {policy:UInt32} AND pending = 0`,
    { since, policy },
  );
  return Number(row?.count ?? 0);
}

function dayText(day: number): string {
  const text = String(day);
  return `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}`;
}

/** Finishes what runs that died left behind. */
async function finishLeft(
  store: Store,
  left: Awaited<ReturnType<typeof openRun>>['left'],
  say: (text: string) => void,
) {
  if (left.length === 0) return;
  await store.command(killLeftovers);
  for (const one of left) {
    if (one.day !== 0) say(`${dayText(one.day)}: finishing what an interrupted run had begun`);
    await finishDay(store, one);
    await closeLeft(store, one);
  }
}

/**
 * Relabels from `since` on; see docs/relabel.md. What is interrupted, in whatever way, is finished by the next call.
 * @throws {NoPolicyError}
 * @throws {import('./runs.ts').BusyError} while another run is at work
 * @throws {import('./day.ts').TotalsError} when sums would not stay the same, which changes nothing
 */
export async function relabel(options: RelabelOptions): Promise<RelabelResult> {
  const { bus, store, since, dryRun, onProgress } = options;
  const world = await readWorld(bus);
  if (world === null) throw new NoPolicyError('no policy is in force');
  const { version } = world.policy;
  const { run, left } = await openRun(store, since, version, () =>
    onProgress('an interrupted run is being waited for: it may still be alive'),
  );
  try {
    await finishLeft(store, left, onProgress);
    const given: Given = { since, policy: version, hasBlocks: world.engine.hasBlocks };
    const namer = new EndNamer(world.inventory);
    const mapping = new Mapping(store, world, namer, given);
    const days = await workThrough({ store, mapping, given, run }, options);
    onProgress('late flows');
    const late = await relabelLate({ store, mapping, namer, given, runId: run.id, dryRun });
    const result = summarize(days, late, {
      dryRun,
      policy: version,
      left: dryRun ? 0 : await countOlder(store, given),
    });
    await run.close('done');
    return result;
  } catch (error) {
    // A day that is taken has to be given back by whoever comes next.
    if (run.holdsDay) run.abandon();
    else await run.close('failed', String(error)).catch(() => run.abandon());
    throw error;
  }
}

async function workThrough(
  parts: { store: Store; mapping: Mapping; given: Given; run: Run },
  { dryRun, onProgress }: RelabelOptions,
): Promise<DayResult[]> {
  const { store, given, run } = parts;
  const results = new Map<number, DayResult>();
  for (let pass = 0; pass < maxPasses; pass++) {
    const days = await daysOf(store, given, pass > 0);
    if (days.length === 0 || (dryRun && pass > 0)) break;
    for (const [i, day] of days.entries()) {
      onProgress(`${dayText(day)}: day ${i + 1} of ${days.length}`);
      const result = await (dryRun ? tryDay(parts, day) : relabelDay(parts, day));
      // Later passes find more flows, and what they changed; before and after are to be of the same flows.
      const first = results.get(day);
      results.set(day, first === undefined ? result : { ...first, changed: first.changed + result.changed });
      const all = [...results.values()];
      await run.note({
        flows: all.reduce((sum, { flows }) => sum + flows, 0),
        changed: all.reduce((sum, { changed }) => sum + changed, 0),
      });
      onProgress(
        `${dayText(day)}: ${result.flows} flows, ${result.changed} ${dryRun ? 'would change' : 'changed'}`,
      );
    }
  }
  return [...results.values()];
}

function summarize(
  days: readonly DayResult[],
  late: LateResult,
  rest: Pick<RelabelResult, 'dryRun' | 'policy' | 'left'>,
): RelabelResult {
  const sum = (pick: (day: DayResult) => number): number => days.reduce((total, day) => total + pick(day), 0);
  return {
    ...rest,
    days: days.map(({ day, flows, changed }) => ({ day, flows, changed })),
    late,
    flows: sum(({ flows }) => flows) + late.flows,
    changed: sum(({ changed }) => changed) + late.changed,
    unknown: sum(({ unknown }) => unknown),
    before: coverage(days.flatMap(({ before }) => before)),
    after: coverage(days.flatMap(({ after }) => after)),
  };
}
