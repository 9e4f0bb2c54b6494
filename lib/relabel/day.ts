/**
 * Relabels one day (UTC) of `flows`. The day is moved to `flows_relabel` in one step, so that nobody writes to it while it
 * is worked at and new rows of that day arrive in `flows` as ever; it is replaced there, and moved back. Rollups get the
 * difference, prepared in tables beside them, by moving it in. Each step either happened or did not, and can be told.
 */
import { failpoint } from '../runtime/failpoint.ts';
import type { Store } from '../store/store.ts';
import type { Mapping } from './mapping.ts';
import type { Run, RunRow } from './runs.ts';
import {
  balanceQuery,
  type CoverageRow,
  coverageAfterQuery,
  coverageQuery,
  type Given,
  hoursInsert,
  minutesInsert,
  movePartition,
  replacePartition,
  rowsInsert,
  type Slice,
  type SliceSummary,
  seenInsert,
  summaryQuery,
  totalsQuery,
} from './sql.ts';

const daySeconds = 86_400;
/** Flows that are joined with their names at a time, about; the smallest slice is a minute. */
const sliceRows = 4_000_000;
/** Parts of a day that end on whole minutes. */
const partCounts = [1, 2, 3, 4, 6, 8, 12, 24, 48, 96, 144, 288, 720, 1440];

export interface DayResult {
  readonly day: number;
  readonly flows: number;
  readonly changed: number;
  /** Flows with an end that the inventory knows nothing about any more. */
  readonly unknown: number;
  readonly before: readonly CoverageRow[];
  readonly after: readonly CoverageRow[];
}

/** The check of a day failed: nothing was replaced. */
export class TotalsError extends Error {
  override readonly name = 'TotalsError';
}

export interface DayParts {
  readonly store: Store;
  readonly mapping: Mapping;
  readonly given: Given;
  readonly run: Run;
}

/** Begin of a day such as 20260131, seconds since the epoch. */
export function dayBegin(day: number): number {
  return Date.UTC(Math.floor(day / 10_000), (Math.floor(day / 100) % 100) - 1, day % 100) / 1000;
}

async function countOf(store: Store, table: string, day: number): Promise<number> {
  const [row] = await store.query<{ count: string }>(
    `SELECT count() AS count FROM ${table} WHERE toYYYYMMDD(time) = {day:UInt32}`,
    { day },
  );
  return Number(row?.count ?? 0);
}

function slicesOf(day: number, rows: number): Slice[] {
  const wanted = rows / sliceRows;
  const count = partCounts.find((parts) => parts >= wanted) ?? 1440;
  const length = daySeconds / count;
  const begin = dayBegin(day);
  return Array.from({ length: count }, (_, i) => ({
    from: begin + i * length,
    to: begin + (i + 1) * length,
  }));
}

/** Slices of a day in which there is something to do. */
async function busySlices(store: Store, table: string, day: number, given: Given): Promise<Slice[]> {
  const slices = slicesOf(day, await countOf(store, table, day));
  return slices.filter(({ to }) => to > given.since);
}

async function truncate(store: Store, ...tables: readonly string[]): Promise<void> {
  for (const table of tables) await store.command(`TRUNCATE TABLE ${table}`);
}

/** Gives a day back as it was taken. */
async function giveBack(store: Store, day: number): Promise<void> {
  if ((await countOf(store, 'flows_relabel', day)) > 0)
    await store.command(movePartition(String(day), 'flows_relabel', 'flows'));
}

async function swap(store: Store, day: number): Promise<void> {
  await store.command(replacePartition(String(day), 'flows_relabel', 'flows_relabel_new'));
}

/**
 * Moves the differences into the rollups. What has been moved is no longer here, so it may be tried any number of times.
 * A rollup that no longer has the day gets none: it would be all that is there.
 */
async function roll(store: Store, day: number): Promise<void> {
  const { minuteDays, hourDays } = store.config.retention;
  const ageDays = (Date.now() / 1000 - dayBegin(day)) / daySeconds;
  const moves = [
    { table: 'edges_1m', partition: String(day), isKept: ageDays < minuteDays },
    { table: 'edges_1h', partition: String(Math.floor(day / 100)), isKept: ageDays < hourDays },
    { table: 'edges_seen', partition: 'tuple()', isKept: ageDays < hourDays },
  ];
  for (const { table, partition, isKept } of moves) {
    const [left] = await store.query<{ count: string }>(`SELECT count() AS count FROM ${table}_relabel`);
    if (Number(left?.count ?? 0) === 0) continue;
    if (isKept) await store.command(movePartition(partition, `${table}_relabel`, table));
    else await truncate(store, `${table}_relabel`);
    failpoint(`relabel.${table}`);
  }
}

/** Finishes the day that a dead run was at, as far as it had decided; otherwise gives it back. */
export async function finishDay(store: Store, left: RunRow): Promise<void> {
  const { day, step } = left;
  if (day === 0) return;
  if (step === 'built') await swap(store, day);
  if (step === 'built' || step === 'swapped') await roll(store, day);
  await giveBack(store, day);
}

