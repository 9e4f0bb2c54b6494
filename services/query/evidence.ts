/** What the newest flow of each edge of a page says beyond its identities: names, addresses, provenance, process. */
import type { Certainty, Provenance } from '../../schemas/closed-lists.ts';
import { addressText, type DescribedRow, type Edge, edgeOf, type Sight, textOrNull } from './answers.ts';
import type { RouteContext } from './context.ts';
import type { Window } from './filters.ts';
import { absentEnds, readWatched } from './reporters.ts';
import { evidenceSql } from './sql/unknown.ts';
import { workloadNamesSql } from './sql/workloads.ts';

/** Most workload ids that one lookup of names asks for. */
const namesAtOnce = 2_000;
/** Most edges whose evidence is looked up in one question. */
const evidenceAtOnce = 500;

interface NameRow {
  readonly workload_id: string;
  readonly workload_name: string;
}

/** Names of workloads by id; 0 has none. */
export async function workloadNames(
  context: RouteContext,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const names = new Map<string, string>();
  const wanted = [...new Set(ids)].filter((id) => id !== '0');
  for (let at = 0; at < wanted.length; at += namesAtOnce) {
    const rows = await context.ask<NameRow>(workloadNamesSql(wanted.slice(at, at + namesAtOnce)), signal);
    for (const row of rows) names.set(row.workload_id, row.workload_name);
  }
  return names;
}

/** How an end was named, as rows say it. */
export interface NamedRow {
  readonly src_how: Provenance;
  readonly dst_how: Provenance;
  readonly src_sure: Certainty;
  readonly dst_sure: Certainty;
}

interface EvidenceRow extends NamedRow {
  readonly src_identity_id: string;
  readonly dst_identity_id: string;
  readonly port: number;
  readonly protocol_number: number;
  readonly verdict_name: string;
  readonly src_address: string;
  readonly dst_address: string;
  readonly src_workload_id: string;
  readonly dst_workload_id: string;
  readonly src_ip_text: string;
  readonly dst_ip_text: string;
  readonly dns: string;
  readonly process_name: string;
}

/** A row of an edge with the second it was last seen. */
export type SeenRow = DescribedRow & { readonly last_seen_s: number };

type EdgeIdentity = Pick<
  EvidenceRow,
  | 'src_identity_id'
  | 'dst_identity_id'
  | 'port'
  | 'protocol_number'
  | 'verdict_name'
  | 'src_address'
  | 'dst_address'
>;

function edgeKeyOf(row: EdgeIdentity): string {
  return [
    row.src_identity_id,
    row.dst_identity_id,
    row.port,
    row.protocol_number,
    row.verdict_name,
    row.src_address,
    row.dst_address,
  ].join(' ');
}

export function sightOf(
  names: ReadonlyMap<string, string>,
  workload: string,
  address: string,
  provenance: Provenance | null,
  certainty: Certainty | null,
  watched: boolean,
): Sight {
  return {
    workload: names.get(workload) ?? null,
    address: addressText(address),
    provenance,
    certainty,
    watched,
  };
}

const unseen = { workload: null, address: null, provenance: null, certainty: null } as const;

/** From the second in which the first of these was last seen until the newest. */
function sightWindow(rows: readonly SeenRow[]): Window {
  const times = rows.map((row) => row.last_seen_s);
  return { sinceS: Math.min(...times), untilS: Math.max(...times) + 1 };
}

/** An edge with what its newest flow says, where that is still kept. */
export interface EvidencedEdge<R extends SeenRow> {
  readonly row: R;
  readonly edge: Edge;
  readonly process: string | null;
}

/**
 * The edges of a page, each with the evidence of its newest flow. `withSample` adds the workloads and addresses of that
 * flow; without it an end that stands for many has neither.
 */
export async function edgesWithEvidence<R extends SeenRow>(
  context: RouteContext,
  rows: readonly R[],
  withSample: boolean,
  signal: AbortSignal,
): Promise<EvidencedEdge<R>[]> {
  const evidence = new Map<string, EvidenceRow>();
  const seen = rows.filter((row) => row.last_seen_s > 0);
  for (let at = 0; at < seen.length; at += evidenceAtOnce) {
    const statement = evidenceSql(
      seen.slice(at, at + evidenceAtOnce).map((row) => ({
        sourceIdentity: row.src_identity_id,
        destinationIdentity: row.dst_identity_id,
        port: row.port,
        lastSeenS: row.last_seen_s,
      })),
    );
    for (const row of await context.ask<EvidenceRow>(statement, signal)) evidence.set(edgeKeyOf(row), row);
  }
  const ids = withSample
    ? [...evidence.values()].flatMap((row) => [row.src_workload_id, row.dst_workload_id])
    : [];
  const names = await workloadNames(context, ids, signal);
  const address = (text: string): string => (withSample ? text : '::');
  const ends = absentEnds(seen, (row, side) =>
    side === 'source' ? row.src_identity_id : row.dst_identity_id,
  );
  const watched = await readWatched(context, 'identity', ends, sightWindow(seen), signal);
  return rows.map((row) => {
    const found = evidence.get(edgeKeyOf(row));
    const [sourceWatched, destinationWatched] = [
      watched.has(row.src_identity_id),
      watched.has(row.dst_identity_id),
    ];
    if (found === undefined) {
      const source = { ...unseen, watched: sourceWatched };
      const destination = { ...unseen, watched: destinationWatched };
      return { row, edge: edgeOf(row, source, destination, { dns: null, process: null }), process: null };
    }
    const source = sightOf(
      names,
      found.src_workload_id,
      address(found.src_ip_text),
      found.src_how,
      found.src_sure,
      sourceWatched,
    );
    const destination = sightOf(
      names,
      found.dst_workload_id,
      address(found.dst_ip_text),
      found.dst_how,
      found.dst_sure,
      destinationWatched,
    );
    const spoken = { dns: textOrNull(found.dns), process: textOrNull(found.process_name) };
    return { row, edge: edgeOf(row, source, destination, spoken), process: spoken.process };
  });
}
