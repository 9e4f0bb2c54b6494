/** Suggests rules for what no rule explains, and sets aside what a person has to look at first. */
import type { IpList, PolicyDocument, Rule, Ruleset } from '../../schemas/policy.ts';
import { type EdgeRow, IdentityIndex, type KnownIdentity } from '../draft/edges.ts';
import { Judge } from '../draft/judge.ts';
import { labelGroupsOf } from '../policy/match.ts';
import { type DraftRule, type Drafts, draftRules, type Located, type Target } from './candidates.ts';
import { isWorkload, type Subject, subjectKey, subjectOf, type UnexplainedEdge } from './edges.ts';
import { IdentityFinder } from './finder.ts';
import { type Opening, openingOf } from './opening.ts';
import { type Precedent, Precedents } from './precedent.ts';
import { SelectorChooser } from './selectors.ts';
import { edgeSuspicions, minOutsideApps, minOutsideWorkloads, type ReviewReason } from './suspicion.ts';

/** Connections below which a rule is made of one-offs. */
const fewestConnections = 3;
/** Applications in which the same roles talk by the same services, so that one more of them is no one-off. */
const minAppsOfPattern = 3;
/** Rounds of taking back rules that explain what is under review. */
const maxRounds = 8;

export interface Evidence {
  readonly connections: number;
  readonly bytes: number;
  readonly edges: number;
  /** Distinct workloads that were seen, at least. */
  readonly sourceWorkloads: number;
  readonly destinationWorkloads: number;
  /** Seconds since the epoch. */
  readonly firstS: number;
  readonly lastS: number;
  /** Most minutes in which one of its edges was seen. */
  readonly minutes: number;
}

export interface Confidence {
  /** 0 to 1. */
  readonly score: number;
  readonly level: 'high' | 'medium' | 'low';
}

export interface SuggestedRule {
  readonly ruleset: string;
  readonly rule: Rule;
  readonly evidence: Evidence;
  readonly confidence: Confidence;
  readonly opens: Opening;
}

export interface ReviewItem {
  readonly reasons: readonly ReviewReason[];
  /** The edges of one source subject, destination and port; the busiest first. */
  readonly edges: readonly UnexplainedEdge[];
  readonly evidence: Evidence;
}

export interface Suggestions {
  readonly rules: readonly SuggestedRule[];
  readonly rulesets: readonly Ruleset[];
  readonly ipLists: readonly IpList[];
  readonly review: readonly ReviewItem[];
}

export interface SuggestInput {
  readonly document: PolicyDocument;
  /** All that are known: what a rule would open is counted among them. */
  readonly identities: readonly KnownIdentity[];
  readonly edges: readonly UnexplainedEdge[];
  /** Length of the window, seconds. */
  readonly windowS: number;
  readonly nowMs: number;
}

export function evidenceOf(edges: readonly UnexplainedEdge[]): Evidence {
  const sources = new Set<string>();
  const destinations = new Set<string>();
  const evidence = {
    connections: 0,
    bytes: 0,
    edges: edges.length,
    firstS: Number.POSITIVE_INFINITY,
    lastS: 0,
    minutes: 0,
  };
  for (const edge of edges) {
    evidence.connections += edge.connections;
    evidence.bytes += edge.bytes;
    evidence.firstS = Math.min(evidence.firstS, edge.firstS);
    evidence.lastS = Math.max(evidence.lastS, edge.lastS);
    evidence.minutes = Math.max(evidence.minutes, edge.minutes);
    for (const workload of edge.sourceWorkloads) sources.add(workload);
    for (const workload of edge.destinationWorkloads) destinations.add(workload);
    if (edge.sourceAddress !== null) sources.add(edge.sourceAddress);
    if (edge.destinationAddress !== null) destinations.add(edge.destinationAddress);
  }
  return { ...evidence, sourceWorkloads: sources.size, destinationWorkloads: destinations.size };
}