async function readTotals(store: Store, table: string, day: number): Promise<Record<string, string>> {
  const [totals] = await store.query<Record<string, string>>(totalsQuery(table, day));
  return totals ?? {};
}

/** Fills the tables beside: the rows as they will be, and what that makes of the rollups. */
async function build(parts: DayParts, day: number): Promise<DayResult> {
  const { store, mapping, given } = parts;
  const table = 'flows_relabel';
  await truncate(store, 'flows_relabel_new', 'edges_1m_relabel', 'edges_1h_relabel', 'edges_seen_relabel');
  let [flows, changed, unknown] = [0, 0, 0];
  const begin = dayBegin(day);
  // What came before `since` on the first day stays as it is, but it is replaced with the rest.
  const slices = slicesOf(day, await countOf(store, table, day));
  for (const slice of slices) {
    await mapping.prepare(table, slice);
    await store.command(rowsInsert(table, slice, given));
    const [summary] = await store.query<SliceSummary>(summaryQuery(table, slice, given));
    flows += Number(summary?.flows ?? 0);
    changed += Number(summary?.changed ?? 0);
    unknown += Number(summary?.unknown ?? 0);
    await store.command(minutesInsert(slice));
  }
  await checkTotals(store, day);
  await store.command(hoursInsert());
  await store.command(seenInsert());
  await checkBalance(store);
  const whole = { from: begin, to: begin + daySeconds };
  const [before, after] = await Promise.all([
    store.query<CoverageRow>(coverageQuery(table, given, whole)),
    store.query<CoverageRow>(coverageQuery('flows_relabel_new', given, whole)),
  ]);
  return { day, flows, changed, unknown, before, after };
}

async function checkTotals(store: Store, day: number): Promise<void> {
  const before = await readTotals(store, 'flows_relabel', day);
  const after = await readTotals(store, 'flows_relabel_new', day);
  const wrong = Object.keys(before).filter((key) => before[key] !== after[key]);
  if (wrong.length > 0)
    throw new TotalsError(
      `day ${day}: ${wrong.map((key) => `${key} was ${before[key]}, would be ${after[key]}`).join('; ')}`,
    );
}

async function checkBalance(store: Store): Promise<void> {
  for (const table of ['edges_1m_relabel', 'edges_1h_relabel']) {
    const [sums = {}] = await store.query<Record<string, string>>(balanceQuery(table));
    const wrong = Object.entries(sums).filter(([, sum]) => sum !== '0');
    if (wrong.length > 0)
      throw new TotalsError(`${table}: ${wrong.map(([key, sum]) => `${key} is off by ${sum}`).join('; ')}`);
  }
}

/** Relabels a day. @throws {TotalsError} when sums would not stay the same; the day is as it was then. */
export async function relabelDay(parts: DayParts, day: number): Promise<DayResult> {
  const { store, run } = parts;
  await run.note({ day, step: 'taking' });
  await store.command(movePartition(String(day), 'flows', 'flows_relabel'));
  failpoint('relabel.taken');
  await run.note({ step: 'building' });
  let result: DayResult;
  try {
    result = await build(parts, day);
  } catch (error) {
    // Where the store is away the next run gives it back.
    await giveBack(store, day)
      .then(() => run.note({ day: 0, step: 'started' }))
      .catch(() => undefined);
    throw error;
  }
  failpoint('relabel.building');
  await run.note({ step: 'built' });
  failpoint('relabel.built');
  await swap(store, day);
  failpoint('relabel.replaced');
  await run.note({ step: 'swapped' });
  await roll(store, day);
  await run.note({ step: 'rolled' });
  failpoint('relabel.rolled');
  await giveBack(store, day);
  failpoint('relabel.returned');
  await run.note({ day: 0, step: 'started' });
  await truncate(store, 'flows_relabel_new', 'edges_1m_relabel', 'edges_1h_relabel', 'edges_seen_relabel');
  return result;
}

/** What relabelling a day would do; nothing is moved. */
export async function tryDay(parts: DayParts, day: number): Promise<DayResult> {
  const { store, mapping, given } = parts;
  let [flows, changed, unknown] = [0, 0, 0];
  const [before, after]: [CoverageRow[], CoverageRow[]] = [[], []];
  for (const slice of await busySlices(store, 'flows', day, given)) {
    await mapping.prepare('flows', slice);
    const [summary] = await store.query<SliceSummary>(summaryQuery('flows', slice, given));
    flows += Number(summary?.flows ?? 0);
    changed += Number(summary?.changed ?? 0);
    unknown += Number(summary?.unknown ?? 0);
    before.push(...(await store.query<CoverageRow>(coverageQuery('flows', given, slice))));
    after.push(...(await store.query<CoverageRow>(coverageAfterQuery('flows', slice, given))));
  }
  return { day, flows, changed, unknown, before, after };
}
