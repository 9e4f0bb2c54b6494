/** Judges stored edges by another policy, page by page; only what rollups can't decide is read from single flows. */
import { type DraftResult, DraftRun } from '../../../lib/draft/draft.ts';
import { type EdgeRow, edgeKeyOf, IdentityIndex, type SidedSums } from '../../../lib/draft/edges.ts';
import { Judge } from '../../../lib/draft/judge.ts';
import type { UnexplainedEdge } from '../../../lib/suggest/edges.ts';
import type { PolicyDocument } from '../../../schemas/policy.ts';
import { addressText } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import type { FlowFilter } from '../filters.ts';
import type { Statement } from './bindings.ts';
import {
  allIdentitiesSql,
  type DraftPage,
  draftFlowsSql,
  draftPageSql,
  draftPages,
  edgesPerStatement,
  type IdentityRow,
  identityOfRow,
  type PackedRow,
  type PortRows,
  portRowsSql,
  unpackRow,
} from './draft.ts';
import { draftEvidenceSql, type EvidenceRow } from './draft-evidence.ts';
import type { EdgePlan } from './plan.ts';

/** Groups of single flows that are read at most for one draft; edges beyond stay undecided. */
export const maxFlowGroups = 1_000_000;

export interface Drafting {
  readonly context: Pick<RouteContext, 'ask'>;
  readonly filter: FlowFilter;
  readonly plan: EdgePlan;
  readonly nowMs: number;
  readonly signal: AbortSignal;
}

export interface DraftQuestion {
  readonly draft: PolicyDocument;
  readonly against: PolicyDocument | null;
  readonly limit: number;
  readonly onUnexplained?: (edge: EdgeRow, sums: SidedSums) => void;
}

export interface Drafted {
  readonly result: DraftResult;
  readonly draft: Judge;
  readonly against: Judge | null;
  readonly identities: IdentityIndex;
}

function ask<T>({ context, signal }: Drafting, statement: Statement): Promise<T[]> {
  return context.ask<T>(statement, signal);
}

async function readIdentities(asked: Drafting): Promise<IdentityIndex> {
  const rows = await ask<IdentityRow>(asked, allIdentitiesSql);
  return new IdentityIndex(rows.map(identityOfRow));
}

/** The pages of a window one after the other; the next one is asked for while this one is judged. */
async function* pagesOf(asked: Drafting): AsyncGenerator<EdgeRow[]> {
  const { filter, plan } = asked;
  const ports = await ask<PortRows>(asked, portRowsSql(filter, plan));
  const askPage = (page: DraftPage | undefined) =>
    page === undefined ? null : ask<PackedRow>(asked, draftPageSql(filter, plan, page));
  const pages = draftPages(ports);
  let next = askPage(pages[0]);
  for (let i = 1; next !== null; i++) {
    const rows = await next;
    next = askPage(pages[i]);
    // Whoever fails before it is awaited shall not end the process.
    next?.catch(() => undefined);
    yield rows.map(unpackRow);
  }
}

export async function evaluateDraft(asked: Drafting, question: DraftQuestion): Promise<Drafted> {
  const { filter, plan, nowMs } = asked;
  const identities = await readIdentities(asked);
  const draft = await Judge.of(question.draft, identities, nowMs);
  const against = question.against === null ? null : await Judge.of(question.against, identities, nowMs);
  const run = new DraftRun({ ...question, draft, against });
  for await (const rows of pagesOf(asked)) run.take(rows);
  const detail = {
    process: draft.asksForProcess || against?.asksForProcess === true,
    dns: draft.asksForNames || against?.asksForNames === true,
  };
  const waiting = run.waiting();
  let left = maxFlowGroups;
  for (let at = 0; at < waiting.length && left > 0; at += edgesPerStatement) {
    const some = waiting.slice(at, at + edgesPerStatement);
    const rows = await ask<PackedRow>(asked, draftFlowsSql(filter, plan, some, detail, left));
    left -= rows.length;
    run.takeFlows(rows.map(unpackRow));
  }
  return { result: run.finish(), draft, against, identities };
}

/** Edges that are looked at in single flows for evidence, the busiest first; the others come without. */
const maxEvidenceEdges = 50_000;

export interface Unexplained {
  readonly drafted: Drafted;
  readonly edges: readonly UnexplainedEdge[];
}

/** Everything that a policy leaves unexplained, with evidence. */
export async function readUnexplained(asked: Drafting, document: PolicyDocument): Promise<Unexplained> {
  const found: { readonly edge: EdgeRow; readonly sums: SidedSums }[] = [];
  const drafted = await evaluateDraft(asked, {
    draft: document,
    against: null,
    limit: 0,
    onUnexplained: (edge, sums) => found.push({ edge, sums }),
  });
  found.sort((a, b) => b.sums.connections - a.sums.connections);
  const evidence = new Map<string, EvidenceRow>();
  const { filter, plan } = asked;
  const looked = found.slice(0, maxEvidenceEdges).map(({ edge }) => edge);
  for (let at = 0; at < looked.length; at += edgesPerStatement) {
    const some = looked.slice(at, at + edgesPerStatement);
    const rows = await ask<EvidenceRow>(asked, draftEvidenceSql(filter, plan, some));
    for (const row of rows) evidence.set(`${row.s} ${row.d} ${row.i} ${row.j} ${row.p} ${row.t}`, row);
  }
  const { identities } = drafted;
  const edges = found.map(({ edge, sums }): UnexplainedEdge => {
    const row = evidence.get(edgeKeyOf(edge));
    return {
      source: identities.of(edge.source),
      destination: identities.of(edge.destination),
      sourceAddress: addressText(edge.sourceIp),
      destinationAddress: addressText(edge.destinationIp),
      port: edge.port,
      protocol: edge.protocol,
      connections: sums.connections,
      bytes: sums.bytes,
      firstS: sums.firstS,
      lastS: sums.lastS,
      minutes: Number(row?.minutes ?? 0),
      sourceWorkloads: row?.sources ?? [],
      destinationWorkloads: row?.destinations ?? [],
      dns: row?.names ?? [],
    };
  });
  return { drafted, edges };
}