interface Considered {
  readonly edge: UnexplainedEdge;
  readonly precedents: readonly Precedent[];
  readonly reasons: ReviewReason[];
}

const appOf = ({ source }: UnexplainedEdge): string => source.labels.app ?? source.namespace;

/** Where an edge leads outside, for counting who else goes there. */
function peerOf(edge: UnexplainedEdge, precedents: Precedents): string {
  const { destination, destinationAddress, port, protocol } = edge;
  const subject = subjectOf(destination);
  if (subject !== null && subject.type !== 'outside') return `${subjectKey(subject)} ${port}/${protocol}`;
  const list = destinationAddress === null ? null : precedents.listOf(destinationAddress);
  return `${list ?? edge.dns[0] ?? destinationAddress ?? ''} ${port}/${protocol}`;
}

/** What leaves the estate is common when a rule goes there already, or several applications and workloads do. */
function markOutside(considered: readonly Considered[], precedents: Precedents): void {
  const peers = new Map<string, { readonly apps: Set<string>; readonly workloads: Set<string> }>();
  const outside = considered.filter(({ edge }) => edge.destination.zone === 'outside');
  for (const { edge } of outside) {
    const key = peerOf(edge, precedents);
    const peer = peers.get(key) ?? { apps: new Set(), workloads: new Set() };
    peers.set(key, peer);
    peer.apps.add(appOf(edge));
    for (const workload of edge.sourceWorkloads) peer.workloads.add(workload);
  }
  for (const { edge, precedents: known, reasons } of outside) {
    if (known.length > 0) continue;
    const peer = peers.get(peerOf(edge, precedents));
    if ((peer?.apps.size ?? 0) < minOutsideApps || (peer?.workloads.size ?? 0) < minOutsideWorkloads)
      reasons.push('leaves-estate');
  }
}

function targetOf({ destination, destinationAddress, dns }: UnexplainedEdge, all: Precedents): Target | null {
  const subject = subjectOf(destination);
  if (subject === null || subject.type === 'labels' || subject.type === 'name') return subject;
  const list = destinationAddress === null ? null : all.listOf(destinationAddress);
  if (list !== null) return { type: 'list', name: list };
  const [name] = dns;
  return subject.type === 'range' || name === undefined ? subject : { type: 'dns', name };
}

function rowOf({
  source,
  destination,
  sourceAddress,
  destinationAddress,
  ...edge
}: UnexplainedEdge): EdgeRow {
  return {
    source: source.id,
    destination: destination.id,
    sourceIp: sourceAddress ?? '::',
    destinationIp: destinationAddress ?? '::',
    port: edge.port,
    protocol: edge.protocol,
    verdict: 0,
    reason: 0,
    rule: '0',
    side: 0,
    flows: 1,
    connections: edge.connections,
    bytesForward: edge.bytes,
    bytesReverse: 0,
    firstS: edge.firstS,
    lastS: edge.lastS,
    dns: edge.dns[0] ?? '',
  };
}

function rulesetsOf(rules: readonly DraftRule[]): Ruleset[] {
  const rulesets = new Map<string, Ruleset>();
  for (const { ruleset, scope, owner, rule } of rules) {
    const known = rulesets.get(ruleset);
    rulesets.set(ruleset, {
      name: ruleset,
      ...(scope === undefined ? {} : { scope }),
      ...(owner === null ? {} : { owner }),
      rules: [...(known?.rules ?? []), rule],
    });
  }
  return [...rulesets.values()];
}

const nameOf = (ruleset: string, rule: string): string => `${ruleset}/${rule}`;

