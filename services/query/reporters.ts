/** Which agents should have reported an end of a connection: those on its node, or those that speak for it elsewhere. */
import type { RouteContext } from './context.ts';
import type { Window } from './filters.ts';
import type { Reporter } from './one-sided.ts';
import {
  type EndSide,
  endSides,
  placesSql,
  reportersSql,
  spokesmenSql,
  watchedSql,
} from './sql/one-sided.ts';

/** Most workload ids that one question names. */
const idsAtOnce = 2_000;

interface ReporterRow {
  readonly agent_name: string;
  readonly cluster_name: string;
  readonly node_name: string;
  readonly reached_ms: string;
  readonly is_sampling: number;
  readonly hazards: readonly (readonly [string, string])[];
}

interface Agents {
  readonly byName: ReadonlyMap<string, Reporter>;
  readonly byPlace: ReadonlyMap<string, readonly Reporter[]>;
}

function placeKey(row: { readonly cluster_name: string; readonly node_name: string }): string {
  return `${row.cluster_name}\n${row.node_name}`;
}

async function readAgents(context: RouteContext, window: Window, signal: AbortSignal): Promise<Agents> {
  const rows = await context.ask<ReporterRow>(reportersSql(window, context.ledger), signal);
  const byName = new Map<string, Reporter>();
  const byPlace = new Map<string, Reporter[]>();
  for (const row of rows) {
    const reporter: Reporter = {
      agent: row.agent_name,
      reachedMs: Number(row.reached_ms),
      sampling: row.is_sampling === 1,
      hazards: row.hazards.map(([from, to]) => [Number(from), Number(to)]),
    };
    byName.set(reporter.agent, reporter);
    const place = byPlace.get(placeKey(row));
    if (place === undefined) byPlace.set(placeKey(row), [reporter]);
    else place.push(reporter);
  }
  return { byName, byPlace };
}

async function inChunks<T>(
  ids: readonly string[],
  ask: (chunk: readonly string[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const rows: T[] = [];
  for (let at = 0; at < ids.length; at += idsAtOnce) rows.push(...(await ask(ids.slice(at, at + idsAtOnce))));
  return rows;
}

/** Agents that should have reported each of these workloads on `side`; a workload without any is left out. */
export type ReportersOf = (side: EndSide, workload: string) => readonly Reporter[];

/** Looks up who should have reported the workloads on each side. */
export async function readReporters(
  context: RouteContext,
  window: Window,
  workloads: Readonly<Record<EndSide, ReadonlySet<string>>>,
  signal: AbortSignal,
): Promise<ReportersOf> {
  const agents = await readAgents(context, window, signal);
  const all = [...new Set([...workloads.source, ...workloads.destination])];
  const places = await inChunks(all, (chunk) =>
    context.ask<{ workload_id: string; cluster_name: string; node_name: string }>(placesSql(chunk), signal),
  );
  const placed = new Map(
    places.flatMap((row) => {
      const found = agents.byPlace.get(placeKey(row));
      return found === undefined || row.node_name === '' ? [] : [[row.workload_id, found] as const];
    }),
  );
  const spoken: Record<EndSide, Map<string, Reporter[]>> = { source: new Map(), destination: new Map() };
  for (const side of ['source', 'destination'] as const) {
    const unplaced = [...workloads[side]].filter((id) => !placed.has(id));
    const rows = await inChunks(unplaced, (chunk) =>
      context.ask<{ workload_id: string; agents: string[] }>(spokesmenSql(side, chunk, window), signal),
    );
    for (const row of rows) {
      const found = row.agents.flatMap((name) => agents.byName.get(name) ?? []);
      spoken[side].set(row.workload_id, found);
    }
  }
  return (side, workload) => placed.get(workload) ?? spoken[side].get(workload) ?? [];
}

/** Those of the workloads (`id`) or identities that are where an agent reports from around the window. */
export async function readWatched(
  context: RouteContext,
  column: 'id' | 'identity',
  ids: Iterable<string>,
  window: Window,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const wanted = [...new Set(ids)].filter((id) => id !== '0');
  const rows = await inChunks(wanted, (chunk) =>
    context.ask<{ watched: string }>(watchedSql(column, chunk, window, context.ledger), signal),
  );
  return new Set(rows.map(({ watched }) => watched));
}

/** The ends of rows whose sides did not report: their identities, or other ids. */
export function absentEnds<R extends { readonly sides: readonly string[] }>(
  rows: readonly R[],
  idOf: (row: R, side: EndSide) => string,
): string[] {
  return rows.flatMap((row) =>
    endSides.filter((side) => !row.sides.includes(side)).map((side) => idOf(row, side)),
  );
}