/** Which suggested rule explains which edges, asked of the engine; beside them those of the policy itself. */
function explainedBy(
  drafts: Drafts,
  edges: readonly UnexplainedEdge[],
  { document, identities, nowMs }: SuggestInput,
): Map<string, UnexplainedEdge[]> {
  const judge = new Judge(
    {
      ...document,
      ipLists: [...document.ipLists, ...drafts.ipLists],
      rulesets: [...document.rulesets, ...rulesetsOf(drafts.rules)],
    },
    new IdentityIndex(identities),
    nowMs,
  );
  const explained = new Map<string, UnexplainedEdge[]>();
  for (const edge of edges) {
    const compiled = judge.rules[judge.judge(rowOf(edge)).rule];
    if (compiled === undefined || compiled.action !== 'allow') continue;
    const name = nameOf(compiled.ruleset.name, compiled.rule.name);
    const list = explained.get(name);
    if (list === undefined) explained.set(name, [edge]);
    else list.push(edge);
  }
  return explained;
}

/** The roles at both ends with the services, by which applications that do the same are known. */
function patternOf({ rule, edges }: DraftRule): string {
  const roles = (of: (edge: UnexplainedEdge) => string | undefined): string[] =>
    [...new Set(edges.map((edge) => of(edge) ?? ''))].sort();
  return JSON.stringify([
    roles(({ source }) => source.labels.role),
    roles(({ destination }) => destination.labels.role),
    rule.services,
  ]);
}

function isOneOff(draft: DraftRule, patterns: ReadonlyMap<string, number>): boolean {
  const { connections } = evidenceOf(draft.edges);
  return connections < fewestConnections && (patterns.get(patternOf(draft)) ?? 0) < minAppsOfPattern;
}

interface Sorted {
  readonly drafts: Drafts;
  readonly explained: ReadonlyMap<string, readonly UnexplainedEdge[]>;
}

/** Drafts rules for what is not suspicious; takes back those that are made of one-offs, or explain what is under review. */
function settle(
  located: readonly Located[],
  reasonsOf: Map<UnexplainedEdge, ReviewReason[]>,
  input: SuggestInput,
): Sorted {
  const chooser = new SelectorChooser(input.identities);
  let left = located;
  for (let round = 0; ; round++) {
    const drafts = draftRules(left, input.document, chooser);
    const patterns = new Map<string, number>();
    for (const draft of drafts.rules)
      patterns.set(patternOf(draft), (patterns.get(patternOf(draft)) ?? 0) + 1);
    const takenBack = new Map<DraftRule, ReviewReason>();
    for (const draft of drafts.rules) if (isOneOff(draft, patterns)) takenBack.set(draft, 'one-off');
    const explained = explainedBy(drafts, input.edges, input);
    for (const draft of drafts.rules) {
      const beyond = (explained.get(nameOf(draft.ruleset, draft.rule.name)) ?? []).some((edge) =>
        (reasonsOf.get(edge) ?? []).some((reason) => reason !== 'one-off' && reason !== 'covers-suspicious'),
      );
      if (beyond) takenBack.set(draft, 'covers-suspicious');
    }
    if (takenBack.size === 0 || round >= maxRounds) {
      const kept = drafts.rules.filter((draft) => !takenBack.has(draft));
      return { drafts: { ...drafts, rules: kept }, explained };
    }
    const gone = new Set<UnexplainedEdge>();
    for (const [{ edges }, reason] of takenBack) {
      for (const edge of edges) {
        gone.add(edge);
        reasonsOf.set(edge, [...(reasonsOf.get(edge) ?? []), reason]);
      }
    }
    left = left.filter(({ edge }) => !gone.has(edge));
  }
}

function confidenceOf(evidence: Evidence, opens: Opening, windowS: number): Confidence {
  const often = Math.min(1, Math.log10(1 + evidence.connections) / 3);
  const long = Math.min(1, (evidence.lastS - evidence.firstS) / Math.max(1, windowS / 2));
  const score = Math.round((0.35 * often + 0.3 * long + 0.35 * opens.seenShare) * 100) / 100;
  return { score, level: score >= 0.7 ? 'high' : score >= 0.4 ? 'medium' : 'low' };
}

function reviewItems(reasonsOf: ReadonlyMap<UnexplainedEdge, readonly ReviewReason[]>): ReviewItem[] {
  const groups = new Map<
    string,
    { readonly reasons: readonly ReviewReason[]; readonly edges: UnexplainedEdge[] }
  >();
  const who = (identity: KnownIdentity, subject: Subject | null): string =>
    subject === null ? `${identity.kind} ${identity.cluster}/${identity.namespace}` : subjectKey(subject);
  for (const [edge, reasons] of reasonsOf) {
    const { source, destination, destinationAddress, port, protocol } = edge;
    const to = subjectOf(destination);
    const address = to === null || to.type === 'outside' ? (edge.dns[0] ?? destinationAddress) : '';
    const key = JSON.stringify([
      [...new Set(reasons)].sort(),
      who(source, subjectOf(source)),
      isWorkload(source) ? (source.labels.env ?? '') : '',
      who(destination, to),
      address,
      port,
      protocol,
    ]);
    const group = groups.get(key) ?? { reasons: [...new Set(reasons)], edges: [] };
    groups.set(key, group);
    group.edges.push(edge);
  }
  return [...groups.values()]
    .map(({ reasons, edges }) => ({
      reasons,
      edges: edges.sort((a, b) => b.connections - a.connections),
      evidence: evidenceOf(edges),
    }))
    .sort((a, b) => b.evidence.connections - a.evidence.connections);
}

/** Rules for what is unexplained and looks as it should; everything else is under review. */
export function suggest(input: SuggestInput): Suggestions {
  const precedents = new Precedents(input.document);
  const considered = input.edges.map((edge): Considered => {
    const known = precedents.of(edge);
    return { edge, precedents: known, reasons: edgeSuspicions(edge, known) };
  });
  markOutside(considered, precedents);
  const reasonsOf = new Map<UnexplainedEdge, ReviewReason[]>();
  const located: Located[] = [];
  for (const one of considered) {
    const source = subjectOf(one.edge.source);
    const target = targetOf(one.edge, precedents);
    if (one.reasons.length > 0 || source === null || target === null)
      reasonsOf.set(one.edge, one.reasons.length > 0 ? one.reasons : ['unlabelled-end']);
    else located.push({ edge: one.edge, source, target });
  }
  const { drafts, explained } = settle(located, reasonsOf, input);
  const groups = labelGroupsOf(input.document.labelGroups);
  const finder = new IdentityFinder(input.identities, groups);
  const rules = drafts.rules.flatMap((draft): SuggestedRule[] => {
    const edges = explained.get(nameOf(draft.ruleset, draft.rule.name)) ?? [];
    // Another suggested rule explains all of it.
    if (edges.length === 0) return [];
    const evidence = evidenceOf(edges);
    const opens = openingOf(draft, edges, finder, groups);
    return [
      {
        ruleset: draft.ruleset,
        rule: draft.rule,
        evidence,
        confidence: confidenceOf(evidence, opens, input.windowS),
        opens,
      },
    ];
  });
  const kept = new Set(rules.map(({ ruleset, rule }) => nameOf(ruleset, rule.name)));
  const keptDrafts = drafts.rules.filter((draft) => kept.has(nameOf(draft.ruleset, draft.rule.name)));
  const lists = new Set(
    keptDrafts.flatMap(({ rule }) => rule.to.flatMap((actor) => ('ipList' in actor ? [actor.ipList] : []))),
  );
  // What a rule explains after all needs no review.
  for (const [name, edges] of explained) if (kept.has(name)) for (const edge of edges) reasonsOf.delete(edge);
  return {
    rules: rules.sort((a, b) => b.evidence.connections - a.evidence.connections),
    rulesets: rulesetsOf(keptDrafts),
    ipLists: drafts.ipLists.filter(({ name }) => lists.has(name)),
    review: reviewItems(reasonsOf),
  };
}
